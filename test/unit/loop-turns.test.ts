// Work that is spread over the turns of the event loop.

import { expect, test } from "bun:test";
import { LoopTurns } from "../../src/shared/loop-turns.ts";

test("each gets a turn of its own, in the order in which they asked; others come between", async () => {
  const turns = new LoopTurns();
  const seen: string[] = [];
  const work = ["a", "b", "c"].map(async (name) => {
    await turns.next();
    seen.push(name);
    setImmediate(() => seen.push("another"));
  });
  await Promise.all(work);
  expect(seen).toEqual(["a", "another", "b", "another", "c"]);
  await turns.next();
  expect(seen.at(-1)).toBe("another");
});
