// What the changes of a task leave in the store: rows, one event each, feeds, jobs; against a real store.

import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import type { ItemChange } from "../../src/task/item-units.ts";
import { refusalFrom } from "../support/refusal-of.ts";
import { ITEM_FIELDS, openTaskStore, type TaskStore } from "../support/task-store.ts";

const [ANN, BEN, CID] = [1, 2, 3];
const HOUR_MS = 3_600_000;

let tasks: TaskStore;
beforeEach(async () => {
  tasks = await openTaskStore();
  await tasks.addUsers("ann", "ben", "cid");
});
afterEach(() => tasks[Symbol.asyncDispose]());

const create = (fields = {}, creation = {}) =>
  tasks.store.run("task.createItem", {
    userId: ANN,
    requestId: "r",
    fields: { ...ITEM_FIELDS, ...fields },
    itemsMax: 10,
    keyed: null,
    nowMs: Date.now(),
    ...creation,
  });

const patch = (change: Partial<ItemChange>) =>
  tasks.store.run("task.patchItem", {
    userId: ANN,
    requestId: "r",
    taskId: 1,
    patch: {},
    match: null,
    isMatchRequired: false,
    nowMs: Date.now(),
    ...change,
  });

const act = (name: "task.deleteItem" | "task.restoreItem", userId: number | null = ANN, more = { goneUntilMs: 0 }) =>
  tasks.store.run(name as "task.deleteItem", {
    userId,
    requestId: "r",
    taskId: 1,
    match: null,
    isMatchRequired: false,
    ...more,
  });

async function events(): Promise<unknown[]> {
  return (await tasks.rows("task_event")).map(({ type, actor_id, version, changes }) => [
    type,
    actor_id,
    version,
    JSON.parse(changes),
  ]);
}

/** The feed of a user: types in the order of their revisions, which have no gap. */
async function feedOf(userId: number): Promise<string[]> {
  const types = new Map((await tasks.rows("task_event")).map(({ id, type }) => [id, type]));
  const feed = (await tasks.rows("task_feed")).filter(({ user_id }) => user_id === userId);
  expect(feed.map(({ rev }) => rev)).toEqual(feed.map((_, index) => index + 1));
  const head = (await tasks.rows("task_head")).find(({ user_id }) => user_id === userId);
  expect(head?.rev ?? 0).toBe(feed.length);
  return feed.map(({ event_id }) => types.get(event_id)!);
}

