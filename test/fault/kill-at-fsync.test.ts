// Kills the executable at each fsync and each write in turn: in commits, in checkpoints, while the log starts over.

import { describe, expect, test } from "bun:test";
import { DurableLoad } from "../support/durable-load.ts";
import { type Environment, startServer } from "../support/executable.ts";
import { faultMoments } from "../support/fault-moments.ts";
import { has, hasProgram } from "../support/needs.ts";
import { bySize, report } from "../support/run-size.ts";
import { type Random, seededRandom } from "../support/seeded-random.ts";
import { strace } from "../support/strace.ts";
import { mint, SECRET } from "../support/targets.ts";
import { type TempDir, tempDir } from "../support/temp-dir.ts";

/** Two commits and their checkpoint fill the smallest log, so that few calls see every phase. */
const WAL_LIMIT_BYTES = "1MiB";
const SIZES = [100, 3_000, 200_000, 200_000];
const MORE_ACKNOWLEDGEMENTS_MAX = 1_000;

interface Deaths {
  kills: number;
  acknowledgements: number;
  problems: string[];
}

/** Lives of one store, each ended at the n-th `call` of its storage thread; in between all of it is read. */
async function dieAt(
  dir: TempDir,
  call: "fsync" | "pwrite64",
  moments: readonly number[],
  random: Random,
): Promise<Deaths> {
  const data = dir.file("data");
  const env: Environment = {
    JWT_SECRET: SECRET,
    DB_PATH: data,
    ACCESS_LOG: "off",
    RESERVE_BYTES: "0",
    WAL_LIMIT_BYTES,
  };
  const load = new DurableLoad({ token: await mint(), random, clients: 6, keysPerClient: 5, sizes: SIZES });
  const deaths: Deaths = { kills: 0, acknowledgements: 0, problems: [] };
  for (const moment of moments) {
    const wrapper = strace({
      output: dir.file("trace"),
      calls: [call],
      inject: [`${call}:signal=KILL:when=${moment}`],
      paths: [`${data}/gokv.db`, `${data}/gokv.db-wal`],
    });
    const doomed = await startServer(env, wrapper).catch(() => null);
    if (doomed !== null) {
      await load.run(doomed.url, load.acknowledgements + MORE_ACKNOWLEDGEMENTS_MAX);
      // It is dead by now; a load that met no end would hide that the moment never came.
      const isStillUp = await fetch(`${doomed.url}/livez`).then(
        () => true,
        () => false,
      );
      if (isStillUp) deaths.problems.push(`the process lives on after ${call} number ${moment}`);
      await doomed[Symbol.asyncDispose]();
    }
    deaths.kills++;
    await using server = await startServer(env);
    deaths.problems.push(...(await load.verify(server.url)).map((problem) => `${call} ${moment}: ${problem}`));
  }
  return { ...deaths, acknowledgements: load.acknowledgements, problems: [...deaths.problems, ...load.unexpected] };
}

if (has("strace", hasProgram("strace"))) {
  describe("a process that dies", () => {
    const cases = [
      ["fsync", faultMoments(bySize(14, 26, 120), bySize(60, 200, 400))],
      ["pwrite64", faultMoments(bySize(10, 20, 80), bySize(2_000, 6_000))],
    ] as const;
    for (const [call, when] of cases) {
      test(
        `in its n-th ${call} loses nothing that was acknowledged`,
        async () => {
          using dir = tempDir();
          const deaths = await dieAt(dir, call, when, seededRandom(`death in ${call}`));
          report(
            `death in ${call}: ${deaths.kills} kills, ${deaths.acknowledgements} acknowledgements, ` +
              `${deaths.problems.length} lost`,
          );
          expect(deaths.problems).toEqual([]);
          expect(deaths.acknowledgements).toBeGreaterThan(when.length);
        },
        bySize(120_000, 600_000),
      );
    }
  });
}
