// Single bits flip in the files of a store: no wrong byte is served, and no acknowledged write vanishes in silence.

import type { Database } from "bun:sqlite";
import { describe, expect, test } from "bun:test";
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { systemClock } from "../../src/shared/clock.ts";
import { EXIT, type ExitError } from "../../src/shared/errors.ts";
import { inspectStore } from "../../src/storage/inspect-store.ts";
import type { KvFound } from "../../src/storage/kv-engine.ts";
import { KvReader } from "../../src/storage/kv-reader.ts";
import { openStore, startFailure } from "../../src/storage/open-store.ts";
import { readFailure } from "../../src/storage/sqlite-errors.ts";
import { storeFiles } from "../../src/storage/store-files.ts";
import { alterStore } from "../support/alter-store.ts";
import { idOf, storedValue } from "../support/durable-load.ts";
import { eventually } from "../support/eventually.ts";
import { GOKV, run, startServer } from "../support/executable.ts";
import { bySize, report } from "../support/run-size.ts";
import { makeSampleStore, SAMPLE_BUCKET, type SampleStore } from "../support/sample-store.ts";
import { seededRandom } from "../support/seeded-random.ts";
import { mint, openBinary, SECRET } from "../support/targets.ts";
import { tempDir } from "../support/temp-dir.ts";
import { testWriter } from "../support/test-guard.ts";
import { flipBit, WAL_FRAME_HEADER_BYTES, WAL_HEADER_BYTES } from "../support/wal-file.ts";

const FLIPS = bySize(1_000, 1_500, 5_000);
const WAL_FLIPS = bySize(300, 600, 2_000);
const ROW_HEADS = bySize(4, 8, 20);
/** Of the cell: its sizes, and a type for each column. */
const ROW_HEAD_BYTES = 16;
const TIMEOUT_MS = bySize(120_000, 600_000);
const PAGE_BYTES = 4096;
const FRAME_BYTES = WAL_FRAME_HEADER_BYTES + PAGE_BYTES;
const WAL_LIMIT_BYTES = 64 * 1024 * 1024;

/** What a client is told of a key, next to what it should be told; the gravest last. */
const FATES = ["unharmed", "damage told", "refused start", "missing", "wrong"] as const;
type Fate = (typeof FATES)[number];

function fateOf(reader: KvReader, key: string, expected: KvFound): Fate {
  let found: KvFound | null;
  try {
    found = reader.find(SAMPLE_BUCKET, key, systemClock());
    // As the server does with a value whose length says that it is a large one.
    if (found?.value === null) found = { ...found, value: reader.load(SAMPLE_BUCKET, key, found.revision) };
  } catch (error) {
    expect(["value_damaged", "internal_error"]).toContain(readFailure(error).code);
    return "damage told";
  }
  if (found?.value == null) return "missing";
  const shown = ({ value, revision, contentType, metadata, expiresAtMs, sizeBytes }: KvFound) =>
    JSON.stringify([Buffer.from(value!).toString("base64"), revision, contentType, metadata, expiresAtMs, sizeBytes]);
  return shown(found) === shown(expected) ? "unharmed" : "wrong";
}

/** Starts from a database file as the server does, and asks for every key. */
async function fatesAfterStart(directory: string, sample: SampleStore, isChecked: boolean): Promise<Fate[]> {
  const files = storeFiles(directory);
  const { database: path } = files;
  let database: Database | null = null;
  try {
    inspectStore(files, "refuse");
    database = await openStore({ path, walLimitBytes: WAL_LIMIT_BYTES, databaseBytesMax: 0, isChecked });
    testWriter(database);
    const reader = new KvReader(database);
    return [...sample.entries].map(([key, expected]) => fateOf(reader, key, expected));
  } catch (error) {
    expect(startFailure(path, error).exitCode).toBe(EXIT.storeDamaged);
    return ["refused start"];
  } finally {
    database?.close();
  }
}

