// Pages by position with their totals, read from a real database, against filtering and sorting a plain array.

import type { Database } from "bun:sqlite";
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import type { NameRange, OffsetPageQuery, SortField } from "../../src/storage/kv-engine.ts";
import { KvReader } from "../../src/storage/kv-reader.ts";
import { KvRows, type NewEntry, readWipes } from "../../src/storage/kv-rows.ts";
import { openStore } from "../../src/storage/open-store.ts";
import { plainEntry } from "../support/large-store.ts";
import { byBytes } from "../support/list-model.ts";
import { type Random, randomFrom } from "../support/seeded-random.ts";
import { type TempDir, tempDir } from "../support/temp-dir.ts";

const NOW_MS = 1_790_000_000_000;
const SORT_FIELDS: readonly SortField[] = ["key", "createdAt", "updatedAt", "creatorIp"];
const EXCLUDED = ["_keys", "_info"];
const WHOLE: NameRange = { lower: "", upper: null };

function randomEntry(random: Random, bucket: string): NewEntry {
  const parts = ["a", "b", "A", ".", "/", "é", "\uffff", "😀", "_", "%"];
  const key = random.chance(0.05)
    ? random.pick(EXCLUDED)
    : Array.from({ length: 1 + random.below(4) }, () => random.pick(parts)).join("");
  return {
    ...plainEntry(bucket, key),
    value: new TextEncoder().encode(random.pick(["1", '{"a":1}', "{bad", "", "x".repeat(50)])),
    contentType: random.pick([null, "text/plain", "application/json", "application/problem+json; charset=utf-8"]),
    creatorIp: random.pick([null, "10.0.0.1", "10.0.0.10", "::1"]),
    createdAtMs: NOW_MS - random.below(4),
    updatedAtMs: NOW_MS + random.below(4),
    expiresAtMs: random.pick([null, null, NOW_MS - 1, NOW_MS, NOW_MS + 1]),
  };
}

/** Ranges as installations have them: a name and what is below it, sorted and disjoint. */
function randomRanges(random: Random): NameRange[] {
  if (random.chance(0.2)) return [WHOLE];
  const names = ["a", "b", "A", "é", "😀", "%", "_keys"].filter(() => random.chance(0.4)).sort(byBytes);
  const ranges = names.flatMap((name) => [
    { lower: name, upper: `${name}\0` },
    { lower: `${name}.`, upper: `${name}/` },
  ]);
  return ranges.length === 0 ? [{ lower: "b.", upper: "b/" }] : ranges;
}

function sortValue(entry: NewEntry, sortBy: SortField): string | number {
  if (sortBy === "key") return 0;
  if (sortBy === "creatorIp") return entry.creatorIp ?? "";
  return sortBy === "createdAt" ? entry.createdAtMs : entry.updatedAtMs;
}

/** The keys that `query` may see, in its order. */
function expectedKeys(entries: Iterable<NewEntry>, query: OffsetPageQuery): string[] {
  const readable = [...entries].filter(
    ({ bucket, key, expiresAtMs }) =>
      bucket === query.bucket &&
      (expiresAtMs === null || expiresAtMs > NOW_MS) &&
      !query.excluded.includes(key) &&
      query.ranges.some(({ lower, upper }) => byBytes(key, lower) >= 0 && (upper === null || byBytes(key, upper) < 0)),
  );
  const compare = (a: NewEntry, b: NewEntry) => {
    const [left, right] = [sortValue(a, query.sortBy), sortValue(b, query.sortBy)];
    return left === right ? byBytes(a.key, b.key) : left < right ? -1 : 1;
  };
  const keys = readable.sort(compare).map(({ key }) => key);
  return query.isReverse ? keys.reverse() : keys;
}

const PLAIN_QUERY: OffsetPageQuery = {
  bucket: "mine",
  ranges: [WHOLE],
  excluded: EXCLUDED,
  sortBy: "key",
  isReverse: false,
  limit: 100,
  skip: 0,
  sortRowsMax: 100_000,
  jsonBytesMax: null,
};

