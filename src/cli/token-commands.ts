// gokv token: devices, apps and their tokens, over the administrative routes of a running server.

import type { ArgsDef } from "citty";
import { ExitError } from "../shared/errors.ts";
import { given } from "../shared/given.ts";
import { formatTime } from "../shared/iso-time.ts";
import type { AdminClient, Answer } from "./admin-client.ts";
import type { FlagValues, StrictCommand } from "./run-cli.ts";
import {
  clientGroup,
  expiryMs,
  oneOrOther,
  query,
  type Target,
  type Verb,
  verbCommand,
  verbGroup,
} from "./verb-commands.ts";

const DEVICE: Target = { name: "device", description: "Its name: a UUID or any bucket name" };
const APP_ID: Target = { name: "id", description: "Its id: letters, digits, dots, underscores, hyphens" };
const INSTALLATION_ID: Target = { name: "id", description: "Its id, which gokv token install list shows" };

const PAGING: ArgsDef = {
  limit: { type: "string", valueHint: "n", description: "At most so many" },
  cursor: { type: "string", valueHint: "text", description: "Where the last list ended" },
};
const PERMISSIONS: ArgsDef = {
  prefix: { type: "string", valueHint: "name", description: "Only keys below name." },
  grant: { type: "string", valueHint: "name", description: "name, read:name or write:name; may be repeated" },
};
const REPEATABLE = ["grant"];
const INSTALLATION: ArgsDef = {
  note: { type: "string", valueHint: "text", description: "For your own memory" },
  "device-type": { type: "string", valueHint: "text", description: "What kind of device it is" },
  ...PERMISSIONS,
  "read-only": { type: "boolean", description: "May only read" },
  "expires-in": { type: "string", valueHint: "duration", description: "Valid for so long, such as 90d" },
};
const APP: ArgsDef = {
  description: { type: "string", valueHint: "text", description: "What it is for" },
  homepage: { type: "string", valueHint: "url", description: "Where it comes from" },
  ...PERMISSIONS,
};

const DEVICE_VERBS: Readonly<Record<string, Verb>> = {
  create: {
    description: "Makes a device: a namespace of its own",
    target: { ...DEVICE, description: `${DEVICE.description}; default: a new UUID`, isOptional: true },
    args: { name: { type: "string", valueHint: "text", description: "A name for people" } },
    ask: (client, flags, id) =>
      client.ask("POST", "/api/kv/devices", given({ uuid: id || undefined, name: flags.name })),
  },
  list: {
    description: "Lists devices",
    args: PAGING,
    ask: (client, flags) => client.ask("GET", `/api/kv/devices${query(flags, ["limit", "cursor"])}`),
  },
  show: {
    description: "Shows a device",
    target: DEVICE,
    ask: (client, _, id) => client.ask("GET", `/api/kv/devices/${encodeURIComponent(id)}`),
  },
  update: {
    description: "Renames a device",
    target: DEVICE,
    args: { name: { type: "string", required: true, valueHint: "text", description: "Its new name" } },
    ask: (client, { name }, id) => client.ask("PATCH", `/api/kv/devices/${encodeURIComponent(id)}`, given({ name })),
  },
  delete: {
    description: "Deletes a device and its tokens",
    target: DEVICE,
    args: { purge: { type: "boolean", description: "Its entries too" } },
    ask: (client, flags, id) => remove(client, "devices", id, "purge", flags),
  },
};

const APP_VERBS: Readonly<Record<string, Verb>> = {
  create: {
    description: "Makes an app that devices can install",
    target: { ...APP_ID, description: `${APP_ID.description}; default: a new UUID`, isOptional: true },
    args: { name: { type: "string", required: true, valueHint: "text", description: "A name for people" }, ...APP },
    ask: (client, flags, id) => client.ask("POST", "/api/kv/apps", given({ id: id || undefined, ...appFields(flags) })),
  },
  list: {
    description: "Lists apps",
    args: PAGING,
    ask: (client, flags) => client.ask("GET", `/api/kv/apps${query(flags, ["limit", "cursor"])}`),
  },
  show: {
    description: "Shows an app",
    target: APP_ID,
    ask: (client, _, id) => client.ask("GET", `/api/kv/apps/${encodeURIComponent(id)}`),
  },
  update: {
    description: "Changes an app; installations keep what they were given",
    isUpdate: true,
    target: APP_ID,
    args: { name: { type: "string", valueHint: "text", description: "Its new name" }, ...APP },
    ask: (client, flags, id) => client.ask("PATCH", `/api/kv/apps/${encodeURIComponent(id)}`, given(appFields(flags))),
  },
  delete: {
    description: "Deletes an app",
    target: APP_ID,
    args: { revoke: { type: "boolean", description: "Its installations too" } },
    ask: (client, flags, id) => remove(client, "apps", id, "revoke", flags),
  },
};

