// What the log shows of requests with app tokens, in every mode, and what a bad setting of the token API says at start.

import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { SETTINGS } from "../../src/shared/settings.ts";
import { alterStore } from "../support/alter-store.ts";
import { eventually } from "../support/eventually.ts";
import { cleanEnv, GOKV, run, startServer } from "../support/executable.ts";
import { SECRET } from "../support/targets.ts";
import { type TempDir, tempDir } from "../support/temp-dir.ts";
import { asApp, install, operatorAt } from "../support/token-client.ts";

// Many processes are started; on a busy machine that takes its time.
setDefaultTimeout(120_000);

const LOG_TIMEOUT_MS = 5000;

let dir: TempDir;
beforeEach(() => {
  dir = tempDir();
});
afterEach(() => dir[Symbol.dispose]());

/** A port that the process listens on, as the kernel sees it: in test mode no line tells it. */
function listeningPortOf(pid: number): number | null {
  const sockets = readdirSync(`/proc/${pid}/fd`).map((descriptor) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${descriptor}`);
    } catch {
      // Closed in between.
      return "";
    }
  });
  const rows = readFileSync(`/proc/${pid}/net/tcp`, "utf8").trim().split("\n").slice(1);
  const [listening] = rows
    .map((row) => row.trim().split(/\s+/))
    .filter((fields) => fields[3] === "0A" && sockets.includes(`socket:[${fields[9]}]`));
  return listening === undefined ? null : Number.parseInt(listening[1]!.split(":")[1]!, 16);
}

/** Sends tokens in all places, accepted and refused ones, and returns whatever must not be in the log. */
async function sendTokens(url: string): Promise<readonly string[]> {
  const operator = await operatorAt(url);
  const { token } = await install(operator);
  const wrong = `kvt_${"w".repeat(43)}`;
  for (const sent of [token, wrong]) {
    for (const path of ["/kv/token/k", "/kv/token/_keys", "/kv/token/", "/kv/k", "/kv/token/%FF", "/kv/token/k/x"]) {
      await fetch(`${url}${path}?token=${sent}`);
      await fetch(`${url}${path}?limit=x&token=${sent}&token=${sent}`);
      await fetch(`${url}${path}?token=${sent}`, { method: "PUT" });
    }
    await fetch(`${url}/kv/token/k`, { method: "POST", body: `{"token":"${sent}","a":1}` });
    await asApp(operator, sent, "/k", { headers: { "X-App-Token": sent } });
  }
  await fetch(`${url}/kv/token/the-last-one?token=${token}`);
  return [token, wrong, token.slice(4), "token="];
}

describe("the log", () => {
  for (const mode of ["debug", "release"]) {
    test(`shows requests in ${mode} mode, but no token of their query, headers or body`, async () => {
      const env = { JWT_SECRET: SECRET, DB_PATH: dir.file("data"), LOG_LEVEL: "debug", TOKEN_KV_ALIAS: "1" };
      await using server = await startServer({ ...env, GIN_MODE: mode });
      const secrets = await sendTokens(server.url);
      await eventually("the line of the last request", LOG_TIMEOUT_MS, () => server.log().includes("the-last-one"));
      expect(server.log()).toContain("/kv/token/_keys");
      for (const secret of secrets) expect(server.log()).not.toContain(secret);
    });
  }

  test("shows failures only in test mode, and no token of their requests", async () => {
    const dbPath = dir.file("data");
    const env = cleanEnv({ JWT_SECRET: SECRET, DB_PATH: dbPath, GIN_MODE: "test", PORT: "0", HOST: "127.0.0.1" });
    const child = Bun.spawn([GOKV], {
      env: { ...env, TOKEN_KV_ALIAS: "1", SWEEP_INTERVAL: "1h" },
      stdout: "ignore",
      stderr: "pipe",
    });
    const logged = new Response(child.stderr).text();
    try {
      await eventually("a listening port", LOG_TIMEOUT_MS, () => listeningPortOf(child.pid) !== null);
      const url = `http://127.0.0.1:${listeningPortOf(child.pid)}`;
      const secrets = await sendTokens(url);
      await alterStore(dbPath, "ALTER TABLE kv RENAME TO kv_elsewhere");
      const { status } = await fetch(`${url}/kv/token/failing?token=${secrets[0]}`);
      expect(status).toBe(500);
      child.kill("SIGTERM");
      const log = await logged;
      expect(log).toContain("request failed");
      expect(log).not.toContain("the-last-one");
      for (const secret of secrets) expect(log).not.toContain(secret);
    } finally {
      child.kill("SIGKILL");
      await child.exited;
    }
  });
});

