// What the server and its commands make of a data directory that lacks a file, or has something else in its place.

import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { type Finished, GOKV, run, type ServerProcess, startServer, stop, whileKilled } from "../support/executable.ts";
import { forgeToken } from "../support/forge-token.ts";
import { has, hasProgram, isRoot } from "../support/needs.ts";
import { mountSmallVolume } from "../support/small-volume.ts";
import { strace } from "../support/strace.ts";
import { SECRET } from "../support/targets.ts";
import { type TempDir, tempDir } from "../support/temp-dir.ts";
import { WAL_FRAME_HEADER_BYTES } from "../support/wal-file.ts";

// Many processes are started; on a busy machine that takes its time.
setDefaultTimeout(120_000);

let dir: TempDir;
beforeEach(() => {
  dir = tempDir();
});
afterEach(() => dir[Symbol.dispose]());

const DONE = { exitCode: 0, stderr: "" };
const FRAME_BYTES = WAL_FRAME_HEADER_BYTES + 4096;
const headers = { Authorization: `Bearer ${forgeToken()}` };
const KEPT = /^gokv\.db\.before-\d{8}T\d{9}Z/;

const serve = (data = "data"): Promise<ServerProcess> => startServer({ JWT_SECRET: SECRET, DB_PATH: dir.file(data) });

const gokv = (args: readonly string[], data = "data", stdin = ""): Promise<Finished> =>
  // A server that is not refused, or waits for a pipe, would go on for ever.
  run(["timeout", "20", GOKV, ...args], {
    env: { DB_PATH: dir.file(data), JWT_SECRET: SECRET, PORT: "0", HOST: "127.0.0.1" },
    cwd: dir.path,
    stdin,
  });

/** The ends with which the server and all commands that read or change a store refuse the one in `data`. */
async function expectRefusals(exitCode: number, problem: RegExp, data = "data"): Promise<void> {
  for (const args of [["serve"], ["check"], ["export"], ["import", "-"], ["backup", "b.db"]]) {
    const finished = await gokv(args, data);
    expect([args, finished.exitCode, finished.stdout]).toEqual([args, exitCode, ""]);
    const lines = finished.stderr.split("\n").filter((line) => line.startsWith("gokv: "));
    expect([args, lines]).toEqual([args, [expect.stringMatching(problem)]]);
    expect([args, finished.stderr]).not.toEqual([args, expect.stringContaining("unexpected failure")]);
  }
  expect(existsSync(dir.file("b.db"))).toBe(false);
}

async function put(url: string, from: number, end: number): Promise<void> {
  for (let number = from; number < end; number++) {
    const answer = await fetch(`${url}/n/${number}`, { method: "POST", body: `value ${number}`, headers });
    expect(answer.status).toBe(200);
  }
}

const keysAt = async (url: string): Promise<string[]> =>
  ((await (await fetch(`${url}/_list?bucket=n`, { headers })).json()) as string[])
    .map(Number)
    .sort((a, b) => a - b)
    .map(String);

async function keysIn(data = "data"): Promise<string[]> {
  await using server = await serve(data);
  const keys = await keysAt(server.url);
  await stop(server);
  return keys;
}

/** A backup of the keys 0 to 2, and a killed store in which they were followed by 3 to 22, all of it in its log. */
async function backupAndKilledStore(): Promise<void> {
  await whileKilled(serve("data"), async (url) => {
    await put(url, 0, 3);
    expect(await gokv(["backup", "b.db"])).toMatchObject(DONE);
    await put(url, 3, 23);
  });
  renameSync(dir.file("b.db"), dir.file("backup.db"));
}

const numbers = (end: number) => Array.from({ length: end }, (_, number) => `${number}`);
const namesIn = (data = "data") => readdirSync(dir.file(data)).filter((name) => name.startsWith("gokv.db"));

