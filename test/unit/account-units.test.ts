// What changes of an account check inside their transaction, where nobody can come between.

import { expect, test } from "bun:test";
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
