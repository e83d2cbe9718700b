// Workers over a real store: whatever handlers do, jobs end once, slots are kept to, and nothing ends the process.

import { afterEach, beforeEach, describe, expect, spyOn, test } from "bun:test";
import type { ClaimedJob } from "../../src/jobs/job-claim-units.ts";
import type { SettledRun } from "../../src/jobs/job-finish-units.ts";
import { JobFailure, type JobHandler } from "../../src/jobs/job-kinds.ts";
import { JobRun } from "../../src/jobs/job-run.ts";
import { AppError, internalError } from "../../src/shared/errors.ts";
import { eventually } from "../support/eventually.ts";
import { JobRig, QUIET, TEST_KINDS } from "../support/job-rig.ts";

const { plain, hook, noted, hasty, patient, system } = TEST_KINDS;
const SOON_MS = 5_000;
const DEFECT = "the server failed; its log says more";

let rig: JobRig;
beforeEach(async () => {
  rig = await JobRig.open();
});
afterEach(() => rig[Symbol.asyncDispose]());

const untilAborted: JobHandler = ({ signal }) =>
  new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
const soon = (what: string, isSo: () => boolean | Promise<boolean>) => eventually(what, SOON_MS, isSo);

describe("a job", () => {
  test("runs with what it was enqueued with, and its report reaches the settlement and whoever listens", async () => {
    const seen: unknown[] = [];
    const results: unknown[] = [];
    const [id] = await rig.enqueue(noted, 1, { payload: { a: 1 }, ownerId: 7 });
    rig.pool(
      {
        async "test.noted"({ signal, progress, ...job }) {
          seen.push(job, signal.aborted, typeof progress);
          return { b: 2 };
        },
      },
      { onSettled: (settled) => void results.push(...settled.results) },
    );
    await rig.ended([id!]);
    expect(seen).toEqual([{ id, ownerId: 7, payload: { a: 1 }, attempt: 1, fence: 1 }, false, "function"]);
    await soon("the result is told", () => results.length > 0);
    expect(results).toEqual([{ jobId: id, outcome: "done", report: { b: 2 } }]);
  });

  test("starts when the pool is woken, long before it would look again", async () => {
    const pool = rig.pool({ "test.plain": async () => null }, { pollMs: 60_000 });
    for (let round = 0; round < 3; round++) {
      const ids = await rig.enqueue(plain);
      pool.wake();
      expect((await rig.ended(ids))[0]!.state).toBe("done");
    }
  });

  test("that throws, rejects, or throws anything at all is tried again, and dead in the end", async () => {
    const throws: Record<string, () => unknown> = {
      rejects: () => Promise.reject(new Error("rejected")),
      throws: () => {
        throw new Error("thrown");
      },
      fails: () => Promise.reject(new JobFailure("the receiver is away")),
      refused: () => Promise.reject(new AppError("quota_exceeded", "no more exports")),
      broken: () => Promise.reject(internalError(new Error("the cause of it"))),
      text: () => Promise.reject("a text"),
      nothing: () => Promise.reject(undefined),
      unshowable: () => Promise.reject(Object.create(null)),
    };
    const ids: Record<string, string> = {};
    for (const name of Object.keys(throws)) ids[name] = (await rig.enqueue(plain, 1, { payload: name }))[0]!;
    const attempts: Record<string, number[]> = {};
    const causes: unknown[] = [];
    const error = (_: string, properties?: Record<string, unknown>) => void causes.push(properties!.cause);
    rig.pool(
      {
        "test.plain": ({ payload, attempt }) => {
          attempts[payload as string] = [...(attempts[payload as string] ?? []), attempt];
          return throws[payload as string]!() as Promise<unknown>;
        },
      },
      { log: { ...QUIET, error } },
    );
    const rows = await rig.ended(Object.values(ids));
    expect(rows.map(({ state, attempts }) => [state, attempts])).toEqual(rows.map(() => ["dead", 3]));
    expect(Object.values(attempts)).toEqual(rows.map(() => [1, 2, 3]));
    // What was not meant for its owner is in the log.
    expect(rows.map(({ last_error }) => last_error)).toEqual([
      DEFECT,
      DEFECT,
      "the receiver is away",
      "no more exports",
      DEFECT,
      DEFECT,
      DEFECT,
      DEFECT,
    ]);
    const told = ["a text", "failed with something that cannot be shown", "rejected", "the cause of it", "thrown"];
    told.push("undefined");
    expect([...new Set(causes)].sort()).toEqual(told);
  });

  test("that another node has taken over is no defect, whatever its handler makes of that", async () => {
    const told: string[] = [];
    const job = { id: "1", fence: 1, ownerId: null, payload: "null", attempt: 1, kind: "test.plain" };
    const run = new JobRun(job as ClaimedJob, 5_000, { ...QUIET, error: (message) => void told.push(message) });
    const ended = run.end(untilAborted, Date.now);
    run.abort("lost");
    expect(await ended).toMatchObject({ end: "failed", error: "the job was taken over" });
    expect(told).toEqual([]);
  });

  test("that fails fatally is dead at once", async () => {
    const [id] = await rig.enqueue(plain);
    rig.pool({ "test.plain": () => Promise.reject(new JobFailure("no use", { isFatal: true })) });
    expect((await rig.ended([id!]))[0]).toMatchObject({ state: "dead", attempts: 1, last_error: "no use" });
  });

  test("that takes too long is told so, and counts as failed even when it never settles", async () => {
    let reason: unknown;
    const [heeds, ignores] = await rig.enqueue(hasty, 2);
    rig.pool({
      "test.hasty": ({ id, signal }) =>
        new Promise((_, reject) => {
          if (id !== heeds) return;
          signal.addEventListener("abort", () => {
            reason = signal.reason;
            reject(signal.reason);
          });
        }),
    });
    const rows = await rig.ended([heeds!, ignores!]);
    expect(rows.map(({ state, last_error }) => [state, last_error])).toEqual([
      ["dead", "timed out after 50 ms"],
      ["dead", "timed out after 50 ms"],
    ]);
    expect(reason).toBeInstanceOf(Error);
  });

  test("of a kind that nobody here knows fails like any other", async () => {
    const [id] = await rig.enqueue(plain);
    rig.pool({});
    expect((await rig.ended([id!]))[0]).toMatchObject({
      state: "dead",
      last_error: expect.stringContaining("handler"),
    });
  });

  test("is neither lost nor counted as failed while the store has no room for what it does", async () => {
    let calls = 0;
    const [id] = await rig.enqueue(plain);
    rig.pool({
      async "test.plain"() {
        if (++calls === 1) throw new AppError("storage_full", "There is no space left.");
      },
    });
    await soon("it was put back", async () => (await rig.row(id!)).run_at_ms > 0);
    expect(await rig.row(id!)).toMatchObject({ state: "ready", attempts: 0, last_error: null });
  });

  test("shows its progress while it runs", async () => {
    const release = Promise.withResolvers<void>();
    const [id] = await rig.enqueue(plain);
    rig.pool(
      {
        async "test.plain"({ progress }) {
          progress(41.9);
          await release.promise;
        },
      },
      { leaseMs: 60 },
    );
    await soon("progress is stored", async () => (await rig.row(id!)).progress === 41);
    release.resolve();
    expect((await rig.ended([id!]))[0]).toMatchObject({ state: "done", progress: 100 });
  });
});

