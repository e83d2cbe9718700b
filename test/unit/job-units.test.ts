// The transactions of the job queue against a real store: who gets which job, and whose word counts at its end.

import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import type { Claim } from "../../src/jobs/job-claim-units.ts";
import type { EndedRun } from "../../src/jobs/job-finish-units.ts";
import { JobScheduler } from "../../src/jobs/job-scheduler.ts";
import type { JobTables } from "../../src/jobs/job-tables.ts";
import type { Log } from "../../src/shared/log.ts";
import { eventually } from "../support/eventually.ts";
import { expectTime } from "../support/figures-in-bounds.ts";
import { JobRig, QUIET, TEST_KINDS } from "../support/job-rig.ts";
import { refusalFrom } from "../support/refusal-of.ts";

const NOW_MS = 1_800_000_000_000;
const DAY_MS = 86_400_000;
const { plain, hook, noted, patient, system } = TEST_KINDS;

let rig: JobRig;
beforeEach(async () => {
  rig = await JobRig.open();
});
afterEach(() => rig[Symbol.asyncDispose]());

async function claim(slots: number, { queue = "default", ...rest }: Partial<Claim> & { queue?: string } = {}) {
  const queues = [{ queue, slots }];
  return rig.store.run("jobs.claim", { node: "a", leaseMs: 1000, nowMs: NOW_MS, queues, busyGroups: {}, ...rest });
}

const idsOf = (jobs: readonly { id: string }[]) => jobs.map(({ id }) => id);

async function finish(...runs: EndedRun[]) {
  return rig.store.run("jobs.finish", { runs, nowMs: NOW_MS + 10 });
}

async function claimOne(kind = plain as (typeof TEST_KINDS)[keyof typeof TEST_KINDS]) {
  await rig.enqueue(kind);
  return (await claim(1))[0]!;
}

describe("enqueueing", () => {
  test("leaves nothing when the transaction around it is rolled back", async () => {
    const jobs = [{ kind: plain, payload: {}, ownerId: null, runAtMs: 0 }];
    expect(await refusalFrom(rig.store.run("test.enqueue", { jobs, isRefused: true }))).toBe("conflict");
    expect(await claim(5)).toEqual([]);
  });

  test("takes a second job with the same key for the first one", async () => {
    expect(await rig.enqueue(plain, 1, { dedupKey: "a" })).toEqual([expect.any(String)]);
    expect(await rig.enqueue(plain, 1, { dedupKey: "a" })).toEqual([null as never]);
    expect(await claim(5)).toHaveLength(1);
  });
});

test("the figures of a queue are not read on for whoever has left", async () => {
  await rig.enqueue(plain, 3);
  const running = { isPaused: false, running: 0 };
  const waiting = new AbortController().signal;
  expect(await rig.jobs.figures("default", NOW_MS, waiting)).toEqual({ depth: 3, oldestMs: 0, ...running });
  expect(await refusalFrom(rig.jobs.figures("default", NOW_MS, AbortSignal.abort()))).toBe("unavailable");
});

