// Kills the executable at random moments under load: what was acknowledged is there afterwards, whole and once.

import { expect, test } from "bun:test";
import { DurableLoad } from "../support/durable-load.ts";
import { cleanEnv, GOKV, startServer } from "../support/executable.ts";
import { bySize, report } from "../support/run-size.ts";
import { type Random, seededRandom } from "../support/seeded-random.ts";
import { mint, SECRET } from "../support/targets.ts";
import { tempDir } from "../support/temp-dir.ts";

const KILLS = bySize(14, 60, 110);
const ACKNOWLEDGEMENTS = bySize(2_000, 40_000, 100_000);
const LIFE_MS_MAX = bySize(400, 900);
const START_MS_MAX = 60;
/** One kill in this many meets a server that is still starting, and so perhaps in the middle of its recovery. */
const EARLY_KILL_SHARE = 1 / 5;

test(
  "nothing acknowledged is lost or torn, nothing deleted comes back, however often the process is killed",
  async () => {
    using dir = tempDir();
    const random = seededRandom("kill storm");
    const env = { JWT_SECRET: SECRET, DB_PATH: dir.file("data"), ACCESS_LOG: "off", RESERVE_BYTES: "0" };
    const load = new DurableLoad({
      token: await mint({ expiresInMs: 24 * 3_600_000 }),
      random,
      clients: 24,
      keysPerClient: 12,
      sizes: [1, 100, 100, 100, 2_000, 5_000, 60_000],
    });
    let kills = 0;
    const problems: string[] = [];
    while (kills < KILLS || load.acknowledgements < ACKNOWLEDGEMENTS) {
      if (random.chance(EARLY_KILL_SHARE)) {
        await killWhileStarting(env, random);
        kills++;
      }
      await using server = await startServer(env);
      problems.push(...(await load.verify(server.url)));
      const running = load.run(server.url);
      await Bun.sleep(random.below(LIFE_MS_MAX));
      server.kill("SIGKILL");
      await running;
      kills++;
    }
    await using server = await startServer(env);
    problems.push(...(await load.verify(server.url)));
    report(`kill storm: ${kills} kills, ${load.acknowledgements} acknowledgements, ${problems.length} lost or torn`);
    expect(problems).toEqual([]);
    expect(load.unexpected).toEqual([]);
  },
  bySize(120_000, 1_200_000),
);

async function killWhileStarting(env: Record<string, string>, random: Random): Promise<void> {
  const child = Bun.spawn([GOKV], {
    env: cleanEnv({ PORT: "0", HOST: "127.0.0.1", GIN_MODE: "release", ...env }),
    stdio: ["ignore", "ignore", "ignore"],
  });
  await Bun.sleep(random.below(START_MS_MAX));
  child.kill("SIGKILL");
  await child.exited;
}
