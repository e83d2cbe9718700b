// How long writes take while a backup of a large store runs, against the same writes without one.

import { rmSync } from "node:fs";
import { requireStatuses, startBenchServer } from "./bench-server.ts";
import { type Bench, type Benchmark, sized } from "./benchmark.ts";
import { type Figure, GeneratorLagged, InvalidRun, median, percentile, ratioAtMost, reported } from "./figures.ts";
import { type OpenLoopReport, samplesBetween, startOpenLoop, withoutLag } from "./open-loop.ts";

/** Rows of 4 KB, one to a page: more than 400 MB in the file. */
const SHAPE = { buckets: 1, keysPerBucket: 100_000, valueBytes: 4000 };
const STORE_BYTES_MIN = 400e6;
const WRITES_PER_SECOND = 500;
/** Enough for a stall of two seconds: what is due in it is sent and waits. */
const CONNECTIONS = 1000;
const QUIET_SECONDS = 3;
/** Longer than a backup takes; the load is stopped when it is done. */
const LOAD_SECONDS_MAX = 180;
const KEYS_PER_ROUND = 1_000_000;

interface Round {
  readonly lagP99Ms: number;
  readonly quietP99Ms: number;
  readonly backupP99Ms: number;
  readonly backupSeconds: number;
}

interface BackupAnswer {
  readonly file: string;
  readonly bytes: number;
  readonly entries: number;
}

/** One load; a quiet stretch of it, then one with a backup. */
async function measure(url: string, token: string, round: number): Promise<Round> {
  const keys = { bucket: "written", order: "ascending", first: round * KEYS_PER_ROUND, count: KEYS_PER_ROUND } as const;
  const load = startOpenLoop({
    url,
    connections: CONNECTIONS,
    phases: [{ rate: WRITES_PER_SECOND, seconds: LOAD_SECONDS_MAX }],
    stream: { method: "POST", ...keys, valueBytes: 100, token },
  });
  await load.started;
  const quietFromMs = Date.now();
  await Bun.sleep(QUIET_SECONDS * 1000);
  const fromMs = Date.now();
  const response = await fetch(`${url}/_admin/backup`, {
    method: "POST",
    headers: { Authorization: `Bearer ${token}` },
  });
  const toMs = Date.now();
  load.stop();
  if (response.status !== 200) throw new InvalidRun(`the backup answers ${response.status}`);
  const { file, bytes, entries } = (await response.json()) as BackupAnswer;
  rmSync(file);
  if (bytes < STORE_BYTES_MIN || entries < SHAPE.keysPerBucket) throw new InvalidRun(`only ${bytes} bytes were copied`);
  const report = await load.report;
  requireStored(report);
  if (toMs - quietFromMs > LOAD_SECONDS_MAX * 1000) throw new InvalidRun("the backup outlived the load");
  const p99 = (from: number, to: number) => percentile(samplesBetween(report.samples, from, to).latencyMs, 0.99);
  return {
    lagP99Ms: report.lagP99Ms,
    quietP99Ms: p99(quietFromMs, fromMs),
    backupP99Ms: p99(fromMs, toMs),
    backupSeconds: (toMs - fromMs) / 1000,
  };
}

function requireStored({ samples, unsent }: OpenLoopReport): void {
  const odd = samples.status.filter((status) => status !== 200);
  if (odd.length > 0) throw new InvalidRun(`${odd.length} writes were not answered with 200`);
  if (unsent > 0) throw new GeneratorLagged(`${unsent} writes could not be sent: all connections were taken`);
}

async function run(bench: Bench): Promise<Figure[]> {
  await using server = await startBenchServer(await bench.filledStore(SHAPE));
  const rounds: Round[] = [];
  for (let round = 0; round < sized(bench, 5, 2); round++) {
    rounds.push(await withoutLag(() => measure(server.url, bench.token, round)));
  }
  await requireStatuses(server.url, bench.token, [200]);
  const target = ratioAtMost(3);
  return [
    {
      name: "POST p99 during a backup of 400 MB",
      unit: "ms",
      measured: median(rounds.map(({ backupP99Ms }) => backupP99Ms)),
      floor: median(rounds.map(({ quietP99Ms }) => quietP99Ms)),
      ratio: median(rounds.map(({ backupP99Ms, quietP99Ms }) => backupP99Ms / quietP99Ms)),
      target,
    },
    reported({
      name: "  the backup",
      unit: "s",
      measured: median(rounds.map(({ backupSeconds }) => backupSeconds)),
    }),
  ];
}

export const BACKUP_LATENCY: Benchmark = { name: "backup-latency", run };
