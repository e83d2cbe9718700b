// How many tasks go through: read, found unchanged, and created; as shares of what the bare server or the KV API does.

import { createTask, signUp } from "../support/task-client.ts";
import { startBareServer } from "./bare-server.ts";
import { requireStatuses } from "./bench-server.ts";
import { type Bench, type Benchmark, sized } from "./benchmark.ts";
import { GeneratorLagged, ratioAtLeast } from "./figures.ts";
import { compareRates } from "./rate-comparison.ts";
import { getOf, startTaskServer, TASK_ROUTE, TASKS_ROUTE, taskTarget } from "./task-user.ts";

const CONNECTIONS = 16;
const VALUE_BYTES = 200;
/** More than a round can send. */
const KEYS_PER_ROUND = 10_000_000;

function rounds(bench: Bench) {
  return { bench, connections: CONNECTIONS, rounds: sized(bench, 5, 3), seconds: 3 };
}

const reads: Benchmark = {
  name: "task-reads",
  async run(bench) {
    await using bare = await startBareServer();
    await using server = await startTaskServer(bench.newPath());
    await using uncached = await startTaskServer(bench.newPath(), { TASK_CACHE: "off" });
    const owner = await signUp(taskTarget(server.url));
    const { id } = await createTask(taskTarget(server.url), owner, { description: "x".repeat(VALUE_BYTES) });
    const other = await signUp(taskTarget(uncached.url));
    const twin = await createTask(taskTarget(uncached.url), other, { description: "x".repeat(VALUE_BYTES) });
    const get = getOf(`/tasks/${id}`, owner.token);
    const unchanged = getOf(`/tasks/${id}`, owner.token, { "If-None-Match": '"v1"' });
    const cached = await compareRates({
      ...rounds(bench),
      name: "GET of a task, of the bare server's rate",
      floor: () => ({ url: bare.url, stream: get }),
      measured: () => ({ url: server.url, stream: get }),
      target: ratioAtLeast(0.35),
    });
    const revalidated = await compareRates({
      ...rounds(bench),
      name: "  304 of a task, of the rate of whole answers",
      floor: () => ({ url: server.url, stream: get }),
      measured: () => ({ url: server.url, stream: unchanged }),
      target: ratioAtLeast(1),
    });
    const gain = await compareRates({
      ...rounds(bench),
      name: "  GET of a task from the cache, of the rate without it",
      floor: () => ({ url: uncached.url, stream: getOf(`/tasks/${twin.id}`, other.token) }),
      measured: () => ({ url: server.url, stream: get }),
      target: ratioAtLeast(1.2),
    });
    await requireStatuses(server.url, bench.token, [200, 304], TASK_ROUTE);
    // Nothing answers faster than a constant: the two have not had the same share of the processor.
    if (cached.ratio! > 1) throw new GeneratorLagged(`a GET at ${cached.ratio!.toFixed(2)} of the bare server's rate`);
    return [cached, revalidated, gain];
  },
};

const creates: Benchmark = {
  name: "task-creates",
  async run(bench) {
    await using server = await startTaskServer(bench.newPath(), { TASK_MAX_PER_USER: "100000000" });
    const { url } = server;
    const owner = await signUp(taskTarget(url));
    const body = JSON.stringify({ title: "A task", description: "x".repeat(VALUE_BYTES), priority: "high" });
    const headers = { Authorization: `Bearer ${owner.token}`, "Content-Type": "application/json" };
    const post = (round: number) => {
      const keys = { order: "ascending", first: round * KEYS_PER_ROUND, count: KEYS_PER_ROUND } as const;
      return {
        method: "POST",
        bucket: "tasks-as-values",
        valueBytes: VALUE_BYTES,
        token: bench.token,
        ...keys,
      } as const;
    };
    const figure = await compareRates({
      ...rounds(bench),
      name: "POST of a task, of the KV rate",
      floor: (round) => ({ url, stream: post(round) }),
      measured: () => ({ url, stream: { path: TASKS_ROUTE, headers, body } }),
      target: ratioAtLeast(0.1),
    });
    await requireStatuses(url, bench.token, [201], TASKS_ROUTE);
    return [figure];
  },
};

export const TASK_READS: readonly Benchmark[] = [reads, creates];