describe("a claim", () => {
  test("goes by priority, then time, then age, and takes no more than it has slots for", async () => {
    const [late] = await rig.enqueue(plain, 1, { runAtMs: NOW_MS });
    const [third, fourth] = await rig.enqueue(plain, 2, { runAtMs: 5 });
    const [second] = await rig.enqueue(plain, 1, { runAtMs: 4 });
    const [first] = await rig.enqueue(plain, 1, { runAtMs: NOW_MS, priority: -1 });
    expect(idsOf(await claim(2))).toEqual([first!, second!]);
    expect(idsOf(await claim(5))).toEqual([third!, fourth!, late!]);
  });

  test("leaves what is not due, of another queue, or taken", async () => {
    await rig.enqueue(plain, 1, { runAtMs: NOW_MS + 1 });
    await rig.enqueue(hook);
    expect(await claim(5)).toEqual([]);
    const [id] = await rig.enqueue(plain, 1, { payload: { a: [1] }, ownerId: 7, groupKey: "g" });
    expect(await claim(5)).toEqual([
      {
        id: id!,
        queue: "default",
        kind: "test.plain",
        ownerId: 7,
        groupKey: "g",
        payload: '{"a":[1]}',
        priority: 0,
        attempt: 1,
        fence: 1,
      },
    ]);
    expect(await claim(5)).toEqual([]);
    expect(await rig.row(id!)).toMatchObject({
      state: "running",
      locked_by: "a",
      locked_until_ms: NOW_MS + 1000,
      started_at_ms: NOW_MS,
    });
  });

  test("takes at most two of a group, those that run already counted", async () => {
    const crowd = await rig.enqueue(hook, 40, { groupKey: "crowd" });
    const pair = await rig.enqueue(hook, 3, { groupKey: "pair" });
    const single = await rig.enqueue(hook, 2);
    const queue = "webhook";
    expect(idsOf(await claim(8, { queue, busyGroups: { crowd: 1 } }))).toEqual([
      crowd[0]!,
      ...pair.slice(0, 2),
      ...single,
    ]);
    expect(idsOf(await claim(8, { queue, busyGroups: { crowd: 2, pair: 2 } }))).toEqual([]);
    expect(idsOf(await claim(8, { queue }))).toEqual([...crowd.slice(1, 3), pair[2]!]);
  });

  test("gives those that are not of the usual priority what it has for them, and no more", async () => {
    const last = await rig.enqueue(hook, 4, { priority: 2 });
    const later = await rig.enqueue(hook, 3, { priority: 1 });
    const usual = await rig.enqueue(hook, 3);
    const claimWith = (yieldingSlots: number, slots = 8) =>
      claim(slots, { queues: [{ queue: "webhook", slots, yielding: { slots: yieldingSlots } }] });
    expect(idsOf(await claimWith(1, 2))).toEqual(usual.slice(0, 2));
    expect(idsOf(await claimWith(4))).toEqual([usual[2]!, ...later, last[0]!]);
    expect(idsOf(await claimWith(0))).toEqual([]);
    expect(idsOf(await claimWith(8, 2))).toEqual(last.slice(1, 3));
    expect(idsOf(await claim(8, { queue: "webhook" }))).toEqual([last[3]!]);
  });

  test("takes no more of an owner than the queue allows, those that run already counted", async () => {
    const queue = "webhook";
    const greedy = await rig.enqueue(hook, 40, { ownerId: 7 });
    const modest = await rig.enqueue(hook, 1, { ownerId: 8 });
    const nobodys = await rig.enqueue(hook, 6);
    const claimAs = (busy: Record<string, number>, slots = 8) =>
      claim(slots, { queues: [{ queue, slots, owners: { max: 4, busy } }] });
    expect(idsOf(await claimAs({ 7: 3 }))).toEqual([...modest, ...nobodys, greedy[0]!]);
    expect(idsOf(await claimAs({ 7: 4 }))).toEqual([]);
    expect(idsOf(await claimAs({ 8: 4 }))).toEqual(greedy.slice(1, 5));
  });

  test("takes one of a group that yields, and of an owner what the queue allows of those", async () => {
    const queue = "webhook";
    const twins = await rig.enqueue(hook, 2, { ownerId: 7, groupKey: "a", priority: 2 });
    const others = await Promise.all(
      ["b", "c"].map((groupKey) => rig.enqueue(hook, 2, { ownerId: 7, groupKey, priority: 1 })),
    );
    const usual = await rig.enqueue(hook, 2, { ownerId: 7, groupKey: "d" });
    const claimAs = (busy: Record<string, number>) => {
      const yielding = { slots: 6, owners: { max: 3, busy } };
      return claim(8, { queues: [{ queue, slots: 8, owners: { max: 5, busy }, yielding }] });
    };
    expect(idsOf(await claimAs({ 7: 3 }))).toEqual(usual);
    expect(idsOf(await claimAs({ 7: 2 }))).toEqual([others[0]![0]!]);
    expect(idsOf(await claimAs({}))).toEqual([others[0]![1]!, others[1]![0]!, twins[0]!]);
  });

  test("goes by turns of the owners: who has few that run comes before the backlog of who has many", async () => {
    const queue = "webhook";
    for (const priority of [0, 2]) {
      const greedy = await rig.enqueue(hook, 40, { ownerId: 7, priority, runAtMs: 1 });
      const busy = await rig.enqueue(hook, 40, { ownerId: 8, priority, runAtMs: 2 });
      const modest = await rig.enqueue(hook, 2, { ownerId: 9, priority, runAtMs: 3 });
      const claimAs = (running: Record<string, number>, slots: number) => {
        const owners = { max: 4, busy: running };
        return claim(slots, { queues: [{ queue, slots, owners, yielding: { slots, owners } }] });
      };
      expect(idsOf(await claimAs({ 7: 1, 8: 2 }, 1))).toEqual([modest[0]!]);
      expect(idsOf(await claimAs({ 7: 1, 8: 2 }, 4))).toEqual([modest[1]!, greedy[0]!, greedy[1]!, greedy[2]!]);
      expect(idsOf(await claimAs({}, 5))).toEqual([greedy[3]!, busy[0]!, greedy[4]!, busy[1]!, greedy[5]!]);
      const all = [greedy, busy].flat();
      for (const id of all) await rig.store.run("jobs.cancel", { id, ownerId: null, nowMs: NOW_MS });
    }
  });

  test("takes of owners with as many that run those that had no turn yet, then the others; by priority", async () => {
    const queue = "webhook";
    const [greedy, busy, modest] = [7, 8, 9].map((ownerId) => ({ ownerId, groupKey: `g${ownerId}` }));
    const first = await rig.enqueue(hook, 40, greedy);
    const second = await rig.enqueue(hook, 40, busy);
    const third = await rig.enqueue(hook, 1, modest);
    const nobodys = await rig.enqueue(hook, 1);
    const claimAs = (turns: Record<number, number[]>, slots: number, running: Record<string, number> = {}) =>
      claim(slots, { queues: [{ queue, slots, turns, owners: { max: 4, busy: running } }] });
    expect(idsOf(await claimAs({ 0: [7, 8] }, 1))).toEqual(third);
    expect(idsOf(await claimAs({ 0: [7, 8, 9] }, 1))).toEqual(nobodys);
    expect(idsOf(await claimAs({ 0: [8], 1: [7] }, 1))).toEqual([first[0]!]);
    expect(idsOf(await claimAs({ 0: [7] }, 2))).toEqual([second[0]!, first[1]!]);
    expect(idsOf(await claimAs({ 0: [7, 8] }, 3))).toEqual([first[2]!, second[1]!, first[3]!]);
    // Few that run come before a turn.
    expect(idsOf(await claimAs({ 0: [7] }, 1, { 8: 1 }))).toEqual([first[4]!]);
    expect(idsOf(await claimAs({ 0: [7] }, 1, { 7: 1, 8: 1 }))).toEqual([second[2]!]);
  });

  test("passes over as much of full owners as ten hooks of each can have waiting", async () => {
    for (let ownerId = 1; ownerId <= 9; ownerId++)
      await rig.enqueue(hook, 10_000, { ownerId, groupKey: `g${ownerId}` });
    const last = await rig.enqueue(hook, 10_000, { ownerId: 10, priority: 1 });
    const owners = { max: 4, busy: { 1: 4, 2: 4 } };
    const next = () => claim(2, { queues: [{ queue: "webhook", slots: 2, owners }] });
    expect((await next()).map(({ ownerId }) => ownerId)).toEqual([3, 4]);
    const startedMs = performance.now();
    expect((await next()).map(({ ownerId }) => ownerId)).toEqual([3, 4]);
    expectTime("a claim with 100 000 ready jobs, the first 20 000 of full owners", performance.now() - startedMs, 5);
    expect(await rig.row(last[0]!)).toMatchObject({ state: "ready" });
  }, 60_000);

  test("takes nothing of a paused queue", async () => {
    await rig.enqueue(plain);
    await rig.store.run("jobs.pauseQueue", { name: "default", isPaused: true });
    expect(await claim(5)).toEqual([]);
    await rig.store.run("jobs.pauseQueue", { name: "default", isPaused: false });
    expect(await claim(5)).toHaveLength(1);
  });
});

