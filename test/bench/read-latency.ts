// How long reads take while writes wait for a disk whose every sync is slow.

import { requireStatuses, slowSync, startBenchServer } from "./bench-server.ts";
import { type Bench, type Benchmark, sized } from "./benchmark.ts";
import { atMost, type Figure, GeneratorLagged, InvalidRun, median, percentile, reported } from "./figures.ts";
import { bucketName } from "./filled-store.ts";
import { runClosedLoop } from "./load-generator.ts";
import { runOpenLoop, withoutLag } from "./open-loop.ts";

const SYNC_DELAY_MS = 5;
const WRITERS = 32;
const READS_PER_SECOND = 1000;
/** Enough for a stall of half a second. */
const READERS_MAX = 500;
const ROUNDS = 3;
const SHAPE = { buckets: 1, keysPerBucket: 1_000_000, valueBytes: 100 };
/** Keys that a round of writes may use; each round gets new ones. */
const KEYS_PER_ROUND = 10_000_000;

interface Mixed {
  readonly lagP99Ms: number;
  readonly readP50Ms: number;
  readonly readP99Ms: number;
  readonly writesPerSecond: number;
  readonly writeP50Ms: number;
}

/** Reads keep to their clock, so that a stall is seen by all that were due in it. */
async function measureRound(url: string, { token }: Bench, round: number, seconds: number): Promise<Mixed> {
  const keys = { order: "ascending", first: round * KEYS_PER_ROUND, count: KEYS_PER_ROUND } as const;
  const writing = runClosedLoop({
    url,
    connections: WRITERS,
    seconds,
    stream: { method: "POST", bucket: "written", ...keys, valueBytes: 100, token },
  });
  const reading = runOpenLoop({
    url,
    connections: READERS_MAX,
    phases: [{ rate: READS_PER_SECOND, seconds: seconds - 1 }],
    stream: {
      method: "GET",
      bucket: bucketName(0),
      order: "random",
      first: 0,
      count: SHAPE.keysPerBucket,
      valueBytes: 0,
      token,
    },
  });
  const [writes, { samples, lagP99Ms, unsent }] = await Promise.all([writing, reading]);
  if (unsent > 0) throw new GeneratorLagged(`${unsent} reads could not be sent: all connections were taken`);
  return {
    lagP99Ms,
    readP50Ms: percentile(samples.latencyMs, 0.5),
    readP99Ms: percentile(samples.latencyMs, 0.99),
    writesPerSecond: writes.perSecond,
    writeP50Ms: writes.p50Ms,
  };
}

/** The median of several rounds, each figure by itself. */
async function measure(bench: Bench, wrapper: readonly string[]): Promise<Mixed> {
  await using server = await startBenchServer(await bench.filledStore(SHAPE), {}, wrapper);
  const rounds: Mixed[] = [];
  const seconds = sized(bench, 5, 3);
  for (let round = 0; round < ROUNDS; round++) {
    rounds.push(await withoutLag(() => measureRound(server.url, bench, round, seconds)));
  }
  await requireStatuses(server.url, bench.token, [200]);
  const medianOf = (figure: keyof Mixed) => median(rounds.map((round) => round[figure]));
  return {
    lagP99Ms: medianOf("lagP99Ms"),
    readP50Ms: medianOf("readP50Ms"),
    readP99Ms: medianOf("readP99Ms"),
    writesPerSecond: medianOf("writesPerSecond"),
    writeP50Ms: medianOf("writeP50Ms"),
  };
}

export const READ_LATENCY: Benchmark = {
  name: "read-latency",
  missing: () => (Bun.which("strace") === null ? "strace, which slows syncs down" : null),
  async run(bench) {
    const slow = await measure(bench, slowSync(SYNC_DELAY_MS, bench.newPath()));
    if (slow.writeP50Ms < SYNC_DELAY_MS) throw new InvalidRun(`a write took ${slow.writeP50Ms} ms: no sync was slow`);
    const name = `GET p99, ${WRITERS} connections POST, each sync ${SYNC_DELAY_MS} ms longer`;
    const figures: Figure[] = [atMost(3, { name, unit: "ms", measured: slow.readP99Ms })];
    if (bench.isShort) return figures;
    const plain = await measure(bench, []);
    // Tracing without a delay shows what of the figure is strace's own.
    const traced = await measure(bench, slowSync(0, bench.newPath()));
    return [
      ...figures,
      reported({ name: "  the median of the same", unit: "ms", measured: slow.readP50Ms }),
      reported({ name: "  the POSTs beside it", unit: "/s", measured: slow.writesPerSecond }),
      reported({ name: "  GET p99, traced but not delayed", unit: "ms", measured: traced.readP99Ms }),
      reported({ name: "  GET p99, neither traced nor delayed", unit: "ms", measured: plain.readP99Ms }),
    ];
  },
};
