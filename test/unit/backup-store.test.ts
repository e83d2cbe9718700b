// A backup that is made lasts, and is given up for what is written meanwhile, not for what was written before.

import { expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync, realpathSync, writeFileSync } from "node:fs";
import { backupStore, logGuard } from "../../src/storage/backup-store.ts";
import { openStore } from "../../src/storage/open-store.ts";
import { has, hasProgram } from "../support/needs.ts";
import { strace } from "../support/strace.ts";
import { pathOfDescriptor, readTrace } from "../support/system-call-trace.ts";
import { tempDir } from "../support/temp-dir.ts";

const BACKUP_STORE = new URL("../../src/storage/backup-store.ts", import.meta.url).pathname;

if (has("strace", hasProgram("strace"))) {
  test("a backup has the directory synced after it has got its name there", async () => {
    using dir = tempDir();
    const [source, target] = [dir.file("gokv.db"), `${realpathSync(dir.path)}/copy.db`];
    await makeStore(source);
    const script = `const { backupStore } = await import(process.argv[1]);
      await backupStore({ source: process.argv[2], target: process.argv[3] });`;
    const output = dir.file("trace");
    const tracer = strace({ output, calls: ["link", "linkat", "fsync"], bytesKept: 4096 });
    const child = Bun.spawn([...tracer, process.execPath, "-e", script, BACKUP_STORE, source, target], {
      stderr: "pipe",
    });
    expect([await new Response(child.stderr).text(), await child.exited]).toEqual(["", 0]);
    const { calls } = readTrace(output);
    const named = calls.findIndex(({ name }) => name.startsWith("link"));
    expect(named).toBeGreaterThanOrEqual(0);
    const synced = calls.slice(named).filter(({ name, result }) => name === "fsync" && result === 0);
    expect(synced.map(pathOfDescriptor)).toContain(realpathSync(dir.path));
  });
}

/** The database file of a store that takes more than one step to copy. */
async function makeStore(path: string): Promise<string> {
  const database = await openStore({ path, walLimitBytes: 1_000_000, databaseBytesMax: 0, isChecked: false });
  database.run("CREATE TABLE filler (value)");
  database.run("INSERT INTO filler VALUES (zeroblob(6000000))");
  database.close(true);
  return path;
}

test("a file that appears while the backup is made is not overwritten", async () => {
  using dir = tempDir();
  const source = await makeStore(dir.file("gokv.db"));
  const target = dir.file("copy.db");
  const backup = backupStore({ source, target, onStep: () => writeFileSync(target, "mine") });
  await expect(backup).rejects.toThrow("copy.db exists already; a backup never overwrites.");
  expect(readFileSync(target, "utf8")).toBe("mine");
  expect(readdirSync(dir.path).filter((name) => name.includes("partial"))).toEqual([]);
});

test("of two backups to one file only one says that it was written", async () => {
  using dir = tempDir();
  const source = await makeStore(dir.file("gokv.db"));
  const target = dir.file("copy.db");
  let inner: Promise<unknown> | null = null;
  const onStep = () => {
    inner ??= backupStore({ source, target }).catch((error: Error) => error.message);
  };
  const outer = await backupStore({ source, target, onStep }).catch((error: Error) => error.message);
  const refusals = [outer, await inner].filter((end) => typeof end === "string");
  expect(refusals).toEqual([expect.stringContaining("exists already")]);
  expect(existsSync(target)).toBe(true);
});

test("a copy is given up when the log has grown past four times its limit", () => {
  using dir = tempDir();
  const write = (bytes: number) => writeFileSync(dir.file("gokv.db-wal"), new Uint8Array(bytes));
  const guard = logGuard(dir.file("gokv.db"), 1000);
  guard();
  write(4000);
  guard();
  write(4001);
  expect(guard).toThrow("Too much was written while the store was copied");
});

test("a copy is not given up for a log that was longer than that before", () => {
  using dir = tempDir();
  const write = (bytes: number) => writeFileSync(dir.file("gokv.db-wal"), new Uint8Array(bytes));
  write(9000);
  const guard = logGuard(dir.file("gokv.db"), 1000);
  guard();
  write(9001);
  expect(guard).toThrow("Too much was written while the store was copied");
});
