// gokv as it is started in a shell: commands, exit codes, settings, what a hostile working directory cannot do.

import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import {
  cleanEnv,
  type Environment,
  type Finished,
  GOKV,
  JWT_GEN,
  ROOT,
  run,
  startServer,
  untilLogged,
} from "../support/executable.ts";
import { expectTimeFrom } from "../support/figures-in-bounds.ts";
import { forgeToken } from "../support/forge-token.ts";
import { freePort } from "../support/free-port.ts";
import { mint, SECRET } from "../support/targets.ts";
import { type TempDir, tempDir } from "../support/temp-dir.ts";

// Many processes are started; on a busy machine that takes its time.
setDefaultTimeout(120_000);

let dir: TempDir;
beforeEach(() => {
  dir = tempDir();
});
afterEach(() => dir[Symbol.dispose]());

/** Runs gokv in an empty folder, with a data directory that does not exist yet. */
const gokv = (args: readonly string[], env: Environment = {}): Promise<Finished> =>
  run([GOKV, ...args], { cwd: dir.path, env: { DB_PATH: dir.file("data"), ...env } });

const settingsFor = (env: Environment = {}): Environment => ({ JWT_SECRET: SECRET, DB_PATH: dir.file("data"), ...env });

async function expectUsageError(finished: Promise<Finished>, problem: string): Promise<void> {
  const { exitCode, stdout, stderr } = await finished;
  expect([exitCode, stdout]).toEqual([2, ""]);
  expect(stderr).toStartWith("gokv: ");
  expect(stderr).toContain(problem);
  expect(stderr).not.toContain("\x1b");
  expect(existsSync(dir.file("data"))).toBe(false);
}

const COMMANDS = [
  "serve",
  "healthcheck",
  "backup",
  "restore",
  "check",
  "verify",
  "export",
  "import",
  "token",
  "relay",
  "user",
  "rekey",
  "jwt-gen",
  "version",
];

