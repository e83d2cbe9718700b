// Stores with many keys in them, made in seconds by the storage classes themselves, in a process of its own.

import { cpSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { KvRows } from "../../src/storage/kv-rows.ts";
import { openStore } from "../../src/storage/open-store.ts";
import { storeFiles } from "../../src/storage/store-files.ts";
import { keyName } from "./request-stream.ts";

export interface StoreShape {
  readonly buckets: number;
  readonly keysPerBucket: number;
  readonly valueBytes: number;
}

const ROWS_PER_TRANSACTION = 20_000;
const BYTES_PER_TRANSACTION = 32 * 1024 * 1024;
const WAL_BYTES_MAX = 64 * 1024 * 1024;

export function bucketName(index: number): string {
  return `bucket-${1000 + index}`;
}

/** Fills each shape once and hands out copies. */
export class FilledStores {
  readonly #directory: string;
  readonly #filled = new Map<string, Promise<string>>();

  constructor(directory: string) {
    this.#directory = directory;
  }

  async copyTo(target: string, shape: StoreShape): Promise<void> {
    const name = `${shape.buckets}x${shape.keysPerBucket}x${shape.valueBytes}`;
    const filled = this.#filled.get(name) ?? fillInProcess(join(this.#directory, name), shape);
    this.#filled.set(name, filled);
    cpSync(await filled, target, { recursive: true });
  }
}

async function fillInProcess(directory: string, shape: StoreShape): Promise<string> {
  const script = join(import.meta.dir, "filled-store.ts");
  const child = Bun.spawn([process.execPath, script, directory, JSON.stringify(shape)], {
    stdio: ["ignore", "ignore", "inherit"],
  });
  if ((await child.exited) !== 0) throw new Error(`a store of ${JSON.stringify(shape)} could not be filled`);
  return directory;
}

async function fill(directory: string, { buckets, keysPerBucket, valueBytes }: StoreShape): Promise<void> {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const path = storeFiles(directory).database;
  const database = await openStore({ path, walLimitBytes: WAL_BYTES_MAX, databaseBytesMax: 0, isChecked: false });
  const rows = new KvRows(database);
  const nowMs = Date.now();
  const value = new Uint8Array(valueBytes).fill(120);
  const perTransaction = Math.min(ROWS_PER_TRANSACTION, Math.ceil(BYTES_PER_TRANSACTION / valueBytes));
  const total = buckets * keysPerBucket;
  for (let row = 0; row < total; ) {
    database.run("BEGIN IMMEDIATE");
    for (const end = Math.min(total, row + perTransaction); row < end; row++) {
      const bucket = bucketName(Math.floor(row / keysPerBucket));
      const times = { createdAtMs: nowMs, updatedAtMs: nowMs, expiresAtMs: null };
      const rest = { contentType: null, metadata: null, creatorIp: null };
      rows.put({ bucket, key: keyName(row % keysPerBucket), value, ...times, ...rest }, null);
    }
    rows.finish();
    database.run("COMMIT");
    rows.keep();
    database.run("PRAGMA wal_checkpoint(TRUNCATE)");
  }
  database.close(true);
}

if (import.meta.main) await fill(process.argv[2]!, JSON.parse(process.argv[3]!));
