// A live stream whose client pauses: what it missed before it came is not held against it, what comes after is.

import { expect, test } from "bun:test";
import { EventStream } from "../../src/task/event-stream.ts";
import type { FeedEntry, FeedStore } from "../../src/task/feed-store.ts";
import type { SignedIn } from "../../src/task/task-request.ts";

const MISSED = 300;
const UNSENT_MAX = 256;
const WHO: SignedIn = { userId: 1, sessionId: "s", tokenVersion: 0, expiresAtMs: 1e15 };

/** Resumed by a client that has missed everything so far, and was told where it stands. */
async function resumed() {
  const feed: Pick<FeedStore, "heads" | "after"> = {
    heads: async () => new Map([[WHO.userId, MISSED]]),
    after: async (_, rev, limit) =>
      Array.from({ length: Math.min(limit, MISSED - rev) }, (_, index): FeedEntry => {
        return { rev: rev + 1 + index, atMs: Date.now(), event: null };
      }),
  };
  let hasEnded = false;
  const onEnd = () => {
    hasEnded = true;
  };
  const stream = new EventStream({ feed: feed as FeedStore, who: WHO, onEnd });
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