describe("a store that refuses", () => {
  test("claims is told of once a second at most, and jobs run when it claims again", async () => {
    const told: [string, unknown][] = [];
    const error = (message: string, properties?: Record<string, unknown>) =>
      void told.push([message, properties?.cause]);
    const [id] = await rig.enqueue(plain);
    await rig.store.run("test.refuse", { condition: "NEW.state = 'running'" });
    const startMs = performance.now();
    rig.pool({ "test.plain": async () => null }, { log: { ...QUIET, error } });
    await soon("it is told twice", () => told.length === 2);
    expect(performance.now() - startMs).toBeGreaterThan(950);
    expect(told).toEqual(told.map(() => ["jobs cannot be claimed", expect.stringContaining("refused")]));
    await rig.store.run("test.refuse", { condition: null });
    expect((await rig.ended([id!]))[0]!.state).toBe("done");
  });

  test("a heartbeat is told of, and gets the progress with the next one", async () => {
    const release = Promise.withResolvers<void>();
    const told: string[] = [];
    const [id] = await rig.enqueue(plain);
    await rig.store.run("test.refuse", { condition: "NEW.progress = 41" });
    rig.pool(
      {
        async "test.plain"({ progress }) {
          progress(41);
          await release.promise;
        },
      },
      { leaseMs: 60, log: { ...QUIET, warn: (message) => void told.push(message) } },
    );
    await soon("it is told", () => told.includes("leases of jobs could not be kept up"));
    await rig.store.run("test.refuse", { condition: null });
    await soon("progress is stored", async () => (await rig.row(id!)).progress === 41);
    release.resolve();
    expect((await rig.ended([id!]))[0]!.state).toBe("done");
  });
});

