// What becomes of questions to the reader thread when it dies.

import { expect, test } from "bun:test";
import { EventEmitter } from "node:events";
import type { Worker } from "node:worker_threads";
import type { AppError } from "../../src/shared/errors.ts";
import { ReaderClient } from "../../src/storage/reader-client.ts";

/** A thread that says what a test lets it say. */
class FakeThread extends EventEmitter {
  readonly asked: { id: number }[] = [];

  postMessage(request: { id: number }): void {
    this.asked.push(request);
  }
}

test("the late end of a reader thread leaves the questions to its successor alone", async () => {
  const threads: FakeThread[] = [];
  const client = new ReaderClient("gokv.db", () => {
    const thread = new FakeThread();
    threads.push(thread);
    return thread as unknown as Worker;
  });
  const load = () => client.load("b", "k", 1).catch((error: AppError) => error.code);
  const first = load();
  threads[0]!.emit("error", new Error("out of memory"));
  expect(await first).toBe("unavailable");
  const second = load();
  threads[0]!.emit("exit", 1);
  threads[1]!.emit("message", { id: threads[1]!.asked[0]!.id, type: "value", value: null });
  expect(await second).toBeNull();
  expect(threads).toHaveLength(2);
});
