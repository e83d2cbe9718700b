// Live streams: whoever sees a task hears of its changes at once, in order, and after a break without gap or repeat.

import { describe, expect, test } from "bun:test";
import { alterStore } from "../support/alter-store.ts";
import { eventually } from "../support/eventually.ts";
import { expectTime } from "../support/figures-in-bounds.ts";
import { LiveStream } from "../support/live-stream.ts";
import { openRaw } from "../support/raw-request.ts";
import { report } from "../support/run-size.ts";
import type { OpenTarget, Target } from "../support/targets.ts";
import { eventsOf, refusalBy, send, sendOk } from "../support/task-answers.ts";
import { type Account, API, ask, createTask, logIn, signUp, UNLIMITED } from "../support/task-client.ts";
import { useTarget } from "../support/use-target.ts";

const DAY_MS = 86_400_000;
const BEHIND_MAX = 10_000;
const FLOOD = 500;
const FLOOD_CHARACTERS = 64 * 1024;

export function taskStreamsSuite(name: string, open: OpenTarget): void {
  describe(`a live stream on ${name}`, () => deliveryTests(useTarget(open, UNLIMITED)));
  describe(`a client that comes back to its stream on ${name}`, () => resumeTests(useTarget(open, UNLIMITED)));
  describe(`the end of a stream on ${name}`, () => endTests(useTarget(open, UNLIMITED)));
  describe(`streams beyond the bound on ${name}`, () => {
    boundTests(useTarget(open, { ...UNLIMITED, TASK_STREAMS_MAX: "7" }));
  });
}

function rename(target: Target, by: Account, id: number, title: string) {
  return sendOk(target, by, "PATCH", `/tasks/${id}`, { title });
}

async function openStreams(target: Target): Promise<number> {
  const text = await (await target.fetch("/metrics")).text();
  return Number(/^gokv_task_streams (\d+)$/m.exec(text)![1]);
}

/** Large events on one task, as another node would write them; the feed of its owner had one before. */
async function floodFeed({ dbPath }: Target, { id: userId }: Account, taskId: number): Promise<void> {
  const changes = `'{"description":["","' || hex(zeroblob(${FLOOD_CHARACTERS / 2})) || '"]}'`;
  const numbers = `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${FLOOD})`;
  const nowMs = Date.now();
  await alterStore(
    dbPath,
    `BEGIN IMMEDIATE;
     INSERT INTO task_event (task_id, type, version, changes, at_ms)
       ${numbers} SELECT ${taskId}, 'task.updated', 1, ${changes}, ${nowMs} FROM n;
     INSERT INTO task_feed (user_id, rev, event_id, at_ms)
       ${numbers} SELECT ${userId}, 1 + i, (SELECT max(id) FROM task_event) - ${FLOOD} + i, ${nowMs} FROM n;
     UPDATE task_head SET rev = 1 + ${FLOOD} WHERE user_id = ${userId};
     COMMIT`,
  );
}