describe("pages by position", () => {
  let directory: TempDir;
  let database: Database;
  let rows: KvRows;
  const wipes = new Map<string, number>();
  const live = new Map<string, NewEntry>();

  function transact(act: () => void): void {
    database.run("BEGIN IMMEDIATE");
    act();
    rows.finish();
    database.run("COMMIT");
    rows.keep();
  }

  /** In one transaction. */
  function store(entries: readonly NewEntry[]): void {
    transact(() => {
      for (const entry of entries) {
        rows.put(entry, rows.find(entry.bucket, entry.key));
        live.set(`${entry.bucket} ${entry.key}`, entry);
      }
    });
  }

  function storeRandom(random: Random, count: number): void {
    store(Array.from({ length: count }, () => randomEntry(random, random.pick(["mine", "mine", "mine2"]))));
  }

  function page(query: Partial<OffsetPageQuery>) {
    return new KvReader(database).pageByOffset({ ...PLAIN_QUERY, ...query }, NOW_MS);
  }

  function expectPage(query: OffsetPageQuery): void {
    const keys = expectedKeys(live.values(), query);
    const { total, entries } = page(query);
    const found = { query, total, keys: entries?.map(({ key }) => key) };
    expect(found).toEqual({ query, total: keys.length, keys: keys.slice(query.skip, query.skip + query.limit) });
  }

  beforeAll(async () => {
    directory = tempDir();
    const options = { walLimitBytes: 64 * 1024 * 1024, databaseBytesMax: 0, isChecked: false };
    database = await openStore({ path: directory.file("gokv.db"), ...options });
    rows = new KvRows(database, wipes);
  });
  afterAll(() => {
    database.close(true);
    directory[Symbol.dispose]();
  });

  test("and totals are those of the model, for any ranges, order and position, also after wipes", () => {
    const random = randomFrom(2026);
    for (let round = 0; round < 300; round++) {
      storeRandom(random, random.below(12));
      if (random.chance(0.06)) {
        transact(() => rows.wipe("mine"));
        for (const [name, { bucket }] of live) if (bucket === "mine") live.delete(name);
      }
      if (random.chance(0.1) && wipes.has("mine")) {
        transact(() => {
          if (rows.purge("mine", "", 1000) !== null) return;
          rows.forgetWipe("mine");
        });
        wipes.delete("mine");
      }
      expectPage({
        ...PLAIN_QUERY,
        ranges: randomRanges(random),
        sortBy: random.pick(SORT_FIELDS),
        isReverse: random.chance(0.5),
        limit: random.below(20),
        skip: random.below(15),
        excluded: random.chance(0.8) ? EXCLUDED : [],
      });
    }
    storeRandom(random, 200);
    expect([...readWipes(database)]).toEqual([...wipes]);
  });

  test("joined give every key once, in each order and for many ranges", () => {
    const ranges = ["A", "_keys", "a", "b", "é"].flatMap((name) => [
      { lower: name, upper: `${name}\0` },
      { lower: `${name}.`, upper: `${name}/` },
    ]);
    for (const sortBy of SORT_FIELDS) {
      for (const isReverse of [false, true]) {
        const keys = expectedKeys(live.values(), { ...PLAIN_QUERY, ranges, sortBy, isReverse });
        const joined: string[] = [];
        for (let skip = 0; skip < keys.length; skip += 3) {
          const { entries } = page({ ranges, sortBy, isReverse, limit: 3, skip });
          joined.push(...entries!.map(({ key }) => key));
        }
        expect([sortBy, isReverse, ...joined]).toEqual([sortBy, isReverse, ...keys]);
      }
    }
  });

  test("past the end, or of no length, are empty and have the total", () => {
    const total = expectedKeys(live.values(), PLAIN_QUERY).length;
    expect(total).toBeGreaterThan(10);
    for (const skip of [total, total + 1, Number.MAX_SAFE_INTEGER])
      expect(page({ skip })).toEqual({ total, entries: [] });
    expect(page({ limit: 0 })).toEqual({ total, entries: [] });
    expect(page({ bucket: "none" })).toEqual({ total: 0, entries: [] });
  });

  test("by another field than the key are refused above so many entries, by key never", () => {
    const total = expectedKeys(live.values(), PLAIN_QUERY).length;
    for (const sortBy of SORT_FIELDS) {
      expect(page({ sortBy, sortRowsMax: total - 1 }).entries === null).toBe(sortBy !== "key");
      expect(page({ sortBy, sortRowsMax: total }).entries).toHaveLength(Math.min(total, 100));
    }
    // Only what may be read counts, not what the bucket holds.
    const ranges = [{ lower: "a", upper: "a\0" }];
    expect(page({ sortBy: "createdAt", sortRowsMax: 1, ranges }).entries).not.toBeNull();
  });

  test("carry values that are one JSON text of a JSON type, when asked and when all such values fit", () => {
    const texts: readonly (readonly [key: string, type: string | null, value: string, isJson: boolean])[] = [
      ["a", "application/json", ' { "b": 1.0 } ', true],
      ["b", "APPLICATION/JSON;charset=utf-8", "null", true],
      ["c", "application/ld+json", "[]", true],
      ["d", "application/json", "{bad", false],
      ["e", "application/json", "", false],
      ["f", "application/json", "1 2", false],
      ["g", "text/plain", "1", false],
      ["h", "application/jsonp", "1", false],
      ["i", null, "1", false],
      ["j", "application/json", "\ufeff1", false],
    ];
    const entries = texts.map(([key, contentType, value]) => ({
      ...plainEntry("typed", key),
      contentType,
      value: new TextEncoder().encode(value),
    }));
    store(entries);
    const sizes = texts.map(([key, , value]) => ("ghi".includes(key) ? 0 : Buffer.byteLength(value)));
    const bytes = sizes.reduce((sum, size) => sum + size, 0);
    expect(page({ bucket: "typed" }).entries!.map(({ jsonBytes }) => jsonBytes)).toEqual(sizes);
    const shown = (jsonBytesMax: number | null) =>
      page({ bucket: "typed", jsonBytesMax }).entries!.map(({ json }) => json && new TextDecoder().decode(json));
    expect(shown(bytes)).toEqual(texts.map(([, , value, isJson]) => (isJson ? value : null)));
    expect(shown(bytes - 1).every((json) => json === null)).toBe(true);
    expect(shown(null).every((json) => json === null)).toBe(true);
    const first = page({ bucket: "typed", limit: 1 }).entries![0]!;
    expect([first.key, first.contentType, first.sizeBytes]).toEqual(["a", "application/json", 14]);
  });
});