describe("the command line", () => {
  test("shows every command with --help, and each command its own", async () => {
    const { exitCode, stdout, stderr } = await gokv(["--help"]);
    expect([exitCode, stderr]).toEqual([0, ""]);
    for (const command of COMMANDS) expect(stdout).toMatch(new RegExp(`^ +${command} +[A-Z]`, "m"));
    expect(stdout).not.toContain("\x1b");
    for (const command of COMMANDS) {
      for (const flag of ["--help", "-h"]) {
        const help = await gokv([command, flag]);
        expect([command, help.exitCode, help.stderr]).toEqual([command, 0, ""]);
        expect(help.stdout).toContain(`gokv ${command}`);
        expect(help.stdout).not.toContain("\x1b");
      }
    }
    const [check, verify] = await Promise.all([gokv(["check", "--help"]), gokv(["verify", "--help"])]);
    expect(check.stdout).not.toContain("Same as check");
    expect(verify.stdout).toContain("Same as check");
    expect(readdirSync(dir.path)).toEqual([]);
  });

  test("shows the same with help in front of a command", async () => {
    for (const words of [[], ["check"], ["token"], ["token", "device", "create"]]) {
      const asked = await gokv(["help", ...words]);
      expect(asked).toEqual(await gokv([...words, "--help"]));
      expect(asked.exitCode).toBe(0);
    }
    await expectUsageError(gokv(["help", "nope"]), 'there is no command "nope"');
  });

  test("names in the help of each command the variables that it reads", async () => {
    const client = ["GOKV_URL", "GOKV_JWT", "JWT_SECRET"];
    const variables: readonly (readonly [string, readonly string[]])[] = [
      ["serve", ["JWT_SECRET", "DB_PATH", "PORT", "HOST"]],
      ["healthcheck", ["PORT", "HOST"]],
      ...["backup", "restore", "check", "verify", "export", "import"].map((name) => [name, ["DB_PATH"]] as const),
      ...["token", "token device", "token issue", "relay", "relay channel add", "user list"].map(
        (name) => [name, client] as const,
      ),
      ["rekey", ["DB_PATH", "MASTER_KEY", "GOKV_URL"]],
    ];
    for (const [command, names] of variables) {
      const { stdout } = await gokv([...command.split(" "), "--help"]);
      const environment = stdout.split("\n\nENVIRONMENT\n\n")[1] ?? "";
      for (const name of names)
        expect([command, environment]).toEqual([command, expect.stringContaining(`${name}   `)]);
    }
    expect((await gokv(["serve", "--help"])).stdout).toContain("The README lists all of them, under Settings.");
    const readme = await Bun.file(join(ROOT, "README.md")).text();
    expect(readme).toContain("\n## Settings\n");
  });

  test("tells the versions of gokv, Bun and SQLite", async () => {
    const long = await gokv(["version"]);
    expect([long.exitCode, long.stderr]).toEqual([0, ""]);
    expect(long.stdout).toMatch(/^gokv \d+\.\d+\.\d+\nBun \d+\.\d+\.\d+\nSQLite 3\.\d+\.\d+\n$/);
    const short = await gokv(["--version"]);
    expect([short.exitCode, short.stderr]).toEqual([0, ""]);
    expect(long.stdout).toStartWith(`gokv ${short.stdout}`);
  });

  test("refuses unknown commands, flags and arguments with exit 2 before it touches anything", async () => {
    const refused: [string[], string][] = [
      [["nope"], 'there is no command "nope"'],
      [["SERVE"], 'there is no command "SERVE"'],
      [["constructor"], 'there is no command "constructor"'],
      [[""], 'there is no command ""'],
      [["--port", "1"], "there is no flag --port"],
      [["--dev"], "there is no flag --dev"],
      [["serve", "--port=1"], "there is no flag --port"],
      [["serve", "now"], '"now" is one argument too many'],
      [["serve", "--dev", "--dev"], "--dev is given twice"],
      [["serve", "--dev=1"], "--dev takes no value"],
      [["healthcheck", "http://h/"], "one argument too many"],
      [["backup"], "FILE is not given"],
      [["backup", "-"], "a backup is a file; for one of that name give ./-"],
      [["backup", "a", "b"], '"b" is one argument too many'],
      [["restore"], "FILE is not given"],
      [["check", "a", "b"], '"b" is one argument too many'],
      [["export", "b"], '"b" is one argument too many'],
      [["export", "--bucket"], "--bucket lacks its value"],
      [["export", "--bucket", "--prefix"], "--bucket lacks its value"],
      [["export", "--bucket=a", "--bucket=b"], "--bucket is given twice"],
      [["export", "--bucket", ""], "the name of the bucket is empty"],
      [["export", "--bucket="], "the name of the bucket is empty"],
      [["import"], "FILE is not given"],
      [["import", "f", "--mode", "sometimes"], "--mode takes fail, skip, overwrite"],
      [["import", "f", "--dryrun"], "there is no flag --dryrun"],
      [["version", "--long"], "there is no flag --long"],
    ];
    for (const [args, problem] of refused) {
      await expectUsageError(gokv(args, { JWT_SECRET: SECRET }), problem);
    }
  });
});

