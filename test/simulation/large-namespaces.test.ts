// A hundred thousand mixed keys behind several installations, a wipe of as many, a hundred thousand installations:
// nothing foreign shows, nobody waits, and memory stays flat.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { hashOpaque } from "../../src/auth/opaque-token.ts";
import { openStore } from "../../src/storage/open-store.ts";
import { storeFiles } from "../../src/storage/store-files.ts";
import { type Environment, type ServerProcess, startServer } from "../support/executable.ts";
import { expectFigure, expectTime } from "../support/figures-in-bounds.ts";
import { fillLargeStore, plainEntry } from "../support/large-store.ts";
import { byBytes } from "../support/list-model.ts";
import { type PermissionFields, ruleMayRead } from "../support/permission-rules.ts";
import { residentBytes } from "../support/resident-bytes.ts";
import { report } from "../support/run-size.ts";
import { SECRET } from "../support/targets.ts";
import { tempDir } from "../support/temp-dir.ts";
import { type Asked, administer, asApp, install, operatorAt } from "../support/token-client.ts";

const MiB = 1024 * 1024;
const MANY = 100_000;
const PAGE = 1000;
const NO_RATES = { TOKEN_RATE_READ: "0", TOKEN_RATE_WRITE: "0", TOKEN_RATE_DELETE: "0", TOKEN_RATE_BATCH: "0" };

const EMPTY_PAGE_MS_MAX = 3;
/** What another write may wait longer beside a wipe than before it. */
const WRITE_DELAY_MS_MAX = 50;
/** Half a second of writes. */
const PART = 100;
const BASELINE_WRITES = 6 * PART;
const WIPE_MS_MAX = 3000;
const WRITE_EVERY_MS = 5;
const IN_USE = 10_000;
const IN_USE_BYTES_MAX = 16 * MiB;
/** Once each token was used, caches and limiter are as full as they get; what is added is garbage not yet collected. */
const FLAT_RSS_RISE_MAX = 48 * MiB;
/** Some copies of one page. All of them would take a gigabyte and more. */
const VALUE_PAGES_RSS_RISE_MAX = 400 * MiB;

interface Filled {
  readonly server: ServerProcess;
  readonly asked: Asked;
  readonly dbPath: string;
}

/** A server on a store that was filled before it starts. */
function useFilled(env: Environment, fill: (directory: string) => Promise<void>): () => Filled {
  const directory = tempDir();
  let filled: Filled | null = null;
  beforeAll(async () => {
    const dbPath = directory.file("data");
    await fill(dbPath);
    const server = await startServer({ JWT_SECRET: SECRET, DB_PATH: dbPath, ACCESS_LOG: "off", ...env });
    filled = { server, asked: await operatorAt(server.url), dbPath };
  }, 480_000);
  afterAll(async () => {
    await filled?.server[Symbol.asyncDispose]();
    directory[Symbol.dispose]();
  });
  return () => filled!;
}

function percentile(values: readonly number[], share: number): number {
  return values.toSorted((a, b) => a - b)[Math.max(0, Math.ceil(values.length * share) - 1)]!;
}

/**
 * The longest of each half second, and of those the median: what the wipe does comes again in every half second, what
 * other programs do to the machine does not.
 */
function usualLongest(times: readonly number[]): number {
  const parts = Array.from({ length: Math.ceil(times.length / PART) }, (_, part) =>
    times.slice(part * PART, (part + 1) * PART),
  );
  return percentile(
    parts.map((part) => Math.max(...part)),
    0.5,
  );
}

const inMs = (ms: number) => `${ms.toFixed(1)} ms`;
const inMiB = (bytes: number) => `${(bytes / MiB).toFixed(1)} MiB`;

/** Of everything that installations tell apart, in an order that no list has. */
function mixedKey(index: number): string {
  const number = String((index * 7919) % MANY).padStart(5, "0");
  const heads = ["app.", "app.a.", "app2.", "APP.", "shared.", "sharedx.", "%.", "_", "😀.", "", "log.b.", "log/"];
  return `${heads[index % heads.length]}${number}`;
}

const NAMESPACES = ["hall", "hall2", "HALL", "hal"];
const textOf = (uuid: string, key: string) => JSON.stringify({ uuid, key });

