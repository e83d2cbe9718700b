// Many requests under way at once: slow answers, long streams, and clients that leave.

import { residentMb } from "./bench-server.ts";
import { type Bench, type Benchmark, sized } from "./benchmark.ts";
import { chatRequest } from "./chat-request.ts";
import { atMost, type Figure, InvalidRun, percentile, reported } from "./figures.ts";
import { LightConnection } from "./light-connection.ts";
import { type QuickUpstream, startQuickUpstream, type UpstreamPlan } from "./quick-upstream.ts";
import { type RelayBenchServer, socketsOf, startRelay } from "./relay-bench-server.ts";
import { fixedRequest } from "./request-stream.ts";
import { StreamConnection, type StreamReading } from "./stream-connection.ts";

const SLOW_REQUESTS = 400;
const SLOW: UpstreamPlan = { delayMs: 3000, events: 0, everyMs: 0 };
const STREAMS = 1000;
const EVENT_EVERY_MS = 100;
const SAMPLE_MS = 250;
const ABORTS = 20;
const ABORTED_IN_STREAM: UpstreamPlan = { delayMs: 0, events: 600, everyMs: EVENT_EVERY_MS };
const ABORTED_BEFORE: UpstreamPlan = { delayMs: 60_000, events: 600, everyMs: EVENT_EVERY_MS };
const NOTICED_MS_MAX = 60_000;
const POLL_MS = 5;
/** Connections that are made at once: fewer than wait for a listener. */
const OPENED_AT_ONCE = 50;

async function openAll<T>(count: number, open: () => Promise<T>): Promise<T[]> {
  const opened: T[] = [];
  while (opened.length < count) {
    const length = Math.min(OPENED_AT_ONCE, count - opened.length);
    opened.push(...(await Promise.all(Array.from({ length }, open))));
  }
  return opened;
}

const slowAnswers: Benchmark = {
  name: "relay-slow-answers",
  async run(bench) {
    await using upstream = await startQuickUpstream();
    await using gokv = await startRelay(bench, upstream);
    const connections = await openAll(SLOW_REQUESTS, () => LightConnection.open(gokv.url));
    const request = fixedRequest(chatRequest(gokv, SLOW));
    const startMs = performance.now();
    const answers = await Promise.all(connections.map((connection) => connection.ask(request)));
    const seconds = (performance.now() - startMs) / 1000;
    for (const connection of connections) connection.close();
    const odd = answers.filter(({ status }) => status !== 200).length;
    if (odd > 0) throw new InvalidRun(`${odd} of ${SLOW_REQUESTS} slow answers were errors`);
    await gokv.requireLogged(SLOW_REQUESTS);
    const name = `relay: ${SLOW_REQUESTS} requests of 3 s at once, all of them`;
    return [atMost(4, { name, unit: "s", measured: seconds, floor: SLOW.delayMs / 1000 })];
  },
};

interface Held {
  readonly readings: readonly StreamReading[];
  /** Resident memory over time. */
  readonly memoryMb: readonly number[];
  readonly sockets: number;
}

async function holdStreams(gokv: RelayBenchServer, events: number): Promise<Held> {
  const connections = await openAll(STREAMS, () => StreamConnection.open(gokv.url));
  const request = fixedRequest(chatRequest(gokv, { delayMs: 0, events, everyMs: EVENT_EVERY_MS }));
  const memoryMb: number[] = [];
  let sockets = 0;
  const timer = setInterval(() => {
    memoryMb.push(residentMb(gokv.pid, "VmRSS"));
    sockets = Math.max(sockets, socketsOf(gokv.pid));
  }, SAMPLE_MS);
  const readings = await Promise.all(connections.map((connection) => connection.read(request, events)));
  clearInterval(timer);
  for (const connection of connections) connection.close();
  return { readings, memoryMb, sockets };
}

const heldStreams: Benchmark = {
  name: "relay-streams",
  async run(bench) {
    await using upstream = await startQuickUpstream();
    await using gokv = await startRelay(bench, upstream);
    const seconds = sized(bench, 60, 6);
    const events = (seconds * 1000) / EVENT_EVERY_MS;
    const { readings, memoryMb, sockets } = await holdStreams(gokv, events);
    await gokv.requireLogged(STREAMS);
    const half = memoryMb.length >> 1;
    const peak = (values: readonly number[]) => Math.max(...values);
    const growth = peak(memoryMb.slice(half)) - peak(memoryMb.slice(0, half));
    const lost = STREAMS * events - readings.reduce((sum, reading) => sum + reading.events, 0);
    const broken = readings.filter(({ isWhole }) => !isWhole).length;
    const firstMs = readings.map(({ firstEventMs }) => firstEventMs ?? Number.NaN);
    const name = `relay: ${STREAMS} streams for ${seconds} s, most memory`;
    return [
      atMost(250, { name, unit: "MB", measured: peak(memoryMb) }),
      atMost(15, { name: "  second half above the first", unit: "MB", measured: growth }, 150),
      atMost(0, { name: "  events lost", unit: "", measured: lost }),
      atMost(0, { name: "  streams out of order or unfinished", unit: "", measured: broken }),
      reported({ name: "  sockets at most", unit: "", measured: sockets }),
      reported({ name: "  first event when all begin at once, p99", unit: "ms", measured: percentile(firstMs, 0.99) }),
    ];
  },
};

/** How long after a client had left the upstream saw it, one after the other. */
async function timeAborts(gokv: RelayBenchServer, upstream: QuickUpstream, plan: UpstreamPlan): Promise<number[]> {
  const request = fixedRequest(chatRequest(gokv, plan));
  const tookMs: number[] = [];
  for (let round = 0; round < ABORTS; round++) {
    const before = await upstream.counts();
    const connection = await StreamConnection.open(gokv.url);
    if (plan.delayMs === 0) await connection.readFirst(request);
    else {
      connection.send(request);
      await until(async () => (await upstream.counts()).requests > before.requests);
    }
    const leftMs = performance.timeOrigin + performance.now();
    connection.close();
    await until(async () => (await upstream.counts()).abortedAtMs.length > before.abortedAtMs.length);
    tookMs.push((await upstream.counts()).abortedAtMs.at(-1)! - leftMs);
  }
  return tookMs;
}

/** @throws InvalidRun when it does not come true */
async function until(isTrue: () => Promise<boolean>): Promise<void> {
  const deadlineMs = performance.now() + NOTICED_MS_MAX;
  while (!(await isTrue())) {
    if (performance.now() > deadlineMs) throw new InvalidRun(`nothing happened upstream within ${NOTICED_MS_MAX} ms`);
    await Bun.sleep(POLL_MS);
  }
}

async function runAborts(bench: Bench): Promise<Figure[]> {
  await using upstream = await startQuickUpstream();
  await using gokv = await startRelay(bench, upstream);
  const figures: Figure[] = [];
  for (const [name, plan] of [
    ["relay: an abort before the answer reaches the upstream", ABORTED_BEFORE],
    ["relay: an abort of a stream reaches the upstream", ABORTED_IN_STREAM],
  ] as const) {
    const tookMs = await timeAborts(gokv, upstream, plan);
    figures.push(atMost(200, { name, unit: "ms", measured: Math.max(...tookMs) }));
  }
  return figures;
}

export const RELAY_STREAMS: readonly Benchmark[] = [slowAnswers, heldStreams, { name: "relay-aborts", run: runAborts }];
