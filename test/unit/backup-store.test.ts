// A backup that is made lasts, and is given up for what is written meanwhile, not for what was written before.

import { expect, test } from "bun:test";
import { realpathSync, writeFileSync } from "node:fs";
import { logGuard } from "../../src/storage/backup-store.ts";
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
    const options = { path: source, walLimitBytes: 1_000_000, databaseBytesMax: 0, isChecked: false };
    (await openStore(options)).close(true);
    const script = `const { backupStore } = await import(process.argv[1]);
      await backupStore({ source: process.argv[2], target: process.argv[3] });`;
    const output = dir.file("trace");
    const tracer = strace({ output, calls: ["rename", "renameat", "renameat2", "fsync"], bytesKept: 4096 });
    const child = Bun.spawn([...tracer, process.execPath, "-e", script, BACKUP_STORE, source, target], {
      stderr: "pipe",
    });
    expect([await new Response(child.stderr).text(), await child.exited]).toEqual(["", 0]);
    const { calls } = readTrace(output);
    const renamed = calls.findIndex(({ name }) => name.startsWith("rename"));
    expect(renamed).toBeGreaterThanOrEqual(0);
    const synced = calls.slice(renamed).filter(({ name, result }) => name === "fsync" && result === 0);
    expect(synced.map(pathOfDescriptor)).toContain(realpathSync(dir.path));
  });
}

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
