// gokv serve --dev as a first-time user meets it: start it, paste what it prints, and it works.

import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { cleanEnv, type Environment, GOKV, ROOT, run, type ServerProcess, startServer } from "../support/executable.ts";
import { forgeToken } from "../support/forge-token.ts";
import { has, hasProgram } from "../support/needs.ts";
import { SECRET } from "../support/targets.ts";
import { type TempDir, tempDir } from "../support/temp-dir.ts";

// Many processes are started; on a busy machine that takes its time.
setDefaultTimeout(120_000);

let dir: TempDir;
beforeEach(() => {
  dir = tempDir();
});
afterEach(() => dir[Symbol.dispose]());

/** Without HOST and GIN_MODE, as on a fresh machine. Resolves when the last line of the greeting was printed. */
async function startDev(env: Environment = {}): Promise<ServerProcess> {
  const fresh = { HOST: undefined, GIN_MODE: undefined, DB_PATH: dir.file("data"), ...env };
  const server = await startServer(fresh, [], { args: ["serve", "--dev"] });
  while (!server.output().includes("# Ctrl-C stops it.\n")) await Bun.sleep(1);
  return server;
}

function tokenIn(output: string): string {
  return /^export TOKEN=(\S+)$/m.exec(output)![1]!;
}

const listWith = async (server: ServerProcess, token: string) =>
  (await fetch(`${server.url}/_list`, { headers: { Authorization: `Bearer ${token}` } })).status;

describe("the development mode", () => {
  if (has("curl", hasProgram("curl"))) {
    test("prints lines that all succeed when they are pasted into a shell", async () => {
      await using server = await startDev();
      // -e ends at the first command that fails, -f lets curl fail at every status from 400 on.
      const script = server.output().replaceAll("curl -sS ", "curl -sSf ");
      const pasted = await run(["sh", "-euc", script]);
      const printed = /^Ada\["users"\]\["1"\][\w-]{20,}\n$/;
      expect(pasted).toEqual({ exitCode: 0, stdout: expect.stringMatching(printed), stderr: "" });
      expect(script.match(/^curl /gm)).toHaveLength(5);
      const headers = { Authorization: `Bearer ${tokenIn(server.output())}` };
      expect((await fetch(`${server.url}/users/1`, { headers })).status).toBe(404);
      const again = await run(["sh", "-euc", script]);
      expect(again).toEqual({ ...pasted, stdout: expect.stringMatching(printed) });
    });

    test("prints no line for a service that is off", async () => {
      await using server = await startDev({ SERVICES: "token" });
      const pasted = await run(["sh", "-euc", server.output().replaceAll("curl -sS ", "curl -sSf ")]);
      expect([pasted.exitCode, pasted.stderr]).toEqual([0, ""]);
    });
  }

  if (has("npm", hasProgram("npm"))) {
    test("prints commands that work in a fresh clone, where nothing is built", async () => {
      const env = cleanEnv({ DB_PATH: dir.file("data"), PORT: "0" });
      const words = [process.execPath, "src/cli/gokv.ts", "serve", "--dev"];
      const child = Bun.spawn(words, { cwd: ROOT, env, stdout: "pipe", stderr: "ignore" });
      try {
        let output = "";
        for await (const chunk of child.stdout) {
          output += new TextDecoder().decode(chunk);
          if (output.includes("# Ctrl-C")) break;
        }
        const script = output.replaceAll(/^curl .*$/gm, "");
        expect(script).toContain("npm run -s gokv -- token issue");
        const pasted = await run(["sh", "-euc", script], { cwd: ROOT });
        expect(pasted).toEqual({ exitCode: 0, stdout: expect.stringMatching(/^[\w-]{20,}\n$/), stderr: "" });
      } finally {
        child.kill();
        await child.exited;
      }
    });
  }

  test("prints a token for everything, good for 24 hours", async () => {
    await using server = await startDev();
    const token = tokenIn(server.output());
    const { iat, exp, scope, buckets, prefix } = JSON.parse(
      Buffer.from(token.split(".")[1]!, "base64url").toString(),
    ) as Record<string, number | undefined>;
    expect([exp! - iat!, scope, buckets, prefix]).toEqual([86_400, undefined, undefined, undefined]);
    expect(await listWith(server, token)).toBe(200);
  });

  test("listens on this machine only unless HOST says otherwise", async () => {
    await using server = await startDev();
    expect(server.log()).toContain("url=http://127.0.0.1:");
    await using open = await startDev({ HOST: "0.0.0.0", DB_PATH: dir.file("other") });
    expect(open.log()).toContain("url=http://0.0.0.0:");
    expect(await listWith(open, tokenIn(open.output()))).toBe(200);
  });

  test("makes a secret of 32 random bytes, for its owner alone, and keeps it", async () => {
    let token: string;
    {
      await using server = await startDev();
      token = tokenIn(server.output());
    }
    const file = dir.file("data", "dev-secret");
    expect(statSync(file).mode & 0o777).toBe(0o600);
    const secret = readFileSync(file, "utf8");
    expect(Buffer.from(secret.trim(), "base64url")).toHaveLength(32);
    {
      await using again = await startDev();
      expect(await listWith(again, token)).toBe(200);
      expect(again.log()).not.toContain(secret.trim());
      expect(again.output()).not.toContain(secret.trim());
    }
    expect(readFileSync(file, "utf8")).toBe(secret);
    await using other = await startDev({ DB_PATH: dir.file("other") });
    expect(await listWith(other, token)).toBe(401);
  });

  test("uses JWT_SECRET when there is one, and makes none", async () => {
    await using server = await startDev({ JWT_SECRET: SECRET });
    expect(await listWith(server, forgeToken())).toBe(200);
    expect(await listWith(server, tokenIn(server.output()))).toBe(200);
    expect(existsSync(dir.file("data", "dev-secret"))).toBe(false);
  });

  test("is refused in release mode, however that is spelt", async () => {
    for (const GIN_MODE of ["release", "Release", "RELEASE"]) {
      for (const JWT_SECRET of [SECRET, undefined]) {
        const env = { GIN_MODE, JWT_SECRET, DB_PATH: dir.file("data"), PORT: "0" };
        const refused = await run([GOKV, "serve", "--dev"], { env });
        expect([refused.exitCode, refused.stdout]).toEqual([2, ""]);
        expect(refused.stderr).toContain("GIN_MODE=release");
      }
    }
    expect(existsSync(dir.file("data"))).toBe(false);
  });

  test("does not start with a kept secret that is empty", async () => {
    {
      await using server = await startDev();
      expect(server.url).not.toBe("");
    }
    writeFileSync(dir.file("data", "dev-secret"), "\n");
    const refused = await run([GOKV, "serve", "--dev"], { env: { DB_PATH: dir.file("data"), PORT: "0" } });
    expect([refused.exitCode, refused.stdout]).toEqual([1, ""]);
    expect(refused.stderr).toContain("dev-secret is empty");
  });

  test("ends cleanly at Ctrl-C", async () => {
    await using server = await startDev();
    server.kill("SIGINT");
    expect(await server.exited).toBe(0);
  });
});
