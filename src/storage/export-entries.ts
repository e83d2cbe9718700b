// The export format: one JSON text per line, a head, the entries, an end that proves nothing is missing.

import type { Database } from "bun:sqlite";
import { EXIT, ExitError } from "../shared/errors.ts";
import { formatTime, formatTimeOrNull } from "../shared/iso-time.ts";
import { boundAfterPrefix } from "./key-bounds.ts";
import { readLastRevision, readWipes } from "./kv-rows.ts";
import { checksumRow } from "./row-checksum.ts";

export const EXPORT_FORMAT = "gokv-export";
export const EXPORT_VERSION = 1;

interface ExportHead {
  readonly format: typeof EXPORT_FORMAT;
  readonly version: typeof EXPORT_VERSION;
  /** Of the store when the export was made; entries get new revisions on import. */
  readonly revision: number;
}

/** Times in RFC 3339 with milliseconds, UTC; the value in base64. */
export interface ExportedEntry {
  readonly bucket: string;
  readonly key: string;
  readonly value: string;
  readonly content_type: string | null;
  readonly metadata: Record<string, string>;
  readonly created_at: string;
  readonly updated_at: string;
  readonly expires_at: string | null;
  readonly creator_ip: string | null;
}

interface ExportEnd {
  readonly count: number;
  /** Of every byte of the lines before this one, line ends included. */
  readonly sha256: string;
}

interface ExportFilter {
  readonly bucket: string | null;
  readonly prefix: string;
}

const CHUNK_LENGTH = 256 * 1024;

type Row = {
  bucket: string;
  key: string;
  revision: number;
  createdAtMs: number;
  updatedAtMs: number;
  expiresAtMs: number | null;
  checksum: number;
  contentType: string | null;
  metadata: string | null;
  creatorIp: string | null;
  value: Uint8Array<ArrayBuffer>;
};

/**
 * The lines of an export, some at a time, in order of bucket and key, without what has expired at `nowMs`.
 * @throws ExitError (4) a value is damaged
 */
export function* exportLines(database: Database, filter: ExportFilter, nowMs: number): Generator<string> {
  const hash = new Bun.CryptoHasher("sha256");
  const head: ExportHead = { format: EXPORT_FORMAT, version: EXPORT_VERSION, revision: readLastRevision(database) };
  let count = 0;
  let lines = line(head);
  const wipes = readWipes(database);
  for (const row of rows(database, filter)) {
    if (row.revision <= (wipes.get(row.bucket) ?? 0)) continue;
    if (row.expiresAtMs !== null && row.expiresAtMs <= nowMs) continue;
    lines += line(toExported(row));
    count++;
    if (lines.length < CHUNK_LENGTH) continue;
    hash.update(lines);
    yield lines;
    lines = "";
  }
  hash.update(lines);
  const end: ExportEnd = { count, sha256: hash.digest("hex") };
  yield lines + line(end);
}

function line(value: unknown): string {
  return `${JSON.stringify(value)}\n`;
}

/** One row at a time, since a value may have many megabytes. */
function rows(database: Database, { bucket, prefix }: ExportFilter): IterableIterator<Row> {
  const select = database.prepare<Row, [Record<string, string | Uint8Array | null>]>(
    `SELECT bucket, key, revision, created_at AS createdAtMs, updated_at AS updatedAtMs, expires_at AS expiresAtMs,
     checksum, content_type AS contentType, metadata, creator_ip AS creatorIp, value
     FROM kv WHERE (:bucket IS NULL OR bucket = :bucket) AND key >= :prefix AND key < :afterPrefix
     ORDER BY bucket, key`,
  );
  // A BLOB sorts after every TEXT: above all keys.
  return select.iterate({ bucket, prefix, afterPrefix: boundAfterPrefix(prefix) ?? new Uint8Array(0) });
}

function toExported(row: Row): ExportedEntry {
  if (checksumRow(row.bucket, row.key, row, row.value) !== row.checksum) {
    const name = `${JSON.stringify(row.bucket)} ${JSON.stringify(row.key)}`;
    throw new ExitError(
      EXIT.storeDamaged,
      `The value of ${name} is damaged; the export was given up. Overwrite or delete this key and export again.`,
    );
  }
  return {
    bucket: row.bucket,
    key: row.key,
    value: Buffer.from(row.value.buffer, row.value.byteOffset, row.value.length).toString("base64"),
    content_type: row.contentType,
    metadata: row.metadata === null ? {} : JSON.parse(row.metadata),
    created_at: formatTime(row.createdAtMs),
    updated_at: formatTime(row.updatedAtMs),
    expires_at: formatTimeOrNull(row.expiresAtMs),
    creator_ip: row.creatorIp,
  };
}
