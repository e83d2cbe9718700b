// Reads of as many slices as there are rows: their connection may be silent until they have come to their end, and no
// slice is read for a client that has left.

import { describe, expect, setDefaultTimeout, spyOn, test } from "bun:test";
import { RequestScope } from "../../src/http/request-scope.ts";
import { UsageLogStore } from "../../src/relay/usage-log-store.ts";
import { IDLE_SECONDS } from "../../src/shared/bounds.ts";
import type { AppError } from "../../src/shared/errors.ts";
import { ReaderClient } from "../../src/storage/reader-client.ts";
import { SqliteStore } from "../../src/storage/sqlite-store.ts";
import { alterStore } from "../support/alter-store.ts";
import { eventually } from "../support/eventually.ts";
import { openInProcess } from "../support/targets.ts";
import { type Account, API, createTask, signUp, UNLIMITED } from "../support/task-client.ts";
import { useTarget } from "../support/use-target.ts";

setDefaultTimeout(60_000);

const LOG_ROWS = 60_000;
const COUNTED_KEYS = 250_000;
const COUNTS = 60;
const ABORTED_MS = 1000;

const target = useTarget(openInProcess, UNLIMITED);

describe("the idle time of a connection", () => {
  /** The status of the answer, and what was set on the way to the end of its body, in seconds; 0 = without a bound. */
  async function secondsOf(method: string, path: string, account: Account | null): Promise<[number, number[]]> {
    using idle = spyOn(RequestScope.prototype, "extendIdleTimeout");
    const headers = account === null ? {} : { Authorization: `Bearer ${account.token}` };
    const answer = await target().fetch(path, { method, headers });
    await answer.text();
    return [answer.status, idle.mock.calls.map(([seconds]) => seconds)];
  }

  const OPEN_AND_BOUNDED = [200, [0, IDLE_SECONDS]];

  test.each([
    ["GET", "/api/log"],
    ["GET", "/api/log/stat?group_by=model"],
    ["GET", "/_admin/jobs?state=dead"],
    ["GET", "/_admin/queues"],
    ["GET", "/_admin/task/users?q=nobody"],
    ["POST", "/_admin/jobs/retry?kind=webhook.deliver"],
  ])("is open while an operator waits for %s %s, and bounded again afterwards", async (method, path) => {
    expect([path, ...(await secondsOf(method, path, null))]).toEqual([path, ...OPEN_AND_BOUNDED]);
  });

  test("is open while a user waits for a list or its sums, and bounded again afterwards", async () => {
    const account = await signUp(target());
    await createTask(target(), account);
    for (const path of ["/tasks?q=rare", "/tasks?count=true", "/tasks/stats", "/labels", "/jobs?state=dead"]) {
      expect([path, ...(await secondsOf("GET", API + path, account))]).toEqual([path, ...OPEN_AND_BOUNDED]);
    }
  });

  test("is open while a user waits for each piece of a file, and bounded while one is taken", async () => {
    const account = await signUp(target());
    await createTask(target(), account);
    for (const path of ["/tasks/export.csv", "/tasks/export.ics?q=rare"]) {
      // The count, the head, what follows it, the end.
      const turns = Array.from({ length: 4 }, () => [0, IDLE_SECONDS]).flat();
      expect([path, ...(await secondsOf("GET", API + path, account))]).toEqual([path, 200, turns]);
    }
  });
});

describe("where all places are taken by counts", () => {
  const full = useTarget(openInProcess, { ...UNLIMITED, MAX_INFLIGHT: `${COUNTS}` });

  test("a count ends when its client leaves, and its place is free", async () => {
    await alterStore(
      full().dbPath,
      `WITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < ${COUNTED_KEYS})
       INSERT INTO kv (bucket, key, revision, created_at, updated_at, checksum, value)
       SELECT 'b', 'k' || n, n, 1, 1, 0, x'' FROM counted`,
    );
    using count = spyOn(SqliteStore.prototype, "count");
    const leave = new AbortController();
    const path = "/_list?bucket=b&prefix=k&count=1";
    const answers = Array.from({ length: COUNTS }, () => full().fetch(path, { signal: leave.signal }));
    const left = Promise.allSettled(answers);
    await eventually("all are at work", ABORTED_MS, () => count.mock.calls.length === COUNTS);
    leave.abort();
    await left;
    const counts = count.mock.results.map(({ value }) => value as Promise<number>);
    const outcomes = await Promise.all(counts.map((each) => each.catch((error: AppError) => error.code)));
    // The first ones may have come to their end before.
    expect(new Set(outcomes.slice(-COUNTS / 2))).toEqual(new Set(["unavailable"]));
    expect((await full().fetch("/b/none")).status).toBe(404);
  });
});

test("the usage log is not read on for a client that has left", async () => {
  await alterStore(
    target().dbPath,
    `WITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < ${LOG_ROWS})
     INSERT INTO relay_log (request_id, ts, token_id, token_name, route, model, status, stream, duration_ms,
       overhead_ms, prompt_tokens, completion_tokens, cached_tokens, estimated, quota, attempts)
     SELECT 'r' || n, n, 1, 't', '/v1/chat/completions', 'm', 200, 0, 1, 0, 1, 1, 0, 0, 1, 1 FROM counted`,
  );
  const leave = new AbortController();
  using stat = spyOn(UsageLogStore.prototype, "stat");
  const { rows: read } = ReaderClient.prototype;
  let statements = 0;
  using _rows = spyOn(ReaderClient.prototype, "rows").mockImplementation(async function (
    this: ReaderClient,
    ...statement: Parameters<typeof read>
  ) {
    const found = await read.apply(this, statement);
    if (++statements === 2) {
      leave.abort();
      await eventually("the server has heard of it", ABORTED_MS, () => stat.mock.calls[0]![3].aborted);
    }
    return found;
  });
  const answer = target().fetch("/api/log/stat?from=0&group_by=model", { signal: leave.signal });
  expect(await answer.catch(({ name }: Error) => name)).toBe("AbortError");
  await expect(stat.mock.results[0]!.value as Promise<unknown>).rejects.toMatchObject({ code: "unavailable" });
  expect(statements).toBe(2);
});
