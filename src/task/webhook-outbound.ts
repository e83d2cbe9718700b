// The way to the receivers of webhooks: users enter their addresses, so only what is public, or allowed, is dialled.

import { AddressRules } from "../http/address-rules.ts";
import { OutboundTransport } from "../http/outbound-transport.ts";
import { threadlessLookup } from "../http/threadless-lookup.ts";
import type { Log } from "../shared/log.ts";
import type { Settings } from "../shared/settings.ts";

const CONNECT_MS_MAX = 5_000;

type OutboundSettings = Pick<Settings, "webhookAllowCidrs" | "webhookTimeoutMs">;

/** A name with one address that may not be dialled is refused: what it resolves to next is not ours to know. */
export function openWebhookTransport(
  { webhookAllowCidrs, webhookTimeoutMs }: OutboundSettings,
  log: Log,
  options: Partial<ConstructorParameters<typeof OutboundTransport>[0]> = {},
): OutboundTransport {
  return new OutboundTransport({
    what: "webhooks",
    rules: new AddressRules(webhookAllowCidrs, true),
    needsAll: true,
    connectMs: Math.min(CONNECT_MS_MAX, webhookTimeoutMs),
    log,
    env: process.env,
    lookup: threadlessLookup(),
    ...options,
  });
}
