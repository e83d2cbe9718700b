// One process per store: a second one is turned away, and the first does not even notice.

import { Database } from "bun:sqlite";
import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync, symlinkSync } from "node:fs";
import { relative } from "node:path";
import { type Finished, GOKV, ROOT, run, startServer } from "../support/executable.ts";
import { forgeToken } from "../support/forge-token.ts";
import { openInProcess, SECRET } from "../support/targets.ts";
import { type TempDir, tempDir } from "../support/temp-dir.ts";

// Many processes are started; on a busy machine that takes its time.
setDefaultTimeout(120_000);

/** The lock must hold for as long as the process lives; a minute of idling would show no more than this. */
const IDLE_MS = 1500;

let dir: TempDir;
beforeEach(() => {
  dir = tempDir();
});
afterEach(() => dir[Symbol.dispose]());

const settings = () => ({ JWT_SECRET: SECRET, DB_PATH: dir.file("data") });
const headers = { Authorization: `Bearer ${forgeToken()}` };

/** Another gokv on the data directory `path`. */
const another = (path: string, args: readonly string[] = []): Promise<Finished> =>
  run([GOKV, ...args], { env: { JWT_SECRET: SECRET, DB_PATH: path, PORT: "0", HOST: "127.0.0.1" }, cwd: ROOT });

async function expectTurnedAway(finished: Promise<Finished>): Promise<void> {
  const { exitCode, stdout, stderr } = await finished;
  expect([exitCode, stdout]).toEqual([3, ""]);
  expect(stderr).toMatch(/gokv: Another gokv has .* open\. Stop it, or set DB_PATH to another data directory\.\n$/);
}

/** Writes numbered keys one after the other until it is told to stop; every answer must be 200. */
function startWriting(url: string): { stop(): Promise<number> } {
  let isStopping = false;
  const writing = (async () => {
    let count = 0;
    for (; !isStopping; count++) {
      const answer = await fetch(`${url}/b/${count}`, { method: "POST", body: `${count}`, headers });
      expect(answer.status).toBe(200);
    }
    return count;
  })();
  return {
    stop() {
      isStopping = true;
      return writing;
    },
  };
}

describe("a second gokv on a store", () => {
  test("ends with 3, by whatever path it comes, while the first goes on undisturbed", async () => {
    await using server = await startServer(settings());
    const writing = startWriting(server.url);
    symlinkSync(dir.file("data"), dir.file("link"));
    for (const path of ["data", "link", "data/", "./data/../data"]) await expectTurnedAway(another(dir.file(path)));
    await expectTurnedAway(another(relative(ROOT, dir.file("data"))));
    await Promise.all(Array.from({ length: 4 }, () => expectTurnedAway(another(dir.file("data")))));
    const count = await writing.stop();
    expect(count).toBeGreaterThan(10);
    const listed = (await (await fetch(`${server.url}/_list?bucket=b`, { headers })).json()) as string[];
    expect(listed).toHaveLength(count);
    server.kill("SIGKILL");
    await server.exited;
    await using recovered = await startServer(settings());
    expect(await (await fetch(`${recovered.url}/_list?bucket=b`, { headers })).json()).toEqual(listed);
  });

  test("leaves no file behind", async () => {
    await using server = await startServer({ ...settings(), RESERVE_BYTES: "0" });
    await fetch(`${server.url}/b/k`, { method: "POST", body: "x", headers });
    const before = readdirSync(dir.file("data")).sort();
    await expectTurnedAway(another(dir.file("data")));
    await expectTurnedAway(another(dir.file("data"), ["restore", GOKV]));
    await expectTurnedAway(another(dir.file("data"), ["import", "-"]));
    expect(readdirSync(dir.file("data")).sort()).toEqual(before);
  });

  test("may start as soon as the first was killed", async () => {
    for (let round = 0; round < 3; round++) {
      await using server = await startServer(settings());
      await expectTurnedAway(another(dir.file("data")));
      server.kill("SIGKILL");
      await server.exited;
    }
    await using last = await startServer(settings());
    expect((await fetch(`${last.url}/readyz`)).status).toBe(200);
  });

  test("may start as soon as the first has stopped by itself", async () => {
    await using server = await startServer(settings());
    server.kill("SIGTERM");
    expect(await server.exited).toBe(0);
    await using next = await startServer(settings());
    expect((await fetch(`${next.url}/readyz`)).status).toBe(200);
  });
});

describe("the lock of a store", () => {
  test("survives garbage collection and idling", async () => {
    await using target = await openInProcess();
    for (let round = 0; round < 3; round++) {
      Bun.gc(true);
      await Bun.sleep(IDLE_MS / 3);
    }
    await expectTurnedAway(another(target.dbPath));
    expect((await target.fetch("/b/k", { method: "POST", body: "still mine" })).status).toBe(200);
  });

  test("survives the garbage of many requests in the executable, and idling", async () => {
    await using server = await startServer(settings());
    const body = Buffer.alloc(2 * 1024 * 1024, 1);
    for (let round = 0; round < 20; round++) {
      await fetch(`${server.url}/b/large`, { method: "POST", body, headers });
      await (await fetch(`${server.url}/b/large`, { headers })).arrayBuffer();
    }
    await Bun.sleep(IDLE_MS);
    await expectTurnedAway(another(dir.file("data")));
  });

  test("would be seen to vanish: a lock whose database nobody refers to is gone after a collection", async () => {
    const path = dir.file("lock.db");
    const isFree = () => {
      using database = new Database(path);
      try {
        database.run("BEGIN EXCLUSIVE");
        return true;
      } catch {
        return false;
      }
    };
    (() => new Database(path, { create: true }).run("BEGIN EXCLUSIVE"))();
    expect(isFree()).toBe(false);
    for (let round = 0; round < 20 && !isFree(); round++) {
      Bun.gc(true);
      await Bun.sleep(10);
    }
    expect(isFree()).toBe(true);
  });
});
