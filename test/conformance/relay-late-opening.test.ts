// A relay that could not be opened at the start: what is said meanwhile, and that it opens as soon as it can.

import { describe, expect, test } from "bun:test";
import { storeFiles } from "../../src/storage/store-files.ts";
import { alterStore } from "../support/alter-store.ts";
import { holdWriteLock } from "../support/foreign-lock.ts";
import { makeToken, RELAY_ENV, relayErrorOf } from "../support/relay-client.ts";
import { openInProcess, type Target } from "../support/targets.ts";

const REQUEST_ID = "chosen-by-the-client";
/** What is waited for comes in its own time. */
const TEST_MS = 120_000;

async function refusal(target: Target, path: string) {
  const answer = await target.fetch(path, {
    headers: { Authorization: "Bearer sk-nexus-any", "X-Request-Id": REQUEST_ID },
  });
  expect(answer.headers.get("x-request-id")).not.toBe(REQUEST_ID);
  expect(answer.headers.get("x-gokv-attempts")).toBe("0");
  expect(answer.headers.get("x-gokv-overhead-ms")).toMatch(/^\d+\.\d$/);
  const { code, type } = await relayErrorOf(answer);
  return [answer.status, answer.headers.get("retry-after"), type, code];
}

describe("a relay that cannot be opened at the start", () => {
  test(
    "says so in the shape of its errors, and opens when it is asked again",
    async () => {
      await using target = await openInProcess(RELAY_ENV);
      const token = await makeToken(target);
      await alterStore(target.dbPath, "ALTER TABLE relay_channel RENAME TO relay_channel_away");
      await target.restart();
      expect(await refusal(target, "/v1/models")).toEqual([500, null, "server_error", "internal_error"]);
      await alterStore(target.dbPath, "ALTER TABLE relay_channel_away RENAME TO relay_channel");
      const headers = { Authorization: `Bearer ${token.key}` };
      expect((await target.fetch("/v1/models", { headers })).status).toBe(200);
    },
    TEST_MS,
  );

  test(
    "for a lock that somebody else holds is there when the lock is gone",
    async () => {
      await using target = await openInProcess(RELAY_ENV);
      {
        await using _lock = await holdWriteLock(storeFiles(target.dbPath).database);
        for (const path of ["/v1/models", "/v1/nothing"]) {
          expect(await refusal(target, path)).toEqual([503, "1", "server_error", "quota_store_unavailable"]);
        }
      }
      expect(await refusal(target, "/v1/models")).toEqual([401, null, "invalid_request_error", "invalid_api_key"]);
    },
    TEST_MS,
  );
});