describe("a settlement that fails", () => {
  test("spoils no other job, and its own ends as a failure", async () => {
    const ids = await rig.enqueue(noted, 20);
    const broken: Record<string, string> = { [ids[3]!]: "refuse", [ids[11]!]: "break" };
    const ends: SettledRun[] = [];
    rig.pool(
      { "test.noted": async ({ id }) => broken[id] },
      { slots: { default: 20, webhook: 0, export: 0, system: 0 }, onSettled: ({ runs }) => void ends.push(...runs) },
    );
    const rows = await rig.ended(ids);
    const dead = rows.filter(({ state }) => state === "dead");
    expect(dead.map(({ id }) => id)).toEqual(Object.keys(broken));
    expect(dead.map(({ attempts, last_error }) => [attempts, last_error])).toEqual([
      [3, "the settlement refuses"],
      [3, DEFECT],
    ]);
    expect(await rig.settledAs(ids[0]!)).toEqual(["done"]);
    expect(await rig.settledAs(ids[3]!)).toEqual(["retry", "retry", "dead"]);
    await soon("all ends are told", () => ends.filter(({ outcome }) => outcome === "done").length === 18);
  });

  test("whatever it is told ends its job all the same, in the end without it", async () => {
    const [id] = await rig.enqueue(noted, 1, { payload: "refuse" });
    rig.pool({ "test.noted": async () => "well done" });
    const [row] = await rig.ended([id!]);
    expect(row).toMatchObject({ state: "dead", attempts: 3, last_error: "the settlement refuses" });
    expect(await rig.settledAs(id!)).toEqual([]);
  });

  test("does not keep a job running when its report cannot be sent", async () => {
    const [id] = await rig.enqueue(noted);
    rig.pool({ "test.noted": async () => () => "a function" });
    expect((await rig.ended([id!]))[0]).toMatchObject({ state: "dead", attempts: 3 });
  });
});

/** What ends the growth of a store. */
function isFull(error: AppError): false {
  expect(error.code).toBe("storage_full");
  return false;
}

describe("a full store", () => {
  test("keeps what has ended waiting without a lost attempt, while the system queue makes room", async () => {
    await using full = await JobRig.open({ DB_MAX_BYTES: "16MiB", RESERVE_BYTES: "0" });
    const [id] = await full.enqueue(noted);
    const [makesRoom] = await full.enqueue(system, 1, { runAtMs: Date.now() + 3_600_000 });
    const grow = () => full.store.run("test.grow", {} as never);
    while (await grow().then(() => true, isFull)) {}
    let nowMs = Date.now();
    const pool = full.pool(
      {
        "test.noted": async () => "grow",
        "test.system": () => full.store.run("test.shrink", {} as never),
      },
      { slots: { default: 1, webhook: 0, export: 0, system: 1 }, clock: () => nowMs },
    );
    await soon("its end is tried", () => pool.running === 1);
    nowMs += 3_600_001;
    const rows = await full.ended([id!, makesRoom!]);
    expect(rows.map(({ state, attempts }) => [state, attempts])).toEqual([
      ["done", 1],
      ["done", 1],
    ]);
    expect(await full.settledAs(id!)).toEqual(["done"]);
  }, 20_000);
});

