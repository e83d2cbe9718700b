// The process dies, or is stopped, while jobs run: each runs again, and what it changes in the store is changed once.

import { afterEach, beforeEach, expect, test } from "bun:test";
import { alterStore } from "../support/alter-store.ts";
import { eventually } from "../support/eventually.ts";
import { type Environment, type ServerProcess, startServer } from "../support/executable.ts";
import { expectTime } from "../support/figures-in-bounds.ts";
import { queryStore } from "../support/query-store.ts";
import { bySize, report } from "../support/run-size.ts";
import { seededRandom } from "../support/seeded-random.ts";
import { SECRET, type TargetInit } from "../support/targets.ts";
import { type Account, ask, signUp, UNLIMITED } from "../support/task-client.ts";
import { type TempDir, tempDir } from "../support/temp-dir.ts";
import { neverAnswer, WebhookReceiver } from "../support/webhook-receiver.ts";

const KILLS = bySize(6, 40, 200);
const LIFE_MS_MAX = 500;
const REMIND_MS_MAX = 600;
const LANES = 6;
const LEASE_MS = 1_000;
const SHUTDOWN_MS = 500;
const SETTLE_MS_MAX = 30_000;
/** A hook with a thousand waiting deliveries is disabled, which is not what is tried here. */
const PER_LIFE_MAX = 100;
const WAITING_MAX = 100;
const ENV: Environment = {
  ...UNLIMITED,
  JWT_SECRET: SECRET,
  SERVICES: "task",
  ACCESS_LOG: "off",
  RESERVE_BYTES: "0",
  WEBHOOK_ALLOW_CIDRS: "127.0.0.1/32",
  TASK_ACCESS_TTL: "24h",
  SHUTDOWN_TIMEOUT: `${SHUTDOWN_MS}ms`,
  JOBS_LEASE: `${LEASE_MS}ms`,
  JOBS_POLL: "50ms",
  JOBS_CONCURRENCY: "default=4",
};

interface Job {
  readonly id: string;
  readonly kind: string;
  readonly state: string;
  readonly attempts: number;
  readonly last_error: string | null;
}

interface Task {
  readonly id: number;
  readonly created_at_ms: number;
  readonly remind_at_ms: number;
}

let dir: TempDir;
let receiver: WebhookReceiver;
let server: ServerProcess;
beforeEach(async () => {
  dir = tempDir();
  receiver = new WebhookReceiver();
  server = await start();
});
afterEach(async () => {
  await server[Symbol.asyncDispose]();
  await receiver[Symbol.asyncDispose]();
  dir[Symbol.dispose]();
});

const start = () => startServer({ ...ENV, DB_PATH: dir.file("data") });
const query = <Row>(sql: string) => queryStore<Row>(dir.file("data"), sql);
const jobs = (where: string) => query<Job>(`SELECT * FROM job WHERE ${where} ORDER BY id`);

/** Whatever server runs just now. */
const target = {
  fetch(path: string, { headers = {}, ...init }: TargetInit = {}): Promise<Response> {
    const sent = Object.entries(headers).filter((entry): entry is [string, string] => entry[1] !== null);
    return fetch(`${server.url}${path}`, { ...init, headers: Object.fromEntries(sent) });
  },
};

async function kill(): Promise<void> {
  server.kill("SIGKILL");
  await server.exited;
}

async function hook({ token }: Account, path: string, events: readonly string[]): Promise<void> {
  const made = await ask(target, "POST", "/webhooks", { token, body: { url: receiver.url(path), events } });
  expect(made.status).toBe(201);
}

/** Makes tasks with a reminder in a moment until the server is gone; the ids that were answered. */
async function remindOnAndOn({ token }: Account, random: () => number): Promise<number[]> {
  const ids: number[] = [];
  while (ids.length < PER_LIFE_MAX) {
    const remind_at = new Date(Date.now() + 100 + random() * REMIND_MS_MAX).toISOString();
    try {
      const made = await ask(target, "POST", "/tasks", { token, body: { title: "soon", remind_at } });
      const { id } = (await made.json()) as { id: number };
      expect(made.status).toBe(201);
      ids.push(id);
    } catch {
      return ids;
    }
  }
  return ids;
}

/** Failures wait before the next attempt; here nobody does. */
const hurry = () => alterStore(dir.file("data"), "UPDATE job SET run_at_ms = 0 WHERE state = 'ready' AND attempts > 0");

