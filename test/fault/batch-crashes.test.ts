// The process dies or its disk fails in the middle of batch imports: each batch is there whole or not at all, and every
// one that was answered is there.

import { describe, expect, test } from "bun:test";
import { EXIT } from "../../src/shared/errors.ts";
import { BatchLoad } from "../support/batch-load.ts";
import { type Environment, GOKV, run, type ServerProcess, startServer, stop } from "../support/executable.ts";
import { faultMoments } from "../support/fault-moments.ts";
import { has, hasProgram } from "../support/needs.ts";
import { bySize, report } from "../support/run-size.ts";
import { seededRandom } from "../support/seeded-random.ts";
import { strace } from "../support/strace.ts";
import { callsOfStorageThread, readTrace } from "../support/system-call-trace.ts";
import { SECRET } from "../support/targets.ts";
import { type TempDir, tempDir } from "../support/temp-dir.ts";
import { type Asked, administer, asApp, install, operatorAt } from "../support/token-client.ts";

const KILLS = bySize(12, 20, 100);
const LIFE_MS_MAX = bySize(300, 700);
const TIMEOUT_MS = bySize(120_000, 1_200_000);
/** More than it takes to reach any of the moments. */
const MORE_BATCHES_MAX = 300;

/** A store with one installation, and a load of batches on it that several servers meet one after the other. */
class BatchStore {
  readonly env: Environment;
  readonly load: BatchLoad;
  readonly token: string;
  readonly #dir: TempDir;

  private constructor(dir: TempDir, env: Environment, token: string, purpose: string) {
    this.#dir = dir;
    this.env = env;
    this.token = token;
    const random = seededRandom(purpose);
    const keys = [1, 2, 40, 300];
    this.load = new BatchLoad({ token, random, clients: 5, groupsPerClient: 4, keys, valueBytes: 150 });
  }

  static async make(dir: TempDir, purpose: string): Promise<BatchStore> {
    const env = {
      JWT_SECRET: SECRET,
      DB_PATH: dir.file("data"),
      ACCESS_LOG: "off",
      RESERVE_BYTES: "0",
      TOKEN_RATE_READ: "0",
      TOKEN_RATE_BATCH: "0",
      WAL_LIMIT_BYTES: "1MiB",
    };
    await using server = await startServer(env);
    const { token } = await install(await operatorAt(server.url));
    await stop(server);
    return new BatchStore(dir, env, token, purpose);
  }

  get trace(): string {
    return this.#dir.file("trace");
  }

  get files(): string[] {
    return [`${this.env.DB_PATH}/gokv.db`, `${this.env.DB_PATH}/gokv.db-wal`];
  }

  start(call?: string, ...inject: string[]): Promise<ServerProcess> {
    if (call === undefined) return startServer(this.env);
    return startServer(this.env, strace({ output: this.trace, calls: [call], inject, paths: this.files }));
  }

  async problems(): Promise<string[]> {
    await using server = await this.start();
    const problems = await this.load.verify(await operatorAt(server.url));
    await stop(server);
    return [...problems, ...this.load.unexpected.splice(0)];
  }

  async isSound(): Promise<boolean> {
    return (await run([GOKV, "check"], { env: this.env })).exitCode === EXIT.done;
  }

  summary(): string {
    const { answered, settled } = this.load;
    return `${answered} batches answered; of the others ${settled.present} there, ${settled.absent} not`;
  }
}

describe("a process that is killed at any moment of batch imports", () => {
  test(
    "has stored each batch whole or not at all, and every one that it answered",
    async () => {
      using dir = tempDir();
      const store = await BatchStore.make(dir, "kills beside batches");
      const random = seededRandom("moments of the kills");
      const problems: string[] = [];
      for (let kill = 0; kill < KILLS; kill++) {
        const server = await store.start();
        const running = store.load.run(await operatorAt(server.url));
        await Bun.sleep(random.below(LIFE_MS_MAX));
        server.kill("SIGKILL");
        await Promise.all([running, server.exited]);
        problems.push(...(await store.problems()));
      }
      report(`batches, ${KILLS} kills: ${store.summary()}`);
      expect(problems).toEqual([]);
      expect(store.load.answered).toBeGreaterThan(KILLS);
      expect(store.load.settled.absent).toBeGreaterThan(0);
      expect(await store.isSound()).toBe(true);
    },
    TIMEOUT_MS,
  );
});

/** How many calls of the storage thread `work` takes on a store on which it was done before. */
async function countCalls(store: BatchStore, call: string, work: (server: ServerProcess) => Promise<void>) {
  const first = await store.start();
  await work(first);
  await stop(first);
  const counted = await store.start(call);
  await work(counted);
  counted.kill("SIGKILL");
  await counted.exited;
  // The log is copied and gone, as it was for the one that was counted.
  await stop(await store.start());
  return callsOfStorageThread(readTrace(store.trace), call);
}

function importBatch(target: Asked, token: string, name: string, keys: number): Promise<Response> {
  const body = JSON.stringify(Object.fromEntries(Array.from({ length: keys }, (_, n) => [`${name}.${n}`, n])));
  return asApp(target, token, "/_batchimport", { method: "POST", body });
}

