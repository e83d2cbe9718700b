// What is told of a request when it is answered: in the access log, and in the count of refusals.

import { expect, test } from "bun:test";
import { JwtGate } from "../../src/auth/jwt-gate.ts";
import { Metrics } from "../../src/http/metrics.ts";
import { logRequest } from "../../src/http/request-log.ts";
import { RequestScope } from "../../src/http/request-scope.ts";
import { respond } from "../../src/http/respond.ts";
import { AppError } from "../../src/shared/errors.ts";
import type { Log } from "../../src/shared/log.ts";
import { QUIET } from "../support/job-rig.ts";
import { mint, openInProcessTelling } from "../support/targets.ts";

type Line = Record<string, unknown>;

/** The lines of the access log for an answer of each of these statuses. */
function linesOf(mode: "all" | "errors" | "off", statuses: readonly number[], path = "/b/k"): Line[] {
  const lines: Line[] = [];
  const log: Log = { ...QUIET, info: (_, line) => void lines.push(line!) };
  for (const status of statuses) {
    const state = { isDraining: false, hasFailed: false, trustedProxies: null };
    logRequest(log, mode, new RequestScope(new Request(`http://h${path}`), null, state), status);
  }
  return lines;
}

test("the access log holds every answer, those of failures from 500 on alone, or nothing", () => {
  const statuses = [200, 404, 499, 500, 507];
  for (const [mode, logged] of [
    ["all", statuses],
    ["errors", [500, 507]],
    ["off", []],
  ] as const) {
    expect([mode, linesOf(mode, statuses).map(({ status }) => status)]).toEqual([mode, [...logged]]);
  }
});

test("the access log holds the beginning of a long path, and nothing of a query", () => {
  const [line] = linesOf("all", [200], `/b/${"k".repeat(1000)}?token=secret`);
  expect(line!.path).toBe(`/b/${"k".repeat(253)}`);
});

test("the access log says of a stream that nobody knows how long it is, unless its length was told", () => {
  const lines: Line[] = [];
  const log: Log = { ...QUIET, info: (_, line) => void lines.push(line!) };
  for (const bytesOut of [0, 7]) {
    const state = { isDraining: false, hasFailed: false, trustedProxies: null };
    const scope = new RequestScope(new Request("http://h/_list"), null, state);
    scope.bytesOut = bytesOut;
    respond(scope, 200, {}, new ReadableStream());
    logRequest(log, "all", scope, 200);
  }
  expect(lines.map(({ out }) => out)).toEqual([null, 7]);
});

test("the access log tells who asked what through which route, how it ended, and how many bytes moved", async () => {
  const lines: Line[] = [];
  const log: Log = { ...QUIET, info: (message, line) => message === "request" && void lines.push(line!) };
  await using target = await openInProcessTelling(log)({ TRUSTED_PROXIES: "127.0.0.0/8" });
  const known = { Authorization: `Bearer ${await mint({ subject: "ann", tokenId: "t-1" })}` };
  const ask = (path: string, method: string, id: string, headers: Record<string, string | null>, body?: string) =>
    target.fetch(path, {
      method,
      headers: { "X-Request-Id": id, "X-Forwarded-For": "203.0.113.7", ...headers },
      ...(body === undefined ? {} : { body }),
    });
  await ask("/b/a%0Ab?ttl=60", "PUT", "first", known, "12345");
  await ask("/b/a%0Ab", "GET", "second", known);
  const { length } = await (await ask("/_meta/b/none", "GET", "third", { Authorization: null })).text();
  const common = { ms: expect.any(Number), ip: "203.0.113.7", sub: "ann", jti: "t-1" };
  const key = { route: "/:bucket/:key", path: "/b/a%0Ab", status: 200 };
  const stranger = { sub: null, jti: null, code: "unauthorized", reason: "missing" };
  expect(lines).toEqual([
    { ...common, ...key, id: "first", method: "PUT", in: 5, out: 0 },
    { ...common, ...key, id: "second", method: "GET", in: 0, out: 5 },
    {
      ...common,
      ...stranger,
      id: "third",
      method: "GET",
      route: "/_meta/:bucket/:key",
      path: "/_meta/b/none",
      status: 401,
      in: 0,
      out: length,
    },
  ]);
});

test("the access log says with which code a request failed, and why a token was not let in", async () => {
  const lines: Line[] = [];
  const log: Log = { ...QUIET, info: (_, line) => void lines.push(line!) };
  const gate = new JwtGate({ secrets: [new Uint8Array(32)], clock: Date.now, onFailure: () => undefined });
  const refusal = await Promise.resolve(gate.admit("Bearer nonsense")).catch((error: unknown) => error);
  for (const [failure, status] of [
    [null, 200],
    [refusal, 401],
    [new AppError("key_not_found", "The key does not exist.", { cause: "not for the log" }), 404],
  ] as const) {
    const state = { isDraining: false, hasFailed: false, trustedProxies: null };
    const scope = new RequestScope(new Request("http://h/b/k"), null, state);
    scope.failure = failure;
    logRequest(log, "all", scope, status);
  }
  expect(lines.map(({ code, reason }) => [code, reason])).toEqual([
    [undefined, undefined],
    ["unauthorized", "malformed"],
    ["key_not_found", undefined],
  ]);
});

test("refusals for want of room or time are counted by their codes, other failures are not", async () => {
  const metrics = new Metrics("3.0.0");
  for (const [code, status] of [
    ["storage_full", 507],
    ["overloaded", 503],
    ["internal_error", 500],
    ["key_not_found", 404],
  ] as const) {
    metrics.countFailure({ code, status });
  }
  const { text } = await metrics.render();
  const counted = [...text.matchAll(/^gokv_rejected_total\{reason="(\w+)"\} (\d+)$/gm)].map(([, code, n]) => [code, n]);
  expect(counted.toSorted()).toEqual([
    ["overloaded", "1"],
    ["storage_full", "1"],
  ]);
});
