// A million keys in one list, and a hundred thousand entries that expire at once: neither takes the memory, nor the
// time of other requests.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import type { NewEntry } from "../../src/storage/kv-rows.ts";
import { alterStore } from "../support/alter-store.ts";
import { eventually } from "../support/eventually.ts";
import { type Environment, type ServerProcess, startServer } from "../support/executable.ts";
import { expectFigure, expectTime } from "../support/figures-in-bounds.ts";
import { fillLargeStore, plainEntry } from "../support/large-store.ts";
import { openRaw } from "../support/raw-request.ts";
import { residentBytes } from "../support/resident-bytes.ts";
import { report } from "../support/run-size.ts";
import { mint, SECRET } from "../support/targets.ts";
import { tempDir } from "../support/temp-dir.ts";

const MiB = 1024 * 1024;
const MANY_KEYS = 1_000_000;
const LONG_KEYS = 20_000;
const RSS_RISE_MAX = 32 * MiB;
/** Long enough for a server that does not heed its readers to send all lists to the end. */
const STALLED_MS = 3000;
/** Twenty lists gathered in memory would take ten times as much; this is the dust of making their first pages. */
const STALLED_RSS_RISE_MAX = 100 * MiB;
const EXPIRING_ROWS = 100_000;
const WRITE_P99_MS_MAX = 50;
const SWEPT_WITHIN_MS = 60_000;

interface FilledServer {
  readonly url: string;
  readonly pid: number;
  readonly dbPath: string;
}

/** A server on a store that was filled before it starts. */
function useFilledServer(env: Environment, fill: (directory: string) => Promise<void>): () => FilledServer {
  const directory = tempDir();
  const dbPath = directory.file("data");
  let server: ServerProcess | null = null;
  beforeAll(async () => {
    await fill(dbPath);
    server = await startServer({ JWT_SECRET: SECRET, DB_PATH: dbPath, METRICS: "open", ACCESS_LOG: "off", ...env });
  }, 240_000);
  afterAll(async () => {
    await server?.[Symbol.asyncDispose]();
    directory[Symbol.dispose]();
  });
  return () => ({ url: server!.url, pid: server!.pid, dbPath });
}

function percentile(values: readonly number[], share: number): number {
  return values.toSorted((a, b) => a - b)[Math.ceil(values.length * share) - 1]!;
}

const nameOf = (index: number) => `key-${String(index).padStart(9, "0")}`;

/** A page of these is a megabyte: a list of them is never in the kernel's buffers as a whole. */
const longNameOf = (index: number) => `${nameOf(index)}${"-".repeat(1000)}`;

/** The bytes of a chunked body. */
function unchunked(body: string): string {
  let text = "";
  for (let at = 0; ; ) {
    const lineEnd = body.indexOf("\r\n", at);
    const size = Number.parseInt(body.slice(at, lineEnd), 16);
    if (!(size > 0)) return text;
    text += body.slice(lineEnd + 2, lineEnd + 2 + size);
    at = lineEnd + 2 + size + 2;
  }
}

/** SHA-256 of the array of `count` names, made a piece at a time. */
function expectedHash(count: number, isReverse: boolean): string {
  const hash = new Bun.CryptoHasher("sha256");
  for (let index = 0; index < count; index++) {
    const name = nameOf(isReverse ? count - 1 - index : index);
    hash.update(`${index === 0 ? "[" : ","}"${name}"`);
  }
  return hash.update("]").digest("hex");
}

