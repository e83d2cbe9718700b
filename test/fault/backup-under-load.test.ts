// Backups taken while clients write: each is whole, proven by restoring it, or it is not there at all.

import { describe, expect, test } from "bun:test";
import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { EXIT } from "../../src/shared/errors.ts";
import { DurableLoad, idOf } from "../support/durable-load.ts";
import { eventually } from "../support/eventually.ts";
import { cleanEnv, GOKV, run, type ServerProcess, startServer, untilLogged } from "../support/executable.ts";
import { has, hasProgram } from "../support/needs.ts";
import { AcknowledgedWrites } from "../support/recovered-store.ts";
import { bySize, report } from "../support/run-size.ts";
import { seededRandom } from "../support/seeded-random.ts";
import { strace } from "../support/strace.ts";
import { mint, SECRET } from "../support/targets.ts";
import { tempDir } from "../support/temp-dir.ts";

const BACKUPS = 20;
const TIMEOUT_MS = bySize(180_000, 600_000);
const BUCKET = "load";

interface Restored {
  readonly ids: ReadonlyMap<string, number>;
  readonly etags: ReadonlyMap<string, string>;
}

/** Everything in a store, by the server that has it open. */
async function readAll(url: string, headers: Record<string, string>): Promise<Restored> {
  const keys = (await (await fetch(`${url}/_list?bucket=${BUCKET}`, { headers })).json()) as string[];
  const ids = new Map<string, number>();
  const etags = new Map<string, string>();
  for (const key of keys) {
    const response = await fetch(`${url}/${BUCKET}/${key}`, { headers });
    const id = idOf(new Uint8Array(await response.arrayBuffer()));
    expect([key, response.status, id]).toEqual([key, 200, expect.any(Number)]);
    ids.set(key, id!);
    etags.set(key, response.headers.get("etag")!);
  }
  return { ids, etags };
}

async function backUpByRequest(url: string, headers: Record<string, string>): Promise<string> {
  const response = await fetch(`${url}/_admin/backup`, { method: "POST", headers });
  expect(response.status).toBe(200);
  return ((await response.json()) as { file: string }).file;
}

async function backUpByCommand(dbPath: string, file: string): Promise<string> {
  const finished = await run([GOKV, "backup", file], { env: { DB_PATH: dbPath } });
  expect([finished.exitCode, finished.stderr]).toEqual([EXIT.done, expect.any(String)]);
  return file;
}

/** Restores `file` into a store of its own and reads all of it. */
async function restore(file: string, dbPath: string, headers: Record<string, string>): Promise<Restored> {
  const env = { JWT_SECRET: SECRET, DB_PATH: dbPath, RESERVE_BYTES: "0" };
  expect((await run([GOKV, "check", file], { env })).exitCode).toBe(EXIT.done);
  expect((await run([GOKV, "restore", file], { env })).exitCode).toBe(EXIT.done);
  await using server = await startServer(env);
  return await readAll(server.url, headers);
}

describe("a backup beside clients that write", () => {
  test(
    "holds every write that was acknowledged before it began, and restores; no ETag comes back",
    async () => {
      using dir = tempDir();
      const data = dir.file("data");
      const env = { JWT_SECRET: SECRET, DB_PATH: data, ACCESS_LOG: "off", RESERVE_BYTES: "0" };
      const headers = { Authorization: `Bearer ${await mint()}` };
      const server = await startServer(env);
      const random = seededRandom("load beside backups");
      const sizes = [100, 100, 2_000, 30_000];
      const load = new DurableLoad({
        token: await mint(),
        random,
        clients: 4,
        keysPerClient: 40,
        sizes,
        bucket: BUCKET,
      });
      const running = load.run(server.url);
      const lost: string[] = [];
      let oldest: string | null = null;
      for (let n = 0; n < BACKUPS; n++) {
        const acknowledged = load.lastAcknowledged();
        const file: string = await (n % 2 === 0
          ? backUpByRequest(server.url, headers)
          : backUpByCommand(data, dir.file(`backup-${n}.db`)));
        oldest ??= file;
        expect(statSync(file).mode & 0o777).toBe(0o600);
        const restored = await restore(file, dir.file(`restored-${n}`), headers);
        const known = new AcknowledgedWrites(load.attempts);
        for (const id of acknowledged) known.acknowledge(id);
        lost.push(...known.lostIn(restored.ids).map((key) => `backup ${n}: ${key}`));
      }
      load.stop();
      await running;
      report(`backups under load: ${BACKUPS} restored, ${load.acknowledgements} acknowledgements, ${lost.length} lost`);
      expect(lost).toEqual([]);
      expect(load.unexpected).toEqual([]);
      expect(load.acknowledgements).toBeGreaterThan(BACKUPS * 10);
      await stop(server);
      await expectNewEtags(env, oldest!, load);
      // Nobody can tell any more what that store has given out.
      await Bun.write(join(data, "gokv.db"), new Uint8Array(20_000));
      await expectNewEtags(env, oldest!, load);
    },
    TIMEOUT_MS,
  );
});