/** Flips one bit after the other, each in a copy of its own. */
async function flipEach(
  sample: SampleStore,
  bits: Iterable<number>,
  isChecked: boolean,
): Promise<Record<Fate, number>> {
  using dir = tempDir();
  const counts: Record<Fate, number> = { unharmed: 0, "damage told": 0, "refused start": 0, missing: 0, wrong: 0 };
  const start = async (name: string, bytes: Uint8Array) => {
    const directory = dir.file(name);
    mkdirSync(directory);
    writeFileSync(join(directory, "gokv.db"), bytes);
    const fates = await fatesAfterStart(directory, sample, isChecked);
    rmSync(directory, { recursive: true });
    return FATES.findLast((fate) => fates.includes(fate))!;
  };
  expect(await start("untouched", sample.bytes)).toBe("unharmed");
  for (const bit of bits) counts[await start(`flip-${bit}`, flipBit(sample.bytes, bit))]++;
  return counts;
}

/** Anywhere, but every tenth in the page of the schema. */
async function flipMany(isChecked: boolean): Promise<Record<Fate, number>> {
  using dir = tempDir();
  const random = seededRandom("bit flips");
  const sample = await makeSampleStore(dir.file("original"));
  const bits = Array.from({ length: FLIPS }, (_, n) =>
    random.below(8 * (n % 10 === 0 ? PAGE_BYTES : sample.bytes.length)),
  );
  return flipEach(sample, bits, isChecked);
}

describe("a flipped bit in the database file", () => {
  test(
    "never makes the server answer anything wrong: it tells of the damage or does not start",
    async () => {
      const counts = await flipMany(true);
      report(`bit flips, checked start: ${JSON.stringify(counts)}`);
      expect(counts).toMatchObject({ wrong: 0, missing: 0 });
      expect(counts["damage told"]).toBeGreaterThan(FLIPS / 10);
      expect(counts["refused start"]).toBeGreaterThan(0);
    },
    TIMEOUT_MS,
  );

  test(
    "never makes a value wrong when nothing was checked at the start",
    async () => {
      const counts = await flipMany(false);
      report(`bit flips, unchecked start: ${JSON.stringify(counts)}`);
      expect(counts.wrong).toBe(0);
      // An index that has lost a key says nothing: that is what the check at the start is for.
      expect(counts.missing).toBeLessThan(FLIPS / 50);
    },
    TIMEOUT_MS,
  );

  test(
    "in the head of a row, where the types of its columns are, changes no value",
    async () => {
      using dir = tempDir();
      const sample = await makeSampleStore(dir.file("original"));
      const bytes = Buffer.from(sample.bytes);
      const small = [...sample.entries].filter(([, { sizeBytes }]) => sizeBytes === 60);
      const bits = small.slice(0, ROW_HEADS).flatMap(([key, { value }]) => {
        // The columns begin with the name of the bucket; before them are their types. The index has no value.
        const columns = bytes.lastIndexOf(`${SAMPLE_BUCKET}${key}`, bytes.indexOf(value!));
        expect(columns).toBeGreaterThan(0);
        return Array.from({ length: 8 * ROW_HEAD_BYTES }, (_, n) => 8 * (columns - ROW_HEAD_BYTES) + n);
      });
      const counts = await flipEach(sample, bits, false);
      report(`bit flips, heads of rows: ${JSON.stringify(counts)}`);
      expect(counts).toMatchObject({ wrong: 0, "refused start": 0 });
      expect(counts["damage told"]).toBeGreaterThan(bits.length / 4);
    },
    TIMEOUT_MS,
  );

  test("in a value is answered with 500, logged and counted; all other keys go on", async () => {
    using dir = tempDir();
    const data = dir.file("data");
    const env = { JWT_SECRET: SECRET, DB_PATH: data, METRICS: "open" };
    const headers = { Authorization: `Bearer ${await mint()}` };
    const first = await startServer(env);
    const ids = Array.from({ length: 30 }, (_, index) => index + 1);
    for (const id of ids) {
      const body = storedValue(id, id % 3 === 0 ? 2_000_000 : 3_000);
      expect((await fetch(`${first.url}/b/${id}`, { method: "POST", headers, body })).status).toBe(200);
    }
    first.kill("SIGTERM");
    await first.exited;
    const bytes = readFileSync(join(data, "gokv.db"));
    // One value in a page of its own, one that is loaded by the reader thread.
    const damaged = [10, 12];
    const flipped = damaged.reduce(
      (content: Uint8Array, id) => flipBit(content, 8 * bytes.indexOf(`v${id};v${id};v${id};`)),
      bytes,
    );
    writeFileSync(join(data, "gokv.db"), flipped);

    await using server = await startServer(env);
    for (const id of ids) {
      const response = await fetch(`${server.url}/b/${id}`, { headers });
      if (damaged.includes(id)) {
        const answer = { statusCode: 500, message: expect.stringMatching(/damaged/), code: "value_damaged" };
        expect([id, response.status, await response.json()]).toEqual([id, 500, answer]);
      } else expect(idOf(new Uint8Array(await response.arrayBuffer()))).toBe(id);
    }
    const metrics = await (await fetch(`${server.url}/metrics`)).text();
    expect(metrics).toMatch(/^gokv_checksum_failures_total 2$/m);
    const told = () => server.log().match(/"level":"error".*checksum/g)?.length ?? 0;
    await eventually("all of them are in the log", 1_000, () => told() >= damaged.length);
    expect(told()).toBe(damaged.length);
  });

  test("in the sign of a revision is damage, and not taken for the trace of a wipe", async () => {
    await using target = await openBinary();
    await target.fetch("/b/k", { method: "POST", body: "v" });
    await alterStore(target.dbPath, "UPDATE kv SET revision = -revision");
    await target.restart();
    const response = await target.fetch("/b/k");
    expect([response.status, await response.json()]).toMatchObject([500, { code: "value_damaged" }]);
  });
});

