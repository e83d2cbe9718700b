// A volume or a quota that is full: puts are refused, all else goes on, and puts again once there is room.

import { describe, expect, test } from "bun:test";
import { closeSync, existsSync, openSync, rmSync, statfsSync, statSync, truncateSync, writeSync } from "node:fs";
import { join } from "node:path";
import { idOf, storedValue } from "../support/durable-load.ts";
import { eventually } from "../support/eventually.ts";
import { type Environment, GOKV, run, type ServerProcess, startServer } from "../support/executable.ts";
import { has, isRoot } from "../support/needs.ts";
import { mountSmallVolume } from "../support/small-volume.ts";
import { mint, SECRET } from "../support/targets.ts";
import { tempDir } from "../support/temp-dir.ts";

const MiB = 1024 * 1024;
const VALUE_BYTES = 100_000;
const DELETED = 15;
const DELETES_MAX = 200;
/** More than the volume holds. */
const IMPORTED = 1504;
const WRITERS = 8;
/** The reserve is looked after every five seconds. */
const RESERVE_TIMEOUT_MS = 12_000;

const FULL = /"level":"warning".*"the store is full/;
const WRITABLE = /"level":"info".*"the store takes writes again"/;

const LARGE_REFUSED = /"level":"warning".*"the volume has no room for large values.*"bytes":11534336/;
const LARGE_TAKEN = /"level":"info".*"the store takes large values again"/;

/** Writes to `path` until the volume has exactly `leftBytes` free. */
function fillVolume(path: string, leftBytes: number): void {
  const descriptor = openSync(path, "w");
  let bytes = 0;
  try {
    for (const piece = new Uint8Array(4096); ; ) bytes += writeSync(descriptor, piece);
  } catch (error) {
    expect((error as NodeJS.ErrnoException).code).toBe("ENOSPC");
  } finally {
    closeSync(descriptor);
  }
  truncateSync(path, bytes - leftBytes);
}

type Send = (method: string, key: string, body?: Uint8Array<ArrayBuffer>) => Promise<Response>;

function sender(server: ServerProcess, token: string): Send {
  return (method, key, body) =>
    fetch(`${server.url}/b/${key}`, {
      method,
      headers: { Authorization: `Bearer ${token}` },
      ...(body === undefined ? {} : { body }),
    });
}

/** Puts until the first refusal. Returns how many were stored. */
async function fill(send: Send, says = /no space left/, valueBytes = VALUE_BYTES): Promise<number> {
  for (let id = 1; ; id++) {
    const response = await send("PUT", `k${id}`, storedValue(id, valueBytes));
    if (response.status !== 200) {
      const { code, message } = (await response.json()) as { code: string; message: string };
      expect([response.status, code]).toEqual([507, "storage_full"]);
      expect(message).toMatch(says);
      return id - 1;
    }
  }
}

/** The same, several at once, so that many rows share a commit. Returns the keys. */
async function fillTogether(send: Send, valueBytes: number): Promise<string[]> {
  const stored: string[] = [];
  let id = 0;
  const work = async () => {
    for (;;) {
      const key = `k${++id}`;
      const { status } = await send("PUT", key, storedValue(id, valueBytes));
      if (status !== 200) return expect(status).toBe(507);
      stored.push(key);
    }
  };
  await Promise.all(Array.from({ length: WRITERS }, work));
  return stored;
}

/** All but the last, one by one, so that each has a commit of its own; then a put. */
async function expectToBeEmptied(send: Send, keys: readonly string[]): Promise<void> {
  expect(keys.length).toBeGreaterThan(DELETED);
  for (const key of keys.slice(0, -1)) expect([key, (await send("DELETE", key)).status]).toEqual([key, 200]);
  expect((await send("PUT", "again", storedValue(1, 1000))).status).toBe(200);
}

const logged = (server: ServerProcess, msg: RegExp) =>
  server
    .log()
    .split("\n")
    .filter((line) => msg.test(line));

/** The state of the store is told once a second. */
const LOGGED_MS = 5_000;

