// A first channel and a first token out of the settings, so that a new server can relay without being administered.

import { hashOpaque } from "../auth/opaque-token.ts";
import { messageOf } from "../shared/errors.ts";
import type { Log } from "../shared/log.ts";
import type { Settings } from "../shared/settings.ts";
import type { ChannelMonitor } from "./channel-monitor.ts";
import type { ChannelStore } from "./channel-store.ts";
import { lacksStreamOptions, PROVIDER_ADDRESSES } from "./channel-types.ts";
import { maskKey } from "./key-mask.ts";
import { STRONG_KEY_MIN } from "./relay-key.ts";
import type { RelayTokenStore } from "./relay-token-store.ts";

const NAME = "bootstrap";
const GROUPS = ["default"];

interface BootstrapParts {
  readonly settings: Settings;
  readonly channels: ChannelStore;
  readonly tokens: RelayTokenStore;
  readonly monitor: Pick<ChannelMonitor, "changed" | "check">;
  readonly log: Log;
}

/** Makes what is not there yet. Throws what the store throws. */
export async function bootstrapRelay(parts: BootstrapParts): Promise<void> {
  await bootstrapChannel(parts);
  await bootstrapToken(parts);
}

async function bootstrapChannel({ settings, channels, monitor, log }: BootstrapParts): Promise<void> {
  const { relayBootstrapKey: key, relayBootstrapType: type } = settings;
  const baseUrl = settings.relayBootstrapBaseUrl ?? PROVIDER_ADDRESSES[type];
  // The settings let no key without an address pass.
  if (key === null || baseUrl === null) return;
  const fields = {
    type,
    name: NAME,
    baseUrl,
    models: [],
    modelMapping: {},
    groups: GROUPS,
    weight: 1,
    priority: 0,
    status: 1 as const,
    autoBan: true,
    noStreamOptions: lacksStreamOptions(type),
    ttftMs: null,
    totalMs: null,
  };
  const made = await channels.change("relay.createChannel", { fields, key, ring: channels.ring, isFirst: true });
  if (made === null) return log.info("RELAY_BOOTSTRAP_KEY is ignored: there are channels");
  await monitor.changed();
  log.info("a first channel was made from RELAY_BOOTSTRAP_KEY", { channel: made.id, type });
  // It stays: what allows the address may be set with the next start. A look-up of its name is not waited for.
  monitor.check(baseUrl).catch((refusal: unknown) => {
    log.warn(`the first channel cannot be reached: ${messageOf(refusal)}`, { channel: made.id });
  });
}

async function bootstrapToken({ settings, tokens, log }: BootstrapParts): Promise<void> {
  const { relayBootstrapToken: key } = settings;
  if (key === null) return;
  const fields = {
    userId: 0,
    status: 1 as const,
    name: NAME,
    expiresAtMs: null,
    isUnlimited: true,
    remainQuota: 0,
    models: [],
    allowIps: [],
    groups: GROUPS,
    rpm: 0,
    tpm: 0,
    maxParallel: 0,
    cacheTtlSeconds: 0,
  };
  const made = await tokens.change("relay.createToken", {
    keyHash: hashOpaque(key),
    keyMask: maskKey(key),
    fields,
    isFirst: true,
  });
  if (made === null) return log.info("RELAY_BOOTSTRAP_TOKEN is ignored: there are tokens");
  log.info("a first relay token was made from RELAY_BOOTSTRAP_TOKEN", { token: made.id });
  if (key.length < STRONG_KEY_MIN) {
    log.warn(`RELAY_BOOTSTRAP_TOKEN has less than ${STRONG_KEY_MIN} characters: a short token can be guessed`);
  }
}