describe("the end of a run", () => {
  test("is done, and settled in the same transaction", async () => {
    const { id, fence } = await claimOne(noted);
    const settled = await finish({ id, fence, end: "done", report: "fine" });
    expect(settled.runs).toEqual([{ id, fence, kind: "test.noted", isExpired: false, outcome: "done" }]);
    expect(settled.results).toEqual([{ jobId: id, outcome: "done", report: "fine" }]);
    expect(await rig.settledAs(id)).toEqual(["done"]);
    expect(await rig.row(id)).toMatchObject({
      state: "done",
      progress: 100,
      locked_by: null,
      locked_until_ms: null,
      finished_at_ms: NOW_MS + 10,
    });
  });

  test("is discarded with a fence that is not the latest, and changes nothing", async () => {
    const first = await claimOne(noted);
    await finish({ id: first.id, fence: first.fence, end: "released", runAtMs: 0 });
    const [second] = await claim(1, { node: "b" });
    expect(second).toMatchObject({ id: first.id, fence: 2, attempt: 1 });
    for (const end of ["done", "failed", "cancelled", "released", "expired"] as const) {
      const { runs } = await finish({ id: first.id, fence: first.fence, end });
      expect(runs.map(({ outcome }) => outcome)).toEqual(["discarded"]);
    }
    expect(await rig.row(first.id)).toMatchObject({ state: "running", locked_by: "b", fence: 2 });
    expect(await rig.settledAs(first.id)).toEqual([]);
  });

  test("cannot be told twice", async () => {
    const { id, fence } = await claimOne(noted);
    await finish({ id, fence, end: "done" });
    expect((await finish({ id, fence, end: "failed" })).runs[0]!.outcome).toBe("discarded");
    expect(await rig.row(id)).toMatchObject({ state: "done" });
    expect(await rig.settledAs(id)).toEqual(["done"]);
  });

  test("is a later attempt after a failure, with its backoff, and dead after the last one", async () => {
    const { id, fence } = await claimOne(patient);
    expect((await finish({ id, fence, end: "failed", error: "boom" })).runs[0]!.outcome).toBe("retry");
    const { run_at_ms, ...row } = await rig.row(id);
    expect(row).toMatchObject({ state: "ready", attempts: 1, last_error: "boom", locked_by: null });
    expect(run_at_ms).toBeWithin(NOW_MS + 10 + 5e6, NOW_MS + 10 + 1e7 + 1);
    for (const [attempt, outcome] of [
      [2, "retry"],
      [3, "dead"],
    ] as const) {
      const [again] = await claim(1, { nowMs: NOW_MS + 1e9 });
      expect(again).toMatchObject({ id, attempt, fence: attempt });
      expect((await finish({ id, fence: attempt, end: "failed", error: `${attempt}` })).runs[0]!.outcome).toBe(outcome);
    }
    expect(await rig.row(id)).toMatchObject({ state: "dead", attempts: 3, last_error: "3" });
  });

  test("is dead at once after a fatal failure", async () => {
    const { id, fence } = await claimOne(patient);
    expect((await finish({ id, fence, end: "failed", error: "no use", isFatal: true })).runs[0]!.outcome).toBe("dead");
    expect(await rig.row(id)).toMatchObject({ state: "dead", attempts: 1 });
  });

  test("keeps as much of its error as can be shown, and none when the job is done in the end", async () => {
    const { id, fence } = await claimOne(patient);
    await finish({ id, fence, end: "failed", error: "é".repeat(600) });
    expect((await rig.row(id)).last_error).toBe("é".repeat(500));
    const [again] = await claim(1, { nowMs: NOW_MS + 1e9 });
    await finish({ id, fence: again!.fence, end: "done" });
    expect(await rig.row(id)).toMatchObject({ state: "done", attempts: 2, last_error: null });
  });

  test("gives an attempt back when the job is released", async () => {
    const { id, fence } = await claimOne();
    await finish({ id, fence, end: "released", runAtMs: 77 });
    expect(await rig.row(id)).toMatchObject({ state: "ready", attempts: 0, run_at_ms: 77 });
  });

  test("by an ended lease is a failure, and only after the lease", async () => {
    const { id, fence } = await claimOne(patient);
    expect((await finish({ id, fence, end: "expired" })).runs[0]!.outcome).toBe("discarded");
    const runs: EndedRun[] = [{ id, fence, end: "expired" }];
    expect(await rig.jobs.expired(NOW_MS + 1000, 10)).toEqual([]);
    expect(await rig.jobs.expired(NOW_MS + 1001, 10)).toEqual(runs);
    const settled = await rig.store.run("jobs.finish", { runs, nowMs: NOW_MS + 1001 });
    expect(settled.runs[0]).toMatchObject({ outcome: "retry", isExpired: true });
    expect(await rig.row(id)).toMatchObject({ state: "ready", attempts: 1, last_error: "lease expired" });
  });

  test("leaves nothing of a batch when one settlement refuses or has a defect, and the store works on", async () => {
    const ids = await rig.enqueue(noted, 3);
    const jobs = await claim(3);
    for (const [report, code] of [
      ["refuse", "conflict"],
      ["break", "internal_error"],
    ] as const) {
      const runs = jobs.map(({ id, fence }, n) => ({
        id,
        fence,
        end: "done" as const,
        report: n === 1 ? report : null,
      }));
      const refused = await finish(...runs).catch((error) => error);
      // Of a defect the log says more, not the message.
      expect([refused.code, refused.message.includes("defect")]).toEqual([code, false]);
      expect((await Promise.all(ids.map((id) => rig.row(id)))).map(({ state }) => state)).toEqual(
        ids.map(() => "running"),
      );
      expect(await rig.settledAs(ids[0]!)).toEqual([]);
    }
    await finish(...jobs.map(({ id, fence }) => ({ id, fence, end: "done" as const })));
    expect(await rig.settledAs(ids[0]!)).toEqual(["done"]);
  });
});

