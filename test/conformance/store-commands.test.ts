// backup, restore, check, export and import as an operator runs them, beside a running server and without one.

import { Database } from "bun:sqlite";
import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { createHash } from "node:crypto";
import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { eventually } from "../support/eventually.ts";
import {
  type Environment,
  type Finished,
  GOKV,
  run,
  type ServerProcess,
  startServer,
  stop,
  untilLogged,
  whileKilled,
} from "../support/executable.ts";
import { forgeToken } from "../support/forge-token.ts";
import { has, isRoot } from "../support/needs.ts";
import { makeOld } from "../support/old-store.ts";
import { fillStore, newestRevision, readContents } from "../support/store-contents.ts";
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

/** Of a log: a page behind its header. */
const FRAME_BYTES = WAL_FRAME_HEADER_BYTES + 4096;
/** In front of a command, where root runs the tests. */
const ORDINARY_USER = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
const DONE = { exitCode: 0, stderr: "" };
const headers = { Authorization: `Bearer ${forgeToken()}` };

const serve = (data = "data", env: Environment = {}): Promise<ServerProcess> =>
  startServer({ JWT_SECRET: SECRET, DB_PATH: dir.file(data), ...env });

/** A command of gokv on the data directory `data`. No secret is needed for any of them. */
const gokv = (args: readonly string[], data = "data", stdin?: string): Promise<Finished> =>
  run([GOKV, ...args], { env: { DB_PATH: dir.file(data) }, cwd: dir.path, ...(stdin === undefined ? {} : { stdin }) });

/** Runs `act` against a server on `data` that lives no longer than that. */
async function whileServing<T>(data: string, act: (url: string) => Promise<T>): Promise<T> {
  await using server = await serve(data);
  const result = await act(server.url);
  await stop(server);
  return result;
}

const hashOf = (path: string) => createHash("sha256").update(readFileSync(path)).digest("hex");
const modeOf = (path: string) => (statSync(path).mode & 0o777).toString(8);

/** Writes the keys `from` to below `end` of the bucket "n", one commit each. */
async function putNumbers(url: string, from: number, end: number): Promise<void> {
  for (let number = from; number < end; number++) {
    const answer = await fetch(`${url}/n/${number}`, { method: "POST", body: `value ${number}`, headers });
    expect(answer.status).toBe(200);
  }
}

/** Every file under `folder` by name, hashed, apart from the lock, which every command touches. */
const hashesIn = (folder: string): Record<string, string> =>
  Object.fromEntries(
    readdirSync(folder)
      .filter((name) => !name.startsWith("lock.db") && !name.startsWith("reserve"))
      .sort()
      .map((name) => [name, hashOf(`${folder}/${name}`)]),
  );

/** Flips a bit in the twelfth frame from the end of a log: several commits lie behind it. */
function damageLog(path: string): void {
  const bytes = readFileSync(path);
  bytes[bytes.length - 12 * FRAME_BYTES + 100]! ^= 1;
  writeFileSync(path, bytes);
}

/** A SQLite file of another program that died: its only row is in the log. */
function writeForeign(path: string): void {
  using database = new Database(`${path}.first`);
  database.run("PRAGMA journal_mode = WAL");
  database.run("CREATE TABLE notes (text)");
  database.run("PRAGMA wal_checkpoint");
  database.run("INSERT INTO notes VALUES ('remember')");
  for (const suffix of ["", "-wal"]) cpSync(`${path}.first${suffix}`, `${path}${suffix}`);
  for (const suffix of ["", "-wal", "-shm"]) rmSync(`${path}.first${suffix}`);
}

/** Changes one bit of the only place in the file that holds `text`. */
function damage(path: string, text: string): void {
  const bytes = readFileSync(path);
  const at = bytes.indexOf(text);
  expect(at).toBeGreaterThan(0);
  bytes[at]! ^= 1;
  writeFileSync(path, bytes);
}

async function expectFailure(finished: Promise<Finished>, exitCode: number, problem: string): Promise<void> {
  const { stdout, stderr, ...rest } = await finished;
  expect([rest.exitCode, stdout]).toEqual([exitCode, ""]);
  expect(stderr).toStartWith("gokv: ");
  expect(stderr).toContain(problem);
  expect(stderr).not.toContain("unexpected failure");
}

describe("gokv backup", () => {
  test("copies the store beside a running server and without one; check finds the copy sound", async () => {
    const before = await whileServing("data", async (url) => {
      const entries = await fillStore(url);
      await fetch(`${url}/api/kv/devices`, { method: "POST", body: '{"uuid":"room"}', headers });
      const finished = await gokv(["backup", "beside.db"]);
      expect(finished).toMatchObject(DONE);
      expect(finished.stdout).toMatch(
        new RegExp(`^beside\\.db: ${entries} entries, [1-9]\\d* rows of services, \\d+ bytes, \\d+ ms, verified\n$`),
      );
      return readContents(url);
    });
    expect(await gokv(["backup", "alone.db"])).toMatchObject(DONE);
    for (const file of ["beside.db", "alone.db"]) {
      expect(modeOf(dir.file(file))).toBe("600");
      expect(await gokv(["check", file], "nowhere")).toMatchObject(DONE);
      const data = `restored-${file}`;
      expect(await gokv(["restore", file], data)).toMatchObject(DONE);
      expect(await whileServing(data, readContents)).toEqual(before);
    }
    expect(readdirSync(dir.path).filter((name) => name.includes("partial"))).toEqual([]);
  });

  test("never overwrites a file", async () => {
    await whileServing("data", fillStore);
    writeFileSync(dir.file("taken.db"), "mine");
    await expectFailure(gokv(["backup", "taken.db"]), 1, "exists already");
    expect(readFileSync(dir.file("taken.db"), "utf8")).toBe("mine");
  });

  test("ends with 1 where there is no store, or no folder to write to", async () => {
    await expectFailure(gokv(["backup", "b.db"]), 1, "There is no store");
    expect(readdirSync(dir.path)).toEqual([]);
    await whileServing("data", fillStore);
    const problem = "missing/b.db cannot be written: there is no such file (ENOENT).";
    await expectFailure(gokv(["backup", "missing/b.db"]), 1, problem);
    expect(readdirSync(dir.path)).toEqual(["data"]);
  });

  test("removes what one that was killed has left, and nothing else", async () => {
    await whileServing("data", fillStore);
    expect(await gokv(["backup", "b.db"])).toMatchObject(DONE);
    const hoursAgo = (name: string, hours: number) => {
      const seconds = Date.now() / 1000 - hours * 3600;
      utimesSync(dir.file(name), seconds, seconds);
    };
    // No process has such a number.
    const dead = 2 ** 30;
    const left = [`old.db.partial-${dead}-0123abcd`, `empty.db.partial-${dead}-0123abcd`];
    const kept = [
      `young.db.partial-${dead}-0123abcd`,
      `mine.db.partial-${process.pid}-0123abcd`,
      `foreign.partial-${dead}-0123abcd`,
      "other.db.partial-x",
    ];
    for (const name of [left[0]!, ...kept]) cpSync(dir.file("b.db"), dir.file(name));
    writeFileSync(dir.file(left[1]!), "");
    writeFileSync(dir.file(`${left[0]}-journal`), "");
    writeFileSync(dir.file(kept[2]!), "notes\n".repeat(100));
    for (const name of [...left, ...kept]) hoursAgo(name, name.startsWith("young") ? 0.5 : 2);
    cpSync(dir.file(left[0]!), dir.file("data", `snapshot.db.partial-${dead}-0123abcd`), { preserveTimestamps: true });
    const names = [...readdirSync(dir.path), "c.db"].filter((name) => !left.includes(name.replace("-journal", "")));
    expect(await gokv(["backup", "c.db"])).toMatchObject(DONE);
    expect(readdirSync(dir.path).sort()).toEqual(names.sort());
    expect(await gokv(["check"])).toMatchObject(DONE);
    expect(readdirSync(dir.file("data")).filter((name) => name.includes("partial"))).toEqual([]);
  });

  test("that was killed leaves nothing once the server is started, or makes the next one", async () => {
    await whileServing("data", fillStore);
    expect(await gokv(["backup", "b.db"])).toMatchObject(DONE);
    const seconds = Date.now() / 1000 - 2 * 3600;
    const leave = (name: string) => {
      cpSync(dir.file("b.db"), dir.file("data", name));
      utimesSync(dir.file("data", name), seconds, seconds);
    };
    leave(`snapshot.db.partial-${2 ** 30}-0123abcd`);
    leave("gokv.db.restoring");
    writeFileSync(dir.file("data", "gokv.db.restoring-wal"), "");
    await using server = await serve();
    expect(readdirSync(dir.file("data")).filter((name) => /partial|restoring/.test(name))).toEqual([]);
    mkdirSync(dir.file("data", "backups"));
    leave(`backups/gokv-x.db.partial-${2 ** 30}-0123abcd`);
    leave(`backups/gokv-y.db.partial-${server.pid}-0123abcd`);
    expect((await fetch(`${server.url}/_admin/backup`, { method: "POST", headers })).status).toBe(200);
    expect(readdirSync(dir.file("data", "backups"))).toEqual([expect.stringMatching(/^gokv-\d{8}T\d{9}Z\.db$/)]);
    await stop(server);
  });

  test("of a store whose log is damaged ends with 4, as check and export do, and leaves no file", async () => {
    await whileKilled(serve("data"), (url) => putNumbers(url, 0, 20));
    expect((await gokv(["backup", "sound.db"])).stdout).toStartWith("sound.db: 20 entries");
    damageLog(dir.file("data", "gokv.db-wal"));
    const before = hashesIn(dir.file("data"));
    for (const args of [["check"], ["check", "data/gokv.db"], ["backup", "b.db"], ["export"]]) {
      const problem = /gokv\.db-wal is damaged: \d acknowledged transactions would be lost\. Nothing was changed/;
      const { exitCode, stdout, stderr } = await gokv(args);
      expect([args, exitCode, stdout, stderr]).toEqual([args, 4, "", expect.stringMatching(problem)]);
      expect(hashesIn(dir.file("data"))).toEqual(before);
    }
    expect(readdirSync(dir.path).sort()).toEqual(["data", "sound.db"]);
  });

  test("of a damaged store ends with 4 and leaves no file", async () => {
    await whileServing("data", fillStore);
    damage(dir.file("data", "gokv.db"), "slashes");
    const advice = '"users" "a/b//c/". Overwrite or delete the key of each damaged value';
    await expectFailure(gokv(["backup", "b.db"]), 4, advice);
    expect(readdirSync(dir.path)).toEqual(["data"]);
    await whileServing("data", async (url) => {
      expect((await fetch(`${url}/users/a/b//c/`, { method: "DELETE", headers })).status).toBe(200);
    });
    expect(await gokv(["backup", "b.db"])).toMatchObject(DONE);
  });
});