interface CrashedStore {
  readonly data: string;
  readonly wal: Uint8Array<ArrayBuffer>;
  /** Where the frames of the last transaction begin. */
  readonly lastTransaction: number;
  readonly acknowledged: readonly number[];
}

/** A killed server's store: every acknowledged write is in its log, one transaction each. */
async function crashedStore(data: string): Promise<CrashedStore> {
  // Nothing that a server writes of its own accord, and later than the last write.
  const quiet = { SERVICES: "kv", SWEEP_INTERVAL: "1h", RESERVE_BYTES: "0" };
  const server = await startServer({ JWT_SECRET: SECRET, DB_PATH: data, ...quiet });
  const headers = { Authorization: `Bearer ${await mint()}` };
  const acknowledged = Array.from({ length: 25 }, (_, index) => index + 1);
  for (const id of acknowledged) {
    const body = storedValue(id, 300 * id);
    expect((await fetch(`${server.url}/b/${id}`, { method: "POST", headers, body })).status).toBe(200);
  }
  server.kill("SIGKILL");
  await server.exited;
  const wal = new Uint8Array(readFileSync(join(data, "gokv.db-wal")));
  const frames = Math.floor((wal.length - WAL_HEADER_BYTES) / FRAME_BYTES);
  const view = new DataView(wal.buffer);
  const isCommit = (frame: number) => view.getUint32(WAL_HEADER_BYTES + frame * FRAME_BYTES + 4) !== 0;
  let first = frames - 1;
  while (!isCommit(first - 1)) first--;
  return { data, wal, lastTransaction: WAL_HEADER_BYTES + first * FRAME_BYTES, acknowledged };
}

/** A copy of the store with another log. */
function copyWithWal(store: CrashedStore, directory: string, wal: Uint8Array): void {
  cpSync(store.data, directory, { recursive: true });
  writeFileSync(join(directory, "gokv.db-wal"), wal);
}

function hashesIn(directory: string): Record<string, string> {
  const names = readdirSync(directory).sort();
  const hash = (name: string) => `${Bun.hash(readFileSync(join(directory, name)))}`;
  // The lock is what every start touches.
  return Object.fromEntries(names.filter((name) => !name.startsWith("lock.db")).map((name) => [name, hash(name)]));
}

