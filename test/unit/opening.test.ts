// What is opened on demand: once, again after a failure, and closed only when it is there.

import { describe, expect, test } from "bun:test";
import { Opening, openUnasked } from "../../src/app/opening.ts";

describe("an opening", () => {
  test("happens once for all who ask", async () => {
    let openings = 0;
    const opening = new Opening(async () => ++openings);
    expect(await Promise.all([opening.open(), opening.open()])).toEqual([1, 1]);
    expect([await opening.open(), opening.opened]).toEqual([1, 1]);
  });

  test("that failed is forgotten: the next one who asks tries again", async () => {
    const outcomes = [new Error("locked"), new Error("still locked")];
    const opening = new Opening(async () => {
      const failure = outcomes.shift();
      if (failure !== undefined) throw failure;
      return "open";
    });
    await expect(opening.open()).rejects.toThrow("locked");
    expect(await opening.settled()).toBe(null);
    await expect(opening.open()).rejects.toThrow("still locked");
    expect(await opening.open()).toBe("open");
  });

  test("that nobody asks for is tried until it succeeds, or is not wanted any more", async () => {
    const failures: unknown[] = [];
    const stopping = new AbortController();
    const unasked = { delayMs: 1, signal: stopping.signal, onFailure: (error: unknown) => void failures.push(error) };
    const late = new Opening(async () => {
      if (failures.length < 3) throw new Error("locked");
      return "open";
    });
    await openUnasked(late, unasked);
    expect([late.opened, failures.length]).toEqual(["open", 3]);
    const never = new Opening(async () => {
      if (failures.length === 5) stopping.abort();
      throw new Error("locked for ever");
    });
    await openUnasked(never, unasked);
    expect([never.opened, failures.length]).toEqual([null, 6]);
    await openUnasked(never, unasked);
    expect(failures.length).toBe(6);
  });

  test("under way is waited for by whoever wants to close it", async () => {
    const { promise, resolve } = Promise.withResolvers<string>();
    const opening = new Opening(() => promise);
    expect(await opening.settled()).toBe(null);
    opening.open();
    const settled = opening.settled();
    resolve("open");
    expect(await settled).toBe("open");
  });
});