describe("POST /_admin/backup", () => {
  const backup = (server: ServerProcess) => fetch(`${server.url}/_admin/backup`, { method: "POST", headers });

  test("writes a verified copy into the backup folder and describes it", async () => {
    for (const [env, folder] of [
      [{}, ["data", "backups"]],
      [{ BACKUP_DIR: dir.file("elsewhere"), DB_PATH: dir.file("second") }, ["elsewhere"]],
    ] as const) {
      await using server = await serve("data", env);
      const entries = await fillStore(server.url);
      const before = await readContents(server.url);
      const answer = await backup(server);
      expect(answer.status).toBe(200);
      const report = (await answer.json()) as Record<string, unknown>;
      expect(Object.keys(report)).toEqual(["file", "bytes", "revision", "entries", "ms"]);
      const file = report.file as string;
      expect(file).toMatch(/\/gokv-\d{8}T\d{9}Z\.db$/);
      expect(readdirSync(dir.file(...folder)).map((name) => dir.file(...folder, name))).toEqual([file]);
      expect([report.entries, report.bytes, report.revision]).toEqual([entries, statSync(file).size, entries]);
      expect([modeOf(file), modeOf(dir.file(...folder))]).toEqual(["600", "700"]);
      await stop(server);
      const data = `restored-${folder.length}`;
      expect(await gokv(["restore", file], data)).toMatchObject(DONE);
      expect(await whileServing(data, readContents)).toEqual(before);
    }
  });

  test("runs one backup at a time", async () => {
    await using server = await serve();
    await fillStore(server.url);
    const answers = await Promise.all(Array.from({ length: 5 }, () => backup(server)));
    const statuses = answers.map(({ status }) => status).sort();
    expect([statuses[0], statuses.at(-1)]).toEqual([200, 409]);
    const refused = (await answers.find(({ status }) => status === 409)!.json()) as { code: string };
    expect(refused.code).toBe("backup_running");
    expect((await backup(server)).status).toBe(200);
  });

  test("moves the time of the last backup in the metrics", async () => {
    await using server = await serve();
    const lastBackup = async () => {
      const text = await (await fetch(`${server.url}/metrics`, { headers })).text();
      return Number(/^gokv_last_backup_timestamp_seconds (\S+)$/m.exec(text)?.[1]);
    };
    expect(await lastBackup()).toBe(0);
    await backup(server);
    expect(Math.abs((await lastBackup()) - Date.now() / 1000)).toBeLessThan(60);
  });
});

describe("gokv check", () => {
  test("ends with 0 for a sound store, with and without a server beside it, under both names", async () => {
    await whileServing("data", async (url) => {
      const entries = await fillStore(url);
      for (const command of ["check", "verify"]) {
        const finished = await gokv([command]);
        expect(finished).toMatchObject(DONE);
        expect(finished.stdout).toMatch(
          new RegExp(
            `^sound: ${entries} entries in 5 buckets, \\d+ bytes, revision ${entries}, \\d+ rows of services\n$`,
          ),
        );
      }
    });
    const files = readdirSync(dir.file("data")).sort();
    expect(files.filter((name) => name.startsWith("snapshot"))).toEqual([]);
    const before = hashOf(dir.file("data", "gokv.db"));
    expect(await gokv(["check"])).toMatchObject(DONE);
    expect(hashOf(dir.file("data", "gokv.db"))).toBe(before);
  });

  test("of a store that was stopped leaves nothing beside it", async () => {
    await whileServing("data", fillStore);
    const names = readdirSync(dir.file("data"));
    expect((await gokv(["check"])).stdout).toStartWith("sound: ");
    expect((await gokv(["export"])).stdout).toContain("sha256");
    expect(readdirSync(dir.file("data"))).toEqual(names);
  });

  test("names the damaged entry, ends with 4 and changes nothing", async () => {
    await whileServing("data", async (url) => {
      await fillStore(url);
      expect(await gokv(["backup", "b.db"])).toMatchObject(DONE);
    });
    for (const [file, args] of [
      [dir.file("data", "gokv.db"), ["check"]],
      [dir.file("b.db"), ["check", "b.db"]],
    ] as const) {
      damage(file, "slashes");
      const before = hashOf(file);
      await expectFailure(gokv(args), 4, 'damaged value: "users" "a/b//c/"');
      expect(hashOf(file)).toBe(before);
    }
  });

  test("ends with 4 when any page is damaged, as backup and export do", async () => {
    await whileServing("data", fillStore);
    const path = dir.file("data", "gokv.db");
    const sound = readFileSync(path);
    for (let page = 1; page < 9; page++) {
      const bytes = Buffer.from(sound);
      bytes.fill(0xff, page * 4096, (page + 1) * 4096);
      writeFileSync(path, bytes);
      await expectFailure(gokv(["check"]), 4, "damaged");
      for (const args of [["backup", "b.db"], ["export"]]) {
        const { exitCode, stderr } = await gokv(args);
        // An export does not read the pages of indexes that it has no use for.
        expect([page, args, exitCode]).toEqual([page, args, exitCode === 0 && args[0] === "export" ? 0 : 4]);
        expect(stderr).not.toContain("unexpected failure");
      }
    }
    expect(readdirSync(dir.path)).toEqual(["data"]);
  });

  test("ends with 1 where there is nothing to check", async () => {
    await expectFailure(gokv(["check"]), 1, "There is no store");
    await expectFailure(gokv(["check", "missing.db"]), 1, "does not exist");
    expect(readdirSync(dir.path)).toEqual([]);
  });
});