function jsonEntry(uuid: string, key: string, text: string) {
  return { ...plainEntry(uuid, key), contentType: "application/json", value: new TextEncoder().encode(text) };
}

interface KeyPage {
  readonly keys: string[];
  readonly total_rows: number;
  readonly load_more?: string;
}

interface ItemPage {
  readonly items: { readonly key: string; readonly value: { uuid: string; key: string } }[];
  readonly total_rows: number;
  readonly load_more?: string;
}

async function json<T>(answer: Promise<Response>, status = 200): Promise<T> {
  const response = await answer;
  expect(response.status).toBe(status);
  return (await response.json()) as T;
}

/** The times of `count` answers, one after the other. */
async function timesOf(count: number, ask: () => Promise<Response>): Promise<number[]> {
  const times: number[] = [];
  for (let left = count; left > 0; left--) {
    const startMs = performance.now();
    const response = await ask();
    await response.arrayBuffer();
    times.push(performance.now() - startMs);
    expect(response.status).toBe(200);
  }
  return times;
}

describe("a hundred thousand mixed keys", () => {
  const RIGHTS: readonly Partial<PermissionFields>[] = [
    {},
    { permissionPrefix: "app" },
    { permissionPrefix: "app", permissionKey: ["app.a", "read:shared", "log.b"] },
    { permissionKey: ["%", "_", "😀", "write:APP"] },
  ];
  const filled = useFilled(NO_RATES, (directory) => {
    function* entries() {
      // Side by side in the tables: the neighbours' rows lie between those that are listed.
      for (let index = 0; index < MANY; index++) {
        const key = mixedKey(index);
        yield jsonEntry("hall", key, textOf("hall", key));
        const neighbour = NAMESPACES[1 + (index % 3)]!;
        if (index % 10 === 0) yield jsonEntry(neighbour, key, textOf(neighbour, key));
      }
      for (let index = 0; index <= MANY; index++) yield jsonEntry("wide", mixedKey(index) + index, "1");
    }
    return fillLargeStore(directory, entries());
  });

  for (const rights of RIGHTS) {
    test(`show ${JSON.stringify(rights)} its keys and values, in order, once each, and no others`, async () => {
      const { asked } = filled();
      const { token } = await install(asked, rights, "hall");
      const fields: PermissionFields = { permissionPrefix: null, permissionKey: [], isReadOnly: false, ...rights };
      const all = Array.from({ length: MANY }, (_, index) => mixedKey(index));
      const expected = all.filter((key) => ruleMayRead(fields, key)).sort(byBytes);
      expect(expected.length).toBeGreaterThan(MANY / 10);
      const keys: string[] = [];
      for (let path: string | undefined = `/kv/token/_keys?limit=${PAGE}`; path !== undefined; ) {
        const page: KeyPage = await json(asApp(asked, token, path.slice("/kv/token".length)));
        expect(page.total_rows).toBe(expected.length);
        keys.push(...page.keys);
        path = page.load_more;
      }
      expect(keys.length).toBe(expected.length);
      expect(Bun.hash(keys.join("\n"))).toBe(Bun.hash(expected.join("\n")));
      const seen: string[] = [];
      for (let skip = 0; skip < expected.length; skip += 5 * PAGE) {
        const page = await json<ItemPage>(asApp(asked, token, `/?limit=${PAGE}&skip=${skip}&sortDir=desc`));
        expect(page.total_rows).toBe(expected.length);
        const foreign = page.items.filter(({ key, value }) => value.uuid !== "hall" || value.key !== key);
        expect(foreign).toEqual([]);
        seen.push(...page.items.map(({ key }) => key));
      }
      const descending = expected.toReversed();
      expect(seen).toEqual(descending.filter((_, index) => index % (5 * PAGE) < PAGE));
    }, 240_000);
  }

  test("can be sorted by another field, one more cannot, and by key any number can", async () => {
    const { asked } = filled();
    const { token } = await install(asked, {}, "hall");
    const wide = await install(asked, {}, "wide");
    for (const sortBy of ["createdAt", "updatedAt", "creatorIp"]) {
      const page = await json<KeyPage>(asApp(asked, token, `/_keys?sortBy=${sortBy}&limit=5`));
      expect([page.keys.length, page.total_rows]).toEqual([5, MANY]);
      for (const path of ["/_keys", "/"]) {
        const refused = await json<{ code: string }>(asApp(asked, wide.token, `${path}?sortBy=${sortBy}`), 400);
        expect(refused.code).toBe("sort_too_large");
      }
    }
    expect((await json<KeyPage>(asApp(asked, wide.token, "/_keys?sortBy=key"))).total_rows).toBe(MANY + 1);
  }, 240_000);

  test("are passed over at once by a position behind the end", async () => {
    const { asked } = filled();
    const { token } = await install(asked, {}, "hall");
    const prefix = await install(asked, { permissionPrefix: "app" }, "hall");
    const path = `/_keys?skip=${Number.MAX_SAFE_INTEGER}`;
    expect(await json<KeyPage>(asApp(asked, token, path))).toMatchObject({ keys: [], total_rows: MANY });
    await timesOf(100, () => asApp(asked, token, path));
    const whole = await timesOf(100, () => asApp(asked, token, path));
    const part = await timesOf(100, () => asApp(asked, prefix.token, path));
    report(
      `skip=2^53-1 over 100 000 keys: p50 ${inMs(percentile(whole, 0.5))} whole, ` +
        `${inMs(percentile(part, 0.5))} by prefix; p99 ${inMs(percentile(whole, 0.99))}`,
    );
    expectTime("an empty page, p50", percentile(whole, 0.5), EMPTY_PAGE_MS_MAX);
    expectTime("an empty page by prefix, p50", percentile(part, 0.5), EMPTY_PAGE_MS_MAX);
  });

  test("can be sorted without holding up the reads of others", async () => {
    const { asked } = filled();
    const { token } = await install(asked, {}, "hall");
    const path = `/${encodeURIComponent(mixedKey(0))}`;
    await timesOf(200, () => asApp(asked, token, path));
    let isOver = false;
    const sorting = (async () => {
      for (let left = 10; left > 0; left--) {
        await json<KeyPage>(asApp(asked, token, "/_keys?sortBy=createdAt&limit=1&skip=50000"));
      }
      isOver = true;
    })();
    const times: number[] = [];
    while (!isOver) times.push(...(await timesOf(1, () => asApp(asked, token, path))));
    await sorting;
    report(`GET beside sorts of 100 000 keys: p99 ${inMs(percentile(times, 0.99))} of ${times.length}`);
    expect(times.length).toBeGreaterThan(10);
    expectTime("GET beside sorts, p99", percentile(times, 0.99), 20);
  }, 240_000);

  const LONG_LIST = "/_keys?sortBy=creatorIp&limit=1&skip=99900";

  test("keep no other namespace waiting, however many sorts of them wait", async () => {
    const { asked } = filled();
    const { token } = await install(asked, {}, "hall");
    const other = await install(asked, {}, "hal");
    let answered = 0;
    const sorts = Array.from({ length: 24 }, async () => {
      // On a slow machine the last ones wait for longer than their connections may be silent.
      const response = await asApp(asked, token, LONG_LIST).catch(() => null);
      if (response?.status === 200) answered++;
    });
    while (answered === 0) await Bun.sleep(1);
    const before = answered;
    await json<KeyPage>(asApp(asked, other.token, "/_keys?sortBy=createdAt&limit=1"));
    expect(answered - before).toBeLessThan(8);
    await Promise.all(sorts);
  }, 240_000);

  test("are not sorted for clients that have left", async () => {
    const { asked } = filled();
    const { token } = await install(asked, {}, "hall");
    const [oneMs] = await timesOf(1, () => asApp(asked, token, LONG_LIST));
    const clients = new AbortController();
    const left = Array.from({ length: 60 }, () =>
      asApp(asked, token, LONG_LIST, { signal: clients.signal }).catch(() => null),
    );
    await Bun.sleep(150);
    clients.abort();
    await Promise.all(left);
    const [nextMs] = await timesOf(1, () => asApp(asked, token, LONG_LIST));
    report(`a sort of 100 000 keys: ${inMs(oneMs!)}; behind 60 whose clients have left: ${inMs(nextMs!)}`);
    expectTime("a sort behind those whose clients have left", nextMs!, 4 * oneMs!);
  }, 240_000);
});

