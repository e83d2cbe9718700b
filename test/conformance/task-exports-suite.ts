// Exports: the whole of a list as a file, built by a job, kept for a while.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { createHash } from "node:crypto";
import { eventually } from "../support/eventually.ts";
import { bySize } from "../support/run-size.ts";
import type { OpenTarget, Target } from "../support/targets.ts";
import { refusalBy, send, sendOk } from "../support/task-answers.ts";
import { type Account, ask, createTask, signUp, UNLIMITED } from "../support/task-client.ts";
import { built, type Export, fillTasks, type Job, makeExport, startExport } from "../support/task-exports.ts";
import { useTarget } from "../support/use-target.ts";

const PART_BYTES = 256 * 1024;

export function taskExportsSuite(name: string, open: OpenTarget): void {
  setDefaultTimeout(120_000);
  describe(`exports on ${name}`, () => {
    const target = useTarget(open, { ...UNLIMITED, JOBS_LEASE: "1s" });
    fileTests(target);
    sizeTests(target);
  });
  describe(`exports that wait on ${name}`, () => {
    waitingTests(useTarget(open, { ...UNLIMITED, JOBS_CONCURRENCY: "none" }));
  });
  describe(`the price of an export on ${name}`, () => {
    costTests(useTarget(open, { ...UNLIMITED, TASK_RATE_USER: "25/1m", JOBS_CONCURRENCY: "none" }));
  });
}

async function fileOf(target: Target, by: Account, { id }: Pick<Export, "id">): Promise<string> {
  const answer = await ask(target, "GET", `/exports/${id}/file`, { token: by.token });
  expect(answer.status).toBe(200);
  return answer.text();
}

