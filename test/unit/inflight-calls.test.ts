// What is under way is ended together, and what is over is left alone.

import { expect, test } from "bun:test";
import { InflightCalls } from "../../src/relay/inflight-calls.ts";

test("what is under way is ended once, what was taken out is not", () => {
  const calls = new InflightCalls();
  const ended: string[] = [];
  const takeOut = calls.add(() => ended.push("over"));
  calls.add(() => ended.push("under way"));
  takeOut();
  calls.add(() => ended.push("in the slot of one that is over"));
  calls.endAll();
  expect(ended.sort()).toEqual(["in the slot of one that is over", "under way"]);
});

test("to take one out twice does no harm to the one that has its slot by then", () => {
  const calls = new InflightCalls();
  const ended: string[] = [];
  const takeOut = calls.add(() => ended.push("over"));
  takeOut();
  calls.add(() => ended.push("first"));
  takeOut();
  calls.add(() => ended.push("second"));
  calls.endAll();
  expect(ended.sort()).toEqual(["first", "second"]);
});

test("one that takes itself out while it is ended does not keep others from being ended", () => {
  const calls = new InflightCalls();
  const ended: number[] = [];
  for (let call = 0; call < 10; call++) {
    const takeOut = calls.add(() => {
      takeOut();
      ended.push(call);
    });
  }
  calls.endAll();
  expect(ended).toHaveLength(10);
});
