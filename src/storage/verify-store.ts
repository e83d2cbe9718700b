// Proves that a database holds what it should: SQLite's own check, every row's checksum, every counter.

import type { Database } from "bun:sqlite";
import { readLastRevision, readWipes } from "./kv-rows.ts";
import { checksumRow } from "./row-checksum.ts";

export interface Verification {
  readonly entries: number;
  readonly buckets: number;
  readonly valueBytes: number;
  readonly revision: number;
  /** Of the services besides KV: users, tasks, channels, jobs and what belongs to them. */
  readonly serviceRows: number;
  /** Sentences for an operator; empty = sound. No more than PROBLEMS_MAX of them. */
  readonly problems: readonly string[];
}

const PROBLEMS_MAX = 20;
const PAGE_ROWS = 500;
const DAMAGED_VALUE = "damaged value";

type Row = {
  id: number;
  bucket: string;
  key: string;
  revision: number;
  updatedAtMs: number;
  expiresAtMs: number | null;
  checksum: number;
  contentType: string | null;
  metadata: string | null;
  value: Uint8Array;
};

/** Reads everything once, in one snapshot if the caller has begun a transaction. Throws SQLite's own errors. */
export function verifyStore(database: Database): Verification {
  const problems = integrityProblems(database);
  if (problems.length > 0) return { entries: 0, buckets: 0, valueBytes: 0, revision: 0, serviceRows: 0, problems };
  const page = database.prepare<Row, [number, number]>(
    `SELECT id, bucket, key, revision, updated_at AS updatedAtMs, expires_at AS expiresAtMs, checksum,
     content_type AS contentType, metadata, value FROM kv WHERE id > ? ORDER BY id LIMIT ?`,
  );
  const revision = readLastRevision(database);
  const wipes = readWipes(database);
  const serviceRows = countServiceRows(database);
  const counted = new Map<string, { entries: number; bytes: number }>();
  let entries = 0;
  let valueBytes = 0;
  let lastId = 0;
  for (let rows = page.all(lastId, PAGE_ROWS); rows.length > 0; rows = page.all(lastId, PAGE_ROWS)) {
    for (const row of rows) {
      lastId = row.id;
      // Rows that a wipe has left are in no counter.
      if (row.revision > (wipes.get(row.bucket) ?? 0)) {
        entries++;
        valueBytes += row.value.length;
        const bucket = counted.get(row.bucket) ?? { entries: 0, bytes: 0 };
        counted.set(row.bucket, { entries: bucket.entries + 1, bytes: bucket.bytes + row.value.length });
      }
      const name = `${JSON.stringify(row.bucket)} ${JSON.stringify(row.key)}`;
      if (checksumRow(row.bucket, row.key, row, row.value) !== row.checksum) problems.push(`${DAMAGED_VALUE}: ${name}`);
      if (row.revision > revision) problems.push(`revision ${row.revision} from the future: ${name}`);
    }
    if (problems.length >= PROBLEMS_MAX) break;
  }
  page.finalize();
  const all = [...problems, ...counterProblems(database, counted)].slice(0, PROBLEMS_MAX);
  return { entries, buckets: counted.size, valueBytes, revision, serviceRows, problems: all };
}

/** What can be done about the problems of a store in use, as a sentence behind them; "" = nothing but a restore. */
export function adviceOn(problems: readonly string[]): string {
  if (!problems.every((text) => text.startsWith(DAMAGED_VALUE))) return "";
  return " Overwrite or delete the key of each damaged value; other keys are not concerned.";
}

function countServiceRows(database: Database): number {
  const names = database
    .query<{ name: string }, []>(
      `SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT IN ('kv', 'kv_bucket', 'store')
       AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'`,
    )
    .all();
  const count = (name: string) =>
    database.prepare<{ total: number }, []>(`SELECT count(*) AS total FROM "${name}"`).get()!.total;
  return names.reduce((total, { name }) => total + count(name), 0);
}

function integrityProblems(database: Database): string[] {
  const found = database.query<{ integrity_check: string }, []>(`PRAGMA integrity_check(${PROBLEMS_MAX})`).all();
  return found.map((row) => row.integrity_check).filter((text) => text !== "ok");
}

function counterProblems(
  database: Database,
  counted: ReadonlyMap<string, { entries: number; bytes: number }>,
): string[] {
  const kept = database
    .query<{ name: string; entries: number; bytes: number }, []>("SELECT name, entries, bytes FROM kv_bucket")
    .all();
  const problems = kept
    .filter(({ name, entries, bytes }) => {
      const truth = counted.get(name) ?? { entries: 0, bytes: 0 };
      return truth.entries !== entries || truth.bytes !== bytes;
    })
    .map(({ name }) => `wrong counters of bucket ${JSON.stringify(name)}`);
  const known = new Set(kept.map(({ name }) => name));
  const missing = [...counted.keys()].filter((name) => !known.has(name));
  return [...problems, ...missing.map((name) => `no counters of bucket ${JSON.stringify(name)}`)];
}
