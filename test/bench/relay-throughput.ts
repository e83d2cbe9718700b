// How many requests the relay lets through, as a share of what the upstream answers without it, and beside others that
// stand in the same place.

import { readFileSync } from "node:fs";
import { residentMb } from "./bench-server.ts";
import { type Bench, type Benchmark, sized } from "./benchmark.ts";
import { chatRequest } from "./chat-request.ts";
import { type Figure, InvalidRun, median, ratioAtLeast, reported, type Target } from "./figures.ts";
import { runClosedLoop } from "./load-generator.ts";
import { type RunningServer, startPlainProxy } from "./plain-proxy.ts";
import { startPortkey } from "./portkey-gateway.ts";
import { type QuickUpstream, startQuickUpstream, type UpstreamPlan } from "./quick-upstream.ts";
import { type RelayBenchServer, socketsOf, startRelay } from "./relay-bench-server.ts";

const CONNECTIONS = [1, 8, 64, 256];
const CONNECTIONS_MAX = 256;
/** Where the targets hold. */
const CONNECTIONS_OF_TARGETS = 64;
const STREAM_EVENTS = 20;
const WARM_UP_SECONDS = 1;
/** Of the processor time that /proc tells: USER_HZ. */
const TICK_US = 10_000;

interface Load {
  readonly name: string;
  readonly plan: UpstreamPlan;
}

const AT_ONCE: Load = { name: "at once", plan: { delayMs: 0, events: 0, everyMs: 0 } };
const AFTER_2_MS: Load = { name: "after 2 ms", plan: { delayMs: 2, events: 0, everyMs: 0 } };
const LOADS: readonly Load[] = [
  AT_ONCE,
  AFTER_2_MS,
  { name: `${STREAM_EVENTS} events at once`, plan: { delayMs: 0, events: STREAM_EVENTS, everyMs: 0 } },
  { name: `${STREAM_EVENTS} events after 2 ms`, plan: { delayMs: 2, events: STREAM_EVENTS, everyMs: 0 } },
];

type Rival = Omit<RunningServer, typeof Symbol.asyncDispose>;

interface Rivals {
  readonly direct: Rival;
  readonly gokv: RelayBenchServer;
  readonly portkey: Rival;
  /** Null where it is not installed. */
  readonly nginx: Rival | null;
  /** Answers that gokv has given. */
  answered: number;
}

/** One server in one round. */
interface Turn {
  readonly perSecond: number;
  /** Processor time of all its threads for one answer. */
  readonly cpuUs: number;
}

/** Each round of every server; they take turns. */
async function takeTurns(
  rivals: Rivals,
  servers: readonly Rival[],
  { plan, connections, rounds }: { plan: UpstreamPlan; connections: number; rounds: number },
): Promise<Turn[][]> {
  const turns: Turn[][] = [];
  for (let round = 0; round < rounds; round++) {
    const own: Turn[] = [];
    for (const server of servers) {
      const beforeUs = processorUs(server.pid);
      const load = { url: server.url, stream: chatRequest(server, plan), connections, seconds: 1 };
      const { perSecond, answered } = await runClosedLoop(load);
      if (server === rivals.gokv) rivals.answered += answered;
      own.push({ perSecond, cpuUs: (processorUs(server.pid) - beforeUs) / answered });
    }
    turns.push(own);
  }
  return turns;
}

function processorUs(pid: number): number {
  // The name in parentheses may hold anything; user and system time are the 12th and 13th field behind it.
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8")
    .replace(/^.*\) /s, "")
    .split(" ");
  return (Number(fields[11]) + Number(fields[12])) * TICK_US;
}

/** The ratio is the median of the rounds' own ratios, so that a slow moment meets both. */
function compared(
  name: string,
  turns: readonly Turn[][],
  [index, floor]: readonly [index: number, floor: number],
  { what = "perSecond", target = null }: { what?: keyof Turn; target?: Target | null } = {},
): Figure {
  return {
    name,
    unit: what === "perSecond" ? "/s" : "us",
    target,
    measured: median(turns.map((own) => own[index]![what])),
    floor: median(turns.map((own) => own[floor]![what])),
    ratio: median(turns.map((own) => own[index]![what] / own[floor]![what])),
  };
}

