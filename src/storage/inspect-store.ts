// What can be known of a store before SQLite opens it: is it ours, and is its write-ahead log sound?

import { closeSync, copyFileSync, existsSync, fstatSync, openSync, readSync } from "node:fs";
import { EXIT, ExitError } from "../shared/errors.ts";
import { namingAccess } from "./access-failure.ts";
import { refuseInterruptedRestore } from "./kept-store.ts";
import { latestSchemaVersion } from "./migrations.ts" with { type: "macro" };
import { type StoreFiles, utcStamp } from "./store-files.ts";
import { sync } from "./sync-path.ts";
import { type ReadAt, scanWal, type WalScan } from "./wal-scan.ts";

/** "gokv" in ASCII; stands in the header of every store (PRAGMA application_id). */
export const APPLICATION_ID = 0x676f6b76;

const SQLITE_MAGIC = "SQLite format 3\0";
const SQLITE_HEADER_BYTES = 100;

export interface StoreInspection {
  /** The last stop was not clean: SQLite will recover these frames. */
  readonly walFrames: number;
  readonly databaseBytes: number;
}

/**
 * Looks without changing anything. It opens the files through the file API and so may only run before this process
 * opens them through SQLite, by the holder of the store lock.
 * @throws ExitError (4) for a file that is not ours, a newer schema, damage in acknowledged writes, or a log without
 *   its database
 */
export function inspectStore(files: StoreFiles, walDamage: "refuse" | "accept"): StoreInspection {
  const databaseBytes = requireOurs(files.database);
  refuseInterruptedRestore(files);
  const scan = scanLog(files.wal);
  if (databaseBytes === 0 && scan !== null && scan.validFrames + scan.lostCommits > 0) throw lostDatabase(files);
  if (scan !== null && scan.lostCommits > 0) handleDamage(files, walDamage, scan.lostCommits);
  return { walFrames: scan?.validFrames ?? 0, databaseBytes };
}

/**
 * SQLite would take the log for that of a new store, and delete it. No new store is ever in this state: its first page
 * reaches the file, and the disk, before its log is made.
 */
function lostDatabase({ database, wal }: StoreFiles): ExitError {
  return new ExitError(
    EXIT.storeDamaged,
    `${database} is ${existsSync(database) ? "empty" : "missing"}, and its write-ahead log ${wal} holds what was ` +
      "written last. Nothing was changed. Put the database file back, or restore a backup (gokv restore FILE), which " +
      "keeps the log; or, to start with an empty store, move the log away.",
  );
}

/** Null when there is no such file. */
export function scanLog(path: string): WalScan | null {
  return withFile(path, (readAt, sizeBytes) => scanWal(readAt, sizeBytes));
}

function handleDamage(files: StoreFiles, walDamage: "refuse" | "accept", lostCommits: number): void {
  if (walDamage === "accept") {
    const copy = `${files.wal}.damaged-${utcStamp(Date.now())}`;
    copyFileSync(files.wal, copy);
    sync(copy);
    sync(files.directory);
    return;
  }
  throw new ExitError(
    EXIT.storeDamaged,
    `The write-ahead log ${files.wal} is damaged: ${lostCommits} acknowledged transactions would be lost. Nothing ` +
      "was changed. Restore a backup (gokv restore FILE), or start once with WAL_DAMAGE=accept to go on without " +
      "them; a copy of the log is kept then.",
  );
}

/** The header of the database file, https://sqlite.org/fileformat2.html section 1.3. Returns the file's size. */
export function requireOurs(path: string): number {
  const header = withFile(path, (readAt, sizeBytes) =>
    sizeBytes === 0 ? null : { bytes: readAt(0, Math.min(sizeBytes, SQLITE_HEADER_BYTES)), sizeBytes },
  );
  if (header === null) return 0;
  const { bytes, sizeBytes } = header;
  // The power was cut while SQLite wrote the first page of a new store: beside it lies the journal that undoes that.
  if (bytes.every((byte) => byte === 0) && existsSync(`${path}-journal`)) return sizeBytes;
  if (bytes.length < SQLITE_HEADER_BYTES || Buffer.from(bytes.subarray(0, 16)).toString("latin1") !== SQLITE_MAGIC) {
    throw new ExitError(EXIT.storeDamaged, `${path} is not a gokv store: it is no SQLite file. It was not changed.`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const schemaCookie = view.getUint32(40);
  const userVersion = view.getUint32(60);
  const applicationId = view.getUint32(68);
  // Killed between its creation and its first migration, a store of ours is a SQLite file without any table.
  if (applicationId === 0 && schemaCookie === 0) return sizeBytes;
  if (applicationId !== APPLICATION_ID) {
    throw new ExitError(EXIT.storeDamaged, `${path} is a SQLite file of another program. It was not changed.`);
  }
  requireKnownSchema(path, userVersion);
  return sizeBytes;
}

/**
 * For who only reads: the next start of a server would make the tables. `version` is that of the schema.
 * @throws ExitError (4)
 */
export function requireTables(path: string, version: number): void {
  if (version > 0) return;
  throw new ExitError(
    EXIT.storeDamaged,
    `${path} holds no store yet: a first start was killed, or somebody emptied the file. Start the server, which ` +
      "makes a new store of it, or restore a backup (gokv restore FILE).",
  );
}

export function requireKnownSchema(path: string, version: number): void {
  if (version <= latestSchemaVersion()) return;
  throw new ExitError(
    EXIT.storeDamaged,
    `${path} has schema ${version}, written by a newer gokv; this one knows ${latestSchemaVersion()}. Use the newer.`,
  );
}

/** Large steps, because a 64 MiB log read frame by frame would cost 16 000 system calls. */
const READ_AHEAD_BYTES = 4 * 1024 * 1024;

function withFile<T>(path: string, use: (readAt: ReadAt, sizeBytes: number) => T | null): T | null {
  if (!existsSync(path)) return null;
  const descriptor = namingAccess(path, () => openSync(path, "r"));
  try {
    let window = new Uint8Array(0);
    let windowStart = 0;
    const readAt: ReadAt = (offset, length) => {
      if (offset < windowStart || offset + length > windowStart + window.length) {
        const bytes = new Uint8Array(Math.max(length, READ_AHEAD_BYTES));
        window = bytes.subarray(0, readSync(descriptor, bytes, 0, bytes.length, offset));
        windowStart = offset;
      }
      const start = offset - windowStart;
      return window.subarray(start, start + length);
    };
    return use(readAt, fstatSync(descriptor).size);
  } finally {
    closeSync(descriptor);
  }
}
