// The process dies while a namespace is wiped or its rows are purged: the namespace is wholly there or wholly gone, the
// purge goes on after the start, and what was written since then stays.

import { Database } from "bun:sqlite";
import { describe, expect, test } from "bun:test";
import { EXIT } from "../../src/shared/errors.ts";
import { readNamespace } from "../support/batch-load.ts";
import { eventually } from "../support/eventually.ts";
import { type Environment, GOKV, run, type ServerProcess, startServer, stop } from "../support/executable.ts";
import { has, hasProgram } from "../support/needs.ts";
import { bySize, report } from "../support/run-size.ts";
import { seededRandom } from "../support/seeded-random.ts";
import { strace } from "../support/strace.ts";
import { SECRET } from "../support/targets.ts";
import { type TempDir, tempDir } from "../support/temp-dir.ts";
import { type Asked, asApp, type Installed, install, operatorAt } from "../support/token-client.ts";

const KEYS = 6_000;
const KILLS = bySize(8, 20, 60);
/** Longer than a wipe and some slices of its purge. */
const LIFE_MS_MAX = 40;
const PURGE_TIMEOUT_MS = 20_000;
const TIMEOUT_MS = bySize(180_000, 1_200_000);

/** A store with a namespace that is filled and wiped, and another one that has to stay as it is. */
class WipedStore {
  readonly env: Environment;
  readonly #dir: TempDir;
  wiped!: Installed;
  kept!: Installed;

  constructor(dir: TempDir) {
    this.#dir = dir;
    this.env = {
      JWT_SECRET: SECRET,
      DB_PATH: dir.file("data"),
      ACCESS_LOG: "off",
      RESERVE_BYTES: "0",
      TOKEN_RATE_READ: "0",
      TOKEN_RATE_WRITE: "0",
      TOKEN_RATE_DELETE: "0",
      TOKEN_RATE_BATCH: "0",
    };
  }

  async prepare(): Promise<void> {
    await using server = await this.start();
    const target = await operatorAt(server.url);
    this.wiped = await install(target);
    this.kept = await install(target);
    await importKeys(target, this.kept.token, "kept", 50);
    await importKeys(target, this.wiped.token, "old", KEYS);
    await stop(server);
  }

  start(...wrapper: string[]): Promise<ServerProcess> {
    return startServer(this.env, wrapper);
  }

