// File descriptors for threads that start late: when clients have taken all others, the runtime would end the process.

import { closeSync, openSync } from "node:fs";
import { devNull } from "node:os";
import type { StartThread } from "./start-thread.ts";
import type { Started } from "./thread-messages.ts";

/** A thread takes two for itself, its connection to the store two more, a backup some for its files. */
const SPARE = 16;
const STARTED_MS_MAX = 1000;

/** Given up while a thread starts, and taken again behind it: those that it has left. */
export class SpareDescriptors implements Disposable {
  #held: readonly number[] = [];
  #isHolding = false;

  /** To be called when clients can connect. */
  hold(): void {
    this.#isHolding = true;
    this.#retake();
  }

  lending(start: StartThread): StartThread {
    return (role, data) => {
      if (!this.#isHolding) return start(role, data);
      const others = take();
      close([...others, ...this.#held]);
      this.#held = [];
      const thread = others.length === SPARE ? start(role, data) : startStill(start, role, data);
      this.#retake();
      thread.once("exit", () => this.#retake());
      return thread;
    };
  }

  [Symbol.dispose](): void {
    this.#isHolding = false;
    close(this.#held);
    this.#held = [];
  }

  #retake(): void {
    if (!this.#isHolding) return;
    close(this.#held);
    this.#held = take();
  }
}

/** Clients that wait to be accepted would take them first: until the thread has them, this one stands still. */
function startStill(start: StartThread, ...[role, data]: Parameters<StartThread>): ReturnType<StartThread> {
  const started: Started = new SharedArrayBuffer(4);
  const thread = start(role, { ...data, started });
  Atomics.wait(new Int32Array(started), 0, 0, STARTED_MS_MAX);
  return thread;
}

/** As many of the spare ones as there are. */
function take(): number[] {
  const taken: number[] = [];
  try {
    while (taken.length < SPARE) taken.push(openSync(devNull, "r"));
  } catch {
    // There are no more.
  }
  return taken;
}

function close(descriptors: readonly number[]): void {
  for (const descriptor of descriptors) closeSync(descriptor);
}

export function tellStarted(started: Started): void {
  const flag = new Int32Array(started);
  Atomics.store(flag, 0, 1);
  Atomics.notify(flag, 0);
}