describe("a store whose database file was lost, and whose log was not", () => {
  for (const [what, lose] of [
    ["missing", () => rmSync(dir.file("data", "gokv.db"))],
    ["empty", () => writeFileSync(dir.file("data", "gokv.db"), "")],
  ] as const) {
    test(`is refused by server and commands when the file is ${what}, and is whole once it is back`, async () => {
      await backupAndKilledStore();
      cpSync(dir.file("data", "gokv.db"), dir.file("lost.db"));
      const log = readFileSync(dir.file("data", "gokv.db-wal"));
      lose();
      await expectRefusals(4, new RegExp(`gokv\\.db is ${what}, and its write-ahead log .*gokv\\.db-wal holds `));
      expect(readFileSync(dir.file("data", "gokv.db-wal"))).toEqual(log);
      cpSync(dir.file("lost.db"), dir.file("data", "gokv.db"));
      expect(await keysIn()).toEqual(numbers(23));
    });

    test(`is replaced by a restore when the file is ${what}: nothing of the old log gets into the backup`, async () => {
      await backupAndKilledStore();
      cpSync(dir.file("data", "gokv.db"), dir.file("lost.db"));
      const log = readFileSync(dir.file("data", "gokv.db-wal"));
      lose();
      const restored = await gokv(["restore", "backup.db"]);
      expect(restored).toMatchObject(DONE);
      expect((await gokv(["check"])).stdout).toStartWith("sound: 3 entries");
      expect(await keysIn()).toEqual(numbers(3));
      const kept = namesIn().find((name) => KEPT.test(name) && name.endsWith("-wal"))!;
      expect(restored.stdout).toContain(KEPT.exec(kept)![0]);
      expect(readFileSync(dir.file("data", kept))).toEqual(log);
      // With the file that was lost it is the old store again.
      mkdirSync(dir.file("old"), { mode: 0o700 });
      cpSync(dir.file("lost.db"), dir.file("old", "gokv.db"));
      cpSync(dir.file("data", kept), dir.file("old", "gokv.db-wal"));
      expect(await keysIn("old")).toEqual(numbers(23));
    });
  }

  test("a file without any table, as a first start that was killed leaves it, is named in words", async () => {
    await whileKilled(serve("data"), (url) => put(url, 0, 1));
    for (const name of namesIn()) rmSync(dir.file("data", name));
    writeFileSync(dir.file("data", "gokv.db"), "");
    for (const args of [["check"], ["export"], ["backup", "b.db"]]) {
      const stderr = expect.stringMatching(/^gokv: .*gokv\.db holds no store yet.*\n$/);
      expect([args, await gokv(args)]).toEqual([args, { exitCode: 4, stdout: "", stderr }]);
    }
    expect(await keysIn()).toEqual([]);
  });
});

