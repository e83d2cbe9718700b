// What time does to live streams: tokens end, silence is filled.

import { expect, setDefaultTimeout, test } from "bun:test";
import { LiveStream } from "../support/live-stream.ts";
import { bySize } from "../support/run-size.ts";
import { openInProcess, openInProcessAt } from "../support/targets.ts";
import { refusalBy } from "../support/task-answers.ts";
import { ask, createTask, logIn, signUp, UNLIMITED } from "../support/task-client.ts";

setDefaultTimeout(120_000);

const MINUTE_MS = 60_000;
const PING_MS = 15_000;
const PINGS = 2;

test("a live stream ends when its access token does, one of a newer token goes on", async () => {
  let aheadMs = 0;
  await using target = await openInProcessAt(() => Date.now() + aheadMs)(UNLIMITED);
  const ann = await signUp(target);
  await using stream = await LiveStream.open(target, ann);
  aheadMs = 10 * MINUTE_MS;
  const newer = await logIn(target, ann.email, ann.password);
  await using newers = await LiveStream.open(target, newer);
  aheadMs = 16 * MINUTE_MS;
  await stream.ended;
  expect(await refusalBy(target, ann, "GET", "/tasks/stream")).toBe("401 invalid_token");
  await createTask(target, newer);
  expect((await newers.next()).type).toBe("task.created");
  expect([stream.events, newers.hasEnded]).toEqual([[], false]);
});

const silent = bySize<string | null>(null, "a live stream outlives a silence that would end any other answer");
if (silent !== null) {
  test(silent, async () => {
    await using target = await openInProcess(UNLIMITED);
    const ann = await signUp(target);
    await using stream = await LiveStream.open(target, ann);
    for (const deadlineMs = performance.now() + PINGS * PING_MS + 5000; stream.comments < PINGS; ) {
      expect(performance.now()).toBeLessThan(deadlineMs);
      await Bun.sleep(100);
    }
    expect((await ask(target, "POST", "/tasks", { token: ann.token, body: { title: "after it" } })).status).toBe(201);
    expect(await stream.next()).toMatchObject({ id: 1, type: "task.created" });
  });
}
