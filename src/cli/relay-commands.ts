// gokv relay: channels and relay tokens, over the management routes of a running server; and a provider to try it with.

import type { ArgsDef } from "citty";
import { DEFAULT_TYPE, PROVIDER_ADDRESSES } from "../relay/channel-types.ts";
import { given } from "../shared/given.ts";
import { type FlagValues, Misuse, type StrictCommand } from "./run-cli.ts";
import {
  clientGroup,
  expiryMs,
  oneOrOther,
  query,
  requireOneAtMost,
  SECRET_FROM,
  secretOf,
  type Target,
  type Verb,
  verbGroup,
} from "./verb-commands.ts";

const CHANNEL_ID: Target = {
  name: "id",
  isNumber: true,
  description: "Its number, which gokv relay channel list shows",
};
const TOKEN_ID: Target = { name: "id", isNumber: true, description: "Its number, which gokv relay token list shows" };
const TYPES = `The provider: ${Object.keys(PROVIDER_ADDRESSES).join(", ")}`;
const PAGING: ArgsDef = {
  limit: { type: "string", valueHint: "n", description: "At most so many" },
  offset: { type: "string", valueHint: "n", description: "Leave out so many" },
};
const CHANNEL: ArgsDef = {
  type: { type: "string", valueHint: "name", description: TYPES },
  "base-url": { type: "string", valueHint: "url", description: "Its address (default: of the provider)" },
  models: { type: "string", valueHint: "a,b", description: "What it serves (default: everything)" },
  group: { type: "string", valueHint: "a,b", description: "Its groups" },
  weight: { type: "string", valueHint: "n", description: "Its share among those of one priority" },
  priority: { type: "string", valueHint: "n", description: "Higher ones are asked first" },
};
const TOKEN: ArgsDef = {
  models: { type: "string", valueHint: "a,b", description: "What it may ask for (default: everything)" },
  group: { type: "string", valueHint: "a,b", description: "Which channels it may use" },
  quota: { type: "string", valueHint: "n", description: "What it has left, in tokens of a model (default: no limit)" },
  "expires-in": { type: "string", valueHint: "duration", description: "Valid for so long, such as 90d" },
  rpm: { type: "string", valueHint: "n", description: "Requests per minute; 0 = no limit" },
  tpm: { type: "string", valueHint: "n", description: "Tokens of a model per minute; 0 = no limit" },
  "max-parallel": { type: "string", valueHint: "n", description: "Requests at once; 0 = no limit" },
  "allow-ip": { type: "string", valueHint: "range", description: "Only from there; may be repeated" },
};

/** The server gives an upstream ten minutes, and half of one for a list of models: it is to answer first. */
const TEST_MS_MAX = 660_000;
const MODELS_MS_MAX = 60_000;

const channelPath = (id: string, rest = "") => `/api/channel/${encodeURIComponent(id)}${rest}`;
const tokenPath = (id: string) => `/api/token/${encodeURIComponent(id)}`;

const CHANNEL_VERBS: Readonly<Record<string, Verb>> = {
  add: {
    description: "Makes a channel: a provider, its address, its key",
    args: {
      name: { type: "string", required: true, valueHint: "text", description: "A name for people" },
      key: { type: "string", required: true, valueHint: "key", description: `The provider's key, ${SECRET_FROM}` },
      ...CHANNEL,
      type: { type: "string", valueHint: "name", description: `${TYPES}; default ${DEFAULT_TYPE}` },
    },
    ask: async (client, flags) => client.ask("POST", "/api/channel", given(await channelFields(flags))),
  },
  list: {
    description: "Lists channels, their keys masked",
    args: PAGING,
    ask: (client, flags) => client.ask("GET", `/api/channel${query(flags, ["limit", "offset"])}`),
  },
  show: {
    description: "Shows a channel",
    target: CHANNEL_ID,
    ask: (client, _, id) => client.ask("GET", channelPath(id)),
  },
  update: {
    description: "Changes a channel; holds from the next request on",
    isUpdate: true,
    target: CHANNEL_ID,
    args: {
      name: { type: "string", valueHint: "text", description: "Its new name" },
      key: { type: "string", valueHint: "key", description: `Its new key, ${SECRET_FROM}` },
      ...withoutDefaults(CHANNEL),
    },
    ask: async (client, flags, id) => client.ask("PATCH", channelPath(id), given(await channelFields(flags))),
  },
  delete: {
    description: "Deletes a channel",
    target: CHANNEL_ID,
    ask: (client, _, id) => client.ask("DELETE", channelPath(id)),
  },
  test: {
    description: "Sends one small request",
    target: CHANNEL_ID,
    args: { model: { type: "string", valueHint: "name", description: "Which model to ask for" } },
    ask: (client, { model }, id) => client.ask("POST", channelPath(id, "/test"), given({ model }), TEST_MS_MAX),
    hasFailed: ({ success }) => success !== true,
  },
  enable: {
    description: "Enables a channel",
    target: CHANNEL_ID,
    ask: (client, _, id) => client.ask("POST", channelPath(id, "/enable")),
  },
  disable: {
    description: "Disables a channel",
    target: CHANNEL_ID,
    ask: (client, _, id) => client.ask("POST", channelPath(id, "/disable")),
  },
  reset: {
    description: "Forgets its failures and lifts a ban",
    target: CHANNEL_ID,
    ask: (client, _, id) => client.ask("POST", channelPath(id, "/reset")),
  },
  health: {
    description: "Shows how a channel fares",
    target: CHANNEL_ID,
    ask: (client, _, id) => client.ask("GET", channelPath(id, "/health")),
  },
  models: {
    description: "Asks its upstream what it serves",
    target: CHANNEL_ID,
    ask: (client, _, id) => client.ask("GET", channelPath(id, "/models"), undefined, MODELS_MS_MAX),
  },
};