describe("slots", () => {
  test("are never exceeded, queue by queue, and two at most are of one group", async () => {
    const now: Record<string, number> = {};
    const most: Record<string, number> = {};
    const enter = (name: string, by: number) => {
      now[name] = (now[name] ?? 0) + by;
      most[name] = Math.max(most[name] ?? 0, now[name]);
    };
    const count: JobHandler = async ({ payload, id }) => {
      const names = (payload as { names: string[] }).names;
      for (const name of names) enter(name, 1);
      await Bun.sleep(Number.parseInt(id.slice(-1), 16) % 3);
      for (const name of names) enter(name, -1);
    };
    const ids = [
      ...(await rig.enqueue(plain, 60, { payload: { names: ["default"] } })),
      ...(await rig.enqueue(system, 10, { payload: { names: ["system"] } })),
      ...(await rig.enqueue(hook, 30, { payload: { names: ["webhook", "slow"] }, groupKey: "slow" })),
      ...(await rig.enqueue(hook, 30, { payload: { names: ["webhook"] } })),
    ];
    rig.pool({ "test.plain": count, "test.system": count, "test.hook": count });
    expect((await rig.ended(ids)).every(({ state }) => state === "done")).toBe(true);
    expect(most).toEqual({ default: 5, system: 1, webhook: 8, slow: 2 });
  });

  test("of a group whose receiver never answers leave the others to the rest", async () => {
    await rig.enqueue(hook, 50, { groupKey: "silent", payload: "silent" });
    const others = await rig.enqueue(hook, 50, { payload: "quick" });
    const pool = rig.pool({
      "test.hook": (job) => (job.payload === "silent" ? untilAborted(job) : Promise.resolve(null)),
    });
    expect((await rig.ended(others)).every(({ state }) => state === "done")).toBe(true);
    await soon("only the silent ones run", () => pool.running === 2);
  });

  test("are fewer than half one owner's, whose receivers never answer; of two slots both are anybody's", async () => {
    for (const groupKey of ["a", "b", "c", "d", "e", "f"]) {
      await rig.enqueue(hook, 5, { groupKey, ownerId: 7, payload: "silent" });
    }
    const others = await rig.enqueue(hook, 30, { ownerId: 8, payload: "quick" });
    const silent = await rig.enqueue(plain, 3, { ownerId: 7, payload: "silent" });
    const work: JobHandler = (job) => (job.payload === "silent" ? untilAborted(job) : Promise.resolve(null));
    const pool = rig.pool(
      { "test.hook": work, "test.plain": work },
      { slots: { default: 2, webhook: 8, export: 0, system: 0 } },
    );
    expect((await rig.ended(others)).every(({ state }) => state === "done")).toBe(true);
    await soon("only the silent ones run", () => pool.running === 5);
    const states = (await Promise.all(silent.map((id) => rig.row(id)))).map(({ state }) => state);
    expect(states.toSorted()).toEqual(["ready", "running", "running"]);
  });

  test.each([
    ["a queue with one slot", { default: 1, webhook: 0 }, plain, 0],
    ["jobs that yield in a queue with two", { default: 0, webhook: 2 }, hook, 2],
    ["a queue with fewer slots than owners", { default: 3, webhook: 0 }, plain, 0],
  ] as const)("of %s go by turns: nobody waits for the backlog of another", async (_, slots, kind, priority) => {
    const owners = [7, 8, 9, 10];
    for (const ownerId of owners) await rig.enqueue(kind, ownerId === 9 ? 1 : 20, { ownerId, priority });
    const taken: number[] = [];
    const drained = Promise.withResolvers<void>();
    rig.pool(
      {
        [kind.kind]: async ({ ownerId }) => {
          if (taken.push(ownerId!) === 61) drained.resolve();
        },
      },
      { slots: { ...slots, export: 0, system: 0 } },
    );
    await drained.promise;
    expect(taken.slice(0, 4)).toEqual(owners);
    const counts: Record<number, number> = { 7: 0, 8: 0, 10: 0 };
    for (const ownerId of taken.slice(0, 55)) {
      if (ownerId !== 9) counts[ownerId]!++;
      const turns = Object.values(counts);
      expect(Math.max(...turns) - Math.min(...turns)).toBeLessThanOrEqual(2);
    }
  });

  test("of a queue without any take nothing", async () => {
    const [id] = await rig.enqueue(plain);
    const ids = await rig.enqueue(hook);
    rig.pool(
      { "test.plain": async () => null, "test.hook": async () => null },
      { slots: { default: 0, webhook: 1, export: 0, system: 0 } },
    );
    await rig.ended(ids);
    expect(await rig.row(id!)).toMatchObject({ state: "ready", attempts: 0 });
  });
});

