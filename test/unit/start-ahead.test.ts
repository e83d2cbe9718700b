// A thread that was begun before anybody asked for it is handed over once, and replaced when it has failed by then.

import { expect, test } from "bun:test";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { Worker } from "node:worker_threads";
import { type StartThread, startAhead } from "../../src/storage/start-thread.ts";
import { tempDir } from "../support/temp-dir.ts";

const FINE = 'import { parentPort } from "node:worker_threads"; parentPort.postMessage("up");';
const BROKEN = 'throw new Error("broken");';

/** Starts a thread of each text in turn. */
function starter(...texts: string[]): { start: StartThread; started: Worker[] } {
  const dir = tempDir();
  const started: Worker[] = [];
  const start: StartThread = () => {
    const file = dir.file(`thread-${started.length}.mjs`);
    writeFileSync(file, texts[started.length]!);
    const thread = new Worker(file);
    started.push(thread);
    return thread;
  };
  return { start, started };
}

test("the thread that was begun ahead goes to the first who asks for its role, another to the next", async () => {
  const { start, started } = starter(FINE, FINE);
  const startThread = startAhead("storage", start);
  expect(started).toHaveLength(1);
  const first = startThread("storage");
  expect(first).toBe(started[0]!);
  expect(await once(first, "message")).toEqual(["up"]);
  const second = startThread("storage");
  expect(second).toBe(started[1]!);
  await once(second, "message");
  await Promise.all([first.terminate(), second.terminate()]);
});

test("one that has failed by then is replaced, and ends nothing", async () => {
  const { start, started } = starter(BROKEN, FINE);
  const startThread = startAhead("storage", start);
  // Not `once`, which fails with the error that nobody here is to see.
  await new Promise((resolve) => started[0]!.on("exit", resolve));
  const thread = startThread("storage");
  expect(thread).toBe(started[1]!);
  expect(await once(thread, "message")).toEqual(["up"]);
  await thread.terminate();
});
