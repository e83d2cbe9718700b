// How many values go through with an app token, as a share of what the operator's routes do; and how fast batches are.

import { asApp, operatorAt } from "../support/token-client.ts";
import { requireStatuses } from "./bench-server.ts";
import { type Bench, type Benchmark, sized } from "./benchmark.ts";
import { atMost, type Figure, InvalidRun, median, ratioAtLeast } from "./figures.ts";
import { bucketName } from "./filled-store.ts";
import { compareRates, type RateComparison } from "./rate-comparison.ts";
import { KEY_NUMBER_MAX } from "./request-stream.ts";
import { batchBody, importBatch, installApp, startTokenServer, TOKEN_MOUNT, TOKEN_VALUE_ROUTE } from "./token-app.ts";

const VALUE_BYTES = 1024;
const KEYS = 100_000;
const HOT_KEYS = 1000;
const CONNECTIONS = 64;
/** More than a round can send. */
const KEYS_PER_ROUND = 10_000_000;

type Measured = Pick<RateComparison, "rounds" | "seconds" | "connections">;

function rounds(bench: Bench): Measured {
  return { rounds: sized(bench, 5, 3), seconds: 3, connections: CONNECTIONS };
}

const read: Benchmark = {
  name: "token-read",
  async run(bench) {
    const shape = { buckets: 1, keysPerBucket: KEYS, valueBytes: VALUE_BYTES };
    await using server = await startTokenServer(await bench.filledStore(shape));
    const { url } = server;
    const { token } = await installApp(url, bucketName(0));
    const hot = { method: "GET", order: "cycle", first: 0, count: HOT_KEYS, valueBytes: 0 } as const;
    const figure = await compareRates({
      bench,
      name: "GET 1 KB by app token, of the KV rate",
      ...rounds(bench),
      floor: () => ({ url, stream: { ...hot, bucket: bucketName(0), token: bench.token } }),
      measured: () => ({ url, stream: { ...hot, bucket: TOKEN_MOUNT, token } }),
      target: ratioAtLeast(0.6),
    });
    await requireStatuses(url, bench.token, [200]);
    await requireStatuses(url, bench.token, [200], TOKEN_VALUE_ROUTE);
    return [figure];
  },
};

const write: Benchmark = {
  name: "token-write",
  async run(bench) {
    await using server = await startTokenServer(bench.newPath());
    const { url } = server;
    const { token, uuid } = await installApp(url, "written-by-app");
    const post = (round: number) => {
      const keys = { order: "ascending", first: round * KEYS_PER_ROUND, count: KEYS_PER_ROUND } as const;
      return { method: "POST", valueBytes: VALUE_BYTES, ...keys } as const;
    };
    const figure = await compareRates({
      bench,
      name: "durable POST 1 KB by app token, of the KV rate",
      ...rounds(bench),
      floor: (round) => ({ url, stream: { ...post(round), bucket: "written-by-operator", token: bench.token } }),
      measured: (round) => ({ url, stream: { ...post(round), bucket: TOKEN_MOUNT, token } }),
      target: ratioAtLeast(0.8),
    });
    await requireStatuses(url, bench.token, [200]);
    await requireStatuses(url, bench.token, [200], TOKEN_VALUE_ROUTE);
    const list = await asApp(await operatorAt(url), token, "/_keys?limit=0");
    const { total_rows } = (await list.json()) as { total_rows: number };
    if (total_rows < figure.measured) throw new InvalidRun(`only ${total_rows} keys are in ${uuid}`);
    return [figure];
  },
};

const BATCH_KEYS = 1000;
const WARM_UP = 5;

/** Milliseconds, the median of batches one after the other; each has keys of its own. */
async function timeBatches(url: string, token: string, batches: number): Promise<number> {
  const target = await operatorAt(url);
  const tookMs: number[] = [];
  for (let batch = -WARM_UP; batch < batches; batch++) {
    const keys = Array.from({ length: BATCH_KEYS }, (_, key) => `batch${batch}.${key}`);
    const body = batchBody(keys, VALUE_BYTES);
    const startMs = performance.now();
    await importBatch(target, token, body, BATCH_KEYS);
    if (batch >= 0) tookMs.push(performance.now() - startMs);
  }
  return median(tookMs);
}

const batch: Benchmark = {
  name: "token-batch",
  async run(bench) {
    await using server = await startTokenServer(bench.newPath());
    const { url } = server;
    const { token } = await installApp(url, "imported");
    const single = await compareRates({
      bench,
      name: "POST 1 KB by app token, one after the other",
      connections: 1,
      rounds: 1,
      seconds: 3,
      floor: () => ({ url, stream: singles(bench.token, "by-operator") }),
      measured: () => ({ url, stream: singles(token, TOKEN_MOUNT) }),
      target: null,
    });
    const batchMs = await timeBatches(url, token, sized(bench, 100, 40));
    const perSecond = BATCH_KEYS / (batchMs / 1000);
    await requireStatuses(url, bench.token, [200], TOKEN_VALUE_ROUTE);
    const keys: Figure = {
      name: `keys/s of batches of ${BATCH_KEYS}, of POSTs, one connection`,
      unit: "/s",
      measured: perSecond,
      floor: single.measured,
      ratio: perSecond / single.measured,
      target: ratioAtLeast(5),
    };
    return [
      atMost(50, { name: `batch import of ${BATCH_KEYS} keys, 1 KB, median`, unit: "ms", measured: batchMs }),
      keys,
    ];
  },
};

function singles(token: string, bucket: string) {
  const keys = { order: "random", first: 0, count: KEY_NUMBER_MAX } as const;
  return { method: "POST", bucket, ...keys, valueBytes: VALUE_BYTES, token } as const;
}

export const TOKEN_THROUGHPUT: readonly Benchmark[] = [read, write, batch];
