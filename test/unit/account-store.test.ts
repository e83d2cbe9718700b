// What is read of accounts: of many sessions those that matter.

import { expect, test } from "bun:test";
import { AccountStore } from "../../src/task/account-store.ts";
import { alterStore } from "../support/alter-store.ts";
import { openTaskStore } from "../support/task-store.ts";

const NOW_MS = 1_800_000_000_000;

test("live sessions are listed however many newer ones have ended", async () => {
  await using tasks = await openTaskStore();
  await tasks.addUsers("ann");
  const session = (number: number, revokedMs: number | null) =>
    `('${`s${number}`.padStart(36, "0")}', 1, ${NOW_MS}, ${NOW_MS}, ${NOW_MS + 1000}, ${NOW_MS + 1000}, ${revokedMs})`;
  const ended = Array.from({ length: 300 }, (_, index) => session(200 + index, NOW_MS - 1));
  const columns = "id, user_id, created_at_ms, last_used_at_ms, idle_until_ms, expires_at_ms, revoked_at_ms";
  const values = [session(100, null), session(101, null), ...ended].join(", ");
  await alterStore(tasks.dbPath, `INSERT INTO task_session (${columns}) VALUES ${values}`);
  const rows = await new AccountStore(tasks.store).listSessions(1, NOW_MS, NOW_MS - 30 * 86_400_000);
  expect(rows).toHaveLength(200);
  expect(rows.filter(({ revoked_at_ms }) => revoked_at_ms === null).map(({ id }) => id.slice(-4))).toEqual([
    "s101",
    "s100",
  ]);
});
