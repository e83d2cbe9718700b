// The process dies while operators issue, rotate and revoke tokens: what was answered is true after the start.

import { describe, expect, test } from "bun:test";
import { EXIT } from "../../src/shared/errors.ts";
import { AdminLoad } from "../support/admin-load.ts";
import { type Environment, GOKV, run, startServer, stop } from "../support/executable.ts";
import { faultMoments } from "../support/fault-moments.ts";
import { has, hasProgram } from "../support/needs.ts";
import { bySize, report } from "../support/run-size.ts";
import { seededRandom } from "../support/seeded-random.ts";
import { strace } from "../support/strace.ts";
import { SECRET } from "../support/targets.ts";
import { type TempDir, tempDir } from "../support/temp-dir.ts";
import { administer, operatorAt } from "../support/token-client.ts";

const APP_ID = "board";
const KILLS = bySize(10, 20, 100);
const LIFE_MS_MAX = bySize(250, 600);
const TIMEOUT_MS = bySize(120_000, 1_200_000);
/** More than it takes to reach any of the moments. */
const MORE_CHANGES_MAX = 400;

async function storeWithApp(dir: TempDir): Promise<Environment> {
  const env = {
    JWT_SECRET: SECRET,
    DB_PATH: dir.file("data"),
    ACCESS_LOG: "off",
    RESERVE_BYTES: "0",
    TOKEN_RATE_READ: "0",
    TOKEN_RATE_AUTH_FAIL: "0",
  };
  await using server = await startServer(env);
  const made = await administer(await operatorAt(server.url), "POST", "/apps", { id: APP_ID, name: "Board" });
  expect(made.status).toBe(201);
  await stop(server);
  return env;
}

async function problemsAfterStart(env: Environment, load: AdminLoad): Promise<string[]> {
  await using server = await startServer(env);
  const problems = await load.verify(await operatorAt(server.url));
  await stop(server);
  return [...problems, ...load.unexpected.splice(0)];
}

function summary(load: AdminLoad): string {
  return `${load.answered} changes answered, ${load.count("alive")} tokens alive, ${load.count("dead")} dead`;
}

async function expectSound(env: Environment): Promise<void> {
  expect((await run([GOKV, "check"], { env })).exitCode).toBe(EXIT.done);
}

describe("a process that is killed at any moment of its administration", () => {
  test(
    "accepts every token whose issue or rotation was answered, and none whose end was answered",
    async () => {
      using dir = tempDir();
      const env = await storeWithApp(dir);
      const random = seededRandom("kills beside administration");
      const load = new AdminLoad({ random, operators: 6, appId: APP_ID });
      const problems: string[] = [];
      for (let kill = 0; kill < KILLS; kill++) {
        const server = await startServer(env);
        const running = load.run(await operatorAt(server.url));
        await Bun.sleep(random.below(LIFE_MS_MAX));
        server.kill("SIGKILL");
        await Promise.all([running, server.exited]);
        problems.push(...(await problemsAfterStart(env, load)));
      }
      report(`administration, ${KILLS} kills: ${summary(load)}`);
      expect(problems).toEqual([]);
      expect(load.count("alive")).toBeGreaterThan(10);
      expect(load.count("dead")).toBeGreaterThan(10);
      await expectSound(env);
    },
    TIMEOUT_MS,
  );
});

if (has("strace", hasProgram("strace"))) {
  describe("a process whose n-th", () => {
    const cases = [
      ["fsync", "signal=KILL", bySize(10, 16, 80), bySize(60, 300)],
      ["pwrite64", "signal=KILL", bySize(6, 14, 60), bySize(400, 2_000)],
      ["fsync", "error=EIO", bySize(8, 14, 60), bySize(60, 300)],
    ] as const;
    for (const [call, fault, count, last] of cases) {
      test(
        `${call} ${fault === "error=EIO" ? "fails" : "is its last act"} has told nothing false of a token`,
        async () => {
          using dir = tempDir();
          const env = await storeWithApp(dir);
          const load = new AdminLoad({ random: seededRandom(`${fault} of ${call}`), operators: 4, appId: APP_ID });
          const problems: string[] = [];
          // The load was too short for the moment, or the call was one whose failure SQLite may ignore.
          let missed = 0;
          for (const moment of faultMoments(count, last)) {
            const inject = [`${call}:${fault}:when=${moment}`];
            const wrapper = strace({ output: dir.file("trace"), calls: [call], inject });
            const server = await startServer(env, wrapper).catch(() => null);
            if (server !== null) {
              await load.run(await operatorAt(server.url), MORE_CHANGES_MAX);
              const ended = await Promise.race([server.exited, Bun.sleep(5_000).then(() => "lives on")]);
              if (ended === "lives on") missed++;
              await server[Symbol.asyncDispose]();
            }
            problems.push(...(await problemsAfterStart(env, load)).map((text) => `${call} ${moment}: ${text}`));
          }
          report(`administration, ${fault} of ${call}: ${summary(load)}`);
          expect(problems).toEqual([]);
          expect(missed).toBeLessThan(count / 3);
          expect(load.answered).toBeGreaterThan(count);
          await expectSound(env);
        },
        TIMEOUT_MS,
      );
    }
  });
}
