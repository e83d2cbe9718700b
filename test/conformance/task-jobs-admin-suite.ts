// Administration of the job queue: what operators see of jobs, queues and schedules, and what they do with them.

import { describe, expect, test } from "bun:test";
import { alterStore } from "../support/alter-store.ts";
import { eventually } from "../support/eventually.ts";
import { mint, type OpenTarget, type Target } from "../support/targets.ts";
import { signUp, UNLIMITED } from "../support/task-client.ts";
import { useTarget } from "../support/use-target.ts";

const SOON_MS = 5_000;
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;
const QUICK = { ...UNLIMITED, JOBS_LEASE: "1s", JOBS_POLL: "50ms" };

interface Job {
  readonly id: string;
  readonly kind: string;
  readonly state: string;
  readonly attempts: number;
  readonly last_error: string | null;
}

export function taskJobsAdminSuite(name: string, open: OpenTarget): void {
  describe(`jobs as operators see them on ${name}`, () => jobTests(useTarget(open, QUICK)));
  describe(`lists of jobs on ${name}`, () => listTests(useTarget(open, QUICK)));
  describe(`queues as operators see them on ${name}`, () => queueTests(useTarget(open, QUICK)));
  describe(`schedules as operators see them on ${name}`, () => scheduleTests(useTarget(open, QUICK)));
  describe(`jobs of a server that was killed on ${name}`, () => killedTests(useTarget(open, QUICK)));
  describe(`who may administer jobs on ${name}`, () => rightsTests(useTarget(open, QUICK)));
}

async function manage<T = Job>(target: Target, status: number, method: string, path: string): Promise<T> {
  const response = await target.fetch(`/_admin${path}`, { method });
  const text = await response.text();
  expect([method, path, response.status, text]).toEqual([method, path, status, text]);
  expect(response.headers.get("cache-control")).toBe("no-store");
  return JSON.parse(text);
}

async function expectRefusal(target: Target, method: string, path: string, statusCode: number, code: string) {
  const body = await manage<Record<string, unknown>>(target, statusCode, method, path);
  expect(body).toEqual({ statusCode, message: expect.any(String), code });
}

const setPaused = (target: Target, queue: string, verb: "pause" | "resume") =>
  manage(target, 200, "POST", `/queues/${queue}/${verb}`);

/** A job of a kind that nobody handles, as it would have become; its id. */
async function plant(target: Target, fields: Record<string, string | number | null> = {}): Promise<string> {
  const id = Bun.randomUUIDv7();
  const row = {
    id,
    queue: "export",
    kind: "test.none",
    payload: "{}",
    priority: 0,
    state: "dead",
    run_at_ms: 0,
    attempts: 3,
    max_attempts: 3,
    fence: 3,
    cancel_requested: 0,
    progress: 0,
    created_at_ms: Date.now(),
    finished_at_ms: Date.now(),
    last_error: "boom",
    ...fields,
  };
  const values = Object.values(row).map((value) => (typeof value === "string" ? `'${value}'` : `${value}`));
  await alterStore(target.dbPath, `INSERT INTO job (${Object.keys(row).join(", ")}) VALUES (${values.join(", ")})`);
  return id;
}

async function jobWhen(target: Target, id: string, isSo: (job: Job) => boolean): Promise<Job> {
  let job!: Job;
  await eventually("the job has come so far", SOON_MS, async () => {
    job = await manage(target, 200, "GET", `/jobs/${id}`);
    return isSo(job);
  });
  return job;
}

