// Statistics are summed up once for all who ask for the same at the same time.

import { expect, test } from "bun:test";
import { StatsCache } from "../../src/task/stats-cache.ts";

/** Sums that end when the test says so; `signals` are those of each beginning. */
function heldSums() {
  const signals: AbortSignal[] = [];
  const { promise, resolve, reject } = Promise.withResolvers<unknown>();
  const sum = (signal: AbortSignal) => {
    signals.push(signal);
    return promise;
  };
  return { signals, sum, resolve, reject };
}

test("whoever asks for the same meanwhile, or later, gets what was summed up once", async () => {
  const [cache, held, other] = [new StatsCache(), heldSums(), heldSums()];
  const { signal } = new AbortController();
  const asked = [1, 2, 3].map(() => cache.of("name", signal, held.sum));
  const different = cache.of("another name", signal, other.sum);
  held.resolve([1]);
  other.resolve([2]);
  expect(await Promise.all([...asked, different])).toEqual(["[1]", "[1]", "[1]", "[2]"]);
  expect(await cache.of("name", signal, held.sum)).toBe("[1]");
  expect([held.signals.length, other.signals.length]).toEqual([1, 1]);
});

test("summing up is given up when all who asked have left, and not before", async () => {
  const [cache, held] = [new StatsCache(), heldSums()];
  const clients = [new AbortController(), new AbortController()];
  const asked = clients.map(({ signal }) => cache.of("name", signal, held.sum));
  clients[0]!.abort();
  expect(held.signals.map(({ aborted }) => aborted)).toEqual([false]);
  clients[1]!.abort();
  expect(held.signals.map(({ aborted }) => aborted)).toEqual([true]);
  // Who comes now does not share the fate of those.
  const next = heldSums();
  const later = cache.of("name", new AbortController().signal, next.sum);
  held.reject(new Error("nobody waits"));
  next.resolve([3]);
  expect(await later).toBe("[3]");
  const ends = await Promise.allSettled(asked);
  expect(ends.map(({ status }) => status)).toEqual(["rejected", "rejected"]);
});

test("what has failed is summed up again", async () => {
  const [cache, held] = [new StatsCache(), heldSums()];
  const { signal } = new AbortController();
  const failed = Promise.allSettled([1, 2].map(() => cache.of("name", signal, held.sum)));
  held.reject(new Error("failed"));
  expect((await failed).map(({ status }) => status)).toEqual(["rejected", "rejected"]);
  expect(await cache.of("name", signal, async () => [4])).toBe("[4]");
});
