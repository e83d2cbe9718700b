// Tokens and what they pay, against a real store: nothing is granted twice, nothing is charged twice.

import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { hashOpaque } from "../../src/auth/opaque-token.ts";
import type { RelayToken, RelayTokenFields } from "../../src/relay/relay-tables.ts";
import { RelayTokenStore } from "../../src/relay/relay-token-store.ts";
import { refusalFrom } from "../support/refusal-of.ts";
import { CHANNEL_FIELDS, logRow, openRelayStore, type RelayStore, TOKEN_FIELDS } from "../support/relay-store.ts";

let relay: RelayStore;
let tokens: RelayTokenStore;
let nowMs: number;
beforeEach(async () => {
  nowMs = 1_800_000_000_000;
  relay = await openRelayStore();
  tokens = new RelayTokenStore(relay.store, () => nowMs);
});
afterEach(() => relay[Symbol.asyncDispose]());

async function create(fields: Partial<RelayTokenFields> = {}, key = "sk-nexus-abc", isFirst = false) {
  const all = { ...TOKEN_FIELDS, ...fields };
  const made = { keyHash: hashOpaque(key), keyMask: "sk-...", fields: all, isFirst };
  return (await tokens.change("relay.createToken", made)) as RelayToken;
}

const update = (changes: Partial<RelayTokenFields>, addQuota = 0, usedQuotaRead: number | null = null) =>
  tokens.change("relay.updateToken", { id: 1, changes, addQuota, usedQuotaRead });

async function reserve(requestId: string, amount: number): Promise<boolean> {
  const entry = { requestId, tokenId: 1, amount, expiresAtMs: nowMs + 1000, node: "" };
  return (await relay.store.run("relay.account", { entries: [entry] }))[0]!;
}

/** Returns what the log has more of afterwards. */
async function settle(request_id: string, quota: number, fields = {}, reserved = 0): Promise<number> {
  const logged = async () => (await relay.rows("relay_log")).reduce((sum, row) => sum + row.quota, 0);
  const before = await logged();
  await relay.store.run("relay.account", { entries: [{ row: logRow({ request_id, quota, ...fields }), reserved }] });
  return (await logged()) - before;
}

/** What is left, what was used, what is set aside. */
async function quotas(): Promise<[remain: number, used: number, open: number]> {
  const { remainQuota, usedQuota } = await tokens.require(1);
  const open = (await relay.rows("relay_reservation")).reduce((sum, { amount }) => sum + amount, 0);
  return [remainQuota, usedQuota, open];
}