function jobTests(target: () => Target): void {
  test("a job is shown with everything but its payload", async () => {
    const id = await plant(target(), { owner_id: 7, group_key: "g", payload: '{"hidden":1}' });
    const time = expect.stringMatching(TIME);
    expect(await manage<unknown>(target(), 200, "GET", `/jobs/${id}`)).toEqual({
      id,
      kind: "test.none",
      queue: "export",
      state: "dead",
      attempts: 3,
      max_attempts: 3,
      progress: 0,
      run_at: "1970-01-01T00:00:00.000Z",
      created_at: time,
      started_at: null,
      finished_at: time,
      last_error: "boom",
      owner_id: 7,
      group_key: "g",
      priority: 0,
      locked_by: null,
      locked_until: null,
      cancel_requested: false,
      request_id: null,
    });
  });

  test("a job that is not there is 404, whatever its id looks like", async () => {
    for (const id of [Bun.randomUUIDv7(), "abc", "0", "%00"]) {
      await expectRefusal(target(), "GET", `/jobs/${id}`, 404, "not_found");
      await expectRefusal(target(), "POST", `/jobs/${id}/retry`, 404, "not_found");
      await expectRefusal(target(), "POST", `/jobs/${id}/cancel`, 404, "not_found");
    }
  });

  test("a dead job is run again from its first attempt, and cancelled while it waits", async () => {
    await setPaused(target(), "export", "pause");
    const id = await plant(target());
    await expectRefusal(target(), "POST", `/jobs/${id}/cancel`, 409, "state_conflict");
    expect(await manage(target(), 200, "POST", `/jobs/${id}/retry`)).toMatchObject({ state: "ready", attempts: 0 });
    await expectRefusal(target(), "POST", `/jobs/${id}/retry`, 409, "state_conflict");
    expect(await manage(target(), 200, "POST", `/jobs/${id}/cancel`)).toMatchObject({ state: "cancelled" });
    expect(await manage(target(), 200, "POST", `/jobs/${id}/retry`)).toMatchObject({ state: "ready" });
    await setPaused(target(), "export", "resume");
    const failed = await jobWhen(target(), id, ({ last_error }) => last_error !== "boom");
    expect(failed).toMatchObject({ state: "ready", attempts: 1, last_error: "no handler for this kind of job" });
  });

  test("a kind that there is not, and of which there is no job, is refused as a queue and a state are", async () => {
    for (const wrong of ["kind=webhook.delivery", "queue=exports", "state=died"]) {
      await expectRefusal(target(), "GET", `/jobs?${wrong}`, 400, "invalid_parameter");
    }
    await expectRefusal(target(), "POST", "/jobs/retry?kind=webhook.delivery", 400, "invalid_parameter");
    expect(await manage<unknown>(target(), 200, "POST", "/jobs/retry?kind=webhook.deliver")).toEqual({ retried: 0 });
    const { message } = await manage<{ message: string }>(target(), 400, "GET", "/jobs?kind=x");
    expect(message).toContain("webhook.deliver, ");
    expect(message).toContain("job.purge");
  });

  test("all dead jobs of a kind are run again at once", async () => {
    await setPaused(target(), "export", "pause");
    const ids = [await plant(target(), { kind: "test.many" }), await plant(target(), { kind: "test.many" })];
    const other = await plant(target());
    expect(await manage<unknown>(target(), 200, "POST", "/jobs/retry?kind=test.many")).toEqual({ retried: 2 });
    expect(await manage<unknown>(target(), 200, "POST", "/jobs/retry?kind=test.many")).toEqual({ retried: 0 });
    for (const id of ids) expect(await manage(target(), 200, "GET", `/jobs/${id}`)).toMatchObject({ state: "ready" });
    expect(await manage(target(), 200, "GET", `/jobs/${other}`)).toMatchObject({ state: "dead" });
    await expectRefusal(target(), "POST", "/jobs/retry", 400, "invalid_parameter");
    for (const [method, path] of [
      ["GET", "/queues"] as const,
      ["GET", "/schedules"] as const,
      ["POST", "/queues/system/resume"] as const,
      ["GET", `/jobs/${Bun.randomUUIDv7()}`] as const,
    ]) {
      await expectRefusal(target(), method, `${path}?x=1`, 400, "query_invalid");
    }
  });
}

function listTests(target: () => Target): void {
  const planted: string[] = [];
  const list = async (query: string) => manage<Job[]>(target(), 200, "GET", `/jobs?${query}`);
  const idsOf = async (query: string) => (await list(query)).map(({ id }) => id);

  test("jobs are listed newest first, by state, kind and queue", async () => {
    expect(await list("kind=cache.warm&state=dead")).toEqual([]);
    planted.push(await plant(target(), { created_at_ms: 1 }), await plant(target(), { state: "done" }));
    planted.push(await plant(target(), { kind: "test.other" }), await plant(target(), { queue: "webhook" }));
    const [first, done, other, webhook] = planted as [string, string, string, string];
    expect(await idsOf("kind=test.none")).toEqual([webhook, done, first]);
    expect(await idsOf("state=dead")).toEqual([webhook, other, first]);
    expect(await idsOf("state=done&kind=test.none")).toEqual([done]);
    expect(await idsOf("queue=export&state=dead")).toEqual([other, first]);
  });

  test("pages lead to each other until the end", async () => {
    const seen: string[] = [];
    let path: string | null = "/_admin/jobs?state=dead&limit=2";
    for (let pages = 1; path !== null; pages++) {
      const response: Response = await target().fetch(path);
      const jobs = (await response.json()) as Job[];
      seen.push(...jobs.map(({ id }) => id));
      const link: string | null = response.headers.get("link");
      expect([pages, response.headers.get("x-next-cursor")]).toEqual([pages, link === null ? null : jobs.at(-1)!.id]);
      path = link === null ? null : /^<(.*)>; rel="next"$/.exec(link)![1]!;
    }
    expect(seen).toEqual([planted[3]!, planted[2]!, planted[0]!]);
  });

  test("a filter, a limit or a cursor that makes no sense is 400", async () => {
    for (const query of ["state=sleeping", "queue=fast", "limit=0", "limit=1001", "limit=x"]) {
      await expectRefusal(target(), "GET", `/jobs?${query}`, 400, "invalid_parameter");
    }
    await expectRefusal(target(), "GET", "/jobs?cursor=x", 400, "cursor_invalid");
    for (const query of ["sort=id", "state=dead&state=done"]) {
      await expectRefusal(target(), "GET", `/jobs?${query}`, 400, "query_invalid");
    }
  });
}