function deliveryTests(target: () => Target): void {
  test("tells owner and assignee of a change within a tenth of a second, as its history has it", async () => {
    const [ann, bob] = [await signUp(target()), await signUp(target())];
    const task = await createTask(target(), ann, { assignee_id: bob.id });
    await using owner = await LiveStream.open(target(), ann);
    await using assignee = await LiveStream.open(target(), bob);
    const tookMs: number[] = [];
    for (let round = 0; round < 20; round++) {
      await rename(target(), ann, task.id, `round ${round}`);
      const answeredMs = performance.now();
      const heard = await Promise.all([owner.next(), assignee.next()]);
      tookMs.push(Math.max(...heard.map(({ atMs }) => atMs)) - answeredMs);
    }
    tookMs.sort((a, b) => a - b);
    const [median, most] = [tookMs[10]!, tookMs.at(-1)!].map((ms) => ms.toFixed(1));
    report(`a change reaches two streams after its answer: median ${median} ms, most ${most} ms`);
    expectTime("a change until both have heard of it", tookMs[10]!, 100);

    const history = (await eventsOf(target(), ann, task.id)).slice(1);
    const expected = history.map(({ id, ...event }) => ({ id: task.id, event_id: id, ...event }));
    for (const stream of [owner, assignee]) {
      expect(stream.events.map(({ data }) => data)).toEqual(expected);
      expect(stream.events.map(({ type }) => type)).toEqual(expected.map(() => "task.updated"));
    }
  });

  test("carries every kind of event, numbers them without a hole, and shows no address", async () => {
    const [ann, bob] = [await signUp(target()), await signUp(target())];
    await using stream = await LiveStream.open(target(), ann);
    const { id } = await createTask(target(), ann);
    await sendOk(target(), ann, "PATCH", `/tasks/${id}`, { assignee_id: bob.id });
    const comment = await send<{ id: number }>(target(), bob, "POST", `/tasks/${id}/comments`, { body: "hello" });
    await sendOk(target(), ann, "DELETE", `/tasks/${id}/comments/${comment.body.id}`);
    await sendOk(target(), bob, "PATCH", `/tasks/${id}`, { status: "completed" });
    await sendOk(target(), ann, "DELETE", `/tasks/${id}`);
    await sendOk(target(), ann, "POST", `/tasks/${id}/restore`);
    const heard = await stream.take(7);
    expect(heard.map(({ type }) => type)).toEqual([
      "task.created",
      "task.assigned",
      "comment.created",
      "comment.deleted",
      "task.updated",
      "task.deleted",
      "task.restored",
    ]);
    expect(heard.map(({ id: rev }) => rev)).toEqual([1, 2, 3, 4, 5, 6, 7]);
    expect(heard.map(({ data }) => data.actor_id)).toEqual([ann.id, ann.id, bob.id, ann.id, bob.id, ann.id, ann.id]);
    expect(JSON.stringify(heard)).not.toContain("@");
  });

  test("tells nobody of the tasks of others, and of one that is lost to them only that it is gone", async () => {
    const [ann, bob, cid] = [await signUp(target()), await signUp(target()), await signUp(target())];
    const taken = await createTask(target(), ann, { title: "taken", assignee_id: bob.id });
    const deleted = await createTask(target(), ann, { title: "deleted", assignee_id: bob.id });
    await using bobs = await LiveStream.open(target(), bob);
    await using cids = await LiveStream.open(target(), cid);
    await sendOk(target(), ann, "PATCH", `/tasks/${taken.id}`, { assignee_id: cid.id, title: "a secret" });
    await rename(target(), ann, taken.id, "another secret");
    await sendOk(target(), ann, "DELETE", `/tasks/${deleted.id}`);
    const lost = await bobs.take(2);
    expect(lost.map(({ type, data }) => [type, data])).toEqual([
      ["task.gone", { id: taken.id }],
      ["task.gone", { id: deleted.id }],
    ]);
    const gained = await cids.take(2);
    expect(gained.map(({ type, data }) => [type, data.id])).toEqual([
      ["task.assigned", taken.id],
      ["task.updated", taken.id],
    ]);
    // What happened while bob saw the tasks is no longer his to read.
    await using again = await LiveStream.open(target(), bob, 0);
    const seen = await again.take(4);
    expect(seen.map(({ type, data }) => [type, Object.keys(data)])).toEqual(seen.map(() => ["task.gone", ["id"]]));
    expect([bobs.rest, cids.rest, again.rest]).toEqual([[], [], []]);
  });

  test("asks for a token and takes no parameter, and answers HEAD without opening one", async () => {
    const ann = await signUp(target());
    expect((await ask(target(), "GET", "/tasks/stream")).status).toBe(401);
    expect(await refusalBy(target(), ann, "GET", "/tasks/stream?scope=mine")).toBe("400 invalid_request scope");
    const malformed = await refusalBy(target(), ann, "GET", "/tasks/stream", undefined, { "Last-Event-ID": "-1" });
    expect(malformed).toBe("400 invalid_request");
    for (let round = 0; round < 7; round++) {
      const head = await ask(target(), "HEAD", "/tasks/stream", { token: ann.token });
      expect([head.status, head.headers.get("content-type"), head.headers.get("cache-control")]).toEqual([
        200,
        "text/event-stream",
        "no-store",
      ]);
    }
  });
}