describe("the settings of a server", () => {
  test("are all checked at once, before anything is opened", async () => {
    const finished = await gokv([], { PORT: "http", WRITE_TIMEOUT: "5", GIN_MODE: "prod" });
    expect(finished.exitCode).toBe(2);
    for (const name of ["PORT", "WRITE_TIMEOUT", "GIN_MODE", "JWT_SECRET"]) {
      expect(finished.stderr).toMatch(new RegExp(`^  - ${name} `, "m"));
    }
    await expectUsageError(gokv(["serve"], { PORT: "70000", METRICS: "x", SERVICES: "y", JWT_SECRET: SECRET }), "PORT");
  });

  test("must hold a secret, once", async () => {
    await expectUsageError(gokv([]), "JWT_SECRET is missing");
    await expectUsageError(gokv([], { JWT_SECRET: "" }), "JWT_SECRET is missing");
    writeFileSync(dir.file("secret"), SECRET);
    const both = { JWT_SECRET: SECRET, JWT_SECRET_FILE: dir.file("secret") };
    await expectUsageError(gokv([], both), "JWT_SECRET and JWT_SECRET_FILE are both set");
    writeFileSync(dir.file("empty"), "\n");
    await expectUsageError(gokv([], { JWT_SECRET_FILE: dir.file("empty") }), "is empty");
    await expectUsageError(
      gokv([], { JWT_SECRET_FILE: dir.file("missing") }),
      "cannot be read: there is no such file (ENOENT)",
    );
  });

  test("may name a file that holds the secret", async () => {
    writeFileSync(dir.file("secret"), `${SECRET}\n`);
    await using server = await startServer({ DB_PATH: dir.file("data"), JWT_SECRET_FILE: dir.file("secret") });
    const headers = { Authorization: `Bearer ${forgeToken()}` };
    expect((await fetch(`${server.url}/_list`, { headers })).status).toBe(200);
  });

  test("with a short secret start with a loud warning, in release mode only when that is allowed", async () => {
    const weak = settingsFor({ JWT_SECRET: "your-strong-secret-key", GIN_MODE: "debug" });
    for (const env of [weak, { ...weak, GIN_MODE: "release", ALLOW_WEAK_SECRET: "1" }]) {
      await using server = await startServer(env);
      await untilLogged(server, /warning.*JWT_SECRET has 22 bytes/);
      expect(server.log()).not.toContain("your-strong-secret-key");
      const token = forgeToken({ secret: "your-strong-secret-key" });
      const answer = await fetch(`${server.url}/_list`, { headers: { Authorization: `Bearer ${token}` } });
      expect(answer.status).toBe(200);
      server.kill("SIGTERM");
      expect(await server.exited).toBe(0);
    }
    const refused = await gokv([], { ...weak, GIN_MODE: "release" });
    expect([refused.exitCode, refused.stdout]).toEqual([2, ""]);
    expect(refused.stderr).toContain("JWT_SECRET has 22 bytes");
    expect(refused.stderr).not.toContain("your-strong-secret-key");
  });

  test("default to ./data, which is made, and keep what was stored there", async () => {
    const env = { JWT_SECRET: SECRET };
    const headers = { Authorization: `Bearer ${await mint()}` };
    {
      await using server = await startServer(env, [], { cwd: dir.path });
      expect((await fetch(`${server.url}/b/k`, { method: "POST", body: "kept", headers })).status).toBe(200);
    }
    expect(readdirSync(dir.path)).toEqual(["data"]);
    expect(readdirSync(dir.file("data"))).toContain("gokv.db");
    await using again = await startServer(env, [], { cwd: dir.path });
    expect(await (await fetch(`${again.url}/b/k`, { headers })).text()).toBe("kept");
  });

  test("name the data directory, whose parents are made too", async () => {
    const deep = dir.file("a", "b", "data");
    await using server = await startServer(settingsFor({ DB_PATH: deep }), [], { cwd: dir.path });
    expect(server.log()).toContain(deep);
    expect(readdirSync(deep)).toContain("gokv.db");
    expect(readdirSync(dir.path)).toEqual(["a"]);
  });

  test("name the port; one that is taken ends the start with 1 and frees the store", async () => {
    const port = freePort();
    await using server = await startServer(settingsFor({ PORT: `${port}` }));
    expect(server.url).toBe(`http://127.0.0.1:${port}`);
    const other = { JWT_SECRET: SECRET, DB_PATH: dir.file("other"), HOST: "127.0.0.1" };
    const refused = await gokv([], { ...other, PORT: `${port}` });
    expect([refused.exitCode, refused.stdout]).toEqual([1, ""]);
    const problem = `Cannot listen on 127.0.0.1:${port}: the port is in use. Set PORT or HOST to another one.`;
    expect(refused.stderr).toMatch(new RegExp(`^gokv: ${RegExp.escape(problem)}$`, "m"));
    expect((await fetch(`${server.url}/readyz`)).status).toBe(200);
    await using second = await startServer(other);
    expect((await fetch(`${second.url}/readyz`)).status).toBe(200);
  });

  test("name a host; one that stands for no address ends the start with 1", async () => {
    const refused = await gokv([], settingsFor({ HOST: "nonsense.invalid", PORT: "8080" }));
    expect([refused.exitCode, refused.stdout]).toEqual([1, ""]);
    expect(refused.stderr).toContain(
      "gokv: Cannot listen on nonsense.invalid:8080: this name cannot be resolved to an address. Set PORT or HOST",
    );
  });

  test("name a data directory that can be made, or the start ends with 1", async () => {
    writeFileSync(dir.file("file"), "");
    const refused = await gokv([], { JWT_SECRET: SECRET, DB_PATH: dir.file("file", "data") });
    expect([refused.exitCode, refused.stdout]).toEqual([1, ""]);
    expect(refused.stderr).toMatch(/^gokv: The data directory .* cannot be made: .* Set DB_PATH /m);
    for (const args of [[], ["check"], ["backup", "copy"]]) {
      const named = await gokv(args, { JWT_SECRET: SECRET, DB_PATH: dir.file("file") });
      expect([named.exitCode, named.stdout]).toEqual([1, ""]);
      expect(named.stderr).toContain(`gokv: ${dir.file("file")} is a file. Set DB_PATH to the directory`);
    }
  });

  test("decide how the log reads: lines for people, JSON for machines, errors only", async () => {
    const logOf = async (mode: string): Promise<string[]> => {
      const port = freePort();
      const env = cleanEnv(settingsFor({ GIN_MODE: mode, PORT: `${port}`, HOST: "127.0.0.1" }));
      await using child = Bun.spawn([GOKV], { env, stderr: "pipe" });
      const isReady = () =>
        fetch(`http://127.0.0.1:${port}/readyz`).then(
          (answer) => answer.ok,
          () => false,
        );
      while (!(await isReady())) await Bun.sleep(5);
      child.kill("SIGTERM");
      const text = await new Response(child.stderr).text();
      expect(await child.exited).toBe(0);
      return text.split("\n").filter((line) => line !== "");
    };
    const messages = ["listening", "request", "stopped"];
    const release = (await logOf("release")).map((line) => JSON.parse(line));
    expect(release.map((line) => line.msg)).toEqual(expect.arrayContaining(messages));
    const debug = await logOf("debug");
    for (const text of messages) {
      expect(debug).toContainEqual(expect.stringMatching(new RegExp(`^\\d\\d:\\d\\d:\\d\\d\\.\\d{3} info +${text}`)));
    }
    expect(await logOf("test")).toEqual([]);
  });
});