describe("a heartbeat", () => {
  const beat = (runs: { id: string; fence: number; progress: number | null }[], node = "a") =>
    rig.store.run("jobs.heartbeat", { node, leaseMs: 1000, nowMs: NOW_MS + 500, runs });

  test("extends the leases of its node and stores progress", async () => {
    await rig.enqueue(plain, 2);
    const [first, second] = await claim(2);
    const runs = [
      { ...first!, progress: 40 },
      { ...second!, progress: null },
    ].map(({ id, fence, progress }) => ({ id, fence, progress }));
    expect(await beat(runs)).toEqual({ cancelled: [], lost: [] });
    expect(await rig.row(first!.id)).toMatchObject({ locked_until_ms: NOW_MS + 1500, progress: 40 });
    expect(await rig.row(second!.id)).toMatchObject({ locked_until_ms: NOW_MS + 1500, progress: 0 });
  });

  test("tells which jobs are to be cancelled, and which are lost", async () => {
    await rig.enqueue(plain, 3);
    const [kept, cancelled, lost] = await claim(3);
    await rig.store.run("jobs.cancel", { id: cancelled!.id, ownerId: null, nowMs: NOW_MS });
    await finish({ id: lost!.id, fence: lost!.fence, end: "released", runAtMs: 0 });
    await claim(1, { node: "b" });
    const runs = [kept!, cancelled!, lost!].map(({ id, fence }) => ({ id, fence, progress: 9 }));
    const { id, fence } = lost!;
    expect(await beat(runs)).toEqual({ cancelled: [cancelled!.id], lost: [{ id, fence }] });
    expect(await rig.row(id)).toMatchObject({ locked_by: "b", locked_until_ms: NOW_MS + 1000, progress: 0 });
  });
});