function resumeTests(target: () => Target): void {
  test("gets the hundred changes it has missed, in order and once, also after a restart", async () => {
    const ann = await signUp(target());
    const { id } = await createTask(target(), ann);
    const first = await LiveStream.open(target(), ann);
    await rename(target(), ann, id, "seen");
    const { id: lastRev } = await first.next();
    await first[Symbol.asyncDispose]();
    for (let round = 0; round < 50; round++) await rename(target(), ann, id, `missed ${round}`);
    await target().restart();
    for (let round = 50; round < 100; round++) await rename(target(), ann, id, `missed ${round}`);
    await using again = await LiveStream.open(target(), ann, lastRev);
    const missed = await again.take(100);
    const titles = missed.map(({ data }) => (data.changes as { title: [string, string] }).title[1]);
    expect(titles).toEqual(Array.from({ length: 100 }, (_, round) => `missed ${round}`));
    expect(missed.map(({ id: rev }) => rev)).toEqual(missed.map((_, index) => lastRev + 1 + index));
    await rename(target(), ann, id, "live again");
    expect((await again.next()).id).toBe(lastRev + 101);
    expect(again.rest).toEqual([]);
  });

  test("misses nothing that happens while it comes back, however often it is cut off", async () => {
    const ann = await signUp(target());
    const { id } = await createTask(target(), ann);
    const changes = (async () => {
      for (let round = 0; round < 60; round++) await rename(target(), ann, id, `round ${round}`);
    })();
    const revs: number[] = [];
    for (let lastRev = 1; lastRev < 61; ) {
      await using stream = await LiveStream.open(target(), ann, lastRev);
      revs.push((await stream.next()).id, ...stream.rest.map((event) => event.id));
      lastRev = revs.at(-1)!;
    }
    await changes;
    expect(revs).toEqual(Array.from({ length: 60 }, (_, index) => index + 2));
  });

  test("is told to begin anew when it is too far behind, or what it missed is too old or gone", async () => {
    const ann = await signUp(target());
    const { id } = await createTask(target(), ann);
    await rename(target(), ann, id, "second");
    await using ahead = await LiveStream.open(target(), ann, 3);
    expect(await ahead.next()).toMatchObject({ id: 2, type: "reset", data: {} });

    const oldMs = Date.now() - 7 * DAY_MS - 1000;
    await alterStore(target().dbPath, `UPDATE task_feed SET at_ms = ${oldMs} WHERE user_id = ${ann.id} AND rev = 1`);
    await using late = await LiveStream.open(target(), ann, 0);
    expect(await late.next()).toMatchObject({ id: 2, type: "reset" });
    await using inTime = await LiveStream.open(target(), ann, 1);
    expect(await inTime.next()).toMatchObject({ id: 2, type: "task.updated" });
    // A user has five places.
    await inTime[Symbol.asyncDispose]();

    await alterStore(target().dbPath, `DELETE FROM task_feed WHERE user_id = ${ann.id} AND rev = 1`);
    await using holed = await LiveStream.open(target(), ann, 0);
    expect(await holed.next()).toMatchObject({ id: 2, type: "reset" });

    await alterStore(target().dbPath, `DELETE FROM task_feed WHERE user_id = ${ann.id}`);
    await using emptied = await LiveStream.open(target(), ann, 1);
    expect(await emptied.next()).toMatchObject({ id: 2, type: "reset" });

    const far = `UPDATE task_head SET rev = ${BEHIND_MAX + 2} WHERE user_id = ${ann.id}`;
    await alterStore(target().dbPath, far);
    await using behind = await LiveStream.open(target(), ann, 1);
    expect(await behind.next()).toMatchObject({ id: BEHIND_MAX + 2, type: "reset" });
    await rename(target(), ann, id, "third");
    for (const stream of [ahead, late, holed, emptied, behind]) {
      await eventually("each goes on behind the reset", 5000, () => stream.lastId === BEHIND_MAX + 3);
    }
    expect(behind.rest.map(({ type }) => type)).toEqual(["task.updated"]);
  });

  test("hears of changes that nothing has woken it for", async () => {
    const ann = await signUp(target());
    const { id } = await createTask(target(), ann);
    await using stream = await LiveStream.open(target(), ann);
    const [event] = await eventsOf(target(), ann, id);
    // As another node would write it.
    const row = `INSERT INTO task_feed VALUES (${ann.id}, 2, ${event!.id}, ${Date.now()})`;
    await alterStore(target().dbPath, `${row}; UPDATE task_head SET rev = 2 WHERE user_id = ${ann.id}`);
    expect(await stream.next()).toMatchObject({ id: 2, type: "task.created" });
  });
}

