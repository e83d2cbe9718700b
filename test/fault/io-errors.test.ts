// Every n-th write and fsync fails: the server never acknowledges what may be gone, stops itself, and starts again with
// all that it had acknowledged.

import { Database } from "bun:sqlite";
import { describe, expect, test } from "bun:test";
import { EXIT } from "../../src/shared/errors.ts";
import { acknowledgedTooEarly } from "../support/acknowledged-in-trace.ts";
import { crashEvents, REPLAYED_CALLS } from "../support/crash-states.ts";
import { DurableLoad } from "../support/durable-load.ts";
import { GOKV, run, type ServerProcess, startServer } from "../support/executable.ts";
import { faultMoments } from "../support/fault-moments.ts";
import { expectTime } from "../support/figures-in-bounds.ts";
import { has, hasProgram } from "../support/needs.ts";
import { bySize, report } from "../support/run-size.ts";
import { seededRandom } from "../support/seeded-random.ts";
import { strace } from "../support/strace.ts";
import { pathOfDescriptor, readTrace, type TracedCall } from "../support/system-call-trace.ts";
import { mint, SECRET } from "../support/targets.ts";
import { type TempDir, tempDir } from "../support/temp-dir.ts";

const TIMEOUT_MS = bySize(120_000, 1_200_000);
const SIZES = [100, 3_000, 100_000];
const CLIENTS = 8;
/** Beyond those of the moment that is waited for. */
const ACKNOWLEDGEMENTS_MORE = 300;
/** Calls that change the files of the store. */
const CHANGES = new Set(["pwrite64", "fsync", "fdatasync", "ftruncate", "write", "unlink", "rename"]);

/** Everything about a store in a folder that several servers open one after the other. */
class FailingStore {
  readonly dir: TempDir;
  readonly data: string;
  readonly trace: string;
  readonly token: string;
  readonly load: DurableLoad;
  readonly env: Record<string, string>;

  constructor(dir: TempDir, token: string) {
    this.dir = dir;
    this.data = dir.file("data");
    this.trace = dir.file("trace");
    this.token = token;
    const random = seededRandom("load on a failing disk");
    this.load = new DurableLoad({ token, random, clients: CLIENTS, keysPerClient: 5, sizes: SIZES });
    this.env = {
      JWT_SECRET: SECRET,
      DB_PATH: this.data,
      ACCESS_LOG: "off",
      RESERVE_BYTES: "0",
      WAL_LIMIT_BYTES: "1MiB",
    };
  }

  get wal(): string {
    return `${this.data}/gokv.db-wal`;
  }

  /** @throws Error when the fault already stops the start */
  startFailing(...inject: string[]): Promise<ServerProcess> {
    const calls = [...new Set([...REPLAYED_CALLS, "pread64"])];
    return startServer(this.env, strace({ output: this.trace, calls, inject, bytesKept: 1_000_000 }));
  }

  async stopped(server: ServerProcess): Promise<void> {
    server.kill("SIGTERM");
    expect(await server.exited).toBe(EXIT.done);
  }

  fetch(server: ServerProcess, path: string, init: RequestInit = {}): Promise<Response> {
    return fetch(`${server.url}${path}`, { ...init, headers: { Authorization: `Bearer ${this.token}` } });
  }

  /** What the next start finds wrong. */
  async problems(): Promise<string[]> {
    await using server = await startServer(this.env);
    const problems = await this.load.verify(server.url);
    await this.stopped(server);
    return [...problems, ...this.load.unexpected];
  }
}

/** The first call that strace made fail, and those on the store that came after it. */
function afterFailure(store: FailingStore): { failure: TracedCall | null; later: string[]; endedAt: number } {
  const { calls, endedAt } = readTrace(store.trace);
  const failure = calls.find((call) => call.isInjected) ?? null;
  const later = calls.filter((call) => failure !== null && call.begun > failure.begun && CHANGES.has(call.name));
  const onStore = later.filter((call) => `${pathOfDescriptor(call)}${call.arguments}`.includes("gokv.db"));
  return { failure, later: onStore.map((call) => `${call.name} ${pathOfDescriptor(call)}`), endedAt };
}

interface Tally {
  failures: number;
  failedStarts: number;
  slowestExitMs: number;
  problems: string[];
}

