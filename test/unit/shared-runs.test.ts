// Work that many ask for at once: how often it is done, and for whom.

import { expect, test } from "bun:test";
import { SharedRuns } from "../../src/shared/shared-runs.ts";

/** Runs that end when the test says so, with their number. */
function openRuns() {
  const ends: ((isFailure?: boolean) => Promise<void>)[] = [];
  const runs = new SharedRuns(() => {
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    const number = ends.length + 1;
    ends.push(async (isFailure = false) => {
      if (isFailure) reject(new Error(`run ${number}`));
      else resolve(number);
      await Bun.sleep(0);
    });
    return promise;
  });
  return { runs, ends };
}

test("whoever asks before a run begins shares it, whoever asks later shares the next one", async () => {
  const { runs, ends } = openRuns();
  const first = [runs.next(), runs.next()];
  await Bun.sleep(0);
  const second = [runs.next(), runs.next(), runs.next()];
  await Bun.sleep(0);
  expect(ends).toHaveLength(1);
  await ends[0]!();
  expect(await Promise.all(first)).toEqual([1, 1]);
  expect(ends).toHaveLength(2);
  await ends[1]!();
  expect(await Promise.all(second)).toEqual([2, 2, 2]);
  void runs.next();
  await Bun.sleep(0);
  expect(ends).toHaveLength(3);
});

test("a run that fails is followed by the next one", async () => {
  const { runs, ends } = openRuns();
  const first = runs.next().catch((error: Error) => error.message);
  await Bun.sleep(0);
  const second = runs.next();
  await ends[0]!(true);
  expect(await first).toBe("run 1");
  await ends[1]!();
  expect(await second).toBe(2);
});