describe("a relay token", () => {
  test("is stored with all its fields and without its key", async () => {
    const fields: RelayTokenFields = {
      userId: 7,
      status: 0,
      name: "主力令牌",
      expiresAtMs: 5000,
      isUnlimited: true,
      remainQuota: 3,
      models: ["a"],
      allowIps: ["10.0.0.0/8"],
      groups: ["vip"],
      rpm: 1,
      tpm: 2,
      maxParallel: 3,
      cacheTtlSeconds: 4,
    };
    const token = await create(fields);
    expect(token).toMatchObject({ ...fields, id: 1, usedQuota: 0, accessedMs: 0 });
    expect(await tokens.findByKey("sk-nexus-abc")).toEqual(token);
    expect(JSON.stringify(await relay.rows("relay_token"))).not.toContain("sk-nexus-abc");
  });

  test("is found by its key alone, and not after a change that has ended it", async () => {
    await create();
    expect(await tokens.findByKey("sk-nexus-abd")).toBeNull();
    expect(await tokens.findByKey("sk-nexus-abc")).toMatchObject({ status: 1 });
    expect(tokens.findByKey("sk-nexus-abc")).not.toBeInstanceOf(Promise);
    await update({ status: 0 });
    expect(await tokens.findByKey("sk-nexus-abc")).toMatchObject({ status: 0 });
    await tokens.change("relay.deleteToken", { id: 1 });
    expect(await tokens.findByKey("sk-nexus-abc")).toBeNull();
  });

  test("is kept in memory by what it weighs: many that name thousands of models do not stay all of them", async () => {
    const models = Array.from({ length: 5000 }, (_, index) => `${index}`.padEnd(256, "x"));
    const keys = Array.from({ length: 8 }, (_, index) => `sk-nexus-${index}`);
    for (const key of keys) await create({ models }, key);
    for (const key of keys) expect((await tokens.findByKey(key))?.models).toHaveLength(5000);
    const known = keys.filter((key) => !(tokens.findByKey(key) instanceof Promise));
    expect(known.length).toBeWithin(1, 4);
    expect((await tokens.findByKey(keys[0]!))?.models).toEqual(models);
  });

  test("exists once per key, and as the first one only when there is none", async () => {
    await create({}, "sk-nexus-abc", true);
    expect(await create({}, "sk-nexus-other", true)).toBeNull();
    expect(await refusalFrom(create())).toBe("token_exists");
    expect((await create({}, "sk-nexus-other")).id).toBe(2);
  });

  test("takes an id that was never used before", async () => {
    await create();
    await tokens.change("relay.deleteToken", { id: 1 });
    expect((await create()).id).toBe(2);
    expect(await refusalFrom(tokens.change("relay.deleteToken", { id: 1 }))).toBe("token_not_found");
    expect(await refusalFrom(update({}))).toBe("token_not_found");
    expect(await refusalFrom(tokens.require(1))).toBe("token_not_found");
  });

  test("notes its use at most every ten seconds, and none of a token that lets nobody in", async () => {
    await create();
    await create({ status: 0 }, "sk-disabled");
    await create({ expiresAtMs: nowMs }, "sk-expired");
    for (const key of ["sk-nexus-abc", "sk-disabled", "sk-expired"]) await tokens.findByKey(key);
    expect(tokens.takeTouched()).toEqual([{ id: 1, atMs: nowMs }]);
    nowMs += 9_999;
    await tokens.findByKey("sk-nexus-abc");
    expect(tokens.takeTouched()).toEqual([]);
    nowMs += 1;
    await tokens.findByKey("sk-nexus-abc");
    const touched = tokens.takeTouched();
    expect(touched).toEqual([{ id: 1, atMs: nowMs }]);
    await relay.store.run("relay.logBatch", { rows: JSON.stringify([]), touched });
    expect((await tokens.require(1)).accessedMs).toBe(nowMs);
    await relay.store.run("relay.logBatch", { rows: JSON.stringify([]), touched: [{ id: 1, atMs: 5 }] });
    expect((await tokens.require(1)).accessedMs).toBe(nowMs);
  });

  test("is listed in pages, by status and by user", async () => {
    await create({ userId: 1 }, "sk-one-one");
    await create({ userId: 1, status: 0 }, "sk-two-two");
    await create({ userId: 2 }, "sk-three-3");
    const all = { status: null, userId: null };
    const ids = async (filter: object, page = { limit: 10, offset: 0 }) => {
      const { tokens: found, total } = await tokens.list({ ...all, ...filter }, page);
      return [found.map(({ id }) => id), total];
    };
    expect(await ids({})).toEqual([[1, 2, 3], 3]);
    expect(await ids({}, { limit: 1, offset: 1 })).toEqual([[2], 3]);
    expect(await ids({ status: 0 })).toEqual([[2], 1]);
    expect(await ids({ userId: 1 })).toEqual([[1, 2], 2]);
  });
});

