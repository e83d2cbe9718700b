// The relay from the command line and from the settings: first channel, first token, and what operators type.

import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { type Environment, type Finished, GOKV, run, startServer, untilLogged } from "../support/executable.ts";
import { FaultUpstream } from "../support/fault-upstream.ts";
import { RELAY_ENV } from "../support/relay-client.ts";
import { mint, SECRET } from "../support/targets.ts";
import { type TempDir, tempDir } from "../support/temp-dir.ts";

// Many processes are started; on a busy machine that takes its time.
setDefaultTimeout(120_000);

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

const serve = (env: Environment = {}) =>
  startServer({ ...RELAY_ENV, JWT_SECRET: SECRET, DB_PATH: dir.file("data"), ...env });

const gokv = (url: string, args: readonly string[], stdin?: string): Promise<Finished> =>
  run([GOKV, ...args], {
    env: { JWT_SECRET: SECRET, GOKV_URL: url, DB_PATH: dir.file("data") },
    ...(stdin === undefined ? {} : { stdin }),
  });

/** The output of a command that must succeed. */
async function output(url: string, args: readonly string[], stdin?: string): Promise<string> {
  const { exitCode, stdout, stderr } = await gokv(url, args, stdin);
  expect([args, exitCode, stderr]).toEqual([args, 0, ""]);
  return stdout;
}

async function json<T>(url: string, args: readonly string[], stdin?: string): Promise<T> {
  return JSON.parse(await output(url, [...args, "--json"], stdin)) as T;
}

function chat(url: string, key: string): Promise<Response> {
  return fetch(`${url}/v1/chat/completions`, {
    method: "POST",
    headers: { Authorization: `Bearer ${key}` },
    body: JSON.stringify({ model: "m", messages: [{ role: "user", content: "hi" }] }),
  });
}

async function listed(url: string, path: string): Promise<Record<string, unknown>[]> {
  const headers = { Authorization: `Bearer ${await mint()}` };
  return (await (await fetch(url + path, { headers })).json()) as Record<string, unknown>[];
}