describe("a list of a million keys", () => {
  // No sweep while the tables are elsewhere.
  const server = useFilledServer({ SWEEP_INTERVAL: "1h" }, (directory) => {
    function* entries(): Generator<NewEntry> {
      for (let index = 0; index < MANY_KEYS; index++) yield plainEntry("many", nameOf(index));
      for (let index = 0; index < LONG_KEYS; index++) yield plainEntry("long", longNameOf(index));
    }
    return fillLargeStore(directory, entries());
  });
  let headers: Record<string, string>;
  beforeAll(async () => {
    headers = { Authorization: `Bearer ${await mint()}` };
    // Whatever is loaded or compiled on first use is there before anything is measured.
    for (let times = 0; times < 200; times++) {
      await (await fetch(`${server().url}/_list?bucket=many&limit=1000`, { headers })).text();
    }
  });

  for (const [order, query] of [
    ["forwards", ""],
    ["backwards", "&reverse=1"],
  ] as const) {
    test(`is complete ${order}, in order, and takes no more than 32 MB while it is sent`, async () => {
      const before = residentBytes(server().pid);
      let peak = before;
      const startMs = performance.now();
      const response = await fetch(`${server().url}/_list?bucket=many${query}`, { headers });
      const hash = new Bun.CryptoHasher("sha256");
      let sampledMs = 0;
      for await (const chunk of response.body!) {
        hash.update(chunk);
        if (performance.now() - sampledMs < 10) continue;
        sampledMs = performance.now();
        peak = Math.max(peak, residentBytes(server().pid));
      }
      peak = Math.max(peak, residentBytes(server().pid));
      const rise = peak - before;
      report(
        `unlimited list of 1 M keys ${order}: ${Math.round(performance.now() - startMs)} ms, ` +
          `RSS +${Math.round(rise / MiB)} MiB`,
      );
      expect([response.status, hash.digest("hex")]).toEqual([200, expectedHash(MANY_KEYS, query !== "")]);
      expectFigure("memory of an unlimited list", rise, RSS_RISE_MAX, 2);
    }, 240_000);
  }

  test("is not gathered in memory for readers that have stopped reading", async () => {
    const before = residentBytes(server().pid);
    const readers = await Promise.all(Array.from({ length: 20 }, () => openRaw(server().url)));
    try {
      const head = `GET /_list?bucket=many HTTP/1.1\r\nHost: h\r\nAuthorization: ${headers.Authorization}\r\n\r\n`;
      for (const reader of readers) {
        reader.pause();
        reader.send(head);
      }
      let peak = before;
      const endMs = performance.now() + STALLED_MS;
      while (performance.now() < endMs) {
        peak = Math.max(peak, residentBytes(server().pid));
        await Bun.sleep(20);
      }
      const rise = peak - before;
      report(`20 stalled readers of a list of 1 M keys: RSS +${Math.round(rise / MiB)} MiB`);
      expectFigure("memory of stalled lists", rise, STALLED_RSS_RISE_MAX, 2);
    } finally {
      for (const reader of readers) reader[Symbol.dispose]();
    }
  });

  test("other requests are answered while it is sent", async () => {
    const response = await fetch(`${server().url}/_list?bucket=many`, { headers });
    const times: number[] = [];
    let isOver = false;
    const drain = (async () => {
      for await (const _ of response.body!);
      isOver = true;
    })();
    while (!isOver) {
      const startMs = performance.now();
      expect((await fetch(`${server().url}/many/${nameOf(times.length)}`, { headers })).status).toBe(200);
      times.push(performance.now() - startMs);
    }
    await drain;
    report(`GET beside an unlimited list: p99 ${percentile(times, 0.99).toFixed(1)} ms of ${times.length}`);
    expect(times.length).toBeGreaterThan(5);
    expectTime("GET beside a list, p99", percentile(times, 0.99), 50);
  }, 240_000);

  /** Asks for a list and leaves it unread until `act` is done; everything that was received then. */
  async function listAround(bucket: string, act: () => Promise<void>): Promise<string> {
    using reader = await openRaw(server().url);
    reader.pause();
    const lines = `Host: h\r\nConnection: close\r\nAuthorization: ${headers.Authorization}\r\n`;
    reader.send(`GET /_list?bucket=${bucket} HTTP/1.1\r\n${lines}\r\n`);
    // Long enough for its first megabytes to be under way.
    await Bun.sleep(2_000);
    await act();
    reader.resume();
    // Awaited here: the connection is gone when this function returns.
    return await reader.closed();
  }

  test("that fails in the middle is cut, so that it is no valid JSON", async () => {
    const { dbPath } = server();
    const text = await listAround("many", () => alterStore(dbPath, "ALTER TABLE kv RENAME TO kv_elsewhere"));
    await alterStore(dbPath, "ALTER TABLE kv_elsewhere RENAME TO kv");
    expect(text).toStartWith("HTTP/1.1 200 OK");
    expect(text.length).toBeGreaterThan(MiB);
    // Neither the end of the array nor the chunk that ends a body.
    expect([text.includes("]"), text.endsWith("\r\n0\r\n\r\n")]).toEqual([false, false]);
  });

  test("whose rest is deleted while it is sent ends well, with what was there", async () => {
    const text = await listAround("long", () => alterStore(server().dbPath, "DELETE FROM kv WHERE bucket = 'long'"));
    expect(text).toStartWith("HTTP/1.1 200 OK");
    const names = JSON.parse(unchunked(text.slice(text.indexOf("\r\n\r\n") + 4))) as string[];
    expect(names.length).toBeGreaterThan(1000);
    expect(names.length).toBeLessThan(LONG_KEYS);
    expect(names).toEqual(names.map((_, index) => longNameOf(index)));
  });

  test("counts, pages and groups know all of them", async () => {
    const ask = async (query: string) =>
      (await fetch(`${server().url}/_list?bucket=many&${query}`, { headers })).json();
    expect(await ask("count=1")).toEqual({ count: MANY_KEYS });
    expect(await ask(`count=1&prefix=${nameOf(0).slice(0, -5)}`)).toEqual({ count: 100_000 });
    expect(await ask("delimiter=-&limit=2")).toEqual(["key-"]);
    expect(await ask(`start=${nameOf(MANY_KEYS - 2)}`)).toEqual([nameOf(MANY_KEYS - 2), nameOf(MANY_KEYS - 1)]);
  });
});