const TOKEN_VERBS: Readonly<Record<string, Verb>> = {
  add: {
    description: "Makes a relay token and prints its key, this once",
    args: {
      name: { type: "string", required: true, valueHint: "text", description: "A name for people" },
      key: { type: "string", valueHint: "key", description: `A key of your own, ${SECRET_FROM}` },
      ...TOKEN,
    },
    async ask(client, flags) {
      const key = await secretOf(flags.key);
      return client.ask("POST", "/api/token", given({ key, ...tokenFields(flags) }));
    },
    show: (answer) => `${answer?.key}\n`,
  },
  list: {
    description: "Lists relay tokens, their keys masked",
    args: PAGING,
    ask: (client, flags) => client.ask("GET", `/api/token${query(flags, ["limit", "offset"])}`),
  },
  show: {
    description: "Shows a relay token",
    target: TOKEN_ID,
    ask: (client, _, id) => client.ask("GET", tokenPath(id)),
  },
  update: {
    description: "Changes a relay token; holds from the next request on",
    isUpdate: true,
    target: TOKEN_ID,
    args: {
      name: { type: "string", valueHint: "text", description: "Its new name" },
      ...withoutDefaults(TOKEN),
      "add-quota": { type: "string", valueHint: "n", description: "Adds to what it has left" },
      unlimited: { type: "boolean", description: "Lifts the limit of its quota" },
      "never-expires": { type: "boolean", description: "Valid for ever" },
      enable: { type: "boolean", description: "Enables it" },
      disable: { type: "boolean", description: "Disables it" },
    },
    ask: (client, flags, id) => client.ask("PATCH", tokenPath(id), given(tokenFields(flags))),
  },
  delete: {
    description: "Deletes a relay token",
    target: TOKEN_ID,
    ask: (client, _, id) => client.ask("DELETE", tokenPath(id)),
  },
};

export const relayCommand: StrictCommand = clientGroup("gokv relay", "Channels and tokens of the LLM relay", {
  channel: async () =>
    verbGroup("gokv relay channel", "Channels: providers, their addresses and keys", "relay", CHANNEL_VERBS),
  token: async () =>
    verbGroup("gokv relay token", "Relay tokens: what clients call with", "relay", TOKEN_VERBS, ["allow-ip"]),
  mock: async () => (await import("./relay-mock-command.ts")).relayMockCommand,
});

async function channelFields(flags: FlagValues): Promise<Record<string, unknown>> {
  const { name, type, models, group } = flags;
  return {
    name,
    type,
    models,
    group,
    key: await secretOf(flags.key),
    base_url: flags["base-url"],
    weight: integer(flags, "weight"),
    priority: integer(flags, "priority"),
  };
}

/** What a change leaves out stays as it is. */
function withoutDefaults(args: ArgsDef): ArgsDef {
  const plain = Object.entries(args).map(
    ([name, arg]) => [name, { ...arg, description: arg.description?.replace(/ \(default: .*\)$/, "") }] as const,
  );
  return Object.fromEntries(plain) as ArgsDef;
}

/** @throws Misuse */
function tokenFields(flags: FlagValues): Record<string, unknown> {
  const { name, models, group } = flags;
  requireOneAtMost(flags, "quota", "unlimited");
  const expiresAtMs = expiryMs(flags);
  const isEnabled = oneOrOther(flags, "enable", "disable");
  return {
    name,
    models,
    group,
    allow_ips: flags["allow-ip"],
    remain_quota: integer(flags, "quota"),
    unlimited_quota: flags.unlimited ?? (flags.quota === undefined ? undefined : false),
    rpm: integer(flags, "rpm"),
    tpm: integer(flags, "tpm"),
    max_parallel: integer(flags, "max-parallel"),
    add_quota: integer(flags, "add-quota"),
    expired_time: expiresAtMs === undefined ? undefined : expiresAtMs === null ? -1 : Math.floor(expiresAtMs / 1000),
    status: isEnabled === undefined ? undefined : Number(isEnabled),
  };
}

function integer(flags: FlagValues, name: string): number | undefined {
  const text = flags[name] as string | undefined;
  if (text === undefined) return undefined;
  if (!/^-?\d{1,15}$/.test(text)) throw new Misuse(`--${name} "${text}" is not a whole number`);
  return Number(text);
}