function queueTests(target: () => Target): void {
  const queue = async (name: string) => {
    const queues = await manage<{ name: string }[]>(target(), 200, "GET", "/queues");
    expect(queues.map((one) => one.name)).toEqual(["default", "webhook", "export", "system"]);
    return queues.find((one) => one.name === name);
  };

  test("a paused queue keeps its jobs until it is resumed, also across a restart", async () => {
    const idle = { name: "system", depth: 0, oldest: null, running: 0, paused: false };
    await eventually("nothing is left to do from the start", SOON_MS, async () => {
      return JSON.stringify(await queue("system")) === JSON.stringify(idle);
    });
    expect(await setPaused(target(), "system", "pause")).toEqual({ name: "system", paused: true } as never);
    const { job_id } = await manage<{ job_id: string }>(target(), 202, "POST", "/schedules/job.purge/run");
    await target().restart();
    const waiting = { name: "system", depth: 1, oldest: expect.stringMatching(TIME), running: 0, paused: true };
    // Looked at often enough: it would have been claimed by now.
    for (let looks = 0; looks < 5; looks++) expect(await queue("system")).toEqual(waiting as never);
    expect(await manage(target(), 200, "GET", `/jobs/${job_id}`)).toMatchObject({ state: "ready", attempts: 0 });
    expect(await setPaused(target(), "system", "resume")).toEqual({ name: "system", paused: false } as never);
    await jobWhen(target(), job_id, ({ state }) => state === "done");
    expect(await queue("system")).toEqual(idle);
  });

  test("a queue that is not there is 404", async () => {
    await expectRefusal(target(), "POST", "/queues/fast/pause", 404, "not_found");
    await expectRefusal(target(), "POST", "/queues/fast/resume", 404, "not_found");
  });

  test("figures of queues and of ended jobs are among the metrics", async () => {
    const { job_id } = await manage<{ job_id: string }>(target(), 202, "POST", "/schedules/job.purge/run");
    await jobWhen(target(), job_id, ({ state }) => state === "done");
    const text = await (await target().fetch("/metrics")).text();
    expect(text).toMatch(/^gokv_jobs\{queue="system",state="ready"\} 0$/m);
    expect(text).toMatch(/^gokv_jobs_finished_total\{kind="job.purge",outcome="done"\} [1-9]/m);
    expect(text).toMatch(/^gokv_jobs_discarded_total 0$/m);
  });
}

function scheduleTests(target: () => Target): void {
  interface Schedule {
    readonly name: string;
    readonly expression: string;
    readonly last_fire: string | null;
    readonly next_fire: string;
  }
  const schedules = () => manage<Schedule[]>(target(), 200, "GET", "/schedules");

  test("schedules are listed with their times in UTC", async () => {
    const all = await schedules();
    expect(all.map(({ name, expression }) => [name, expression])).toContainEqual(["job.purge", "37 * * * *"]);
    const purge = all.find(({ name }) => name === "job.purge")!;
    expect(purge.next_fire).toMatch(/:37:00\.000Z$/);
    expect(Date.parse(purge.next_fire)).toBeWithin(Date.now(), Date.now() + 3_600_001);
  });

  test("a schedule runs out of turn when an operator says so, which changes nothing of its times", async () => {
    const before = await schedules();
    const { job_id } = await manage<{ job_id: string }>(target(), 202, "POST", "/schedules/job.purge/run");
    const job = await jobWhen(target(), job_id, ({ state }) => state === "done");
    expect(job).toMatchObject({ kind: "job.purge", attempts: 1 });
    expect((await schedules()).map(({ last_fire }) => last_fire)).toEqual(before.map(({ last_fire }) => last_fire));
    await expectRefusal(target(), "POST", "/schedules/nightly/run", 404, "not_found");
  });

  test("of all times that were missed while the server was down one is made up", async () => {
    const old = Date.now() - 30 * 86_400_000;
    const runs = async () => manage<Job[]>(target(), 200, "GET", "/jobs?kind=job.purge&limit=1000");
    const before = (await runs()).length;
    await alterStore(target().dbPath, `UPDATE job_schedule SET last_fire_ms = ${old} WHERE name = 'job.purge'`);
    await target().restart();
    await eventually("it is made up", SOON_MS, async () => (await runs()).length > before);
    const fired = (await schedules()).find(({ name }) => name === "job.purge")!.last_fire!;
    expect(fired).toMatch(/:37:00\.000Z$/);
    expect(Date.parse(fired)).toBeWithin(Date.now() - 3_600_001, Date.now());
    await target().restart();
    await schedules();
    expect(await runs()).toHaveLength(before + 1);
  });

  test("the purge removes jobs that ended long ago, and no others", async () => {
    const dayMs = 86_400_000;
    const old = await plant(target(), { state: "done", finished_at_ms: Date.now() - dayMs - 60_000 });
    const cancelled = await plant(target(), { state: "cancelled", finished_at_ms: Date.now() - 2 * dayMs });
    const dead = await plant(target(), { finished_at_ms: Date.now() - 31 * dayMs });
    const kept = [
      await plant(target(), { state: "done", finished_at_ms: Date.now() - dayMs + 60_000 }),
      await plant(target(), { finished_at_ms: Date.now() - 29 * dayMs }),
    ];
    const { job_id } = await manage<{ job_id: string }>(target(), 202, "POST", "/schedules/job.purge/run");
    await jobWhen(target(), job_id, ({ state }) => state === "done");
    for (const id of [old, cancelled, dead]) await expectRefusal(target(), "GET", `/jobs/${id}`, 404, "not_found");
    for (const id of kept) await manage(target(), 200, "GET", `/jobs/${id}`);
  });
}

