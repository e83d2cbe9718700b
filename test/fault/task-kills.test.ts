// The process dies while users change tasks: what was answered is there with all that hangs on it, the rest is whole or
// absent.

import { expect, test } from "bun:test";
import { EXIT } from "../../src/shared/errors.ts";
import { type Environment, GOKV, run, startServer } from "../support/executable.ts";
import { bySize, report } from "../support/run-size.ts";
import { seededRandom } from "../support/seeded-random.ts";
import { SECRET } from "../support/targets.ts";
import { TaskBooks } from "../support/task-books.ts";
import { signUp, UNLIMITED } from "../support/task-client.ts";
import { TaskLoad } from "../support/task-load.ts";
import { tempDir } from "../support/temp-dir.ts";

const USERS = 3;
const LANES_EACH = 4;
const KILLS = bySize(10, 40, 200);
const LIFE_MS_MAX = bySize(400, 600);
const TIMEOUT_MS = bySize(60_000, 600_000);

test(
  "a process that is killed at any moment has lost no task, event, feed row, job or key that it had answered for",
  async () => {
    using dir = tempDir();
    const env: Environment = {
      ...UNLIMITED,
      JWT_SECRET: SECRET,
      DB_PATH: dir.file("data"),
      ACCESS_LOG: "off",
      RESERVE_BYTES: "0",
      TASK_ACCESS_TTL: "24h",
      JOBS_CONCURRENCY: "none",
      SERVICES: "task",
    };
    const start = async () => {
      const server = await startServer(env);
      return { server, fetch: askedAt(server.url) };
    };
    const first = await start();
    const accounts = [];
    for (let user = 0; user < USERS; user++) accounts.push(await signUp(first));
    const load = new TaskLoad(seededRandom("kills beside tasks"), accounts, LANES_EACH);
    const random = seededRandom("moments of kills");
    const problems: string[] = [];
    let running = first;
    for (let kill = 1; kill <= KILLS; kill++) {
      const working = load.run(running);
      await Bun.sleep(random.below(LIFE_MS_MAX));
      running.server.kill("SIGKILL");
      await Promise.all([working, running.server.exited]);
      running = await start();
      await load.repeat(running);
      const mistakes = TaskBooks.mistakes(dir.file("data"), load);
      problems.push(...[...mistakes, ...load.unexpected.splice(0)].map((text) => `kill ${kill}: ${text}`));
      if (problems.length > 0) break;
    }
    running.server.kill("SIGKILL");
    await running.server.exited;
    report(`tasks, ${KILLS} kills: ${load.answered} changes answered, ${load.repeated} creations sent again`);
    expect(problems.slice(0, 20)).toEqual([]);
    expect(load.answered).toBeGreaterThan(5 * KILLS);
    expect((await run([GOKV, "check"], { env })).exitCode).toBe(EXIT.done);
  },
  TIMEOUT_MS,
);

/** A target's fetch, without a token of its own. */
function askedAt(url: string) {
  return (
    path: string,
    { headers = {}, ...init }: { headers?: Record<string, string | null> } & Omit<RequestInit, "headers"> = {},
  ) => {
    const sent = Object.entries(headers).filter((entry): entry is [string, string] => entry[1] !== null);
    return fetch(`${url}${path}`, { ...init, headers: Object.fromEntries(sent) });
  };
}
