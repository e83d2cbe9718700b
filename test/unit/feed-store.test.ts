// The feeds of users, read for everybody who listens at once: each second, for another number of them.

import { Database } from "bun:sqlite";
import { afterAll, beforeAll, expect, spyOn, test } from "bun:test";
import { FeedStore } from "../../src/task/feed-store.ts";
import { alterStore } from "../support/alter-store.ts";
import { openTaskStore, type TaskStore } from "../support/task-store.ts";

const USERS = 50;
const IDS = Array.from({ length: USERS }, (_, index) => index + 1);

let opened: TaskStore;
let feed: FeedStore;
beforeAll(async () => {
  opened = await openTaskStore();
  await opened.addUsers(...IDS.map((id) => `user${id}`));
  // The sessions of every fifth user have been ended, the second user may not come in.
  await alterStore(
    opened.dbPath,
    `INSERT INTO task_head (user_id, rev, item_count) SELECT id, 10 * id, 0 FROM task_user WHERE id % 7 != 0;
     INSERT INTO task_session (id, user_id, created_at_ms, last_used_at_ms, idle_until_ms, expires_at_ms, revoked_at_ms)
       SELECT 's' || id, id, 0, 0, 1, 1, CASE WHEN id % 5 = 0 THEN 1 END FROM task_user;
     UPDATE task_user SET token_version = id;
     UPDATE task_user SET disabled_at_ms = 1 WHERE id = 2`,
  );
  feed = new FeedStore(opened.store);
});
afterAll(() => opened[Symbol.asyncDispose]());

test("the revs and live sessions of those who are asked for are read, and of nobody else", async () => {
  for (const ids of [[], [3], [7, 14], [1, 2, 5, 6], IDS]) {
    const heads = ids.filter((id) => id % 7 !== 0).map((id) => [id, 10 * id] as const);
    expect(await feed.heads(ids)).toEqual(new Map(heads));
    const live = ids.filter((id) => id % 5 !== 0 && id !== 2).map((id) => [`s${id}`, id] as const);
    expect(await feed.liveSessions(ids.map((id) => `s${id}`))).toEqual(new Map(live));
  }
  expect(await feed.liveSessions(["unknown", "', ("])).toEqual(new Map());
});

test("however many listen, they are read by the same two statements", async () => {
  const read = async (count: number) => {
    await feed.heads(IDS.slice(0, count));
    await feed.liveSessions(IDS.slice(0, count).map((id) => `s${id}`));
  };
  await read(1);
  using prepared = spyOn(Database.prototype, "prepare");
  for (let count = 2; count <= 20; count++) await read(count);
  expect(prepared.mock.calls.map(([sql]) => sql)).toEqual([]);
});

test("so many entries come at once as have short texts together, and one however long it is", async () => {
  await alterStore(
    opened.dbPath,
    `INSERT INTO task_event (id, task_id, type, actor_id, version, changes, at_ms)
       SELECT value, 1, 'task.updated', 1, 1, CASE WHEN value = 4 THEN '"' || char(228) || '"' || '${" ".repeat(996)}'
         ELSE '${" ".repeat(100)}' END, 0 FROM json_each('[1,2,3,4,5,6]');
     INSERT INTO task_feed (user_id, rev, event_id, at_ms) SELECT 3, value, value, 0 FROM json_each('[1,2,3,4,5,6]')`,
  );
  const ahead = (rev: number, rows: number, bytes: number) => feed.ahead(3, rev, rows, bytes);
  expect(await ahead(0, 32, 250)).toEqual({ rows: 2, bytes: 200 });
  expect(await ahead(0, 2, 1000)).toEqual({ rows: 2, bytes: 200 });
  expect(await ahead(2, 32, 250)).toEqual({ rows: 1, bytes: 100 });
  expect(await ahead(3, 32, 250)).toEqual({ rows: 1, bytes: 1000 });
  expect(await ahead(4, 32, 250)).toEqual({ rows: 2, bytes: 200 });
  expect(await ahead(6, 32, 250)).toEqual({ rows: 0, bytes: 0 });
});