describe("a restore that was killed when it had moved the old log away", () => {
  if (!has("strace", hasProgram("strace"))) return;

  /** Killed in the last rename: those before it are of the draft, and of the log and its index. */
  async function killedRestore(): Promise<void> {
    const calls = ["rename", "renameat", "renameat2"];
    const inject = [`${calls.join(",")}:signal=KILL:when=4`];
    const wrapper = strace({ output: dir.file("trace"), calls, inject });
    const options = { env: { DB_PATH: dir.file("data") }, cwd: dir.path };
    expect((await run([...wrapper, GOKV, "restore", "backup.db"], options)).exitCode).toBe(137);
    expect(namesIn()).toContainEqual(expect.stringMatching(/^gokv\.db\.restored-/));
  }

  /** So that the log is not copied into the file first. */
  function damageLog(): void {
    const log = readFileSync(dir.file("data", "gokv.db-wal"));
    log[log.length - 12 * FRAME_BYTES + 100]! ^= 1;
    writeFileSync(dir.file("data", "gokv.db-wal"), log);
  }

  test("is told by the server and every command, and done by the next restore, which keeps the old store", async () => {
    await backupAndKilledStore();
    damageLog();
    const log = readFileSync(dir.file("data", "gokv.db-wal"));
    const database = readFileSync(dir.file("data", "gokv.db"));
    await killedRestore();
    expect(namesIn()).not.toContain("gokv.db-wal");
    await expectRefusals(4, /A restore was interrupted: .* Run gokv restore FILE again/);
    const restored = await gokv(["restore", "backup.db"]);
    expect(restored).toMatchObject(DONE);
    expect(await keysIn()).toEqual(numbers(3));
    const kept = /the old store is .*\/(gokv\.db\.before-\w+)\n/.exec(restored.stdout)![1]!;
    expect(readFileSync(dir.file("data", kept))).toEqual(database);
    expect(readFileSync(dir.file("data", `${kept}-wal`))).toEqual(log);
    expect(namesIn().filter((name) => KEPT.test(name) && !name.startsWith(kept))).toEqual([]);
  });

  test("is told too where only the log of the old store had been left", async () => {
    await backupAndKilledStore();
    rmSync(dir.file("data", "gokv.db"));
    await killedRestore();
    await expectRefusals(4, /A restore was interrupted: .* Run gokv restore FILE again/);
    writeFileSync(dir.file("bad.db"), "notes\n".repeat(1000));
    expect((await gokv(["restore", "bad.db"])).exitCode).toBe(4);
    // The draft of the first one takes no room while the next is made.
    const [mark] = namesIn().filter((name) => name.includes(".restored-"));
    expect(statSync(dir.file("data", mark!)).size).toBe(0);
    await expectRefusals(4, /A restore was interrupted: /);
    expect(await gokv(["restore", "backup.db"])).toMatchObject(DONE);
    expect(await keysIn()).toEqual(numbers(3));
    expect(namesIn().filter((name) => name.includes("restor"))).toEqual([]);
  });

  test("says which files to move for the old store to be back", async () => {
    await backupAndKilledStore();
    damageLog();
    await killedRestore();
    const { stderr } = await gokv(["check"]);
    const [, from, to] = / to go back to the old store, rename (\S+) to (\S+)\.\n$/.exec(stderr)!;
    expect(to).toBe(dir.file("data", "gokv.db-wal"));
    renameSync(from!, to!);
    const problem = /gokv\.db-wal is damaged: \d acknowledged transactions would be lost/;
    await expectRefusals(4, problem);
    // The server, started once without them, leaves nothing of the restore.
    const env = { JWT_SECRET: SECRET, DB_PATH: dir.file("data"), WAL_DAMAGE: "accept" };
    await using server = await startServer(env);
    expect((await keysAt(server.url)).length).toBeGreaterThan(3);
    expect(namesIn().filter((name) => name.includes("restor") || KEPT.test(name))).toEqual([]);
    await stop(server);
  });
});

