// A namespace of a hundred thousand keys: how long its pages take, and what others feel while it is sorted or wiped.

import { Database } from "bun:sqlite";
import { storeFiles } from "../../src/storage/store-files.ts";
import { sync } from "../../src/storage/sync-path.ts";
import { type Asked, asApp, type Installed, operatorAt } from "../support/token-client.ts";
import { type Bench, type Benchmark, sized } from "./benchmark.ts";
import { atMost, InvalidRun, median, percentile, reported } from "./figures.ts";
import { bucketName } from "./filled-store.ts";
import { getRequest, LightConnection } from "./light-connection.ts";
import { type OpenLoopReport, type Samples, samplesBetween, startOpenLoop, withoutLag } from "./open-loop.ts";
import { keyName } from "./request-stream.ts";
import { batchBody, importBatch, installApp, startTokenServer, TOKEN_MOUNT } from "./token-app.ts";

const KEYS = 100_000;
const VALUE_BYTES = 1024;
const BATCH_KEYS = 5_000;
const PAGE = 100;
const LIST_WARM_UP = 20;
const OTHER_KEYS = 1000;
const READS_PER_SECOND = 200;
const WRITE_PAUSE_MS = 5;
const PURGE_POLL_MS = 10;
const PURGE_MS_MAX = 120_000;
/** Half of the keys have this prefix. */
const HALVES = ["half", "rest"];

const SHAPE = { buckets: 1, keysPerBucket: KEYS, valueBytes: VALUE_BYTES };

/** A large namespace, and one of others, who must feel nothing of what happens in it. */
interface Namespaces {
  readonly url: string;
  readonly dbPath: string;
  readonly target: Asked;
  readonly large: Installed;
  readonly other: Installed;
}

/** A copy of the filled store. It is on the disk already, so that no sync of the server has to bring it there. */
async function filledPath(bench: Bench): Promise<string> {
  const dbPath = await bench.filledStore(SHAPE);
  sync(storeFiles(dbPath).database);
  return dbPath;
}

/** The bucket of the filled store is the large namespace. */
async function prepare(url: string, dbPath: string): Promise<Namespaces> {
  const target = await operatorAt(url);
  const large = await installApp(url, bucketName(0));
  const other = await installApp(url, "other");
  const keys = Array.from({ length: OTHER_KEYS }, (_, n) => keyName(n));
  await importBatch(target, other.token, batchBody(keys, VALUE_BYTES), OTHER_KEYS);
  return { url, dbPath, target, large, other };
}

/** Milliseconds, the median; each page must tell `total` and begin with `first`. */
async function timePages(
  url: string,
  { token }: Installed,
  requests: number,
  page: { skip: number; total: number; first: string },
): Promise<number> {
  const connection = await LightConnection.open(url);
  const bytes = getRequest(`/${TOKEN_MOUNT}/_keys?limit=${PAGE}&skip=${page.skip}`, token);
  const tookMs: number[] = [];
  for (let request = -LIST_WARM_UP; request < requests; request++) {
    const startMs = performance.now();
    const { status, body } = await connection.ask(bytes);
    if (request >= 0) tookMs.push(performance.now() - startMs);
    const { keys, total_rows } = JSON.parse(Buffer.from(body).toString()) as { keys?: string[]; total_rows?: number };
    if (status !== 200 || total_rows !== page.total || keys?.length !== PAGE || keys[0] !== page.first) {
      throw new InvalidRun(`a page answers ${status} with ${keys?.length} of ${total_rows} keys`);
    }
  }
  connection.close();
  return median(tookMs);
}

const lists: Benchmark = {
  name: "token-lists",
  async run(bench) {
    await using server = await startTokenServer(bench.newPath());
    const { url } = server;
    const target = await operatorAt(url);
    const large = await installApp(url, "large");
    const half = await installApp(url, "large", { permissionPrefix: HALVES[0]! });
    const keys = HALVES.flatMap((name) => Array.from({ length: KEYS / 2 }, (_, n) => `${name}.${keyName(n)}`));
    for (let from = 0; from < KEYS; from += BATCH_KEYS) {
      await importBatch(target, large.token, batchBody(keys.slice(from, from + BATCH_KEYS), VALUE_BYTES), BATCH_KEYS);
    }
    const requests = sized(bench, 200, 100);
    const first = `${HALVES[0]}.${keyName(0)}`;
    const middle = `${HALVES[1]}.${keyName(0)}`;
    const name = `_keys, ${PAGE} of 100 000 keys, median`;
    const start = await timePages(url, large, requests, { skip: 0, total: KEYS, first });
    const deep = await timePages(url, large, requests, { skip: KEYS / 2, total: KEYS, first: middle });
    const narrow = await timePages(url, half, requests, { skip: 0, total: KEYS / 2, first });
    return [
      atMost(3, { name, unit: "ms", measured: start }),
      atMost(6, { name: "  the same, skip=50000", unit: "ms", measured: deep }),
      atMost(5, { name: "  the same, a prefix that covers half", unit: "ms", measured: narrow }),
    ];
  },
};

interface Meanwhile {
  readonly lagP99Ms: number;
  readonly reads: Samples;
  /** Of writes one after the other, in another namespace. */
  readonly writesMs: readonly number[];
  readonly tookMs: number;
}