describe("gokv restore", () => {
  test("brings the backup back, keeps the old store, and lets no ETag come again", async () => {
    const [atBackup, revisionAtBackup] = await whileServing("data", async (url) => {
      await fillStore(url);
      expect(await gokv(["backup", "b.db"])).toMatchObject(DONE);
      return [await readContents(url), await newestRevision(url)] as const;
    });
    const [atRestore, newest] = await whileServing("data", async (url) => {
      await fetch(`${url}/users/1`, { method: "POST", body: "changed later", headers });
      await fetch(`${url}/users/2`, { method: "DELETE", headers });
      await fetch(`${url}/later/1`, { method: "POST", body: "written later", headers });
      return [await readContents(url), await newestRevision(url)] as const;
    });
    const restored = await gokv(["restore", "b.db"]);
    expect(restored).toMatchObject(DONE);
    const before = readdirSync(dir.file("data")).filter((name) => /^gokv\.db\.before-\d{8}T\d{9}Z$/.test(name));
    expect(before).toHaveLength(1);
    expect(restored.stdout).toContain(`the old store is ${dir.file("data", before[0]!)}`);
    expect(modeOf(dir.file("data", "gokv.db"))).toBe("600");

    await whileServing("data", async (url) => {
      expect(await readContents(url)).toEqual(atBackup);
      expect(await newestRevision(url)).toBeGreaterThan(newest + 900_000_000);
      const changed = await fetch(`${url}/users/1`, { method: "POST", body: "again", headers });
      expect(Number(JSON.parse(changed.headers.get("etag")!))).toBeGreaterThan(newest);
    });
    expect(newest).toBeGreaterThan(revisionAtBackup);
    expect(await gokv(["restore", dir.file("data", before[0]!)], "old")).toMatchObject(DONE);
    expect(await whileServing("old", readContents)).toEqual(atRestore);
  });

  test("that is interrupted leaves the old store and no half of a new one", async () => {
    await whileServing("large", async (url) => {
      const body = new Uint8Array(20 * 1024 * 1024);
      for (let n = 0; n < 8; n++) await fetch(`${url}/b/${n}`, { method: "POST", body, headers });
    });
    await whileServing("data", fillStore);
    const before = hashesIn(dir.file("data"));
    for (const [signal, exitCode] of [["SIGINT", 130] as const, ["SIGTERM", 143] as const]) {
      const child = Bun.spawn([GOKV, "restore", dir.file("large", "gokv.db")], {
        env: { DB_PATH: dir.file("data") },
        stdio: ["ignore", "ignore", "inherit"],
      });
      const begun = () => existsSync(dir.file("data", "gokv.db.restoring"));
      await eventually("it has begun", 10_000, begun);
      child.kill(signal);
      expect([signal, await child.exited]).toEqual([signal, exitCode]);
      expect(hashesIn(dir.file("data"))).toEqual(before);
    }
  });

  test("takes what was acknowledged just before a kill into the store that it keeps", async () => {
    {
      await using server = await serve();
      await fillStore(server.url);
      expect(await gokv(["backup", "b.db"])).toMatchObject(DONE);
      await fetch(`${server.url}/last/words`, { method: "POST", body: "acknowledged", headers });
      server.kill("SIGKILL");
      await server.exited;
    }
    expect(await gokv(["restore", "b.db"])).toMatchObject(DONE);
    const before = readdirSync(dir.file("data")).find((name) => name.startsWith("gokv.db.before-"))!;
    expect(await gokv(["restore", dir.file("data", before)], "old")).toMatchObject(DONE);
    const contents = await whileServing("old", readContents);
    expect(Object.keys(contents)).toContain("last\0words");
  });

  test("takes a file together with its log, and changes neither", async () => {
    const written = ["all of it in the log", "a part of it in the log"];
    for (const [index, what] of written.entries()) {
      const data = `old-${index}`;
      if (index === 1) await whileServing(data, (url) => putNumbers(url, 0, 10));
      await whileKilled(serve(data), async (url) => {
        await putNumbers(url, index * 10, index * 10 + 10);
        await fetch(`${url}/n/${index * 10 + 3}`, { method: "DELETE", headers });
      });
      // Where it lies as a store, and alone, as after a copy by hand; named as a store that was kept is.
      mkdirSync(dir.file(`alone-${index}`));
      for (const suffix of ["", "-wal"]) {
        cpSync(dir.file(data, `gokv.db${suffix}`), dir.file(`alone-${index}`, `gokv.db.before-x${suffix}`));
      }
      for (const [folder, name] of [
        [data, "gokv.db"],
        [`alone-${index}`, "gokv.db.before-x"],
      ] as const) {
        const file = dir.file(folder, name);
        const hashes = hashesIn(dir.file(folder));
        expect(statSync(`${file}-wal`).size).toBeGreaterThan(10 * FRAME_BYTES);
        const entries = index * 10 + 9;
        expect([what, name, (await gokv(["check", file], "nowhere")).stdout]).toEqual([
          what,
          name,
          expect.stringContaining(`sound: ${entries} entries in 1 buckets`),
        ]);
        const target = `new-${folder}`;
        const restored = await gokv(["restore", file], target);
        expect([what, name, restored]).toEqual([what, name, expect.objectContaining(DONE)]);
        expect(restored.stdout).toContain(`: ${entries} entries, `);
        expect((await gokv(["check"], target)).stdout).toStartWith(`sound: ${entries} entries in 1 buckets`);
        // An index of the log, which a reader may make, holds nothing of its own.
        const { "gokv.db-shm": _, ...after } = hashesIn(dir.file(folder));
        const { "gokv.db-shm": __, ...before } = hashes;
        expect(after).toEqual(before);
        const keys = Object.keys(await whileServing(target, readContents));
        expect(keys).toHaveLength(entries);
        expect(keys).not.toContain(`n\0${index * 10 + 3}`);
      }
    }
  });

  test("moves an old store that is damaged or foreign aside as it is, all of its files together", async () => {
    await whileServing("source", fillStore);
    expect(await gokv(["backup", "b.db"], "source")).toMatchObject(DONE);
    // A restore before this one: its leap has to be leapt over again, though nothing else can be read.
    expect(await gokv(["restore", "b.db"], "log")).toMatchObject(DONE);
    await whileKilled(serve("log"), (url) => putNumbers(url, 0, 20));
    damageLog(dir.file("log", "gokv.db-wal"));
    mkdirSync(dir.file("foreign"));
    writeForeign(dir.file("foreign", "gokv.db"));
    mkdirSync(dir.file("text"));
    writeFileSync(dir.file("text", "gokv.db"), "notes\n".repeat(1000));
    for (const [data, files] of [
      ["log", ["gokv.db", "gokv.db-shm", "gokv.db-wal"]],
      ["foreign", ["gokv.db", "gokv.db-wal"]],
      ["text", ["gokv.db"]],
    ] as const) {
      const before = hashesIn(dir.file(data));
      expect(Object.keys(before).sort()).toEqual(expect.arrayContaining([...files]));
      const restored = await gokv(["restore", "b.db"], data);
      expect([data, restored]).toEqual([data, expect.objectContaining(DONE)]);
      const kept = /the old store is .*\/(gokv\.db\.before-\w+)\n/.exec(restored.stdout)![1]!;
      const after = hashesIn(dir.file(data));
      expect(files.map((name) => after[name.replace("gokv.db", kept)])).toEqual(files.map((name) => before[name]));
      expect(Object.keys(after).filter((name) => !name.startsWith(kept))).toEqual(["gokv.db"]);
      expect(restored.stdout).toContain(` revision ${data === "log" ? 2 : 1}0000000`);
      expect(Object.keys(await whileServing(data, readContents))).not.toContain("n\u00000");
    }
  });

  test("makes the store its user's alone, whatever the mode of the backup", async () => {
    await whileServing("source", (url) => putNumbers(url, 0, 3));
    expect(await gokv(["backup", "b.db"], "source")).toMatchObject(DONE);
    for (const mode of [0o444, 0o666, 0o400]) {
      chmodSync(dir.file("b.db"), mode);
      const env = { DB_PATH: dir.file(`mode-${mode}`) };
      expect(await run([GOKV, "restore", "b.db"], { env, cwd: dir.path })).toMatchObject(DONE);
      expect([mode, modeOf(dir.file(`mode-${mode}`, "gokv.db"))]).toEqual([mode, "600"]);
    }
    if (!has("root, to restore as another user", isRoot())) return;
    mkdirSync(dir.file("ordinary"));
    chmodSync(dir.path, 0o755);
    chownSync(dir.file("ordinary"), 65534, 65534);
    chmodSync(dir.file("b.db"), 0o444);
    // Where the executable lies only its owner may look.
    cpSync(GOKV, dir.file("gokv"));
    const env = { DB_PATH: dir.file("ordinary") };
    const finished = await run([...ORDINARY_USER, dir.file("gokv"), "restore", "b.db"], { env, cwd: dir.path });
    expect(finished).toMatchObject(DONE);
    expect(modeOf(dir.file("ordinary", "gokv.db"))).toBe("600");
  });

  test("takes a file back to before a change that a journal beside it undoes", async () => {
    await whileServing("source", fillStore);
    expect(await gokv(["backup", "b.db"], "source")).toMatchObject(DONE);
    {
      using database = new Database(dir.file("b.db"), { readwrite: true });
      // So few pages that the change is written before it is committed.
      database.run("PRAGMA cache_size = 5");
      database.run("BEGIN");
      database.run("UPDATE kv SET value = zeroblob(100000)");
      mkdirSync(dir.file("torn"));
      for (const suffix of ["", "-journal"]) cpSync(dir.file(`b.db${suffix}`), dir.file("torn", `b.db${suffix}`));
      database.run("ROLLBACK");
    }
    const before = hashesIn(dir.file("torn"));
    expect(await gokv(["check", "torn/b.db"])).toMatchObject(DONE);
    expect(await gokv(["restore", "torn/b.db"])).toMatchObject(DONE);
    expect(hashesIn(dir.file("torn"))).toEqual(before);
    expect(await whileServing("data", readContents)).toEqual(await whileServing("source", readContents));
  });

  test("refuses a file whose log is damaged, and names the log", async () => {
    await whileKilled(serve("old"), (url) => putNumbers(url, 0, 20));
    mkdirSync(dir.file("alone"));
    for (const suffix of ["", "-wal"]) cpSync(dir.file("old", `gokv.db${suffix}`), dir.file("alone", `b.db${suffix}`));
    const file = dir.file("alone", "b.db");
    damageLog(`${file}-wal`);
    const before = hashesIn(dir.file("alone"));
    for (const command of ["check", "restore"]) {
      await expectFailure(gokv([command, file]), 4, `The write-ahead log ${file}-wal is damaged`);
      expect(hashesIn(dir.file("alone"))).toEqual(before);
    }
    expect(existsSync(dir.file("data", "gokv.db"))).toBe(false);
  });

  test("refuses the store of a running server, by whatever path, and says what to do instead", async () => {
    await using server = await serve("running");
    await putNumbers(server.url, 0, 3);
    symlinkSync(dir.file("running", "gokv.db"), dir.file("link.db"));
    for (const file of [dir.file("running", "gokv.db"), "link.db"]) {
      await expectFailure(gokv(["restore", file]), 3, "gokv backup");
      expect((await gokv(["check", file], "nowhere")).stdout).toStartWith("sound: 3 entries");
    }
    await putNumbers(server.url, 3, 4);
    await stop(server);
    await expectFailure(gokv(["restore", "link.db"], "running"), 1, "is the store itself");
    expect((await gokv(["check"], "running")).stdout).toStartWith("sound: 4 entries");
  });

  test("is refused beside a running server", async () => {
    await using server = await serve();
    await fillStore(server.url);
    const before = await readContents(server.url);
    expect(await gokv(["backup", "b.db"])).toMatchObject(DONE);
    await expectFailure(gokv(["restore", "b.db"]), 3, "Another gokv has");
    expect(await readContents(server.url)).toEqual(before);
  });

  test("of anything but a sound backup changes nothing", async () => {
    await whileServing("data", async (url) => {
      await fillStore(url);
      expect(await gokv(["backup", "b.db"])).toMatchObject(DONE);
    });
    const files = () =>
      readdirSync(dir.file("data"))
        .filter((name) => name !== "lock.db-journal")
        .sort();
    const listing = files();
    const before = hashOf(dir.file("data", "gokv.db"));
    damage(dir.file("b.db"), "slashes");
    writeFileSync(
      dir.file("text.db"),
      "no database at all, but longer than any header of one would have to be ".repeat(4),
    );
    writeFileSync(dir.file("short.db"), readFileSync(dir.file("data", "gokv.db")).subarray(0, 50_000));
    await expectFailure(gokv(["restore", "b.db"]), 4, "damaged");
    await expectFailure(gokv(["restore", "text.db"]), 4, "is not a gokv store");
    await expectFailure(gokv(["restore", "short.db"]), 4, "damaged");
    await expectFailure(gokv(["restore", "missing.db"]), 1, "does not exist");
    expect(files()).toEqual(listing);
    expect(hashOf(dir.file("data", "gokv.db"))).toBe(before);
  });
});