/** Fills the store, makes room, fills it again; then a restart must find exactly what was acknowledged. */
async function liveThroughFullness(env: Environment, cause: RegExp): Promise<void> {
  const token = await mint();
  const stored = new Map<string, number>();
  const server = await startServer(env);
  const send = sender(server, token);
  const count = await fill(send, env.DB_MAX_BYTES === undefined ? /on the volume/ : /DB_MAX_BYTES/);
  expect(count).toBeGreaterThan(2 * DELETED);
  for (let id = 1; id <= count; id++) stored.set(`k${id}`, id);

  const refused = await Promise.all([1, 2, 3].map((n) => send("POST", `new${n}`, storedValue(n, VALUE_BYTES))));
  expect(refused.map((response) => response.status)).toEqual([507, 507, 507]);
  expect((await send("PUT", "k1", storedValue(9_999, 4 * VALUE_BYTES))).status).toBe(507);
  await eventually("the log says that it is full", LOGGED_MS, () => logged(server, FULL).length > 0);
  expect(logged(server, FULL)).toEqual([expect.stringMatching(cause)]);
  expect((await fetch(`${server.url}/readyz`)).status).toBe(200);
  expect(idOf(new Uint8Array(await (await send("GET", "k1")).arrayBuffer()))).toBe(1);
  for (let id = 1; id <= DELETED; id++) {
    expect((await send("DELETE", `k${id}`)).status).toBe(200);
    stored.delete(`k${id}`);
  }
  for (let id = 1001; id <= 1005; id++) {
    expect((await send("POST", `again${id}`, storedValue(id, VALUE_BYTES))).status).toBe(200);
    stored.set(`again${id}`, id);
  }
  await eventually("the log says that it is over", LOGGED_MS, () => logged(server, WRITABLE).length > 0);
  server.kill("SIGKILL");
  await server.exited;

  await using after = await startServer(env);
  const sendAfter = sender(after, token);
  const list = await fetch(`${after.url}/_list?bucket=b`, { headers: { Authorization: `Bearer ${token}` } });
  expect(await list.json()).toEqual([...stored.keys()].sort());
  for (const [key, id] of stored) {
    expect([key, idOf(new Uint8Array(await (await sendAfter("GET", key)).arrayBuffer()))]).toEqual([key, id]);
  }
}

describe("a store that has reached DB_MAX_BYTES", () => {
  test("refuses puts with 507, serves and deletes, and takes puts again after that", async () => {
    using dir = tempDir();
    const env = { DB_PATH: dir.file("data"), DB_MAX_BYTES: "6MiB", RESERVE_BYTES: "0" };
    await liveThroughFullness({ JWT_SECRET: SECRET, ...env }, /"cause":"DB_MAX_BYTES is 6291456"/);
  });
});

