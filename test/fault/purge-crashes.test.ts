// The process dies while a device is deleted under the writes of its apps: its entries go with it, or all stay.

import { describe, expect, test } from "bun:test";
import { EXIT } from "../../src/shared/errors.ts";
import { GOKV, run, startServer, stop } from "../support/executable.ts";
import { bySize, report } from "../support/run-size.ts";
import { seededRandom } from "../support/seeded-random.ts";
import { SECRET } from "../support/targets.ts";
import { tempDir } from "../support/temp-dir.ts";
import { type Asked, administer, asApp, install, operatorAt } from "../support/token-client.ts";

const KILLS = bySize(8, 20, 60);
/** Longer than a purge takes. */
const LIFE_MS_MAX = 30;
const WRITERS = 4;
const TIMEOUT_MS = bySize(120_000, 600_000);

/** Writes until it is refused, or nobody answers any more. */
async function writeOn(target: Asked, token: string, writer: number, onStored: () => void): Promise<void> {
  for (let round = 0; ; round++) {
    const [path, body] =
      round % 2 === 0 ? [`/${writer}.${round}`, "1"] : ["/_batchimport", `{"b${writer}.${round}":1}`];
    const answer = await asApp(target, token, path, { method: "POST", body }).catch(() => null);
    if (answer?.status !== 200) return;
    onStored();
  }
}

describe("a process that is killed while a device is purged under load", () => {
  test(
    "leaves the device with its entries, or neither",
    async () => {
      using dir = tempDir();
      const env = {
        JWT_SECRET: SECRET,
        DB_PATH: dir.file("data"),
        ACCESS_LOG: "off",
        RESERVE_BYTES: "0",
        TOKEN_RATE_WRITE: "0",
        TOKEN_RATE_BATCH: "0",
      };
      const random = seededRandom("kills beside purges");
      const seen = { gone: 0, there: 0 };
      for (let kill = 0; kill < KILLS; kill++) {
        const uuid = `device-${kill}`;
        const server = await startServer(env);
        const target = await operatorAt(server.url);
        const { token } = await install(target, {}, uuid);
        const started = Promise.withResolvers<void>();
        const writing = Array.from({ length: WRITERS }, (_, writer) => writeOn(target, token, writer, started.resolve));
        await started.promise;
        const deleting = administer(target, "DELETE", `/devices/${uuid}?purge=true`).then(
          ({ status }) => status,
          () => 0,
        );
        await Bun.sleep(random.below(LIFE_MS_MAX));
        server.kill("SIGKILL");
        const [status] = await Promise.all([deleting, ...writing, server.exited]);
        await using next = await startServer(env);
        const after = await operatorAt(next.url);
        const isThere = (await administer(after, "GET", `/devices/${uuid}`)).status === 200;
        const { count } = (await (await after.fetch(`/_list?bucket=${uuid}&count=1`)).json()) as { count: number };
        expect([status === 204 && isThere, count > 0]).toEqual([false, isThere]);
        seen[isThere ? "there" : "gone"]++;
        await stop(next);
      }
      report(`purges, ${KILLS} kills: ${JSON.stringify(seen)}`);
      expect(seen.gone).toBeGreaterThan(0);
      expect((await run([GOKV, "check"], { env })).exitCode).toBe(EXIT.done);
    },
    TIMEOUT_MS,
  );
});
