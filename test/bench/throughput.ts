// How many reads and durable writes go through, as a share of what the bare HTTP server answers.

import { startBareServer } from "./bare-server.ts";
import { answersOf, countKeys, requireStatuses, startBenchServer, VALUE_ROUTE } from "./bench-server.ts";
import type { Bench, Benchmark } from "./benchmark.ts";
import { type Figure, InvalidRun, ratioAtLeast, type Target } from "./figures.ts";
import { bucketName } from "./filled-store.ts";
import { startLeastServer } from "./least-server.ts";
import { compareRates } from "./rate-comparison.ts";
import { KEY_NUMBER_MAX, keyName, type RequestStream } from "./request-stream.ts";

const VALUE_BYTES = 100;
const KEYS = 1_000_000;
const HOT_KEYS = 1000;
/** More than a round can send. */
const KEYS_PER_ROUND = 10_000_000;

interface Comparison {
  readonly bench: Bench;
  readonly name: string;
  readonly connections: number;
  /** Both servers get the stream of the same round. */
  stream(round: number): RequestStream;
  readonly target: Target | null;
}

/** The bare server is the floor. */
function compare(url: string, bareUrl: string, { stream, ...comparison }: Comparison): Promise<Figure> {
  return compareRates({
    ...comparison,
    rounds: comparison.target === null ? 3 : 5,
    seconds: 3,
    floor: (round) => ({ url: bareUrl, stream: stream(round) }),
    measured: (round) => ({ url, stream: stream(round) }),
  });
}

const read: Benchmark = {
  name: "read",
  async run(bench) {
    const shape = { buckets: 1, keysPerBucket: KEYS, valueBytes: VALUE_BYTES };
    await using bare = await startBareServer();
    await using server = await startBenchServer(await bench.filledStore(shape));
    const get = { method: "GET", bucket: bucketName(0), first: 0, valueBytes: 0, token: bench.token } as const;
    const hot = await compare(server.url, bare.url, {
      bench,
      name: `GET 100 B, ${HOT_KEYS} hot keys`,
      connections: 32,
      stream: () => ({ ...get, order: "cycle", count: HOT_KEYS }),
      target: ratioAtLeast(0.65, 0.75),
    });
    const figures = [hot];
    if (!bench.isShort) {
      const spread = await compare(server.url, bare.url, {
        bench,
        name: "GET 100 B, spread over 1 M keys",
        connections: 32,
        stream: () => ({ ...get, order: "random", count: KEYS }),
        target: null,
      });
      figures.push(spread);
    }
    await requireStatuses(server.url, bench.token, [200]);
    return figures;
  },
};

const WRITES = [32, 256];

const write: Benchmark = {
  name: "write",
  async run(bench) {
    await using bare = await startBareServer();
    await using server = await startBenchServer(bench.newPath());
    const figures: Figure[] = [];
    for (const connections of WRITES) {
      const post = { method: "POST", valueBytes: VALUE_BYTES, token: bench.token } as const;
      const ascending = await compare(server.url, bare.url, {
        bench,
        connections,
        name: "durable POST 100 B, unique ascending keys",
        stream: (round) => ({
          ...post,
          bucket: `ascending-${connections}`,
          order: "ascending",
          first: round * KEYS_PER_ROUND,
          count: KEYS_PER_ROUND,
        }),
        target: ratioAtLeast(0.4, 0.55),
      });
      figures.push(ascending);
      if (bench.isShort) continue;
      const random = await compare(server.url, bare.url, {
        bench,
        connections,
        name: "durable POST 100 B, random keys",
        stream: () => ({ ...post, bucket: `random-${connections}`, order: "random", first: 0, count: KEY_NUMBER_MAX }),
        target: null,
      });
      figures.push(random);
    }
    await requireStatuses(server.url, bench.token, [200]);
    await requireStored(server.url, bench.token);
    return figures;
  },
};

/** Random names repeat now and then, unique ones never. */
const REPEATED_SHARE_MAX = 0.01;
/** At the end of each round clients leave, and what they have under way is stored without an answer. */
const ROUNDS_MAX = 10;
const UNANSWERED_MAX = ROUNDS_MAX * sum(WRITES);

/** What was answered with 200 is there: every acknowledged write made a key, or met its own name again. */
async function requireStored(url: string, token: string): Promise<void> {
  const acknowledged = (await answersOf(url, token, VALUE_ROUTE)).get(200) ?? 0;
  const count = (kind: string) => WRITES.map((connections) => countKeys(url, token, `${kind}-${connections}`));
  const unique = sum(await Promise.all(count("ascending")));
  const drawn = sum(await Promise.all(count("random")));
  const missing = acknowledged - unique - drawn;
  if (missing >= -UNANSWERED_MAX && missing <= drawn * REPEATED_SHARE_MAX) return;
  throw new InvalidRun(`${acknowledged} writes were acknowledged, ${unique + drawn} keys are there`);
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

/** What the targets leave out of account: how much of the bare server's rate is left to a server that stores at all. */
const least: Benchmark = {
  name: "least-server",
  async run(bench) {
    if (bench.isShort) return [];
    await using bare = await startBareServer();
    await using server = await startLeastServer(bench.newPath());
    const stream = { bucket: bucketName(0), token: bench.token } as const;
    for (let number = 0; number < HOT_KEYS; number++) await storeAtLeast(server.url, number);
    const get = { ...stream, method: "GET", order: "cycle", first: 0, count: HOT_KEYS, valueBytes: 0 } as const;
    const figures = [
      await compare(server.url, bare.url, {
        bench,
        name: "GET 100 B of the least durable server",
        connections: 32,
        stream: () => get,
        target: null,
      }),
    ];
    const post = { ...stream, method: "POST", order: "ascending", valueBytes: VALUE_BYTES } as const;
    for (const connections of WRITES) {
      const ascending = await compare(server.url, bare.url, {
        bench,
        name: "durable POST 100 B of the least durable server",
        connections,
        stream: (round) => ({
          ...post,
          bucket: `ascending-${connections}`,
          first: round * KEYS_PER_ROUND,
          count: KEYS_PER_ROUND,
        }),
        target: null,
      });
      figures.push(ascending);
    }
    return figures;
  },
};

async function storeAtLeast(url: string, number: number): Promise<void> {
  const body = new Uint8Array(VALUE_BYTES).fill(120);
  const { status } = await fetch(`${url}/${bucketName(0)}/${keyName(number)}`, { method: "POST", body });
  if (status !== 200) throw new InvalidRun(`the least durable server answered ${status}`);
}

export const THROUGHPUT: readonly Benchmark[] = [read, write, least];
