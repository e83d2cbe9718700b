// A restore killed at each of its renames, where a file can have two names and where it cannot.

import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { cpSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { REVISION_LEAP } from "../../src/storage/leap-counters.ts";
import { type Finished, GOKV, run, startServer, whileKilled } from "../support/executable.ts";
import { forgeToken } from "../support/forge-token.ts";
import { has, hasProgram } from "../support/needs.ts";
import { strace } from "../support/strace.ts";
import { SECRET } from "../support/targets.ts";
import { type TempDir, tempDir } from "../support/temp-dir.ts";
import { WAL_FRAME_HEADER_BYTES } from "../support/wal-file.ts";

// Many processes are started; on a busy machine that takes its time.
setDefaultTimeout(120_000);

const RENAMES = "rename,renameat,renameat2";
const LINKS = "link,linkat";
/** More renames than a restore has. */
const MOMENTS_MAX = 20;
const FRAME_BYTES = WAL_FRAME_HEADER_BYTES + 4096;
const OLD = Array.from({ length: 20 }, (_, number) => `${number + 10}`);
const NEW = OLD.slice(0, 3);
const headers = { Authorization: `Bearer ${forgeToken()}` };

let dir: TempDir;
/** A backup of NEW, and a killed store of OLD, whose log holds all of it. */
beforeEach(async () => {
  dir = tempDir();
  const put = async (url: string, keys: readonly string[]) => {
    for (const key of keys)
      expect((await fetch(`${url}/n/${key}`, { method: "POST", body: key, headers })).ok).toBe(true);
  };
  await whileKilled(startServer({ JWT_SECRET: SECRET, DB_PATH: dir.file("old") }), async (url) => {
    await put(url, NEW);
    expect((await gokv(["backup", "backup.db"], "old")).exitCode).toBe(0);
    await put(url, OLD.slice(NEW.length));
  });
});
afterEach(() => dir[Symbol.dispose]());

const gokv = (args: readonly string[], data: string, wrapper: readonly string[] = []): Promise<Finished> =>
  run([...wrapper, GOKV, ...args], { env: { DB_PATH: dir.file(data) }, cwd: dir.path });

/** A restore into `data` in which links are refused or not, and the rename of that number, if any, kills it. */
async function restore(data: string, isLinkRefused: boolean, killedAt?: number): Promise<Finished> {
  const inject = [
    ...(isLinkRefused ? [`${LINKS}:error=EPERM`] : []),
    ...(killedAt === undefined ? [] : [`${RENAMES}:signal=KILL:when=${killedAt}`]),
  ];
  if (inject.length === 0) return gokv(["restore", "backup.db"], data);
  const calls = `${RENAMES},${LINKS}`.split(",");
  return gokv(["restore", "backup.db"], data, strace({ output: dir.file("trace"), calls, inject }));
}

async function keysIn(data: string): Promise<string[]> {
  const { stdout } = await gokv(["export"], data);
  return stdout.split("\n").flatMap((line) => (line.includes('"key"') ? [JSON.parse(line).key as string] : []));
}

/** By name, but for what every command makes anew. */
function filesIn(data: string): Map<string, string> {
  const names = readdirSync(dir.file(data)).filter((name) => /^gokv\.db/.test(name) && !name.endsWith("-shm"));
  return new Map(names.sort().map((name) => [name, Bun.hash(readFileSync(dir.file(data, name))).toString(16)]));
}

/** As the message says it: "rename A to B and C to D". */
function follow(advice: string): void {
  const moves = [...advice.matchAll(/(\S+\/gokv\.db\.before-\S+) to (\S+?)(?=\.?\s| and )/g)];
  expect(moves.length).toBeGreaterThan(0);
  for (const [, from, to] of moves) renameSync(from!, to!);
}

function damageLog(data: string): void {
  const path = dir.file(data, "gokv.db-wal");
  const bytes = readFileSync(path);
  bytes[bytes.length - 12 * FRAME_BYTES + 100]! ^= 1;
  writeFileSync(path, bytes);
}

/** What the old store is like; `end` is how a check of it ends. */
const KINDS = [
  { kind: "sound", spoil: () => undefined, end: 0 },
  { kind: "one with a damaged log", spoil: damageLog, end: 4 },
  { kind: "one whose database file was lost", spoil: (data: string) => rmSync(dir.file(data, "gokv.db")), end: 4 },
] as const;

if (has("strace", hasProgram("strace"))) {
  for (const isLinkRefused of [true, false]) {
    describe(`where links are ${isLinkRefused ? "refused" : "granted"}, a restore over a store that is`, () => {
      for (const { kind, spoil, end } of KINDS) {
        test(`${kind}, killed at any rename, leaves the old store, the new one or the way to both`, async () => {
          let moment = 1;
          for (; moment < MOMENTS_MAX; moment++) {
            const data = `data-${moment}`;
            cpSync(dir.file("old"), dir.file(data), { recursive: true });
            spoil(data);
            const before = filesIn(data);
            const { exitCode, stderr } = await restore(data, isLinkRefused, moment);
            if (exitCode === 0) break;
            expect([moment, exitCode, stderr]).toEqual([moment, 137, ""]);
            await expectOldOrRefusal(data, before, end);
            await expectRestored(data, isLinkRefused, before);
          }
          expect(moment).toBeWithin(3, MOMENTS_MAX);
        });
      }
    });
  }
}

async function expectOldOrRefusal(data: string, before: Map<string, string>, end: number): Promise<void> {
  const check = await gokv(["check"], data);
  expect(check.stderr).not.toContain("unexpected failure");
  if (check.exitCode === 0) return expect([OLD.join(), NEW.join()]).toContain((await keysIn(data)).join());
  expect(check.exitCode).toBe(4);
  if (!check.stderr.includes("A restore was interrupted")) {
    // Nothing was moved: the old store with what was wrong with it.
    expect(end).toBe(4);
    return expect(Object.fromEntries(filesIn(data))).toMatchObject(Object.fromEntries(before));
  }
  expect(check.stderr).toContain("Run gokv restore FILE again");
  const back = `${data}-back`;
  cpSync(dir.file(data), dir.file(back), { recursive: true });
  follow(check.stderr.replaceAll(dir.file(data), dir.file(back)));
  const returned = await gokv(["check"], back);
  expect([returned.exitCode, returned.stderr]).toEqual([end, expect.not.stringContaining("A restore was interrupted")]);
  if (end === 0) return expect(await keysIn(back)).toEqual(OLD);
  expect(Object.fromEntries(filesIn(back))).toMatchObject(Object.fromEntries(before));
}

async function expectRestored(data: string, isLinkRefused: boolean, before: Map<string, string>): Promise<void> {
  const again = await restore(data, isLinkRefused);
  expect([again.exitCode, again.stderr]).toEqual([0, ""]);
  expect(await keysIn(data)).toEqual(NEW);
  const files = filesIn(data);
  const kept = [...files].filter(([name]) => /^gokv\.db\.before-\d{8}T\d{9}Z/.test(name));
  const stamps = new Set(kept.map(([name]) => name.replace(/-(wal|journal)$/, "")));
  expect([...stamps]).toHaveLength(1);
  expect([...files.keys()].filter((name) => !name.includes(".before-"))).toEqual(["gokv.db"]);
  // A log that was sound was copied into the file that is kept; otherwise all is as it was.
  if (kept.length === before.size) {
    expect(kept.map(([, hash]) => hash)).toEqual([...before.values()]);
    return;
  }
  // No ETag of the old store comes again.
  expect(again.stdout).toContain(`revision ${REVISION_LEAP + OLD.length}`);
  expect((await gokv(["restore", dir.file(data, kept[0]![0])], `${data}-old`)).exitCode).toBe(0);
  expect(await keysIn(`${data}-old`)).toEqual(OLD);
}