if (has("strace", hasProgram("strace"))) {
  describe("the n-th", () => {
    const cases = [
      ["fsync", "signal=KILL", bySize(8, 12, 60), bySize(40, 200)],
      ["pwrite64", "signal=KILL", bySize(8, 12, 60), bySize(1_500, 6_000)],
      ["fsync", "error=EIO", bySize(6, 10, 40), bySize(40, 200)],
      ["pwrite64", "error=EIO", bySize(6, 10, 40), bySize(1_500, 6_000)],
    ] as const;
    for (const [call, fault, count, last] of cases) {
      const what = fault === "error=EIO" ? "that fails, and so ends the process," : "in which the process dies";
      test(
        `${call} ${what} leaves each batch whole or absent and every answered one there`,
        async () => {
          using dir = tempDir();
          const store = await BatchStore.make(dir, `${fault} of ${call}`);
          const problems: string[] = [];
          // The load was too short for the moment, or the call was one whose failure SQLite may ignore.
          let missed = 0;
          for (const moment of faultMoments(count, last)) {
            const server = await store.start(call, `${call}:${fault}:when=${moment}`).catch(() => null);
            if (server !== null) {
              await store.load.run(await operatorAt(server.url), store.load.answered + MORE_BATCHES_MAX);
              const ended = await Promise.race([server.exited, Bun.sleep(5_000).then(() => "lives on")]);
              if (ended === "lives on") missed++;
              else if (fault === "error=EIO" && ended !== EXIT.storageFailed) problems.push(`exit code ${ended}`);
              await server[Symbol.asyncDispose]();
            }
            problems.push(...(await store.problems()).map((problem) => `${call} ${moment}: ${problem}`));
          }
          report(`batches, ${fault} of ${call}: ${store.summary()}`);
          expect(problems).toEqual([]);
          expect(missed).toBeLessThan(count / 3);
          expect(store.load.answered).toBeGreaterThan(count);
          expect(await store.isSound()).toBe(true);
        },
        TIMEOUT_MS,
      );
    }
  });

  describe("a commit that fails", () => {
    for (const call of ["fsync", "pwrite64"]) {
      test(
        `with an I/O error of ${call} answers its batch with 500 storage_failed and reports no success`,
        async () => {
          using dir = tempDir();
          const store = await BatchStore.make(dir, `a failed ${call}`);
          const warmUp = async (server: ServerProcess) => {
            const target = await operatorAt(server.url);
            expect((await importBatch(target, store.token, "warm", 20)).status).toBe(200);
          };
          const calls = await countCalls(store, call, warmUp);
          await using server = await store.start(call, `${call}:error=EIO:when=${calls + 1}`);
          await warmUp(server);
          const response = await importBatch(await operatorAt(server.url), store.token, "doomed", 20);
          const { message, ...rest } = (await response.json()) as { message: string };
          expect([response.status, rest]).toEqual([500, { statusCode: 500, code: "storage_failed" } as never]);
          expect(message).not.toMatch(/SQLITE|disk I\/O|fsync|pwrite/i);
          // As long as it still answers, what needs the store is refused, and not as a defect.
          const later = await administer(await operatorAt(server.url), "GET", "/apps").catch(() => null);
          expect(later?.status ?? 503).toBe(503);
          expect(await server.exited).toBe(EXIT.storageFailed);

          await using again = await store.start();
          const list = await asApp(await operatorAt(again.url), store.token, "/_keys?limit=1000");
          const { keys } = (await list.json()) as { keys: string[] };
          expect(keys.filter((key) => key.startsWith("doomed.")).length).toBeOneOf([0, 20]);
          expect(keys.filter((key) => key.startsWith("warm.")).length).toBe(20);
        },
        TIMEOUT_MS,
      );
    }

    test(
      "for want of space answers its batch with 507, stores nothing of it, and goes on when there is space again",
      async () => {
        using dir = tempDir();
        const store = await BatchStore.make(dir, "no space beside batches");
        const problems: string[] = [];
        for (const moment of faultMoments(bySize(4, 8, 30), bySize(800, 4_000))) {
          // The next two writes of the thread fail as well; while there is no space, one batch in a second is tried.
          const inject = `pwrite64:error=ENOSPC:when=${moment}..${moment + 2}`;
          const server = await store.start("pwrite64", inject).catch(() => null);
          if (server !== null) {
            const target = await operatorAt(server.url);
            await store.load.run(target, store.load.answered + MORE_BATCHES_MAX);
            problems.push(...(await store.load.verify(target)).map((problem) => `at ${moment}: ${problem}`));
            await stop(server);
          }
          problems.push(...(await store.problems()).map((problem) => `after ${moment}: ${problem}`));
        }
        const refused = store.load.answers.get(507) ?? 0;
        report(`batches, ENOSPC: ${store.summary()}, ${refused} refused with 507`);
        expect(problems).toEqual([]);
        expect(refused).toBeGreaterThan(0);
        expect(store.load.answers.get(500) ?? 0).toBe(0);
      },
      TIMEOUT_MS,
    );
  });
}