describe("something else by the name of a file of the store", () => {
  test("a link that leads nowhere, named as the log of a store that was kept, is nobody's concern", async () => {
    await whileKilled(serve("data"), (url) => put(url, 0, 5));
    for (const [name, target] of [
      ["gokv.db.before-20260101T000000000Z-wal", "/missing/log"],
      ["gokv.db.before-20260101T000000001Z-wal", "gokv.db.before-20260101T000000001Z-wal"],
      ["gokv.db.restored-20260101T000000001Z", "/missing/store"],
    ] as const) {
      symlinkSync(target, dir.file("data", name));
    }
    expect((await gokv(["check"])).stdout).toStartWith("sound: 5 entries");
    expect(await gokv(["backup", "b.db"])).toMatchObject(DONE);
    expect(await keysIn()).toEqual(numbers(5));
    expect((await gokv(["restore", "b.db"])).stdout).toContain(": 5 entries");
  });

  test("a link is refused by the server and every command; the directory may be one", async () => {
    await whileKilled(serve("real"), (url) => put(url, 0, 5));
    mkdirSync(dir.file("data"), { mode: 0o700 });
    symlinkSync(dir.file("real", "gokv.db"), dir.file("data", "gokv.db"));
    await expectRefusals(1, /gokv\.db is a link, .*Link its directory instead/);
    expect((await gokv(["restore", dir.file("real", "gokv.db")])).exitCode).toBe(1);
    expect(namesIn()).toEqual(["gokv.db"]);
    symlinkSync(dir.file("real"), dir.file("linked"));
    expect(await keysIn("linked")).toEqual(numbers(5));
  });

  test("a link that check is given is followed to its log", async () => {
    await whileKilled(serve("real"), (url) => put(url, 0, 5));
    mkdirSync(dir.file("alone"));
    for (const suffix of ["", "-wal"]) cpSync(dir.file("real", `gokv.db${suffix}`), dir.file("alone", `b.db${suffix}`));
    symlinkSync(dir.file("alone", "b.db"), dir.file("link.db"));
    expect((await gokv(["check", "link.db"])).stdout).toStartWith("sound: 5 entries");
    expect((await gokv(["restore", "link.db"])).stdout).toContain(": 5 entries");
  });

  test("beside a file that is given, where its log would be, is named in words", async () => {
    await backupAndKilledStore();
    symlinkSync("circle.db-wal", dir.file("circle.db-wal"));
    mkdirSync(dir.file("folder.db-wal"));
    for (const [name, problem] of [
      ["circle", "cannot be read: its links lead in a circle (ELOOP)."],
      ["folder", "is a directory, where the log of a database would be. Move it away."],
    ] as const) {
      cpSync(dir.file("backup.db"), dir.file(`${name}.db`));
      for (const command of ["check", "restore"]) {
        const stderr = `gokv: ${name}.db-wal ${problem}\n`;
        const finished = await gokv([command, `${name}.db`], "other");
        expect([command, name, finished]).toEqual([command, name, { exitCode: 1, stdout: "", stderr }]);
      }
    }
    symlinkSync("circle.ndjson", dir.file("circle.ndjson"));
    const imported = await gokv(["import", "circle.ndjson"], "other");
    const stderr = "gokv: circle.ndjson cannot be read: its links lead in a circle (ELOOP).\n";
    expect(imported).toEqual({ exitCode: 1, stdout: "", stderr });
  });

  test("a reserve that is a link in a circle is replaced by one", async () => {
    await whileKilled(serve("data"), (url) => put(url, 0, 5));
    rmSync(dir.file("data", "reserve"), { force: true });
    symlinkSync("reserve", dir.file("data", "reserve"));
    expect(await keysIn()).toEqual(numbers(5));
  });

  test("a directory, or a pipe, is refused by the server and every command, and stays", async () => {
    for (const name of ["gokv.db", "gokv.db-wal", "gokv.db.restoring", "lock.db"]) {
      mkdirSync(dir.file(name, name), { recursive: true, mode: 0o700 });
      if (name !== "gokv.db") writeFileSync(dir.file(name, "gokv.db"), "");
      await expectRefusals(1, /is a directory, where a store has a file\. Move it away/, name);
      const stderr = expect.stringMatching(/^gokv: .*is a directory, where a store has a file\. Move it away/);
      writeFileSync(dir.file("any.db"), "");
      expect([name, await gokv(["restore", "any.db"], name)]).toEqual([name, { exitCode: 1, stdout: "", stderr }]);
    }
    mkdirSync(dir.file("data"), { mode: 0o700 });
    expect((await run(["mkfifo", dir.file("data", "gokv.db")])).exitCode).toBe(0);
    await expectRefusals(1, /is no regular file, where a store has a file\. Move it away/);
  });

  test("a lock that holds something else is named as what it is", async () => {
    mkdirSync(dir.file("data"), { mode: 0o700 });
    writeFileSync(dir.file("data", "lock.db"), "notes\n".repeat(1000));
    writeFileSync(dir.file("data", "gokv.db"), "");
    for (const args of [["serve"], ["check"], ["import", "-"]]) {
      const { exitCode, stderr } = await gokv(args);
      expect([args, exitCode, stderr]).toEqual([
        args,
        1,
        expect.stringContaining("lock.db is not the lock of a store"),
      ]);
      expect([args, stderr]).not.toEqual([args, expect.stringContaining("owner and rights")]);
    }
  });
});

