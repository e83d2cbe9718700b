// What changes of an account check inside their transaction, where nobody can come between.

import { expect, test } from "bun:test";
import { alterStore } from "../support/alter-store.ts";
import { openTaskStore } from "../support/task-store.ts";

test("another address is not set when the password that allowed it has become another meanwhile", async () => {
  await using tasks = await openTaskStore();
  await tasks.addUsers("ann");
  const before = (await tasks.rows("task_user"))[0]!;
  const change = { userId: 1, email: "thief@example.com" };
  const late = tasks.store.run("task.updateUser", { ...change, expectedHash: "an older hash" });
  await expect(late).rejects.toMatchObject({ code: "wrong_password" });
  expect((await tasks.rows("task_user"))[0]!).toEqual(before);
  await tasks.store.run("task.updateUser", { ...change, expectedHash: before.password_hash });
  expect((await tasks.rows("task_user"))[0]!).toMatchObject({ email: "thief@example.com" });
});

test("no webhook is made for an account that is gone by then", async () => {
  await using tasks = await openTaskStore();
  await tasks.addUsers("ann");
  const hook = { id: crypto.randomUUID(), url: "https://example.com/", events: [], secret: "sealed" };
  await tasks.store.run("task.createWebhook", { ...hook, userId: 1 });
  await alterStore(tasks.dbPath, "UPDATE task_user SET deleted_at_ms = 1 WHERE id = 1");
  const late = tasks.store.run("task.createWebhook", { ...hook, id: crypto.randomUUID(), userId: 1 });
  await expect(late).rejects.toMatchObject({ code: "invalid_token" });
  expect(await tasks.rows("task_webhook")).toHaveLength(1);
});
