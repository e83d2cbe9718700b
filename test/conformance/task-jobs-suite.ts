// Jobs as their owners see them: what they are at, how far they have come, run once more, called off.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { eventually } from "../support/eventually.ts";
import { expectTime } from "../support/figures-in-bounds.ts";
import type { OpenTarget, Target } from "../support/targets.ts";
import { refusalBy, send, sendOk } from "../support/task-answers.ts";
import { type Account, createTask, signUp, UNLIMITED } from "../support/task-client.ts";
import { type Export, fillTasks, type Job, makeExport, startExport } from "../support/task-exports.ts";
import { useTarget } from "../support/use-target.ts";

/** Enough for an export to be seen at work. */
const MANY_TASKS = 25_000;
const SOME_TASKS = 15_000;
const LEASE_MS = 1000;
const FAR = "2090-01-01T00:00:00Z";
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;

export function taskJobsSuite(name: string, open: OpenTarget): void {
  setDefaultTimeout(120_000);
  describe(`jobs of users on ${name}`, () => {
    const target = useTarget(open, { ...UNLIMITED, JOBS_LEASE: `${LEASE_MS}ms`, JOBS_POLL: "100ms" });
    shapeTests(target);
    lifeTests(target);
  });
}

function jobOf(target: Target, by: Account, id: string): Promise<Job> {
  return sendOk<Job>(target, by, "GET", `/jobs/${id}`);
}

async function pauseExports(target: Target, act: "pause" | "resume"): Promise<void> {
  expect((await target.fetch(`/_admin/queues/export/${act}`, { method: "POST" })).status).toBe(200);
}

function shapeTests(target: () => Target): void {
  test("are listed newest first with what there is to say of them, by state and kind, page by page", async () => {
    const ann = await signUp(target());
    await createTask(target(), ann, { remind_at: FAR });
    await createTask(target(), ann, { due_date: FAR });
    const { job_id } = await makeExport(target(), ann);
    const list = (query = "") => sendOk<Job[]>(target(), ann, "GET", `/jobs${query}`);
    const all = await list();
    expect(all.map(({ kind, state }) => `${kind} ${state}`)).toEqual([
      "export.build done",
      "task.overdue ready",
      "task.reminder ready",
    ]);
    expect(all[0]).toEqual({
      id: job_id,
      kind: "export.build",
      queue: "export",
      state: "done",
      attempts: 1,
      max_attempts: 3,
      progress: 100,
      last_error: null,
      run_at: expect.stringMatching(TIME),
      created_at: expect.stringMatching(TIME),
      started_at: expect.stringMatching(TIME),
      finished_at: expect.stringMatching(TIME),
    } as never);
    expect(all[2]).toMatchObject({
      queue: "default",
      attempts: 0,
      max_attempts: 5,
      run_at: "2090-01-01T00:00:00.000Z",
      started_at: null,
      finished_at: null,
      progress: 0,
    });
    expect((await list("?state=ready")).length).toBe(2);
    expect((await list("?kind=task.reminder&state=ready")).map(({ id }) => id)).toEqual([all[2]!.id]);
    expect(await list("?state=dead")).toEqual([]);
    expect(await list("?state=&kind=")).toEqual(all);

    const pages: string[] = [];
    for (let path: string | undefined = "/jobs?limit=1"; path !== undefined; ) {
      const page: { headers: Headers; body: Job[] } = await send<Job[]>(target(), ann, "GET", path);
      pages.push(...page.body.map(({ id }) => id));
      path = /^<\/api\/v1(.*)>; rel="next"$/.exec(page.headers.get("link") ?? "")?.[1];
    }
    expect(pages).toEqual(all.map(({ id }) => id));
  });

  test("are nobody else's, and are asked for strictly", async () => {
    const [ann, bob] = [await signUp(target()), await signUp(target())];
    await createTask(target(), ann, { remind_at: FAR });
    const [job] = await sendOk<Job[]>(target(), ann, "GET", "/jobs");
    expect(await sendOk<Job[]>(target(), bob, "GET", "/jobs")).toEqual([]);
    for (const [method, path] of [
      ["GET", `/jobs/${job!.id}`],
      ["POST", `/jobs/${job!.id}/retry`],
      ["POST", `/jobs/${job!.id}/cancel`],
    ] as const) {
      expect(await refusalBy(target(), bob, method, path)).toBe("404 not_found");
    }
    for (const id of ["nonsense", Bun.randomUUIDv7()]) {
      expect(await refusalBy(target(), ann, "GET", `/jobs/${id}`)).toBe("404 not_found");
    }
    for (const query of ["state=over", "kind=task", "limit=0", "queue=export", "state=done&state=done"]) {
      expect(await refusalBy(target(), ann, "GET", `/jobs?${query}`)).toBe(
        `400 invalid_request ${query.split("=")[0]}`,
      );
    }
    expect(await refusalBy(target(), ann, "GET", "/jobs?cursor=x")).toBe("400 invalid_cursor");
    expect((await jobOf(target(), ann, job!.id)).state).toBe("ready");
  });
}

