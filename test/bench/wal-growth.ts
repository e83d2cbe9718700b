// Writes without pause while somebody lists a million keys again and again: the write-ahead log stays bounded, other
// reads stay quick, and every list is whole.

import { statSync } from "node:fs";
import { storeFiles } from "../../src/storage/store-files.ts";
import { requireStatuses, startBenchServer } from "./bench-server.ts";
import { type Bench, type Benchmark, sized } from "./benchmark.ts";
import { atMost, type Figure, InvalidRun, percentile, reported } from "./figures.ts";
import { bucketName } from "./filled-store.ts";
import { runClosedLoop } from "./load-generator.ts";
import { hasLagged, runOpenLoop } from "./open-loop.ts";
import { keyName } from "./request-stream.ts";

const KEYS = 1_000_000;
const SHAPE = { buckets: 1, keysPerBucket: KEYS, valueBytes: 100 };
const LOG_LIMIT_MIB = 64;
const MIB = 1024 * 1024;
const WRITERS = 32;
const READS_PER_SECOND = 200;
const SAMPLE_MS = 20;
const SLICE_SECONDS = 3;

/** Lists the whole bucket until told to stop; returns how often. @throws InvalidRun when a list is not the expected */
async function listOnAndOn(url: string, token: string, expected: string, signal: AbortSignal): Promise<number> {
  const headers = { Authorization: `Bearer ${token}` };
  let lists = 0;
  while (!signal.aborted) {
    const response = await fetch(`${url}/_list?bucket=${bucketName(0)}`, { headers });
    if (response.status !== 200) throw new InvalidRun(`a list answers ${response.status}`);
    const hash = new Bun.CryptoHasher("sha256");
    for await (const chunk of response.body!) {
      hash.update(chunk);
      // The last list is not waited for.
      if (signal.aborted) return lists;
    }
    if (hash.digest("hex") !== expected) throw new InvalidRun("a list was not whole");
    lists++;
  }
  return lists;
}

function expectedHash(): string {
  const hash = new Bun.CryptoHasher("sha256").update("[");
  for (let number = 0; number < KEYS; number++) hash.update(`${number === 0 ? "" : ","}"${keyName(number)}"`);
  return hash.update("]").digest("hex");
}

/** Reads in slices; those in which the generator itself could not keep up are thrown away. */
async function readMeanwhile(url: string, token: string, seconds: number): Promise<Figure[]> {
  const endMs = performance.now() + (seconds - SLICE_SECONDS) * 1000;
  const latencyMs: number[] = [];
  let slices = 0;
  let lagged = 0;
  for (; performance.now() < endMs; slices++) {
    const report = await runOpenLoop({
      url,
      connections: 500,
      phases: [{ rate: READS_PER_SECOND, seconds: SLICE_SECONDS }],
      stream: { method: "GET", bucket: bucketName(0), order: "random", first: 0, count: KEYS, valueBytes: 0, token },
    });
    if (hasLagged(report)) lagged++;
    else for (const latency of report.samples.latencyMs) latencyMs.push(latency);
  }
  const name = "  GET p99 meanwhile";
  if (lagged === 0) return [atMost(10, { name, unit: "ms", measured: percentile(latencyMs, 0.99) })];
  const thrownAway = reported({ name: `  of ${slices} stretches of GETs, thrown away`, unit: "", measured: lagged });
  if (lagged === slices) return [thrownAway];
  return [atMost(10, { name, unit: "ms", measured: percentile(latencyMs, 0.99) }), thrownAway];
}

async function run(bench: Bench): Promise<Figure[]> {
  const dbPath = await bench.filledStore(SHAPE);
  await using server = await startBenchServer(dbPath, { WAL_LIMIT_BYTES: `${LOG_LIMIT_MIB}MiB` });
  const { url } = server;
  const { token } = bench;
  const seconds = sized(bench, 60, 10);
  const ending = new AbortController();
  let logBytes = 0;
  const sampling = setInterval(() => {
    logBytes = Math.max(logBytes, statSync(storeFiles(dbPath).wal).size);
  }, SAMPLE_MS);
  try {
    const listing = listOnAndOn(url, token, expectedHash(), ending.signal);
    listing.catch(() => undefined);
    const writing = runClosedLoop({
      url,
      connections: WRITERS,
      seconds,
      // Overwrites all over the store: each write touches pages of its own.
      stream: { method: "POST", bucket: bucketName(0), order: "random", first: 0, count: KEYS, valueBytes: 100, token },
    });
    const reading = readMeanwhile(url, token, seconds);
    const [writes, reads] = await Promise.all([writing, reading]);
    ending.abort();
    const lists = await listing;
    await requireStatuses(url, token, [200]);
    return [
      atMost(2 * LOG_LIMIT_MIB, {
        name: `log file, ${seconds} s of writes beside endless lists of 1 M keys`,
        unit: "MiB",
        measured: logBytes / MIB,
      }),
      ...reads,
      reported({ name: "  the POSTs, 32 connections", unit: "/s", measured: writes.perSecond }),
      reported({ name: "  whole lists of 1 M keys", unit: "lists", measured: lists }),
    ];
  } finally {
    ending.abort();
    clearInterval(sampling);
  }
}

export const WAL_GROWTH: Benchmark = { name: "wal-growth", run };
