// Lists of tasks as files: what spreadsheets and calendars read in them, and how long a list may be for that.

import { describe, expect, test } from "bun:test";
import { alterStore } from "../support/alter-store.ts";
import { readCalendar } from "../support/calendar-reader.ts";
import { readCsv } from "../support/csv-reader.ts";
import { sendRaw } from "../support/raw-request.ts";
import type { OpenTarget, Target } from "../support/targets.ts";
import { type Account, ask, createTask, signUp, type Task, UNLIMITED } from "../support/task-client.ts";
import { useTarget } from "../support/use-target.ts";

const FILE_ROWS_MAX = 10_000;
const FIELDS = [
  "id",
  "title",
  "description",
  "status",
  "priority",
  "user_id",
  "assignee_id",
  "labels",
  "due_date",
  "remind_at",
  "completed_at",
  "created_at",
  "updated_at",
  "version",
];
const HOSTILE_TITLES = [
  "a, b",
  'say "hi"',
  "=1+1",
  "+1",
  "-1",
  "@sum",
  "＝1+1",
  "＋1",
  "－1",
  "＠sum",
  "'quoted",
  "😀 家族 👨‍👩‍👧",
  "semi;colon",
  "back\\slash\\n",
  "__proto__",
];

export function taskFilesSuite(name: string, open: OpenTarget): void {
  describe(`files of tasks on ${name}`, () => fileTests(useTarget(open, UNLIMITED)));
}

async function download(target: Target, { token }: Account, path: string): Promise<Uint8Array> {
  const answer = await ask(target, "GET", `/tasks/export.${path}`, { token });
  expect([path, answer.status]).toEqual([path, 200]);
  return answer.bytes();
}

