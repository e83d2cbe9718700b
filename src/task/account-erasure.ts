// The job that removes what a large account has left behind, slice after slice, with the writes of others between.

import type { JobHandler } from "../jobs/job-kinds.ts";
import type { TaskWriter } from "./task-writer.ts";

export function createErasure({ writer }: { readonly writer: TaskWriter }): JobHandler {
  return async function eraseAccount({ payload, signal }) {
    const { userId } = payload as { readonly userId: number };
    while (!(await writer.run("task.eraseItems", { userId }, "all"))) signal.throwIfAborted();
  };
}
