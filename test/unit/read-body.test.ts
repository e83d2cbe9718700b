// A body while it comes: what its pieces take in memory, and what is left of it when others need the room.

import { heapStats } from "bun:jsc";
import { describe, expect, test } from "bun:test";
import { ByteBudget } from "../../src/http/byte-budget.ts";
import { GatheredBytes } from "../../src/http/gathered-bytes.ts";
import { readBody } from "../../src/http/read-body.ts";
import { RequestScope } from "../../src/http/request-scope.ts";
import { randomFrom } from "../support/seeded-random.ts";

const MiB = 1024 * 1024;
const OLD_MS = 10_000;
const BODY_BYTES = 100_000;

/** A body of `length` bytes that a user sends as `controller` says. */
function arriving(length: number, budget: ByteBudget) {
  let controller!: ReadableStreamDefaultController<Uint8Array>;
  const body = new ReadableStream<Uint8Array>({
    start(begun) {
      controller = begun;
    },
  });
  const headers = { "Content-Length": `${length}` };
  const request = new Request("http://h/", { method: "POST", headers, body });
  const scope = new RequestScope(request, null, { isDraining: false, hasFailed: false, trustedProxies: null });
  const held = readBody(scope, MiB, budget, "user");
  held.catch(() => undefined);
  return { controller, scope, held };
}

async function untilUsed(budget: ByteBudget, bytes: number): Promise<void> {
  while (budget.usedBytes < bytes) await new Promise(setImmediate);
}

test("a body in pieces of one byte holds no object for each of them", async () => {
  const budget = new ByteBudget(MiB);
  const { controller, held } = arriving(BODY_BYTES, budget);
  const objects = () => {
    Bun.gc(true);
    const {
      Uint8Array: arrays = 0,
      ArrayBuffer: buffers = 0,
      Promise: promises = 0,
      objectCount,
    } = heapStats().objectTypeCounts as Record<string, number>;
    return { arrays, buffers, promises, all: objectCount ?? heapStats().objectCount };
  };
  const sendUpTo = async (bytes: number, from: number) => {
    for (let at = from; at < bytes; at++) {
      controller.enqueue(new Uint8Array([at]));
      if (at % 100 === 0) await new Promise(setImmediate);
    }
    await untilUsed(budget, bytes);
  };
  await sendUpTo(BODY_BYTES / 10, 0);
  const before = objects();
  await sendUpTo(BODY_BYTES, BODY_BYTES / 10);
  const after = objects();
  expect(after.arrays - before.arrays).toBeLessThan(1000);
  expect(after.promises - before.promises).toBeLessThan(1000);
  expect(after.all - before.all).toBeLessThan(BODY_BYTES / 10);
  controller.close();
  const { bytes, release } = await held;
  expect(bytes.length).toBe(BODY_BYTES);
  expect(bytes.findIndex((byte, at) => byte !== at % 256)).toBe(-1);
  release();
  expect(budget.usedBytes).toBe(0);
});

describe("a body that was long under way and whose room somebody else needs", () => {
  const piece = new Uint8Array(BODY_BYTES).fill(7);
  const begin = async () => {
    let nowMs = 0;
    const budget = new ByteBudget(2 * BODY_BYTES, () => nowMs);
    const body = arriving(BODY_BYTES, budget);
    body.controller.enqueue(piece);
    await untilUsed(budget, BODY_BYTES);
    nowMs = OLD_MS;
    return { budget, ...body };
  };
  const othersNeed = 1.5 * BODY_BYTES;

  test("is refused at once, though nothing more of it comes", async () => {
    const { budget, held, scope } = await begin();
    expect(budget.tryReserve(othersNeed)).toBe(true);
    await expect(held).rejects.toMatchObject({ code: "overloaded" });
    expect([budget.usedBytes, scope.unreadBody === null]).toEqual([othersNeed, false]);
  });

  test("is refused, too, when its end comes in the same turn, and gives back no more than it had", async () => {
    const { budget, controller, held } = await begin();
    controller.close();
    expect(budget.tryReserve(othersNeed)).toBe(true);
    await expect(held).rejects.toMatchObject({ code: "overloaded" });
    expect(budget.usedBytes).toBe(othersNeed);
  });

  test("keeps it when all of it has come before", async () => {
    const { budget, controller, held } = await begin();
    controller.close();
    const { bytes, release } = await held;
    expect(budget.tryReserve(othersNeed)).toBe(false);
    expect(bytes).toEqual(piece);
    release();
    release();
    expect(budget.usedBytes).toBe(0);
  });
});

test("pieces of any length are put together in their order, and anew after they were cleared", () => {
  const random = randomFrom(5);
  const gathered = new GatheredBytes();
  for (let round = 0; round < 50; round++) {
    gathered.clear();
    const pieces = Array.from({ length: random.below(20) }, () => {
      return new Uint8Array(random.below(random.chance(0.5) ? 100 : 50_000)).fill(random.below(256));
    });
    for (const piece of pieces) gathered.add(piece);
    const whole = Buffer.concat(pieces);
    expect([gathered.length, Buffer.compare(gathered.joined(), whole)]).toEqual([whole.length, 0]);
  }
});
