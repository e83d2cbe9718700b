// The queue of what takes long: in which order it runs, and who is left out.

import { expect, test } from "bun:test";
import { AppError } from "../../src/shared/errors.ts";
import { TurnQueue } from "../../src/storage/turn-queue.ts";

/** A queue whose work ends when the test says so, and what has begun, in order. */
function openQueue(lengthMax = 8) {
  const queue = new TurnQueue(lengthMax);
  const begun: string[] = [];
  const ends: (() => void)[] = [];
  const outcomes: string[] = [];
  const run = (name: string, caller: string, signal: AbortSignal | null = null) => {
    const act = () => {
      begun.push(name);
      return new Promise<void>((resolve) => ends.push(resolve));
    };
    queue.run(caller, signal, act).then(
      () => outcomes.push(name),
      (error: unknown) => outcomes.push(`${name} ${error instanceof AppError ? error.code : "defect"}`),
    );
  };
  const endOne = async () => {
    ends.shift()!();
    await Bun.sleep(0);
  };
  return { queue, begun, outcomes, run, endOne };
}

test("one thing runs at a time, and callers take turns", async () => {
  const { begun, outcomes, run, endOne } = openQueue();
  for (const name of ["a1", "a2", "a3", "a4", "b1", "c1", "b2"]) run(name, name[0]!);
  expect(begun).toEqual(["a1"]);
  for (let left = 7; left > 0; left--) await endOne();
  expect(begun).toEqual(["a1", "a2", "b1", "c1", "a3", "b2", "a4"]);
  expect(outcomes).toEqual(begun);
});

test("who has left is never run, and keeps nobody waiting", async () => {
  const { begun, outcomes, run, endOne } = openQueue();
  const client = new AbortController();
  run("a1", "a");
  for (const name of ["a2", "a3", "a4"]) run(name, "a", client.signal);
  run("a5", "a");
  client.abort();
  run("a6", "a", client.signal);
  await endOne();
  await endOne();
  expect(begun).toEqual(["a1", "a5"]);
  const refused = ["a2 unavailable", "a3 unavailable", "a4 unavailable", "a6 unavailable"];
  expect(outcomes.toSorted()).toEqual(["a1", "a5", ...refused].toSorted());
});

test("who leaves while it runs is run to its end", async () => {
  const { outcomes, run, endOne } = openQueue();
  const client = new AbortController();
  run("a1", "a");
  run("a2", "a", client.signal);
  await endOne();
  client.abort();
  run("a3", "a");
  await endOne();
  await endOne();
  expect(outcomes).toEqual(["a1", "a2", "a3"]);
});

test("a full queue refuses who fills it, not who asks for little", async () => {
  const { begun, outcomes, run, endOne } = openQueue(4);
  for (const name of ["a1", "a2", "a3", "a4", "a5", "a6"]) run(name, "a");
  await Bun.sleep(0);
  expect(outcomes).toEqual(["a6 overloaded"]);
  for (const name of ["b1", "b2", "b3"]) run(name, "b");
  await Bun.sleep(0);
  expect(outcomes.toSorted()).toEqual(["a4 overloaded", "a5 overloaded", "a6 overloaded", "b3 overloaded"]);
  for (let left = 5; left > 0; left--) await endOne();
  expect(begun).toEqual(["a1", "a2", "b1", "a3", "b2"]);
});

test("what fails lets the next one in", async () => {
  const { queue, begun, run, endOne } = openQueue();
  const failure = queue.run("a", null, () => Promise.reject(new Error("no")));
  run("a2", "a");
  expect(await failure.catch((error: Error) => error.message)).toBe("no");
  await Bun.sleep(0);
  expect(begun).toEqual(["a2"]);
  await endOne();
});
