// The usage log as its operator reads it: what is read is what a plain look at the rows gives, a slice costs the same
// wherever it lies, and nothing is read for somebody who has left.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import type { LogRow } from "../../src/relay/relay-tables.ts";
import { type LogFilter, type LogPlace, type LogStat, UsageLogStore } from "../../src/relay/usage-log-store.ts";
import type { AppError } from "../../src/shared/errors.ts";
import { alterStore } from "../support/alter-store.ts";
import { expectFigure } from "../support/figures-in-bounds.ts";
import { openRelayStore, type RelayStore } from "../support/relay-store.ts";

const ROWS = 60_000;
const DAY_MS = 86_400_000;
/** The log goes over three days, and four rows share a time. */
const STEP_MS = Math.floor((12 * DAY_MS) / ROWS);
const END_MS = (ROWS / 4) * STEP_MS;
const EVERYTHING: LogFilter = {
  tokenId: null,
  channelId: null,
  model: null,
  status: null,
  requestId: null,
  fromMs: null,
  toMs: null,
};
const signal = new AbortController().signal;

let opened: RelayStore;
let log: UsageLogStore;
/** Newest first. */
let rows: readonly LogRow[];
beforeAll(async () => {
  opened = await openRelayStore();
  await alterStore(
    opened.dbPath,
    `WITH RECURSIVE counted(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM counted WHERE n < ${ROWS - 1})
     INSERT INTO relay_log (request_id, ts, token_id, token_name, channel_id, route, model, upstream_model, status,
       stream, ttft_ms, duration_ms, overhead_ms, prompt_tokens, completion_tokens, cached_tokens, estimated, quota,
       attempts, error_code, client_ip)
     SELECT 'r' || n, (n / 4) * ${STEP_MS}, 1 + n % 3, 't', nullif(n % 5, 0), '/v1/chat/completions', 'm' || n % 7,
       NULL, CASE WHEN n % 11 = 0 THEN 502 ELSE 200 END, 0, CASE WHEN n % 2 = 0 THEN n % 100 END, n % 1000, 0, n % 13,
       n % 17, 0, 0, n % 19, 1, CASE WHEN n % 23 = 0 THEN 'broken' END, NULL FROM counted`,
  );
  log = new UsageLogStore(opened.store);
  rows = (await opened.rows("relay_log")).sort((a, b) => b.ts - a.ts || b.id - a.id);
});
afterAll(() => opened[Symbol.asyncDispose]());

/** What `filter` leaves of the rows. */
function matching(filter: LogFilter): LogRow[] {
  return rows.filter(
    (row) =>
      (filter.tokenId === null || row.token_id === filter.tokenId) &&
      (filter.channelId === null || row.channel_id === filter.channelId) &&
      (filter.model === null || row.model === filter.model) &&
      (filter.status === null || row.status === filter.status) &&
      (filter.requestId === null || row.request_id === filter.requestId) &&
      (filter.fromMs === null || row.ts >= filter.fromMs) &&
      (filter.toMs === null || row.ts < filter.toMs),
  );
}

const sum = (values: readonly (number | null)[]) => values.reduce<number>((total, value) => total + (value ?? 0), 0);

function statOf(key: LogStat["key"], group: readonly LogRow[]): LogStat {
  const firsts = group.map(({ ttft_ms }) => ttft_ms).filter((ms) => ms !== null);
  return {
    key,
    requests: group.length,
    errors: group.filter(({ status, error_code }) => status >= 400 || error_code !== null).length,
    promptTokens: sum(group.map(({ prompt_tokens }) => prompt_tokens)),
    completionTokens: sum(group.map(({ completion_tokens }) => completion_tokens)),
    quota: sum(group.map(({ quota }) => quota)),
    durationMsAvg: sum(group.map(({ duration_ms }) => duration_ms)) / group.length,
    ttftMsAvg: firsts.length === 0 ? null : sum(firsts) / firsts.length,
  };
}

const KEYS = {
  token: (row: LogRow) => row.token_id,
  channel: (row: LogRow) => row.channel_id,
  model: (row: LogRow) => row.model,
  day: (row: LogRow) => new Date(row.ts).toISOString().slice(0, 10),
} as const;

