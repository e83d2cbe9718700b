// What a request sets aside before it goes out: for how long, and what its client hears when nothing can be set aside.

import { expect, test } from "bun:test";
import { CallAccount, type CallParts } from "../../src/relay/call-account.ts";
import { ENDPOINTS } from "../../src/relay/relay-endpoints.ts";
import { parseRelayRequest } from "../../src/relay/relay-request.ts";
import type { RelayToken } from "../../src/relay/relay-tables.ts";
import { AppError, type ErrorCode } from "../../src/shared/errors.ts";

const NOW_MS = 1_800_000_000_000;
const TOTAL_MS = 600_000;
const nothing = () => undefined;

/** A chat of a token with a quota; `reserve` is what the store does about it. */
function accountOf(reserve: (reservation: { readonly expiresAtMs: number }) => Promise<boolean>): CallAccount {
  const parts = {
    requestId: "r",
    token: { id: 1, name: "t", isUnlimited: false } as RelayToken,
    endpoint: ENDPOINTS.chat,
    request: parseRelayRequest(
      ENDPOINTS.chat,
      JSON.stringify({ model: "m", messages: [{ role: "user", content: "hi" }] }),
    ),
    clientIp: null,
    limits: { hold: () => ({ settle: nothing, drain: nothing, leave: nothing }) },
    usageLog: { reserve },
    clock: () => NOW_MS,
    totalMs: TOTAL_MS,
    onClosed: nothing,
    onOver: nothing,
  };
  return new CallAccount(parts as unknown as CallParts);
}

test("what is set aside outlives the deadline of its request by a minute", async () => {
  const ends: number[] = [];
  await accountOf(async ({ expiresAtMs }) => ends.push(expiresAtMs) > 0).reserve();
  expect(ends).toEqual([NOW_MS + TOTAL_MS + 60_000]);
});

test("while the store counts no quota, a request is told to come again in a second", async () => {
  for (const code of ["busy", "storage_full", "storage_failed"] as const satisfies ErrorCode[]) {
    const account = accountOf(async () => {
      throw new AppError(code, "The store takes nothing.");
    });
    const refused = await account.reserve().catch((error) => error);
    expect(refused).toMatchObject({ code: "quota_store_unavailable", status: 503, headers: { "Retry-After": "1" } });
    expect(refused.body).toMatchObject({ type: "server_error", param: null });
  }
});
