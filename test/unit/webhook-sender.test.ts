// One attempt of a delivery: how much of a reply is read, and that the rest of it is not waited for.

import { expect, test } from "bun:test";
import { KiB } from "../../src/shared/bounds.ts";
import { type SenderParts, WebhookSender } from "../../src/task/webhook-sender.ts";
import type { AttemptReport } from "../../src/task/webhook-settlement-units.ts";
import { createWebhookSecret } from "../../src/task/webhook-signature.ts";
import { expectTime } from "../support/figures-in-bounds.ts";

/** To a receiver that answers 200 with `body`, and may take a minute for it. */
function deliver(body: ReadableStream<Uint8Array>): Promise<AttemptReport | null> {
  const found = { delivery: { id: "d", body: "{}" }, webhook: { url: "http://h/", active: 1 }, isUserActive: true };
  const parts = {
    webhooks: { delivery: async () => found, signingSecrets: () => [createWebhookSecret()] },
    outbound: { send: async () => ({ status: 200, headers: new Headers(), body, whole: null }) },
    timeoutMs: 60_000,
    clock: Date.now,
  };
  const sender = new WebhookSender(parts as unknown as SenderParts);
  return sender.send({ payload: { deliveryId: "d" }, signal: new AbortController().signal });
}

test("a reply that never ends is read to its bound, and then cancelled", async () => {
  let readBytes = 0;
  const cancelled = Promise.withResolvers<void>();
  const body = new ReadableStream<Uint8Array>(
    {
      pull(controller) {
        readBytes += KiB;
        controller.enqueue(new Uint8Array(KiB).fill(120));
        // So that a sender that reads on ends all the same.
        if (readBytes >= 128 * KiB) controller.close();
      },
      cancel: () => cancelled.resolve(),
    },
    { highWaterMark: 0 },
  );
  const report = await deliver(body);
  expect(report).toMatchObject({ status: 200, excerpt: "x".repeat(KiB) });
  expect(readBytes).toBe(4 * KiB);
  await cancelled.promise;
});

test("a reply whose rest stays away gets half a second: what came is kept, and the status counts", async () => {
  const cancelled = Promise.withResolvers<void>();
  const body = new ReadableStream<Uint8Array>({
    start: (controller) => controller.enqueue(new TextEncoder().encode("well, ")),
    cancel: () => cancelled.resolve(),
  });
  const report = await deliver(body);
  expect(report).toMatchObject({ status: 200, excerpt: "well, " });
  expectTime("a delivery whose reply stays away", report!.ms, 600);
  await cancelled.promise;
}, 30_000);