describe("quota", () => {
  test("is set aside, then settled to what was used", async () => {
    await create();
    expect(await reserve("a", 400)).toBe(true);
    expect(await quotas()).toEqual([600, 0, 400]);
    expect(await settle("a", 150)).toBe(150);
    expect(await quotas()).toEqual([850, 150, 0]);
  });

  test("is not set aside beyond what is left, whoever asks at once", async () => {
    await create({ remainQuota: 10 });
    const asked = await Promise.all(Array.from({ length: 200 }, (_, index) => reserve(`r${index}`, 1)));
    expect(asked.filter((isReserved) => isReserved)).toHaveLength(10);
    expect(await quotas()).toEqual([0, 0, 10]);
    expect(await reserve("free", 0)).toBe(true);
    expect(await reserve("more", 1)).toBe(false);
  });

  test("is charged once for a request, however often it is settled", async () => {
    await create();
    await reserve("a", 400);
    expect([await settle("a", 150), await settle("a", 150)]).toEqual([150, 0]);
    expect(await quotas()).toEqual([850, 150, 0]);
    expect(await relay.rows("relay_log")).toHaveLength(1);
  });

  test("is charged beyond what was set aside, but never below zero", async () => {
    await create({ remainQuota: 500 });
    await reserve("a", 400);
    expect(await settle("a", 450)).toBe(450);
    expect(await quotas()).toEqual([50, 450, 0]);
    await reserve("b", 20);
    expect(await settle("b", 1e9)).toBe(50);
    expect(await quotas()).toEqual([0, 500, 0]);
    const logged = (await relay.rows("relay_log")).map(({ quota }) => quota);
    expect(logged).toEqual([450, 50]);
  });

  test("comes back as a whole when a request ended without a settlement, and only once", async () => {
    await create();
    await reserve("a", 400);
    await reserve("b", 100);
    expect(await relay.store.run("relay.returnReservations", null)).toBe(2);
    expect(await quotas()).toEqual([1000, 0, 0]);
    expect(await relay.store.run("relay.returnReservations", null)).toBe(0);
  });

  test("is charged without a refund when the settlement comes after the return", async () => {
    await create();
    await reserve("a", 400);
    await relay.store.run("relay.returnReservations", null);
    expect(await settle("a", 150)).toBe(150);
    expect(await quotas()).toEqual([850, 150, 0]);
  });

  test("that was set aside survives that the token becomes unlimited, and the other way round", async () => {
    await create();
    await reserve("a", 400);
    await update({ isUnlimited: true });
    expect(await reserve("b", 1e9)).toBe(true);
    expect(await settle("a", 150)).toBe(150);
    expect(await quotas()).toEqual([1000, 150, 0]);
    expect(await settle("b", 2000)).toBe(2000);
    expect(await quotas()).toEqual([1000, 2150, 0]);
    await update({ isUnlimited: false });
    await relay.store.run("relay.logBatch", { rows: JSON.stringify([logRow({ quota: 900 }), logRow({ quota: 900 })]) });
    expect(await quotas()).toEqual([0, 3150, 0]);
  });

  test("is added and taken away by an operator without losing what goes on meanwhile", async () => {
    await create();
    await reserve("a", 400);
    expect((await update({}, 500)).remainQuota).toBe(1100);
    expect((await update({}, -5000)).remainQuota).toBe(0);
    expect((await update({ remainQuota: 450 }, 10)).remainQuota).toBe(60);
    await settle("a", 150);
    expect(await quotas()).toEqual([310, 150, 0]);
  });

  test.each([
    [0, 0, 0],
    [100, 0, 0],
    [200, 0, 50],
    [400, 0, 250],
    [500, 100, 350],
    [2000, 1600, 1850],
  ])("that is set to %d by an operator holds what was set aside before", async (set, remain, after) => {
    await create();
    await reserve("a", 400);
    expect((await update({ remainQuota: set })).remainQuota).toBe(remain);
    expect(await quotas()).toEqual([remain, 0, Math.min(set, 400)]);
    // What it used of what was set aside for it counts, whatever is left of that.
    expect(await settle("a", 150, {}, 400)).toBe(150);
    expect(await quotas()).toEqual([after, 150, 0]);
  });

  test("that is set to less than was set aside is shared by what is under way; a restart adds none", async () => {
    await create();
    for (const [id, amount] of Object.entries({ a: 300, b: 100, c: 200 })) await reserve(id, amount);
    expect((await update({ remainQuota: 60 })).remainQuota).toBe(0);
    expect((await relay.rows("relay_reservation")).map(({ amount }) => amount)).toEqual([30, 10, 20]);
    // More than its part, as far as there is anything.
    expect(await settle("a", 50, {}, 300)).toBe(50);
    expect(await quotas()).toEqual([0, 50, 30]);
    expect(await settle("b", 3, {}, 100)).toBe(3);
    expect(await quotas()).toEqual([7, 53, 20]);
    await relay.store.run("relay.returnReservations", null);
    expect(await quotas()).toEqual([27, 53, 0]);
    // It was given up: nothing of what it had set aside is left for it.
    expect(await settle("c", 90, {}, 200)).toBe(27);
    expect(await quotas()).toEqual([0, 80, 0]);
  });

  test("that an operator sets to nothing stays nothing, through settlements and a restart", async () => {
    await create();
    await reserve("a", 400);
    await reserve("b", 400);
    await update({ remainQuota: 0 });
    expect(await reserve("c", 1)).toBe(false);
    expect(await settle("a", 1e9, {}, 400)).toBe(400);
    await relay.store.run("relay.returnReservations", null);
    expect(await quotas()).toEqual([0, 400, 0]);
  });

  test("that was spent does not come back with a token put back as it was read", async () => {
    await create();
    const read = await tokens.require(1);
    const putBack = () => update({ name: "renamed", remainQuota: read.remainQuota }, 0, read.usedQuota);
    expect(await putBack()).toMatchObject({ name: "renamed", remainQuota: 1000 });
    await reserve("a", 400);
    expect((await putBack()).remainQuota).toBe(600);
    await settle("a", 150);
    expect((await putBack()).remainQuota).toBe(850);
    expect((await update({ remainQuota: 2000 }, 0, 150)).remainQuota).toBe(2000);
  });

  test("of a token that is gone is neither reserved nor missed", async () => {
    await create();
    await reserve("a", 400);
    await tokens.change("relay.deleteToken", { id: 1 });
    expect(await reserve("b", 1)).toBe(false);
    expect(await settle("a", 150)).toBe(150);
    expect(await relay.rows("relay_reservation")).toEqual([]);
    expect(await relay.rows("relay_log")).toHaveLength(1);
  });
});

