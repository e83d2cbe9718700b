// The task cache by itself: what holds and time do to entries, and that a crowd of readers makes one load.

import { describe, expect, test } from "bun:test";
import { MiB } from "../../src/shared/bounds.ts";
import { type CachedTask, cachedTask, TaskCache } from "../../src/task/task-cache.ts";
import type { TaskView } from "../../src/task/task-view.ts";
import { seededRandom } from "../support/seeded-random.ts";

const TTL_MS = 60_000;
const ROUNDS = 2000;

function entry(id: number, version = 1, title = "A task"): CachedTask {
  const view: TaskView = {
    id,
    title,
    description: "",
    status: "pending",
    priority: "medium",
    user_id: 1,
    assignee_id: null,
    labels: [],
    due_date: null,
    remind_at: null,
    completed_at: null,
    version,
    created_at: "2026-01-05T08:00:00.000Z",
    updated_at: "2026-01-05T08:00:00.000Z",
  };
  return cachedTask(view);
}

function open({
  clock = () => 0,
  mode = "auto",
  bytes = MiB,
}: {
  clock?: () => number;
  mode?: "auto" | "off";
  bytes?: number;
} = {}) {
  return new TaskCache({ taskCache: mode, taskCacheBytes: bytes, taskCacheTtlMs: TTL_MS }, clock);
}

describe("the task cache", () => {
  test("makes one load of many readers that miss at once, and none afterwards", async () => {
    const cache = open();
    let loads = 0;
    const load = async () => {
      loads++;
      await Promise.resolve();
      return entry(7);
    };
    const found = await Promise.all(Array.from({ length: 100 }, () => cache.find(7) ?? cache.load(7, load)));
    expect([loads, new Set(found).size]).toEqual([1, 1]);
    expect(cache.find(7)).toBe(found[0] as CachedTask);
    expect(await cache.load(8, async () => null)).toBe(null);
    expect(cache.find(8)).toBe(null);
  });

  test("gives everybody the failure of a load that they share, and tries anew", async () => {
    const cache = open();
    const failing = () => cache.load(1, () => Promise.reject(new Error("away")));
    const results = await Promise.allSettled([failing(), failing()]);
    expect(results.map(({ status }) => status)).toEqual(["rejected", "rejected"]);
    expect((await cache.load(1, async () => entry(1)))?.id).toBe(1);
  });

  test("neither serves nor keeps a task while a write holds it, nor what was read before the write ended", async () => {
    const cache = open();
    await cache.load(1, async () => entry(1));
    await cache.load(2, async () => entry(2));
    const slow = Promise.withResolvers<CachedTask>();
    const early = cache.load(3, () => slow.promise);
    const release = cache.hold([1, 3]);
    expect([cache.find(1), cache.find(2)?.id]).toEqual([null, 2]);
    await cache.load(1, async () => entry(1));
    expect(cache.find(1)).toBe(null);
    const late = cache.load(3, async () => entry(3, 2));
    slow.resolve(entry(3));
    expect([(await early)?.version, (await late)?.version]).toEqual([1, 2]);
    release();
    expect(cache.find(3)).toBe(null);
    await cache.load(3, async () => entry(3, 2));
    expect(cache.find(3)?.version).toBe(2);
  });

  test("keeps nothing of a fill that a write has met, whether it began or ended meanwhile", async () => {
    const cache = open();
    for (const act of ["begin", "end"]) {
      const before = act === "end" ? cache.hold([5]) : null;
      const filled = await cache.fill(async () => {
        if (before === null) cache.hold([5])();
        else before();
        return [entry(5), entry(6)];
      });
      expect([act, filled, cache.find(5), cache.find(6)]).toEqual([act, 0, null, null]);
    }
    expect(await cache.fill(async () => [entry(5), entry(6)])).toBe(2);
  });

  test("is emptied and closed by a hold on all, until each of several holds has ended", async () => {
    const cache = open();
    await cache.load(1, async () => entry(1));
    const releases = [cache.hold("all"), cache.hold("all"), cache.hold([1])];
    for (const release of releases) {
      await cache.load(1, async () => entry(1));
      expect(cache.find(1)).toBe(null);
      release();
    }
    await cache.load(1, async () => entry(1));
    expect(cache.find(1)?.id).toBe(1);
  });

  test("forgets after its time, under pressure of bytes, and keeps nothing when it is off", async () => {
    let nowMs = 0;
    const cache = open({ clock: () => nowMs });
    await cache.load(1, async () => entry(1));
    nowMs = TTL_MS - 1;
    expect(cache.find(1)?.id).toBe(1);
    nowMs = TTL_MS;
    expect(cache.find(1)).toBe(null);
    const small = open({ bytes: 16 * 1024 });
    for (let id = 1; id <= 100; id++) await small.load(id, async () => entry(id));
    const kept = Array.from({ length: 100 }, (_, index) => small.find(index + 1)).filter((task) => task !== null);
    expect(kept.length).toBeGreaterThan(0);
    expect(kept.length).toBeLessThan(16);
    const off = open({ mode: "off" });
    await off.load(1, async () => entry(1));
    expect([off.isOn, off.find(1)]).toEqual([false, null]);
  });

  test("never serves a version older than the last write that has ended, in any order of turns", async () => {
    const random = seededRandom("turns of the task cache");
    const cache = open();
    const stored = new Map([1, 2, 3].map((id) => [id, 1]));
    const pause = async () => {
      for (let turns = random.below(4); turns > 0; turns--) await Promise.resolve();
    };
    const write = async (id: number) => {
      const release = cache.hold(random.chance(0.1) ? "all" : [id]);
      await pause();
      stored.set(id, stored.get(id)! + 1);
      await pause();
      release();
    };
    const read = async (id: number) => {
      const floor = stored.get(id)!;
      const load = async () => {
        await pause();
        const version = stored.get(id)!;
        await pause();
        return entry(id, version);
      };
      const task = cache.find(id) ?? (await cache.load(id, load));
      expect(task!.version).toBeGreaterThanOrEqual(floor);
    };
    const writing = new Map([1, 2, 3].map((id) => [id, 0]));
    const acts: Promise<void>[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      const id = 1 + random.below(3);
      if (random.chance(0.2)) {
        writing.set(id, writing.get(id)! + 1);
        acts.push(write(id).then(() => void writing.set(id, writing.get(id)! - 1)));
      } else if (writing.get(id) === 0) acts.push(read(id));
      await pause();
    }
    await Promise.all(acts);
  });
});