describe("a server without channels and tokens", () => {
  test("starts, and takes its first ones from the settings: then only what is asked of it counts", async () => {
    {
      await using server = await serve();
      expect([await listed(server.url, "/api/channel"), await listed(server.url, "/api/token")]).toEqual([[], []]);
      server.kill("SIGTERM");
      await server.exited;
    }
    const first = {
      RELAY_BOOTSTRAP_KEY: "sk-first",
      RELAY_BOOTSTRAP_TYPE: "custom",
      RELAY_BOOTSTRAP_BASE_URL: upstream.url,
      RELAY_BOOTSTRAP_TOKEN: "sk-nexus-first",
    };
    {
      await using server = await serve(first);
      expect((await chat(server.url, "sk-nexus-first")).status).toBe(200);
      expect(upstream.keys).toEqual(["sk-first"]);
      expect(await listed(server.url, "/api/channel")).toMatchObject([{ id: 1, name: "bootstrap", type: "Custom" }]);
      expect(await listed(server.url, "/api/token")).toMatchObject([{ id: 1, name: "bootstrap" }]);
      server.kill("SIGTERM");
      await server.exited;
    }
    await using server = await serve({
      ...first,
      RELAY_BOOTSTRAP_KEY: "sk-second",
      RELAY_BOOTSTRAP_TOKEN: "sk-nexus-second",
    });
    expect((await chat(server.url, "sk-nexus-first")).status).toBe(200);
    expect((await chat(server.url, "sk-nexus-second")).status).toBe(401);
    expect(upstream.keys).toEqual(["sk-first", "sk-first"]);
    for (const name of ["RELAY_BOOTSTRAP_KEY", "RELAY_BOOTSTRAP_TOKEN"]) {
      await untilLogged(server, new RegExp(`${name} is ignored`));
      expect(server.log().match(new RegExp(`${name} is ignored`, "g"))).toHaveLength(1);
    }
    expect(server.log()).not.toContain("sk-second");
  });

  test("makes its first channel as usual for its type: Mistral is not asked for the usage of streams", async () => {
    await using server = await serve({
      RELAY_BOOTSTRAP_KEY: "sk-first",
      RELAY_BOOTSTRAP_TYPE: "mistral",
      RELAY_BOOTSTRAP_BASE_URL: upstream.url,
    });
    expect(await listed(server.url, "/api/channel")).toMatchObject([{ type: "Mistral", no_stream_options: true }]);
  });

  test("warns of an address that is not allowed and of a token that can be guessed, and makes both", async () => {
    const first = {
      RELAY_BOOTSTRAP_KEY: "sk-first",
      RELAY_BOOTSTRAP_TYPE: "custom",
      RELAY_BOOTSTRAP_BASE_URL: "http://10.255.255.1:9/v1",
      RELAY_BOOTSTRAP_TOKEN: "sk-nexus-first",
    };
    await using server = await serve(first);
    await untilLogged(server, /"warn[^\n]*RELAY_ALLOW_CIDRS can allow it/);
    await untilLogged(server, /"warn[^\n]*RELAY_BOOTSTRAP_TOKEN has less than 32 characters/);
    expect(server.log()).not.toMatch(/sk-(nexus-)?first/);
    expect(await listed(server.url, "/api/channel")).toMatchObject([{ id: 1, status: 1 }]);
    const refused = await chat(server.url, "sk-nexus-first");
    const text = await refused.text();
    expect([refused.status, JSON.parse(text).error.code]).toEqual([502, "upstream_unreachable"]);
    expect(text).not.toMatch(/10\.255|RELAY_ALLOW/);
    const headers = { Authorization: `Bearer ${await mint()}` };
    const tried = await fetch(`${server.url}/api/channel/test/1?model=m`, { headers });
    const error = "base_url leads to an address that is not allowed; RELAY_ALLOW_CIDRS can allow it.";
    expect(await tried.json()).toMatchObject({ success: false, status: null, error });
  });

  test("does not warn of a token that nobody guesses, nor of an address that is allowed", async () => {
    await using server = await serve({
      RELAY_BOOTSTRAP_KEY: "sk-first",
      RELAY_BOOTSTRAP_TYPE: "custom",
      RELAY_BOOTSTRAP_BASE_URL: upstream.url,
      RELAY_BOOTSTRAP_TOKEN: `sk-nexus-${"x".repeat(43)}`,
    });
    await untilLogged(server, /made from RELAY_BOOTSTRAP_TOKEN/);
    expect((await chat(server.url, `sk-nexus-${"x".repeat(43)}`)).status).toBe(200);
    expect(server.log()).not.toContain('"warn');
  });

  test("does not start with settings that cannot make them", async () => {
    const { exitCode, stderr } = await run([GOKV], {
      env: {
        JWT_SECRET: SECRET,
        DB_PATH: dir.file("data"),
        PORT: "0",
        RELAY_BOOTSTRAP_TYPE: "Azure",
        RELAY_BOOTSTRAP_KEY: "sk canary",
        RELAY_BOOTSTRAP_TOKEN: "canary",
      },
    });
    expect(exitCode).toBe(2);
    for (const name of ["TYPE", "KEY", "TOKEN"]) expect(stderr).toContain(`RELAY_BOOTSTRAP_${name} must `);
    expect(stderr).not.toContain("canary");
  });

  test("has none of the routes of the relay when the relay is off", async () => {
    await using server = await serve({ SERVICES: "kv,token", RELAY_BOOTSTRAP_TYPE: "Azure", RELAY_BODY_MAX: "many" });
    const headers = { Authorization: `Bearer ${await mint()}` };
    for (const path of ["/api/channel", "/api/token", "/api/log"]) {
      expect([path, (await fetch(server.url + path, { headers })).status]).not.toEqual([path, 200]);
    }
    expect((await fetch(`${server.url}/_admin/rekey`, { method: "POST", headers })).status).not.toBe(200);
    const document = (await (await fetch(`${server.url}/openapi.json`)).json()) as { paths: object };
    expect(Object.keys(document.paths).filter((path) => /^\/v1|channel/.test(path))).toEqual([]);
  });

  test("is given no key when services are off whose paths are those of buckets then", async () => {
    await using server = await serve({ SERVICES: "kv" });
    const commands: readonly (readonly [service: string, args: readonly string[]])[] = [
      ["relay", ["relay", "channel", "add", "--name=prod", "--key=sk-canary", "--type=DeepSeek"]],
      ["relay", ["relay", "token", "add", "--name=main"]],
      ["token", ["token", "issue", "--device=d", "--app=a"]],
      ["task", ["user", "list"]],
    ];
    for (const [service, args] of commands) {
      const stderr = `gokv: the service ${service} is not on at ${server.url} (SERVICES).\n`;
      expect([args, await gokv(server.url, args)]).toEqual([args, { exitCode: 1, stdout: "", stderr }]);
    }
    const rekeyed = await gokv(server.url, ["rekey", "--url", server.url]);
    expect(rekeyed).toMatchObject({ exitCode: 1, stderr: expect.stringContaining("relay and task are not on at") });
    expect(await listed(server.url, "/_list")).toEqual([]);
  });
});

describe("gokv relay", () => {
  test("makes a channel and a token that work, and prints the key of the token alone", async () => {
    await using server = await serve();
    const { url } = server;
    const channel = ["relay", "channel", "add", "--type", "Custom", "--base-url", upstream.url];
    const made = await json<Record<string, unknown>>(url, [...channel, "--name", "one", "--key", "-"], "sk-typed-in\n");
    expect(made).toMatchObject({ id: 1, name: "one", type: "Custom", key: "sk-..." });
    const key = (await output(url, ["relay", "token", "add", "--name", "主力令牌"])).trimEnd();
    expect(key).toMatch(/^sk-nexus-[A-Za-z0-9_-]{43}$/);
    expect((await chat(url, key)).status).toBe(200);
    expect(upstream.keys).toEqual(["sk-typed-in"]);
    expect(await gokv(url, ["relay", "token", "add", "--name", "own", "--key", "sk-nexus-abc"])).toEqual({
      exitCode: 0,
      stdout: "sk-nexus-abc\n",
      stderr: "gokv: warning: a short token can be guessed\n",
    });
    const again = await gokv(url, ["relay", "token", "add", "--name", "own", "--key", "sk-nexus-abc"]);
    expect([again.exitCode, again.stdout, again.stderr]).toEqual([1, "", expect.stringContaining("token_exists")]);
    const list = await output(url, ["relay", "token", "list"]);
    expect(list).toContain("主力令牌");
    expect(list).not.toContain(key);
    const first = await gokv(url, ["relay", "token", "list", "--limit=1"]);
    expect([first.exitCode, first.stdout.match(/^id /gm)?.length, first.stderr]).toEqual([0, 1, "more: --offset 1\n"]);
    expect(await output(url, ["relay", "token", "list", "--limit=1", "--offset=1"])).toMatch(/^id +\d$/m);
  });

  test("shows, changes, tests and deletes channels", async () => {
    await using server = await serve();
    const { url } = server;
    const verb = (...args: string[]) => json<Record<string, unknown>>(url, ["relay", "channel", ...args]);
    const address = ["--type", "Custom", "--base-url", upstream.url];
    await verb("add", "--name", "one", "--key", "sk-a", ...address, "--models", "a,b", "--priority=-3");
    expect(await verb("show", "1")).toMatchObject({ models: ["a", "b"], priority: -3 });
    expect(await verb("update", "1", "--name", "two", "--weight", "5")).toMatchObject({ name: "two", weight: 5 });
    expect(await verb("test", "1")).toMatchObject({ success: true, model: "a" });
    expect(await verb("disable", "1")).toMatchObject({ status: 0 });
    expect(await verb("enable", "1")).toMatchObject({ status: 1 });
    expect(await verb("reset", "1")).toMatchObject({ status: 1 });
    expect(await verb("health", "1")).toMatchObject({ state: "closed" });
    expect(await verb("models", "1")).toMatchObject({ data: expect.any(Array) });
    expect(await json<unknown[]>(url, ["relay", "channel", "list", "--limit", "5"])).toHaveLength(1);
    expect(await output(url, ["relay", "channel", "delete", "1"])).toBe("");
    expect(await json<unknown[]>(url, ["relay", "channel", "list"])).toEqual([]);
  });

  test("ends with 1 for a channel that does not work, and says why, in the log as well", async () => {
    await using server = await serve();
    const { url } = server;
    const address = ["--type", "Custom", "--base-url", "http://127.0.0.1:9"];
    await output(url, ["relay", "channel", "add", "--name", "shut", "--key", "sk-a", ...address]);
    const tested = await gokv(url, ["relay", "channel", "test", "1", "--model", "m"]);
    expect([tested.exitCode, tested.stderr]).toEqual([1, ""]);
    expect(tested.stdout).toContain("the upstream could not be reached (ECONNREFUSED)");
    const key = (await output(url, ["relay", "token", "add", "--name", "one"])).trimEnd();
    for (let times = 0; times < 3; times++) {
      const text = await (await chat(url, key)).text();
      expect(text).not.toContain("ECONNREFUSED");
    }
    await untilLogged(server, /"warn[^\n]*left alone for a while[^\n]*ECONNREFUSED/);
  });

  test("gives tokens their limits, and takes them back", async () => {
    await using server = await serve();
    const { url } = server;
    const verb = (...args: string[]) => json<Record<string, unknown>>(url, ["relay", "token", ...args]);
    const limits = ["--quota", "500", "--rpm", "5", "--tpm", "9", "--max-parallel", "2", "--expires-in", "1d"];
    const ips = ["--allow-ip", "10.0.0.0/8", "--allow-ip", "::1"];
    const made = await verb("add", "--name", "one", ...limits, ...ips, "--models", "a", "--group", "vip");
    expect(made).toMatchObject({
      unlimited_quota: false,
      remain_quota: 500,
      rpm: 5,
      tpm: 9,
      max_parallel: 2,
      models: ["a"],
      group: "vip",
      allow_ips: ["10.0.0.0/8", "::1"],
    });
    expect((made.expired_time as number) - Date.now() / 1000).toBeWithin(86_300, 86_401);
    expect(await verb("update", "1", "--add-quota=-100", "--disable")).toMatchObject({ remain_quota: 400, status: 0 });
    expect(await verb("update", "1", "--enable")).toMatchObject({ status: 1, rpm: 5 });
    expect(await verb("show", "1")).toMatchObject({ remain_quota: 400 });
    const lifted = { unlimited_quota: true, expired_time: -1, rpm: 5 };
    expect(await verb("update", "1", "--unlimited", "--never-expires")).toMatchObject(lifted);
    const limited = await verb("update", "1", "--quota=7", "--expires-in=1h");
    expect(limited).toMatchObject({ unlimited_quota: false, remain_quota: 7 });
    expect(limited.expired_time).toBeGreaterThan(Date.now() / 1000);
    const help = await output(url, ["relay", "token", "update", "--help"]);
    expect([help.includes("--unlimited"), help.includes("default: no limit")]).toEqual([true, false]);
    expect(await output(url, ["relay", "token", "delete", "1"])).toBe("");
    expect((await gokv(url, ["relay", "token", "show", "1"])).exitCode).toBe(1);
  });

  test("refuses a wrong command line before it asks anybody", async () => {
    const wrong: readonly (readonly string[])[] = [
      ["relay", "channel", "show", "abc"],
      ["relay", "channel", "show", "0"],
      ["relay", "channel", "update", "1"],
      ["relay", "channel", "update", "1", "--json"],
      ["relay", "token", "delete", "1.5"],
      ["relay", "token", "update", "1"],
      ["relay", "token", "update", "1", "--enable", "--disable"],
      ["relay", "token", "add", "--name", "n", "--expires-in", "36501d"],
      ["relay", "token", "add", "--name", "n", "--expires-in", "0"],
      ["relay"],
      ["relay", "channel"],
      ["relay", "channel", "add", "--name", "n"],
      ["relay", "channel", "add", "--key", "k"],
      ["relay", "channel", "show"],
      ["relay", "token", "add"],
      ["relay", "token", "add", "--name", "n", "--quota", "many"],
      ["relay", "token", "update", "1", "--quota=5", "--unlimited"],
      ["relay", "token", "update", "1", "--expires-in=1h", "--never-expires"],
      ["relay", "token", "add", "--name", "n", "--expires-in", "soon"],
      ["rekey", "now"],
    ];
    for (const args of wrong) {
      const { exitCode, stdout, stderr } = await gokv("http://127.0.0.1:1", args);
      expect([args, exitCode, stdout, stderr.slice(0, 6)]).toEqual([args, 2, "", "gokv: "]);
      const command = ["gokv", ...args.slice(0, args[0] === "rekey" ? 1 : 3)].join(" ");
      expect([args, stderr]).toEqual([args, expect.stringContaining(`. See ${command} --help.\n`)]);
    }
  });

  test("tells in its help what is taken when nothing is given, and where the numbers come from", async () => {
    const help = async (...args: string[]) => (await gokv("http://127.0.0.1:1", ["relay", ...args, "--help"])).stdout;
    expect(await help("channel", "add")).toMatch(/--type=<name> .*OpenAI.*Custom; default OpenAI/);
    expect(await help("channel", "update")).not.toContain("default OpenAI");
    expect(await help("channel", "show")).toContain("ID    Its number, which gokv relay channel list shows");
    expect(await help("token", "show")).toContain("ID    Its number, which gokv relay token list shows");
  });

  test("says where there is no store to rekey", async () => {
    const { exitCode, stderr } = await run([GOKV, "rekey"], { env: { JWT_SECRET: SECRET, DB_PATH: dir.file("none") } });
    expect([exitCode, stderr]).toEqual([1, expect.stringContaining("There is no store")]);
  });
});