describe("gokv healthcheck", () => {
  const check = (port: string | number, env: Environment = {}) => gokv(["healthcheck"], { PORT: `${port}`, ...env });

  test("ends with 0 beside a ready server, whatever address it listens on", async () => {
    for (const HOST of ["127.0.0.1", "0.0.0.0", "::", "localhost"]) {
      await using server = await startServer(settingsFor({ HOST }));
      const { port } = new URL(server.url);
      expect(await check(port, { HOST })).toEqual({ exitCode: 0, stdout: "", stderr: "" });
      server.kill("SIGKILL");
      await server.exited;
    }
  });

  test("ends with 1 where nobody listens, and while a server drains", async () => {
    const nobody = await check(freePort());
    expect([nobody.exitCode, nobody.stdout]).toEqual([1, ""]);
    expect(nobody.stderr).toStartWith("gokv: not ready: http://127.0.0.1:");
    await using server = await startServer(settingsFor({ DRAIN_DELAY: "30s" }));
    const { port } = new URL(server.url);
    server.kill("SIGTERM");
    while ((await fetch(`${server.url}/readyz`)).ok) await Bun.sleep(1);
    const draining = await check(port);
    expect([draining.exitCode, draining.stderr]).toEqual([1, expect.stringContaining("answered 503")]);
  });

  test("ends with 1 after two seconds beside one that does not answer", async () => {
    const silent = createServer(() => undefined);
    await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
    const startMs = performance.now();
    expect((await check((silent.address() as { port: number }).port)).exitCode).toBe(1);
    expectTimeFrom("giving up", performance.now() - startMs, 1800, 4000);
    silent.close();
  });

  test("asks this machine and no proxy", async () => {
    await using server = await startServer(settingsFor());
    const proxy = `http://127.0.0.1:${freePort()}`;
    const env = { http_proxy: proxy, HTTP_PROXY: proxy, ALL_PROXY: proxy };
    expect((await check(new URL(server.url).port, env)).exitCode).toBe(0);
  });
});

