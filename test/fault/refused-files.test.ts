// Files that this user may not use, or that find no room: one line that says what to do, and never a trace.

import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { chmodSync, cpSync, mkdirSync, rmdirSync } from "node:fs";
import { join } from "node:path";
import { type Environment, GOKV, JWT_GEN, run, startServer, stop } from "../support/executable.ts";
import { has, hasProgram, isRoot } from "../support/needs.ts";
import { mountSmallVolume } from "../support/small-volume.ts";
import { fillStore } from "../support/store-contents.ts";
import { SECRET } from "../support/targets.ts";
import { type TempDir, tempDir } from "../support/temp-dir.ts";

const TIMEOUT_MS = 60_000;
const NOBODY = ["setpriv", "--reuid=65534", "--clear-groups"];

let dir: TempDir;
let env: Environment;
beforeEach(async () => {
  dir = tempDir();
  env = { JWT_SECRET: SECRET, DB_PATH: dir.file("data"), PORT: "0", HOST: "127.0.0.1" };
  await using server = await startServer({ ...env, RESERVE_BYTES: "0" });
  await fillStore(server.url);
  await stop(server);
});
afterEach(() => dir[Symbol.dispose]());

/** What the command says last; it has to be all it says but for warnings. */
async function lastWords(command: readonly string[]): Promise<string> {
  const { exitCode, stdout, stderr } = await run(command, { env });
  expect([command.join(" "), exitCode, stdout]).toEqual([command.join(" "), 1, ""]);
  const lines = stderr.trimEnd().split("\n");
  expect(lines.slice(0, -1).filter((line) => !/ warning /.test(line))).toEqual([]);
  return lines.at(-1)!;
}

if (has("root and setpriv, to be another user", isRoot() && hasProgram("setpriv"))) {
  test(
    "a store of another user is refused with the way out of it",
    async () => {
      chmodSync(dir.path, 0o755);
      chmodSync(dir.file("data"), 0o755);
      const advice = /^gokv: .*\.db cannot be (opened|written) \(.*\)\. Check owner and rights of/;
      for (const mode of [0o644, 0o600]) {
        chmodSync(dir.file("data", "gokv.db"), mode);
        for (const args of [["check"], ["export"], ["backup", "/tmp/never.db"], ["serve"]]) {
          expect(await lastWords([...NOBODY, GOKV, ...args])).toMatch(advice);
        }
      }
      // SQLite would open it for reading, and the first write would end the process.
      chmodSync(dir.file("data"), 0o777);
      chmodSync(dir.file("data", "gokv.db"), 0o644);
      expect(await lastWords([...NOBODY, GOKV])).toMatch(advice);
    },
    TIMEOUT_MS,
  );
}

if (has("root, to mount a volume", isRoot())) {
  test(
    "a store on a volume that cannot be written is refused with the way out of it",
    async () => {
      using volume = mountSmallVolume(60 * 1024 * 1024);
      cpSync(dir.file("data"), join(volume.path, "data"), { recursive: true });
      expect((await run([GOKV, "backup", dir.file("b.db")], { env })).exitCode).toBe(0);
      volume.forbidWriting();
      env = { ...env, DB_PATH: join(volume.path, "data") };
      for (const args of [
        ["serve"],
        ["import", "-"],
        ["import", "/dev/null"],
        ["rekey"],
        ["restore", dir.file("b.db")],
      ]) {
        const last = await lastWords([GOKV, ...args]);
        expect([args, last]).toEqual([
          args,
          expect.stringMatching(/^gokv: \/\S+ cannot be .*\b(EROFS|readonly)\b.*\.$/),
        ]);
      }
    },
    TIMEOUT_MS,
  );
}

test(
  "a directory with the name of a file that was left behind is named, and stays",
  async () => {
    for (const [name, ...commands] of [
      ["gokv.db.restoring-wal", ["serve"], ["rekey"]],
      ["gokv.db.restored-20260102T030405678Z", ["serve"], ["rekey"]],
      ["import-0c8a3a3e-1111-4222-8333-444444444444.ndjson", ["serve"], ["import", "/dev/null"]],
    ] as const) {
      const path = dir.file("data", name);
      mkdirSync(path);
      for (const args of commands) {
        expect(await lastWords([GOKV, ...args])).toBe(
          `gokv: ${path} cannot be removed: it is a folder (EISDIR). Move it away.`,
        );
      }
      rmdirSync(path);
    }
  },
  TIMEOUT_MS,
);

describe("without room", () => {
  if (has("root, to mount a small volume", isRoot())) {
    test(
      "a backup says that its volume is full, and leaves nothing there",
      async () => {
        using volume = mountSmallVolume(128 * 1024);
        const file = join(volume.path, "copy.db");
        for (let round = 0; round < 2; round++) {
          expect(await lastWords([GOKV, "backup", file])).toBe(
            `gokv: There is no space left to write ${file}. Free some and try again.`,
          );
        }
      },
      TIMEOUT_MS,
    );
  }

  test(
    "on standard output a command says so",
    async () => {
      const commands = [
        ["--help"],
        ["version"],
        ["check"],
        ["export"],
        ["jwt-gen", "--secret", SECRET, "--expires-in", "1h"],
      ].map((args) => [GOKV, ...args]);
      for (const command of [...commands, [JWT_GEN, "--help"]]) {
        const last = await lastWords(["sh", "-c", '"$@" >/dev/full', "sh", ...command]);
        expect(last).toMatch(
          /^(gokv|jwt-gen): cannot write to standard output: there is no space left .*\(ENOSPC\)\.$/,
        );
      }
    },
    TIMEOUT_MS,
  );
});
