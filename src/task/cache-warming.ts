// Fills the cache after a start, so that the first reads of many users do not all reach for the store.

import type { JobHandler } from "../jobs/job-kinds.ts";
import { messageOf } from "../shared/errors.ts";
import { cachedTask } from "./task-cache.ts";
import type { TaskServices } from "./task-services.ts";
import { taskView } from "./task-view.ts";
import { WarmingStore } from "./warming-store.ts";

const TASKS_PER_USER = 50;

/** Has it warmed when there is something to warm it with. To be called once after the start; never throws. */
export async function requestWarming({
  store,
  cache,
  writer,
  settings,
  clock,
  log,
}: Pick<TaskServices, "store" | "cache" | "writer" | "settings" | "clock" | "log">): Promise<void> {
  try {
    if (!cache.isOn || settings.taskCacheWarm === 0 || !(await new WarmingStore(store).hasTasks())) return;
    await writer.run("task.requestWarming", { runAtMs: clock() });
  } catch (error) {
    log.warn("the task cache will not be warmed", { cause: messageOf(error) });
  }
}

/** Reports how many tasks it has put there. */
export function createCacheWarming({
  store,
  lists,
  cache,
  settings,
}: Pick<TaskServices, "store" | "lists" | "cache" | "settings">): JobHandler {
  const warming = new WarmingStore(store);
  return async function warmCache({ signal, progress }) {
    let left = cache.isOn ? settings.taskCacheWarm : 0;
    const users = left === 0 ? [] : await warming.activeUsers(signal);
    for (const [index, userId] of users.entries()) {
      if (left === 0 || signal.aborted) break;
      const limit = Math.min(left, TASKS_PER_USER);
      left -= await cache.fill(async () => {
        const items = await lists.newestOf(userId, limit);
        return items.map(({ row, labels }) => cachedTask(taskView(row, labels)));
      });
      progress((100 * (index + 1)) / users.length);
    }
    return { rows: settings.taskCacheWarm - left };
  };
}
