// The queue of the usage log: each row is written once, also when it is closed while rows wait.

import { expect, test } from "bun:test";
import type { RelayUnits } from "../../src/relay/relay-units.ts";
import { UsageLog } from "../../src/relay/usage-log.ts";
import { openLog } from "../../src/shared/log.ts";
import type { UnitRunner } from "../../src/storage/unit-of-work.ts";
import { eventually } from "../support/eventually.ts";
import { logRow, openRelayStore } from "../support/relay-store.ts";

const log = openLog({ mode: "test", logLevel: "error" });
/** Longer than a row waits for others. */
const COMMIT_MS = 150;

/** Takes what it is given, slowly. */
function slowStore() {
  const batches: string[][] = [];
  const units = {
    async run(_name: string, { rows }: { rows: string }) {
      batches.push((JSON.parse(rows) as { request_id: string }[]).map(({ request_id }) => request_id));
      await Bun.sleep(COMMIT_MS);
      return null;
    },
  } as unknown as UnitRunner<RelayUnits>;
  return { batches, units };
}

test("a usage log that is closed writes once what waits, and what comes while it does so", async () => {
  const { batches, units } = slowStore();
  const usageLog = new UsageLog(units, () => [], log);
  usageLog.record(logRow({ request_id: "first" }));
  const closed = usageLog[Symbol.asyncDispose]();
  await Bun.sleep(COMMIT_MS / 3);
  usageLog.record(logRow({ request_id: "second" }));
  await closed;
  expect([batches, usageLog.waiting]).toEqual([[["first"], ["second"]], 0]);
  await Bun.sleep(COMMIT_MS);
  expect(batches).toHaveLength(2);
});

test("a usage log that is closed while it writes waits for that before it writes the rest", async () => {
  const { batches, units } = slowStore();
  const usageLog = new UsageLog(units, () => [], log);
  usageLog.record(logRow({ request_id: "first" }));
  await eventually("the first row is being written", COMMIT_MS, () => batches.length === 1);
  usageLog.record(logRow({ request_id: "second" }));
  await usageLog[Symbol.asyncDispose]();
  expect([batches, usageLog.waiting]).toEqual([[["first"], ["second"]], 0]);
});

test("a row that the store cannot take is dropped alone: the others of its batch are stored", async () => {
  await using relay = await openRelayStore();
  const usageLog = new UsageLog(relay.store, () => [], log);
  const isBad = (at: number) => at === 0 || at === 7 || at === 499;
  for (let at = 0; at < 500; at++) {
    usageLog.record(logRow({ request_id: `${at}`, ...(isBad(at) ? { model: null as never } : {}) }));
  }
  await usageLog[Symbol.asyncDispose]();
  const stored = (await relay.rows("relay_log")).map(({ request_id }) => Number(request_id));
  const good = Array.from({ length: 500 }, (_, at) => at).filter((at) => !isBad(at));
  expect(stored.toSorted((one, other) => one - other)).toEqual(good);
  expect([usageLog.waiting, usageLog.dropped]).toEqual([0, 3]);
});