const INSTALL_VERBS: Readonly<Record<string, Verb>> = {
  list: {
    description: "Lists installations",
    args: {
      device: { type: "string", valueHint: "name", description: "Only of this device" },
      app: { type: "string", valueHint: "id", description: "Only of this app" },
      ...PAGING,
    },
    ask: (client, flags) =>
      client.ask("GET", `/api/kv/installations${query(flags, ["device", "app", "limit", "cursor"])}`),
  },
  show: {
    description: "Shows an installation; never its token",
    target: INSTALLATION_ID,
    ask: (client, _, id) => client.ask("GET", `/api/kv/installations/${encodeURIComponent(id)}`),
  },
  update: {
    description: "Changes an installation; holds from the next request on",
    isUpdate: true,
    target: INSTALLATION_ID,
    args: {
      ...INSTALLATION,
      "read-write": { type: "boolean", description: "May write again" },
      "never-expires": { type: "boolean", description: "Valid for ever" },
    },
    ask: (client, flags, id) =>
      client.ask("PATCH", `/api/kv/installations/${encodeURIComponent(id)}`, given(installationFields(flags))),
  },
  rotate: {
    description: "Prints a new token; the old one is dead",
    target: INSTALLATION_ID,
    ask: (client, _, id) => client.ask("POST", `/api/kv/installations/${encodeURIComponent(id)}/rotate`),
    show: (answer) => `${answer?.token}\n`,
  },
  revoke: {
    description: "Kills a token",
    target: INSTALLATION_ID,
    ask: (client, _, id) => client.ask("DELETE", `/api/kv/installations/${encodeURIComponent(id)}`),
  },
};

const ISSUE: Verb = {
  description: "Prints a new token for an app on a device; makes either when it is missing",
  args: {
    device: { type: "string", required: true, valueHint: "name", description: "The device: a UUID or any bucket name" },
    app: { type: "string", required: true, valueHint: "id", description: "The app, by its id" },
    ...INSTALLATION,
  },
  async ask(client, flags) {
    const device = flags.device as string;
    const app = flags.app as string;
    const installation = given({ deviceUuid: device, appId: app, ...installationFields(flags) });
    // First of all: the server judges the flags before it looks for device and app, so a mistake leaves none behind.
    const issued = await client.askUnlessMissing("POST", "/api/kv/installations", installation);
    if (issued !== null) return issued;
    await makeAppAndDevice(client, app, device);
    return client.ask("POST", "/api/kv/installations", installation);
  },
  show: (answer) => `${answer?.token}\n`,
};

export const tokenCommand: StrictCommand = clientGroup("gokv token", "Devices, apps and their tokens", {
  device: async () => group("device", "Devices: each is a namespace", DEVICE_VERBS),
  app: async () => group("app", "Apps that devices can install", APP_VERBS),
  install: async () => group("install", "Installations: an app on a device, with a token", INSTALL_VERBS),
  issue: async () => verbCommand("gokv token issue", "token", ISSUE, REPEATABLE),
});

function group(name: string, description: string, verbs: Readonly<Record<string, Verb>>): StrictCommand {
  return verbGroup(`gokv token ${name}`, description, "token", verbs, REPEATABLE);
}

/** Both or none: an app that was made for a device that is refused goes again. */
async function makeAppAndDevice(client: AdminClient, app: string, device: string): Promise<void> {
  const isAppNew = await client.ensure("/api/kv/apps", app, { id: app, name: app });
  try {
    await client.ensure("/api/kv/devices", device, { uuid: device });
  } catch (error) {
    // Who uses it meanwhile keeps it: the server refuses then. What is told is why the device was refused.
    if (isAppNew) await client.ask("DELETE", `/api/kv/apps/${encodeURIComponent(app)}`).catch(() => undefined);
    throw error;
  }
}

/** `flag` is a parameter of the route, too, and a refusal names it as such: here it is named as it can be given. */
async function remove(
  client: AdminClient,
  collection: "devices" | "apps",
  id: string,
  flag: "purge" | "revoke",
  flags: FlagValues,
): Promise<Answer> {
  const parameter = `?${flag}=true`;
  try {
    const path = `/api/kv/${collection}/${encodeURIComponent(id)}`;
    return await client.ask("DELETE", flags[flag] === true ? path + parameter : path);
  } catch (error) {
    if (!(error instanceof ExitError)) throw error;
    throw new ExitError(error.exitCode, error.message.replace(parameter, `--${flag}`));
  }
}

function appFields({ name, description, homepage, prefix, grant }: FlagValues): Record<string, unknown> {
  return { name, description, homepage, permissionPrefix: prefix, permissionKey: grant };
}

function installationFields(flags: FlagValues): Record<string, unknown> {
  const { note, prefix, grant } = flags;
  const expiresAtMs = expiryMs(flags);
  return {
    note,
    permissionPrefix: prefix,
    permissionKey: grant,
    deviceType: flags["device-type"],
    isReadOnly: oneOrOther(flags, "read-only", "read-write"),
    expiresAt: typeof expiresAtMs === "number" ? formatTime(expiresAtMs) : expiresAtMs,
  };
}