describe("a wipe of a hundred thousand entries", () => {
  const VALUE = JSON.stringify("v".repeat(1022));
  const filled = useFilled({ ...NO_RATES, SWEEP_INTERVAL: "1h" }, (directory) => {
    function* entries() {
      for (let index = 0; index < MANY; index++) yield jsonEntry("ordered", `k${1e6 + index}`, VALUE);
      // In the order of its keys this one lies scattered over the file.
      for (let index = 0; index < MANY; index++) yield jsonEntry("scattered", mixedKey(index), VALUE);
      for (let index = 0; index < 2 * MANY; index++) yield jsonEntry("listed", `k${1e6 + index}`, "1");
    }
    return fillLargeStore(directory, entries());
  });

  /**
   * Resolves when the last row of a wiped bucket is gone. Told by a process of its own, since opening the file here
   * would be in the server's way; it looks rarely, since looking costs time that the writes would miss.
   */
  async function untilPurged(uuid: string): Promise<void> {
    const script = `const [, path, sql, name] = process.argv;
      const query = new (require("bun:sqlite").Database)(path, { readonly: true }).query(sql);
      while (query.values(name)[0][0] !== 0) Bun.sleepSync(200);`;
    const sql = "SELECT wiped_revision FROM kv_bucket WHERE name = ?";
    const command = [process.execPath, "-e", script, storeFiles(filled().dbPath).database, sql, uuid];
    const child = Bun.spawn(command, { stderr: "inherit" });
    expect(await child.exited).toBe(0);
  }

  /** One write every WRITE_EVERY_MS, whether those before it are answered or not; the time of each, in ms. */
  async function writeUntil(isOver: () => boolean, token: string): Promise<number[]> {
    const startMs = performance.now();
    const writes: Promise<number>[] = [];
    while (!isOver()) {
      const dueMs = startMs + writes.length * WRITE_EVERY_MS;
      if (dueMs > performance.now()) await Bun.sleep(dueMs - performance.now());
      const write = asApp(filled().asked, token, `/written.${writes.length}`, { method: "POST", body: "1" });
      writes.push(
        write.then(async (response) => {
          await response.arrayBuffer();
          expect(response.status).toBe(200);
          return performance.now() - dueMs;
        }),
      );
    }
    return Promise.all(writes);
  }

  /** `act` wipes the bucket; the others write before it and until the last row is gone. */
  async function wipeBesideWrites(uuid: string, act: () => Promise<Response>): Promise<void> {
    const other = await install(filled().asked);
    let warmUps = 0;
    const before = await writeUntil(() => warmUps++ === BASELINE_WRITES, other.token);
    let isOver = false;
    const writing = writeUntil(() => isOver, other.token);
    const startMs = performance.now();
    expect((await act()).status).toBe(204);
    const wipedMs = performance.now() - startMs;
    await untilPurged(uuid);
    const purgedMs = performance.now() - startMs;
    isOver = true;
    const times = await writing;
    const [quiet, beside] = [usualLongest(before), usualLongest(times)];
    report(
      `wipe of 100 000 keys, ${uuid}: answered after ${inMs(wipedMs)}, rows gone after ${Math.round(purgedMs)} ms; ` +
        `other writes usually up to ${inMs(beside)} (${inMs(quiet)} before), p99 ${inMs(percentile(times, 0.99))}, ` +
        `longest ${inMs(percentile(times, 1))} of ${times.length}`,
    );
    expectTime("a wipe", wipedMs, WIPE_MS_MAX);
    expectTime("the delay of writes beside a wipe", beside - quiet, WRITE_DELAY_MS_MAX);
    const { total_rows } = await json<KeyPage>(asApp(filled().asked, other.token, "/_keys"));
    expect(total_rows).toBe(Math.max(times.length, before.length));
  }

  test("holds up no read of others, although its lists step over the rows that are still there", async () => {
    const { asked } = filled();
    const { token } = await install(asked, {}, "listed");
    const other = await install(asked);
    const post = () => asApp(asked, other.token, "/k", { method: "POST", body: "1" });
    await timesOf(1, post);
    await timesOf(200, () => asApp(asked, other.token, "/k"));
    expect((await asApp(asked, token, "/", { method: "DELETE" })).status).toBe(204);
    expect((await asApp(asked, token, "/later", { method: "POST", body: "1" })).status).toBe(200);
    let isOver = false;
    const listing = Promise.all(
      Array.from({ length: 20 }, async (_, index) => {
        const path = index % 2 === 0 ? "/_keys" : "/_keys?skip=0&sortDir=desc";
        expect((await json<KeyPage>(asApp(asked, token, path))).keys).toEqual(["later"]);
      }),
    ).finally(() => {
      isOver = true;
    });
    const times: number[] = [];
    while (!isOver) times.push(...(await timesOf(1, () => asApp(asked, other.token, "/k"))));
    await listing;
    report(`GET beside lists of a bucket that is purged: longest ${inMs(percentile(times, 1))} of ${times.length}`);
    expectTime("GET beside lists of a bucket that is purged, p99", percentile(times, 0.99), 20);
    expect(times.length).toBeGreaterThan(20);
  }, 240_000);

  test("is told at once, seen as a whole by lists that were waiting, and holds up no other write", async () => {
    const { asked } = filled();
    const { token } = await install(asked, {}, "ordered");
    let lists: Promise<KeyPage>[] = [];
    await wipeBesideWrites("ordered", async () => {
      lists = Array.from({ length: 6 }, () => json(asApp(asked, token, "/_keys?sortBy=createdAt&limit=1")));
      const answer = await asApp(asked, token, "/", { method: "DELETE" });
      expect((await json<KeyPage>(asApp(asked, token, "/_keys"))).total_rows).toBe(0);
      return answer;
    });
    for (const { keys, total_rows } of await Promise.all(lists)) {
      expect([keys.length, total_rows]).toEqual(total_rows === 0 ? [0, 0] : [1, MANY]);
    }
  }, 480_000);

  test("holds up no other write either when it comes with its device and the rows lie scattered", async () => {
    const { asked } = filled();
    const { token } = await install(asked, {}, "scattered");
    expect((await administer(asked, "DELETE", "/devices/scattered")).status).toBe(409);
    await wipeBesideWrites("scattered", () => administer(asked, "DELETE", "/devices/scattered?purge=true"));
    expect((await asApp(asked, token, "/_keys")).status).toBe(401);
    const successor = await install(asked, {}, "scattered");
    expect((await json<KeyPage>(asApp(asked, successor.token, "/_keys"))).total_rows).toBe(0);
  }, 480_000);
});