describe("a file of the store that is named as a backup", () => {
  test("is refused by backup, which a later start would remove", async () => {
    await whileKilled(serve("data"), (url) => put(url, 0, 3));
    for (const name of ["gokv.db.restoring", "gokv.db-journal", "gokv.db.restored-x"]) {
      const stderr = `gokv: data/${name} is the name of a file that the store works with. Choose another one.\n`;
      const finished = await gokv(["backup", `data/${name}`]);
      expect([name, finished]).toEqual([name, { exitCode: 1, stdout: "", stderr }]);
      expect(existsSync(dir.file("data", name))).toBe(false);
    }
    expect(await gokv(["backup", "reserve"])).toMatchObject(DONE);
    expect(await gokv(["backup", "data/mine.db"])).toMatchObject(DONE);
  });

  test("is refused by restore before anything is touched", async () => {
    await backupAndKilledStore();
    const own = [
      ...["", "-wal", "-shm", "-journal", ".restoring", ".restoring-journal"].map((suffix) => `gokv.db${suffix}`),
      "gokv.db.restored-20260101T000000000Z",
      ...["lock.db", "reserve", "reserve.new"],
    ];
    for (const name of own) {
      if (!existsSync(dir.file("data", name))) cpSync(dir.file("backup.db"), dir.file("data", name));
    }
    const log = readFileSync(dir.file("data", "gokv.db-wal"));
    // What a lock that was killed has left goes with the next one.
    const names = () =>
      readdirSync(dir.file("data"))
        .filter((name) => name !== "lock.db-journal")
        .sort();
    const before = names();
    symlinkSync(dir.file("data"), dir.file("link"));
    for (const name of own) {
      const finished = await gokv(["restore", `link/${name}`]);
      const what = name === "gokv.db" ? "the store itself" : "a file that the store works with";
      const stderr = `gokv: link/${name} is ${what}. Name a backup of it, or set DB_PATH to another store.\n`;
      expect([name, finished]).toEqual([name, { exitCode: 1, stdout: "", stderr }]);
      expect(names()).toEqual(before);
    }
    expect(readFileSync(dir.file("data", "gokv.db-wal"))).toEqual(log);
    // A store that was kept is a backup.
    cpSync(dir.file("backup.db"), dir.file("data", "gokv.db.before-20260101T000000000Z"));
    expect(await gokv(["restore", "link/gokv.db.before-20260101T000000000Z"])).toMatchObject(DONE);
  });
});

test("what a killed import has put aside is gone once a server has started", async () => {
  mkdirSync(dir.file("data"), { mode: 0o700 });
  writeFileSync(dir.file("data", `import-${crypto.randomUUID()}.ndjson`), "the first line\n");
  writeFileSync(dir.file("data", "import-mine.ndjson"), "the first line\n");
  expect(await keysIn()).toEqual([]);
  expect(readdirSync(dir.file("data")).filter((name) => name.startsWith("import"))).toEqual(["import-mine.ndjson"]);
});

test("a restore that finds no space says so in words, and leaves what was there", async () => {
  if (!has("root, to mount a small volume", isRoot())) return;
  const value = new Uint8Array(3 * 1024 * 1024);
  await whileKilled(serve("source"), (url) => fetch(`${url}/b/k`, { method: "POST", body: value, headers }));
  using volume = mountSmallVolume(2 * 1024 * 1024);
  const env = { DB_PATH: volume.path };
  const finished = await run([GOKV, "restore", dir.file("source", "gokv.db")], { env, cwd: dir.path });
  const stderr = expect.stringMatching(/^gokv: .* cannot be copied to .*: there is no space left \(ENOSPC\)\.\n$/);
  expect(finished).toEqual({ exitCode: 1, stdout: "", stderr });
  expect(readdirSync(volume.path).filter((name) => name.startsWith("gokv.db"))).toEqual([]);
});