function fileTests(target: () => Target): void {
  test("are the files that the list gives at once, in both formats, with hostile cells and long lines", async () => {
    const ann = await signUp(target());
    const titles = ["plain", 'a "quoted", cell', "two\nlines", "=1+1", "🎉 emoji", "很长的标题".repeat(40)];
    for (const title of titles) await createTask(target(), ann, { title, labels: ["a b", "ü"], description: title });
    for (const format of ["csv", "ics"] as const) {
      const made = await makeExport(target(), ann, { format });
      const answer = await ask(target(), "GET", `/exports/${made.id}/file`, { token: ann.token });
      const text = await answer.text();
      expect(text).toBe(await (await ask(target(), "GET", `/tasks/export.${format}`, { token: ann.token })).text());
      const sha256 = createHash("sha256").update(text).digest("hex");
      const byte_count = Buffer.byteLength(text);
      expect(made).toMatchObject({ format, filter: {}, row_count: titles.length, byte_count, sha256 });
      expect([answer.headers.get("etag"), answer.headers.get("cache-control")]).toEqual([
        `"${sha256}"`,
        "private, no-cache",
      ]);
      expect(answer.headers.get("content-disposition")).toBe(`attachment; filename="tasks.${format}"`);
      expect(answer.headers.get("content-type")).toBe(
        format === "csv" ? "text/csv; charset=utf-8" : "text/calendar; charset=utf-8",
      );
      const headers = { "If-None-Match": `"${sha256}"` };
      const again = await ask(target(), "GET", `/exports/${made.id}/file`, { token: ann.token, headers });
      expect([again.status, await again.text()]).toEqual([304, ""]);
      const head = await ask(target(), "HEAD", `/exports/${made.id}/file`, { token: ann.token });
      expect([head.status, head.headers.get("content-length")]).toEqual([200, `${byte_count}`]);
    }
  });

  test("hold what their filter lets through, and are refused with one that a list would refuse", async () => {
    const ann = await signUp(target());
    for (const [index, priority] of ["high", "low", "high", "medium"].entries()) {
      await createTask(target(), ann, { title: `task ${index}`, priority });
    }
    const filter = { priority: "high,medium", sort: "created_at", q: "TASK" };
    const made = await makeExport(target(), ann, { format: "csv", filter });
    expect(made.filter).toEqual(filter);
    const lines = (await fileOf(target(), ann, made)).trimEnd().split("\r\n").slice(1);
    expect(lines.map((line) => line.split(",")[1])).toEqual(["task 0", "task 2", "task 3"]);
    const refusals: readonly [unknown, string][] = [
      [{}, "format"],
      [{ format: "pdf" }, "format"],
      [{ format: "csv", colour: 1 }, "colour"],
      [{ format: "csv", filter: { staus: "pending" } }, "filter.staus"],
      [{ format: "csv", filter: { limit: "5" } }, "filter.limit"],
      [{ format: "csv", filter: { priority: 1 } }, "filter.priority"],
      [{ format: "csv", filter: "overdue" }, "filter"],
    ];
    for (const [body, field] of refusals) {
      expect(await refusalBy(target(), ann, "POST", "/exports", body)).toBe(`400 invalid_request ${field}`);
    }
    for (const filter of [{ status: "done" }, { sort: "title" }, { due_after: "2026-02-01" }]) {
      const refusal = await refusalBy(target(), ann, "POST", "/exports", { format: "csv", filter });
      expect(refusal).toBe(`400 invalid_request filter.${Object.keys(filter)[0]}`);
    }
    expect(await refusalBy(target(), ann, "POST", "/exports?a=1", { format: "csv" })).toBe("400 invalid_request a");
  });

  test("are made in parts, and whole even when the server is killed while it builds them", async () => {
    const ann = await signUp(target());
    await fillTasks(target(), ann, 1500, 1500);
    const { id, job_id } = await startExport(target(), ann, { format: "csv", filter: { sort: "created_at" } });
    await target().restart();
    const made = await built(target(), ann, id);
    expect(made.byte_count!).toBeGreaterThan(8 * PART_BYTES);
    const text = await fileOf(target(), ann, made);
    expect(createHash("sha256").update(text).digest("hex")).toBe(made.sha256!);
    const lines = text.trimEnd().split("\r\n").slice(1);
    expect(lines.map((line) => line.split(",")[1])).toEqual(
      Array.from({ length: 1500 }, (_, index) => `task ${index + 1}`),
    );
    expect(await sendOk<Job>(target(), ann, "GET", `/jobs/${job_id}`)).toMatchObject({ state: "done", progress: 100 });
  });

  test("are their owner's alone, and gone when they are deleted", async () => {
    const [ann, bob] = [await signUp(target()), await signUp(target())];
    const first = await makeExport(target(), ann);
    const second = await makeExport(target(), ann, { format: "ics" });
    const list = await sendOk<Export[]>(target(), ann, "GET", "/exports");
    expect(list.map(({ id }) => id)).toEqual([second.id, first.id]);
    expect(await sendOk<Export[]>(target(), bob, "GET", "/exports")).toEqual([]);
    for (const [method, path] of [
      ["GET", `/exports/${first.id}`],
      ["GET", `/exports/${first.id}/file`],
      ["DELETE", `/exports/${first.id}`],
      ["GET", "/exports/nonsense"],
    ] as const) {
      expect(await refusalBy(target(), bob, method, path)).toBe("404 not_found");
    }
    expect(await sendOk<object>(target(), ann, "DELETE", `/exports/${first.id}`)).toEqual({
      message: "Export deleted",
    });
    expect(await refusalBy(target(), ann, "GET", `/exports/${first.id}`)).toBe("404 not_found");
    expect(await refusalBy(target(), ann, "DELETE", `/exports/${first.id}`)).toBe("404 not_found");
    expect((await sendOk<Export[]>(target(), ann, "GET", "/exports")).length).toBe(1);
  });

  test("are listed whole: the list takes no parameters, and is documented so", async () => {
    const ann = await signUp(target());
    expect(await refusalBy(target(), ann, "GET", "/exports?limit=5")).toBe("400 invalid_request limit");
    const { paths } = (await (await target().fetch("/openapi.json")).json()) as {
      paths: Record<string, { get?: { parameters?: readonly unknown[] } }>;
    };
    expect(paths["/api/v1/exports"]?.get?.parameters ?? []).toEqual([]);
  });

  test("are made once however often they are asked for with one key, also after a restart", async () => {
    const ann = await signUp(target());
    const headers = { "Idempotency-Key": "nightly" };
    const first = await send<Export>(target(), ann, "POST", "/exports", { format: "csv" }, headers);
    await target().restart();
    const again = await send<Export>(target(), ann, "POST", "/exports", { format: "csv" }, headers);
    expect([again.status, again.body]).toEqual([202, first.body]);
    const replayed = [first, again].map((answer) => answer.headers.get("idempotent-replayed"));
    expect(replayed).toEqual([null, "true"]);
    expect(again.headers.get("location")).toBe(first.headers.get("location"));
    const other = await refusalBy(target(), ann, "POST", "/exports", { format: "ics" }, headers);
    expect(other).toBe("422 idempotency_mismatch");
    expect((await sendOk<Export[]>(target(), ann, "GET", "/exports")).length).toBe(1);
  });
}

