// Keys that an export names twice: found in any order, whatever part of them is held at once.

import { expect, test } from "bun:test";
import { findRepeated, StrictOrder } from "../../src/storage/repeated-keys.ts";

type Named = { readonly bucket: string; readonly key: string };

const named = (bucket: string, ...keys: string[]): Named[] => keys.map((key) => ({ bucket, key }));

async function repeatedIn(entries: readonly Named[], heldMax?: number): Promise<number[]> {
  const found: number[] = [];
  const read = async function* () {
    yield* entries;
  };
  await findRepeated(read, entries.length, (index) => found.push(index), heldMax);
  return found.toSorted((a, b) => a - b);
}

function isOrdered(entries: readonly Named[]): boolean {
  const order = new StrictOrder();
  for (const entry of entries) order.see(entry);
  return order.isKept;
}

test("entries in strict order of bucket and key are told from those that may come twice", () => {
  expect(isOrdered([])).toBe(true);
  expect(isOrdered([...named("a", "b", "c"), ...named("b", "a", "aa"), ...named("ba", "")])).toBe(true);
  // In the order of their bytes, as exports are: by UTF-16 the last one would come before.
  expect(isOrdered(named("a", "z", "\uffee", "😀"))).toBe(true);
  expect(isOrdered(named("a", "b", "b"))).toBe(false);
  expect(isOrdered([...named("a", "b", "a"), ...named("b", "z")])).toBe(false);
  expect(isOrdered([...named("b", "a"), ...named("a", "b")])).toBe(false);
});

test("every entry that came before is found, however few are held at once", async () => {
  const keys = Array.from({ length: 300 }, (_, index) => `${(index * 7) % 200}`);
  const entries = [...named("b", ...keys), ...named("c", ...keys.slice(0, 50)), ...named("c", "0")];
  const seen = new Set<string>();
  const repeated = entries.flatMap(({ bucket, key }, index) => {
    const isRepeated = seen.has(`${bucket} ${key}`);
    seen.add(`${bucket} ${key}`);
    return isRepeated ? [index] : [];
  });
  expect(repeated).toHaveLength(101);
  for (const heldMax of [1, 7, 100, 1000, undefined]) expect(await repeatedIn(entries, heldMax)).toEqual(repeated);
});

test("a bucket and a key are not taken for another bucket and key that read the same together", async () => {
  expect(await repeatedIn([...named("a", "bc", '"c'), ...named("ab", "c"), ...named('a"', "c")])).toEqual([]);
  expect(await repeatedIn([])).toEqual([]);
});
