// How a relay ends: what runs is finished or told, what comes is refused, and every row is in the log.

import { expect, test } from "bun:test";
import { eventually } from "../support/eventually.ts";
import { FaultUpstream } from "../support/fault-upstream.ts";
import { expectTimeFrom } from "../support/figures-in-bounds.ts";
import { chatAnswer, mistakesIn, readBooks } from "../support/relay-books.ts";
import { chat, chatCode, makeChannel, makeToken, readLog } from "../support/relay-client.ts";
import { RelayLoad, slowStream } from "../support/relay-load.ts";
import { RelayProcess } from "../support/relay-process.ts";
import { report } from "../support/run-size.ts";
import { randomFrom } from "../support/seeded-random.ts";
import { tempDir } from "../support/temp-dir.ts";
import { afterMs, answerJson, chatChunk, stayStill, stream } from "../support/upstream-plans.ts";

const GRANTED = 10_000_000;
const SHUTDOWN_MS = 3_000;
/** It listens on for so long, for the one that comes late. */
const DRAIN_MS = 1_500;
const SLACK_MS = 3_000;
const USAGE = { prompt_tokens: 3, completion_tokens: 4 };
const INTERRUPTED_STREAMS = 60;
/** More than share a commit. */
const CUT_OFF = 100;

/** The last event of a stream as it was sent. */
function lastEvent(text: string): unknown {
  const data = text
    .trimEnd()
    .split("\n\n")
    .at(-1)!
    .replace(/^data: /, "");
  return JSON.parse(data);
}

test("a stopping relay refuses what comes, finishes what runs, and tells the streams that last longer", async () => {
  using dir = tempDir();
  await using upstream = await FaultUpstream.start();
  const env = { DRAIN_DELAY: `${DRAIN_MS}ms`, SHUTDOWN_TIMEOUT: `${SHUTDOWN_MS}ms` };
  await using relay = await RelayProcess.start(dir.file("data"), env);
  await makeChannel(relay, upstream);
  const finite = await makeToken(relay, { remain_quota: GRANTED });
  const unlimited = await makeToken(relay);
  upstream.forModel("slow", afterMs(700, answerJson(chatAnswer("yes", USAGE))));
  upstream.forModel("short", slowStream(7, 100));
  upstream.forModel("endless", stream({ events: [chatChunk("thirty bytes of an answer, yes")], end: "still" }));
  const whole = [chat(relay, finite.key, { model: "slow" }), chat(relay, unlimited.key, { model: "slow" })];
  const short = chat(relay, finite.key, { model: "short", stream: true }).then((answer) => answer.text());
  const endless = await Promise.all(
    Array.from({ length: INTERRUPTED_STREAMS }, (_, index) =>
      chat(relay, index % 2 === 0 ? finite.key : unlimited.key, { model: "endless", stream: true }),
    ),
  );
  const texts = Promise.all(endless.map((answer) => answer.text()));
  await upstream.request(2 + INTERRUPTED_STREAMS);

  const stoppedMs = performance.now();
  relay.kill("SIGTERM");
  await eventually("it is not ready", SLACK_MS, async () => (await fetch(`${relay.url}/readyz`)).status === 503);
  const late = await chat(relay, unlimited.key);
  expect([late.status, await chatCode(late), late.headers.get("retry-after")]).toEqual([
    503,
    "server_shutting_down",
    "1",
  ]);
  for (const answer of await Promise.all(whole)) expect([answer.status, await chatCode(answer)]).toEqual([200, null]);
  expect(await short).toEndWith("data: [DONE]\n\n");
  for (const text of await texts) {
    expect(text).toStartWith(chatChunk("thirty bytes of an answer, yes"));
    expect(text).not.toContain("[DONE]");
    expect(lastEvent(text)).toEqual({
      error: { message: expect.any(String), type: "server_error", param: null, code: "server_shutting_down" },
    });
  }
  expect(await relay.exited).toBe(0);
  const patienceMs = DRAIN_MS + SHUTDOWN_MS;
  expectTimeFrom("the end", performance.now() - stoppedMs, patienceMs - 50, patienceMs + SLACK_MS);
  const half = INTERRUPTED_STREAMS / 2;
  // One token of prompt, ten of what had come.
  expect(readBooks(relay.dbPath, finite.id)).toMatchObject({ rows: half + 2, open: 0, used: half * 11 + 7 + 7 });
  expect(readBooks(relay.dbPath, unlimited.id)).toMatchObject({ rows: half + 1, used: half * 11 + 7 });
  expect(mistakesIn(readBooks(relay.dbPath, finite.id), GRANTED)).toEqual([]);
}, 120_000);

