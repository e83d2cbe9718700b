// Provider keys at rest: nowhere to be read, opened by the right secret alone, moved from one secret to another.

import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { ChannelStore } from "../../src/relay/channel-store.ts";
import { alterStore } from "../support/alter-store.ts";
import { eventually } from "../support/eventually.ts";
import {
  type Environment,
  type Finished,
  GOKV,
  run,
  type ServerProcess,
  startServer,
  untilLogged,
} from "../support/executable.ts";
import { FaultUpstream } from "../support/fault-upstream.ts";
import { openStoreAt } from "../support/own-store.ts";
import {
  type ChannelJson,
  chat,
  chatCode,
  makeChannel,
  makeToken,
  manage,
  managed,
  RELAY_ENV,
} from "../support/relay-client.ts";
import { mint, type Target } from "../support/targets.ts";
import { type TempDir, tempDir } from "../support/temp-dir.ts";
import { wrongKey } from "../support/upstream-plans.ts";

// Many processes are started; on a busy machine that takes its time.
setDefaultTimeout(120_000);

const FIRST = "first-secret-of-more-than-32-bytes-for-tests";
const SECOND = "second-secret-of-more-than-32-bytes-for-tests";
const MASTER = "master-key-of-more-than-32-bytes-for-tests";
const KEY = "sk-canary-0123456789-0123456789-tail";
const OTHER_KEY = "sk-canary-abcdefghij-abcdefghij-tail";
const KILLS = 12;
const MANY_CHANNELS = 200;
const SCAN_MS = 5000;

let dir: TempDir;
let upstream: FaultUpstream;
beforeEach(async () => {
  dir = tempDir();
  upstream = await FaultUpstream.start();
});
afterEach(async () => {
  await upstream[Symbol.asyncDispose]();
  dir[Symbol.dispose]();
});

interface Running extends AsyncDisposable {
  readonly target: Target;
  readonly process: ServerProcess;
  /** A graceful end. */
  stop(): Promise<void>;
}

/** The executable on the data of this test; its operator signs with `secret`. */
async function serve(secret: string, env: Environment = {}): Promise<Running> {
  const process = await startServer({ ...RELAY_ENV, JWT_SECRET: secret, DB_PATH: dir.file("data"), ...env });
  const jwt = await mint({}, secret);
  const target: Target = {
    url: process.url,
    dbPath: dir.file("data"),
    fetch(path, { headers = {}, ...init } = {}) {
      const sent = new Headers();
      for (const [name, value] of Object.entries({ Authorization: `Bearer ${jwt}`, ...headers })) {
        if (value !== null) sent.set(name, value);
      }
      return fetch(`${process.url}${path}`, { ...init, headers: sent });
    },
    restart: () => Promise.reject(new Error("start another one")),
    [Symbol.asyncDispose]: () => process[Symbol.asyncDispose](),
  };
  const stop = async () => {
    process.kill("SIGTERM");
    expect(await process.exited).toBe(0);
  };
  return { target, process, stop, [Symbol.asyncDispose]: () => process[Symbol.asyncDispose]() };
}

const rekey = (env: Environment, args: readonly string[] = []): Promise<Finished> =>
  run([GOKV, "rekey", ...args], { env: { DB_PATH: dir.file("data"), ...env } });

const states = async (target: Target): Promise<unknown[]> => {
  const channels = await managed<ChannelJson[]>(target, "GET", "/api/channel");
  return Promise.all(channels.map(async ({ id }) => (await managed(target, "GET", `/api/channel/${id}/health`)).state));
};

/** Makes two channels and a token under `secret`, and stops. Returns the key of the token. */
async function prepare(secret: string, env: Environment = {}): Promise<string> {
  await using server = await serve(secret, env);
  await makeChannel(server.target, upstream, { key: KEY });
  await makeChannel(server.target, upstream, { key: OTHER_KEY, priority: -1 });
  const { key } = await makeToken(server.target);
  await server.stop();
  return key;
}

