// What the reader thread is asked, one slice at a time and for whom, and what becomes of questions when it dies.

import { expect, test } from "bun:test";
import { EventEmitter } from "node:events";
import type { Worker } from "node:worker_threads";
import type { AppError } from "../../src/shared/errors.ts";
import { ReaderClient } from "../../src/storage/reader-client.ts";

interface Asked {
  readonly id: number;
  readonly type: string;
  readonly range?: { readonly lower: string };
  readonly sql?: string;
}

/** A thread that says what a test lets it say. */
class FakeThread extends EventEmitter {
  readonly asked: Asked[] = [];

  postMessage(request: Asked): void {
    this.asked.push(request);
  }

  async terminate(): Promise<void> {
    this.emit("exit", 1);
  }

  /** To the question that was asked last. */
  async answer(reply: Record<string, unknown>): Promise<void> {
    this.emit("message", { id: this.asked.at(-1)!.id, ...reply });
    await Bun.sleep(0);
  }
}

function openClient() {
  const threads: FakeThread[] = [];
  const client = new ReaderClient("gokv.db", () => {
    const thread = new FakeThread();
    threads.push(thread);
    return thread as unknown as Worker;
  });
  return { client, threads };
}

const COUNTED = { type: "total", total: 100, next: "m" };
const COUNTED_TO_THE_END = { type: "total", total: 10, next: null };

function rangeOf(bucket: string) {
  return { bucket, lower: "a", upper: "z" };
}

test("the late end of a reader thread leaves the questions to its successor alone", async () => {
  const { client, threads } = openClient();
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

test("whose turn comes when the reader thread is ended is told so, and begins no other", async () => {
  const { client, threads } = openClient();
  const statements = ["first", "second"].map((sql) =>
    client.rows(sql, [], sql, null).catch((error: AppError) => error.code),
  );
  await Bun.sleep(0);
  await client[Symbol.asyncDispose]();
  expect(await Promise.all(statements)).toEqual(["unavailable", "unavailable"]);
  expect(threads).toHaveLength(1);
});

test("a count asks for slice behind slice, and adds them up", async () => {
  const { client, threads } = openClient();
  const count = client.count(rangeOf("b"), new AbortController().signal);
  await threads[0]!.answer(COUNTED);
  await threads[0]!.answer(COUNTED);
  await threads[0]!.answer(COUNTED_TO_THE_END);
  expect(await count).toBe(210);
  expect(threads[0]!.asked.map(({ type, range }) => [type, range?.lower])).toEqual([
    ["count", "a"],
    ["count", "m"],
    ["count", "m"],
  ]);
});

test("an answer to something else than was asked is a defect, not an answer", async () => {
  const { client, threads } = openClient();
  const { signal } = new AbortController();
  const page = { isReverse: false, limit: 10 } as const;
  const keys = { ...page, range: rangeOf("b"), hasDetails: false, grouping: null };
  const question = { bucket: "b", key: "k" } as unknown as Parameters<typeof client.page>[0];
  for (const ask of [
    () => client.load("b", "k", 1),
    () => client.count(rangeOf("b"), signal),
    () => client.page(question, null),
    () => client.keys(keys, null),
    () => client.rows("SELECT 1", [], "user 1", null),
  ]) {
    const asked = ask().catch(({ code }: AppError) => code);
    await Bun.sleep(0);
    await threads[0]!.answer({ type: "else" });
    expect(await asked).toBe("internal_error");
  }
});

test("of a thousand counts and searches the thread has one slice, and a large value waits for no more", async () => {
  const { client, threads } = openClient();
  const left = new AbortController();
  const reads = Array.from({ length: 500 }, (_, index) => [
    client.count(rangeOf(`b${index}`), left.signal),
    client.rows("SELECT 1", [], `user ${index}`, left.signal),
  ]).flat();
  const outcomes = Promise.all(reads.map((read) => read.catch((error: AppError) => error.code)));
  void client.load("b", "k", 1);
  expect(threads[0]!.asked.map(({ type }) => type)).toEqual(["count", "load"]);
  left.abort();
  const [first] = threads[0]!.asked;
  threads[0]!.emit("message", { id: first!.id, ...COUNTED });
  expect(new Set(await outcomes)).toEqual(new Set(["unavailable"]));
  expect(threads[0]!.asked).toHaveLength(2);
});

test("callers take turns with their slices, however many one of them waits for", async () => {
  const { client, threads } = openClient();
  const signal = new AbortController().signal;
  for (const sql of ["a1", "a2", "a3"]) void client.rows(sql, [], "user 1", signal);
  void client.count(rangeOf("b"), signal);
  void client.rows("c1", [], "user 2", null);
  for (let left = 5; left > 0; left--) {
    const { type } = threads[0]!.asked.at(-1)!;
    await threads[0]!.answer(type === "count" ? COUNTED_TO_THE_END : { type: "rows", rows: [] });
  }
  expect(threads[0]!.asked.map(({ type, sql }) => sql ?? type)).toEqual(["a1", "a2", "count", "c1", "a3"]);
});

test("pages beside a purge are not read for whoever has left, and the next one has its turn", async () => {
  const { client, threads } = openClient();
  const left = new AbortController();
  const page = { isReverse: false, limit: 10 } as const;
  const keys = { ...page, range: rangeOf("b"), hasDetails: false, grouping: null };
  void client.keys(keys, null);
  const given = [
    ...Array.from({ length: 60 }, () => client.keys(keys, left.signal)),
    client.buckets({ ...page, lower: "", upper: null }, left.signal),
  ].map((each) => each.catch((error: AppError) => error.code));
  const last = client.buckets({ ...page, lower: "", upper: null }, null);
  left.abort();
  expect(new Set(await Promise.all(given))).toEqual(new Set(["unavailable"]));
  const names = { names: [], entries: [], resumeAt: null };
  await threads[0]!.answer({ type: "names", page: names });
  await threads[0]!.answer({ type: "names", page: names });
  expect(await last).toEqual(names);
  expect(threads[0]!.asked.map(({ type }) => type)).toEqual(["keys", "buckets"]);
});