async function measureTargets(rivals: Rivals, bench: Bench): Promise<Figure[]> {
  const { direct, gokv, portkey } = rivals;
  const size = { connections: CONNECTIONS_OF_TARGETS, rounds: sized(bench, 5, 2) };
  const delayed = await takeTurns(rivals, [direct, gokv], { ...size, plan: AFTER_2_MS.plan });
  const atOnce = await takeTurns(rivals, [direct, gokv, portkey], { ...size, plan: AT_ONCE.plan });
  const where = `${CONNECTIONS_OF_TARGETS} connections`;
  const direct2ms = { target: ratioAtLeast(0.35) };
  return [
    compared(`relay: answers after 2 ms, ${where}, beside direct`, delayed, [1, 0], direct2ms),
    compared(`relay: answers at once, ${where}, beside Portkey`, atOnce, [1, 2], { target: ratioAtLeast(2.5) }),
    compared("  the same beside direct", atOnce, [1, 0]),
    compared("  processor time of an answer, beside Portkey", atOnce, [1, 2], { what: "cpuUs" }),
  ];
}

/** Whether connections to the upstream are kept when there are many. */
async function measureBurst(rivals: Rivals, upstream: QuickUpstream): Promise<Figure> {
  const { accepted, requests } = await upstream.counts();
  await takeTurns(rivals, [rivals.gokv], { plan: AFTER_2_MS.plan, connections: CONNECTIONS_MAX, rounds: 1 });
  const after = await upstream.counts();
  const share = (100 * (after.accepted - accepted)) / (after.requests - requests);
  const name = `  requests that opened a connection upstream, ${CONNECTIONS_MAX} clients`;
  return reported({ name, unit: "%", measured: share });
}

/** Everything beside direct, without a target. */
async function measureAll(rivals: Rivals): Promise<Figure[]> {
  const { direct, gokv, portkey, nginx } = rivals;
  const servers = [direct, gokv, portkey, ...(nginx === null ? [] : [nginx])];
  const figures: Figure[] = [];
  for (const { name, plan } of LOADS) {
    for (const connections of CONNECTIONS) {
      const turns = await takeTurns(rivals, servers, { plan, connections, rounds: 2 });
      for (const [index, server] of servers.entries()) {
        if (index === 0) continue;
        figures.push(compared(`  ${server.name}, ${name}, ${connections} connections`, turns, [index, 0]));
      }
    }
  }
  return figures;
}

async function run(bench: Bench): Promise<Figure[]> {
  await using upstream = await startQuickUpstream();
  await using gokv = await startRelay(bench, upstream);
  await using portkey = await startPortkey(upstream, bench.newPath());
  await using nginx = bench.isShort ? null : await startPlainProxy(upstream, bench);
  const direct = { name: "direct", url: upstream.url, headers: {}, pid: upstream.pid };
  const rivals: Rivals = { direct, gokv, portkey, nginx, answered: 0 };
  for (const server of [gokv, portkey]) {
    const load = { url: server.url, stream: chatRequest(server, AT_ONCE.plan) };
    await runClosedLoop({ ...load, connections: CONNECTIONS_OF_TARGETS, seconds: WARM_UP_SECONDS });
  }
  const figures = await measureTargets(rivals, bench);
  if (!bench.isShort) figures.push(await measureBurst(rivals, upstream), ...(await measureAll(rivals)));
  await gokv.requireLogged(rivals.answered);
  if (rivals.answered === 0) throw new InvalidRun("nothing was answered");
  return [
    ...figures,
    reported({ name: "  sockets open afterwards", unit: "", measured: socketsOf(gokv.pid) }),
    reported({ name: "  memory afterwards", unit: "MB", measured: residentMb(gokv.pid, "VmRSS") }),
    reported({ name: "  memory of Portkey afterwards", unit: "MB", measured: residentMb(portkey.pid, "VmRSS") }),
  ];
}

export const RELAY_THROUGHPUT: Benchmark = { name: "relay-throughput", run };