describe("the secret behind the seals", () => {
  test("may change when the one before is named; after a rekey it need not be", async () => {
    const token = await prepare(FIRST);
    {
      await using server = await serve(SECOND, { JWT_SECRET_PREVIOUS: FIRST });
      expect(await states(server.target)).toEqual(["closed", "closed"]);
      expect((await chat(server.target, token)).status).toBe(200);
      await server.stop();
    }
    const { exitCode, stdout, stderr } = await rekey({ JWT_SECRET: SECOND, JWT_SECRET_PREVIOUS: FIRST });
    expect([exitCode, stderr]).toEqual([0, ""]);
    expect(stdout).toMatch(/^resealed 2 \(kid [0-9a-f]{8}\)\nwebhook secrets resealed 0 \(kid [0-9a-f]{8}\)\n$/);
    await using server = await serve(SECOND);
    expect(await states(server.target)).toEqual(["closed", "closed"]);
    expect((await chat(server.target, token)).status).toBe(200);
    expect(upstream.keys).toEqual([KEY, KEY]);
  });

  test("dropped too early locks the channels, and nothing else; a key that is set again heals", async () => {
    const token = await prepare(FIRST);
    await using server = await serve(SECOND);
    const { target, process } = server;
    expect(await states(target)).toEqual(["locked", "locked"]);
    await eventually("the log names them", SCAN_MS, () => /"level":"error".*"channels":"1,2"/.test(process.log()));
    expect(await chatCode(await chat(target, token))).toBe("no_available_channel");
    expect(await managed(target, "POST", "/api/channel/1/test", { model: "m" })).toMatchObject({ success: false });
    expect((await manage(target, "GET", "/api/channel/1/models")).status).toBe(502);
    expect((await target.fetch("/users/1", { method: "PUT", body: "x" })).status).toBe(200);
    const shown = { status: 1, status_reason: "key_unreadable" };
    expect(await managed<object[]>(target, "GET", "/api/channel")).toMatchObject([shown, shown]);
    const refused = await manage(target, "POST", "/_admin/rekey");
    expect([refused.status, await refused.json()]).toEqual([
      409,
      {
        statusCode: 409,
        code: "key_unreadable",
        ids: [1, 2],
        message:
          "No secret opens the keys of these channels: 1,2. Nothing was changed. Start with the old secret in " +
          "MASTER_KEY_PREVIOUS or JWT_SECRET_PREVIOUS, or set the key again.",
      },
    ]);
    expect(upstream.requests).toEqual([]);
    expect((await manage(target, "PUT", "/api/channel/1", { key: KEY })).status).toBe(200);
    expect(await states(target)).toEqual(["closed", "locked"]);
    expect(await managed<object>(target, "GET", "/api/channel/1")).toMatchObject({ status: 1, status_reason: null });
    expect((await chat(target, token)).status).toBe(200);
    expect(upstream.keys).toEqual([KEY]);
    await server.stop();
    const failed = await rekey({ JWT_SECRET: SECOND });
    expect([failed.exitCode, failed.stdout]).toEqual([1, ""]);
    expect(failed.stderr).toMatch(/^gokv: .*channels: 2\./);
  });

  test("moves to a master key, to another one and back", async () => {
    await prepare(FIRST);
    const steps: readonly Environment[] = [
      { MASTER_KEY: MASTER },
      { MASTER_KEY: `another ${MASTER}`, MASTER_KEY_PREVIOUS: MASTER },
      { MASTER_KEY_PREVIOUS: `another ${MASTER}` },
    ];
    for (const step of steps) {
      const { exitCode, stdout } = await rekey({ JWT_SECRET: FIRST, ...step });
      expect([step, exitCode, stdout.split(" (")[0]]).toEqual([step, 0, "resealed 2"]);
    }
    await using server = await serve(FIRST);
    expect(await states(server.target)).toEqual(["closed", "closed"]);
  });

  test("changes through a running server as well, named or found at the store", async () => {
    await prepare(FIRST);
    const secrets = { JWT_SECRET: SECOND, JWT_SECRET_PREVIOUS: FIRST };
    await using server = await serve(SECOND, { JWT_SECRET_PREVIOUS: FIRST });
    const port = new URL(server.process.url).port;
    const found = await rekey({ ...secrets, PORT: port });
    expect([found.exitCode, found.stdout.split(" (")[0]]).toEqual([0, "resealed 2"]);
    const named = await rekey(secrets, ["--url", server.process.url]);
    expect([named.exitCode, named.stdout.split(" (")[0]]).toEqual([0, "resealed 0"]);
    expect(await states(server.target)).toEqual(["closed", "closed"]);
  });

  test("has at least 32 bytes when it is a master key, or the server does not start", async () => {
    const short = { JWT_SECRET: FIRST, MASTER_KEY: "x".repeat(31), DB_PATH: dir.file("data") };
    const { exitCode, stderr } = await run([GOKV], { env: short });
    expect([exitCode, stderr]).toEqual([2, expect.stringContaining("MASTER_KEY has 31 bytes")]);
    expect(readdirSync(dir.path)).toEqual([]);
  });

  test("is told to be weak when it seals and is weak", async () => {
    await using server = await serve("weak-secret", { GIN_MODE: "debug" });
    await untilLogged(server.process, /MASTER_KEY/);
  });

  test("a rekey killed at any moment leaves every key readable", async () => {
    {
      await using server = await serve(FIRST);
      for (let made = 0; made < MANY_CHANNELS; made += 50) {
        await Promise.all(Array.from({ length: 50 }, () => makeChannel(server.target, upstream, { key: KEY })));
      }
      await server.stop();
    }
    const secrets = [FIRST, SECOND];
    const startMs = performance.now();
    expect((await rekey({ JWT_SECRET: SECOND, JWT_SECRET_PREVIOUS: FIRST })).stdout).toStartWith("resealed 200 ");
    const wholeMs = performance.now() - startMs;
    for (let kill = 0; kill < KILLS; kill++) {
      const [current, previous] = kill % 2 === 0 ? secrets : secrets.toReversed();
      const env = { JWT_SECRET: current!, JWT_SECRET_PREVIOUS: previous!, DB_PATH: dir.file("data") };
      const child = Bun.spawn([GOKV, "rekey"], { env, stdout: "ignore", stderr: "ignore" });
      // From before the store is opened to after the commit.
      await Promise.race([Bun.sleep((wholeMs * (kill + 1)) / KILLS), child.exited]);
      child.kill("SIGKILL");
      await child.exited;
      expect(await openedKeys([FIRST, SECOND])).toEqual(Array.from({ length: MANY_CHANNELS }, () => KEY));
    }
  });
});