describe("a change of a task", () => {
  test("leaves one event and reaches owner, assignee and the assignee before", async () => {
    const created = await create({ labels: ["x"] });
    expect(created.effects).toEqual({ userIds: [ANN], hasJobs: false });
    expect((await patch({ patch: { assigneeId: CID } })).effects.userIds).toEqual([ANN, CID]);
    expect((await patch({ patch: { assigneeId: BEN, status: "completed" } })).effects.userIds).toEqual([ANN, BEN, CID]);
    await act("task.deleteItem");
    await act("task.restoreItem", null);
    expect(await events()).toEqual([
      [
        "task.created",
        ANN,
        1,
        { title: [null, "A task"], status: [null, "pending"], priority: [null, "medium"], labels: [null, ["x"]] },
      ],
      ["task.assigned", ANN, 2, { assignee_id: [null, CID] }],
      ["task.assigned", ANN, 3, { status: ["pending", "completed"], assignee_id: [CID, BEN] }],
      ["task.deleted", ANN, 4, { deleted: [false, true] }],
      ["task.restored", null, 5, { deleted: [true, false] }],
    ]);
    expect(await feedOf(ANN)).toHaveLength(5);
    expect(await feedOf(CID)).toEqual(["task.assigned", "task.assigned"]);
    expect(await feedOf(BEN)).toEqual(["task.assigned", "task.deleted", "task.restored"]);
  });

  test("that changes nothing, or is refused, leaves no trace", async () => {
    await create({ labels: ["x"], assigneeId: BEN });
    const same = await patch({ patch: { title: "A task", labels: ["x"], status: "pending", dueAtMs: null } });
    expect(same.value.version).toBe(1);
    expect(await refusalFrom(patch({ userId: BEN, patch: { title: "Other" } }))).toBe("forbidden");
    expect(await refusalFrom(patch({ userId: CID, patch: { title: "Other" } }))).toBe("not_found");
    expect(await refusalFrom(patch({ match: [2], patch: { title: "Other" } }))).toBe("version_mismatch");
    expect(await refusalFrom(patch({ isMatchRequired: true, patch: { title: "Other" } }))).toBe("if_match_required");
    expect(await refusalFrom(patch({ patch: { assigneeId: 99 } }))).toBe("invalid_request");
    expect(await refusalFrom(create({ assigneeId: 99 }))).toBe("invalid_request");
    expect(await refusalFrom(create({}, { userId: 99 }))).toBe("invalid_token");
    expect(await refusalFrom(act("task.restoreItem"))).toBe("state_conflict");
    expect(await events()).toHaveLength(1);
    expect(await tasks.rows("task_item")).toHaveLength(1);
  });

  test("can be undone when it was deleted, until its time is over, by its owner and by operators alike", async () => {
    await create();
    await act("task.deleteItem");
    const { deleted_at_ms: deletedMs } = (await tasks.rows("task_item"))[0]!;
    for (const userId of [ANN, null]) {
      expect(await refusalFrom(act("task.restoreItem", userId, { goneUntilMs: deletedMs }))).toBe("not_found");
    }
    expect((await act("task.restoreItem", ANN, { goneUntilMs: deletedMs - 1 })).value.version).toBe(3);
    // Of one that lives nothing is over.
    expect(await refusalFrom(act("task.restoreItem", ANN, { goneUntilMs: deletedMs }))).toBe("state_conflict");
  });

  test("counts against the quota until the row is gone", async () => {
    await create({}, { itemsMax: 1 });
    expect(await refusalFrom(create({}, { itemsMax: 1 }))).toBe("quota_exceeded");
    await act("task.deleteItem");
    expect(await refusalFrom(create({}, { itemsMax: 1 }))).toBe("quota_exceeded");
    expect((await create({}, { itemsMax: 2 })).value.body.id).toBe(2);
  });
});

describe("reminders and due dates", () => {
  test("that are to come have a job each, those that are past have none", async () => {
    const nowMs = Date.now();
    const [soon, later] = [nowMs + HOUR_MS, nowMs + 2 * HOUR_MS];
    await create({ remindAtMs: nowMs, dueAtMs: soon });
    await patch({ patch: { remindAtMs: later } });
    // Nothing new to be done: the job for this time is there already.
    await patch({ patch: { remindAtMs: null } });
    await patch({ patch: { remindAtMs: later } });
    const jobs = await tasks.rows("job");
    expect(
      jobs.map(({ kind, run_at_ms, owner_id, payload }) => [kind, run_at_ms, owner_id, JSON.parse(payload)]),
    ).toEqual([
      ["task.overdue", soon, ANN, { taskId: 1, atMs: soon }],
      ["task.reminder", later, ANN, { taskId: 1, atMs: later }],
    ]);
  });
});

describe("a request with a key", () => {
  const keyed = { userId: ANN, keyHash: "k", route: "POST /tasks", bodyHash: "b", nowMs: 1_000_000_000 };

  test("is answered once, for a day", async () => {
    const first = (await create({}, { keyed })).value;
    const again = await create({}, { keyed });
    expect(again).toEqual({ value: { ...first, isReplayed: true }, effects: { userIds: [], hasJobs: false } });
    expect(await refusalFrom(create({}, { keyed: { ...keyed, bodyHash: "other" } }))).toBe("idempotency_mismatch");
    expect((await create({}, { userId: BEN, keyed: { ...keyed, userId: BEN } })).value.body.id).toBe(2);
    const nextDay = { ...keyed, bodyHash: "other", nowMs: keyed.nowMs + 24 * HOUR_MS };
    expect((await create({}, { keyed: nextDay })).value).toMatchObject({ isReplayed: false, body: { id: 3 } });
    expect(await tasks.rows("task_idempotency")).toHaveLength(2);
  });
});