describe("a hostile working directory", () => {
  const EVIL_SECRET = "the secret that the attacker would like to be used";

  beforeEach(() => {
    const evil = `require("node:fs").writeFileSync(${JSON.stringify(dir.file("executed"))}, "");\n`;
    for (const name of ["evil.ts", "evil.js", "evil.cjs"]) writeFileSync(dir.file(name), evil);
    writeFileSync(dir.file("bunfig.toml"), 'preload = ["./evil.ts"]\n[run]\npreload = ["./evil.ts"]\n');
    const variables = `JWT_SECRET=${EVIL_SECRET}\nPORT=1\nDB_PATH=${dir.file("evil-data")}\n`;
    for (const suffix of ["", ".local", ".production", ".production.local", ".development", ".test"]) {
      writeFileSync(dir.file(`.env${suffix}`), variables);
    }
    writeFileSync(dir.file("package.json"), '{"type":"module","main":"./evil.js"}');
    writeFileSync(dir.file("tsconfig.json"), '{"compilerOptions":{"paths":{"*":["./evil.ts"]}}}');
    mkdirSync(dir.file("src"));
    symlinkSync(dir.file("evil.ts"), dir.file("src", "gokv.ts"));
  });

  test("would catch a plain Bun", async () => {
    await run([process.execPath, "-e", "process.exit(process.env.PORT === '1' ? 0 : 9)"], { cwd: dir.path });
    expect(existsSync(dir.file("executed"))).toBe(true);
  });

  test("runs no code in any command and lends no variable to any", async () => {
    const headers = (secret: string) => ({ Authorization: `Bearer ${forgeToken({ secret })}` });
    {
      await using server = await startServer({ JWT_SECRET: SECRET, DB_PATH: dir.file("data") }, [], { cwd: dir.path });
      expect((await fetch(`${server.url}/_list`, { headers: headers(SECRET) })).status).toBe(200);
      expect((await fetch(`${server.url}/_list`, { headers: headers(EVIL_SECRET) })).status).toBe(401);
      expect((await fetch(`${server.url}/_admin/backup`, { method: "POST", headers: headers(SECRET) })).status).toBe(
        200,
      );
    }
    const without = await run([GOKV], { cwd: dir.path });
    expect([without.exitCode, without.stderr]).toEqual([2, expect.stringContaining("JWT_SECRET is missing")]);
    for (const command of [
      [GOKV, "version"],
      [GOKV, "check"],
      [GOKV, "export"],
      [JWT_GEN, "--help"],
    ]) {
      expect((await run(command, { cwd: dir.path, env: { DB_PATH: dir.file("data") } })).exitCode).toBe(0);
    }
    expect(existsSync(dir.file("executed"))).toBe(false);
    expect(existsSync(dir.file("evil-data"))).toBe(false);
  });

  test("runs no code through the options of the runtime either", async () => {
    for (const BUN_OPTIONS of ["--preload ./evil.ts", "--require ./evil.cjs", "--import ./evil.js", "-e 1"]) {
      await run([GOKV, "version"], { cwd: dir.path, env: { BUN_OPTIONS } });
      await run([JWT_GEN, "--help"], { cwd: dir.path, env: { BUN_OPTIONS, NODE_OPTIONS: BUN_OPTIONS } });
    }
    expect(existsSync(dir.file("executed"))).toBe(false);
  });
});