describe("a hundred thousand entries that expire in one second", () => {
  const FILL_TIME_MS = 12_000;
  const WRITE_EVERY_MS = 5;
  let firstExpiryMs = 0;
  const server = useFilledServer({}, (directory) => {
    firstExpiryMs = Date.now() + FILL_TIME_MS;
    function* entries(): Generator<NewEntry> {
      for (let index = 0; index < EXPIRING_ROWS; index++) {
        const expiresAtMs = firstExpiryMs + (index % 1000);
        yield { ...plainEntry("brief", nameOf(index)), expiresAtMs };
        if (index % 1000 === 0) yield plainEntry("lasting", nameOf(index));
      }
    }
    return fillLargeStore(directory, entries());
  });

  async function sweptTotal(): Promise<number> {
    const text = await (await fetch(`${server().url}/metrics`)).text();
    return Number(/^gokv_swept_total (\d+)$/m.exec(text)![1]);
  }

  /**
   * One write every WRITE_EVERY_MS until `isOver`, whether the ones before it are answered or not: who waits for an
   * answer before asking again sees one slow answer where many would have been. The time of each, in ms.
   */
  async function writeUntil(isOver: () => boolean, headers: Record<string, string>): Promise<number[]> {
    const startMs = performance.now();
    const writes: Promise<number>[] = [];
    while (!isOver()) {
      const dueMs = startMs + writes.length * WRITE_EVERY_MS;
      if (dueMs > performance.now()) await Bun.sleep(dueMs - performance.now());
      const write = fetch(`${server().url}/written/${writes.length}`, { method: "PUT", body: "x", headers });
      writes.push(
        write.then(({ status }) => {
          expect(status).toBe(200);
          return performance.now() - dueMs;
        }),
      );
    }
    return Promise.all(writes);
  }

  test("hold up no write, are missing from that second on, and are all swept within a minute", async () => {
    const headers = { Authorization: `Bearer ${await mint()}` };
    const list = async () =>
      (await (await fetch(`${server().url}/_list?bucket=brief&count=1`, { headers })).json()) as object;
    // Fails when the machine took too long to fill the store: then the test would show nothing.
    expect(Date.now()).toBeLessThan(firstExpiryMs);
    expect(await list()).toEqual({ count: EXPIRING_ROWS });
    // Connections, and code that is compiled on first use, are not what is measured.
    let writes = 0;
    await writeUntil(() => writes++ === 200, headers);
    writes = 0;
    const quietP99 = percentile(await writeUntil(() => writes++ === 200, headers), 0.99);
    await Bun.sleep(firstExpiryMs - Date.now());

    let isOver = false;
    const writing = writeUntil(() => isOver, headers);
    await Bun.sleep(firstExpiryMs + 1000 - Date.now());
    expect(await list()).toEqual({ count: 0 });
    const allExpiredMs = performance.now();
    await eventually("all are swept", SWEPT_WITHIN_MS, async () => (await sweptTotal()) >= EXPIRING_ROWS);
    const sweptMs = performance.now() - allExpiredMs;
    isOver = true;
    const times = await writing;
    const p99 = percentile(times, 0.99);
    report(
      `100 000 expired rows: swept ${Math.round(sweptMs)} ms after the last, ` +
        `write p99 ${p99.toFixed(1)} ms of ${times.length} (${quietP99.toFixed(1)} ms before)`,
    );
    expect(await sweptTotal()).toBe(EXPIRING_ROWS);
    // Where writes take long anyway, the sweep is not what they wait for.
    expectTime("write beside the sweep, p99", p99, Math.max(WRITE_P99_MS_MAX, quietP99));
    const buckets = await (await fetch(`${server().url}/_list`, { headers })).json();
    expect(buckets).toEqual(["lasting", "written"]);
  }, 360_000);
});
