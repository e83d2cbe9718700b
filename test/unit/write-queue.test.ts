// The queue of writes on the main thread, without a thread behind it.

import { expect, test } from "bun:test";
import { MiB } from "../../src/shared/bounds.ts";
import { AppError } from "../../src/shared/errors.ts";
import type { KvWrite } from "../../src/storage/kv-engine.ts";
import { WriteQueue } from "../../src/storage/write-queue.ts";

const removal = (key: string): KvWrite => ({ kind: "delete", bucket: "b", key, condition: null });

const putOf = (bytes: number): KvWrite => ({
  kind: "put",
  bucket: "b",
  key: "k",
  value: new Uint8Array(bytes),
  contentType: null,
  metadata: null,
  ttlMs: null,
  condition: null,
  creatorIp: null,
});

/** What each batch holds when all of `writes` come in one turn, and every batch is answered in a later one. */
async function batchesOf(writes: readonly KvWrite[]): Promise<(readonly KvWrite[])[]> {
  const batches: (readonly KvWrite[])[] = [];
  const queue = new WriteQueue({
    queueMax: 4096,
    timeoutMs: 60_000,
    send(batch) {
      batches.push(batch);
      setImmediate(() => queue.settle(batch.map(() => ({ kind: "absent" }))));
    },
  });
  await Promise.all(writes.map((write) => queue.write(write)));
  return batches;
}

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

test("a batch takes the oldest writes, 128 at most", async () => {
  const writes = Array.from({ length: 300 }, (_, index) => removal(`${index}`));
  const batches = await batchesOf(writes);
  expect(batches.map(({ length }) => length)).toEqual([128, 128, 44]);
  expect(batches.flat()).toEqual(writes);
});

test("a batch takes 8 MiB of values at most, and a larger value goes alone", async () => {
  const sizes = async (...bytes: number[]) => {
    const batches = await batchesOf(bytes.map(putOf));
    return batches.map((batch) => batch.map((write) => (write.kind === "put" ? write.value.length : 0)));
  };
  expect(await sizes(5 * MiB, 5 * MiB, 9 * MiB)).toEqual([[5 * MiB], [5 * MiB], [9 * MiB]]);
  expect(await sizes(9 * MiB, 0, 3 * MiB, 5 * MiB, 1)).toEqual([[9 * MiB], [0, 3 * MiB, 5 * MiB], [1]]);
});

test("a write that could not be handed over in its time is dropped for good; one that was is waited for", async () => {
  const sent: string[] = [];
  const send = (batch: readonly KvWrite[]) => void sent.push(batch.map(({ key }) => key).join());
  const queue = new WriteQueue({ queueMax: 10, timeoutMs: 20, send });
  const first = queue.write(removal("first"));
  await new Promise((resolve) => setImmediate(resolve));
  const late = [queue.write(removal("late")), queue.write(removal("later"))];
  const codes = late.map((writing) => writing.catch((error: AppError) => error.code));
  expect(await Promise.all<unknown>(codes)).toEqual(["busy", "busy"]);
  expect([sent, queue.length]).toEqual([["first"], 0]);
  const next = queue.write(removal("next"));
  queue.settle([{ kind: "absent" }]);
  queue.settle([{ kind: "absent" }]);
  expect([await first, await next]).toEqual([{ kind: "absent" }, { kind: "absent" }]);
  expect(sent).toEqual(["first", "next"]);
}, 5_000);
