// A change of the sealing secret that dies at any point: every key opens afterwards, all are sealed anew or none is.

import { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import { join } from "node:path";
import { type Environment, GOKV, run } from "../support/executable.ts";
import { FaultUpstream } from "../support/fault-upstream.ts";
import { has, hasProgram } from "../support/needs.ts";
import { makeChannel, makeToken, managed } from "../support/relay-client.ts";
import { RelayProcess } from "../support/relay-process.ts";
import { bySize, report } from "../support/run-size.ts";
import { seededRandom } from "../support/seeded-random.ts";
import { strace } from "../support/strace.ts";
import { SECRET } from "../support/targets.ts";
import { tempDir } from "../support/temp-dir.ts";

const CHANNELS = 60;
const SECRETS = ["first-master-key-of-more-than-32-bytes", "second-master-key-of-more-than-32-bytes"] as const;
/** Behind the first ones, which surround the commit, come those of a copy of the log, page by page. */
const DENSE_MOMENTS = 20;
const STRIDE = bySize(6, 6, 1);
const SERVER_KILLS = bySize(6, 15, 40);
const REKEY_MS_MAX = 40;
/** A process makes fewer calls than that. */
const MOMENTS_MAX = 200;
const CALLS = ["pwrite64", "fsync"] as const;

/** The secret of this turn first, that of the last one behind it. */
function ringOf(turn: number): Environment {
  return { MASTER_KEY: SECRETS[turn % 2], MASTER_KEY_PREVIOUS: SECRETS[(turn + 1) % 2] };
}

/** What the keys are sealed with, without repetition. */
function kidsOf(dbPath: string): string[] {
  using database = new Database(join(dbPath, "gokv.db"), { readonly: true });
  const rows = database.query<{ sealed_key: string }, []>("SELECT sealed_key FROM relay_channel").all();
  expect(rows).toHaveLength(CHANNELS);
  return [...new Set(rows.map(({ sealed_key }) => sealed_key.split(":")[1]!))];
}

/** Every key is the one that was entered: its channel goes upstream with it. */
async function expectReadable(dbPath: string, ring: Environment, upstream: FaultUpstream): Promise<void> {
  await using relay = await RelayProcess.start(dbPath, ring);
  const channels = await managed<{ id: number; name: string }[]>(relay, "GET", "/api/channel");
  const states = channels.map(async ({ id }) => managed<{ state: string }>(relay, "GET", `/api/channel/${id}/health`));
  expect((await Promise.all(states)).filter(({ state }) => state !== "closed")).toEqual([]);
  const some = channels[Math.floor(channels.length / 2)]!;
  await managed(relay, "POST", `/api/channel/${some.id}/test`, { model: "mock-small" });
  expect(upstream.keys.at(-1)).toBe(keyOf(some.name));
  expect(kidsOf(dbPath)).toHaveLength(1);
}

function keyOf(name: string): string {
  return `sk-mock-key-of-${name.replaceAll(" ", "-")}`;
}

async function makeChannels(dbPath: string, upstream: FaultUpstream): Promise<void> {
  await using relay = await RelayProcess.start(dbPath);
  for (let index = 0; index < CHANNELS; index++) {
    await makeChannel(relay, upstream, {
      name: `channel ${index}`,
      key: keyOf(`channel ${index}`),
    });
  }
  await makeToken(relay);
}

function rekey(dbPath: string, ring: Environment, wrapper: readonly string[] = []) {
  return run([...wrapper, GOKV, "rekey"], { env: { JWT_SECRET: SECRET, DB_PATH: dbPath, ...ring } });
}

if (has("strace", hasProgram("strace"))) {
  for (const call of CALLS) {
    test(`rekey that dies in its n-th ${call} leaves all keys sealed with one secret, and all readable`, async () => {
      using dir = tempDir();
      const data = dir.file("data");
      await using upstream = await FaultUpstream.start();
      await makeChannels(data, upstream);
      let turn = 0;
      let deaths = 0;
      let changes = 0;
      let [kid] = kidsOf(data);
      for (let moment = 1; moment < MOMENTS_MAX; moment += moment < DENSE_MOMENTS ? 1 : STRIDE) {
        const doomed = await rekey(data, ringOf(turn), deathAt(call, moment, data, dir.file("trace")));
        if (doomed.exitCode === 0) {
          expect(doomed.stdout).toStartWith(`resealed ${CHANNELS} (kid `);
          break;
        }
        deaths++;
        await expectReadable(data, ringOf(turn), upstream);
        const [after] = kidsOf(data);
        if (after === kid) continue;
        // It was stored before the end came: the next turn goes back to the other secret.
        changes++;
        turn++;
        kid = after;
      }
      report(`rekey that dies in ${call}: ${deaths} deaths, ${changes} of them after the change was stored`);
      expect(deaths).toBeGreaterThan(0);
      expect(await rekey(data, ringOf(turn))).toMatchObject({ exitCode: 0, stderr: "" });
      // The former secrets are not needed any more.
      await expectReadable(data, { MASTER_KEY: SECRETS[turn % 2], JWT_SECRET: SECRET }, upstream);
    }, 480_000);
  }
}

function deathAt(call: string, moment: number, data: string, output: string): string[] {
  return strace({
    output,
    calls: [call],
    inject: [`${call}:signal=KILL:when=${moment}`],
    paths: [`${data}/gokv.db`, `${data}/gokv.db-wal`],
  });
}

test(
  "a server that is killed while it seals all keys anew leaves all keys readable",
  async () => {
    using dir = tempDir();
    const data = dir.file("data");
    await using upstream = await FaultUpstream.start();
    const random = seededRandom("server killed in rekey");
    await makeChannels(data, upstream);
    let changes = 0;
    for (let turn = 0; turn < SERVER_KILLS; turn++) {
      const relay = await RelayProcess.start(data, ringOf(turn));
      const [before] = kidsOf(data);
      const asked = relay.fetch("/_admin/rekey", { method: "POST" }).catch(() => null);
      await Bun.sleep(random.below(REKEY_MS_MAX));
      relay.kill("SIGKILL");
      await Promise.all([relay.exited, asked]);
      await expectReadable(data, ringOf(turn), upstream);
      if (kidsOf(data)[0] !== before) changes++;
      // The next turn swaps the secrets: what is sealed with the older of them must be under the new one by then.
      else expect(await rekey(data, ringOf(turn))).toMatchObject({ exitCode: 0 });
    }
    report(`server killed in rekey: ${SERVER_KILLS} kills, ${changes} after the change was stored`);
  },
  bySize(120_000, 300_000),
);
