// Answers that are long in coming ask the runtime for the time in which nothing is sent.

import { expect, test } from "bun:test";
import type { JwtGate } from "../../src/auth/jwt-gate.ts";
import { createBackupRoute } from "../../src/http/ops-routes.ts";
import { type HttpServer, RequestScope } from "../../src/http/request-scope.ts";
import { Admission, type AppContext } from "../../src/http/surface.ts";
import { createListHandler } from "../../src/kv/list-routes.ts";
import { IDLE_SECONDS } from "../../src/shared/bounds.ts";
import { LoopTurns } from "../../src/shared/loop-turns.ts";
import type { KvEngine } from "../../src/storage/kv-engine.ts";

const PRINCIPAL = { rights: null, buckets: null, prefix: null, subject: null, tokenId: null };
const surface = { gate: { admit: () => PRINCIPAL } as unknown as JwtGate, admission: new Admission(4) };
const listTurns = new LoopTurns();

type Handler = (context: AppContext) => Response | Promise<Response>;

/** The status of the answer, and the seconds that were asked for on the way to it. */
async function secondsAskedFor(handle: Handler, method: string, path: string): Promise<[number, number[]]> {
  const seconds: number[] = [];
  const server: Pick<HttpServer, "timeout"> = { timeout: (_, asked) => void seconds.push(asked) };
  const state = { isDraining: false, hasFailed: false, trustedProxies: null };
  const scope = new RequestScope(new Request(`http://h${path}`, { method }), server as HttpServer, state);
  const { status } = await handle({ env: { scope } } as unknown as AppContext);
  return [status, seconds];
}

test("a backup may take as long as it takes, and then the connection is as others are", async () => {
  const report = { file: "f", bytes: 1, revision: 1, entries: 1, ms: 1 };
  const backup = createBackupRoute(surface, async () => report as never);
  expect(await secondsAskedFor(backup, "POST", "/_admin/backup")).toEqual([200, [0, IDLE_SECONDS]]);
});

test("keys are counted for as long as it takes", async () => {
  const engine = { count: async () => 7 } as unknown as KvEngine;
  const list = createListHandler({ ...surface, engine, listTurns });
  expect(await secondsAskedFor(list, "GET", "/_list?bucket=b&count=1")).toEqual([200, [0, IDLE_SECONDS]]);
});

test("a list of many pages may be silent for a minute, one of a single page is not expected to be", async () => {
  for (const [resumeAt, seconds] of [
    ["k", [60]],
    [null, []],
  ] as const) {
    const engine = { listKeys: () => ({ names: ["k"], entries: [], resumeAt }) } as unknown as KvEngine;
    const list = createListHandler({ ...surface, engine, listTurns });
    expect(await secondsAskedFor(list, "GET", "/_list?bucket=b")).toEqual([200, [...seconds]]);
  }
});