describe("cancelling", () => {
  test("aborts a job that runs elsewhere with the next heartbeat", async () => {
    let reason = "";
    const [id] = await rig.enqueue(noted);
    const pool = rig.pool(
      {
        async "test.noted"(job) {
          await untilAborted(job).catch((error) => {
            reason = error.message;
            throw error;
          });
        },
      },
      { leaseMs: 90 },
    );
    await soon("it runs", () => pool.running === 1);
    await rig.store.run("jobs.cancel", { id: id!, ownerId: null, nowMs: Date.now() });
    expect((await rig.ended([id!]))[0]).toMatchObject({ state: "cancelled", attempts: 1 });
    expect(await rig.settledAs(id!)).toEqual(["cancelled"]);
    expect(reason).toBe("the job was cancelled");
  });
});

describe("leases", () => {
  test("of a node that is gone end, and its jobs run again", async () => {
    const ids = await rig.enqueue(plain, 3);
    const queues = [{ queue: "default", slots: 3 }];
    await rig.store.run("jobs.claim", { node: "gone", leaseMs: 150, nowMs: Date.now(), queues, busyGroups: {} });
    const attempts: number[] = [];
    const ends: SettledRun[] = [];
    rig.pool(
      { "test.plain": async ({ attempt }) => void attempts.push(attempt) },
      { leaseMs: 200, onSettled: ({ runs }) => void ends.push(...runs) },
    );
    expect((await rig.ended(ids)).map(({ state, attempts }) => [state, attempts])).toEqual(ids.map(() => ["done", 2]));
    expect(attempts).toEqual([2, 2, 2]);
    expect(ends.filter(({ isExpired }) => isExpired)).toHaveLength(3);
  });

  test("are kept up for as long as a job runs", async () => {
    const release = Promise.withResolvers<void>();
    let calls = 0;
    const [id] = await rig.enqueue(plain);
    const handlers = {
      "test.plain": async () => {
        calls++;
        await release.promise;
      },
    };
    rig.pool(handlers, { leaseMs: 240 });
    rig.pool(handlers, { leaseMs: 240 });
    await soon("it runs", () => calls === 1);
    const first = (await rig.row(id!)).locked_until_ms!;
    await soon("three leases have passed", async () => (await rig.row(id!)).locked_until_ms! > first + 720);
    release.resolve();
    expect((await rig.ended([id!]))[0]).toMatchObject({ state: "done", attempts: 1 });
    expect(calls).toBe(1);
  });

  test("that are over while their jobs run here take nothing from them", async () => {
    const release = Promise.withResolvers<void>();
    const [id] = await rig.enqueue(plain);
    const looks = spyOn(rig.jobs, "expired");
    // It leaps ahead between any two looks: every lease is over when it is looked for.
    let nowMs = Date.now();
    const clock = () => {
      nowMs += 60_000;
      return nowMs;
    };
    const pool = rig.pool({ "test.plain": () => release.promise }, { leaseMs: 60, clock });
    await soon("it runs", () => pool.running === 1);
    const found = async () => (await Promise.all(looks.mock.results.map(({ value }) => value))).flat();
    await soon("its lease was found over", async () => (await found()).length > 2);
    release.resolve();
    expect((await rig.ended([id!]))[0]).toMatchObject({ state: "done", attempts: 1, fence: 1 });
  });

  test("that were lost meanwhile make the late result count for nothing", async () => {
    const release = Promise.withResolvers<void>();
    const ends: SettledRun[] = [];
    const [id] = await rig.enqueue(noted);
    // Its clock stands still, as if it were frozen: its leases are over before they begin.
    rig.pool(
      {
        async "test.noted"() {
          await release.promise;
          return "late";
        },
      },
      { leaseMs: 60_000, clock: () => 1000, onSettled: ({ runs }) => void ends.push(...runs) },
    );
    await soon("it runs", async () => (await rig.row(id!)).state === "running");
    rig.pool({ "test.noted": async () => "in time" }, { leaseMs: 90 });
    expect((await rig.ended([id!]))[0]).toMatchObject({ state: "done", fence: 2 });
    release.resolve();
    await soon("the late one is told", () => ends.length > 0);
    expect(ends).toEqual([expect.objectContaining({ id, fence: 1, outcome: "discarded" })]);
    expect(await rig.settledAs(id!)).toEqual(["retry", "done"]);
  });
});