function endTests(target: () => Target): void {
  test("comes with the session: at one logout or all, a new password, or when the user is disabled", async () => {
    const ann = await signUp(target());
    const other = await logIn(target(), ann.email, ann.password);
    const stays = await LiveStream.open(target(), other);
    await using ended = await LiveStream.open(target(), ann);
    await sendOk(target(), ann, "POST", "/auth/logout");
    await ended.ended;
    expect(stays.hasEnded).toBe(false);
    await sendOk(target(), other, "POST", "/auth/logout-all");
    await stays.ended;

    const third = await logIn(target(), ann.email, ann.password);
    const fourth = await logIn(target(), ann.email, ann.password);
    await using thirds = await LiveStream.open(target(), third);
    // Its session goes on with another token; the one that opened the stream is dead.
    await using fourths = await LiveStream.open(target(), fourth);
    const passwords = { current_password: ann.password, new_password: "another password" };
    await sendOk(target(), fourth, "POST", "/auth/password", passwords);
    await Promise.all([thirds.ended, fourths.ended]);

    const fifth = await logIn(target(), ann.email, "another password");
    await using fifths = await LiveStream.open(target(), fifth);
    const headers = { "Content-Type": "application/json" };
    const disable = { method: "PATCH", body: JSON.stringify({ disabled: true }), headers };
    expect((await target().fetch(`/_admin/task/users/${ann.id}`, disable)).status).toBe(200);
    await fifths.ended;
  });

  test("comes for a reader that takes nothing, and nobody else is held up by it", async () => {
    const [ann, bob] = [await signUp(target()), await signUp(target())];
    const { id } = await createTask(target(), ann, { assignee_id: bob.id });
    using stalled = await openRaw(target().url);
    stalled.send(`GET ${API}/tasks/stream HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${ann.token}\r\n\r\n`);
    await stalled.received(/id: \d+\n\n/);
    stalled.pause();
    await using anns = await LiveStream.open(target(), ann);
    await using bobs = await LiveStream.open(target(), bob);
    // What the kernel keeps for two sockets is filled by some of them, and then 256 have to wait.
    await floodFeed(target(), ann, id);
    expect((await anns.take(FLOOD)).at(-1)!.id).toBe(FLOOD + 1);
    await rename(target(), ann, id, "meanwhile");
    await Promise.all([anns.next(), bobs.next()]);
    await eventually("its place is free", 10_000, async () => (await openStreams(target())) === 2);
    stalled.resume();
    const received = await stalled.closed();
    expect([...received.matchAll(/^event: /gm)].length).toBeLessThan(FLOOD - 256);
  });
}

function boundTests(target: () => Target): void {
  test("are refused: the sixth of a user, and any beyond what the server holds, until one has ended", async () => {
    const [ann, bob] = [await signUp(target()), await signUp(target())];
    const anns: LiveStream[] = [];
    for (let stream = 0; stream < 5; stream++) anns.push(await LiveStream.open(target(), ann));
    expect(await refusalBy(target(), ann, "GET", "/tasks/stream")).toBe("429 too_many_streams");
    await using first = await LiveStream.open(target(), bob);
    await using second = await LiveStream.open(target(), bob);
    expect(await refusalBy(target(), bob, "GET", "/tasks/stream")).toBe("429 too_many_streams");
    expect([...anns, first, second].map(({ hasEnded }) => hasEnded)).toEqual(Array(7).fill(false));
    await anns.pop()![Symbol.asyncDispose]();
    await eventually("a place is free", 5000, async () => {
      const answer = await ask(target(), "GET", "/tasks/stream", { token: bob.token });
      await answer.body!.cancel();
      return answer.status === 200;
    });
    for (const stream of anns) await stream[Symbol.asyncDispose]();
  });
}
