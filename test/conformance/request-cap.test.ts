// How the executable lifts the runtime's cap on outgoing requests: by starting itself once more in its own process.

import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { type Environment, type ServerProcess, startServer, untilLogged } from "../support/executable.ts";
import { has, hasProgram } from "../support/needs.ts";
import { strace } from "../support/strace.ts";
import { SECRET } from "../support/targets.ts";
import { type TempDir, tempDir } from "../support/temp-dir.ts";

setDefaultTimeout(120_000);

const CAP = "BUN_CONFIG_MAX_HTTP_REQUESTS";
const GUARD = "GOKV_REEXEC";

let dir: TempDir;
beforeEach(() => {
  dir = tempDir();
});
afterEach(() => dir[Symbol.dispose]());

const settings = (env: Environment): Environment => ({ JWT_SECRET: SECRET, DB_PATH: dir.file("data"), ...env });

/** What a running process was started with, by the kernel's account. */
function startedWith({ pid }: ServerProcess): { args: string[]; env: Record<string, string> } {
  const parts = (name: string) => readFileSync(`/proc/${pid}/${name}`, "utf8").split("\0").slice(0, -1);
  const env = parts("environ").map((entry) => [
    entry.slice(0, entry.indexOf("=")),
    entry.slice(entry.indexOf("=") + 1),
  ]);
  return { args: parts("cmdline"), env: Object.fromEntries(env) as Record<string, string> };
}

async function stop(server: ServerProcess): Promise<void> {
  server.kill("SIGTERM");
  expect(await server.exited).toBe(0);
}

if (has("/proc, to see what a process was started with", process.platform === "linux")) {
  describe("a server with the relay", () => {
    test("starts once more with the cap lifted: the same process, name, arguments and settings", async () => {
      const named = ["bash", "-c", 'exec -a "./a name" "$0" "$@"'];
      await using server = await startServer(settings({ LOG_LEVEL: "debug", OTHER: "a=b c" }), named, {
        args: ["serve"],
      });
      const { args, env } = startedWith(server);
      // That it is the spawned process is what its id says.
      expect(args).toEqual(["./a name", "serve"]);
      expect([env[CAP], env[GUARD], env.OTHER]).toEqual(["4096", "1", "a=b c"]);
      for (const line of server.log().trim().split("\n")) expect(() => JSON.parse(line)).not.toThrow();
      await stop(server);
    });

    test("lifts it to what is asked for, also when it is set too low or to nonsense", async () => {
      for (const [cap, wanted] of [
        [undefined, "1000"],
        ["256", "300"],
        ["many", "5000"],
        ["", "300"],
        ["0", "300"],
      ] as const) {
        await using server = await startServer(settings({ [CAP]: cap, RELAY_UPSTREAM_MAX: wanted }));
        expect([cap, startedWith(server).env[CAP]]).toEqual([cap, wanted]);
        await stop(server);
      }
    });

    test("does not when the cap is high enough", async () => {
      for (const [cap, wanted] of [
        ["4096", undefined],
        ["9000", "4096"],
        [undefined, "256"],
      ] as const) {
        await using server = await startServer(settings({ [CAP]: cap, RELAY_UPSTREAM_MAX: wanted }));
        const { env } = startedWith(server);
        expect([env[CAP], env[GUARD]]).toEqual([cap, undefined]);
        expect(server.log()).not.toContain("requests to upstreams");
        await stop(server);
      }
    });

    test("says so and goes on when it has started once more already", async () => {
      await using server = await startServer(settings({ [GUARD]: "1", [CAP]: "100" }));
      expect(startedWith(server).env[CAP]).toBe("100");
      await untilLogged(server, new RegExp(`only 100 requests to upstreams run at once; set ${CAP}=4096`));
      await stop(server);
    });

    if (has("strace", hasProgram("strace"))) {
      test("does so exactly once", async () => {
        const trace = dir.file("trace");
        await using server = await startServer(settings({}), strace({ output: trace, calls: ["execve"] }));
        await stop(server);
        const starts = readFileSync(trace, "utf8").match(/\bexecve\b.* = 0$/gm) ?? [];
        expect(starts).toHaveLength(2);
      });
    }

    if (has("setpriv", hasProgram("setpriv"))) {
      test("does so where a process may gain no privileges", async () => {
        await using server = await startServer(settings({}), ["setpriv", "--no-new-privs"]);
        expect(startedWith(server).env[CAP]).toBe("4096");
        await stop(server);
      });
    }
  });

  test("a server without the relay leaves the cap alone", async () => {
    await using server = await startServer(settings({ SERVICES: "kv,token" }));
    const { env } = startedWith(server);
    expect([env[CAP], env[GUARD]]).toEqual([undefined, undefined]);
    await stop(server);
  });
}
