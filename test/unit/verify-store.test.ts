// What a check of a store reports when there is much to report.

import { expect, test } from "bun:test";
import { monotonicMs } from "../../src/shared/clock.ts";
import { KvWriter } from "../../src/storage/kv-writer.ts";
import { openStore } from "../../src/storage/open-store.ts";
import { SpaceGuard } from "../../src/storage/space-guard.ts";
import { verifyStore } from "../../src/storage/verify-store.ts";
import { WriteTransaction } from "../../src/storage/write-transaction.ts";
import { tempDir } from "../support/temp-dir.ts";

test("no more than twenty problems are told, of values and counters together", async () => {
  using dir = tempDir();
  const path = dir.file("gokv.db");
  const database = await openStore({ path, walLimitBytes: 1_000_000, databaseBytesMax: 0, isChecked: false });
  const writer = new KvWriter(database, new WriteTransaction(database), new SpaceGuard(dir.file("reserve")));
  const rest = { contentType: null, metadata: null, ttlMs: null, creatorIp: null, condition: null };
  const puts = Array.from({ length: 30 }, (_, n) => ({ kind: "put", bucket: `b${n}`, key: "k", ...rest }) as const);
  writer.apply(
    puts.map((put) => ({ ...put, value: new Uint8Array(1) })),
    monotonicMs(),
  );
  expect(verifyStore(database).problems).toEqual([]);
  database.run("UPDATE kv SET checksum = checksum + 1 WHERE id <= 5");
  database.run("UPDATE kv_bucket SET entries = entries + 1");
  const { problems } = verifyStore(database);
  expect(problems).toHaveLength(20);
  expect(problems.filter((text) => text.startsWith("damaged value"))).toHaveLength(5);
  database.close(true);
});