function fileTests(target: () => Target): void {
  test("of comma-separated values read back as the tasks, formulas behind an apostrophe", async () => {
    const me = await signUp(target());
    const descriptions = [
      "line one\nline two\r\nthree",
      "\ttab first",
      "\rreturn first",
      "\n=1+1",
      "",
      'all , " \n of it',
    ];
    const tasks: Task[] = [];
    for (const [index, title] of HOSTILE_TITLES.entries()) {
      const description = descriptions[index % descriptions.length];
      const fields = { title, description, labels: ["Docs", "=x"], due_date: "2026-02-01T00:00:00Z" };
      tasks.push(await createTask(target(), me, index % 2 === 0 ? fields : { title, description }));
    }
    const bytes = await download(target(), me, "csv?sort=created_at");
    const [head, ...records] = readCsv(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes));
    expect(head).toEqual(FIELDS);
    expect(records.length).toBe(tasks.length);
    for (const [index, task] of tasks.entries()) {
      const cells = FIELDS.map((field) => {
        const value = task[field as keyof Task];
        return Array.isArray(value) ? value.join(",") : `${value ?? ""}`;
      });
      expect(records[index]).toEqual(cells.map((cell) => (/^[=+\-@＝＋－＠\t\r\n]/.test(cell) ? `'${cell}` : cell)));
    }
    const marked = await download(target(), me, "csv?sort=created_at&bom=1");
    expect([...marked.subarray(0, 3)]).toEqual([0xef, 0xbb, 0xbf]);
    expect(marked.subarray(3)).toEqual(bytes);
  });

  test("of a calendar pass a strict reader, long lines folded without cutting a character", async () => {
    const me = await signUp(target());
    const long = "编写项目的技术文档，".repeat(60);
    const tasks = [
      await createTask(target(), me, { title: long.slice(0, 200), description: `${long}\n${"😀".repeat(90)}` }),
      await createTask(target(), me, { title: "a;b,c\\d\\ne", description: "x\r\ny\rz", labels: ["one", "two;2"] }),
      await createTask(target(), me, { priority: "high", due_date: "2026-02-01T08:00:00+08:00", status: "completed" }),
      await createTask(target(), me, { priority: "low", status: "in_progress", title: "\u0001bell\u0007" }),
    ];
    const bytes = await download(target(), me, "ics?sort=created_at");
    const todos = readCalendar(bytes);
    const store = String(todos[0]!.UID).replace(/^task-\d+@/, "");
    expect(store).toMatch(/^[0-9a-f-]{36}$/);
    expect(todos.map(({ UID }) => UID)).toEqual(tasks.map(({ id }) => `task-${id}@${store}`));
    expect(todos.map(({ STATUS, PRIORITY }) => `${STATUS} ${PRIORITY}`)).toEqual([
      "NEEDS-ACTION 5",
      "NEEDS-ACTION 5",
      "COMPLETED 1",
      "IN-PROCESS 9",
    ]);
    expect(todos.map(({ SUMMARY }) => SUMMARY)).toEqual([long.slice(0, 200), "a;b,c\\d\\ne", "A task", "bell"]);
    expect(todos.map(({ DESCRIPTION }) => DESCRIPTION)).toEqual([
      `${long}\n${"😀".repeat(90)}`,
      "x\ny\nz",
      undefined as never,
      undefined as never,
    ]);
    expect(todos.map(({ DUE }) => DUE)).toEqual([undefined, undefined, "20260201T000000Z", undefined] as never);
    expect(todos[1]!.CATEGORIES).toEqual(["one", "two;2"]);
    expect(todos.map(({ SEQUENCE }) => SEQUENCE)).toEqual(["1", "1", "1", "1"]);
    expect(todos[2]!.COMPLETED).toMatch(/^\d{8}T\d{6}Z$/);
  });

  test("of a calendar know a task again, by whatever name the server is reached, and after a restart", async () => {
    const me = await signUp(target());
    await createTask(target(), me);
    const uids = async (host: string) => {
      const answer = await ask(target(), "GET", "/tasks/export.ics", { token: me.token, headers: { Host: host } });
      return readCalendar(await answer.bytes()).map(({ UID }) => UID);
    };
    const before = await uids("tasks.example.org");
    expect(await uids("localhost:8080")).toEqual(before);
    await target().restart();
    expect(await uids("localhost:8080")).toEqual(before);
  });

  test("of an unknown length, and streams: HEAD says no length for them, and sends no byte", async () => {
    const me = await signUp(target());
    for (const path of ["/tasks/export.csv", "/tasks/export.ics", "/tasks/stream"]) {
      const authorization = `Authorization: Bearer ${me.token}\r\nConnection: close\r\n`;
      const request = `HEAD /api/v1${path} HTTP/1.1\r\nHost: h\r\n${authorization}\r\n`;
      const { text, statuses } = await sendRaw(target().url, request);
      expect([path, statuses, text.endsWith("\r\n\r\n")]).toEqual([path, [200], true]);
      expect([path, /content-length/i.test(text), /transfer-encoding: chunked/i.test(text)]).toEqual([
        path,
        false,
        true,
      ]);
    }
  });

  test("hold what the filters of lists leave, and refuse parameters that mean nothing to them", async () => {
    const me = await signUp(target());
    for (const status of ["pending", "completed", "pending"]) await createTask(target(), me, { title: status, status });
    const text = new TextDecoder().decode(await download(target(), me, "csv?status=completed"));
    expect(readCsv(text).map(([, title]) => title)).toEqual(["title", "completed"]);
    expect(readCalendar(await download(target(), me, "ics?q=pend")).length).toBe(2);
    expect(readCalendar(await download(target(), me, "ics?q=nothing"))).toEqual([]);
    expect(readCsv(new TextDecoder().decode(await download(target(), me, "csv?q=nothing")))).toEqual([FIELDS]);
    for (const query of ["csv?limit=1", "csv?cursor=x", "csv?bom=2", "ics?bom=1", "csv?status=done", "ics?sort=x"]) {
      const answer = await ask(target(), "GET", `/tasks/export.${query}`, { token: me.token });
      expect([query, answer.status]).toEqual([query, 400]);
    }
  });

  test("of more than ten thousand tasks are refused with the way to larger ones", async () => {
    const me = await signUp(target());
    await insertTasks(target(), me.id, FILE_ROWS_MAX);
    const csv = new TextDecoder().decode(await download(target(), me, "csv"));
    expect(readCsv(csv).length).toBe(FILE_ROWS_MAX + 1);
    await createTask(target(), me);
    for (const format of ["csv", "ics"]) {
      const answer = await ask(target(), "GET", `/tasks/export.${format}`, { token: me.token });
      const { error, code } = (await answer.json()) as { error: string; code: string };
      expect([answer.status, code]).toEqual([413, "export_too_large"]);
      expect(error).toContain("/exports");
    }
    expect(readCalendar(await download(target(), me, "ics?priority=high"))).toEqual([]);
  }, 30_000);
}

/** Behind the server's back: creating them one by one would take its time. */
async function insertTasks(target: Target, userId: number, count: number): Promise<void> {
  await alterStore(
    target.dbPath,
    `WITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < ${count})
     INSERT INTO task_item (user_id, title, description, search_text, status, priority, due_at_ms, created_at_ms,
       updated_at_ms, deleted_at_ms, version)
     SELECT ${userId}, 'Task ' || n, '', 'task ' || n || char(10), 'pending', 2, 9000000000000000, n, n, 0, 1
     FROM counted`,
  );
}
