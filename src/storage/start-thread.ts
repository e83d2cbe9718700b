// Starts a thread of this executable, compiled or not.

import { Worker } from "node:worker_threads";
import type { ThreadRole } from "./thread-messages.ts";

/** Starts a thread in the given role; made by the composition root, which knows where threads begin. */
export type StartThread = (role: ThreadRole, data?: Readonly<Record<string, unknown>>) => Worker;

/**
 * Begins the first thread of a role now, for whoever will ask for it when it has been loaded. Until then the thread
 * keeps no process alive.
 */
export function startAhead(role: ThreadRole, start: StartThread): StartThread {
  let ahead: Worker | null = start(role);
  ahead.unref();
  // One that fails before anybody asks for it is replaced, and whoever asked hears of the failure of the next.
  ahead.on("error", () => undefined);
  ahead.once("exit", () => {
    ahead = null;
  });
  return (asked, data) => {
    if (asked !== role || ahead === null) return start(asked, data);
    const thread = ahead;
    ahead = null;
    thread.ref();
    return thread;
  };
}

/**
 * A compiled executable holds one entry, which sends threads on to `entry`: so no path has to be found at run time.
 * Uncompiled, and under `bun test` where the main module is the test file, the thread starts from `entry` itself.
 */
export function threadStarter(entry: URL): StartThread {
  return (role, data = {}) =>
    new Worker(Bun.isStandaloneExecutable ? Bun.main : entry, { workerData: { role, ...data } });
}