/** For each setting of the token API, values that it does not take. */
const BAD: Readonly<Record<string, readonly string[]>> = {
  TOKEN_SOURCES: ["headers", "header,", "header;query", "cookie", "Header Query"],
  TOKEN_BODY_AUTH_BYTES: ["0", "-1", "x", "1TiB"],
  TOKEN_MAX_VALUE_BYTES: ["102399", "0", "1.5x", "26MiB", "600MiB"],
  TOKEN_MAX_BATCH_KEYS: ["0", "-1", "1e3", "1.5", "many"],
  TOKEN_MAX_BATCH_BYTES: ["0", "x", "-8MiB"],
  TOKEN_MAX_LIMIT: ["0", "x", "1000001"],
  TOKEN_MAX_PAGE_BYTES: ["0", "1KiB", "24MiB", "x"],
  TOKEN_MAX_SORT_ROWS: ["0", "x", "-5"],
  TOKEN_RATE_READ: ["-1", "x", "1.5", "1e6"],
  TOKEN_RATE_WRITE: ["-1", "x"],
  TOKEN_RATE_DELETE: ["-1", "x"],
  TOKEN_RATE_BATCH: ["-1", "x"],
  TOKEN_RATE_AUTH_FAIL: ["-1", "x"],
  TOKEN_CORS_ORIGINS: ["example.org", "https://a.example/", "https://a.example,*", "*.example.org", ","],
  TOKEN_KV_ALIAS: ["2", "perhaps"],
  TRUSTED_PROXIES: ["10.0.0.0/33", "proxy", "10.0.0.1,", "::1/129", "10.0.0.0/"],
};

describe("the settings", () => {
  test("of the token API are all tried here", () => {
    const names = Object.values(SETTINGS).map(({ env }) => env as string);
    const ours = names.filter((name) => name.startsWith("TOKEN_") || name === "TRUSTED_PROXIES");
    expect(Object.keys(BAD).toSorted()).toEqual(ours.toSorted());
  });

  test("that are bad are named at start, all of them, and the exit code is 2", async () => {
    const rounds = Math.max(...Object.values(BAD).map((values) => values.length));
    for (let round = 0; round < rounds; round++) {
      const given = Object.entries(BAD).flatMap(([name, values]) =>
        round < values.length ? [[name, values[round]!] as const] : [],
      );
      const env = { JWT_SECRET: SECRET, DB_PATH: dir.file("data"), PORT: "0", ...Object.fromEntries(given) };
      const { exitCode, stdout, stderr } = await run([GOKV, "serve"], { env });
      expect([exitCode, stdout]).toEqual([2, ""]);
      const silent = given.filter(([name]) => !stderr.includes(name));
      expect(silent).toEqual([]);
    }
  });

  test("that are bad end the start one by one as well", async () => {
    for (const [name, [value]] of Object.entries(BAD)) {
      const env = { JWT_SECRET: SECRET, DB_PATH: dir.file("data"), PORT: "0", [name]: value };
      const { exitCode, stderr } = await run([GOKV, "serve"], { env });
      expect([name, exitCode]).toEqual([name, 2]);
      expect(stderr).toContain(name);
    }
  });
});
