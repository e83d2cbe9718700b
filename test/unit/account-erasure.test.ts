// What becomes of the tasks of a deleted account where the store is not to be had for a while.

import { expect, test } from "bun:test";
import { MiB } from "../../src/shared/bounds.ts";
import { openLog } from "../../src/shared/log.ts";
import { storeFiles } from "../../src/storage/store-files.ts";
import { eraseRest } from "../../src/task/account-erasure.ts";
import { TaskCache } from "../../src/task/task-cache.ts";
import { TaskWriter } from "../../src/task/task-writer.ts";
import { alterStore } from "../support/alter-store.ts";
import { holdWriteLock } from "../support/foreign-lock.ts";
import { refusalFrom } from "../support/refusal-of.ts";
import { openTaskStore, type TaskStore } from "../support/task-store.ts";

/** Of one commit are 500. */
const OWNED = 1200;

/** Of the first user, for the second; each with a text of that length. */
function addTasks(dbPath: string, count: number, textBytes: number): Promise<void> {
  return alterStore(
    dbPath,
    `INSERT INTO task_item (user_id, assignee_id, title, description, search_text, status, priority, due_at_ms,
       created_at_ms, updated_at_ms, deleted_at_ms, version)
     WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${count})
     SELECT 1, 2, 'task', '', printf('%.*c', ${textBytes}, 'x'), 'pending', 2, 9e15, i, i, 0, 1 FROM n`,
  );
}

async function countLeft(tasks: TaskStore): Promise<number> {
  return (await tasks.rows("task_item")).filter((row) => row.deleted_at_ms === 0).length;
}

function writerOf({ store }: TaskStore): TaskWriter {
  return new TaskWriter(store, new TaskCache({ taskCache: "off", taskCacheBytes: 0, taskCacheTtlMs: 0 }, Date.now));
}

test("a commit of an erasure ends behind a few MiB of text, however few tasks those are", async () => {
  await using tasks = await openTaskStore();
  await tasks.addUsers("ann", "bob");
  await addTasks(tasks.dbPath, 12, MiB);
  const writer = writerOf(tasks);
  const left: number[] = [];
  let isLast = await writer.run("task.deleteUser", { userId: 1, expectedHash: null, nowMs: Date.now() });
  for (; !isLast; isLast = await writer.run("task.eraseItems", { userId: 1 })) left.push(await countLeft(tasks));
  expect(left).toEqual([8, 4]);
  expect(await countLeft(tasks)).toBe(0);
});

test("the rest of an account waits where another process has locked the store, and is erased then", async () => {
  await using tasks = await openTaskStore();
  await tasks.addUsers("ann", "bob");
  await addTasks(tasks.dbPath, OWNED, 0);
  const left = () => countLeft(tasks);
  const writer = writerOf(tasks);
  expect(await writer.run("task.deleteUser", { userId: 1, expectedHash: null, nowMs: Date.now() })).toBe(false);
  let erased: Promise<void>;
  {
    await using _ = await holdWriteLock(storeFiles(tasks.dbPath).database);
    erased = eraseRest({ writer, log: openLog({ mode: "test", logLevel: "error" }) }, 1);
    // It came behind the first try: when this one was refused, that was.
    const late = writer.run("task.createUser", { username: "eve", email: "eve@x", passwordHash: "" });
    expect(await refusalFrom(late)).toBe("busy");
    expect(await left()).toBe(OWNED - 500);
  }
  await erased;
  expect(await left()).toBe(0);
});
