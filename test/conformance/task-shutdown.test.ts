// How a server with users, live streams and jobs ends: nothing accepted is dropped, nothing acknowledged is lost.

import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, statSync } from "node:fs";
import { eventually } from "../support/eventually.ts";
import { type Environment, type ServerProcess, startServer } from "../support/executable.ts";
import { expectTime } from "../support/figures-in-bounds.ts";
import { KeepAliveConnection } from "../support/keep-alive-connection.ts";
import { LiveStream } from "../support/live-stream.ts";
import { queryStore } from "../support/query-store.ts";
import { SECRET, type TargetInit } from "../support/targets.ts";
import { sendOk } from "../support/task-answers.ts";
import { type Account, API, signUp, UNLIMITED } from "../support/task-client.ts";
import { fillTasks, type Job, startExport } from "../support/task-exports.ts";
import { type TempDir, tempDir } from "../support/temp-dir.ts";

setDefaultTimeout(120_000);

const CLIENTS = 12;
const LISTENS_ON_MS = 250;
/** For starting threads, scheduling and a loaded machine. */
const SLACK_MS = 3000;
const FAR = "2090-01-01T00:00:00Z";

let dir: TempDir;
beforeEach(() => {
  dir = tempDir();
});
afterEach(() => dir[Symbol.dispose]());

interface Running extends AsyncDisposable {
  readonly server: ServerProcess;
  readonly dbPath: string;
  fetch(path: string, init?: TargetInit): Promise<Response>;
}

async function serve(env: Environment = {}): Promise<Running> {
  const dbPath = dir.file("data");
  const server = await startServer({ JWT_SECRET: SECRET, DB_PATH: dbPath, ...UNLIMITED, ...env });
  return {
    server,
    dbPath,
    fetch(path, { headers = {}, ...init } = {}) {
      const sent = Object.entries(headers).filter((header): header is [string, string] => header[1] !== null);
      return fetch(server.url + path, { ...init, headers: new Headers(sent) });
    },
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}

async function stop({ server }: Running): Promise<number> {
  const startMs = performance.now();
  server.kill("SIGTERM");
  expect(await server.exited).toBe(0);
  expect(server.log()).toContain('"msg":"stopped"');
  const wal = dir.file("data", "gokv.db-wal");
  expect(existsSync(wal) ? statSync(wal).size : 0).toBe(0);
  return performance.now() - startMs;
}

interface Client {
  /** Tasks whose creation was answered with 201. */
  readonly acknowledged: number[];
  readonly dropped: string[];
  readonly done: Promise<void>;
}

/** Makes task after task on one connection, each with a job, until an answer says that it was the last one there. */
async function startClient({ server }: Running, { token }: Account): Promise<Client> {
  const connection = await KeepAliveConnection.open(server.url);
  const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json" };
  const client = { acknowledged: [] as number[], dropped: [] as string[] };
  const work = async () => {
    using _ = connection;
    for (let isLast = false; !isLast; ) {
      try {
        const body = JSON.stringify({ title: "made under way", remind_at: FAR });
        const answer = await connection.request("POST", `${API}/tasks`, headers, body);
        if (answer.status === 201) client.acknowledged.push((JSON.parse(answer.body) as { id: number }).id);
        else client.dropped.push(`${answer.status} ${answer.body}`);
        isLast = answer.headers.get("connection") === "close";
      } catch (error) {
        client.dropped.push((error as Error).message);
        isLast = true;
      }
    }
  };
  return { ...client, done: work() };
}

describe("a server with users that gets SIGTERM", () => {
  test("answers what it has accepted, keeps each task with its job, and ends its live streams", async () => {
    await using running = await serve();
    const ann = await signUp(running);
    const streams = [await LiveStream.open(running, ann), await LiveStream.open(running, ann)];
    const clients = await Promise.all(Array.from({ length: CLIENTS }, () => startClient(running, ann)));
    await eventually("all are at work", 20_000, () => clients.every(({ acknowledged }) => acknowledged.length >= 5));
    const stopped = stop(running);
    await Promise.all(clients.map(({ done }) => done));
    await Promise.all(streams.map(({ ended }) => ended));
    expectTime("the stop", await stopped, LISTENS_ON_MS + SLACK_MS);
    expect(clients.flatMap(({ dropped }) => dropped)).toEqual([]);

    const acknowledged = clients.flatMap((client) => client.acknowledged).toSorted((a, b) => a - b);
    const [tasks, jobs] = [
      await queryStore<{ id: number }>(running.dbPath, "SELECT id FROM task_item ORDER BY id"),
      await queryStore<{ id: number }>(
        running.dbPath,
        `SELECT json_extract(payload, '$.taskId') AS id FROM job WHERE kind = 'task.reminder' AND state = 'ready'
           ORDER BY 1`,
      ),
    ];
    expect([tasks, jobs].map((rows) => rows.map(({ id }) => id))).toEqual([acknowledged, acknowledged]);

    // Who comes back where it was cut off has heard of every one of them.
    const heard = streams[0]!.events.map(({ data }) => data.id as number);
    await using again = await serve();
    await using resumed = await LiveStream.open(again, ann, streams[0]!.lastId!);
    const rest = await resumed.take(acknowledged.length - heard.length);
    const all = [...heard, ...rest.map(({ data }) => data.id as number)];
    expect(all.toSorted((a, b) => a - b)).toEqual(acknowledged);
  });

  test("lets a job end that can, and gives back one that cannot, without an attempt", async () => {
    for (const [timeout, tasks, state, attempts] of [
      ["30s", 3000, "done", 1],
      ["0s", 20_000, "ready", 0],
    ] as const) {
      const running = await serve({ SHUTDOWN_TIMEOUT: timeout });
      const ann = await signUp(running);
      await fillTasks(running, ann, tasks);
      const { job_id } = await startExport(running, ann);
      await eventually("it runs", 10_000, async () => {
        return (await sendOk<Job>(running, ann, "GET", `/jobs/${job_id}`)).state !== "ready";
      });
      await stop(running);
      const [job] = await queryStore<Job>(running.dbPath, `SELECT state, attempts FROM job WHERE id = '${job_id}'`);
      expect([timeout, job]).toEqual([timeout, { state, attempts } as Job]);
      await running[Symbol.asyncDispose]();
      await using again = await serve();
      await eventually("it is done", 30_000, async () => {
        return (await sendOk<Job>(again, ann, "GET", `/jobs/${job_id}`)).state === "done";
      });
    }
  });
});
