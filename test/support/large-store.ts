// Fills a store with more entries than a test could send, through the classes that write its rows.

import { KvRows, type NewEntry } from "../../src/storage/kv-rows.ts";
import { openStore } from "../../src/storage/open-store.ts";
import { prepareDirectory, storeFiles } from "../../src/storage/store-files.ts";

const TRANSACTION_ROWS = 20_000;
const WAL_LIMIT_BYTES = 256 * 1024 * 1024;

/** What an entry has that says nothing of itself. */
export function plainEntry(bucket: string, key: string): NewEntry {
  const nowMs = Date.now();
  return {
    bucket,
    key,
    value: new Uint8Array(0),
    contentType: null,
    metadata: null,
    creatorIp: null,
    createdAtMs: nowMs,
    updatedAtMs: nowMs,
    expiresAtMs: null,
  };
}

/** `directory` must be new; this process must not open it again. */
export async function fillLargeStore(directory: string, entries: Iterable<NewEntry>): Promise<void> {
  const files = storeFiles(directory);
  prepareDirectory(files);
  const options = { walLimitBytes: WAL_LIMIT_BYTES, databaseBytesMax: 0, isChecked: false };
  const database = await openStore({ path: files.database, ...options });
  const rows = new KvRows(database);
  let open = 0;
  const commit = () => {
    rows.finish();
    database.run("COMMIT");
    rows.keep();
    open = 0;
  };
  for (const entry of entries) {
    if (open === 0) database.run("BEGIN IMMEDIATE");
    rows.put(entry, null);
    if (++open === TRANSACTION_ROWS) commit();
  }
  if (open > 0) commit();
  database.run("PRAGMA wal_checkpoint(TRUNCATE)");
  database.close(true);
}
