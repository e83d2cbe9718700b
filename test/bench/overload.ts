// More durable writes than a slow disk takes: what can be stored is stored, the rest is refused at once, and when the
// load ends so does the trouble.

import { requireStatuses, slowSync, startBenchServer } from "./bench-server.ts";
import { type Bench, type Benchmark, sized } from "./benchmark.ts";
import { atMost, type Figure, InvalidRun, percentile, ratioAtLeast, reported } from "./figures.ts";
import { runClosedLoop } from "./load-generator.ts";
import { countByStatus, type OpenLoopReport, runOpenLoop, samplesBetween } from "./open-loop.ts";
import type { RequestStream } from "./request-stream.ts";

const SYNC_DELAY_MS = 5;
/** The peak is the best of these. */
const PEAK_CONNECTIONS = [64, 128, 256, 512];
const PEAK_CONNECTIONS_SHORT = [128, 256];
const LEVELS = [1, 2, 3];
/** More than the server lets in, so that it has to refuse. */
const CONNECTIONS = 2000;
/** A load that the disk takes easily. */
const CALM_SHARE = 0.1;
const AFTER_SECONDS = 3;
const WINDOW_MS = 100;
/** The first moments of a level fill the queue. */
const SETTLE_MS = 500;
/** Less than this share of the planned requests on the wire, and it was another load. */
const OFFERED_SHARE_MIN = 0.95;
const KEYS_PER_ROUND = 50_000_000;

function writes(bucket: string, round: number, token: string): RequestStream {
  const keys = { bucket, order: "ascending", first: round * KEYS_PER_ROUND, count: KEYS_PER_ROUND } as const;
  return { method: "POST", ...keys, valueBytes: 100, token };
}

async function findPeak(url: string, bench: Bench): Promise<number> {
  const rates: number[] = [];
  for (const [round, connections] of sized(bench, PEAK_CONNECTIONS, PEAK_CONNECTIONS_SHORT).entries()) {
    const stream = writes("peak", round, bench.token);
    const { perSecond } = await runClosedLoop({ url, stream, connections, seconds: sized(bench, 4, 1) });
    rates.push(perSecond);
  }
  return Math.max(...rates);
}

interface Level {
  readonly offeredPerSecond: number;
  readonly storedPerSecond: number;
  readonly p99Ms: number;
}

function describeLevel({ samples, boundsMs }: OpenLoopReport, phase: number): Level {
  const fromMs = boundsMs[phase]! + SETTLE_MS;
  const toMs = boundsMs[phase + 1]!;
  const inside = samplesBetween(samples, fromMs, toMs);
  const stored = inside.latencyMs.filter((_, index) => inside.status[index] === 200);
  const seconds = (toMs - fromMs) / 1000;
  return {
    offeredPerSecond: inside.status.length / seconds,
    storedPerSecond: stored.length / seconds,
    p99Ms: percentile(stored, 0.99),
  };
}

/** When the last window of the phase that was not as calm as `calmP99Ms` ended, from the start of the phase. */
function recoveryMs({ samples, boundsMs }: OpenLoopReport, phase: number, calmP99Ms: number): number {
  const startMs = boundsMs[phase]!;
  let recoveredMs = 0;
  for (let fromMs = startMs; fromMs < boundsMs[phase + 1]!; fromMs += WINDOW_MS) {
    const window = samplesBetween(samples, fromMs, fromMs + WINDOW_MS);
    const isCalm = window.status.every((status) => status === 200) && percentile(window.latencyMs, 0.5) <= calmP99Ms;
    if (window.status.length > 0 && !isCalm) recoveredMs = fromMs + WINDOW_MS - startMs;
  }
  return recoveredMs;
}

/** A level that the generator could not offer is told by what it did offer, and held to nothing. */
function levelFigures({ offeredPerSecond, storedPerSecond, p99Ms }: Level, level: number, peak: number): Figure[] {
  const isOffered = offeredPerSecond >= OFFERED_SHARE_MIN * level * peak;
  const load = `${isOffered ? level : (offeredPerSecond / peak).toFixed(1)} x the peak`;
  const note = isOffered ? "open loop" : `${level} x were more than the generator could offer`;
  const target = isOffered ? ratioAtLeast(0.8) : null;
  const share = { measured: storedPerSecond, floor: peak, ratio: storedPerSecond / peak, target };
  return [
    { name: `  stored at ${load}, ${note}`, unit: "/s", ...share },
    reported({ name: "  p99 of what was stored", unit: "ms", measured: p99Ms }),
  ];
}

async function run(bench: Bench): Promise<Figure[]> {
  await using server = await startBenchServer(bench.newPath(), {}, slowSync(SYNC_DELAY_MS, bench.newPath()));
  const { url } = server;
  const peak = await findPeak(url, bench);
  const calm = { rate: peak * CALM_SHARE, seconds: sized(bench, 2, 1) };
  const seconds = sized(bench, 10, 2);
  // calm, 1x, calm, 2x, calm, 3x, calm
  const phases = LEVELS.flatMap((level) => [calm, { rate: level * peak, seconds }]);
  const report = await runOpenLoop({
    url,
    stream: writes("offered", 0, bench.token),
    connections: CONNECTIONS,
    phases: [...phases, { ...calm, seconds: AFTER_SECONDS }],
  });
  const odd = [...countByStatus(report.samples)].filter(([status]) => status !== 200 && status !== 503);
  if (odd.length > 0) throw new InvalidRun(odd.map(([status, count]) => `${count} × ${status}`).join(", "));
  await requireStatuses(url, bench.token, [200, 503]);

  const calmSamples = samplesBetween(report.samples, report.boundsMs[0]! + SETTLE_MS, report.boundsMs[1]!);
  const calmP99Ms = percentile(calmSamples.latencyMs, 0.99);
  const figures: Figure[] = [reported({ name: "peak of durable POST, 5 ms sync", unit: "/s", measured: peak })];
  for (const [index, level] of LEVELS.entries()) {
    figures.push(...levelFigures(describeLevel(report, 2 * index + 1), level, peak));
  }
  const back = recoveryMs(report, 2 * LEVELS.length, calmP99Ms);
  figures.push(atMost(2, { name: "  back to normal after the load", unit: "s", measured: back / 1000 }));
  return figures;
}

export const OVERLOAD: Benchmark = {
  name: "overload",
  missing: () => (Bun.which("strace") === null ? "strace, which slows syncs down" : null),
  run,
};