describe("what people do with a job", () => {
  const named = (id: string, ownerId: number | null = null) => ({ id, ownerId, nowMs: NOW_MS + 5 });

  test("a ready one is cancelled at once, and settled; a running one is marked; an ended one is refused", async () => {
    const [id] = await rig.enqueue(noted);
    const { job, result } = await rig.store.run("jobs.cancel", named(id!));
    expect(job).toMatchObject({ id, state: "cancelled", finished_at_ms: NOW_MS + 5 });
    expect(result).toMatchObject({ outcome: "cancelled" });
    expect(await refusalFrom(rig.store.run("jobs.cancel", named(id!)))).toBe("state_conflict");
    const running = await claimOne();
    expect((await rig.store.run("jobs.cancel", named(running.id))).job).toMatchObject({
      state: "running",
      cancel_requested: 1,
    });
    await finish({ id: running.id, fence: running.fence, end: "failed", error: "aborted" });
    expect(await rig.row(running.id)).toMatchObject({ state: "cancelled" });
  });

  test("a cancelled one stands in the way of no other with the same key, whether it was ready or running", async () => {
    const enqueue = () => rig.enqueue(plain, 1, { dedupKey: "a" });
    const [ready] = await enqueue();
    await rig.store.run("jobs.cancel", named(ready!));
    const [running] = await enqueue();
    expect(running).toEqual(expect.any(String));
    const { fence } = (await claim(1))[0]!;
    await rig.store.run("jobs.cancel", named(running!));
    expect(await enqueue()).toEqual([null as never]);
    await finish({ id: running!, fence, end: "cancelled" });
    expect(await rig.row(running!)).toMatchObject({ state: "cancelled" });
    expect(await enqueue()).toEqual([expect.any(String)]);
  });

  test("a dead or cancelled one is run again from its first attempt, any other is refused", async () => {
    const { id, fence } = await claimOne(patient);
    expect(await refusalFrom(rig.store.run("jobs.retry", named(id)))).toBe("state_conflict");
    await finish({ id, fence, end: "failed", error: "boom", isFatal: true });
    expect(await rig.store.run("jobs.retry", named(id))).toMatchObject({
      state: "ready",
      attempts: 0,
      run_at_ms: NOW_MS + 5,
      finished_at_ms: null,
      fence: 1,
    });
    expect((await claim(1, { nowMs: NOW_MS + 5 }))[0]).toMatchObject({ id, attempt: 1, fence: 2 });
  });

  test("is refused for those who do not own it, as if it were not there", async () => {
    const [id] = await rig.enqueue(plain, 1, { ownerId: 7 });
    expect(await refusalFrom(rig.store.run("jobs.cancel", named(id!, 8)))).toBe("not_found");
    expect(await refusalFrom(rig.store.run("jobs.cancel", named(Bun.randomUUIDv7(), 7)))).toBe("not_found");
    expect((await rig.store.run("jobs.cancel", named(id!, 7))).job.state).toBe("cancelled");
  });

  test("all dead ones of a kind are run again, and no others", async () => {
    await rig.enqueue(patient, 3);
    await rig.enqueue(plain, 1);
    const jobs = await claim(4);
    await finish(...jobs.map(({ id, fence }) => ({ id, fence, end: "failed" as const, isFatal: true })));
    const all = { kind: patient.kind, nowMs: NOW_MS + 10, after: null };
    const none = await rig.store.run("jobs.retryDead", { ...all, nowMs: NOW_MS });
    expect(none).toEqual({ retried: 0, last: null });
    expect(await rig.store.run("jobs.retryDead", all)).toEqual({ retried: 3, last: null });
    expect((await Promise.all(jobs.map(({ id }) => rig.row(id)))).map(({ state }) => state)).toEqual([
      "ready",
      "ready",
      "ready",
      "dead",
    ] as never);
  });

  test("one that is run again has its end taken back, or stays as it is when its kind refuses", async () => {
    const [again] = await rig.enqueue(noted);
    const [last] = await rig.enqueue(noted, 1, { payload: "last" });
    for (const id of [again!, last!]) await rig.store.run("jobs.cancel", named(id));
    expect(await rig.store.run("jobs.retry", named(again!))).toMatchObject({ state: "ready" });
    expect(await refusalFrom(rig.store.run("jobs.retry", named(last!)))).toBe("state_conflict");
    expect(await rig.row(last!)).toMatchObject({ state: "cancelled", finished_at_ms: NOW_MS + 5 });
    expect(await rig.settledAs(again!)).toEqual(["again", "cancelled"]);
    expect(await rig.settledAs(last!)).toEqual(["cancelled"]);
  });

  test("those that their kind refuses are passed over when all dead ones are run again, however many", async () => {
    const refused = await rig.enqueue(noted, 150, { payload: "last" });
    const [id] = await rig.enqueue(noted);
    const jobs = await claim(151);
    await finish(...jobs.map((job) => ({ id: job.id, fence: job.fence, end: "failed" as const, isFatal: true })));
    const all = { kind: noted.kind, nowMs: NOW_MS + 10 };
    const first = await rig.store.run("jobs.retryDead", { ...all, after: null });
    expect(first.last).not.toBeNull();
    const second = await rig.store.run("jobs.retryDead", { ...all, after: first.last });
    expect([first.retried + second.retried, second.last]).toEqual([1, null as never]);
    expect(await rig.row(id!)).toMatchObject({ state: "ready", attempts: 0 });
    const states = (await Promise.all(refused.map((each) => rig.row(each)))).map(({ state }) => state);
    expect(new Set(states)).toEqual(new Set(["dead"]));
  });
});

