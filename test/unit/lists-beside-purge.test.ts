// Lists of a bucket whose wiped rows are not gone yet: they walk those rows, so the thread of the requests must not.

import { expect, test } from "bun:test";
import type { KvPut, NamePage, OffsetPage, OffsetPageQuery } from "../../src/storage/kv-engine.ts";
import type { SqliteStore } from "../../src/storage/sqlite-store.ts";
import { eventually } from "../support/eventually.ts";
import { fillLargeStore, plainEntry } from "../support/large-store.ts";
import { openStoreAt } from "../support/own-store.ts";
import { tempDir } from "../support/temp-dir.ts";

/** So many that their purge takes many slices. */
const MANY = 50_000;
const ALL = { lower: "", upper: null };
const PAGE: OffsetPageQuery = {
  bucket: "wiped",
  ranges: [ALL],
  excluded: [],
  sortBy: "key",
  isReverse: false,
  limit: 10,
  skip: 0,
  sortRowsMax: 100,
  jsonBytesMax: null,
};
const PUT: KvPut = {
  kind: "put",
  bucket: "wiped",
  key: "later",
  value: new Uint8Array(1),
  contentType: null,
  metadata: null,
  ttlMs: null,
  condition: null,
  creatorIp: null,
};

function listsOf(store: SqliteStore, bucket: string) {
  return {
    page: store.pageByOffset({ ...PAGE, bucket }, null),
    part: store.pageByOffset({ ...PAGE, bucket, ranges: [{ lower: "l", upper: "m" }] }, null),
    keys: store.listKeys(
      { range: { ...ALL, bucket }, isReverse: false, limit: 10, hasDetails: true, grouping: null },
      null,
    ),
  };
}

function bucketsOf(store: SqliteStore) {
  return store.listBuckets({ ...ALL, isReverse: false, limit: 10 }, null);
}

/** Which of these are read elsewhere. */
function awayOf(lists: Record<string, unknown>): string[] {
  return Object.keys(lists).filter((name) => lists[name] instanceof Promise);
}

async function namesOf({ page, part, keys }: ReturnType<typeof listsOf>): Promise<(readonly string[])[]> {
  const pages: OffsetPage[] = [await page, await part];
  const names: NamePage = await keys;
  expect(names.entries.map((entry) => entry!.sizeBytes)).toEqual(names.names.map(() => 1));
  return [...pages.map(({ entries }) => entries!.map(({ key }) => key)), names.names];
}

test("lists leave the thread of the requests while their bucket is purged, also after a restart", async () => {
  using directory = tempDir();
  const dbPath = directory.file("data");
  const rows = Array.from({ length: MANY }, (_, index) => plainEntry("wiped", `k${index}`));
  await fillLargeStore(dbPath, [...rows, plainEntry("other", "k")]);
  {
    await using store = await openStoreAt(dbPath);
    expect(awayOf(listsOf(store, "wiped"))).toEqual([]);
    await store.wipe("wiped");
    await store.write(PUT);
    const lists = listsOf(store, "wiped");
    const buckets = bucketsOf(store);
    expect(awayOf({ ...lists, buckets })).toEqual(["page", "part", "keys", "buckets"]);
    expect(awayOf(listsOf(store, "other"))).toEqual([]);
    expect(await namesOf(lists)).toEqual([["later"], ["later"], ["later"]]);
    expect((await buckets).names).toEqual(["other", "wiped"]);
  }
  await using store = await openStoreAt(dbPath);
  const lists = listsOf(store, "wiped");
  expect(awayOf(lists)).toEqual(["page", "part", "keys"]);
  expect(await namesOf(lists)).toEqual([["later"], ["later"], ["later"]]);
  await eventually("the purge is over", 20_000, async () => {
    const asked = listsOf(store, "wiped");
    await namesOf(asked);
    return awayOf(asked).length === 0;
  });
  expect(await namesOf(listsOf(store, "wiped"))).toEqual([["later"], ["later"], ["later"]]);
  expect(bucketsOf(store)).not.toBeInstanceOf(Promise);
}, 120_000);
