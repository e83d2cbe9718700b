// Pages of the comments and events of a task, when nobody says how long they are to be.

import { afterAll, beforeAll, expect, test } from "bun:test";
import { ByteBudget } from "../../src/http/byte-budget.ts";
import { RequestScope } from "../../src/http/request-scope.ts";
import { MiB } from "../../src/shared/bounds.ts";
import { respondOldestFirst } from "../../src/task/history-pages.ts";
import { type HistoryReader, listComments, listEvents } from "../../src/task/item-store.ts";
import type { UserRequest } from "../../src/task/task-request.ts";
import { NO_DUE_MS } from "../../src/task/task-tables.ts";
import { alterStore } from "../support/alter-store.ts";
import { openTaskStore, type TaskStore } from "../support/task-store.ts";

const STATE = { isDraining: false, hasFailed: false, trustedProxies: null };

let tasks: TaskStore;
beforeAll(async () => {
  tasks = await openTaskStore();
  await tasks.addUsers("ann");
  const counted = "WITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < 201)";
  await alterStore(
    tasks.dbPath,
    `INSERT INTO task_item (user_id, title, description, search_text, status, priority, due_at_ms, created_at_ms,
       updated_at_ms, deleted_at_ms, version) VALUES (1, 'A task', '', '', 'pending', 2, ${NO_DUE_MS}, 1, 1, 0, 1);
     ${counted} INSERT INTO task_comment (task_id, user_id, body, created_at_ms) SELECT 1, 1, 'hi', n FROM counted;
     ${counted} INSERT INTO task_event (task_id, type, actor_id, version, changes, at_ms)
       SELECT 1, 'task.updated', 1, n, '{}', n FROM counted`,
  );
});
afterAll(() => tasks[Symbol.asyncDispose]());

async function pageOf(kind: string, read: HistoryReader, query: string) {
  const scope = new RequestScope(new Request(`http://h/api/v1/tasks/1/${kind}${query}`), null, STATE);
  const services = { store: tasks.store, budget: new ByteBudget(MiB) };
  const request = { services, scope, who: { userId: 1 }, params: { id: "1" } } as unknown as UserRequest;
  const answer = await respondOldestFirst(request, kind, read);
  const ids = ((await answer.json()) as { id: number }[]).map(({ id }) => id);
  return { ids, cursor: answer.headers.get("x-next-cursor"), link: answer.headers.get("link") };
}

test.each([
  ["comments", listComments],
  ["events", listEvents],
] as const)("200 %s are shown at once, oldest first, and the rest on the next page", async (kind, read) => {
  const { ids, cursor, link } = await pageOf(kind, read, "");
  expect(ids).toEqual(Array.from({ length: 200 }, (_, index) => index + 1));
  expect(link).toBe(`</api/v1/tasks/1/${kind}?limit=200&cursor=${cursor}>; rel="next"`);
  expect(await pageOf(kind, read, `?cursor=${cursor}`)).toEqual({ ids: [201], cursor: null, link: null });
});
