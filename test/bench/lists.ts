// How long one page of a large list takes, as a client with a kept-alive connection sees it; nothing is subtracted.

import { startBenchServer } from "./bench-server.ts";
import type { Bench, Benchmark } from "./benchmark.ts";
import { atMost, InvalidRun, median } from "./figures.ts";
import { bucketName, type StoreShape } from "./filled-store.ts";
import { getRequest, LightConnection } from "./light-connection.ts";
import { KEY_DELIMITER, keyName } from "./request-stream.ts";

const REQUESTS = 200;
const WARM_UP = 20;
const PAGE = 1000;
const KEYS = 1_000_000;
const ONE_BUCKET: StoreShape = { buckets: 1, keysPerBucket: KEYS, valueBytes: 100 };
const MANY_BUCKETS: StoreShape = { buckets: 1000, keysPerBucket: KEYS / 1000, valueBytes: 100 };

/** Milliseconds, the median; each answer must be a list of `names` strings that begins with `first`. */
async function timeLists(
  url: string,
  token: string,
  names: number,
  next: () => { path: string; first: string },
): Promise<number> {
  const connection = await LightConnection.open(url);
  const tookMs: number[] = [];
  for (let request = -WARM_UP; request < REQUESTS; request++) {
    const { path, first } = next();
    const bytes = getRequest(path, token);
    const startMs = performance.now();
    const { status, body } = await connection.ask(bytes);
    if (request >= 0) tookMs.push(performance.now() - startMs);
    if (status !== 200) throw new InvalidRun(`${path} answers ${status}`);
    const list = JSON.parse(Buffer.from(body).toString()) as string[];
    if (list.length !== names || list[0] !== first) throw new InvalidRun(`${path} lists ${list.length} names`);
  }
  connection.close();
  return median(tookMs);
}

async function timePages({ token, filledStore }: Bench) {
  await using server = await startBenchServer(await filledStore(ONE_BUCKET));
  const bucket = bucketName(0);
  const plain = await timeLists(server.url, token, PAGE, () => {
    const first = keyName(Math.floor(Math.random() * (KEYS - PAGE)));
    return { path: `/_list?bucket=${bucket}&limit=${PAGE}&start=${first}`, first };
  });
  // A thousand groups of a thousand keys: the page that jumps most often.
  const firstGroup = keyName(0).split(KEY_DELIMITER)[0] + KEY_DELIMITER;
  const grouped = await timeLists(server.url, token, PAGE, () => {
    return { path: `/_list?bucket=${bucket}&limit=${PAGE}&delimiter=${KEY_DELIMITER}`, first: firstGroup };
  });
  return { plain, grouped };
}

const page: Benchmark = {
  name: "list-page",
  async run(bench) {
    const { plain, grouped } = await timePages(bench);
    return [
      atMost(3, { name: "list page of 1000 out of 1 M keys, median", unit: "ms", measured: plain }),
      atMost(3, { name: "the same with a delimiter, 1000 groups", unit: "ms", measured: grouped }),
    ];
  },
};

const buckets: Benchmark = {
  name: "list-buckets",
  async run({ token, filledStore }) {
    await using server = await startBenchServer(await filledStore(MANY_BUCKETS));
    const names = MANY_BUCKETS.buckets;
    const measured = await timeLists(server.url, token, names, () => ({ path: "/_list", first: bucketName(0) }));
    return [atMost(25, { name: "list of 1000 buckets over 1 M keys, median", unit: "ms", measured })];
  },
};

export const LISTS: readonly Benchmark[] = [page, buckets];