/** One life in which the n-th `call` of a thread fails once; every later one would work again. */
async function failOnce(store: FailingStore, call: string, moment: number, tally: Tally): Promise<void> {
  const complain = (problem: string) => void tally.problems.push(`${call} ${moment}: ${problem}`);
  const { load } = store;
  const server = await store.startFailing(`${call}:error=EIO:when=${moment}`).catch(() => null);
  if (server === null) tally.failedStarts++;
  else {
    // A commit syncs once or more and holds at most one write of each client.
    await load.run(server.url, load.acknowledgements + CLIENTS * moment + ACKNOWLEDGEMENTS_MORE);
    // Without effect on a process that is ending by itself.
    server.kill("SIGTERM");
  }
  const exitCode = await server?.exited;
  const { failure, later, endedAt } = afterFailure(store);
  if (failure === null) return complain("no call failed");
  tally.failures++;
  // SQLite does not care whether the name of a new log lasts, nor does it have to: the server saw to that at its start.
  const isIgnored = pathOfDescriptor(failure) === store.data;
  if (server !== null && !isIgnored) {
    if (exitCode !== EXIT.storageFailed) complain(`exit code ${exitCode}`);
    if (!/"level":"fatal"/.test(server.log())) complain("no fatal line in the log");
    tally.slowestExitMs = Math.max(tally.slowestExitMs, (endedAt - failure.beganAt) * 1000);
    if (later.length > 0) complain(`went on: ${later.join()}`);
  }
  const early = acknowledgedTooEarly(crashEvents(readTrace(store.trace), store.data), load.attempts, store.wal);
  if (early.length > 0) complain(`false acknowledgements: ${early.join()}`);
  for (const problem of await store.problems()) complain(problem);
}

/** fsyncs of one thread on the store in the trace: on a store like this, the next one of that thread is one more. */
function syncsOfStorageThread(store: FailingStore): number {
  const syncs = readTrace(store.trace).calls.filter((call) => call.name === "fsync");
  const { thread } = syncs.findLast((call) => pathOfDescriptor(call) === store.wal)!;
  return syncs.filter((call) => call.thread === thread).length;
}