describe("secrets, tokens and values", () => {
  const canary = (name: string) => `canary-${name}-${crypto.randomUUID()}`;

  test("appear in no log line, no metric and no error", async () => {
    for (const GIN_MODE of ["debug", "release"]) {
      const data = dir.file(GIN_MODE);
      const [secret, previous, value, query, meta] = ["secret", "previous", "value", "query", "meta"].map(canary) as [
        ...[string, string, string, string, string],
      ];
      const bucket = canary("bucket");
      const env = { JWT_SECRET: secret, JWT_SECRET_PREVIOUS: previous, DB_PATH: data, GIN_MODE, LOG_LEVEL: "debug" };
      await using server = await startServer(env);
      const tokens = [
        forgeToken({ secret }),
        forgeToken({ secret: previous }),
        forgeToken({ secret: "wrong" }),
        forgeToken({ secret, payload: { exp: 1, sub: canary("subject") } }),
        forgeToken({ secret, payload: { exp: 4e9, scope: "" } }),
        `${forgeToken({ secret })}=`,
        canary("garbage"),
      ];
      let said = "";
      const paths = [`/${bucket}/k`, `/_list?token=${query}`, `/_meta/${bucket}/k`, `/%ff/${bucket}`, "/_admin/backup"];
      for (const token of tokens) {
        for (const path of paths) {
          for (const method of ["POST", "GET", "PATCH", "DELETE"]) {
            const headers = { Authorization: `Bearer ${token}`, "X-Meta-Note": meta, Cookie: `session=${query}` };
            const body = method === "POST" ? value : null;
            const answer = await fetch(`${server.url}${path}`, { method, headers, body });
            const text = await answer.text();
            if (!answer.ok) said += `${text}\n${JSON.stringify([...answer.headers])}\n`;
          }
        }
      }
      const metrics = await fetch(`${server.url}/metrics`, { headers: { Authorization: `Bearer ${tokens[0]}` } });
      const figures = await metrics.text();
      expect(figures).toContain("gokv_auth_failures_total{");
      server.kill("SIGTERM");
      await server.exited;
      const everything = `${said}${figures}${server.log()}${server.output()}`;
      const hidden = [secret, previous, value, query, meta, ...tokens, ...tokens.flatMap((token) => token.split("."))];
      // The header of a token is no secret, and the same in all of them.
      const forbidden = hidden.filter((text) => text.length > 40 || text.startsWith("canary"));
      expect(forbidden.length).toBeGreaterThan(15);
      expect(forbidden.filter((text) => everything.includes(text))).toEqual([]);
      expect(figures).not.toContain("canary");
      expect(server.log()).toContain(bucket);
    }
  });

  test("appear in no refusal to start", async () => {
    const secret = canary("secret");
    const env = { JWT_SECRET: secret, JWT_SECRET_PREVIOUS: secret, JWT_SECRET_FILE: dir.file("x"), PORT: "x" };
    const refused = await gokv([], env);
    expect(refused.exitCode).toBe(2);
    const minting = await run([JWT_GEN, "--secret", secret, "--expires-in", "never", `--secretx=${secret}`]);
    expect(minting.exitCode).toBe(2);
    writeFileSync(join(dir.path, "file"), "");
    const failing = await gokv([], { JWT_SECRET: secret, DB_PATH: dir.file("file", "x") });
    expect(failing.exitCode).toBe(1);
    for (const { stdout, stderr } of [refused, minting, failing]) expect(stdout + stderr).not.toContain(secret);
  });
});
