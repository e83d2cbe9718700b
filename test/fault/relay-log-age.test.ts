// How long the usage log is kept: rows that are too old go, younger ones stay, and what was used stays used.

import { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import { join } from "node:path";
import { alterStore } from "../support/alter-store.ts";
import { eventually } from "../support/eventually.ts";
import { FaultUpstream } from "../support/fault-upstream.ts";
import { logRows, readBooks, settledBooks } from "../support/relay-books.ts";
import { chat, makeChannel, makeToken } from "../support/relay-client.ts";
import { RelayProcess } from "../support/relay-process.ts";
import { tempDir } from "../support/temp-dir.ts";

const DAY_MS = 86_400_000;
const MINUTE_MS = 60_000;
const DAYS = 2;
/** More than are removed in one go. */
const OLD_ROWS = 3_000;
const PURGED_MS_MAX = 20_000;

test("rows older than RELAY_LOG_DAYS are gone, those a minute younger are there", async () => {
  using dir = tempDir();
  await using upstream = await FaultUpstream.start();
  await using relay = await RelayProcess.start(dir.file("data"), { RELAY_LOG_DAYS: `${DAYS}` });
  await makeChannel(relay, upstream);
  const token = await makeToken(relay);
  expect((await chat(relay, token.key)).status).toBe(200);
  const { used } = await settledBooks(relay, token.id, 1);
  const edge = Date.now() - DAYS * DAY_MS;
  await copyRows(relay.dbPath, "young", 100, edge + 10 * MINUTE_MS);
  await copyRows(relay.dbPath, "old", OLD_ROWS, edge - 2 * OLD_ROWS);
  expect(readBooks(relay.dbPath, token.id).rows).toBe(1 + 100 + OLD_ROWS);
  await relay.restart();
  await eventually("old rows are gone", PURGED_MS_MAX, () => readBooks(relay.dbPath, token.id).rows <= 101);
  const rows = await logRows(relay);
  expect(rows).toHaveLength(101);
  expect(rows.filter(({ request_id }) => request_id.startsWith("old"))).toEqual([]);
  expect(readBooks(relay.dbPath, token.id).used).toBe(used);
}, 240_000);

/** Rows like the first one, one for each millisecond from `fromMs` on. */
async function copyRows(dbPath: string, name: string, count: number, fromMs: number): Promise<void> {
  const columns = columnsOf(dbPath).filter((column) => !["id", "ts", "request_id"].includes(column));
  await alterStore(
    dbPath,
    `WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ${count - 1})
     INSERT INTO relay_log (request_id, ts, ${columns}) SELECT '${name}' || i, ${fromMs} + i, ${columns}
     FROM n, (SELECT * FROM relay_log ORDER BY id LIMIT 1)`,
  );
}

function columnsOf(dbPath: string): string[] {
  using database = new Database(join(dbPath, "gokv.db"), { readonly: true });
  return database
    .query<{ name: string }, []>("SELECT name FROM pragma_table_info('relay_log')")
    .all()
    .map(({ name }) => name);
}