  startTraced(call: string, inject: string): Promise<ServerProcess> {
    return this.start(...strace({ output: this.#dir.file("trace"), calls: [call], inject: [inject] }));
  }

  /** Rows of the wiped namespace, those that are still to be purged included, and whether its purge is over. */
  rows(): { rows: number; isPurged: boolean } {
    // Another process has it open: SQLite's locks are those of processes, and this one has no other descriptor of it.
    using database = new Database(this.#dir.file("data", "gokv.db"), { readonly: true });
    const { rows } = database
      .query<{ rows: number }, [string]>("SELECT count(*) AS rows FROM kv WHERE bucket = ?")
      .get(this.wiped.uuid)!;
    const { wiped } = database
      .query<{ wiped: number }, [string]>("SELECT max(wiped_revision) AS wiped FROM kv_bucket WHERE name = ?")
      .get(this.wiped.uuid)!;
    return { rows, isPurged: wiped === 0 };
  }

  async check(): Promise<void> {
    const finished = await run([GOKV, "check"], { env: this.env });
    expect([finished.exitCode, finished.stderr]).toEqual([EXIT.done, ""]);
  }

  /** What every client sees of both namespaces; the operator's list must tell the same. */
  async contents(target: Asked): Promise<Map<string, string>> {
    expect((await readNamespace(target, this.kept.token)).size).toBe(50);
    const entries = await readNamespace(target, this.wiped.token);
    const list = await target.fetch(`/_list?bucket=${this.wiped.uuid}&count=1`);
    expect(await list.json()).toMatchObject({ count: entries.size });
    return entries;
  }
}

async function importKeys(target: Asked, token: string, name: string, count: number): Promise<void> {
  const value = { name, pad: "p".repeat(100) };
  const body = JSON.stringify(Object.fromEntries(Array.from({ length: count }, (_, n) => [`${name}.${n}`, value])));
  const response = await asApp(target, token, "/_batchimport", { method: "POST", body });
  expect([response.status, ((await response.json()) as { successful: number }).successful]).toEqual([200, count]);
}

function wipe(target: Asked, token: string): Promise<number> {
  return asApp(target, token, "/", { method: "DELETE" }).then(
    (response) => response.status,
    () => 0,
  );
}

/** How a wipe that was answered with `status` (0 = not at all) was found after the start. */
async function judgeAfterCrash(store: WipedStore, status: number): Promise<"there" | "gone"> {
  await store.check();
  await using server = await store.start();
  const target = await operatorAt(server.url);
  const entries = await store.contents(target);
  const found = entries.size === 0 ? "gone" : "there";
  expect([status, found === "there" ? entries.size : 0]).toEqual([status, found === "there" ? KEYS : 0]);
  if (status === 204) expect(found).toBe("gone");
  if (found === "gone") {
    // Also over a key that is still to be purged.
    await importKeys(target, store.wiped.token, "new", 20);
    await importKeys(target, store.wiped.token, "old", 3);
    await eventually("the purge is over", PURGE_TIMEOUT_MS, () => store.rows().isPurged);
    expect(store.rows().rows).toBe(23);
    const later = [...(await store.contents(target)).keys()];
    expect(later.sort()).toEqual([...names("new", 20), ...names("old", 3)].sort());
    expect((await asApp(target, store.wiped.token, "/", { method: "DELETE" })).status).toBe(204);
    await importKeys(target, store.wiped.token, "old", KEYS);
  }
  await eventually("the purge is over", PURGE_TIMEOUT_MS, () => store.rows().isPurged);
  await stop(server);
  return found;
}

function names(name: string, count: number): string[] {
  return Array.from({ length: count }, (_, n) => `${name}.${n}`);
}

describe("a process that is killed at any moment of a wipe", () => {
  test(
    "has wiped all of the namespace or nothing, and a wipe that was answered lasts",
    async () => {
      using dir = tempDir();
      const store = new WipedStore(dir);
      await store.prepare();
      const random = seededRandom("kills beside wipes");
      const found = { there: 0, gone: 0, purging: 0 };
      for (let kill = 0; kill < KILLS; kill++) {
        const server = await store.start();
        const wiping = wipe(await operatorAt(server.url), store.wiped.token);
        // Every other kill meets the purge.
        if (kill % 2 === 1) await wiping;
        await Bun.sleep(random.next() * LIFE_MS_MAX * (kill % 2 === 1 ? 0.3 : 1));
        server.kill("SIGKILL");
        const status = await wiping;
        await server.exited;
        if (!store.rows().isPurged) found.purging++;
        found[await judgeAfterCrash(store, status)]++;
      }
      report(`wipes, ${KILLS} kills: ${found.gone} gone, ${found.there} there, ${found.purging} with rows to purge`);
      expect(found.gone).toBeGreaterThan(0);
      expect(found.purging).toBeGreaterThan(0);
    },
    TIMEOUT_MS,
  );

  test(
    "goes on with the purge at each start, however often it is killed; writes in between stay",
    async () => {
      using dir = tempDir();
      const store = new WipedStore(dir);
      await store.prepare();
      const first = await store.start();
      expect(await wipe(await operatorAt(first.url), store.wiped.token)).toBe(204);
      first.kill("SIGKILL");
      await first.exited;
      const left = [store.rows().rows];
      const written: string[] = [];
      for (let life = 0; !store.rows().isPurged; life++) {
        const server = await store.start();
        const target = await operatorAt(server.url);
        await importKeys(target, store.wiped.token, `life${life}`, 2);
        written.push(...names(`life${life}`, 2));
        server.kill("SIGKILL");
        await server.exited;
        await store.check();
        left.push(store.rows().rows - written.length);
      }
      report(`purge over ${left.length - 1} lives, rows left: ${left.join(", ")}`);
      expect(left[0]).toBeGreaterThan(0);
      expect(left.at(-1)).toBe(0);
      expect(left).toEqual(left.toSorted((a, b) => b - a));
      await using server = await store.start();
      const entries = await store.contents(await operatorAt(server.url));
      expect([...entries.keys()].sort()).toEqual(written.sort());
    },
    TIMEOUT_MS,
  );
});

if (has("strace", hasProgram("strace"))) {
  describe("a process that dies in the n-th fsync", () => {
    test(
      "of a wipe and its purge has wiped all of the namespace or nothing",
      async () => {
        using dir = tempDir();
        const store = new WipedStore(dir);
        await store.prepare();
        const found = { there: 0, gone: 0 };
        const last = bySize(8, 15, 30);
        // From the first sync of a start to some of the purge.
        for (let moment = 1; moment <= last; moment++) {
          const server = await store.startTraced("fsync", `fsync:signal=KILL:when=${moment}`).catch(() => null);
          let status = 0;
          if (server !== null) {
            const target = await operatorAt(server.url);
            status = await wipe(target, store.wiped.token);
            await Promise.race([server.exited, Bun.sleep(1_000)]);
            await server[Symbol.asyncDispose]();
          }
          found[await judgeAfterCrash(store, status)]++;
        }
        report(`wipes, death in each of ${last} fsyncs: ${found.gone} gone, ${found.there} there`);
        expect(found.there).toBeGreaterThan(0);
        expect(found.gone).toBeGreaterThan(0);
      },
      TIMEOUT_MS,
    );

    test("that fails answers the wipe with 500 storage_failed, and it is whole or absent afterwards", async () => {
      using dir = tempDir();
      const store = new WipedStore(dir);
      await store.prepare();
      for (let moment = 1; ; moment++) {
        const server = await store.startTraced("fsync", `fsync:error=EIO:when=${moment}`).catch(() => null);
        if (server === null) continue;
        const target = await operatorAt(server.url);
        const response = await asApp(target, store.wiped.token, "/", { method: "DELETE" }).catch(() => null);
        const { status = 0 } = response ?? {};
        if (status === 500) expect(await response!.json()).toMatchObject({ statusCode: 500, code: "storage_failed" });
        expect(await server.exited).toBe(EXIT.storageFailed);
        const found = await judgeAfterCrash(store, status);
        if (status === 500) break;
        expect([status, found]).toEqual([204, "gone"]);
      }
    }, 120_000);
  });
}