describe("stopping", () => {
  test("lets running jobs end, and claims no more", async () => {
    const release = Promise.withResolvers<void>();
    const ids = await rig.enqueue(plain, 9);
    const pool = rig.pool({ "test.plain": () => release.promise });
    await soon("all slots are taken", () => pool.running === 5);
    const stopped = pool.stop(SOON_MS);
    release.resolve();
    await stopped;
    const rows = await Promise.all(ids.map((id) => rig.row(id)));
    expect(rows.map(({ state }) => state).sort()).toEqual([...Array(5).fill("done"), ...Array(4).fill("ready")]);
    pool.wake();
    const [late] = await rig.enqueue(plain);
    expect(await rig.row(late!)).toMatchObject({ state: "ready" });
  });

  test("aborts what runs when the time is over, and gives it back with its attempts", async () => {
    const ids = await rig.enqueue(patient, 3);
    const never: JobHandler = () => new Promise(() => undefined);
    const pool = rig.pool({ "test.patient": (job) => (job.id === ids[0] ? never(job) : untilAborted(job)) });
    await soon("they run", () => pool.running === 3);
    await pool.stop(20);
    for (const id of ids) {
      expect(await rig.row(id)).toMatchObject({ state: "ready", attempts: 0, locked_by: null, last_error: null });
    }
    expect(pool.running).toBe(0);
  });

  test("gives back what is claimed in that moment, which has not begun", async () => {
    let calls = 0;
    const [id] = await rig.enqueue(patient);
    const run = rig.store.run.bind(rig.store) as (...args: unknown[]) => Promise<never>;
    const stopped = Promise.withResolvers<void>();
    spyOn(rig.store, "run").mockImplementation((name, args) => {
      const answer = run(name, args);
      if ((name as string) === "jobs.claim") stopped.resolve(pool.stop(60_000));
      return answer;
    });
    const pool = rig.pool({ "test.patient": async () => void calls++ });
    await soon("its end is stored", async () => (await rig.row(id!)).fence === 1 && pool.running === 0);
    await pool.stop(0);
    await stopped.promise;
    expect(await rig.row(id!)).toMatchObject({ state: "ready", attempts: 0, locked_by: null, last_error: null });
    expect(calls).toBe(0);
  });

  test("waits no longer when it is called again without time", async () => {
    await rig.enqueue(patient);
    const pool = rig.pool({ "test.patient": untilAborted });
    await soon("it runs", () => pool.running === 1);
    const stopped = pool.stop(3_600_000);
    await pool.stop(0);
    await stopped;
    expect(pool.running).toBe(0);
  });
});