/** The lines of an export; revisions and the hash over them taken out. */
function comparable(text: string): unknown[] {
  expect(text).toEndWith("\n");
  return text
    .trimEnd()
    .split("\n")
    .map((line) => {
      const { revision: _, sha256: __, ...rest } = JSON.parse(line);
      return rest;
    });
}

/** An export of these entries. */
function exportOf(rows: readonly object[]): string {
  const head = { format: "gokv-export", version: 1, revision: 1 };
  const lines = [head, ...rows].map((row) => `${JSON.stringify(row)}\n`).join("");
  const sha256 = createHash("sha256").update(lines).digest("hex");
  return `${lines}${JSON.stringify({ count: rows.length, sha256 })}\n`;
}

/** An entry as an export holds it. */
const ENTRY = {
  bucket: "b",
  key: "k",
  value: "",
  content_type: null,
  metadata: {},
  creator_ip: null,
  expires_at: null,
  created_at: "2026-01-01T00:00:00.000Z",
  updated_at: "2026-01-01T00:00:00.000Z",
};

describe("gokv export and import", () => {
  /** An export of the sample store. The data directory stays. */
  async function exported(): Promise<string> {
    await whileServing("data", fillStore);
    const finished = await gokv(["export"]);
    expect(finished).toMatchObject(DONE);
    return finished.stdout;
  }

  test("an export, imported into an empty store, is exported the same again", async () => {
    const first = await exported();
    writeFileSync(dir.file("export.ndjson"), first);
    const entries = comparable(first).length - 2;
    expect(await gokv(["import", "export.ndjson"], "second")).toEqual({
      ...DONE,
      stdout: `stored ${entries}, skipped 0, left out 0 expired\n`,
    });
    expect(await gokv(["import", "-"], "third", first)).toMatchObject(DONE);
    const contents = await whileServing("data", readContents);
    for (const data of ["second", "third"]) {
      const again = await gokv(["export"], data);
      expect(comparable(again.stdout)).toEqual(comparable(first));
      expect(await whileServing(data, readContents)).toEqual(contents);
      expect(await gokv(["check"], data)).toMatchObject(DONE);
      expect(readdirSync(dir.file(data)).filter((name) => name.startsWith("import"))).toEqual([]);
      expect(modeOf(dir.file(data))).toBe("700");
    }
  });

  test("an export says what it is, holds one entry per line, and ends with its count and hash", async () => {
    const lines = (await exported()).trimEnd().split("\n");
    const [head, ...rest] = lines.map((line) => JSON.parse(line));
    const end = rest.pop();
    expect(head).toEqual({ format: "gokv-export", version: 1, revision: rest.length });
    expect(end.count).toBe(rest.length);
    const counted = `${lines.slice(0, -1).join("\n")}\n`;
    expect(end.sha256).toBe(createHash("sha256").update(counted).digest("hex"));
    const names = rest.map(({ bucket, key }) => Buffer.from(`${bucket}\0${key}`));
    expect(names).toEqual(names.toSorted(Buffer.compare));
    expect(rest.find(({ key }) => key === "2")).toEqual({
      bucket: "users",
      key: "2",
      value: Buffer.from("Grace").toString("base64"),
      content_type: null,
      metadata: { team: "navy", rank: 'rear "admiral"' },
      created_at: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
      updated_at: expect.any(String),
      expires_at: null,
      creator_ip: "127.0.0.1",
    });
  });

  test("an export may be narrowed to a bucket and a prefix, beside a running server too", async () => {
    await using server = await serve();
    await fillStore(server.url);
    const keysOf = async (...args: string[]) => {
      const { stdout, ...rest } = await gokv(["export", ...args]);
      expect(rest).toEqual(DONE);
      return (comparable(stdout) as { bucket?: string; key?: string }[])
        .slice(1, -1)
        .map((row) => `${row.bucket} ${row.key}`);
    };
    expect(await keysOf("--bucket", "users")).toEqual(["users 1", "users 2", "users a/b//c/", "users empty"]);
    expect(await keysOf("--bucket", "users", "--prefix", "a/")).toEqual(["users a/b//c/"]);
    expect(await keysOf("--prefix", "e")).toEqual(["bytes every", "users empty"]);
    expect(await keysOf("--bucket", "user")).toEqual([]);
    expect(await keysOf("--bucket", "USERS")).toEqual([]);
    expect(await keysOf("--prefix", "%")).toEqual([]);
    expect(readdirSync(dir.file("data")).filter((name) => name.startsWith("snapshot"))).toEqual([]);
  });

  test("what has expired is neither exported nor imported", async () => {
    const shortLived = await whileServing("data", async (url) => {
      await fetch(`${url}/b/gone?ttl=4`, { method: "POST", body: "x", headers });
      await fetch(`${url}/b/stays?ttl=1h`, { method: "POST", body: "x", headers });
      const early = (await gokv(["export"])).stdout;
      while ((await fetch(`${url}/b/gone`, { headers })).status === 200) await Bun.sleep(20);
      expect((comparable((await gokv(["export"])).stdout) as { key?: string }[]).map(({ key }) => key)).toEqual([
        undefined,
        "stays",
        undefined,
      ]);
      return early;
    });
    expect(comparable(shortLived)).toHaveLength(4);
    expect((await gokv(["import", "-"], "second", shortLived)).stdout).toBe(
      "stored 1, skipped 0, left out 1 expired\n",
    );
    expect(Object.keys(await whileServing("second", readContents))).toEqual(["b\0stays"]);
  });

  test("a key that has expired is none that exists, though it was not swept yet", async () => {
    const write = (url: string, query: string, body: string) =>
      fetch(`${url}/b/k${query}`, { method: "POST", body, headers });
    await whileServing("source", (url) => write(url, "", "imported"));
    writeFileSync(dir.file("export.ndjson"), (await gokv(["export"], "source")).stdout);
    for (const mode of ["skip", "fail", "overwrite"]) {
      await using server = await serve(mode, { SWEEP_INTERVAL: "1h" });
      await write(server.url, "?ttl=1s", "expired");
      await write(server.url, "", "expired");
      await write(server.url, "?ttl=1s", "expired");
      while ((await fetch(`${server.url}/b/k`, { headers })).status === 200) await Bun.sleep(20);
      await stop(server);
      const finished = await gokv(["import", "export.ndjson", "--mode", mode], mode);
      expect([mode, finished]).toEqual([mode, { ...DONE, stdout: "stored 1, skipped 0, left out 0 expired\n" }]);
      expect((await gokv(["check"], mode)).stdout).toStartWith("sound: 1 entries in 1 buckets, 8 bytes");
      expect(Object.keys(await whileServing(mode, readContents))).toEqual(["b\0k"]);
    }
  });

  test("keys that exist are refused, skipped or overwritten, as asked", async () => {
    const text = await exported();
    const entries = comparable(text).length - 2;
    const original = await whileServing("data", async (url) => {
      const contents = await readContents(url);
      await fetch(`${url}/users/1`, { method: "POST", body: "changed", headers });
      await fetch(`${url}/users/2`, { method: "DELETE", headers });
      return contents;
    });
    const changed = await whileServing("data", readContents);

    const refused = await gokv(["import", "-"], "data", text);
    expect([refused.exitCode, refused.stdout]).toEqual([1, ""]);
    expect(refused.stderr).toContain(`${entries - 1} bad lines; nothing was imported`);
    expect(refused.stderr).toContain('the key "1" of bucket "users" exists already; use --mode skip');
    expect(await whileServing("data", readContents)).toEqual(changed);

    const dry = await gokv(["import", "-", "--mode", "skip", "--dry-run"], "data", text);
    expect(dry.stdout).toBe(`would store 1, skipped ${entries - 1}, left out 0 expired\n`);
    expect(await whileServing("data", readContents)).toEqual(changed);

    const skipped = await gokv(["import", "-", "--mode=skip"], "data", text);
    expect(skipped.stdout).toBe(`stored 1, skipped ${entries - 1}, left out 0 expired\n`);
    expect(await whileServing("data", readContents)).toEqual({ ...changed, "users\u00002": original["users\u00002"]! });

    const newest = await whileServing("data", newestRevision);
    const overwritten = await gokv(["import", "-", "--mode", "overwrite"], "data", text);
    expect(overwritten.stdout).toBe(`stored ${entries}, skipped 0, left out 0 expired\n`);
    await whileServing("data", async (url) => {
      expect(await readContents(url)).toEqual(original);
      const { headers: answered } = await fetch(`${url}/users/1`, { headers });
      expect(Number(JSON.parse(answered.get("etag")!))).toBeGreaterThan(newest);
    });
    expect(await gokv(["check"])).toMatchObject(DONE);
  });

  test("a cut or altered export is refused, and nothing of it is stored", async () => {
    const text = await exported();
    const lines = text.trimEnd().split("\n");
    const swapped = [lines[0], lines[2], lines[1], ...lines.slice(3)];
    const end = JSON.parse(lines.at(-1)!);
    const broken: Record<string, [string, string]> = {
      "nothing at all": ["", "it was cut"],
      "no end line": [`${lines.slice(0, -1).join("\n")}\n`, "it was cut"],
      "cut inside the end line": [text.slice(0, -10), ""],
      "cut inside a line": [text.slice(0, Math.floor(text.length / 2)), ""],
      "a line missing": [`${lines.toSpliced(2, 1).join("\n")}\n`, "Count or hash"],
      "a line doubled": [`${lines.toSpliced(2, 0, lines[2]!).join("\n")}\n`, "Count or hash"],
      "two lines swapped": [`${swapped.join("\n")}\n`, "Count or hash"],
      "a value altered": [text.replace('"QWRh"', '"QmRh"'), "Count or hash"],
      "no head line": [`${lines.slice(1).join("\n")}\n`, "no gokv export"],
      "a newer version": [text.replace('"version":1', '"version":2'), "version 2"],
      "a wrong count": [text.replace(/"count":\d+/, `"count":${end.count + 1}`), "Count or hash"],
      "something behind the end": [`${text}${lines[1]}\n`, "behind the end line"],
      "two exports in one": [text + text, "behind the end line"],
    };
    for (const [what, [content, problem]] of Object.entries(broken)) {
      const finished = await gokv(["import", "-"], "second", content);
      expect([what, finished.exitCode, finished.stdout]).toEqual([what, 1, ""]);
      expect([what, finished.stderr]).toEqual([what, expect.stringContaining(problem)]);
    }
    expect(await whileServing("second", readContents)).toEqual({});
  });

  test("an entry that no request could have made is named and refused", async () => {
    expect((await gokv(["import", "-"], "control", exportOf([ENTRY]))).stdout).toStartWith("stored 1,");
    const bad: object[] = [
      { key: ".." },
      { key: "a/../b" },
      { key: "." },
      { key: "" },
      { key: "k".repeat(1025) },
      { key: "nul\0" },
      { key: "\ufffd" },
      { key: 1 },
      { bucket: "" },
      { bucket: "a/b" },
      { bucket: "_x" },
      { bucket: ".." },
      { bucket: "b".repeat(129) },
      { bucket: null },
      { value: "***" },
      { value: "QQ" },
      { value: 7 },
      { content_type: "no media type" },
      { content_type: 1 },
      { metadata: { "UPPER CASE": "x" } },
      { metadata: { a: "line\nend" } },
      { metadata: [] },
      { metadata: { a: 1 } },
      { created_at: "yesterday" },
      { created_at: 0 },
      { updated_at: "2026-02-30T00:00:00.000Z" },
      { expires_at: "2026-01-01" },
      { expires: "2026-01-02T00:00:00.000Z" },
      { EXPIRES_AT: null },
    ];
    const finished = await gokv(
      ["import", "-"],
      "second",
      exportOf([ENTRY, ...bad.map((change) => ({ ...ENTRY, ...change }))]),
    );
    expect([finished.exitCode, finished.stdout]).toEqual([1, ""]);
    const named = [...finished.stderr.matchAll(/^line (\d+): \S/gm)].map((match) => Number(match[1]));
    // The head is line 1, the good entry line 2.
    expect(named).toEqual(bad.map((_, index) => index + 3));
    expect(finished.stderr).toContain(`${bad.length} bad lines; nothing was imported`);
    expect(await whileServing("second", readContents)).toEqual({});
  });

  test("a key that an export names twice is refused as one that exists, in whatever order its lines are", async () => {
    const keys = (...names: string[]) => names.map((key) => ({ ...ENTRY, key, value: btoa(key) }));
    const twice = { ...ENTRY, key: "a", value: btoa("second") };
    const problem = 'the key "a" of bucket "b" stands in the export twice';
    for (const [rows, line] of [
      [[...keys("a"), twice, ...keys("c")], 3],
      [[...keys("c", "a", "b"), twice], 5],
    ] as const) {
      for (const flags of [[], ["--mode", "fail"], ["--dry-run"]]) {
        const finished = await gokv(["import", "-", ...flags], "data", exportOf(rows));
        expect([finished.exitCode, finished.stdout]).toEqual([1, ""]);
        expect(finished.stderr).toStartWith(`line ${line}: ${problem}; `);
        expect(finished.stderr).toContain("1 bad lines; nothing was imported");
      }
    }
    expect(await whileServing("data", readContents)).toEqual({});
    const unordered = exportOf([...keys("c", "a", "b"), { ...ENTRY, bucket: "a", key: "a" }]);
    expect((await gokv(["import", "-"], "data", unordered)).stdout).toStartWith("stored 4,");
    const doubled = exportOf([...keys("a"), twice]);
    expect((await gokv(["import", "-", "--mode", "overwrite"], "data", doubled)).stdout).toStartWith("stored 2,");
    const sha256 = createHash("sha256").update("second").digest("hex");
    expect((await whileServing("data", readContents))["b\0a"]).toMatchObject({ sha256 });
  });

  test("a value over MAX_VALUE_BYTES is refused, because no server would serve it", async () => {
    const text = await exported();
    const env = { DB_PATH: dir.file("second"), MAX_VALUE_BYTES: "1MiB" };
    const finished = await run([GOKV, "import", "-"], { env, stdin: text });
    expect(finished.exitCode).toBe(1);
    expect(finished.stderr).toContain("MAX_VALUE_BYTES");
    const misspelt = await run([GOKV, "import", "-"], { env: { ...env, MAX_VALUE_BYTES: "1MB" }, stdin: text });
    expect([misspelt.exitCode, misspelt.stdout]).toEqual([2, ""]);
    expect(misspelt.stderr).toStartWith("gokv: MAX_VALUE_BYTES must be ");
  });

  test("an import may come through a pipe of its own", async () => {
    const text = await exported();
    writeFileSync(dir.file("export.ndjson"), text);
    const finished = await run(["sh", "-c", 'mkfifo pipe && { cat export.ndjson > pipe & "$0" import pipe; }', GOKV], {
      env: { DB_PATH: dir.file("second") },
      cwd: dir.path,
    });
    const entries = comparable(text).length - 2;
    expect(finished).toEqual({ ...DONE, stdout: `stored ${entries}, skipped 0, left out 0 expired\n` });
    expect(readdirSync(dir.file("second")).filter((name) => name.startsWith("import"))).toEqual([]);
  });

  test("what is no export, and a dry run, make no store where there was none", async () => {
    const text = await exported();
    const entries = comparable(text).length - 2;
    writeFileSync(dir.file("notes.txt"), "notes\n".repeat(100));
    mkdirSync(dir.file("empty"), { mode: 0o700 });
    const stores = () => readdirSync(dir.file("empty")).filter((name) => !name.startsWith("lock.db"));
    writeFileSync(dir.file("export.ndjson"), text);
    const wouldStore = { ...DONE, stdout: `would store ${entries}, skipped 0, left out 0 expired\n` };
    for (const source of ["-", "export.ndjson"]) {
      // Neither a directory nor a lock, where there is no store to be kept from others.
      expect(await gokv(["import", source, "--dry-run"], "missing", text)).toEqual(wouldStore);
      expect(existsSync(dir.file("missing"))).toBe(false);
      expect(await gokv(["import", source, "--dry-run"], "empty", text)).toEqual(wouldStore);
      expect(readdirSync(dir.file("empty"))).toEqual([]);
    }
    await expectFailure(gokv(["import", "notes.txt"], "empty"), 1, "no gokv export");
    await expectFailure(gokv(["import", "-"], "empty", text.slice(0, text.indexOf('{"count"'))), 1, "it was cut");
    await expectFailure(gokv(["import", "-"], "empty", ""), 1, "it was cut");
    await expectFailure(
      gokv(["import", "missing.ndjson"], "empty"),
      1,
      "cannot be read: there is no such file (ENOENT).",
    );
    expect(stores()).toEqual([]);
    expect((await gokv(["import", "-"], "empty", text)).stdout).toStartWith(`stored ${entries},`);
    expect(await whileServing("empty", readContents)).toEqual(await whileServing("data", readContents));
  });

  test("an import over DB_MAX_BYTES is refused, and what was there stays as it is", async () => {
    const entry = { bucket: "b", content_type: null, metadata: {}, creator_ip: null, expires_at: null };
    const atMs = { created_at: "2026-01-01T00:00:00.000Z", updated_at: "2026-01-01T00:00:00.000Z" };
    const text = (count: number, bytes: number) =>
      exportOf(
        Array.from({ length: count }, (_, n) => ({
          ...entry,
          ...atMs,
          key: `${n}`,
          value: Buffer.alloc(bytes, "v").toString("base64"),
        })),
      );
    const importing = (input: string, data: string, ...args: string[]) =>
      run([GOKV, "import", "-", ...args], { env: { DB_PATH: dir.file(data), DB_MAX_BYTES: "2MiB" }, stdin: input });
    // Not even the values find room: nothing is imported, and no store is made where there was none.
    await expectFailure(
      importing(text(30, 100_000), "new"),
      1,
      "larger than DB_MAX_BYTES (2097152). Nothing was imported.",
    );
    expect(existsSync(dir.file("new", "gokv.db"))).toBe(false);
    await whileServing("data", (url) => putNumbers(url, 0, 3));
    const before = hashOf(dir.file("data", "gokv.db"));
    await expectFailure(importing(text(30, 100_000), "data"), 1, "Nothing was imported.");
    expect(hashOf(dir.file("data", "gokv.db"))).toBe(before);
    // With what else a row takes they do not.
    const refused = importing(text(1_000, 1_400), "data");
    await expectFailure(refused, 1, "has reached DB_MAX_BYTES (2097152). The first ");
    const [, first, mode] = / (\d+) of 1000 entries were imported\. .* go on with --mode (\w+)/.exec(
      (await refused).stderr,
    )!;
    expect(mode).toBe("skip");
    expect(statSync(dir.file("data", "gokv.db")).size).toBeLessThanOrEqual(2_097_152);
    await whileServing("data", async (url) => {
      const names = Object.keys(await readContents(url)).filter((name) => name.startsWith("n\0"));
      expect(names).toEqual(["n\u00000", "n\u00001", "n\u00002"]);
    });
    const rest = await run([GOKV, "import", "-", "--mode", "skip"], {
      env: { DB_PATH: dir.file("data") },
      stdin: text(1_000, 1_400),
    });
    expect(rest.stdout).toStartWith(`stored ${1_000 - Number(first)}, skipped ${first},`);
    // With "skip" what was there before would stay as it was.
    const overwriting = importing(text(1_000, 1_400), "other", "--mode", "overwrite");
    await expectFailure(overwriting, 1, `The first ${first} of 1000 entries were imported. Raise the limit and go on`);
    expect((await overwriting).stderr).toContain("--mode overwrite");
    // What takes the place of as much fits.
    expect(await importing(text(15, 100_000), "full")).toMatchObject(DONE);
    expect(await importing(text(15, 100_000), "full", "--mode", "overwrite")).toMatchObject(DONE);
    expect((await importing(text(15, 100_000), "full", "--mode", "skip")).stdout).toStartWith("stored 0, skipped 15");
  });

  test("an import keeps the log within its limit", async () => {
    const value = Buffer.alloc(1024 * 1024, "v").toString("base64");
    const entry = { bucket: "b", value, content_type: null, metadata: {}, creator_ip: null, expires_at: null };
    const atMs = { created_at: "2026-01-01T00:00:00.000Z", updated_at: "2026-01-01T00:00:00.000Z" };
    writeFileSync(
      dir.file("large.ndjson"),
      exportOf(Array.from({ length: 64 }, (_, n) => ({ ...entry, ...atMs, key: `${n}` }))),
    );
    const child = Bun.spawn([GOKV, "import", dir.file("large.ndjson")], {
      env: { DB_PATH: dir.file("data"), WAL_LIMIT_BYTES: "1MiB" },
      stdio: ["ignore", "ignore", "inherit"],
    });
    let largest = 0;
    while (child.exitCode === null) {
      const { size } = statSync(dir.file("data", "gokv.db-wal"), { throwIfNoEntry: false }) ?? { size: 0 };
      largest = Math.max(largest, size);
      await Bun.sleep(1);
    }
    expect(child.exitCode).toBe(0);
    // Of one transaction, which may take 8 MiB before it is told that it is enough.
    expect(largest).toBeGreaterThan(4 * 1024 * 1024);
    expect(largest).toBeLessThan(16 * 1024 * 1024);
    expect((await gokv(["check"])).stdout).toStartWith("sound: 64 entries in 1 buckets");
  });

  test("an import that was interrupted or killed leaves nothing that it has put aside", async () => {
    const aside = () => readdirSync(dir.file("data")).filter((name) => name.startsWith("import"));
    for (const [signal, exitCode] of [
      ["SIGINT", 130],
      ["SIGTERM", 143],
      ["SIGKILL", 137],
    ] as const) {
      const child = Bun.spawn([GOKV, "import", "-"], {
        env: { DB_PATH: dir.file("data") },
        stdio: ["pipe", "ignore", "ignore"],
      });
      child.stdin.write("the first line\n");
      await child.stdin.flush();
      await eventually("something was put aside", 5_000, () => existsSync(dir.file("data")) && aside().length > 0);
      child.kill(signal);
      expect([signal, await child.exited]).toEqual([signal, exitCode]);
      expect([signal, aside().length]).toEqual([signal, signal === "SIGKILL" ? 1 : 0]);
    }
    expect((await gokv(["import", "missing.ndjson"])).exitCode).toBe(1);
    expect(aside()).toEqual([]);
  });

  test("an import needs the store for itself", async () => {
    const text = await exported();
    await using server = await serve();
    const before = await readContents(server.url);
    await expectFailure(gokv(["import", "-", "--mode", "overwrite"], "data", text), 3, "Another gokv has");
    expect(await readContents(server.url)).toEqual(before);
  });

  test("an export of a damaged store ends with 4 and without its end line", async () => {
    await whileServing("data", fillStore);
    damage(dir.file("data", "gokv.db"), "slashes");
    const finished = await gokv(["export"]);
    expect(finished.exitCode).toBe(4);
    expect(finished.stderr).toContain('"users" "a/b//c/" is damaged');
    expect(finished.stdout).not.toContain("sha256");
    expect((await gokv(["import", "-"], "second", finished.stdout)).exitCode).toBe(1);
  });

  test("ends with 1 where there is no store, or no file", async () => {
    await expectFailure(gokv(["export"]), 1, "There is no store");
    expect(existsSync(dir.file("data"))).toBe(false);
    await expectFailure(
      gokv(["import", "missing.ndjson"]),
      1,
      "missing.ndjson cannot be read: there is no such file (ENOENT).",
    );
    await expectFailure(gokv(["import", dir.path]), 1, "cannot be read: it is a folder (EISDIR).");
  });
});