test("a stopping relay tells whoever still waits for an upstream, for nothing, and its log says so", async () => {
  using dir = tempDir();
  await using upstream = await FaultUpstream.start();
  await using relay = await RelayProcess.start(dir.file("data"), { SHUTDOWN_TIMEOUT: "300ms" });
  await makeChannel(relay, upstream);
  const { id, key } = await makeToken(relay, { remain_quota: GRANTED });
  const head = { "Content-Type": "application/json", "Content-Length": "1000" };
  upstream.forModel("silent", stayStill);
  upstream.forModel("half an answer", async (exchange) => {
    await exchange.head(200, head);
    await exchange.write('{"choices":');
    await exchange.gone;
  });
  upstream.forModel("comments", stream({ events: [": wait\n\n"], end: "still" }));
  const asked = [
    { model: "silent" },
    { model: "silent", stream: true },
    { model: "half an answer" },
    { model: "comments", stream: true },
  ];
  const answers = asked.map((fields) => chat(relay, key, fields));
  await upstream.request(asked.length - 1);
  relay.kill("SIGTERM");
  for (const answer of await Promise.all(answers)) {
    const told = [answer.status, await chatCode(answer), answer.headers.get("retry-after")];
    expect(told).toEqual([503, "server_shutting_down", "1"]);
  }
  expect(await relay.exited).toBe(0);
  await relay.restart();
  const rows = await readLog(relay);
  expect(rows).toHaveLength(asked.length);
  for (const row of rows) expect(row).toMatchObject({ status: 503, error_code: "server_shutting_down", quota: 0 });
  expect(readBooks(relay.dbPath, id)).toMatchObject({ used: 0, open: 0 });
}, 120_000);

test("a relay that is stopped under load has logged every answer that it gave", async () => {
  using dir = tempDir();
  await using upstream = await FaultUpstream.start();
  upstream.always(answerJson(chatAnswer("yes", USAGE)));
  await using relay = await RelayProcess.start(dir.file("data"));
  await makeChannel(relay, upstream);
  const tokens = [await makeToken(relay, { remain_quota: GRANTED }), await makeToken(relay)];
  const random = randomFrom(1);
  const loads = tokens.map((token) => new RelayLoad(relay, token, { random, leaves: 0, streams: 0 }).start(12));
  await eventually("there is traffic", SLACK_MS, () => loads.every(({ completedMs }) => completedMs.length > 200));
  relay.kill("SIGTERM");
  expect(await relay.exited).toBe(0);
  await Promise.all(loads.map((load) => load.stop()));
  for (const [index, { id }] of tokens.entries()) {
    const books = readBooks(relay.dbPath, id);
    const { completedMs, statuses } = loads[index]!;
    report(`stop under load: ${completedMs.length} answers, ${books.rows} rows`);
    expect(books).toMatchObject({ rows: completedMs.length, used: completedMs.length * 7, open: 0 });
    expect([...statuses.keys()].filter((status) => status !== 200 && status !== 503)).toEqual([]);
  }
  expect(mistakesIn(readBooks(relay.dbPath, tokens[0]!.id), GRANTED)).toEqual([]);
}, 120_000);

for (const [mode, what] of [
  ["cancel", "are cut off"],
  ["drain", "are cut off, their clients gone or not,"],
] as const) {
  test(`requests that ${what} by a stop are in the log, with RELAY_ON_CLIENT_ABORT=${mode}`, async () => {
    using dir = tempDir();
    await using upstream = await FaultUpstream.start();
    const env = { SHUTDOWN_TIMEOUT: "300ms", RELAY_ON_CLIENT_ABORT: mode };
    await using relay = await RelayProcess.start(dir.file("data"), env);
    await makeChannel(relay, upstream);
    const tokens = [await makeToken(relay, { remain_quota: GRANTED }), await makeToken(relay)];
    upstream.forModel("silent", stayStill);
    upstream.forModel("endless", stream({ events: [chatChunk("thirty bytes of an answer, yes")], end: "still" }));
    const cut = tokens.flatMap(({ key }) => {
      return Array.from({ length: CUT_OFF }, () => chat(relay, key, { model: "silent" }).catch(() => null));
    });
    const leave = new AbortController();
    for (const { key } of tokens) {
      const answer = await fetch(`${relay.url}/v1/chat/completions`, {
        method: "POST",
        headers: { Authorization: `Bearer ${key}` },
        signal: leave.signal,
        body: JSON.stringify({ model: "endless", stream: true, messages: [{ role: "user", content: "hi" }] }),
      });
      await answer.body!.getReader().read();
    }
    await upstream.request(2 * CUT_OFF + 1);
    leave.abort();
    relay.kill("SIGTERM");
    expect(await relay.exited).toBe(0);
    await Promise.all(cut);
    for (const { id } of tokens) {
      // One token of prompt, ten of what had come.
      expect(readBooks(relay.dbPath, id)).toMatchObject({ rows: CUT_OFF + 1, open: 0, used: 11 });
    }
    expect(mistakesIn(readBooks(relay.dbPath, tokens[0]!.id), GRANTED)).toEqual([]);
  }, 120_000);
}