async function stop(server: ServerProcess): Promise<void> {
  server.kill("SIGTERM");
  expect(await server.exited).toBe(EXIT.done);
}

/** Puts the oldest backup in the place of the store: an ETag given out before or since never means other bytes. */
async function expectNewEtags(env: Record<string, string>, backup: string, load: DurableLoad): Promise<void> {
  const headers = { Authorization: `Bearer ${await mint()}` };
  expect((await run([GOKV, "restore", backup], { env })).exitCode).toBe(EXIT.done);
  await using server = await startServer(env);
  const { ids, etags } = await readAll(server.url, headers);
  const strange = [...etags].filter(([key, etag]) => load.etags.get(etag) !== ids.get(key));
  expect(strange).toEqual([]);
  for (let n = 0; n < 50; n++) {
    const response = await fetch(`${server.url}/${BUCKET}/new-${n}`, { method: "PUT", headers, body: "x" });
    const etag = response.headers.get("etag")!;
    expect([etag, load.etags.has(etag)]).toEqual([etag, false]);
    load.etags.set(etag, 0);
  }
  await stop(server);
}

if (has("strace", hasProgram("strace"))) {
  describe("a backup that does not come to its end", () => {
    /** Each page that is copied takes a while. */
    const slowly = (output: string, delayMicroseconds = 1000) =>
      strace({ output, calls: ["pwrite64"], inject: [`pwrite64:delay_enter=${delayMicroseconds}`] });
    const fill = async (url: string, headers: Record<string, string>, megabytes: number) => {
      for (let n = 0; n < megabytes; n++) {
        const body = new Uint8Array(1_000_000);
        expect((await fetch(`${url}/${BUCKET}/${n}`, { method: "POST", headers, body })).status).toBe(200);
      }
    };
    const partialIn = (directory: string) =>
      existsSync(directory) && readdirSync(directory).some((name) => name.includes(".partial-"));

    /** The bytes of a copy that grows in `directory`. */
    const copiedIn = (directory: string): number => {
      const name = readdirSync(directory).find((candidate) => /\.partial-\d+-[0-9a-f]{8}$/.test(candidate));
      return name === undefined ? 0 : (statSync(join(directory, name), { throwIfNoEntry: false })?.size ?? 0);
    };

    test("because the command was killed leaves no file of the name that was asked for", async () => {
      using dir = tempDir();
      const env = { JWT_SECRET: SECRET, DB_PATH: dir.file("data"), RESERVE_BYTES: "0" };
      await using server = await startServer(env);
      await fill(server.url, { Authorization: `Bearer ${await mint()}` }, 8);
      const child = Bun.spawn([...slowly(dir.file("trace")), GOKV, "backup", dir.file("b.db")], {
        env: cleanEnv(env),
        stdio: ["ignore", "ignore", "ignore"],
      });
      await eventually("the copy has begun", 5_000, () => partialIn(dir.path));
      child.kill("SIGKILL");
      await child.exited;
      expect(existsSync(dir.file("b.db"))).toBe(false);
      expect((await run([GOKV, "backup", dir.file("b.db")], { env })).exitCode).toBe(EXIT.done);
    });

    /** Starts a command whose calls of one kind are slow. */
    const startSlowly = (env: Record<string, string>, call: string, microseconds: number, args: string[]) =>
      Bun.spawn(
        [
          ...strace({ output: env.TRACE!, calls: [call], inject: [`${call}:delay_enter=${microseconds}`] }),
          GOKV,
          ...args,
        ],
        { env: cleanEnv(env), stdio: ["ignore", "ignore", "pipe"] },
      );

    test(
      "because the command was interrupted leaves no file at all, and ends as a shell expects",
      async () => {
        using dir = tempDir();
        const [data, trace] = [dir.file("data"), dir.file("trace")];
        const env = { JWT_SECRET: SECRET, DB_PATH: data, RESERVE_BYTES: "0", TRACE: trace };
        await using server = await startServer(env);
        await fill(server.url, { Authorization: `Bearer ${await mint()}` }, 8);
        for (const [signal, exitCode] of [
          ["SIGINT", 130],
          ["SIGTERM", 143],
        ] as const) {
          for (const [args, folder] of [
            [["backup", dir.file("b.db")], dir.path],
            [["check"], data],
            [["export"], data],
          ] as const) {
            const child = startSlowly(env, "pwrite64", 1000, [...args]);
            await eventually("the copy has begun", 5_000, () => partialIn(folder));
            child.kill(signal);
            expect([args[0], await child.exited]).toEqual([args[0], exitCode]);
            expect([args[0], partialIn(folder), existsSync(dir.file("b.db"))]).toEqual([args[0], false, false]);
          }
        }
      },
      TIMEOUT_MS,
    );

    test("because the command was interrupted while it proved the copy leaves no file at all", async () => {
      using dir = tempDir();
      const env = { JWT_SECRET: SECRET, DB_PATH: dir.file("data"), RESERVE_BYTES: "0", TRACE: dir.file("trace") };
      const server = await startServer(env);
      await fill(server.url, { Authorization: `Bearer ${await mint()}` }, 8);
      await stop(server);
      const child = startSlowly(env, "pread64", 1000, ["backup", dir.file("b.db")]);
      const { size } = statSync(dir.file("data", "gokv.db"));
      await eventually("all is copied", 20_000, () => copiedIn(dir.path) >= size);
      child.kill("SIGINT");
      expect(await child.exited).toBe(130);
      expect([partialIn(dir.path), existsSync(dir.file("b.db"))]).toEqual([false, false]);
    });

    test(
      "of a command because too much is written meanwhile is reported and leaves no file",
      async () => {
        using dir = tempDir();
        const [data, trace] = [dir.file("data"), dir.file("trace")];
        const env = { JWT_SECRET: SECRET, DB_PATH: data, RESERVE_BYTES: "0", WAL_LIMIT_BYTES: "1MiB", TRACE: trace };
        const headers = { Authorization: `Bearer ${await mint()}` };
        await using server = await startServer(env);
        await fill(server.url, headers, 20);
        for (const args of [["backup", dir.file("b.db")], ["check"], ["export"]]) {
          await eventually("the log was cut back", 10_000, async () => {
            await fill(server.url, headers, 1);
            return statSync(dir.file("data", "gokv.db-wal")).size <= 2 * 1024 * 1024;
          });
          const child = startSlowly(env, "pwrite64", 3000, [...args]);
          // Only then does it hold the log.
          await eventually("pages are copied", 5_000, () => copiedIn(dir.path) > 0 || copiedIn(data) > 0);
          for (let n = 0; n < 60 && child.exitCode === null; n++) await fill(server.url, headers, 1);
          expect([args[0], await child.exited]).toEqual([args[0], EXIT.failed]);
          expect(await new Response(child.stderr).text()).toContain("Too much was written while the store was copied");
          expect([partialIn(dir.path), partialIn(data), existsSync(dir.file("b.db"))]).toEqual([false, false, false]);
        }
      },
      TIMEOUT_MS,
    );

    test("because the server stops leaves no file at all", async () => {
      using dir = tempDir();
      const env = { JWT_SECRET: SECRET, DB_PATH: dir.file("data"), RESERVE_BYTES: "0", SHUTDOWN_TIMEOUT: "100ms" };
      const headers = { Authorization: `Bearer ${await mint()}` };
      const quick = await startServer(env);
      await fill(quick.url, headers, 16);
      await stop(quick);
      const server = await startServer(env, slowly(dir.file("trace")));
      const asked = fetch(`${server.url}/_admin/backup`, { method: "POST", headers }).catch(() => null);
      await eventually("the copy has begun", 5_000, () => partialIn(dir.file("data", "backups")));
      await stop(server);
      expect((await asked)?.status ?? 500).not.toBe(200);
      expect(readdirSync(dir.file("data", "backups"))).toEqual([]);
    });

    test(
      "because too much is written meanwhile is reported and leaves no file",
      async () => {
        using dir = tempDir();
        const env = { JWT_SECRET: SECRET, DB_PATH: dir.file("data"), RESERVE_BYTES: "0", WAL_LIMIT_BYTES: "1MiB" };
        const headers = { Authorization: `Bearer ${await mint()}` };
        const quick = await startServer(env);
        await fill(quick.url, headers, 30);
        await stop(quick);
        await using server = await startServer(env, slowly(dir.file("trace"), 300));
        let isOver = false;
        const asked = fetch(`${server.url}/_admin/backup`, { method: "POST", headers }).finally(() => {
          isOver = true;
        });
        for (let n = 0; !isOver && n < 60; n++) await fill(server.url, headers, 1);
        const response = await asked;
        expect([response.status, ((await response.json()) as { code: string }).code]).toEqual([500, "internal_error"]);
        await untilLogged(server, /Too much was written while the store was copied/);
        expect(readdirSync(join(dir.file("data"), "backups"))).toEqual([]);
        await eventually("a backup succeeds again, once the log was cut back", 10_000, async () => {
          await fill(server.url, headers, 1);
          return (await fetch(`${server.url}/_admin/backup`, { method: "POST", headers })).ok;
        });
      },
      TIMEOUT_MS,
    );
  });
}