if (has("root, to mount a small volume", isRoot())) {
  describe("a store on a full volume", () => {
    test("refuses puts with 507, serves and deletes, and takes puts again after that", async () => {
      using volume = mountSmallVolume(128 * MiB);
      const env = { JWT_SECRET: SECRET, DB_PATH: join(volume.path, "data") };
      await liveThroughFullness(env, /"cause":"the volume has no space left"/);
    });

    // The less the volume, the less the reserve; the last ones are of values that fill a good part of it at once.
    test.each([
      [4, VALUE_BYTES] as const,
      [12, VALUE_BYTES] as const,
      [24, VALUE_BYTES] as const,
      [12, 1000] as const,
      [24, 20 * VALUE_BYTES] as const,
      [64, 60 * VALUE_BYTES] as const,
      [48, 50 * VALUE_BYTES] as const,
      [64, 200 * VALUE_BYTES] as const,
    ])(
      "of %i MiB, with values of %i bytes, takes every delete, and puts after that",
      async (volumeMiB, valueBytes) => {
        using volume = mountSmallVolume(volumeMiB * MiB);
        const data = join(volume.path, "data");
        await using server = await startServer({ JWT_SECRET: SECRET, DB_PATH: data, ACCESS_LOG: "off" });
        await eventually("the reserve is written", RESERVE_TIMEOUT_MS, () => existsSync(join(data, "reserve")));
        const send = sender(server, await mint());
        const count = await fill(send, undefined, valueBytes);
        for (let id = 1; id <= Math.min(count, DELETES_MAX); id++) {
          expect([id, (await send("DELETE", `k${id}`)).status]).toEqual([id, 200]);
        }
        expect((await send("PUT", "again", storedValue(1, 1000))).status).toBe(200);
      },
      60_000,
    );

    test.each([["0", 8, VALUE_BYTES] as const, ["0", 6, 1000] as const, ["1", 6, 1000] as const])(
      "with a reserve of %s bytes, of %i MiB, with values of %i bytes, takes every delete and puts, twice",
      async (reserveBytes, volumeMiB, valueBytes) => {
        using volume = mountSmallVolume(volumeMiB * MiB);
        const data = join(volume.path, "data");
        const env = { JWT_SECRET: SECRET, DB_PATH: data, ACCESS_LOG: "off", RESERVE_BYTES: reserveBytes };
        const token = await mint();
        const server = await startServer(env);
        const keys = await fillTogether(sender(server, token), valueBytes);
        await expectToBeEmptied(sender(server, token), keys);
        server.kill("SIGTERM");
        expect(await server.exited).toBe(0);
        await using after = await startServer(env);
        await expectToBeEmptied(sender(after, token), await fillTogether(sender(after, token), valueBytes));
      },
      60_000,
    );

    // The second one leaves no room to make the reserve larger.
    test.each([24 * MiB, 2 * MiB])(
      "takes every delete, and puts, with the small reserve of an earlier setting and %i bytes left",
      async (leftBytes) => {
        using volume = mountSmallVolume(24 * MiB);
        const data = join(volume.path, "data");
        const reserve = join(data, "reserve");
        const env = { JWT_SECRET: SECRET, DB_PATH: data, ACCESS_LOG: "off" };
        const first = await startServer({ ...env, RESERVE_BYTES: "4096" });
        await eventually("the small reserve is written", RESERVE_TIMEOUT_MS, () => existsSync(reserve));
        first.kill("SIGTERM");
        expect(await first.exited).toBe(0);
        const hasRoom = leftBytes === 24 * MiB;
        if (!hasRoom) fillVolume(join(volume.path, "ballast"), leftBytes);
        await using server = await startServer(env);
        if (hasRoom) {
          const isLarge = () => statSync(reserve).size === 1.5 * MiB;
          await eventually("the reserve is as large as wanted", RESERVE_TIMEOUT_MS, isLarge);
        }
        const send = sender(server, await mint());
        await expectToBeEmptied(send, await fillTogether(send, VALUE_BYTES / 5));
      },
      60_000,
    );

    test.each([
      ["made by it", false, 0],
      ["with a reserve", true, 0],
      ["with a reserve that is too small", false, 64 * 1024],
    ])(
      "takes every delete and puts after an import that found no room, into a store %s",
      async (_, hasReserve, leftBytes) => {
        using elsewhere = tempDir();
        using volume = mountSmallVolume(24 * MiB);
        const send = async (server: ServerProcess) => sender(server, await mint());
        const source = { JWT_SECRET: SECRET, DB_PATH: elsewhere.file("data"), ACCESS_LOG: "off" };
        await using from = await startServer(source);
        const sendFrom = await send(from);
        for (let id = 1; id <= IMPORTED; id += WRITERS) {
          const ids = Array.from({ length: WRITERS }, (_, index) => id + index);
          await Promise.all(ids.map((each) => sendFrom("PUT", `k${each}`, storedValue(each, VALUE_BYTES / 5))));
        }
        const file = elsewhere.file("export.ndjson");
        await Bun.write(file, (await run([GOKV, "export"], { env: source })).stdout);

        const env = { ...source, DB_PATH: join(volume.path, "data") };
        if (hasReserve) {
          await using server = await startServer(env);
          await eventually("the reserve is written", RESERVE_TIMEOUT_MS, () =>
            existsSync(join(env.DB_PATH, "reserve")),
          );
          server.kill("SIGTERM");
          await server.exited;
        }
        // By a setting of before.
        if (leftBytes > 0) await Bun.write(join(env.DB_PATH, "reserve"), new Uint8Array(leftBytes));
        const { exitCode, stderr } = await run([GOKV, "import", file], { env });
        const advice =
          /There is no space left .* The first \d+ of \d+ entries were imported\. Free some and go on with --mode skip/;
        expect([exitCode, stderr]).toEqual([1, expect.stringMatching(advice)]);
        // Beside what is held there is room for a reserve of the usual size.
        const { bavail, blocks } = statfsSync(volume.path);
        if (!hasReserve) expect(bavail).toBeGreaterThanOrEqual(Math.floor(blocks / 16));
        await using server = await startServer(env);
        const sendTo = await send(server);
        for (let id = 1; id <= IMPORTED; id++) {
          expect([id, (await sendTo("DELETE", `k${id}`)).status]).toEqual([id, 200]);
        }
        expect((await sendTo("PUT", "again", storedValue(1, 1000))).status).toBe(200);
      },
      60_000,
    );

    test("says when it has no room for large values, though small ones are taken, and when it has again", async () => {
      using volume = mountSmallVolume(32 * MiB);
      const data = join(volume.path, "data");
      await using server = await startServer({ JWT_SECRET: SECRET, DB_PATH: data, ACCESS_LOG: "off" });
      await eventually("the reserve is written", RESERVE_TIMEOUT_MS, () => existsSync(join(data, "reserve")));
      const token = await mint();
      const send = sender(server, token);
      const figure = async () => {
        const answer = await fetch(`${server.url}/metrics`, { headers: { Authorization: `Bearer ${token}` } });
        return /^gokv_storage_full (\d)$/m.exec(await answer.text())![1];
      };
      const large = 11 * MiB;
      expect((await send("PUT", "first", storedValue(1, large))).status).toBe(200);
      expect([await figure(), logged(server, LARGE_REFUSED)]).toEqual(["0", []]);
      for (const key of ["second", "third"]) expect((await send("PUT", key, storedValue(1, large))).status).toBe(507);
      await eventually("the log says so", LOGGED_MS, () => logged(server, LARGE_REFUSED).length > 0);
      expect(await figure()).toBe("1");
      expect((await send("PUT", "small", storedValue(1, VALUE_BYTES))).status).toBe(200);
      expect((await send("PUT", "third", storedValue(1, large))).status).toBe(507);
      expect((await send("DELETE", "first")).status).toBe(200);
      await eventually("the log says that it is over", LOGGED_MS, () => logged(server, LARGE_TAKEN).length > 0);
      expect(await figure()).toBe("0");
      expect((await send("PUT", "third", storedValue(1, large))).status).toBe(200);
      const told = [LARGE_REFUSED, LARGE_TAKEN, FULL, WRITABLE].map((msg) => logged(server, msg).length);
      expect(told).toEqual([1, 1, 0, 0]);
    }, 60_000);

    test("says that it has room for large values again when that is so once the log is emptied", async () => {
      using volume = mountSmallVolume(48 * MiB);
      const data = join(volume.path, "data");
      await using server = await startServer({ JWT_SECRET: SECRET, DB_PATH: data, ACCESS_LOG: "off" });
      await eventually("the reserve is written", RESERVE_TIMEOUT_MS, () => existsSync(join(data, "reserve")));
      const send = sender(server, await mint());
      const large = 11 * MiB;
      const put = async (key: string, bytes: number) => (await send("PUT", key, storedValue(1, bytes))).status;
      expect([await put("a", large), await put("b", large), await put("c", large)]).toEqual([200, 200, 200]);
      expect(await put("d", large)).toBe(507);
      await eventually("the log says so", LOGGED_MS, () => logged(server, LARGE_REFUSED).length > 0);
      // Of these 5 MiB the log goes on holding as many, and those are missing for large values until it is emptied.
      expect([await put("e", 5 * MiB), (await send("DELETE", "e")).status]).toEqual([200, 200]);
      volume.resize(60 * MiB);
      // A store that is at rest for a while empties it by itself.
      const isOver = async () => (await put("f", 10)) === 200 && logged(server, LARGE_TAKEN).length > 0;
      await eventually("the log says that it is over", LOGGED_MS, isOver);
      expect(await put("d", large)).toBe(200);
    }, 60_000);

    test("gives up its reserve when the volume is full and takes it again when there is room", async () => {
      using volume = mountSmallVolume(12 * MiB);
      const data = join(volume.path, "data");
      const reserve = join(data, "reserve");
      await using server = await startServer({ JWT_SECRET: SECRET, DB_PATH: data });
      await eventually("the reserve is written", RESERVE_TIMEOUT_MS, () => existsSync(reserve));
      const send = sender(server, await mint());
      // Something else takes the room, so that it can be given back at once.
      const ballast = join(volume.path, "ballast");
      await Bun.write(ballast, new Uint8Array(7 * MiB));
      await fill(send);
      expect(existsSync(reserve)).toBe(false);
      await Bun.file(ballast).delete();
      await eventually(
        "a put is taken",
        RESERVE_TIMEOUT_MS,
        async () => (await send("PUT", "k", storedValue(1, 10))).ok,
      );
      await eventually("the reserve is back", RESERVE_TIMEOUT_MS, () => existsSync(reserve));
    }, 160_000);

    // With nothing left the lock cannot be taken, with a few pages the store cannot be opened.
    test.each([0, 12, 40])(
      "is started with %i KiB left, reads, and takes deletes",
      async (leftKiB) => {
        using volume = mountSmallVolume(16 * MiB);
        const env = { JWT_SECRET: SECRET, DB_PATH: join(volume.path, "data") };
        const token = await mint();
        const first = await startServer(env);
        const reserve = join(env.DB_PATH, "reserve");
        await eventually("the reserve is written", RESERVE_TIMEOUT_MS, () => existsSync(reserve));
        for (let id = 1; id <= DELETED; id++) await sender(first, token)("PUT", `k${id}`, storedValue(id, VALUE_BYTES));
        first.kill("SIGTERM");
        expect(await first.exited).toBe(0);
        const ballast = join(volume.path, "ballast");
        fillVolume(ballast, leftKiB * 1024);

        await using server = await startServer(env);
        const send = sender(server, token);
        expect(existsSync(reserve)).toBe(false);
        expect((await send("PUT", "new", storedValue(1, 4 * VALUE_BYTES))).status).toBe(507);
        for (let id = 1; id <= DELETED; id++) {
          expect(idOf(new Uint8Array(await (await send("GET", `k${id}`)).arrayBuffer()))).toBe(id);
          expect((await send("DELETE", `k${id}`)).status).toBe(200);
        }
        await eventually("the log says that it is full", LOGGED_MS, () => logged(server, FULL).length > 0);
        // Nobody but it has freed anything.
        expect((await send("PUT", "after", storedValue(1, VALUE_BYTES / 2))).status).toBe(200);
        expect(existsSync(reserve)).toBe(false);
        await Bun.file(ballast).delete();
        const isPut = async () => (await send("PUT", "new", storedValue(1, 10))).ok;
        await eventually("a put is taken", RESERVE_TIMEOUT_MS, isPut);
        await eventually("the reserve is back", RESERVE_TIMEOUT_MS, () => existsSync(reserve));
      },
      60_000,
    );

    test("is named by commands and the server when a few pages are left", async () => {
      using dir = tempDir();
      using volume = mountSmallVolume(16 * MiB);
      const env = { JWT_SECRET: SECRET, DB_PATH: join(volume.path, "data"), RESERVE_BYTES: "0" };
      const first = await startServer(env);
      await sender(first, await mint())("PUT", "k", storedValue(1, VALUE_BYTES));
      first.kill("SIGTERM");
      expect(await first.exited).toBe(0);
      for (const args of [["backup", dir.file("b.db")], []]) {
        // What the one before could not finish takes the rest.
        for (const suffix of ["-shm", "-wal"]) rmSync(join(env.DB_PATH, `gokv.db${suffix}`), { force: true });
        fillVolume(join(volume.path, "ballast"), 12 * 1024);
        const finished = await run([GOKV, ...args], { env: { ...env, GIN_MODE: "release", PORT: "0" } });
        expect([args, finished.exitCode, finished.stdout]).toEqual([args, 1, ""]);
        const problem = /^gokv: \S+ cannot be opened [^\n]+: its volume has \d+ KiB left\. Free some [^\n]+\n$/;
        expect([args, finished.stderr]).toEqual([args, expect.stringMatching(problem)]);
      }
    });
  });
}