/** What the secrets open in the store of this test, which nobody else has open. */
async function openedKeys(secrets: readonly string[]): Promise<(string | null)[]> {
  await using store = await openStoreAt(dir.file("data"), { JWT_SECRET: FIRST });
  const bytes = secrets.map((secret) => new TextEncoder().encode(secret));
  const channels = await ChannelStore.open(store, bytes);
  return (await channels.list()).map((channel) => channels.keyOf(channel));
}

describe("a sealed key", () => {
  test("copied to another channel, or to another address, does not open, and no wrong key is sent", async () => {
    await using other = await FaultUpstream.start();
    const token = await prepare(FIRST);
    await using server = await serve(FIRST);
    const { target } = server;
    const copies = [
      "UPDATE relay_channel SET sealed_key = (SELECT sealed_key FROM relay_channel WHERE id = 1) WHERE id = 2",
      `UPDATE relay_channel SET base_url = '${other.url}' WHERE id = 1`,
    ];
    for (const copy of copies) await alterStore(target.dbPath, copy);
    // Any change makes the server read its channels again.
    await managed(target, "POST", "/api/channel/2/enable");
    expect(await states(target)).toEqual(["locked", "locked"]);
    expect(await chatCode(await chat(target, token))).toBe("no_available_channel");
    expect([upstream.requests, other.requests]).toEqual([[], []]);
  });

  test("and the key of a token stand nowhere: not in the files, the log, the metrics, nor any answer", async () => {
    const tokenKey = "sk-canary-token-0123456789-tail";
    const seen: string[] = [];
    await using server = await serve(FIRST, { ACCESS_LOG: "all", LOG_LEVEL: "debug" });
    const { target, process } = server;
    const look = async (method: string, path: string, body?: unknown) => {
      const answer = await manage(target, method, path, body);
      seen.push(`${JSON.stringify([...answer.headers])}\n${await answer.text()}`);
      return answer.status;
    };
    const channel = { type: "Custom", name: "canary", key: KEY, base_url: upstream.url };
    expect(await look("POST", "/api/channel", channel)).toBe(201);
    expect(await look("POST", "/api/channel", { ...channel, weight: -1 })).toBe(400);
    expect(await look("PUT", "/api/channel/1", { key: OTHER_KEY })).toBe(200);
    expect(await look("PUT", "/api/channel/1", { base_url: "http://127.0.0.1:1" })).toBe(400);
    expect((await manage(target, "POST", "/api/token", { name: "canary", key: tokenKey })).status).toBe(201);
    expect(await look("POST", "/api/token", { name: "canary", key: tokenKey })).toBe(409);
    const calls = [await chat(target, tokenKey)];
    upstream.next(wrongKey);
    calls.push(await chat(target, tokenKey));
    for (const call of calls) seen.push(`${JSON.stringify([...call.headers])}\n${await call.text()}`);
    upstream.next(wrongKey);
    expect(await look("POST", "/api/channel/1/test", { model: "m" })).toBe(200);
    expect(upstream.keys).toEqual([OTHER_KEY, OTHER_KEY, OTHER_KEY]);
    await eventually("the calls are logged", SCAN_MS, async () => {
      return (await managed<{ data: unknown[] }>(target, "GET", "/api/log")).data.length === 2;
    });
    const paths = ["/api/channel", "/api/channel/1", "/api/channel/1/health", "/api/token", "/api/token/1", "/api/log"];
    for (const path of [...paths, "/api/log/stat", "/metrics", "/openapi.json"])
      expect(await look("GET", path)).toBe(200);
    expect(await look("POST", "/_admin/backup")).toBe(200);
    const files = filesBelow(target.dbPath);
    expect(files.map((path) => path.replace(/^.*\//, ""))).toContain("gokv.db-wal");
    expect(files.some((path) => path.includes("/backups/"))).toBe(true);
    const places = [...files.map((path) => readFileSync(path, "latin1")), process.log(), process.output(), ...seen];
    expect(places.filter((place) => place.includes("sk-cana...tail")).length).toBeGreaterThan(2);
    // What is between prefix and tail, so that a mask is no find, and a fragment is one.
    for (const secret of [KEY, OTHER_KEY, tokenKey]) {
      const middle = secret.slice(8, -5);
      for (const text of [middle, Buffer.from(secret).toString("base64"), Buffer.from(secret).toString("hex")]) {
        expect(places.filter((place) => place.includes(text))).toEqual([]);
      }
    }
  });
});

function filesBelow(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .map((name) => join(folder, name))
    .filter((path) => statSync(path).isFile());
}