function killedTests(target: () => Target): void {
  test("a job whose lease has ended runs again, and the expiry is counted", async () => {
    const id = await plant(target(), {
      queue: "system",
      kind: "job.purge",
      state: "running",
      attempts: 1,
      finished_at_ms: null,
      fence: 1,
      locked_by: "gone",
      locked_until_ms: Date.now() - 1,
      last_error: null,
      max_attempts: 5,
    });
    const failed = await jobWhen(target(), id, ({ state }) => state === "ready");
    expect(failed).toMatchObject({ attempts: 1, last_error: "lease expired" });
    expect(await (await target().fetch("/metrics")).text()).toMatch(/^gokv_jobs_lease_expired_total 1$/m);
  });
}

function rightsTests(target: () => Target): void {
  const PATHS = [
    ["/_admin/jobs", "GET, HEAD, OPTIONS"],
    ["/_admin/jobs/retry", "POST, OPTIONS"],
    [`/_admin/jobs/${Bun.randomUUIDv7()}`, "GET, HEAD, OPTIONS"],
    [`/_admin/jobs/${Bun.randomUUIDv7()}/cancel`, "POST, OPTIONS"],
    ["/_admin/queues", "GET, HEAD, OPTIONS"],
    ["/_admin/queues/system/pause", "POST, OPTIONS"],
    ["/_admin/schedules", "GET, HEAD, OPTIONS"],
    ["/_admin/schedules/job.purge/run", "POST, OPTIONS"],
  ] as const;
  const statusOf = async (path: string, allow: string, authorization: string | null) => {
    const method = allow.startsWith("GET") ? "GET" : "POST";
    const response = await target().fetch(path, { method, headers: { Authorization: authorization } });
    await response.body?.cancel();
    return response.status;
  };

  test("users, and tokens without the administrative right, are refused", async () => {
    const { token } = await signUp(target());
    const narrowed = await Promise.all([
      mint({ scope: "kv" }),
      mint({ scope: "relay:write" }),
      mint({ buckets: ["a"] }),
      mint({ prefix: "a" }),
    ]);
    for (const [path, allow] of PATHS) {
      for (const authorization of [null, `Bearer ${token}`]) {
        expect([path, await statusOf(path, allow, authorization)]).toEqual([path, 401]);
      }
      for (const one of narrowed) expect([path, await statusOf(path, allow, `Bearer ${one}`)]).toEqual([path, 403]);
    }
    const admins = [{}, { buckets: ["a"] }, { prefix: "a" }].map((more) => mint({ scope: "admin", ...more }));
    for (const admin of await Promise.all(admins)) {
      expect(await statusOf("/_admin/queues", "GET", `Bearer ${admin}`)).toBe(200);
    }
  });

  test("other methods are refused with those that a path takes", async () => {
    for (const [path, allow] of PATHS) {
      const response = await target().fetch(path, { method: "PUT" });
      await response.body?.cancel();
      expect([path, response.status, response.headers.get("allow")]).toEqual([path, 405, allow]);
    }
    expect((await target().fetch("/_admin/jobs/a/b/c")).status).toBe(404);
  });
}
