// A small store with values of every shape, made through the storage classes, and what each of its keys must answer.

import { readFileSync } from "node:fs";
import { monotonicMs, systemClock } from "../../src/shared/clock.ts";
import type { KvFound, KvPut } from "../../src/storage/kv-engine.ts";
import { KvReader } from "../../src/storage/kv-reader.ts";
import { openStore } from "../../src/storage/open-store.ts";
import { prepareDirectory, storeFiles } from "../../src/storage/store-files.ts";
import { storedValue } from "./durable-load.ts";
import { randomFrom } from "./seeded-random.ts";
import { testWriter } from "./test-guard.ts";

export interface SampleStore {
  /** The database file: complete, with nothing left in a log. */
  readonly bytes: Uint8Array;
  readonly entries: ReadonlyMap<string, KvFound>;
}

export const SAMPLE_BUCKET = "sample";
const DAY_MS = 86_400_000;
const ENTRIES = 160;
/** In place, over one page, over several pages. */
const SIZES = [0, 1, 60, 400, 3_000, 5_000, 20_000];

function samplePut(id: number): KvPut {
  const size = SIZES[id % SIZES.length]!;
  const random = randomFrom(id);
  // Half of the values are text, half any bytes.
  const value = id % 2 === 0 ? storedValue(id, size) : Uint8Array.from({ length: size }, () => random.below(256));
  return {
    kind: "put",
    bucket: SAMPLE_BUCKET,
    key: `key-${String(id).padStart(3, "0")}`,
    value,
    condition: null,
    contentType: id % 3 === 0 ? "text/plain" : null,
    metadata: id % 5 === 0 ? JSON.stringify({ id: `${id}` }) : null,
    ttlMs: id % 4 === 0 ? DAY_MS : null,
    creatorIp: "127.0.0.1",
  };
}

/** `directory` must be new; this process must not open it again. */
export async function makeSampleStore(directory: string): Promise<SampleStore> {
  const files = storeFiles(directory);
  prepareDirectory(files);
  const database = await openStore({
    path: files.database,
    walLimitBytes: 64 * 1024 * 1024,
    databaseBytesMax: 0,
    isChecked: false,
  });
  const writer = testWriter(database);
  const puts = Array.from({ length: ENTRIES }, (_, id) => samplePut(id));
  writer.apply(puts, monotonicMs());
  const reader = new KvReader(database);
  const entries = new Map(puts.map(({ key }) => [key, reader.find(SAMPLE_BUCKET, key, systemClock())!]));
  database.run("PRAGMA wal_checkpoint(TRUNCATE)");
  database.close(true);
  return { bytes: new Uint8Array(readFileSync(files.database)), entries };
}
