// Opens the database for writing and brings it to the current schema, or says why it must not be touched.

import type { Database } from "bun:sqlite";
import { accessSync, constants, existsSync } from "node:fs";
import { dirname } from "node:path";
import { MiB } from "../shared/bounds.ts";
import { EXIT, ExitError, messageOf } from "../shared/errors.ts";
import { accessFailure } from "./access-failure.ts";
import { freshSchema } from "./fresh-schema.ts" with { type: "macro" };
import { APPLICATION_ID, requireKnownSchema } from "./inspect-store.ts";
import { latestSchemaVersion } from "./migrations.ts" with { type: "macro" };
import { openForWriting, PAGE_BYTES, schemaVersion } from "./sqlite-connection.ts";
import { classifySqliteError, isUnfitForTables } from "./sqlite-errors.ts";
import { sync } from "./sync-path.ts";

/** quick_check does not see that an index has lost a key, which would then be missing without an error. */
const INTEGRITY_CHECK_BYTES_MAX = 16 * MiB;

interface OpenOptions {
  readonly path: string;
  readonly walLimitBytes: number;
  /** 0 = no limit. */
  readonly databaseBytesMax: number;
  /** Let SQLite check the file first: all of it when it is small, without the indexes when it is large. */
  readonly isChecked: boolean;
  /** At once where it is not given. A new store is made in each case. */
  readonly upgrade?: UpgradeMode;
}

/**
 * What becomes of a store of an earlier version, which executables of then cannot open any more once it is upgraded.
 * `hold` leaves the transaction of the upgrade open, for who may still give it up; `ask` throws OutdatedStore.
 */
type UpgradeMode = "now" | "hold" | "ask";

export class OutdatedStore extends Error {
  readonly schema: number;

  constructor(schema: number) {
    super(`the store has schema ${schema}`);
    this.schema = schema;
  }
}

/** @throws ExitError (1, 4), OutdatedStore */
export async function openStore(options: OpenOptions): Promise<Database> {
  let database: Database | undefined;
  try {
    requireWritable(options.path);
    database = openForWriting(options.path, options.walLimitBytes);
    const schema = schemaVersion(database);
    requireKnownSchema(options.path, schema);
    if (options.upgrade === "ask" && schema > 0 && schema < SCHEMA_VERSION) throw new OutdatedStore(schema);
    if (options.isChecked) requireSound(database, options.path);
    await migrate(database, options.upgrade === "hold");
    // SQLite syncs the directory of a new log as well, but goes on when that fails.
    sync(dirname(options.path));
    if (options.databaseBytesMax > 0) {
      // Less than a page is still a limit; SQLite would take 0 for a question.
      database.run(`PRAGMA max_page_count = ${Math.max(1, Math.floor(options.databaseBytesMax / PAGE_BYTES))}`);
    }
    return database;
  } catch (error) {
    database?.close();
    throw error instanceof OutdatedStore ? error : startFailure(options.path, error);
  }
}

/** What to tell of a store that could not be opened, or whose tables do not take our statements. */
export function startFailure(path: string, error: unknown): ExitError {
  if (error instanceof ExitError) return error;
  const refusal = accessFailure(path, error);
  if (refusal !== null) return refusal;
  if (isUnfitForTables(error)) {
    return new ExitError(
      EXIT.storeDamaged,
      `${path} is damaged: its tables are not what they should be (${messageOf(error)}). ` +
        "Restore a backup with gokv restore FILE.",
    );
  }
  switch (classifySqliteError(error)) {
    case "damaged":
      return new ExitError(
        EXIT.storeDamaged,
        `${path} is damaged (${messageOf(error)}). Restore a backup with gokv restore FILE.`,
      );
    case "busy":
      return new ExitError(EXIT.storeInUse, `${path} is locked by another process. Stop it and start again.`);
    default:
      return new ExitError(EXIT.failed, `${path} cannot be opened: ${messageOf(error)}.`);
  }
}

/** SQLite opens what cannot be written for reading, and the first write would be what fails. */
function requireWritable(path: string): void {
  if (existsSync(path)) accessSync(path, constants.W_OK);
}

function requireSound(database: Database, path: string): void {
  const { pages } = database.query<{ pages: number }, []>("SELECT page_count AS pages FROM pragma_page_count").get()!;
  const check = pages * PAGE_BYTES <= INTEGRITY_CHECK_BYTES_MAX ? "integrity_check" : "quick_check";
  const found = database.query<unknown, []>(`PRAGMA ${check}(3)`).values().flat();
  if (found.length === 1 && found[0] === "ok") return;
  const report = found.join("; ");
  throw new ExitError(
    EXIT.storeDamaged,
    `${path} is damaged: ${report}. Restore a backup with gokv restore FILE; gokv check tells more.`,
  );
}

/** In one transaction: after a failure the store is still one that the version before can open. */
async function migrate(database: Database, isHeld: boolean): Promise<void> {
  const from = schemaVersion(database);
  if (from === SCHEMA_VERSION) return;
  database.run("BEGIN IMMEDIATE");
  try {
    if (from === 0) initialise(database);
    else await bringUpToDate(database, from);
    database.run(`PRAGMA user_version = ${SCHEMA_VERSION}`);
    if (!isHeld) database.run("COMMIT");
  } catch (error) {
    if (database.inTransaction) database.run("ROLLBACK");
    throw error;
  }
}

async function bringUpToDate(database: Database, from: number): Promise<void> {
  const [{ kyselyOver }, { MIGRATIONS }] = await Promise.all([import("./kysely-sqlite.ts"), import("./migrations.ts")]);
  for (const { up } of MIGRATIONS.slice(from)) await up(kyselyOver(database));
}

/** Macros stand for their values, so that what they are computed from is loaded only when there is work for it. */
const SCHEMA_VERSION = latestSchemaVersion();
const FRESH_SCHEMA = freshSchema() as unknown as string;

function initialise(database: Database): void {
  database.run(FRESH_SCHEMA);
  database.run(`PRAGMA application_id = ${APPLICATION_ID}`);
  const insert = database.prepare("INSERT INTO store (name, value) VALUES (?, ?)");
  insert.run("last_revision", 0);
  insert.run("store_id", crypto.randomUUID());
  insert.run("created_at", Date.now());
  insert.finalize();
}