/** The shortest of seven times, in ms: others may have the processor for a while. */
async function shortestMs(act: () => Promise<unknown>): Promise<number> {
  const times: number[] = [];
  for (let turn = 0; turn < 7; turn++) {
    const startMs = performance.now();
    await act();
    times.push(performance.now() - startMs);
  }
  return Math.min(...times);
}

describe("sums of the usage log", () => {
  const SPANS = [
    [0, END_MS],
    [DAY_MS / 2, 2 * DAY_MS + 1],
    [DAY_MS, DAY_MS + 1],
    [END_MS, 2 * END_MS],
  ] as const;

  test("are those of its rows, however they are grouped and whatever the span", async () => {
    for (const [fromMs, toMs] of SPANS) {
      const within = matching({ ...EVERYTHING, fromMs, toMs });
      for (const group of ["token", "channel", "model", "day"] as const) {
        const groups = [...Map.groupBy<LogStat["key"], LogRow>(within, KEYS[group])];
        const expected = groups.map(([key, same]) => statOf(key, same));
        const byKey = (a: LogStat, b: LogStat) => (a.key === null || (b.key !== null && a.key < b.key) ? -1 : 1);
        expect([group, await log.stat(group, fromMs, toMs, signal)]).toEqual([group, expected.sort(byKey)]);
      }
    }
  });

  test("take a time that grows with the rows, not with their square", async () => {
    const part = 12;
    const wholeMs = await shortestMs(() => log.stat("model", 0, END_MS, signal));
    const partMs = await shortestMs(() => log.stat("model", END_MS - END_MS / part, END_MS, signal));
    expectFigure(`what all rows take, a ${part}th of them taking 1`, wholeMs / partMs, 1.5 * part, 1.7);
  });
});

describe("pages of the usage log", () => {
  const FILTERS: readonly Partial<LogFilter>[] = [
    {},
    { tokenId: 2 },
    { channelId: 3 },
    { tokenId: 2, channelId: 3 },
    { model: "m3", status: 502 },
    { status: 502, fromMs: DAY_MS, toMs: 2 * DAY_MS },
    { tokenId: 1, model: "m1", toMs: DAY_MS },
    { requestId: "r77" },
    { fromMs: END_MS - STEP_MS, toMs: END_MS },
    { fromMs: END_MS },
  ];

  test("hold each row once, newest first, whatever is filtered", async () => {
    for (const some of FILTERS) {
      const filter = { ...EVERYTHING, ...some };
      const expected = matching(filter).map(({ id }) => id);
      const found: number[] = [];
      let next: LogPlace | null = null;
      do {
        const page = await log.list(filter, { limit: 999, before: next }, signal);
        found.push(...page.rows.map(({ id }) => id));
        ({ next } = page);
      } while (next !== null);
      expect([some, found]).toEqual([some, expected]);
    }
  });

  test("begin in the span that is asked for, also when the page before was of a later one", async () => {
    const toMs = DAY_MS;
    const page = await log.list({ ...EVERYTHING, toMs }, { limit: 3, before: { ts: 2 * DAY_MS, id: ROWS } }, signal);
    expect(page.rows).toEqual(matching({ ...EVERYTHING, toMs }).slice(0, 3));
  });

  test("that are looked for row by row take as long with a span as without one", async () => {
    const page = { limit: 10, before: null };
    const read = (span: Partial<LogFilter>) => () =>
      log.list({ ...EVERYTHING, model: "no such", ...span }, page, signal);
    const plainMs = await shortestMs(read({}));
    const spanMs = await shortestMs(read({ fromMs: 0, toMs: END_MS }));
    expectFigure("a search with a span, one without it taking 1", spanMs / plainMs, 1.2, 2);
  });
});

test("what is read of the usage log is given up when nobody waits for it any more", async () => {
  const left = new AbortController();
  const reads = [
    log.stat("day", 0, END_MS, left.signal),
    log.list({ ...EVERYTHING, status: 999 }, { limit: 1, before: null }, left.signal),
  ];
  left.abort();
  const ends = await Promise.allSettled(reads);
  expect(ends.map((end) => (end.status === "rejected" ? (end.reason as AppError).code : end.value))).toEqual([
    "unavailable",
    "unavailable",
  ]);
});
