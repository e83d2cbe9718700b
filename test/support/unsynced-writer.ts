// A program that writes through the storage classes and acknowledges on standard output, with `synchronous` as it is
// told: so that a test can show that it would notice a store that does not sync its commits.
//
//   bun unsynced-writer.ts DIRECTORY FULL|NORMAL|OFF WRITES

import { writeSync } from "node:fs";
import { monotonicMs } from "../../src/shared/clock.ts";
import { openStore } from "../../src/storage/open-store.ts";
import { prepareDirectory, storeFiles } from "../../src/storage/store-files.ts";
import { WalCheckpointer } from "../../src/storage/wal-checkpointer.ts";
import { plannedAttempt, plannedWrite } from "./planned-writes.ts";
import { testGuard, testWriter } from "./test-guard.ts";

const WAL_LIMIT_BYTES = 1024 * 1024;
const BATCH_ITEMS = 5;
const STANDARD_OUTPUT = 1;

const [directory = "", synchronous = "", writes = ""] = process.argv.slice(2);
const files = storeFiles(directory);
prepareDirectory(files);
const database = await openStore({
  path: files.database,
  walLimitBytes: WAL_LIMIT_BYTES,
  databaseBytesMax: 0,
  isChecked: false,
});
database.run(`PRAGMA synchronous = ${synchronous}`);
const space = testGuard(database);
const writer = testWriter(database, space);
const wal = new WalCheckpointer(database, {
  limitBytes: WAL_LIMIT_BYTES,
  reserveBytes: 0,
  onFull: () => space.noteFull(),
});
for (let id = 1; id <= Number(writes); id += BATCH_ITEMS) {
  const batch = Array.from({ length: BATCH_ITEMS }, (_, index) => plannedAttempt(id + index));
  writer.apply(batch.map(plannedWrite), monotonicMs());
  const answers = batch.map((attempt) => `HTTP/1.1 200 OK\r\nX-Request-Id: w-${attempt.id}\r\n\r\n`);
  writeSync(STANDARD_OUTPUT, answers.join(""));
  wal.afterWrite();
}
database.close(true);
