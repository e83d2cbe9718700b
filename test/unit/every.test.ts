// What is done again and again: one turn at a time, and each that fails is told.

import { expect, test } from "bun:test";
import { internalError } from "../../src/shared/errors.ts";
import { every } from "../../src/shared/every.ts";
import { eventually } from "../support/eventually.ts";
import { QUIET } from "../support/job-rig.ts";

const SOON_MS = 5_000;

test("a turn that takes long is not begun anew meanwhile", async () => {
  const slow = Promise.withResolvers<void>();
  let [turns, ticks] = [0, 0];
  const timers = [
    every(1, QUIET, "it failed", async () => {
      turns++;
      await slow.promise;
    }),
    every(1, QUIET, "it failed", async () => {
      ticks++;
    }),
  ];
  await eventually("its time has come more often", SOON_MS, () => ticks > 20);
  expect(turns).toBe(1);
  slow.resolve();
  await eventually("it comes again", SOON_MS, () => turns > 1);
  for (const timer of timers) clearInterval(timer);
});

test("a turn that fails is told with what stands behind it, and comes again", async () => {
  const told: unknown[] = [];
  const log = { ...QUIET, warn: (...said: unknown[]) => void told.push(said) };
  const timer = every(1, log, "it failed", () => Promise.reject(internalError(new Error("the cause of it"))));
  await eventually("it is told twice", SOON_MS, () => told.length > 1);
  clearInterval(timer);
  expect(told[1]).toEqual(["it failed", { cause: "the cause of it" }]);
});
