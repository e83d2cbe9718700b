// The guard of space, and a writer, over a database that a test has opened itself, without the threads of a store.

import type { Database } from "bun:sqlite";
import { dirname } from "node:path";
import { readWipes } from "../../src/storage/kv-rows.ts";
import { KvWriter } from "../../src/storage/kv-writer.ts";
import { type GuardedStore, SpaceGuard } from "../../src/storage/space-guard.ts";
import { storeFiles } from "../../src/storage/store-files.ts";
import { WriteTransaction } from "../../src/storage/write-transaction.ts";

/** Of a store that is to have no reserve, no limit and nothing done about its log, unless `store` says otherwise. */
export function testGuard(
  database: Database,
  store: Partial<Omit<GuardedStore, "database">> = {},
  reservePath = storeFiles(dirname(database.filename)).reserve,
): SpaceGuard {
  const plain = { isLimited: false, reserveBytes: 0, makeRoom: () => undefined, emptyLog: () => undefined };
  return new SpaceGuard(reservePath, { database, ...plain, ...store });
}

export function testWriter(
  database: Database,
  space: SpaceGuard = testGuard(database),
  transaction: WriteTransaction = new WriteTransaction(database),
): KvWriter {
  return new KvWriter(database, transaction, space, readWipes(database));
}
