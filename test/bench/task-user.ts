// A server as the benchmarks of the task API use it, without rate limits, and a user with tasks.

import { Database } from "bun:sqlite";
import { storeFiles } from "../../src/storage/store-files.ts";
import { NO_DUE_MS, STATUSES, type TaskStatus } from "../../src/task/task-tables.ts";
import type { Environment } from "../support/executable.ts";
import { randomFrom } from "../support/seeded-random.ts";
import type { Target } from "../support/targets.ts";
import { type Account, ask, signUp, UNLIMITED } from "../support/task-client.ts";
import { startBenchServer } from "./bench-server.ts";
import { InvalidRun } from "./figures.ts";
import type { FixedRequest } from "./request-stream.ts";

/** The patterns that the metrics tell. */
export const TASK_ROUTE = "/api/v1/tasks/:id";
export const TASKS_ROUTE = "/api/v1/tasks";

const DAY_MS = 86_400_000;

export function startTaskServer(dbPath: string, env: Environment = {}): ReturnType<typeof startBenchServer> {
  return startBenchServer(dbPath, { ...UNLIMITED, ...env });
}

/** Whatever `ask` of the task client takes for a server. */
export function taskTarget(url: string): Pick<Target, "fetch"> {
  return {
    fetch(path, { headers = {}, ...init } = {}) {
      const sent = new Headers();
      for (const [name, value] of Object.entries(headers)) if (value !== null) sent.set(name, value);
      return fetch(`${url}${path}`, { ...init, headers: sent });
    },
  };
}

/** The same GET over and over. */
export function getOf(path: string, token: string, headers: Readonly<Record<string, string>> = {}): FixedRequest {
  return { method: "GET", path: `/api/v1${path}`, headers: { Authorization: `Bearer ${token}`, ...headers }, body: "" };
}

/** A row as it stands in the store, as far as lists care. */
export interface FilledTask {
  readonly id: number;
  readonly status: TaskStatus;
  readonly priority: number;
  readonly dueMs: number;
  readonly createdMs: number;
  readonly updatedMs: number;
}

export interface FilledUser {
  readonly dbPath: string;
  readonly me: Account;
  readonly tasks: readonly FilledTask[];
  readonly nowMs: number;
}

/**
 * A store with a user who owns `own` tasks and has been assigned `assigned` of somebody else's; no server runs on it.
 * Creating them one by one would take minutes.
 */
export async function fillTasks(dbPath: string, own: number, assigned: number): Promise<FilledUser> {
  let me: Account;
  {
    await using server = await startTaskServer(dbPath);
    const target = taskTarget(server.url);
    me = await signUp(target, "filled");
    await signUp(target, "other");
    server.kill("SIGTERM");
    if ((await server.exited) !== 0) throw new InvalidRun("the server did not stop in order");
  }
  const nowMs = Date.now();
  const tasks = Array.from({ length: own + assigned }, (_, index) => taskAt(index, own + assigned, nowMs));
  using database = new Database(storeFiles(dbPath).database, { strict: true });
  const insert = database.prepare(
    `INSERT INTO task_item (id, user_id, assignee_id, title, description, search_text, status, priority, due_at_ms,
     created_at_ms, updated_at_ms, deleted_at_ms, version) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 1)`,
  );
  database.run("BEGIN");
  for (const [index, task] of tasks.entries()) {
    const [title, description] = [
      `完成项目文档 ${task.id}`,
      "What is to be done, in some words. ".repeat(1 + (index % 8)),
    ];
    const people = index < own ? [me.id, null] : [me.id + 1, me.id];
    insert.run(
      ...([task.id, ...people, title, description, `${title}\n${description}`.toLowerCase(), task.status] as const),
      ...([task.priority, task.dueMs, task.createdMs, task.updatedMs] as const),
    );
  }
  database.run("COMMIT");
  insert.finalize();
  database.run("PRAGMA wal_checkpoint(TRUNCATE)");
  return { dbPath, me, tasks, nowMs };
}

function taskAt(index: number, count: number, nowMs: number): FilledTask {
  const random = randomFrom(index);
  const createdMs = nowMs - (count - index) * 5000;
  return {
    id: index + 1,
    // Half pending, and of the rest a third under way.
    status: random.chance(0.5) ? STATUSES[0] : random.chance(0.33) ? STATUSES[1] : STATUSES[2],
    priority: 1 + random.below(3),
    dueMs: random.chance(0.4) ? NO_DUE_MS : nowMs + random.below(365 * DAY_MS) - 182 * DAY_MS,
    createdMs,
    updatedMs: createdMs + random.below(5 * DAY_MS),
  };
}

/** @throws InvalidRun unless it is 200 */
export async function requireOk(target: Pick<Target, "fetch">, path: string, token: string): Promise<Response> {
  const answer = await ask(target, "GET", path, { token });
  if (answer.status !== 200) throw new InvalidRun(`${path} answers ${answer.status}: ${await answer.text()}`);
  return answer;
}
