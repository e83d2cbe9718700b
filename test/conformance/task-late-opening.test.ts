// A task service that could not be opened at the start: what is said meanwhile, and that it opens as soon as it can.

import { describe, expect, test } from "bun:test";
import { storeFiles } from "../../src/storage/store-files.ts";
import { alterStore } from "../support/alter-store.ts";
import { eventually } from "../support/eventually.ts";
import { holdWriteLock } from "../support/foreign-lock.ts";
import { openInProcess, type Target } from "../support/targets.ts";
import { ask, signUp, UNLIMITED } from "../support/task-client.ts";

/** Several turns of opening. */
const OPENED_MS = 10_000;

const isOpen = async (target: Target) => /^gokv_task_streams 0$/m.test(await (await target.fetch("/metrics")).text());

async function refusedBody(target: Target) {
  const body = { username: "early", email: "early@example.com", password: "password123" };
  const refused = await ask(target, "POST", "/auth/register", { body });
  return [refused.status, refused.headers.get("retry-after"), await refused.json()];
}

/** What is waited for comes in its own time. */
const TEST_MS = 120_000;

describe("a task service that cannot be opened at the start", () => {
  test(
    "says so in the shape of its errors, and opens without being asked once it can",
    async () => {
      await using target = await openInProcess(UNLIMITED);
      await signUp(target);
      await alterStore(target.dbPath, "ALTER TABLE job_schedule RENAME TO job_schedule_away");
      await target.restart();
      for (let turn = 0; turn < 2; turn++) {
        const refusal = await refusedBody(target);
        expect(refusal).toMatchObject([500, null, { error: expect.any(String), code: "internal_error" }]);
      }
      await alterStore(target.dbPath, "ALTER TABLE job_schedule_away RENAME TO job_schedule");
      await eventually("the task service is open", OPENED_MS, () => isOpen(target));
      await signUp(target);
    },
    TEST_MS,
  );

  test(
    "for a lock that somebody else holds is there when the lock is gone",
    async () => {
      await using target = await openInProcess(UNLIMITED);
      {
        await using _lock = await holdWriteLock(storeFiles(target.dbPath).database);
        for (let turn = 0; turn < 2; turn++) {
          expect(await refusedBody(target)).toMatchObject([503, "1", { error: expect.any(String), code: "busy" }]);
        }
      }
      await signUp(target);
      expect(await isOpen(target)).toBe(true);
    },
    TEST_MS,
  );
});