const tooLarge = bySize<string | null>(null, "are given up at once when they would have more than 64 MiB");

function sizeTests(target: () => Target): void {
  if (tooLarge === null) return;
  test(tooLarge, async () => {
    const ann = await signUp(target());
    await fillTasks(target(), ann, 3600, 20_000);
    const { id, job_id } = await startExport(target(), ann);
    const job = () => sendOk<Job>(target(), ann, "GET", `/jobs/${job_id}`);
    await eventually("its job is dead", 25_000, async () => (await job()).state === "dead");
    expect(await job()).toMatchObject({ attempts: 1, last_error: expect.stringContaining("64 MiB") });
    expect((await sendOk<Export>(target(), ann, "GET", `/exports/${id}`)).state).toBe("failed");
  });
}

function waitingTests(target: () => Target): void {
  test("are not ready, three of a user at most, and give up their place failed or deleted", async () => {
    const ann = await signUp(target());
    const [first, second] = [await startExport(target(), ann), await startExport(target(), ann)];
    await startExport(target(), ann);
    expect(await refusalBy(target(), ann, "GET", `/exports/${first.id}/file`)).toBe("409 not_ready");
    expect(await refusalBy(target(), ann, "POST", "/exports", { format: "csv" })).toBe("403 quota_exceeded");
    const cancelled = await sendOk<Job>(target(), ann, "POST", `/jobs/${first.job_id}/cancel`);
    expect(cancelled).toMatchObject({ state: "cancelled", last_error: "cancelled" });
    expect(await sendOk<Export>(target(), ann, "GET", `/exports/${first.id}`)).toMatchObject({ state: "failed" });
    expect(await refusalBy(target(), ann, "GET", `/exports/${first.id}/file`)).toBe("409 not_ready");
    const { body } = await send<{ error: string }>(target(), ann, "GET", `/exports/${first.id}/file`);
    expect(body.error).toContain("was cancelled: it will not be ready unless its job is retried");
    await startExport(target(), ann);
    expect(await refusalBy(target(), ann, "POST", "/exports", { format: "csv" })).toBe("403 quota_exceeded");
    await sendOk(target(), ann, "DELETE", `/exports/${second.id}`);
    expect((await sendOk<Job>(target(), ann, "GET", `/jobs/${second.job_id}`)).state).toBe("cancelled");
    await startExport(target(), ann);
    expect((await send(target(), await signUp(target()), "POST", "/exports", { format: "csv" })).status).toBe(202);
  });
}

function costTests(target: () => Target): void {
  test("is ten requests", async () => {
    const ann = await signUp(target());
    await startExport(target(), ann);
    const second = await send(target(), ann, "POST", "/exports", { format: "csv" });
    expect(second.headers.get("ratelimit")).toMatch(/^"user";r=5;/);
    expect(await refusalBy(target(), ann, "POST", "/exports", { format: "csv" })).toBe("429 rate_limited");
    expect((await ask(target(), "GET", "/exports", { token: ann.token })).status).toBe(200);
  });
}
