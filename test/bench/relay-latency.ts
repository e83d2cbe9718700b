// What the relay adds to the time of a request, and to the time until a stream says its first word.

import { type Bench, type Benchmark, sized } from "./benchmark.ts";
import { type ChatServer, chatRequest } from "./chat-request.ts";
import { atMost, type Figure, GeneratorLagged, InvalidRun, median, percentile, reported } from "./figures.ts";
import { LightConnection } from "./light-connection.ts";
import { runClosedLoop } from "./load-generator.ts";
import { runOpenLoop, withoutLag } from "./open-loop.ts";
import { startPlainProxy } from "./plain-proxy.ts";
import { ANSWER_TEXT, startQuickUpstream, type UpstreamPlan } from "./quick-upstream.ts";
import { startRelay } from "./relay-bench-server.ts";
import { fixedRequest } from "./request-stream.ts";
import { StreamConnection } from "./stream-connection.ts";

const AT_ONCE: UpstreamPlan = { delayMs: 0, events: 0, everyMs: 0 };
const STREAM: UpstreamPlan = { delayMs: 0, events: 3, everyMs: 1 };
/** The first thousands of answers of a process are slow: its code is compiled while it runs. */
const WARM_UP = { connections: 8, seconds: 1 };
/** Asked in turn and thrown away: new connections. */
const FIRST_ROUNDS = 20;
const PER_SECOND = 1000;
/** Enough for a stall of half a second. */
const CONNECTIONS_MAX = 500;

interface Rivals {
  readonly direct: ChatServer;
  readonly gokv: ChatServer;
  /** Null where it is not installed. */
  readonly nginx: ChatServer | null;
}

/** Median times of each, in milliseconds. */
interface Times {
  readonly direct: number;
  readonly gokv: number;
  readonly nginx: number | null;
}

function each(rivals: Rivals): ChatServer[] {
  return [rivals.direct, rivals.gokv, ...(rivals.nginx === null ? [] : [rivals.nginx])];
}

/** One request to each in turn, so that a slow moment meets all of them. */
async function timeInTurn(
  rivals: Rivals,
  samples: number,
  open: (server: ChatServer) => Promise<() => Promise<number>>,
): Promise<Times> {
  const asks = await Promise.all(each(rivals).map(open));
  const times = asks.map((): number[] => []);
  for (let round = -FIRST_ROUNDS; round < samples; round++) {
    for (const [index, ask] of asks.entries()) {
      const tookMs = await ask();
      if (round >= 0) times[index]!.push(tookMs);
    }
  }
  const [direct, gokv, nginx] = times.map((own) => percentile(own, 0.5));
  return { direct: direct!, gokv: gokv!, nginx: nginx ?? null };
}

async function openAnswers(server: ChatServer): Promise<() => Promise<number>> {
  const connection = await LightConnection.open(server.url);
  const request = fixedRequest(chatRequest(server, AT_ONCE));
  return async () => {
    const startMs = performance.now();
    const { status, body } = await connection.ask(request);
    const tookMs = performance.now() - startMs;
    if (status !== 200 || !Buffer.from(body).includes(ANSWER_TEXT)) {
      throw new InvalidRun(`${server.name} answers ${status}: ${Buffer.from(body)}`);
    }
    return tookMs;
  };
}

async function openStreams(server: ChatServer): Promise<() => Promise<number>> {
  const connection = await StreamConnection.open(server.url);
  const request = fixedRequest(chatRequest(server, STREAM));
  return async () => {
    const { firstEventMs, isWhole, events } = await connection.read(request, STREAM.events);
    if (!isWhole || firstEventMs === null) throw new InvalidRun(`${server.name} has sent ${events} events`);
    return firstEventMs;
  };
}

async function timeOpenLoop(rivals: Rivals, bench: Bench): Promise<Times> {
  const measure = async (server: ChatServer) => {
    const phases = [{ rate: PER_SECOND, seconds: sized(bench, 5, 2) }];
    const stream = chatRequest(server, AT_ONCE);
    const { samples, unsent } = await withoutLag(() =>
      runOpenLoop({ url: server.url, stream, connections: CONNECTIONS_MAX, phases }),
    );
    const odd = samples.status.filter((status) => status !== 200).length;
    if (odd > 0) throw new InvalidRun(`${server.name}: ${odd} answers were not 200`);
    if (unsent > 0) throw new GeneratorLagged(`${server.name}: ${unsent} requests found no connection free`);
    return percentile(samples.latencyMs, 0.5);
  };
  const servers = each(rivals);
  const times = servers.map((): number[] => []);
  for (let round = 0; round < sized(bench, 3, 1); round++) {
    for (const [index, server] of servers.entries()) times[index]!.push(await measure(server));
  }
  const [direct, gokv, nginx] = times.map((own) => (own.length === 0 ? null : median(own)));
  return { direct: direct!, gokv: gokv!, nginx: nginx ?? null };
}

/** The floor is what a plain proxy adds. */
function added(name: string, targetMs: number, { direct, gokv, nginx }: Times): Figure[] {
  const floor = nginx === null ? null : nginx - direct;
  return [
    atMost(targetMs, { name, unit: "ms", measured: gokv - direct, floor }),
    reported({
      name: "  the whole of it, beside direct",
      unit: "ms",
      measured: gokv,
      floor: direct,
      ratio: gokv / direct,
    }),
  ];
}

async function withRivals(
  bench: Bench,
  plan: UpstreamPlan,
  act: (rivals: Rivals) => Promise<Figure[]>,
): Promise<Figure[]> {
  await using upstream = await startQuickUpstream();
  await using gokv = await startRelay(bench, upstream);
  await using nginx = await startPlainProxy(upstream, bench);
  const { answered } = await runClosedLoop({ ...WARM_UP, url: gokv.url, stream: chatRequest(gokv, plan) });
  const figures = await act({ direct: { name: "the upstream", url: upstream.url, headers: {} }, gokv, nginx });
  await gokv.requireLogged(answered);
  return figures;
}

const latency: Benchmark = {
  name: "relay-latency",
  run: (bench) =>
    withRivals(bench, AT_ONCE, async (rivals) => {
      const times = await timeInTurn(rivals, sized(bench, 4000, 1500), openAnswers);
      return added("relay: added to an answer, p50, 1 connection", 0.5, times);
    }),
};

const openLoop: Benchmark = {
  name: "relay-open-loop",
  run: (bench) =>
    withRivals(bench, AT_ONCE, async (rivals) => {
      // Nothing depends on the floor, and a short run is short.
      const times = await timeOpenLoop(bench.isShort ? { ...rivals, nginx: null } : rivals, bench);
      return added(`relay: added to an answer, p50, ${PER_SECOND}/s open loop`, 0.5, times);
    }),
};

const firstByte: Benchmark = {
  name: "relay-first-byte",
  run: (bench) =>
    withRivals(bench, STREAM, async (rivals) => {
      const times = await timeInTurn(rivals, sized(bench, 1000, 250), openStreams);
      return added("relay: added to the first streamed byte, p50", 1, times);
    }),
};

export const RELAY_LATENCY: readonly Benchmark[] = [latency, openLoop, firstByte];