describe("a file that is none", () => {
  test("is named with what is wrong with it, in one line, and nothing is made", async () => {
    await whileServing("data", (url) => putNumbers(url, 0, 3));
    mkdirSync(dir.file("folder"));
    expect((await run(["mkfifo", dir.file("pipe")])).exitCode).toBe(0);
    const names = readdirSync(dir.path).sort();
    const cases: [readonly string[], number, string][] = [
      [["check", "folder"], 1, "folder is a directory. Name a file in it, for instance gokv.db."],
      [["check", dir.file("data")], 1, "data is a directory. Name a file in it, for instance gokv.db."],
      [["check", "pipe"], 1, "pipe is no regular file."],
      [["check", "data/gokv.db/x"], 1, "data/gokv.db/x cannot be read: a part of its path is no folder (ENOTDIR)."],
      [["backup", ""], 2, "the name of the file is empty. See gokv backup --help."],
      [["check", ""], 2, "the name of the file is empty. See gokv check --help."],
      [["import", ""], 2, "the name of the file is empty. See gokv import --help."],
      [["restore", ""], 2, "the name of the file is empty. See gokv restore --help."],
      [["restore", "folder"], 1, "folder is a directory. Name a file in it, for instance gokv.db."],
      [["restore", "missing.db"], 1, "missing.db does not exist."],
    ];
    for (const [args, exitCode, problem] of cases) {
      const finished = await gokv(args);
      expect([args, finished.exitCode, finished.stdout]).toEqual([args, exitCode, ""]);
      expect([args, finished.stderr]).toEqual([args, expect.stringMatching(/^gokv: [^\n]+\n$/)]);
      expect([args, finished.stderr]).toEqual([args, expect.stringContaining(problem)]);
      expect(readdirSync(dir.path).sort()).toEqual(names);
    }
    expect((await gokv(["check"])).stdout).toStartWith("sound: 3 entries");
  });

  test("because its directory is closed is named with whose that is", async () => {
    if (!has("root, to ask as another user", isRoot())) return;
    await whileServing("data", (url) => putNumbers(url, 0, 3));
    cpSync(GOKV, dir.file("gokv"));
    chmodSync(dir.path, 0o755);
    const env = { DB_PATH: dir.file("data") };
    for (const args of [["check"], ["backup", "b.db"], ["export"]]) {
      const finished = await run([...ORDINARY_USER, dir.file("gokv"), ...args], { env, cwd: dir.path });
      const whose = "(65534): it belongs to user 0. Run the command as that one";
      const stderr = `gokv: ${env.DB_PATH} may not be read by this user ${whose}.\n`;
      expect([args, finished]).toEqual([args, { exitCode: 1, stdout: "", stderr }]);
    }
  });

  test("because it may not be read is named with the reason", async () => {
    if (!has("root, to ask as another user", isRoot())) return;
    await whileServing("source", (url) => putNumbers(url, 0, 3));
    expect(await gokv(["backup", "b.db"], "source")).toMatchObject(DONE);
    cpSync(GOKV, dir.file("gokv"));
    chmodSync(dir.path, 0o755);
    mkdirSync(dir.file("data"));
    chownSync(dir.file("data"), 65534, 65534);
    const env = { DB_PATH: dir.file("data") };
    for (const command of ["check", "restore"]) {
      const finished = await run([...ORDINARY_USER, dir.file("gokv"), command, "b.db"], { env, cwd: dir.path });
      const stderr = expect.stringMatching(/^gokv: b\.db cannot be [^\n]*\bEACCES\b[^\n]* owner and rights[^\n]*\n$/);
      expect([command, finished]).toEqual([command, { exitCode: 1, stdout: "", stderr }]);
    }
  });
});