describe("a batch of the log", () => {
  test("adds to its tokens and channels what its rows add up to", async () => {
    await create({ isUnlimited: true });
    await create({ isUnlimited: true }, "sk-nexus-two");
    const rows = Array.from({ length: 500 }, (_, index) => logRow({ token_id: (index % 2) + 1, quota: index }));
    await relay.store.run("relay.logBatch", { rows: JSON.stringify(rows) });
    const logged = await relay.rows("relay_log");
    expect(logged).toHaveLength(500);
    for (const id of [1, 2]) {
      const sum = logged.filter(({ token_id }) => token_id === id).reduce((total, { quota }) => total + quota, 0);
      expect((await tokens.require(id)).usedQuota).toBe(sum);
    }
  });

  test("and a settlement add to what their channel has used", async () => {
    const ring = [{ kid: "00000000", bytes: new Uint8Array(32) }];
    const channel = { fields: CHANNEL_FIELDS, key: "sk-aaaa", ring, isFirst: false };
    for (let made = 0; made < 2; made++) await relay.store.run("relay.createChannel", channel);
    await create();
    const rows = [logRow({ channel_id: 1, quota: 5 }), logRow({ channel_id: 1, quota: 6 }), logRow({ quota: 100 })];
    await relay.store.run("relay.logBatch", { rows: JSON.stringify(rows) });
    await settle("a", 30, { channel_id: 2 });
    await settle("b", 40, { channel_id: 2 });
    expect((await relay.rows("relay_channel")).map(({ used_quota }) => used_quota)).toEqual([11, 70]);
  });

  test("leaves out what was stored before, or stands in it twice", async () => {
    await create({ isUnlimited: true });
    const [first, second] = [logRow({ quota: 1 }), logRow({ quota: 10 })];
    await relay.store.run("relay.logBatch", { rows: JSON.stringify([first, first]) });
    await relay.store.run("relay.logBatch", { rows: JSON.stringify([first, second]) });
    expect(await relay.rows("relay_log")).toHaveLength(2);
    expect((await tokens.require(1)).usedQuota).toBe(11);
  });
});

describe("what has served its time", () => {
  test("goes: log rows by age, bindings by their end, a slice at a time", async () => {
    const rows = [10, 20, 30, 40].map((ts) => logRow({ ts }));
    await relay.store.run("relay.logBatch", { rows: JSON.stringify(rows) });
    const purge = () => relay.store.run("relay.purge", { logsBeforeMs: 35, limit: 2 });
    const bind = (responseId: string, expiresAtMs: number) =>
      relay.store.run("relay.bindResponse", { responseId, tokenId: 1, channelId: 1, expiresAtMs });
    await bind("old", 1);
    await bind("new", Date.now() + 60_000);
    expect(await purge()).toEqual({ logs: 2, responses: 1 });
    expect(await purge()).toEqual({ logs: 1, responses: 0 });
    expect((await relay.rows("relay_log")).map(({ ts }) => ts)).toEqual([40]);
    expect((await relay.rows("relay_response")).map(({ response_id }) => response_id)).toEqual(["new"]);
  });

  test("a response stays with whom it was bound to first, until that one lets go", async () => {
    const bind = (tokenId: number) =>
      relay.store.run("relay.bindResponse", { responseId: "resp_1", tokenId, channelId: tokenId, expiresAtMs: 1 });
    const owner = async () => (await relay.rows("relay_response")).map(({ token_id }) => token_id);
    await bind(1);
    await bind(2);
    expect(await owner()).toEqual([1]);
    await relay.store.run("relay.unbindResponse", { responseId: "resp_1", tokenId: 2 });
    expect(await owner()).toEqual([1]);
    await relay.store.run("relay.unbindResponse", { responseId: "resp_1", tokenId: 1 });
    expect(await owner()).toEqual([]);
  });
});