describe("the purge", () => {
  test("removes what ended before its times, by state, and in slices", async () => {
    await rig.enqueue(plain, 600);
    await rig.enqueue(patient, 1);
    const jobs = await claim(601);
    const ends = jobs.map(({ id, fence }, n) => ({
      id,
      fence,
      end: n < 600 ? ("done" as const) : ("failed" as const),
    }));
    await finish(...ends.map((run) => ({ ...run, isFatal: true })));
    const [waiting] = await rig.enqueue(plain);
    const purge = (doneBeforeMs: number, deadBeforeMs: number) =>
      rig.store.run("jobs.purge", { doneBeforeMs, deadBeforeMs });
    expect(await purge(NOW_MS + 10, NOW_MS + 10)).toBe(0);
    expect(await purge(NOW_MS + 11, NOW_MS + 10)).toBe(500);
    expect(await purge(NOW_MS + 11, NOW_MS + 10)).toBe(100);
    expect(await rig.row(jobs[600]!.id)).toMatchObject({ state: "dead" });
    expect(await purge(0, NOW_MS + 11)).toBe(1);
    expect(await rig.row(waiting!)).toMatchObject({ state: "ready" });
  });
});

describe("a schedule", () => {
  const fire = (atMs: number | null) =>
    rig.store.run("jobs.fireSchedule", { name: "nightly", kind: system, atMs, nowMs: NOW_MS });
  const row = async () => {
    const db = rig.store.tables.withTables<JobTables>();
    return db.selectFrom("job_schedule").selectAll().executeTakeFirst();
  };

  test("fires once for each of its times, whoever asks first, and never for an earlier one", async () => {
    await rig.store.run("jobs.plan", { schedules: [{ name: "nightly", expression: "0 3 * * *" }], nowMs: 1000 });
    expect(await row()).toMatchObject({ last_fire_ms: -1000 });
    expect(await fire(2000)).toEqual(expect.any(String));
    expect(await fire(2000)).toBeNull();
    expect(await fire(1500)).toBeNull();
    expect(await fire(3000)).toEqual(expect.any(String));
    expect(await claim(5, { queue: "system" })).toHaveLength(2);
    expect(await row()).toMatchObject({ last_fire_ms: 3000 });
  });

  test("fires again after a clock was ahead, when it fired or when it was planned", async () => {
    const schedules = ["fired", "planned"].map((name) => ({ name, expression: "0 3 * * *", kind: system }));
    const planned = schedules.map(({ name, expression }) => ({ name, expression }));
    const aheadMs = NOW_MS + 365 * DAY_MS;
    await rig.store.run("jobs.plan", { schedules: planned, nowMs: aheadMs - DAY_MS });
    await rig.store.run("jobs.fireSchedule", { name: "fired", kind: system, atMs: aheadMs, nowMs: aheadMs });
    await claim(5, { queue: "system", nowMs: aheadMs });
    let nowMs = NOW_MS;
    const warned: unknown[] = [];
    const log: Log = { ...QUIET, warn: (_, details) => warned.push(details) };
    const parts = { store: rig.store, jobs: rig.jobs, schedules, pollMs: 5, clock: () => nowMs, log };
    const scheduler = new JobScheduler({ ...parts, onFired: () => undefined });
    await scheduler.start();
    const lastTimes = async () => (await scheduler.list()).map(({ lastFireMs }) => lastFireMs ?? 0);
    try {
      expect(await claim(5, { queue: "system" })).toEqual([]);
      nowMs += DAY_MS;
      await eventually("both have fired", 5_000, async () =>
        (await lastTimes()).every((lastMs) => lastMs > 0 && lastMs <= nowMs),
      );
    } finally {
      scheduler.stop();
    }
    expect(await claim(5, { queue: "system", nowMs })).toHaveLength(2);
    expect(warned).toEqual([{ name: "fired" }, { name: "planned" }]);
  });

  test("keeps its last time when its expression changes, and out of turn", async () => {
    await rig.store.run("jobs.plan", { schedules: [{ name: "nightly", expression: "0 3 * * *" }], nowMs: 1000 });
    await fire(2000);
    await rig.store.run("jobs.plan", { schedules: [{ name: "nightly", expression: "0 4 * * *" }], nowMs: 9000 });
    expect(await fire(null)).toEqual(expect.any(String));
    expect(await row()).toEqual({ name: "nightly", expression: "0 4 * * *", last_fire_ms: 2000 });
  });
});
