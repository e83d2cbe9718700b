// How far the counters of a restored store leap: further than the lost one can have come.

import { expect, test } from "bun:test";
import { leapCounters } from "../../src/storage/leap-counters.ts";
import { openStore } from "../../src/storage/open-store.ts";
import { tempDir } from "../support/temp-dir.ts";

test("the numbers of events leap as far as a revision does, ids that people type by a million", async () => {
  using dir = tempDir();
  const path = dir.file("gokv.db");
  const database = await openStore({ path, walLimitBytes: 1_000_000, databaseBytesMax: 0, isChecked: false });
  const sequenceOf = (table: string) =>
    database.query<{ seq: number }, [string]>("SELECT seq FROM sqlite_sequence WHERE name = ?").get(table)!.seq;
  leapCounters(database, 1);
  expect([sequenceOf("task_event"), sequenceOf("task_item")]).toEqual([1_000_000_000, 1_000_000]);
  leapCounters(database, 2);
  expect([sequenceOf("task_event"), sequenceOf("task_item")]).toEqual([3_000_000_000, 3_000_000]);
  database.close(true);
});
