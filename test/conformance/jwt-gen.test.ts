// jwt-gen as it is run in a shell: what it prints where, what it refuses, and that its tokens are what was asked for.

import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { createHmac } from "node:crypto";
import { writeFileSync } from "node:fs";
import { basename } from "node:path";
import { type Finished, GOKV, JWT_GEN, run, startServer } from "../support/executable.ts";
import { SECRET } from "../support/targets.ts";
import { tempDir } from "../support/temp-dir.ts";

// Many processes are started; on a busy machine that takes its time.
setDefaultTimeout(120_000);

const dir = tempDir();
afterAll(() => dir[Symbol.dispose]());

const jwtGen = (...args: string[]): Promise<Finished> => run([JWT_GEN, ...args]);
/** With the two flags that are always needed. */
const mint = (...args: string[]): Promise<Finished> => jwtGen("--secret", SECRET, "--expires-in", "24h", ...args);

const ONE_TOKEN = /^eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{43}\n$/;

function claimsOf({ stdout }: Finished): Record<string, unknown> {
  return JSON.parse(Buffer.from(stdout.split(".")[1]!, "base64url").toString());
}

function isSignedWith(secret: string | Uint8Array, { stdout }: Finished): boolean {
  const [header, payload, signature] = stdout.trimEnd().split(".");
  return createHmac("sha256", secret).update(`${header}.${payload}`).digest("base64url") === signature;
}

/** Nothing on stdout, exit 2, and a message that names what is wrong. */
async function expectRefused(finished: Promise<Finished>, problem: string): Promise<void> {
  const { exitCode, stdout, stderr } = await finished;
  expect([exitCode, stdout]).toEqual([2, ""]);
  expect(stderr).toContain(problem);
  expect(stderr).toStartWith("jwt-gen: ");
}

function fileWith(content: string | Uint8Array): string {
  const path = dir.file(crypto.randomUUID());
  writeFileSync(path, content);
  return path;
}

