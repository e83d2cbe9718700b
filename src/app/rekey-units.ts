// The change of the sealing secret: every sealed value of every service in one transaction, or none.

import { openRing, type SEAL_UNITS } from "../auth/seal-units.ts";
import type { SealingKey } from "../auth/secret-seal.ts";
import { CHANNEL_KEY_INFO, resealChannels, UNREADABLE_ADVICE } from "../relay/channel-units.ts";
import { AppError } from "../shared/errors.ts";
import type { UnitOfWork, UnitRunner } from "../storage/unit-of-work.ts";
import { resealWebhooks, WEBHOOK_KEY_INFO } from "../task/webhook-secrets-units.ts";

type Ring = readonly SealingKey[];

/** What was sealed anew. Keys of channels and secrets of webhooks have sealing keys of their own, hence two kids. */
export interface Rekeyed {
  readonly resealed: number;
  readonly kid: string;
  readonly webhooks: { readonly resealed: number; readonly kid: string };
}

const WEBHOOK_ADVICE =
  "Start with the old secret in MASTER_KEY_PREVIOUS or JWT_SECRET_PREVIOUS, or have their owners rotate them.";

export const REKEY_UNITS = {
  /**
   * Everything that another secret has sealed, sealed with the first key of its ring: all of it or nothing.
   * @throws AppError key_unreadable, with `ids` of channels and `webhooks` in its details, separated by commas
   */
  async "app.rekey"(work: UnitOfWork, rings: { channels: Ring; webhooks: Ring }): Promise<Rekeyed> {
    const channels = await resealChannels(work, rings.channels);
    const webhooks = await resealWebhooks(work, rings.webhooks);
    requireReadable(channels.unreadable.join(","), webhooks.unreadable.join(","));
    return {
      resealed: channels.resealed,
      kid: channels.kid,
      webhooks: { resealed: webhooks.resealed, kid: webhooks.kid },
    };
  },
} as const;

/** `secrets` open what is sealed, the first one seals. Throws what the unit throws. */
export async function rekeyStore(
  store: UnitRunner<typeof REKEY_UNITS & typeof SEAL_UNITS>,
  secrets: readonly Uint8Array[],
): Promise<Rekeyed> {
  const channels = await openRing(store, secrets, CHANNEL_KEY_INFO);
  const webhooks = await openRing(store, secrets, WEBHOOK_KEY_INFO);
  return store.run("app.rekey", { channels, webhooks });
}

function requireReadable(channels: string, webhooks: string): void {
  const sentences = [
    ...(channels === "" ? [] : [`No secret opens the keys of these channels: ${channels}. `]),
    ...(webhooks === "" ? [] : [`No secret opens the secrets of these webhooks: ${webhooks}. `]),
  ];
  if (sentences.length === 0) return;
  const advice = channels === "" ? WEBHOOK_ADVICE : UNREADABLE_ADVICE;
  throw new AppError("key_unreadable", `${sentences.join("")}Nothing was changed. ${advice}`, {
    details: { ...(channels === "" ? {} : { ids: channels }), ...(webhooks === "" ? {} : { webhooks }) },
  });
}
