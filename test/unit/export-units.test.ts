// What the store keeps of an export while runs of its job come and go: only the latest run has a say.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { ByteBudget } from "../../src/http/byte-budget.ts";
import { RequestScope } from "../../src/http/request-scope.ts";
import { JobFailure } from "../../src/jobs/job-kinds.ts";
import type { JobUnits } from "../../src/jobs/job-units.ts";
import { MiB } from "../../src/shared/bounds.ts";
import { AppError } from "../../src/shared/errors.ts";
import { readSettings } from "../../src/shared/settings.ts";
import type { UnitRunner } from "../../src/storage/unit-of-work.ts";
import { createExportBuild } from "../../src/task/export-build.ts";
import { EXPORT_ROUTES } from "../../src/task/export-routes.ts";
import type { ExportRun } from "../../src/task/export-units.ts";
import { TaskCache } from "../../src/task/task-cache.ts";
import { TaskListStore } from "../../src/task/task-list-store.ts";
import type { UserRequest } from "../../src/task/task-request.ts";
import { NO_DUE_MS } from "../../src/task/task-tables.ts";
import type { TaskUnits } from "../../src/task/task-units.ts";
import { TaskWriter } from "../../src/task/task-writer.ts";
import { alterStore } from "../support/alter-store.ts";
import { openTaskStore, type TaskStore } from "../support/task-store.ts";

let rig: TaskStore;
let units: UnitRunner<TaskUnits>;
beforeAll(async () => {
  rig = await openTaskStore();
  units = rig.store;
});
afterAll(() => rig[Symbol.asyncDispose]());

/** An export whose job is in its first run. */
async function startRun(userId: number): Promise<ExportRun> {
  const wanted = { format: "csv" as const, filter: "{}", keyed: null, requestId: "r", nowMs: Date.now() };
  const { value } = await units.run("task.createExport", { ...wanted, userId });
  const { id, job_id } = value.body;
  const run = { exportId: id, jobId: job_id, fence: 1 };
  await claim(run);
  return run;
}

function claim({ jobId, fence }: ExportRun): Promise<void> {
  return alterStore(rig.dbPath, `UPDATE job SET state = 'running', fence = ${fence} WHERE id = '${jobId}'`);
}

async function begin(run: ExportRun): Promise<void> {
  while ((await units.run("task.beginExport", { ...run, nowMs: Date.now() })).value > 0) {}
}

function write(run: ExportRun, seq: number, byte: number) {
  return units.run("task.writeExportPart", { ...run, seq, data: new Uint8Array(4).fill(byte) });
}

async function bytesOf({ exportId }: ExportRun): Promise<number[]> {
  const parts = (await rig.rows("task_export_part")).filter(({ export_id }) => export_id === exportId);
  return parts.toSorted((a, b) => a.seq - b.seq).map(({ data }) => data[0]!);
}

async function refusal(act: Promise<unknown>): Promise<string> {
  const error = await act.then(
    () => null,
    (thrown: unknown) => thrown,
  );
  return error instanceof AppError ? error.code : "done";
}

function end({ jobId, fence }: ExportRun, how: "failed" | "cancelled") {
  const jobs = rig.store as unknown as UnitRunner<JobUnits>;
  const run = { id: jobId, fence, end: how, error: "boom", isFatal: true };
  return jobs.run("jobs.finish", { runs: [run], nowMs: Date.now() });
}

function retry({ jobId }: ExportRun) {
  const jobs = rig.store as unknown as UnitRunner<JobUnits>;
  return jobs.run("jobs.retry", { id: jobId, ownerId: null, nowMs: Date.now() });
}

async function rowOf({ exportId }: ExportRun) {
  return (await rig.rows("task_export")).find(({ id }) => id === exportId);
}

/** Its handler, over a list that `count` stands for. */
function build(run: ExportRun, userId: number, count: () => Promise<number>): Promise<unknown> {
  return buildFrom({ count } as unknown as TaskListStore, run, userId);
}

function buildFrom(lists: TaskListStore, run: ExportRun, userId: number): Promise<unknown> {
  const cache = new TaskCache({ taskCache: "off", taskCacheBytes: 0, taskCacheTtlMs: 0 }, Date.now);
  const handler = createExportBuild({
    writer: new TaskWriter(units, cache),
    store: rig.store,
    lists,
    clock: Date.now,
    settings: readSettings({ JWT_SECRET: "x".repeat(32) }),
  });
  return handler({
    id: run.jobId,
    ownerId: userId,
    payload: { exportId: run.exportId },
    attempt: 1,
    fence: run.fence,
    signal: new AbortController().signal,
    progress: () => undefined,
  });
}

