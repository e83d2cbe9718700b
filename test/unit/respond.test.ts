// What errors say in their headers, and what the probes say of a server that goes or has failed.

import { expect, test } from "bun:test";
import { showLiveness, showReadiness } from "../../src/http/ops-routes.ts";
import { RequestScope, type ServerState } from "../../src/http/request-scope.ts";
import { respondError } from "../../src/http/respond.ts";
import { AppError, type ErrorCode, STATUS_BY_CODE } from "../../src/shared/errors.ts";

const SERVING = { isDraining: false, hasFailed: false, trustedProxies: null };

const scopeOf = (state: ServerState = SERVING) => new RequestScope(new Request("http://h/b/k"), null, state);

test("every 503 says that a second later is early enough; of the others a 429 alone says when", async () => {
  const told: string[] = [];
  for (const [code, status] of Object.entries(STATUS_BY_CODE)) {
    const error = new AppError(code as ErrorCode, "It did not work.", { details: { retryAfterSeconds: 7 } });
    const answer = respondError(scopeOf(), error);
    expect([code, answer.status]).toEqual([code, status]);
    const retryAfter = answer.headers.get("retry-after");
    if (retryAfter !== null) told.push(`${status} ${code}: ${retryAfter}`);
  }
  expect(told).toEqual([
    "429 rate_limited: 7",
    "503 busy: 1",
    "503 overloaded: 1",
    "503 draining: 1",
    "503 unavailable: 1",
  ]);
});

test("a server that goes is not ready, one that has failed is not alive either; both may be asked again", async () => {
  const draining = { ...SERVING, isDraining: true };
  const failed = { ...SERVING, hasFailed: true };
  for (const [state, ready, alive] of [
    [SERVING, "ready", "ok"],
    [draining, "draining", "ok"],
    [failed, "failed", "failed"],
    [{ ...draining, hasFailed: true }, "failed", "failed"],
  ] as const) {
    for (const [show, status] of [
      [showReadiness, ready],
      [showLiveness, alive],
    ] as const) {
      const answer = show(scopeOf(state));
      const isGood = status === "ready" || status === "ok";
      expect([await answer.text(), answer.status]).toEqual([JSON.stringify({ status }), isGood ? 200 : 503]);
      expect(answer.headers.get("retry-after")).toBe(isGood ? null : "1");
    }
  }
});
