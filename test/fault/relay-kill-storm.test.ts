// Kills the relay at random moments in the middle of streams: what was set aside comes back, what was charged stays.

import { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import { join } from "node:path";
import { eventually } from "../support/eventually.ts";
import { cleanEnv, GOKV } from "../support/executable.ts";
import { FaultUpstream } from "../support/fault-upstream.ts";
import { type Books, mistakesIn, readBooks } from "../support/relay-books.ts";
import { chat, makeChannel, makeToken, RELAY_ENV } from "../support/relay-client.ts";
import { answerSoon, RelayLoad, slowStream } from "../support/relay-load.ts";
import { RelayProcess } from "../support/relay-process.ts";
import { bySize, report } from "../support/run-size.ts";
import { type Random, seededRandom } from "../support/seeded-random.ts";
import { SECRET } from "../support/targets.ts";
import { tempDir } from "../support/temp-dir.ts";

const KILLS = bySize(8, 20, 400);
const LIFE_MS_MIN = 200;
const LIFE_MS_MAX = 1_200;
const START_MS_MAX = 80;
const EARLY_KILL_SHARE = 1 / 5;
const GRANTED = 1_000_000_000;
const RETURNED_MS_MAX = 10_000;
/** Rows of unlimited tokens are written every 100 ms; the rest is for a machine with other things to do. */
const UNWRITTEN_MS_MAX = 3_000;
/** One life in this many is long enough for rows that must be there. */
const LONG_LIFE_SHARE = 1 / 5;
const LONG_LIFE_MS = 4_000;

test(
  "after each kill in mid-stream the books agree: nothing set aside is left, nothing charged is lost",
  async () => {
    using dir = tempDir();
    await using upstream = await FaultUpstream.start();
    const random = seededRandom("relay kill storm");
    upstream.always((exchange) => {
      const isSlow = exchange.request.json.stream === true && random.chance(0.25);
      return (isSlow ? slowStream(20, 20) : answerSoon)(exchange);
    });
    await using relay = await RelayProcess.start(dir.file("data"));
    await makeChannel(relay, upstream);
    const finite = await makeToken(relay, { remain_quota: GRANTED });
    const unlimited = await makeToken(relay);
    const problems: string[] = [];
    let opened = 0;
    let lostMost = 0;
    for (let kill = 1; kill <= KILLS; kill++) {
      const start = readBooks(relay.dbPath, unlimited.id);
      const loads = [
        new RelayLoad(relay, finite, { random, leaves: 0.1, streams: 0.8 }).start(16),
        new RelayLoad(relay, unlimited, { random, leaves: 0, streams: 0.5 }).start(6),
      ] as const;
      const isLong = random.chance(LONG_LIFE_SHARE);
      await Bun.sleep(isLong ? LONG_LIFE_MS : LIFE_MS_MIN + random.below(LIFE_MS_MAX - LIFE_MS_MIN));
      const before = readBooks(relay.dbPath, finite.id);
      const killedMs = performance.now();
      relay.kill("SIGKILL");
      await Promise.all([relay.exited, ...loads.map((load) => load.stop())]);
      opened += before.reservations;
      if (random.chance(EARLY_KILL_SHARE)) await killWhileStarting(relay.dbPath, random);
      await relay.restart();
      const after = await booksAtRest(relay.dbPath, finite.id);
      problems.push(...mistakesIn(after, GRANTED).map((mistake) => `kill ${kill}: ${mistake}`));
      if (after.used < before.used || after.rows < before.rows) problems.push(`kill ${kill}: a settled row is gone`);
      const unlimitedAfter = readBooks(relay.dbPath, unlimited.id);
      if (unlimitedAfter.used !== unlimitedAfter.logged) problems.push(`kill ${kill}: the log of the unlimited token`);
      const { completedMs } = loads[1];
      const written = unlimitedAfter.rows - start.rows;
      const due = completedMs.filter((ms) => ms < killedMs - UNWRITTEN_MS_MAX).length;
      lostMost = Math.max(lostMost, completedMs.length - written);
      if (written < due) problems.push(`kill ${kill}: ${written} rows of ${due} that were due`);
      problems.push(...channelMistakes(relay.dbPath).map((mistake) => `kill ${kill}: ${mistake}`));
    }
    expect((await chat(relay, finite.key)).status).toBe(200);
    const { used, rows } = readBooks(relay.dbPath, finite.id);
    report(
      `relay kill storm: ${KILLS} kills, ${opened} reservations open at them, ${rows} rows, ${used} used, ` +
        `${problems.length} mistakes, at most ${lostMost} last rows of an unlimited token lost`,
    );
    expect(problems).toEqual([]);
    expect(upstream.mistakes).toEqual([]);
    // Otherwise nothing was tested.
    expect(opened).toBeGreaterThan(KILLS);
    expect(rows).toBeGreaterThan(KILLS);
  },
  bySize(240_000, 600_000, 3_600_000),
);

/** Once the relay has given back what was set aside, which it does when it opens. */
async function booksAtRest(dbPath: string, tokenId: number): Promise<Books> {
  let books = readBooks(dbPath, tokenId);
  await eventually("reservations are back", RETURNED_MS_MAX, () => {
    books = readBooks(dbPath, tokenId);
    return books.reservations === 0;
  });
  return books;
}

/** Channels count what was used, too. */
function channelMistakes(dbPath: string): string[] {
  using database = new Database(join(dbPath, "gokv.db"), { readonly: true });
  return database
    .query<{ id: number; used: number; logged: number }, []>(
      `SELECT id, used_quota AS used,
        (SELECT coalesce(sum(quota), 0) FROM relay_log WHERE channel_id = c.id) AS logged FROM relay_channel c`,
    )
    .all()
    .filter(({ used, logged }) => used !== logged)
    .map(({ id, used, logged }) => `channel ${id}: ${used} used, ${logged} in the log`);
}

async function killWhileStarting(dbPath: string, random: Random): Promise<void> {
  const child = Bun.spawn([GOKV], {
    env: cleanEnv({ ...RELAY_ENV, JWT_SECRET: SECRET, DB_PATH: dbPath, PORT: "0", HOST: "127.0.0.1" }),
    stdio: ["ignore", "ignore", "ignore"],
  });
  await Bun.sleep(random.below(START_MS_MAX));
  child.kill("SIGKILL");
  await child.exited;
}