describe("an export that has failed or was cancelled", () => {
  test("stays to be seen without its parts, and gives up its place", async () => {
    for (const how of ["failed", "cancelled"] as const) {
      const userId = how === "failed" ? 11 : 12;
      const runs = [await startRun(userId), await startRun(userId), await startRun(userId)];
      for (const run of runs) await begin(run);
      for (let seq = 0; seq < 3; seq++) await write(runs[0]!, seq, 1);
      expect(await refusal(startRun(userId))).toBe("quota_exceeded");
      await end(runs[0]!, how);
      expect([await bytesOf(runs[0]!), (await rowOf(runs[0]!))?.state]).toEqual([[], "failed"]);
      await startRun(userId);
      expect(await refusal(startRun(userId))).toBe("quota_exceeded");
    }
  });

  test("keeps its place for as long as it has parts, which its run removes however many they are", async () => {
    const runs = [await startRun(13), await startRun(13), await startRun(13)];
    const [first] = runs;
    await begin(first!);
    const boom = new Error("boom");
    const failing = async () => {
      for (let seq = 0; seq < 40; seq++) await write(first!, seq, 1);
      await end(first!, "failed");
      expect((await bytesOf(first!)).length).toBe(24);
      expect(await refusal(startRun(13))).toBe("quota_exceeded");
      throw boom;
    };
    expect(await build(first!, 13, failing).catch((error: unknown) => error)).toBe(boom);
    expect([await bytesOf(first!), (await rowOf(first!))?.state]).toEqual([[], "failed"]);
    await startRun(13);
  });

  test("loses what is left of its parts to the cleanup, at once", async () => {
    const run = await startRun(14);
    await begin(run);
    for (let seq = 0; seq < 40; seq++) await write(run, seq, 1);
    await end(run, "failed");
    while ((await units.run("task.removeExports", { nowMs: Date.now(), beforeMs: 0 })).value > 0) {}
    expect([await bytesOf(run), (await rowOf(run))?.state]).toEqual([[], "failed"]);
  });

  test("needs a place again when its job is to run again, and is given up where there is none", async () => {
    const [first, second] = [await startRun(15), await startRun(15)];
    await end(first, "cancelled");
    await end(second, "cancelled");
    const others = [await startRun(15), await startRun(15), await startRun(15)];
    const again = { ...first, fence: 2 };
    await claim(again);
    expect(await refusal(begin(again))).toBe("quota_exceeded");
    const failure = await build(again, 15, async () => 0).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(JobFailure);
    expect((failure as JobFailure).isFatal).toBe(true);
    await units.run("task.deleteExport", { id: others[0]!.exportId, userId: 15 });
    await begin(again);
    expect((await rowOf(again))?.state).toBe("pending");
    expect(await refusal(startRun(15))).toBe("quota_exceeded");
    const late = { ...second, fence: 2 };
    await claim(late);
    expect(await refusal(begin(late))).toBe("quota_exceeded");
  });
});

describe("an export whose job is run again", () => {
  test("is pending from then on, for as long as a new one, and takes a place", async () => {
    const [first] = [await startRun(16), await startRun(16)];
    await begin(first);
    await end(first, "failed");
    const { expires_at_ms: endedMs } = (await rowOf(first))!;
    await retry(first);
    const again = await rowOf(first);
    expect(again?.state).toBe("pending");
    expect(again!.expires_at_ms).toBeGreaterThanOrEqual(endedMs + 86_400_000);
    await startRun(16);
    expect(await refusal(startRun(16))).toBe("quota_exceeded");
  });

  test("is refused where it finds no place, or nobody wants it any more", async () => {
    const runs = [await startRun(17), await startRun(17)];
    const [first, second] = [runs[0]!, runs[1]!];
    for (const run of runs) await end(run, "cancelled");
    for (let more = 0; more < 3; more++) await startRun(17);
    expect(await refusal(retry(first))).toBe("quota_exceeded");
    expect((await rowOf(first))?.state).toBe("failed");
    await units.run("task.deleteExport", { id: second.exportId, userId: 17 });
    expect(await refusal(retry(second))).toBe("state_conflict");
  });
});