describe("a hundred thousand installations", () => {
  const tokenOf = (index: number) => `kvt_${String(index).padStart(43, "t")}`;

  /** Straight into the tables: by requests this would take minutes. */
  async function fillInstallations(directory: string): Promise<void> {
    await fillLargeStore(directory, [jsonEntry("device-0", "k", "1")]);
    const options = { walLimitBytes: 256 * MiB, databaseBytesMax: 0, isChecked: false };
    const database = await openStore({ path: storeFiles(directory).database, ...options });
    database.run("BEGIN IMMEDIATE");
    database.run(
      `INSERT INTO token_app (id, name, permission_key, created_at, updated_at) VALUES ('suite', 'Suite', '[]', 0, 0)`,
    );
    const device = database.prepare("INSERT INTO token_device (uuid, created_at, updated_at) VALUES (?, 0, 0)");
    for (let index = 0; index < 100; index++) device.run(`device-${index}`);
    const installation = database.prepare(
      `INSERT INTO token_installation (id, device_uuid, app_id, token_hash, token_hint, permission_key, is_read_only,
       installed_at, updated_at) VALUES (?, ?, 'suite', ?, 'hint', '["a","read:b"]', 0, 0, 0)`,
    );
    for (let index = 0; index < MANY; index++) {
      const id = `i${String(index).padStart(6, "0")}`;
      installation.run(id, `device-${index % 100}`, hashOpaque(tokenOf(index)));
    }
    database.run("COMMIT");
    database.close(true);
  }

  const filled = useFilled({}, fillInstallations);

  /** A request by each of these tokens, within its rates. */
  async function use(first: number, end: number, path: string, init?: { method: string; body: string }): Promise<void> {
    let next = first;
    const work = async () => {
      for (let index = next++; index < end; index = next++) {
        const response = await asApp(filled().asked, tokenOf(index), path, init);
        expect([index, response.status]).toEqual([index, 200]);
        await response.arrayBuffer();
      }
    };
    await Promise.all(Array.from({ length: 32 }, work));
  }

  /** The least that the process has within a while: what is garbage may go meanwhile. */
  async function settledBytes(): Promise<number> {
    let least = Number.POSITIVE_INFINITY;
    for (let looks = 40; looks > 0; looks--) {
      least = Math.min(least, residentBytes(filled().server.pid));
      await Bun.sleep(50);
    }
    return least;
  }

  async function listAll(): Promise<number> {
    const ids = new Set<string>();
    let cursor: string | null = "";
    while (cursor !== null) {
      const query = `?limit=1000${cursor === "" ? "" : `&cursor=${encodeURIComponent(cursor)}`}`;
      const page: { items: { id: string }[]; nextCursor: string | null } = await json(
        administer(filled().asked, "GET", `/installations${query}`),
      );
      for (const { id } of page.items) ids.add(id);
      cursor = page.nextCursor;
    }
    return ids.size;
  }

  test("are listed completely, and neither that nor their use lets memory grow with their number", async () => {
    const read = "/_keys?limit=1";
    const write = { method: "POST", body: "1" };
    const idle = await settledBytes();
    // Fills the page cache of the database, which is none of the tokens' memory.
    expect(await listAll()).toBe(MANY);
    for (let left = 20; left > 0; left--) await use(0, 500, read);
    for (let left = 10; left > 0; left--) await use(0, 500, "/a", write);
    const warm = await settledBytes();
    await use(500, IN_USE, read);
    await use(500, IN_USE, "/a", write);
    const inUse = await settledBytes();
    await use(IN_USE, MANY, read);
    const all = await settledBytes();
    await use(0, MANY, read);
    expect(await listAll()).toBe(MANY);
    const again = await settledBytes();
    report(
      `100 000 installations: RSS ${inMiB(idle)} idle, ${inMiB(warm)} warm, ` +
        `+${inMiB(inUse - warm)} with 10 000 tokens in use, ` +
        `+${inMiB(all - warm)} with all, +${inMiB(again - warm)} with all again`,
    );
    // The resident size moves by many MiB from one look to the next.
    expectFigure("memory of 10 000 tokens in use", inUse - warm, IN_USE_BYTES_MAX, 4);
    expectFigure("memory of all tokens used again", again - all, FLAT_RSS_RISE_MAX, 2);
  }, 960_000);
});