if (has("strace", hasProgram("strace"))) {
  describe("an I/O error", () => {
    const cases = [
      ["fsync", faultMoments(bySize(12, 20, 80), bySize(60, 100, 300))],
      ["pwrite64", faultMoments(bySize(12, 24, 80), bySize(1_500, 3_000, 6_000))],
    ] as const;
    for (const [call, when] of cases) {
      test(
        `of the n-th ${call} ends the process, and nothing acknowledged is gone`,
        async () => {
          using dir = tempDir();
          const store = new FailingStore(dir, await mint());
          const tally: Tally = { failures: 0, failedStarts: 0, slowestExitMs: 0, problems: [] };
          for (const moment of when) await failOnce(store, call, moment, tally);
          report(
            `EIO of ${call}: ${tally.failures} failures, ${tally.failedStarts} of them at the start, ` +
              `${store.load.acknowledgements} acknowledgements, ` +
              `exit after at most ${tally.slowestExitMs.toFixed(0)} ms`,
          );
          expect(tally.problems).toEqual([]);
          expect(tally.failedStarts).toBeLessThan(tally.failures);
          expectTime("the slowest exit", tally.slowestExitMs, 1_000);
          expect((await run([GOKV, "check"], { env: { DB_PATH: store.data } })).exitCode).toBe(EXIT.done);
        },
        TIMEOUT_MS,
      );
    }

    test("of the directory refuses the start, because the name of the log would not last", async () => {
      using dir = tempDir();
      const store = new FailingStore(dir, await mint());
      await store.stopped(await startServer(store.env));
      await expect(store.startFailing("fsync:error=EIO:when=1")).rejects.toThrow("ended with 1 before it listened");
      expect(pathOfDescriptor(afterFailure(store).failure!)).toBe(store.data);
    });

    test(
      "of a commit leaves no write of its batch with a 2xx, and the server says that it is not ready",
      async () => {
        using dir = tempDir();
        const store = new FailingStore(dir, await mint());
        await store.stopped(await startServer(store.env));
        const warmUp = async (server: ServerProcess) => {
          for (const key of ["a", "b", "c"]) {
            expect((await store.fetch(server, `/warm/${key}`, { method: "POST", body: key })).status).toBe(200);
          }
        };
        const counted = await store.startFailing();
        await warmUp(counted);
        counted.kill("SIGKILL");
        await counted.exited;
        const syncs = syncsOfStorageThread(store);
        await store.stopped(await startServer(store.env));

        await using server = await store.startFailing(`fsync:error=EIO:when=${syncs + 1}`);
        await warmUp(server);
        const answers = await Promise.all(
          Array.from({ length: 40 }, async (_, index) => {
            const response = await store.fetch(server, `/batch/${index}`, { method: "POST", body: "x" });
            return [response.status, ((await response.json()) as { code: string }).code] as const;
          }),
        );
        expect(answers).toEqual(Array.from({ length: 40 }, () => [500, "storage_failed"] as const));
        const readiness = await store.fetch(server, "/readyz").catch(() => null);
        expect(readiness?.status ?? 503).toBe(503);
        const liveness = await store.fetch(server, "/livez").catch(() => null);
        expect(liveness?.status ?? 503).toBe(503);
        expect(await server.exited).toBe(EXIT.storageFailed);
      },
      TIMEOUT_MS,
    );
  });

  describe("a write that finds no space", () => {
    test(
      "the n-th time is refused with 507, and writes go on when there is space again",
      async () => {
        using dir = tempDir();
        const store = new FailingStore(dir, await mint());
        const problems: string[] = [];
        for (const moment of faultMoments(bySize(6, 12, 60), bySize(1_000, 4_000, 6_000))) {
          // The next 25 writes of the thread fail as well.
          const inject = `pwrite64:error=ENOSPC:when=${moment}..${moment + 24}`;
          const server = await store.startFailing(inject).catch(() => null);
          if (server !== null) {
            await store.load.run(server.url, store.load.acknowledgements + ACKNOWLEDGEMENTS_MORE);
            problems.push(...(await store.load.verify(server.url)).map((problem) => `at ${moment}: ${problem}`));
            server.kill("SIGTERM");
            if ((await server.exited) !== EXIT.done) problems.push(`at ${moment}: the process ended by itself`);
          }
          problems.push(...(await store.problems()).map((problem) => `after ${moment}: ${problem}`));
        }
        const refused = store.load.answers.get(507) ?? 0;
        report(`ENOSPC: ${store.load.acknowledgements} acknowledgements, ${refused} refused with 507`);
        expect(problems).toEqual([]);
        expect(refused).toBeGreaterThan(0);
        expect(store.load.answers.get(500) ?? 0).toBe(0);
      },
      TIMEOUT_MS,
    );
  });

  describe("a read that fails", () => {
    test(
      "answers 500 without a word of the engine",
      async () => {
        using dir = tempDir();
        const store = new FailingStore(dir, await mint());
        const keys = Array.from({ length: 300 }, (_, index) => `k${index}`);
        const first = await startServer(store.env);
        const body = new Uint8Array(9_000);
        for (const key of keys) await store.fetch(first, `/b/${key}`, { method: "POST", body });
        await store.stopped(first);

        store.env.STARTUP_CHECK = "never";
        // Enough reads for a thread to open the database and to serve some keys.
        await using server = await store.startFailing("pread64:error=EIO:when=60+");
        const failed: string[] = [];
        let served = 0;
        for (const key of keys) {
          const response = await store.fetch(server, `/b/${key}`);
          if (response.status === 200) served++;
          else failed.push(`${response.status} ${await response.text()}`);
        }
        expect(served).toBeGreaterThan(0);
        // SQLite takes a page that cannot be read for a damaged one.
        const answer = '{"statusCode":500,"message":"The stored data is damaged.","code":"value_damaged"}';
        expect([...new Set(failed)]).toEqual([`500 ${answer}`]);
      },
      TIMEOUT_MS,
    );
  });
}

describe("one entry of a batch that the store refuses", () => {
  test("fails alone: the others are acknowledged and last", async () => {
    using dir = tempDir();
    const store = new FailingStore(dir, await mint());
    await store.stopped(await startServer(store.env));
    {
      using database = new Database(`${store.data}/gokv.db`);
      database.run(
        "CREATE TRIGGER refuse BEFORE INSERT ON kv WHEN new.key LIKE 'bad%' BEGIN SELECT RAISE(ABORT, 'no'); END",
      );
    }
    const server = await startServer(store.env);
    const keys = Array.from({ length: 60 }, (_, index) => (index % 20 === 7 ? `bad${index}` : `good${index}`));
    const answers = await Promise.all(
      keys.map(async (key) => {
        const response = await store.fetch(server, `/b/${key}`, { method: "POST", body: key });
        return [key, response.status, await response.text()] as const;
      }),
    );
    for (const [key, status, text] of answers) {
      expect([key, status]).toEqual([key, key.startsWith("bad") ? 500 : 200]);
      expect(text).not.toMatch(/RAISE|trigger|SQLITE|constraint/i);
    }
    server.kill("SIGKILL");
    await server.exited;
    await using again = await startServer(store.env);
    const list = await store.fetch(again, "/_list?bucket=b");
    expect(await list.json()).toEqual(keys.filter((key) => key.startsWith("good")).sort());
  });
});