describe("an export that is built twice", () => {
  test("has the parts of the second run alone, and takes nothing more of the first", async () => {
    const first = await startRun(1);
    await begin(first);
    for (let seq = 0; seq < 40; seq++) await write(first, seq, 1);
    const second = { ...first, fence: 2 };
    await claim(second);
    expect(await refusal(write(first, 40, 1))).toBe("conflict");
    expect(await refusal(begin(first))).toBe("conflict");
    await begin(second);
    expect(await bytesOf(second)).toEqual([]);
    await write(second, 0, 2);
    expect(await refusal(write(first, 1, 1))).toBe("conflict");
    await write(second, 1, 2);
    expect(await bytesOf(second)).toEqual([2, 2]);
  });

  test("takes nothing once its job has ended or nobody wants it", async () => {
    const ended = await startRun(2);
    await begin(ended);
    await alterStore(rig.dbPath, `UPDATE job SET state = 'cancelled' WHERE id = '${ended.jobId}'`);
    expect(await refusal(write(ended, 0, 1))).toBe("conflict");
    const deleted = await startRun(3);
    await begin(deleted);
    await write(deleted, 0, 1);
    expect(await refusal(units.run("task.deleteExport", { id: deleted.exportId, userId: 2 }))).toBe("not_found");
    await units.run("task.deleteExport", { id: deleted.exportId, userId: 3 });
    expect(await refusal(write(deleted, 1, 1))).toBe("not_found");
    expect(await bytesOf(deleted)).toEqual([1]);
    while ((await units.run("task.removeExports", { nowMs: 0, beforeMs: 0 })).value > 0) {}
    expect(await bytesOf(deleted)).toEqual([]);
    const left = (await rig.rows("task_export")).map(({ id }) => id);
    expect([left.includes(deleted.exportId), left.includes(ended.exportId)]).toEqual([false, true]);
  });
});

test("an export is built in parts of 256 KiB, which no character crosses", async () => {
  const run = await startRun(31);
  // Characters of three bytes, which do not fill a part.
  await alterStore(
    rig.dbPath,
    `WITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < 12)
     INSERT INTO task_item (user_id, title, description, search_text, status, priority, due_at_ms, created_at_ms,
       updated_at_ms, deleted_at_ms, version)
     SELECT 31, 'A task', replace(hex(zeroblob(10000)), '0', '长'), '', 'pending', 2, ${NO_DUE_MS}, n, n, 0, 1
       FROM counted`,
  );
  const report = (await buildFrom(new TaskListStore(rig.store), run, 31)) as { rows: number; bytes: number };
  const parts = (await rig.rows("task_export_part")).filter(({ export_id }) => export_id === run.exportId);
  const sizes = parts.toSorted((a, b) => a.seq - b.seq).map(({ data }) => data.length);
  expect([report.rows, sizes.reduce((sum, size) => sum + size, 0)]).toEqual([12, report.bytes]);
  expect(sizes).toHaveLength(3);
  for (const size of sizes.slice(0, -1)) expect(size).toBeWithin(262_144 - 2, 262_144 + 1);
  for (const { data } of parts) new TextDecoder("utf-8", { fatal: true }).decode(data as Uint8Array<ArrayBuffer>);
});

/** Its file as its owner is sent it, from the first part on. */
async function fileOf({ exportId }: ExportRun, userId: number) {
  const state = { isDraining: false, hasFailed: false, trustedProxies: null };
  const scope = new RequestScope(new Request(`http://h/api/v1/exports/${exportId}/file`), null, state);
  const services = { unread: new ByteBudget(MiB), store: rig.store, clock: Date.now };
  const request = { services, scope, who: { userId }, params: { id: exportId } } as unknown as UserRequest;
  const answer = await EXPORT_ROUTES["/exports/:id/file"]!.GET!.act(request);
  return { answer, reader: answer.body!.getReader() };
}

/** One that is ready, in two parts. */
async function ready(userId: number): Promise<ExportRun> {
  const run = await startRun(userId);
  await begin(run);
  for (const seq of [0, 1]) await write(run, seq, seq + 1);
  const report = { rows: 1, bytes: 8, sha256: "0".repeat(64), nowMs: Date.now() };
  const jobs = rig.store as unknown as UnitRunner<JobUnits>;
  await jobs.run("jobs.finish", {
    runs: [{ id: run.jobId, fence: run.fence, end: "done", report }],
    nowMs: Date.now(),
  });
  return run;
}

describe("the file of an export", () => {
  test("ends with its last part", async () => {
    const { answer, reader } = await fileOf(await ready(21), 21);
    expect(answer.status).toBe(200);
    for (const byte of [1, 2]) expect((await reader.read()).value).toEqual(new Uint8Array(4).fill(byte));
    expect((await reader.read()).done).toBe(true);
  });

  test("breaks off when the export is removed meanwhile, and is never taken for whole", async () => {
    const run = await ready(22);
    const { reader } = await fileOf(run, 22);
    expect((await reader.read()).value).toEqual(new Uint8Array(4).fill(1));
    await units.run("task.deleteExport", { id: run.exportId, userId: 22 });
    while ((await units.run("task.removeExports", { nowMs: 0, beforeMs: 0 })).value > 0) {}
    expect(await reader.read().catch(({ message }) => message)).toBe("the export was removed");
  });
});
