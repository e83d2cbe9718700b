// Channels as they are kept: fields, seals, bans, the move to another secret, each against a real store.

import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { rekeyStore } from "../../src/app/rekey-units.ts";
import { ChannelStore } from "../../src/relay/channel-store.ts";
import { CHANNELS_MAX } from "../../src/relay/channel-units.ts";
import type { Channel, ChannelFields } from "../../src/relay/relay-tables.ts";
import { refusalFrom } from "../support/refusal-of.ts";
import { CHANNEL_FIELDS, openRelayStore, type RelayStore, versionOf } from "../support/relay-store.ts";

const SECRET = new TextEncoder().encode("0123456789abcdef0123456789abcdef");
const OTHER_SECRET = new TextEncoder().encode("fedcba9876543210fedcba9876543210");
const KEY = "sk-aaaaaaaaaaaaaaaaaaaaaaaa";
const ELSEWHERE = "https://elsewhere.example/v1";

let relay: RelayStore;
let channels: ChannelStore;
beforeEach(async () => {
  relay = await openRelayStore();
  channels = await ChannelStore.open(relay.store, [SECRET]);
});
afterEach(() => relay[Symbol.asyncDispose]());

async function create(fields: Partial<ChannelFields> = {}, key = KEY, isFirst = false): Promise<Channel> {
  const all = { ...CHANNEL_FIELDS, ...fields };
  return (await channels.change("relay.createChannel", { fields: all, key, ring: channels.ring, isFirst }))!;
}

const update = (id: number, changes: Partial<ChannelFields>, key: string | null = null) =>
  channels.change("relay.updateChannel", { id, changes, key, ring: channels.ring });

const ban = (channel: Channel, reason = "invalid_api_key", unusable: number[] = []) =>
  channels.change("relay.banChannel", { id: channel.id, sealedKey: channel.sealedKey, reason, unusable });

describe("a channel", () => {
  test("is stored with all its fields and its key sealed", async () => {
    const fields: ChannelFields = {
      type: "Custom",
      name: "渠道A",
      baseUrl: ELSEWHERE,
      models: ["a", "b/c"],
      modelMapping: { a: "x" },
      groups: ["default", "vip"],
      weight: 3,
      priority: -2,
      status: 0,
      autoBan: false,
      noStreamOptions: true,
      ttftMs: 5,
      totalMs: 6,
    };
    const channel = await create(fields);
    expect(channel).toMatchObject({ ...fields, id: 1, keyMask: "sk-aaaa...aaaa", usedQuota: 0, testedMs: null });
    expect(await channels.require(1)).toEqual(channel);
    expect(channels.keyOf(channel)).toBe(KEY);
    expect(JSON.stringify(await relay.rows("relay_channel"))).not.toContain(KEY);
  });

  test("takes an id that was never used before", async () => {
    await create();
    const second = await create();
    await channels.change("relay.deleteChannel", { id: second.id });
    expect((await create()).id).toBe(second.id + 1);
  });

  test("keeps what a change does not name", async () => {
    const channel = await create({ models: ["a"], priority: 5 });
    const changed = await update(channel.id, { name: "我的主力Key" });
    expect(changed).toEqual({ ...channel, name: "我的主力Key", updatedMs: changed.updatedMs });
    expect(channels.keyOf(changed)).toBe(KEY);
  });

  test("was updated when an operator enables or disables it", async () => {
    const channel = await create();
    for (const status of [0, 1] as const) {
      const before = (await channels.require(channel.id)).updatedMs;
      await Bun.sleep(2);
      const changed = await channels.change("relay.setChannelStatus", { id: channel.id, status });
      expect([changed.status, changed.updatedMs > before]).toEqual([status, true]);
    }
  });

  test("keeps its key when its own mask is given as the key", async () => {
    const channel = await create();
    expect(channels.keyOf(await update(channel.id, {}, channel.keyMask))).toBe(KEY);
    expect(channels.keyOf(await update(channel.id, {}, "sk-bbbb"))).toBe("sk-bbbb");
  });

  test("moves to another host with its key only, within one host without", async () => {
    const channel = await create({ baseUrl: "https://one.example/v1" });
    expect(await refusalFrom(update(channel.id, { baseUrl: ELSEWHERE }))).toBe("key_required");
    expect(await refusalFrom(update(channel.id, { baseUrl: "http://one.example/v1" }))).toBe("key_required");
    expect(await refusalFrom(update(channel.id, { baseUrl: "https://one.example:444/v1" }))).toBe("key_required");
    expect(await refusalFrom(update(channel.id, { baseUrl: ELSEWHERE }, channel.keyMask))).toBe("key_required");
    expect((await channels.require(channel.id)).baseUrl).toBe("https://one.example/v1");
    const moved = await update(channel.id, { baseUrl: "https://one.example/v2" });
    expect([moved.baseUrl, channels.keyOf(moved)]).toEqual(["https://one.example/v2", KEY]);
    const away = await update(channel.id, { baseUrl: ELSEWHERE }, "sk-new");
    expect([away.baseUrl, channels.keyOf(away)]).toEqual([ELSEWHERE, "sk-new"]);
  });

  test("follows the usual address of its type, but not from an address of its own", async () => {
    const usual = await create();
    expect(await refusalFrom(update(usual.id, { type: "DeepSeek" }))).toBe("key_required");
    expect((await update(usual.id, { type: "DeepSeek" }, "sk-deep")).baseUrl).toBe("https://api.deepseek.com/v1");
    const own = await create({ type: "Custom", baseUrl: ELSEWHERE });
    expect((await update(own.id, { type: "DeepSeek" })).baseUrl).toBe(ELSEWHERE);
  });

  test("that does not exist can be neither changed nor deleted", async () => {
    expect(await refusalFrom(update(9, {}))).toBe("channel_not_found");
    expect(await refusalFrom(channels.change("relay.deleteChannel", { id: 9 }))).toBe("channel_not_found");
    expect(await refusalFrom(channels.change("relay.setChannelStatus", { id: 9, status: 0 }))).toBe(
      "channel_not_found",
    );
    expect(await refusalFrom(channels.require(9))).toBe("channel_not_found");
  });

  test("is made as the first one only when there is none", async () => {
    expect((await create({ name: "bootstrap" }, KEY, true)).id).toBe(1);
    expect(await create({ name: "bootstrap" }, KEY, true)).toBeNull();
  });

  test("finds no place beside a thousand others", async () => {
    for (let made = 0; made < CHANNELS_MAX; made += 100) {
      await Promise.all(Array.from({ length: 100 }, () => create()));
    }
    expect(await refusalFrom(create())).toBe("too_many");
    expect(await channels.list()).toHaveLength(CHANNELS_MAX);
  }, 120_000);

  test("is found by status, type, group and model", async () => {
    await create({ name: "all", groups: ["default", "vip"] });
    await create({ name: "some", models: ["a"], modelMapping: { b: "a" }, status: 0 });
    await create({ name: "own", type: "Custom", baseUrl: ELSEWHERE, models: ["c"] });
    const none = { status: null, type: null, group: null, model: null };
    const named = async (filter: object) => (await channels.find({ ...none, ...filter })).map(({ name }) => name);
    expect(await named({})).toEqual(["all", "some", "own"]);
    expect(await named({ status: 1 })).toEqual(["all", "own"]);
    expect(await named({ type: "Custom" })).toEqual(["own"]);
    expect(await named({ group: "vip" })).toEqual(["all"]);
    expect(await named({ model: "a" })).toEqual(["all", "some"]);
    expect(await named({ model: "b" })).toEqual(["all", "some"]);
    expect(await named({ model: "toString" })).toEqual(["all"]);
  });
});