async function idsAfterStart(directory: string, env: Record<string, string> = {}): Promise<number[]> {
  await using server = await startServer({ JWT_SECRET: SECRET, DB_PATH: directory, RESERVE_BYTES: "0", ...env });
  const headers = { Authorization: `Bearer ${await mint()}` };
  const names = (await (await fetch(`${server.url}/_list?bucket=b`, { headers })).json()) as string[];
  const ids: number[] = [];
  for (const name of names) {
    const value = await (await fetch(`${server.url}/b/${name}`, { headers })).arrayBuffer();
    expect(idOf(new Uint8Array(value))).toBe(Number(name));
    ids.push(Number(name));
  }
  return ids.sort((a, b) => a - b);
}

describe("a write-ahead log after a crash", () => {
  test(
    "with a flipped bit before its last transaction is refused, every time, and nothing is changed",
    async () => {
      using dir = tempDir();
      const random = seededRandom("bit flips in the log");
      const store = await crashedStore(dir.file("data"));
      const files = storeFiles(dir.file("flipped"));
      copyWithWal(store, files.directory, store.wal);
      expect(() => inspectStore(files, "refuse")).not.toThrow();
      for (let n = 0; n < WAL_FLIPS; n++) {
        const bit = random.below(8 * store.lastTransaction);
        writeFileSync(files.wal, flipBit(store.wal, bit));
        let exitCode: number | null = null;
        try {
          inspectStore(files, "refuse");
        } catch (error) {
          exitCode = (error as ExitError).exitCode;
        }
        expect([bit, exitCode]).toEqual([bit, EXIT.storeDamaged]);
      }
      const before = hashesIn(files.directory);
      for (const command of [[GOKV], [GOKV, "check"]]) {
        const { exitCode, stderr } = await run(command, { env: { JWT_SECRET: SECRET, DB_PATH: files.directory } });
        expect([command.at(-1), exitCode]).toEqual([command.at(-1), EXIT.storeDamaged]);
        expect(stderr).toMatch(/write-ahead log .* is damaged: \d+ acknowledged transactions would be lost/);
        expect(hashesIn(files.directory)).toEqual(before);
      }
    },
    TIMEOUT_MS,
  );

  test(
    "with a torn tail starts with everything that was acknowledged",
    async () => {
      using dir = tempDir();
      const store = await crashedStore(dir.file("data"));
      const { wal, lastTransaction, acknowledged } = store;
      // A transaction more of which only a part has arrived: frames of the last one, which do not chain.
      const tail = wal.subarray(lastTransaction, lastTransaction + FRAME_BYTES + 700);
      copyWithWal(store, dir.file("longer"), Buffer.concat([wal, tail]));
      expect(await idsAfterStart(dir.file("longer"))).toEqual([...acknowledged]);
      // The last one itself is cut: it is as if it had never been acknowledged, the others are there.
      copyWithWal(store, dir.file("shorter"), wal.subarray(0, wal.length - 100));
      expect(await idsAfterStart(dir.file("shorter"))).toEqual(acknowledged.slice(0, -1));
    },
    TIMEOUT_MS,
  );

  test(
    "that is damaged is given up with WAL_DAMAGE=accept, and a copy of it is kept",
    async () => {
      using dir = tempDir();
      const store = await crashedStore(dir.file("data"));
      const wal = flipBit(store.wal, 8 * Math.floor(store.wal.length / 2));
      copyWithWal(store, dir.file("damaged"), wal);
      const left = await idsAfterStart(dir.file("damaged"), { WAL_DAMAGE: "accept" });
      expect(left.length).toBeGreaterThan(0);
      expect(left).toEqual(store.acknowledged.slice(0, left.length));
      expect(left.length).toBeLessThan(store.acknowledged.length - 1);
      const [copy, ...others] = readdirSync(dir.file("damaged")).filter((name) => /^gokv\.db-wal\.damaged-/.test(name));
      expect(others).toEqual([]);
      expect(copy).toMatch(/^gokv\.db-wal\.damaged-\d{8}T\d{9}Z$/);
      expect(Buffer.compare(readFileSync(dir.file("damaged", copy!)), wal)).toBe(0);
    },
    TIMEOUT_MS,
  );
});