test("a store of the first version is brought up to date at the start, and answers as before", async () => {
  await whileServing("data", fillStore);
  const path = dir.file("data", "gokv.db");
  const contents = await whileServing("data", readContents);
  makeOld(path);
  expect(await whileServing("data", readContents)).toEqual(contents);
  // The first row of a service that came later: its table is there, and its write unit is found.
  await whileServing("data", async (url) => {
    const body = JSON.stringify({ name: "first" });
    const response = await fetch(`${url}/api/token`, { method: "POST", headers, body });
    expect(response.status).toBe(201);
  });
});

describe("a gokv.db that is not ours", () => {
  /** Creates the file, by name. */
  const foreign: Readonly<Record<string, (path: string) => void>> = {
    "a SQLite file of another program": (path) => {
      using database = new Database(path);
      database.run("CREATE TABLE notes (text)");
    },
    "a store of a newer gokv": (path) => {
      const bytes = readFileSync(path);
      bytes.writeUInt32BE(9999, 60);
      writeFileSync(path, bytes);
    },
    "a plain text file": (path) => writeFileSync(path, "notes\n".repeat(1000)),
    "a short text file": (path) => writeFileSync(path, "notes"),
  };
  for (const [what, create] of Object.entries(foreign)) {
    test(`that is ${what}, ends every command with 4 and stays as it is`, async () => {
      mkdirSync(dir.file("data"), { mode: 0o700 });
      const path = dir.file("data", "gokv.db");
      if (what.includes("newer")) {
        await whileServing("data", fillStore);
        chmodSync(path, 0o600);
      }
      create(path);
      const before = [hashOf(path), statSync(path).mtimeMs];
      const env = { JWT_SECRET: SECRET, DB_PATH: dir.file("data"), PORT: "0", HOST: "127.0.0.1" };
      for (const args of [[], ["serve"], ["check"], ["export"], ["import", "-"], ["backup", "b.db"]]) {
        const finished = await run([GOKV, ...args], { env, cwd: dir.path, stdin: "" });
        expect([args, finished.exitCode, finished.stdout]).toEqual([args, 4, ""]);
        expect(finished.stderr).toMatch(/^gokv: .*gokv\.db/m);
        expect(finished.stderr).not.toContain("unexpected failure");
        expect([hashOf(path), statSync(path).mtimeMs]).toEqual(before);
      }
      for (const args of [
        ["check", path],
        ["restore", path],
      ]) {
        expect([args, (await gokv(args, "other")).exitCode]).toEqual([args, 4]);
        expect([hashOf(path), statSync(path).mtimeMs]).toEqual(before);
      }
      const names = readdirSync(dir.file("data"));
      // A server that ends while it writes its reserve leaves the draft to the next one.
      expect(names.filter((name) => !/^(gokv\.db|lock\.db(-journal)?|reserve(\.new)?)$/.test(name))).toEqual([]);
      expect(existsSync(dir.file("b.db"))).toBe(false);
    });
  }

  test("that was cut off at the end refuses the start with 4 and stays as it is", async () => {
    await whileServing("data", fillStore);
    const path = dir.file("data", "gokv.db");
    writeFileSync(path, readFileSync(path).subarray(0, 20_000));
    const before = hashOf(path);
    const refused = await run([GOKV], { env: { JWT_SECRET: SECRET, DB_PATH: dir.file("data"), PORT: "0" } });
    expect([refused.exitCode, refused.stdout]).toEqual([4, ""]);
    expect(refused.stderr).toContain("gokv restore");
    expect(hashOf(path)).toBe(before);
  });
});