describe("a ban", () => {
  test("disables a channel beside another one, and says why", async () => {
    const [first] = [await create(), await create()];
    expect(await ban(first)).toBe(true);
    expect(await channels.require(first.id)).toMatchObject({ status: 3, statusReason: "invalid_api_key" });
  });

  test("leaves the last enabled channel of any of its groups, and says why", async () => {
    const first = await create({ groups: ["default", "vip"] });
    await create();
    await create({ groups: ["vip"], status: 0 });
    expect(await ban(first)).toBe(false);
    expect(await channels.require(first.id)).toMatchObject({ status: 1, statusReason: "invalid_api_key" });
  });

  test("does not count a locked channel as another one", async () => {
    const first = await create();
    const locked = await create();
    expect(await ban(first, "invalid_api_key", [locked.id])).toBe(false);
  });

  test("hits only the key that failed, and only where it may", async () => {
    await create();
    const channel = await create();
    const changed = await update(channel.id, {}, "sk-new");
    expect(await ban(channel)).toBe(false);
    expect(await ban(await update(changed.id, { autoBan: false }))).toBe(false);
    expect(await ban(await update(changed.id, { autoBan: true, status: 0 }))).toBe(false);
    expect((await channels.require(channel.id)).statusReason).toBeNull();
    await channels.change("relay.deleteChannel", { id: channel.id });
    expect(await ban(changed)).toBe(false);
  });

  test("ends with a passed test, a probe, an operator's word or a new key, not with a failed test", async () => {
    await create();
    const channel = await create();
    const noteTest = (isSuccess: boolean) =>
      channels.change("relay.noteTest", { id: channel.id, responseMs: 12.6, isSuccess });
    await ban(channel);
    expect(await noteTest(false)).toMatchObject({ status: 3, responseMs: 13 });
    expect(await noteTest(true)).toMatchObject({ status: 1, statusReason: null });
    await ban(channel);
    expect(await channels.change("relay.liftBan", { id: channel.id })).toBe(1);
    await ban(channel);
    expect((await channels.change("relay.setChannelStatus", { id: channel.id, status: 1 })).statusReason).toBeNull();
    await ban(channel);
    expect(await update(channel.id, {}, "sk-new")).toMatchObject({ status: 1, statusReason: null });
  });

  test("that came to nothing is forgotten when the key works, unless something else is noted by now", async () => {
    const channel = await create();
    await ban(channel);
    const { sealedKey } = channel;
    const forget = async (args: { sealedKey?: string; reason?: string } = {}) => {
      const key = { id: channel.id, sealedKey, reason: "invalid_api_key", ...args };
      await channels.change("relay.forgetReason", key);
      const { status, statusReason } = await channels.require(channel.id);
      return [status, statusReason];
    };
    expect(await forget({ reason: "401" })).toEqual([1, "invalid_api_key"]);
    expect(await forget({ sealedKey: "another" })).toEqual([1, "invalid_api_key"]);
    const other = await create();
    await ban(channel, "insufficient_quota");
    expect(await forget({ reason: "insufficient_quota" })).toEqual([3, "insufficient_quota"]);
    await channels.change("relay.deleteChannel", { id: other.id });
    await channels.change("relay.setChannelStatus", { id: channel.id, status: 1 });
    await ban(channel);
    expect(await forget()).toEqual([1, null]);
    await channels.change("relay.deleteChannel", { id: channel.id });
    await channels.change("relay.forgetReason", { id: channel.id, sealedKey, reason: "401" });
  });

  test("is not what keeps a disabled channel: neither a test nor a probe enables it", async () => {
    const channel = await create({ status: 0 });
    await channels.change("relay.noteTest", { id: channel.id, responseMs: 1, isSuccess: true });
    expect(await channels.change("relay.liftBan", { id: channel.id })).toBe(0);
    expect((await channels.require(channel.id)).status).toBe(0);
  });
});