describe("pages of large values", () => {
  const filled = useFilled(NO_RATES, (directory) => {
    const text = JSON.stringify("v".repeat(MiB - 2));
    return fillLargeStore(
      directory,
      Array.from({ length: 100 }, (_, index) => jsonEntry("heavy", mixedKey(index), text)),
    );
  });

  test("are refused when they are too large, and asked for by many at once do not take all memory", async () => {
    const { asked, server } = filled();
    const { token } = await install(asked, {}, "heavy");
    const { message } = await json<{ message: string }>(asApp(asked, token, "/"), 400);
    const limit = Number(/limit=(\d+)/.exec(message)![1]);
    const before = residentBytes(server.pid);
    let peak = before;
    let isOver = false;
    const watching = (async () => {
      while (!isOver) {
        peak = Math.max(peak, residentBytes(server.pid));
        await Bun.sleep(10);
      }
    })();
    const statuses = await Promise.all(
      Array.from({ length: 32 }, async () => {
        const response = await asApp(asked, token, `/?limit=${limit}`);
        await response.arrayBuffer();
        return response.status;
      }),
    );
    isOver = true;
    await watching;
    report(`32 pages of ${limit} values of 1 MiB at once: RSS +${inMiB(peak - before)}`);
    expect(statuses.filter((status) => status !== 503)).not.toBeEmpty();
    expect([...new Set(statuses)].every((status) => status === 200 || status === 503)).toBe(true);
    expectFigure("memory of pages of large values", peak - before, VALUE_PAGES_RSS_RISE_MAX, 2);
  }, 240_000);
});