test(
  "however often the process is killed, each reminder is told once and each delivery arrives",
  async () => {
    const random = seededRandom("kills beside jobs");
    const account = await signUp(target);
    await hook(account, "/reminders", ["task.reminder"]);
    const told: number[] = [];
    for (let kills = 0; kills < KILLS; kills++) {
      const lanes = Array.from({ length: LANES }, () => remindOnAndOn(account, () => random.below(1e6) / 1e6));
      await Bun.sleep(random.below(LIFE_MS_MAX));
      await kill();
      told.push(...(await Promise.all(lanes)).flat());
      server = await start();
      await eventually("few deliveries wait", SETTLE_MS_MAX, async () => {
        await hurry();
        return (await jobs("kind = 'webhook.deliver' AND state IN ('ready', 'running')")).length < WAITING_MAX;
      });
    }
    await eventually("all jobs have ended", SETTLE_MS_MAX, async () => {
      await hurry();
      return (await jobs("owner_id IS NOT NULL AND state IN ('ready', 'running')")).length === 0;
    });
    const reminders = await query<{ task_id: number; told: number }>(
      "SELECT task_id, count(*) AS told FROM task_event WHERE type = 'task.reminder' GROUP BY task_id",
    );
    const ends = await jobs("owner_id IS NOT NULL");
    expect(ends.filter(({ state }) => state !== "done")).toEqual([]);
    expect(reminders.filter((row) => row.told !== 1)).toEqual([]);
    const reminded = new Set(reminders.map(({ task_id }) => task_id));
    const tasks = new Map((await query<Task>("SELECT * FROM task_item")).map((task) => [task.id, task]));
    // One that was stored after the time of its reminder has none.
    const isDue = ({ created_at_ms, remind_at_ms }: Task) => created_at_ms < remind_at_ms;
    expect([...tasks.values()].filter((task) => isDue(task) && !reminded.has(task.id))).toEqual([]);
    expect(told.filter((id) => !tasks.has(id))).toEqual([]);
    const deliveries = await query<{ id: string; state: string }>("SELECT id, state FROM task_delivery");
    const seen = new Set(receiver.seen.map(({ headers }) => headers["webhook-id"]!));
    expect(deliveries.length).toBe(reminded.size);
    expect(deliveries.filter(({ id, state }) => state !== "done" || !seen.has(id))).toEqual([]);
    const again = ends.filter(({ attempts }) => attempts > 1).length;
    const repeated = receiver.seen.length - seen.size;
    report(`jobs, ${KILLS} kills: ${ends.length} jobs, ${again} ran again, ${repeated} deliveries arrived twice`);
  },
  bySize(90_000, 600_000, 1_800_000),
);

test("jobs that ran when the process was killed run again after their lease, and not before", async () => {
  const account = await signUp(target);
  receiver.answer("/slow", neverAnswer);
  // Two, since a receiver that nobody knows yet gets one delivery at a time.
  for (let hooks = 0; hooks < 2; hooks++) await hook(account, "/slow", ["task.created"]);
  await ask(target, "POST", "/tasks", { token: account.token, body: { title: "first" } });
  await eventually("both are under way", SETTLE_MS_MAX, () => receiver.at("/slow").length === 2);
  await kill();
  const killedMs = Date.now();
  receiver.answer("/slow", () => new Response(null, { status: 204 }));
  server = await start();
  await eventually("both were given up", SETTLE_MS_MAX, async () => {
    return (await jobs("last_error = 'lease expired' AND state = 'ready'")).length === 2;
  });
  // The last heartbeat may be a third of a lease old.
  expect(Date.now() - killedMs).toBeGreaterThan((LEASE_MS * 2) / 3 - 50);
  expect(receiver.at("/slow")).toHaveLength(2);
  await hurry();
  await eventually("both have arrived", SETTLE_MS_MAX, async () => {
    return (await jobs("kind = 'webhook.deliver' AND state = 'done' AND attempts = 2")).length === 2;
  });
  const ids = receiver.at("/slow").map(({ headers }) => headers["webhook-id"]);
  expect(ids.slice(2).sort()).toEqual(ids.slice(0, 2).sort());
});

test("a stopping process gives back the jobs it cannot end, and loses none that come meanwhile", async () => {
  const account = await signUp(target);
  receiver.answer("/slow", neverAnswer);
  for (let hooks = 0; hooks < 2; hooks++) await hook(account, "/slow", ["task.created"]);
  const create = (title: string) => ask(target, "POST", "/tasks", { token: account.token, body: { title } });
  await create("first");
  await eventually("both are under way", SETTLE_MS_MAX, () => receiver.at("/slow").length === 2);
  const stoppedMs = performance.now();
  server.kill("SIGTERM");
  expect((await create("late")).status).toBe(201);
  expect(await server.exited).toBe(0);
  const tookMs = performance.now() - stoppedMs;
  expect(tookMs).toBeGreaterThan(SHUTDOWN_MS - 50);
  expectTime("the stop", tookMs, SHUTDOWN_MS + 5_000);
  const left = await jobs("kind = 'webhook.deliver'");
  expect(left.map(({ state, attempts, last_error }) => [state, attempts, last_error])).toEqual(
    Array(4).fill(["ready", 0, null]),
  );
  receiver.answer("/slow", () => new Response(null, { status: 204 }));
  server = await start();
  await eventually("all have arrived", SETTLE_MS_MAX, async () => {
    return (await jobs("kind = 'webhook.deliver' AND state = 'done' AND attempts = 1")).length === 4;
  });
});
