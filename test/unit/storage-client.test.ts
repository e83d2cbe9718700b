// The near side of the storage thread: what cannot be sent to it, and how much may wait for it.

import { expect, test } from "bun:test";
import { EventEmitter } from "node:events";
import type { Worker } from "node:worker_threads";
import type { AppError } from "../../src/shared/errors.ts";
import { StorageClient } from "../../src/storage/storage-client.ts";
import type { StorageReply, StorageRequest } from "../../src/storage/thread-messages.ts";

/** What can be sent at all is answered when the test says so. */
class FakeThread extends EventEmitter {
  readonly asked: StorageRequest[] = [];

  postMessage(request: StorageRequest): void {
    this.asked.push(structuredClone(request));
  }

  answer(reply: StorageReply): void {
    this.emit("message", reply);
  }
}

function clientOf(thread: FakeThread) {
  const client = new StorageClient(() => thread as unknown as Worker);
  const run = (args: unknown) => client.runUnit("unit", args, 0).catch((error: AppError) => error.code);
  return { client, run };
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

test("a unit whose arguments cannot be sent fails, and the next one is run", async () => {
  const thread = new FakeThread();
  const { run } = clientOf(thread);
  expect(await run(() => undefined)).toBe("internal_error");
  const next = run(1);
  for (let turns = 0; turns < 5; turns++) await turn();
  expect(thread.asked).toEqual([{ type: "units", units: [{ id: 2, name: "unit", args: 1 }], lockDeadlineMs: 0 }]);
  thread.answer({ type: "units", outcomes: [{ id: 2, result: "done" }] });
  expect(await next).toBe("done");
});

test("more than 1024 changes do not wait together; one that is answered makes room for the next", async () => {
  const thread = new FakeThread();
  const { client, run } = clientOf(thread);
  const waiting = Array.from({ length: 1024 }, (_, index) => run(index));
  expect(await run("late")).toBe("overloaded");
  expect(await client.wipe("bucket", 0).catch((error: AppError) => error.code)).toBe("overloaded");
  await turn();
  thread.answer({ type: "units", outcomes: [{ id: 1, result: "first" }] });
  expect(await waiting[0]).toBe("first");
  const wiping = client.wipe("bucket", 0);
  expect(thread.asked.at(-1)).toMatchObject({ type: "wipe", bucket: "bucket" });
  client.refuse({ code: "storage_failed" } as AppError, true);
  const refused = [run("now"), waiting[1], wiping.catch((error: AppError) => error.code)];
  expect(await Promise.all<unknown>(refused)).toEqual(["storage_failed", "storage_failed", "storage_failed"]);
});