describe("what gokv creates", () => {
  test("is for its user alone, whatever the umask of the shell", async () => {
    const env = { JWT_SECRET: SECRET, DB_PATH: dir.file("deep", "data"), RESERVE_BYTES: "1MiB" };
    await using server = await startServer(env, ["sh", "-c", 'umask 000; exec "$0" "$@"']);
    await fillStore(server.url);
    await fetch(`${server.url}/_admin/backup`, { method: "POST", headers });
    while (!existsSync(dir.file("deep", "data", "reserve"))) await Bun.sleep(10);
    const modes = (folder: string): string[] =>
      readdirSync(folder, { withFileTypes: true, recursive: true }).map((entry) => {
        const mode = modeOf(`${entry.parentPath}/${entry.name}`);
        return `${entry.isDirectory() ? "folder" : "file"} ${mode}`;
      });
    expect(modeOf(dir.file("deep", "data"))).toBe("700");
    expect(modeOf(dir.file("deep"))).toBe("700");
    expect([...new Set(modes(dir.file("deep", "data")))].sort()).toEqual(["file 600", "folder 700"]);
    const names = readdirSync(dir.file("deep", "data"));
    expect(names).toEqual(
      expect.arrayContaining(["gokv.db", "gokv.db-wal", "gokv.db-shm", "lock.db", "reserve", "backups"]),
    );
    expect(server.log()).not.toContain("chmod 700");
  });

  test("is told in the log, with a warning where there must have been a store before", async () => {
    const made = (server: ServerProcess) => /"level":"info","msg":"made a new store"/.test(server.log());
    const warned = (server: ServerProcess) =>
      /"level":"warning","msg":"the database file[^"]*"/.exec(server.log())?.[0];
    const look = async () => {
      await using server = await serve();
      await untilLogged(server, /listening/);
      await eventually("the reserve is written", 5_000, () => existsSync(dir.file("data", "reserve")));
      await stop(server);
      return [made(server), warned(server)];
    };
    expect(await look()).toEqual([true, undefined]);
    expect(await look()).toEqual([false, undefined]);
    writeFileSync(dir.file("data", "gokv.db"), "");
    expect(await look()).toEqual([true, expect.stringContaining("file was empty")]);
    rmSync(dir.file("data", "gokv.db"));
    expect(await look()).toEqual([true, expect.stringContaining("was missing")]);
  });

  test("is warned about when the folder is open to others", async () => {
    mkdirSync(dir.file("data"));
    chmodSync(dir.file("data"), 0o755);
    await using server = await serve();
    await untilLogged(server, /"level":"warning".*chmod 700/);
  });

  test("by root in the directory of another user belongs to that user, who can go on with it", async () => {
    if (!has("root, to work for another user", isRoot())) return;
    await whileServing("source", (url) => putNumbers(url, 0, 3));
    expect(await gokv(["backup", "b.db"], "source")).toMatchObject(DONE);
    writeFileSync(dir.file("e.ndjson"), (await gokv(["export"], "source")).stdout);
    cpSync(GOKV, dir.file("gokv"));
    chmodSync(dir.path, 0o755);
    const [restore, imports] = [
      ["restore", "b.db"],
      ["import", "e.ndjson"],
    ] as const;
    for (const [data, ...commands] of [
      ["restored", restore],
      ["imported", imports],
      ["replaced", imports, restore],
    ] as const) {
      mkdirSync(dir.file(data), { mode: 0o700 });
      chownSync(dir.file(data), 65534, 65534);
      for (const command of commands) expect(await gokv(command, data)).toMatchObject(DONE);
      const names = readdirSync(dir.file(data));
      const owners = names.map((name) => [name, statSync(dir.file(data, name)).uid]);
      expect(owners).toEqual(names.map((name) => [name, 65534]));
      const env = { DB_PATH: dir.file(data), JWT_SECRET: SECRET };
      await using server = await startServer(env, ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]);
      expect((await fetch(`${server.url}/n/1`, { headers })).status).toBe(200);
    }
  });

  test("by root for another user, a backup too, belongs to that user, and elsewhere to root alone", async () => {
    if (!has("root, to work for another user", isRoot())) return;
    chmodSync(dir.path, 0o755);
    cpSync(GOKV, dir.file("gokv"));
    for (const name of ["home", "home/data", "stranger"]) mkdirSync(dir.file(name), { mode: 0o700 });
    for (const name of ["home", "home/data"]) chownSync(dir.file(name), 65534, 65534);
    chownSync(dir.file("stranger"), 65533, 65533);
    const asUser = (args: readonly string[], data = "home/data") =>
      run([...ORDINARY_USER, dir.file("gokv"), ...args], { env: { DB_PATH: dir.file(data) }, cwd: dir.file("home") });
    const env = { DB_PATH: dir.file("home", "data"), JWT_SECRET: SECRET };
    await using server = await startServer(env, ORDINARY_USER);
    await putNumbers(server.url, 0, 3);
    expect((await fetch(`${server.url}/_admin/backup`, { method: "POST", headers })).status).toBe(200);
    // Beside the server, and without it.
    const own = dir.file("home", "data", "backups", "beside.db");
    expect(await gokv(["backup", own], "home/data")).toMatchObject(DONE);
    await stop(server);
    for (const file of [dir.file("home", "alone.db"), dir.file("stranger", "b.db"), dir.file("b.db")]) {
      expect(await gokv(["backup", file], "home/data")).toMatchObject(DONE);
    }
    const files = [own, dir.file("home", "alone.db"), dir.file("stranger", "b.db"), dir.file("b.db")];
    expect(files.map((file) => [statSync(file).uid, modeOf(file)])).toEqual(
      [65534, 65534, 0, 0].map((uid) => [uid, "600"]),
    );
    expect((await asUser(["check", own])).stdout).toStartWith("sound: 3 entries");
    expect(await asUser(["restore", own])).toMatchObject(DONE);
    // Directories that are made on the way, as well.
    expect(await gokv(["restore", "b.db"], "home/deep/er")).toMatchObject(DONE);
    expect((await asUser(["check"], "home/deep/er")).stdout).toStartWith("sound: 3 entries");
  });

  test("by a command is for its user alone too", async () => {
    await whileServing("data", fillStore);
    const shell = (command: string) =>
      run(["sh", "-c", `umask 000; ${command}`, GOKV], { env: { DB_PATH: dir.file("data") }, cwd: dir.path });
    expect(await shell('"$0" backup b.db')).toMatchObject(DONE);
    expect(await shell('DB_PATH=restored "$0" restore b.db')).toMatchObject(DONE);
    expect(await shell('"$0" export > e.ndjson && DB_PATH=imported "$0" import e.ndjson')).toMatchObject(DONE);
    expect([modeOf(dir.file("b.db")), modeOf(dir.file("restored")), modeOf(dir.file("imported"))]).toEqual([
      "600",
      "700",
      "700",
    ]);
    for (const data of ["restored", "imported"]) {
      for (const name of readdirSync(dir.file(data)))
        expect([name, modeOf(dir.file(data, name))]).toEqual([name, "600"]);
    }
  });
});
