// How deliveries are signed: the symmetric scheme of Standard Webhooks 1.0 (standardwebhooks.com).

import { createHmac, randomBytes } from "node:crypto";

const SECRET_BYTES = 32;
const PREFIX = "whsec_";

/** `whsec_` and the base64 of 32 random bytes. */
export function createWebhookSecret(): string {
  return PREFIX + randomBytes(SECRET_BYTES).toString("base64");
}

/** What is signed: exactly these bytes arrive. */
interface SignedMessage {
  /** The same for each attempt of a delivery: receivers know repetitions by it. */
  readonly id: string;
  /** Of this attempt, seconds since 1970: receivers refuse what is old. */
  readonly timestampS: number;
  readonly body: string;
}

/** The three headers. A message that is signed with several secrets verifies with each of them. */
export function signedHeaders(message: SignedMessage, secrets: readonly string[]): Record<string, string> {
  return {
    "webhook-id": message.id,
    "webhook-timestamp": `${message.timestampS}`,
    "webhook-signature": secrets.map((secret) => signatureOf(message, secret)).join(" "),
  };
}

function signatureOf({ id, timestampS, body }: SignedMessage, secret: string): string {
  const key = Buffer.from(secret.slice(PREFIX.length), "base64");
  return `v1,${createHmac("sha256", key).update(`${id}.${timestampS}.${body}`).digest("base64")}`;
}
