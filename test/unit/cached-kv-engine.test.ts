// The read cache: what it may answer by itself, and what it must ask the engine for.

import { expect, test } from "bun:test";
import { CachedKvEngine } from "../../src/kv/cached-kv-engine.ts";
import type { KvEngine, KvFound, KvOutcome, KvPut } from "../../src/storage/kv-engine.ts";

const PUT: KvPut = {
  kind: "put",
  bucket: "b",
  key: "k",
  value: new Uint8Array(1),
  contentType: null,
  metadata: null,
  ttlMs: null,
  condition: null,
  creatorIp: null,
};
const CREATED: KvOutcome = { kind: "created", revision: 2, updatedAtMs: 0 };

/** An engine whose changes end when the test says so, behind a cache. */
function cached(expiresAtMs: number | null = null, value = new Uint8Array(1)) {
  let finds = 0;
  const ends: (() => void)[] = [];
  const wiped: ((bucket: string) => void)[] = [];
  const held = <T>(result: T) => new Promise<T>((resolve) => ends.push(() => resolve(result)));
  const found = (): KvFound => ({
    revision: ++finds,
    createdAtMs: 0,
    updatedAtMs: 0,
    expiresAtMs,
    contentType: null,
    metadata: null,
    creatorIp: null,
    sizeBytes: value.length,
    value,
  });
  const engine = {
    find: found,
    describe: found,
    write: () => held(CREATED),
    writeTogether: () => held([CREATED]),
    wipe: () => held(undefined),
    onWipe: (listener: (bucket: string) => void) => wiped.push(listener),
  } as unknown as KvEngine;
  const cache = CachedKvEngine.over(engine, 1_000_000);
  return {
    cache,
    /** How often the engine has been asked when the cache has answered once more. */
    find: () => {
      cache.find("b", "k");
      return finds;
    },
    end: () => ends.shift()!(),
    tellWiped: (bucket: string) => {
      for (const listener of wiped) listener(bucket);
    },
  };
}

test("what was found is found again without the engine", () => {
  const { find } = cached();
  expect([find(), find(), find()]).toEqual([1, 1, 1]);
});

test("an entry of more than 16 KiB is asked of the engine each time", () => {
  const largest = cached(null, new Uint8Array(16_384));
  expect([largest.find(), largest.find()]).toEqual([1, 1]);
  const larger = cached(null, new Uint8Array(16_385));
  expect([larger.find(), larger.find()]).toEqual([1, 2]);
});

test("while its bucket is being wiped the engine is asked, and nothing of it is known when it was", async () => {
  const { cache, find, end, tellWiped } = cached();
  expect(find()).toBe(1);
  const wiping = cache.wipe("b");
  expect([find(), find()]).toEqual([2, 3]);
  tellWiped("b");
  end();
  await wiping;
  expect([find(), find()]).toEqual([4, 4]);
});

test("a wipe of another bucket leaves it alone", async () => {
  const { cache, find, end, tellWiped } = cached();
  expect(find()).toBe(1);
  const wiping = cache.wipe("bb");
  tellWiped("bb");
  expect(find()).toBe(1);
  end();
  await wiping;
  expect(find()).toBe(1);
});

test.each([
  ["a write", (cache: KvEngine) => cache.write(PUT)],
  ["writes that belong together", (cache: KvEngine) => cache.writeTogether([PUT])],
] as const)("while %s is pending the engine is asked, and nothing is kept until it has ended", async (_, write) => {
  const { cache, find, end } = cached();
  expect(find()).toBe(1);
  const writing = [write(cache), write(cache)];
  expect([find(), find()]).toEqual([2, 3]);
  end();
  await writing[0];
  expect([find(), find()]).toEqual([4, 5]);
  end();
  await writing[1];
  expect([find(), find()]).toEqual([6, 6]);
});

test("an entry that has expired is not answered with", () => {
  expect([cached(Date.now() + 60_000).find(), cached(Date.now() - 1).find()]).toEqual([1, 1]);
  const { find } = cached(Date.now() - 1);
  expect([find(), find()]).toEqual([1, 2]);
});