/** What reads and writes of others meet while `act` runs. @throws InvalidRun */
async function meanwhile(namespaces: Namespaces, secondsMax: number, act: () => Promise<void>): Promise<Meanwhile> {
  const { url, other } = namespaces;
  const load = startOpenLoop({
    url,
    connections: 200,
    phases: [{ rate: READS_PER_SECOND, seconds: secondsMax }],
    stream: {
      method: "GET",
      bucket: TOKEN_MOUNT,
      order: "random",
      first: 0,
      count: OTHER_KEYS,
      valueBytes: 0,
      token: other.token,
    },
  });
  await load.started;
  const writing = new AbortController();
  const writes = writeOnAndOn(namespaces, writing.signal);
  const fromMs = performance.timeOrigin + performance.now();
  let toMs: number;
  try {
    await act();
  } finally {
    toMs = performance.timeOrigin + performance.now();
    writing.abort();
    load.stop();
  }
  const [report, writesMs] = await Promise.all([load.report, writes]);
  const { lagP99Ms } = report;
  return { lagP99Ms, reads: readsOf(report, fromMs, toMs), writesMs, tookMs: toMs - fromMs };
}

function readsOf(report: OpenLoopReport, fromMs: number, toMs: number): Samples {
  const reads = samplesBetween(report.samples, fromMs, toMs);
  const odd = reads.status.filter((status) => status !== 200);
  if (odd.length > 0) throw new InvalidRun(`${odd.length} reads were answered with ${[...new Set(odd)].join(", ")}`);
  if (reads.status.length === 0) throw new InvalidRun("nothing was read meanwhile");
  return reads;
}

async function writeOnAndOn({ url, other }: Namespaces, signal: AbortSignal): Promise<number[]> {
  const connection = await LightConnection.open(url);
  const head = `POST /${TOKEN_MOUNT}/written HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer ${other.token}\r\n`;
  const bytes = Buffer.from(`${head}Content-Length: 3\r\n\r\n"x"`);
  const tookMs: number[] = [];
  while (!signal.aborted) {
    const startMs = performance.now();
    const { status } = await connection.ask(bytes);
    tookMs.push(performance.now() - startMs);
    if (status !== 200) throw new InvalidRun(`a write is answered with ${status}`);
    await Bun.sleep(WRITE_PAUSE_MS);
  }
  connection.close();
  return tookMs;
}

const sort: Benchmark = {
  name: "token-sort",
  async run(bench) {
    const dbPath = await filledPath(bench);
    await using server = await startTokenServer(dbPath);
    const namespaces = await prepare(server.url, dbPath);
    const tookMs: number[] = [];
    const list = async () => {
      const startMs = performance.now();
      const response = await asApp(namespaces.target, namespaces.large.token, "/_keys?sortBy=createdAt&sortDir=desc");
      const { keys } = (await response.json()) as { keys?: string[] };
      if (keys?.length !== PAGE) throw new InvalidRun(`a sorted list answers ${response.status}`);
      tookMs.push(performance.now() - startMs);
    };
    const lists = sized(bench, 20, 8);
    const { reads } = await withoutLag(() =>
      meanwhile(namespaces, PURGE_MS_MAX / 1000, async () => {
        for (let listed = 0; listed < lists; listed++) await list();
      }),
    );
    const p99Ms = percentile(reads.latencyMs, 0.99);
    return [
      atMost(20, { name: "GET p99 of others beside lists by createdAt of 100 000 keys", unit: "ms", measured: p99Ms }),
      reported({ name: "  such a list, median", unit: "ms", measured: median(tookMs) }),
    ];
  },
};

async function wipe({ target, large, dbPath }: Namespaces): Promise<void> {
  // Nothing on the wire tells when the last row is gone.
  using database = new Database(storeFiles(dbPath).database, { readonly: true });
  const wiped = database.query<{ revision: number }, [string]>(
    "SELECT wiped_revision AS revision FROM kv_bucket WHERE name = ?",
  );
  const response = await asApp(target, large.token, "/", { method: "DELETE" });
  if (response.status !== 204) throw new InvalidRun(`the wipe answers ${response.status}`);
  const deadlineMs = performance.now() + PURGE_MS_MAX;
  while (wiped.get(large.uuid)!.revision !== 0) {
    if (performance.now() > deadlineMs) throw new InvalidRun("the purge does not come to its end");
    await Bun.sleep(PURGE_POLL_MS);
  }
}

const wiping: Benchmark = {
  name: "token-wipe",
  async run(bench) {
    const { reads, writesMs, tookMs } = await withoutLag(async () => {
      const dbPath = await filledPath(bench);
      await using server = await startTokenServer(dbPath);
      const namespaces = await prepare(server.url, dbPath);
      return await meanwhile(namespaces, PURGE_MS_MAX / 1000, () => wipe(namespaces));
    });
    const p99Ms = percentile(reads.latencyMs, 0.99);
    return [
      atMost(3, { name: "DELETE of a namespace of 100 000 keys until purged", unit: "s", measured: tookMs / 1000 }),
      atMost(20, { name: "  GET p99 of others meanwhile", unit: "ms", measured: p99Ms }),
      atMost(50, { name: "  the slowest write of others meanwhile", unit: "ms", measured: Math.max(...writesMs) }),
      reported({ name: "  the median write of others meanwhile", unit: "ms", measured: median(writesMs) }),
    ];
  },
};

export const TOKEN_NAMESPACE: readonly Benchmark[] = [lists, sort, wiping];
