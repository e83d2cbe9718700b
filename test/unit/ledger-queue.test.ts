// Reservations and settlements that come at once, against a real store: few commits, each judged as if it were alone.

import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { hashOpaque } from "../../src/auth/opaque-token.ts";
import { LedgerQueue } from "../../src/relay/ledger-queue.ts";
import type { NewLogRow, Reservation } from "../../src/relay/relay-tables.ts";
import type { RelayUnits } from "../../src/relay/relay-units.ts";
import type { UnitRunner } from "../../src/storage/unit-of-work.ts";
import { logRow, openRelayStore, type RelayStore, TOKEN_FIELDS } from "../support/relay-store.ts";

let relay: RelayStore;
let commits: number;
let queue: LedgerQueue;
beforeEach(async () => {
  relay = await openRelayStore();
  commits = 0;
  const units: UnitRunner<RelayUnits> = {
    run(name, args) {
      commits++;
      return relay.store.run(name, args);
    },
  };
  queue = new LedgerQueue(units, () => []);
  for (const [key, remainQuota] of Object.entries({ "sk-nexus-one": 1_000, "sk-nexus-two": 50 })) {
    const fields = { ...TOKEN_FIELDS, remainQuota };
    await relay.store.run("relay.createToken", { keyHash: hashOpaque(key), keyMask: "", fields, isFirst: false });
  }
});
afterEach(() => relay[Symbol.asyncDispose]());

function reservation(fields: Partial<Reservation> = {}): Reservation {
  return { requestId: crypto.randomUUID(), tokenId: 1, amount: 100, expiresAtMs: 1, node: "here", ...fields };
}

async function quotas(): Promise<[remain: number, used: number][]> {
  return (await relay.rows("relay_token")).map(({ remain_quota, used_quota }) => [remain_quota, used_quota]);
}

describe("a queue of reservations and settlements", () => {
  test("writes what comes during a commit with the next one", async () => {
    const taken = await Promise.all(Array.from({ length: 60 }, () => queue.add(reservation({ amount: 1 }))));
    expect(taken).toEqual(new Array(60).fill(true));
    expect(commits).toBe(2);
    expect(await relay.rows("relay_reservation")).toHaveLength(60);
    expect(await quotas()).toEqual([
      [940, 0],
      [50, 0],
    ]);
  });

  test("judges those of one commit one after the other, each token by itself", async () => {
    const entries = Array.from({ length: 40 }, (_, index) => {
      return reservation(index % 2 === 0 ? {} : { tokenId: 2, amount: 20 });
    });
    const taken = await Promise.all(entries.map((entry) => queue.add(entry)));
    expect(taken.filter((_, index) => index % 2 === 0)).toEqual([
      ...new Array(10).fill(true),
      ...new Array(10).fill(false),
    ]);
    expect(taken.filter((_, index) => index % 2 === 1)).toEqual([true, true, ...new Array(18).fill(false)]);
    expect(await queue.add(reservation({ tokenId: 9 }))).toBe(false);
    expect(await quotas()).toEqual([
      [0, 0],
      [10, 0],
    ]);
  });

  test("what one settles is there for the next that reserves", async () => {
    const first = reservation({ amount: 1_000 });
    expect(await queue.add(first)).toBe(true);
    const row = logRow({ request_id: first.requestId, token_id: 1, quota: 300 });
    // The first goes alone, the others together.
    const [, settled, taken, again] = await Promise.all([
      queue.add(reservation({ tokenId: 2, amount: 1 })),
      queue.add({ row }),
      queue.add(reservation({ amount: 700 })),
      queue.add({ row }),
    ]);
    expect([settled, taken, again]).toEqual([true, true, true]);
    expect(await quotas()).toEqual([
      [0, 300],
      [49, 0],
    ]);
    expect(await relay.rows("relay_log")).toHaveLength(1);
    expect((await relay.rows("relay_reservation")).map(({ amount }) => amount).sort()).toEqual([1, 700]);
  });

  test("refuses one that the store cannot take without the others", async () => {
    const bad = { ...logRow({ token_id: 1 }), model: null } as unknown as NewLogRow;
    const outcomes = await Promise.allSettled([
      queue.add(reservation()),
      queue.add(reservation()),
      queue.add({ row: bad }),
      queue.add(reservation()),
    ]);
    expect(outcomes.map(({ status }) => status)).toEqual(["fulfilled", "fulfilled", "rejected", "fulfilled"]);
    expect(outcomes[2]).toMatchObject({ reason: { code: "internal_error" } });
    expect(await quotas()).toEqual([
      [700, 0],
      [50, 0],
    ]);
  });
});
