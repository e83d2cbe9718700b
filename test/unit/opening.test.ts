// What is opened on demand: once, again after a failure, and closed only when it is there.

import { describe, expect, test } from "bun:test";
import { Opening } from "../../src/app/opening.ts";

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