describe("jwt-gen", () => {
  test("is an executable of its own name beside gokv", async () => {
    expect([basename(JWT_GEN), basename(GOKV)]).toEqual(["jwt-gen", "gokv"]);
    expect((await mint()).exitCode).toBe(0);
  });

  test("prints one token and one line end, and nothing else anywhere", async () => {
    for (const finished of [await mint(), await run([GOKV, "jwt-gen", "--secret", SECRET, "--expires-in", "24h"])]) {
      expect(finished).toEqual({ exitCode: 0, stdout: expect.stringMatching(ONE_TOKEN), stderr: "" });
      expect(isSignedWith(SECRET, finished)).toBe(true);
    }
  });

  test("sets iat to now and exp to the lifetime from now on", async () => {
    const lifetimes: [string, number][] = [
      ["720h", 720 * 3600],
      ["24h", 86_400],
      ["30m", 1800],
      ["365d", 365 * 86_400],
      ["1.5h", 5400],
      ["1h30m", 5400],
      ["1h30m10s", 5410],
      ["90s", 90],
      ["1s", 1],
      ["1000ms", 1],
      ["1000000us", 1],
      ["1000000000ns", 1],
      [".5m", 30],
      ["+1h", 3600],
      ["1d12h", 129_600],
      ["36500d", 36_500 * 86_400],
      ["876000h", 36_500 * 86_400],
    ];
    for (const [lifetime, seconds] of lifetimes) {
      const before = Math.floor(Date.now() / 1000);
      const finished = await jwtGen("--secret", SECRET, "--expires-in", lifetime);
      const after = Math.floor(Date.now() / 1000);
      expect([lifetime, finished.exitCode, finished.stderr]).toEqual([lifetime, 0, ""]);
      const { iat, exp, ...others } = claimsOf(finished) as { iat: number; exp: number };
      expect([lifetime, exp - iat, others]).toEqual([lifetime, seconds, {}]);
      expect(iat).toBeWithin(before, after + 1);
    }
  });

  test("refuses every other lifetime", async () => {
    const refused = ["0", "0s", "10", "5x", "", " ", "1 h", "1h ", "h", "1", "-", "1,5h", "1h30", "1H", "one hour"];
    for (const lifetime of [...refused, "999ms", "36501d", "876001h", "1e3s", "0x1h", "Infinityh", "NaNs", "1h-30m"]) {
      await expectRefused(jwtGen("--secret", SECRET, "--expires-in", lifetime), `"${lifetime}" is not a duration`);
    }
    await expectRefused(jwtGen("--secret", SECRET, "--expires-in=-1h"), '"-1h" is not a duration');
    await expectRefused(jwtGen("--secret", SECRET, "--expires-in", "-1h"), "--expires-in lacks its value");
  });

  test("refuses what is missing, unknown, doubled or left over", async () => {
    await expectRefused(jwtGen(), "--expires-in is missing");
    await expectRefused(jwtGen("--expires-in", "1h"), "exactly one of --secret and --secret-file");
    await expectRefused(jwtGen("--secret", SECRET), "--expires-in is missing");
    await expectRefused(jwtGen("--secret", SECRET, "--expires-inn", "1h"), "there is no flag --expires-inn");
    await expectRefused(jwtGen("--secret", "--expires-in", "1h"), "--secret lacks its value");
    await expectRefused(jwtGen("--expires-in", "1h", "--secret"), "--secret lacks its value");
    await expectRefused(jwtGen("--secret", "--expires-in"), "--secret lacks its value");
    await expectRefused(mint("--secret", SECRET), "--secret is given twice");
    await expectRefused(mint("--expires-in=1h"), "--expires-in is given twice");
    for (const flag of ["--sub", "--jti", "--prefix", "--not-before"]) {
      await expectRefused(mint(flag, "1h", flag, "1h"), `${flag} is given twice`);
      await expectRefused(mint(flag), `${flag} lacks its value`);
    }
    await expectRefused(mint("stray"), '"stray" is one argument too many');
    await expectRefused(mint("--"), "there is no flag --");
    await expectRefused(mint("--issuer", "me"), "there is no flag --issuer");
    await expectRefused(mint("--secret-file", fileWith(SECRET)), "exactly one of --secret and --secret-file");
    await expectRefused(jwtGen("serve"), '"serve" is one argument too many');
  });

  test("takes flags with one dash and with an equals sign, in any order", async () => {
    for (const args of [
      ["-expires-in", "1h", "-secret", SECRET],
      ["-expires-in=1h", `-secret=${SECRET}`],
      [`--secret=${SECRET}`, "--expires-in=1h"],
    ]) {
      const finished = await jwtGen(...args);
      expect(finished).toEqual({ exitCode: 0, stdout: expect.stringMatching(ONE_TOKEN), stderr: "" });
      expect(isSignedWith(SECRET, finished)).toBe(true);
    }
  });

  test("puts the claims that were asked for into the token, and no others", async () => {
    const cases: [string[], Record<string, unknown>][] = [
      [["--sub", "ada"], { sub: "ada" }],
      [["--jti", "t-7"], { jti: "t-7" }],
      [["--prefix", "user/"], { prefix: "user/" }],
      [["--prefix="], { prefix: "" }],
      [["--bucket", "a"], { buckets: ["a"] }],
      [["--bucket", "a", "-bucket=b*", "--bucket", "a,b"], { buckets: ["a", "b*", "a,b"] }],
      [["--scope", "kv:read"], { scope: "kv:read" }],
      [["--scope", "kv:read kv:list"], { scope: "kv:read kv:list" }],
      [["--scope", "kv:read,kv:list", "--scope", "admin"], { scope: "kv:read kv:list admin" }],
      [["--scope="], { scope: "" }],
      [["--sub", 'é"\\', "--scope", "kv", "--bucket", "b"], { sub: 'é"\\', scope: "kv", buckets: ["b"] }],
    ];
    for (const [args, expected] of cases) {
      const { iat: _, exp: __, ...claims } = claimsOf(await mint(...args));
      expect([args, claims]).toEqual([args, expected]);
    }
  });

  test("takes up to 64 buckets, as many as the server accepts", async () => {
    const buckets = (count: number) => Array.from({ length: count }, (_, index) => `--bucket=b${index}`);
    expect(claimsOf(await mint(...buckets(64))).buckets).toBeArrayOfSize(64);
    await expectRefused(mint(...buckets(65)), "64 times");
  });

  test("counts --not-before from now", async () => {
    for (const [duration, seconds] of [
      ["10m", 600],
      ["0", 0],
    ] as const) {
      const { iat, nbf } = claimsOf(await mint("--not-before", duration)) as { iat: number; nbf: number };
      expect([duration, nbf - iat]).toEqual([duration, seconds]);
    }
    const { iat, nbf } = claimsOf(await mint("--not-before=-5s")) as { iat: number; nbf: number };
    expect(nbf - iat).toBe(-5);
    for (const duration of ["10", "soon", "", "36501d"]) {
      await expectRefused(mint(`--not-before=${duration}`), `--not-before "${duration}" is not a duration`);
    }
  });

  test("mints no token that could never be used", async () => {
    await expectRefused(jwtGen("--secret", SECRET, "--expires-in", "1h", "--not-before", "1h"), "never be valid");
    const buckets = Array.from({ length: 64 }, (_, index) => `--bucket=${"b".repeat(115)}${index}`);
    await expectRefused(mint(...buckets), "of which a server takes 8185");
    // Three characters of the subject are four of the token.
    const subject = "s".repeat(6000);
    const shorter = (await mint(`--sub=${subject}`)).stdout.trimEnd().length;
    const longest = subject + "s".repeat(Math.floor(((8185 - shorter) * 3) / 4));
    expect((await mint(`--sub=${longest}`)).stdout.trimEnd().length).toBeWithin(8183, 8186);
    await expectRefused(mint(`--sub=${longest}ss`), "of which a server takes 8185");
    // What the system hands over for bytes that are no UTF-8.
    await expectRefused(jwtGen("--secret", `${SECRET}\ufffd`, "--expires-in", "1h"), "use --secret-file");
  });

  test("reads the secret from a file without its one line end, byte for byte", async () => {
    const cases: [string | Uint8Array, string | Uint8Array][] = [
      [SECRET, SECRET],
      [`${SECRET}\n`, SECRET],
      [`${SECRET}\r\n`, SECRET],
      [`${SECRET}\n\n`, `${SECRET}\n`],
      [` ${SECRET} `, ` ${SECRET} `],
      [new Uint8Array(64).fill(0xff), new Uint8Array(64).fill(0xff)],
    ];
    for (const [content, secret] of cases) {
      const fromFile = await jwtGen("--secret-file", fileWith(content), "--expires-in", "1h");
      const fromStdin = await run([JWT_GEN, "--secret-file", "-", "--expires-in", "1h"], { stdin: content });
      for (const finished of [fromFile, fromStdin]) {
        expect(finished).toEqual({ exitCode: 0, stdout: expect.stringMatching(ONE_TOKEN), stderr: "" });
        expect(isSignedWith(secret, finished)).toBe(true);
      }
    }
  });

  test("ends with 1 when the secret file cannot be read, and with 2 when there is no secret in it", async () => {
    for (const [path, code] of [
      [dir.file("missing"), "there is no such file (ENOENT)"],
      [dir.path, "it is a folder (EISDIR)"],
    ] as const) {
      expect(await jwtGen("--secret-file", path, "--expires-in", "1h")).toEqual({
        exitCode: 1,
        stdout: "",
        stderr: `jwt-gen: cannot read ${path}: ${code}\n`,
      });
    }
    for (const content of ["", "\n", "\r\n"]) {
      await expectRefused(jwtGen("--secret-file", fileWith(content), "--expires-in", "1h"), "the secret is empty");
      const stdin = run([JWT_GEN, "--secret-file", "-", "--expires-in", "1h"], { stdin: content });
      await expectRefused(stdin, "the secret is empty");
    }
    await expectRefused(jwtGen("--secret", "", "--expires-in", "1h"), "the secret is empty");
    await expectRefused(jwtGen("--secret=", "--expires-in", "1h"), "the secret is empty");
    await expectRefused(jwtGen("--secret-file", "", "--expires-in", "1h"), "the name of the --secret-file is empty");
  });

  test("never takes a secret from the environment", async () => {
    const env = { JWT_SECRET: SECRET, SECRET, JWT_SECRET_FILE: fileWith(SECRET) };
    await expectRefused(run([JWT_GEN, "--expires-in", "1h"], { env }), "exactly one of --secret and --secret-file");
    const finished = await run([JWT_GEN, "--secret", `other ${SECRET}`, "--expires-in", "1h"], { env });
    expect(isSignedWith(`other ${SECRET}`, finished)).toBe(true);
  });

  test("warns of a short secret on stderr and mints all the same", async () => {
    const finished = await jwtGen("--secret", "your-strong-secret-key", "--expires-in", "720h");
    expect(finished.exitCode).toBe(0);
    expect(finished.stdout).toMatch(ONE_TOKEN);
    expect(finished.stderr).toMatch(/^jwt-gen: warning: .*22 bytes.*32\n$/);
    expect((await jwtGen("--secret", "x".repeat(32), "--expires-in", "1h")).stderr).toBe("");
  });

  test("warns of scope words that the server does not know, and mints all the same", async () => {
    const finished = await mint("--scope", "kv:raed,admin", "--scope", "KV");
    expect([finished.exitCode, claimsOf(finished).scope]).toEqual([0, "kv:raed admin KV"]);
    expect(finished.stderr).toMatch(/^jwt-gen: warning: --scope "kv:raed", "KV" grants nothing; known: .*\n$/);
    const known = "kv:read kv:write kv:delete kv:list kv relay:read relay:write admin";
    expect(finished.stderr).toContain(`known: ${known}\n`);
    expect((await mint("--scope", known)).stderr).toBe("");
    expect((await jwtGen("--help")).stdout).toContain(known);
  });

  test("shows its flags when asked, without colours and without a token", async () => {
    for (const command of [
      [JWT_GEN, "--help"],
      [JWT_GEN, "-h"],
      [GOKV, "jwt-gen", "--help"],
    ]) {
      const { exitCode, stdout, stderr } = await run(command);
      expect([exitCode, stderr]).toEqual([0, ""]);
      for (const flag of [
        "secret",
        "secret-file",
        "expires-in",
        "not-before",
        "scope",
        "bucket",
        "prefix",
        "sub",
        "jti",
      ]) {
        expect(stdout).toContain(`--${flag}`);
      }
      expect(stdout).not.toContain("\x1b");
      expect(stdout).not.toContain("eyJ");
    }
  });

  test("mints tokens that a server with the same secret accepts, within their limits", async () => {
    await using server = await startServer({ JWT_SECRET: SECRET, DB_PATH: dir.file("data") });
    const statusOf = async (path: string, method: string, { stdout }: Finished) => {
      const headers = { Authorization: `Bearer ${stdout.trimEnd()}` };
      return (await fetch(`${server.url}${path}`, { method, headers })).status;
    };
    const plain = await mint();
    expect(await statusOf("/b/user/1", "POST", plain)).toBe(200);
    expect(await statusOf("/b/user/1", "GET", plain)).toBe(200);
    expect(await statusOf("/metrics", "GET", plain)).toBe(200);
    const limited = await mint("--scope", "kv:read,kv:list", "--bucket", "b", "--prefix", "user/");
    expect(await statusOf("/b/user/1", "GET", limited)).toBe(200);
    expect(await statusOf("/_list?bucket=b", "GET", limited)).toBe(200);
    expect(await statusOf("/b/user/1", "POST", limited)).toBe(403);
    expect(await statusOf("/b/other", "GET", limited)).toBe(403);
    expect(await statusOf("/c/user/1", "GET", limited)).toBe(403);
    expect(await statusOf("/metrics", "GET", limited)).toBe(403);
    expect(await statusOf("/b/user/1", "GET", await mint("--not-before", "1h"))).toBe(401);
    const foreign = await jwtGen("--secret", `${SECRET}.`, "--expires-in", "24h");
    expect(await statusOf("/b/user/1", "GET", foreign)).toBe(401);
  });

  test("is found by its name, wherever it is called from", async () => {
    const finished = await run(["sh", "-c", `PATH="${JWT_GEN.replace(/\/jwt-gen$/, "")}:$PATH" jwt-gen --help`], {
      cwd: dir.path,
    });
    expect(finished.exitCode).toBe(0);
    expect(finished.stdout).toContain("--expires-in");
  });
});