function lifeTests(target: () => Target): void {
  test("pass from ready over running, with progress, to done; a ready one is called off at once", async () => {
    const ann = await signUp(target());
    await fillTasks(target(), ann, MANY_TASKS);
    await pauseExports(target(), "pause");
    const [{ job_id }, spare] = [await startExport(target(), ann), await startExport(target(), ann)];
    expect((await jobOf(target(), ann, job_id)).state).toBe("ready");
    expect(await refusalBy(target(), ann, "POST", `/jobs/${job_id}/retry`)).toBe("409 state_conflict");
    const cancelled = await sendOk<Job>(target(), ann, "POST", `/jobs/${spare.job_id}/cancel`);
    expect(cancelled).toMatchObject({ state: "cancelled", attempts: 0 });
    expect(await refusalBy(target(), ann, "POST", `/jobs/${spare.job_id}/cancel`)).toBe("409 state_conflict");
    await pauseExports(target(), "resume");

    const seen: Job[] = [];
    await eventually("the export is done", 20_000, async () => {
      seen.push(await jobOf(target(), ann, job_id));
      return seen.at(-1)!.state === "done";
    });
    const states = [...new Set(seen.map(({ state }) => state))];
    expect(["ready running done", "running done"]).toContain(states.join(" "));
    const percents = seen.filter(({ state }) => state === "running").map(({ progress }) => progress);
    expect(percents).toEqual(percents.toSorted((a, b) => a - b));
    expect(percents.filter((percent) => percent > 0 && percent < 100)).not.toEqual([]);
    expect(seen.at(-1)).toMatchObject({ progress: 100, attempts: 1 });
    for (const act of ["retry", "cancel"]) {
      expect(await refusalBy(target(), ann, "POST", `/jobs/${job_id}/${act}`)).toBe("409 state_conflict");
    }
  });

  test("are called off while they run, within a heartbeat, and can be run again from attempt one", async () => {
    const ann = await signUp(target());
    await fillTasks(target(), ann, SOME_TASKS);
    const { id, job_id } = await startExport(target(), ann);
    const state = async () => (await jobOf(target(), ann, job_id)).state;
    await eventually("it runs", 5000, async () => (await state()) === "running");
    const askedMs = performance.now();
    const asked = await sendOk<Job>(target(), ann, "POST", `/jobs/${job_id}/cancel`);
    expect(asked.state).toBe("running");
    await eventually("it is cancelled", 5000, async () => (await state()) === "cancelled");
    expectTime("a cancellation", performance.now() - askedMs, 2 * LEASE_MS);
    expect((await jobOf(target(), ann, job_id)).last_error).toBe("cancelled");
    expect((await sendOk<Export>(target(), ann, "GET", `/exports/${id}`)).state).toBe("failed");

    const again = await sendOk<Job>(target(), ann, "POST", `/jobs/${job_id}/retry`);
    expect(again).toMatchObject({ state: "ready", attempts: 0, progress: 0, last_error: null });
    await eventually("it is done", 20_000, async () => (await state()) === "done");
    expect((await jobOf(target(), ann, job_id)).attempts).toBe(1);
    const made = await sendOk<Export>(target(), ann, "GET", `/exports/${id}`);
    expect([made.state, made.row_count]).toEqual(["ready", SOME_TASKS]);
  });

  test("bring back the export that they build when they are run again, unless it was deleted", async () => {
    const ann = await signUp(target());
    await pauseExports(target(), "pause");
    const { id, job_id } = await startExport(target(), ann);
    const shown = () => sendOk<Export>(target(), ann, "GET", `/exports/${id}`);
    await sendOk(target(), ann, "POST", `/jobs/${job_id}/cancel`);
    expect((await shown()).state).toBe("failed");
    await sendOk(target(), ann, "POST", `/jobs/${job_id}/retry`);
    const waiting = await shown();
    expect(waiting.state).toBe("pending");
    expect(Date.parse(waiting.expires_at)).toBeGreaterThan(Date.now());
    await sendOk(target(), ann, "POST", `/jobs/${job_id}/cancel`);
    for (let more = 0; more < 3; more++) await startExport(target(), ann);
    expect(await refusalBy(target(), ann, "POST", `/jobs/${job_id}/retry`)).toBe("403 quota_exceeded");
    await sendOk(target(), ann, "DELETE", `/exports/${id}`);
    expect(await refusalBy(target(), ann, "POST", `/jobs/${job_id}/retry`)).toBe("409 state_conflict");
    await pauseExports(target(), "resume");
  });
}
