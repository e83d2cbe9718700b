// Live streams: what a client that pauses is held to, and what becomes of a feed that cannot be read.

import { expect, test } from "bun:test";
import type { AccessClaims } from "../../src/auth/user-token.ts";
import { ByteBudget } from "../../src/http/byte-budget.ts";
import { KiB } from "../../src/shared/bounds.ts";
import { LoopTurns } from "../../src/shared/loop-turns.ts";
import { EventStream } from "../../src/task/event-stream.ts";
import { EventStreams } from "../../src/task/event-streams.ts";
import type { FeedEntry, FeedStore } from "../../src/task/feed-store.ts";
import { eventually } from "../support/eventually.ts";
import { QUIET } from "../support/job-rig.ts";

const MISSED = 300;
const UNSENT_MAX = 256;
const WHO: AccessClaims = { userId: 1, sessionId: "s", tokenVersion: 0, expiresAtMs: 1e15 };

/** Resumed by a client that has missed everything so far, and was told where it stands. */
async function resumed() {
  const feed: Pick<FeedStore, "heads" | "ahead" | "after"> = {
    heads: async () => new Map([[WHO.userId, MISSED]]),
    ahead: async (_, rev, limit) => {
      return { rows: Math.min(limit, MISSED - rev), bytes: 0 };
    },
    after: async (_, rev, limit) =>
      Array.from({ length: Math.min(limit, MISSED - rev) }, (_, index): FeedEntry => {
        return { rev: rev + 1 + index, atMs: Date.now(), event: null };
      }),
  };
  let hasEnded = false;
  const onEnd = () => {
    hasEnded = true;
  };
  const parts = { who: WHO, budget: new ByteBudget(MISSED), turns: new LoopTurns(), onEnd };
  const stream = new EventStream({ ...parts, feed: feed as FeedStore });
  await stream.begin(0, Date.now());
  const reader = stream.body.getReader();
  const read = async () => new TextDecoder().decode((await reader.read()).value);
  await read();
  return { stream, read, hasEnded: () => hasEnded };
}

test("a client that missed much and pauses while it reads that gets all of it", async () => {
  const { stream, read, hasEnded } = await resumed();
  let text = await read();
  for (let seconds = 0; seconds < 3; seconds++) stream.check(MISSED);
  expect(hasEnded()).toBe(false);
  while (!text.includes(`id: ${MISSED}\n`)) text += await read();
  const revs = [...text.matchAll(/^id: (\d+)$/gm)].map(([, rev]) => Number(rev));
  expect(revs).toEqual(Array.from({ length: MISSED }, (_, index) => index + 1));
  stream.end();
});

test("a client that pauses while more happens than may wait for it is cut off", async () => {
  const { stream, read, hasEnded } = await resumed();
  await read();
  stream.check(MISSED);
  stream.check(MISSED + UNSENT_MAX);
  expect(hasEnded()).toBe(false);
  stream.check(MISSED + UNSENT_MAX + 1);
  expect(hasEnded()).toBe(true);
});

test("streams whose feeds cannot be read are told of, and stay open", async () => {
  const told: unknown[] = [];
  let isReadable = true;
  const heads = async () => {
    if (isReadable) return new Map([[WHO.userId, MISSED]]);
    throw new Error("the feeds are away");
  };
  const feed: Pick<FeedStore, "heads"> = { heads };
  const log = { ...QUIET, warn: (...said: unknown[]) => void told.push(said) };
  const streams = new EventStreams({
    feed: feed as FeedStore,
    clock: Date.now,
    limit: 1,
    budget: new ByteBudget(KiB),
    log,
  });
  await streams.open(WHO, null, new AbortController().signal);
  isReadable = false;
  await eventually("it is told", 5_000, () => told.length > 0);
  expect(told[0]).toEqual(["live streams could not be looked at", { cause: "the feeds are away" }]);
  expect(streams.count).toBe(1);
  streams.close();
});

test("a client that is far behind leaves turns of the event loop to others between what it is sent", async () => {
  const { stream, read } = await resumed();
  let turns = 0;
  let counting = setImmediate(function count() {
    turns++;
    counting = setImmediate(count);
  });
  let reads = 1;
  while (!(await read()).includes(`id: ${MISSED}\n`)) reads++;
  clearImmediate(counting);
  expect(reads).toBeGreaterThan(5);
  expect(turns).toBeGreaterThanOrEqual(reads - 1);
  stream.end();
});

/** A feed of `count` events of `bytes` each. */
function longEvents(count: number, bytes: number) {
  const event = { id: 1, taskId: 1, type: "task.updated", actorId: 1, version: 1, isLost: false };
  const changes = JSON.stringify("x".repeat(bytes - 2));
  let read = 0;
  const feed: Pick<FeedStore, "heads" | "ahead" | "after"> = {
    heads: async () => new Map([[WHO.userId, count]]),
    ahead: async (_, rev) => ({ rows: Math.min(1, count - rev), bytes }),
    after: async (_, rev) => {
      read++;
      return [{ rev: rev + 1, atMs: Date.now(), event: { ...event, changes } }];
    },
  };
  return { feed: feed as FeedStore, reads: () => read };
}

test("events that are long come in pieces, and count until the client has taken them", async () => {
  const budget = new ByteBudget(300 * KiB);
  const { feed, reads } = longEvents(2, 200 * KiB);
  const open = async () => {
    const parts = { feed, who: WHO, budget, turns: new LoopTurns(), onEnd: () => undefined };
    const stream = new EventStream(parts);
    await stream.begin(0, Date.now());
    const reader = stream.body.getReader();
    // The greeting, as soon as which is taken the first event is fetched.
    await reader.read();
    return { stream, read: async () => new TextDecoder().decode((await reader.read()).value) };
  };
  const [first, second] = [await open(), await open()];
  let text = await first.read();
  expect(text.length).toBe(32 * KiB);
  expect([budget.usedBytes, reads()]).toEqual([200 * KiB, 1]);
  const waiting = second.read();
  while (!text.endsWith("\n\n")) text += await first.read();
  expect([...text.matchAll(/^id: (\d+)$/gm)].map(([, rev]) => rev)).toEqual(["1"]);
  expect(text.length).toBeGreaterThan(200 * KiB);
  expect([budget.usedBytes, reads()]).toEqual([200 * KiB, 1]);
  first.stream.cut();
  expect((await waiting).length).toBe(32 * KiB);
  expect([budget.usedBytes, reads()]).toEqual([200 * KiB, 2]);
  second.stream.cut();
  expect(budget.usedBytes).toBe(0);
});