describe("the seal of a channel's key", () => {
  test("opens after the store was opened again, with the salt it has", async () => {
    const channel = await create();
    expect((await ChannelStore.open(relay.store, [SECRET])).keyOf(channel)).toBe(KEY);
  });

  test("does not open in another row, or for another host", async () => {
    const channel = await create();
    expect(channels.keyOf({ ...channel, id: 2 })).toBeNull();
    expect(channels.keyOf({ ...channel, baseUrl: ELSEWHERE })).toBeNull();
    expect(channels.keyOf({ ...channel, baseUrl: "https://api.openai.com/v2" })).toBe(KEY);
  });

  test("moves to a new secret while the old one is known, and needs it no more", async () => {
    const channel = await create();
    const both = await ChannelStore.open(relay.store, [OTHER_SECRET, SECRET]);
    expect(both.keyOf(channel)).toBe(KEY);
    const secrets = [OTHER_SECRET, SECRET];
    expect(await rekeyStore(relay.store as never, secrets)).toMatchObject({ resealed: 1, kid: both.ring[0]!.kid });
    expect(await rekeyStore(relay.store as never, secrets)).toMatchObject({ resealed: 0, kid: both.ring[0]!.kid });
    const onlyNew = await ChannelStore.open(relay.store, [OTHER_SECRET]);
    expect(onlyNew.keyOf(await onlyNew.require(channel.id))).toBe(KEY);
    expect(channels.keyOf(await channels.require(channel.id))).toBeNull();
  });

  test("is changed for all channels or for none, and a new key heals what does not open", async () => {
    const other = await ChannelStore.open(relay.store, [OTHER_SECRET]);
    const [good, lost] = [await create(), await create()];
    await other.change("relay.updateChannel", { id: lost.id, changes: {}, key: "sk-lost", ring: other.ring });
    const before = await relay.rows("relay_channel");
    const failed = rekeyStore(relay.store as never, [new Uint8Array(32), SECRET]);
    expect(await failed.catch((error) => [error.code, error.details])).toEqual(["key_unreadable", { ids: "2" }]);
    expect(await relay.rows("relay_channel")).toEqual(before);
    expect(channels.keyOf(await channels.require(good.id))).toBe(KEY);
    expect(channels.keyOf(await channels.require(lost.id))).toBeNull();
    expect(channels.keyOf(await update(lost.id, {}, "sk-again"))).toBe("sk-again");
  });
});

test("the version goes up with every change of a channel", async () => {
  const seen = [await versionOf(relay)];
  const channel = await create();
  seen.push(await versionOf(relay));
  await update(channel.id, { name: "x" });
  seen.push(await versionOf(relay));
  await channels.change("relay.noteDiscovered", { id: channel.id, models: ["a"] });
  seen.push(await versionOf(relay));
  await channels.change("relay.deleteChannel", { id: channel.id });
  seen.push(await versionOf(relay));
  expect(seen).toEqual([0, 1, 2, 3, 4]);
});
