// The queue of writes on the main thread, without a thread behind it.

import { expect, test } from "bun:test";
import { AppError } from "../../src/shared/errors.ts";
import { WriteQueue } from "../../src/storage/write-queue.ts";

test("an answer of the storage thread that comes after the store has failed is ignored", async () => {
  const sent = Promise.withResolvers<void>();
  const queue = new WriteQueue({ queueMax: 10, timeoutMs: 60_000, send: () => sent.resolve() });
  const written = queue.write({ kind: "delete", bucket: "b", key: "k", condition: null });
  await sent.promise;
  queue.fail(new AppError("storage_failed", "The store has failed."));
  queue.settle([{ kind: "absent" }]);
  expect(await written.catch((error: AppError) => error.code)).toBe("storage_failed");
  expect(queue.length).toBe(0);
});
