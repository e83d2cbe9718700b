// Channels whose keys are refused: out of use while another is there, asked again and again until the key works.

import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { AddressRules } from "../../src/http/address-rules.ts";
import { ByteBudget } from "../../src/http/byte-budget.ts";
import { OutboundTransport } from "../../src/http/outbound-transport.ts";
import { ChannelPool } from "../../src/relay/channel-pool.ts";
import { ChannelStore } from "../../src/relay/channel-store.ts";
import { LiveChannels } from "../../src/relay/live-channels.ts";
import type { ChannelFields } from "../../src/relay/relay-tables.ts";
import { openLog } from "../../src/shared/log.ts";
import { readSettings } from "../../src/shared/settings.ts";
import { eventually } from "../support/eventually.ts";
import { FaultUpstream } from "../support/fault-upstream.ts";
import { CHANNEL_FIELDS, openRelayStore, type RelayStore, versionOf } from "../support/relay-store.ts";
import { answerJson, refuse, stayStill, wrongKey } from "../support/upstream-plans.ts";

const START_MS = 1_800_000_000_000;
const MINUTE_MS = 60_000;
const HOUR_MS = 3_600_000;
const BOUNDS = { ttftMs: 1_000, totalMs: 1_000, idleMs: 1_000, responseBytesMax: 200_000, eventBytesMax: 10_000 };
const SECRET = new TextEncoder().encode("0123456789abcdef0123456789abcdef");
const settings = readSettings({
  JWT_SECRET: "0123456789abcdef0123456789abcdef",
  RELAY_ALLOW_CIDRS: "127.0.0.0/8",
  GIN_MODE: "test",
});
const log = openLog(settings);

let nowMs = START_MS;
let relayStore: RelayStore;
let upstream: FaultUpstream;
let store: ChannelStore;
let transport: OutboundTransport;
let pool: ChannelPool;
let live: LiveChannels;
let budget: ByteBudget;
let warned: unknown[][];

/** As after a start of the server. */
async function open(): Promise<void> {
  const clock = () => nowMs;
  pool = new ChannelPool(clock, Math.random);
  budget = new ByteBudget(BOUNDS.responseBytesMax);
  live = new LiveChannels({
    store,
    pool,
    transport,
    bounds: BOUNDS,
    budget,
    clock,
    log: { ...log, warn: (message, details) => void warned.push([message, details]) },
  });
  await live.changed();
}

async function add(name: string, fields: Partial<ChannelFields> = {}): Promise<number> {
  const channel = await store.change("relay.createChannel", {
    fields: { ...CHANNEL_FIELDS, name, type: "Custom", baseUrl: `${upstream.url}/v1`, ...fields },
    key: `sk-${name}-0123456789`,
    ring: store.ring,
    isFirst: false,
  });
  await live.changed();
  return channel!.id;
}

const statusOf = (id: number) => pool.find(id)!.channel.status;
const disable = (id: number) => live.disable(pool.find(id)!, "invalid_api_key");
const probes = () => upstream.requests.length;

/** Time passes in steps in which somebody looks for what is due; resolves with the minutes at which was asked. */
async function probesWithin(minutes: number): Promise<number[]> {
  const asked: number[] = [];
  for (let minute = 1; minute <= minutes; minute++) {
    nowMs += MINUTE_MS;
    const before = probes();
    await live.probe();
    if (probes() > before) asked.push(minute);
  }
  return asked;
}

beforeEach(async () => {
  nowMs = START_MS;
  warned = [];
  relayStore = await openRelayStore();
  upstream = await FaultUpstream.start();
  const rules = new AddressRules(settings.relayAllowCidrs, false);
  transport = new OutboundTransport({ what: "upstreams", rules, connectMs: 1_000, log, env: {} });
  store = await ChannelStore.open(relayStore.store, [SECRET]);
  await open();
});

afterEach(async () => {
  await transport[Symbol.asyncDispose]();
  await upstream[Symbol.asyncDispose]();
  await relayStore[Symbol.asyncDispose]();
});

describe("a channel whose key is refused", () => {
  test("is out of use while its group has another", async () => {
    const [first, second] = [await add("first"), await add("second")];
    await disable(first);
    expect([statusOf(first), statusOf(second)]).toEqual([3, 1]);
    expect(pool.find(first)!.channel.statusReason).toBe("invalid_api_key");
    await disable(second);
    expect(statusOf(second)).toBe(1);
    expect(pool.find(second)!.channel.statusReason).toBe("invalid_api_key");
  });

  test("is told to be disabled once, however many calls find that out at the same time", async () => {
    const [first, second] = [await add("first"), await add("second")];
    await Promise.all(Array.from({ length: 20 }, () => disable(first)));
    await disable(first);
    await disable(second);
    const details = { channel: first, reason: "invalid_api_key" };
    expect(warned).toEqual([["a channel was disabled: its key is refused", details]]);
  });

  test("that stayed as the last of its group is out of use with its next refusal once another is there", async () => {
    const lone = await add("lone");
    await disable(lone);
    const version = await versionOf(relayStore);
    await disable(lone);
    expect([statusOf(lone), await versionOf(relayStore)]).toEqual([1, version]);
    const other = await add("other");
    await disable(lone);
    expect([statusOf(lone), statusOf(other)]).toEqual([3, 1]);
    nowMs += MINUTE_MS;
    await disable(other);
    expect(statusOf(other)).toBe(1);
    await live.probe();
    await disable(other);
    expect([statusOf(lone), statusOf(other)]).toEqual([1, 3]);
  });

  test("is in order again when it really works later, and is not written at for each success", async () => {
    const id = await add("lone");
    const member = () => pool.find(id)!;
    const stored = async () => (await store.require(id)).statusReason;
    const noted = () => member().channel.statusReason;
    await disable(id);
    const version = await versionOf(relayStore);
    // By turns refused and working: nobody can say that it is in order.
    for (let second = 0; second < 30; second++) {
      nowMs += 1000;
      live.noteSuccess(member());
      await disable(id);
    }
    expect([await versionOf(relayStore), await stored()]).toEqual([version, "invalid_api_key"]);
    nowMs += 10_000;
    for (let success = 0; success < 100; success++) live.noteSuccess(member());
    await eventually("the reason is forgotten", 2_000, () => noted() === null);
    expect([await versionOf(relayStore), await stored()]).toEqual([version + 1, null]);
    // Refused once more at once: noted once more, and forgotten when it has worked for a while.
    await disable(id);
    live.noteSuccess(member());
    expect(noted()).toBe("invalid_api_key");
    nowMs += 10_000;
    live.noteSuccess(member());
    await eventually("the reason is forgotten", 2_000, () => noted() === null);
    expect(await versionOf(relayStore)).toBe(version + 3);
  });

  test("of which a success is noted while it is disabled stays disabled", async () => {
    const [first, second] = [await add("first"), await add("second", { status: 0 })];
    await disable(first);
    await store.change("relay.setChannelStatus", { id: second, status: 1 });
    nowMs += 20_000;
    const banned = disable(first);
    live.noteSuccess(pool.find(first)!);
    await banned;
    await live.changed();
    expect(await store.require(first)).toMatchObject({ status: 3, statusReason: "invalid_api_key" });
  });

  test("stays when one of its groups would be left without any", async () => {
    await add("other", { groups: ["a"] });
    const both = await add("both", { groups: ["a", "b"] });
    await disable(both);
    expect(statusOf(both)).toBe(1);
  });

  test("stays when it is not to be disabled by itself", async () => {
    await add("other");
    const kept = await add("kept", { autoBan: false });
    await disable(kept);
    expect(statusOf(kept)).toBe(1);
  });

  test("is asked again after one minute, two more, four more, up to once in an hour", async () => {
    const [id] = [await add("first"), await add("second")];
    upstream.always(wrongKey);
    await disable(id);
    expect(await probesWithin(260)).toEqual([1, 3, 7, 15, 31, 63, 123, 183, 243]);
    expect(upstream.requests[0]).toMatchObject({ method: "GET", path: "/v1/models", key: "sk-first-0123456789" });
    expect(statusOf(id)).toBe(3);
  });

  test("is asked again all the same when the clock is set back by hours", async () => {
    const [id] = [await add("first"), await add("second")];
    await disable(id);
    nowMs -= 5 * HOUR_MS;
    expect(await probesWithin(2)).toEqual([1]);
    expect(statusOf(id)).toBe(1);
  });

  test("is in use again when its key works, and is not asked any more", async () => {
    const [id] = [await add("first"), await add("second")];
    upstream.next(wrongKey, refuse(500));
    await disable(id);
    expect(await probesWithin(20)).toEqual([1, 3, 7]);
    expect(statusOf(id)).toBe(1);
    expect(pool.find(id)!.channel.statusReason).toBeNull();
  });

  test("is in use again as well when its upstream lists its models in a bare array", async () => {
    const [id] = [await add("first"), await add("second")];
    upstream.always(answerJson([{ id: "one" }]));
    await disable(id);
    expect(await probesWithin(1)).toEqual([1]);
    expect(statusOf(id)).toBe(1);
  });

  test("that is refused again after its probe is asked later than the first time", async () => {
    const [id] = [await add("first"), await add("second")];
    await disable(id);
    expect(await probesWithin(1)).toEqual([1]);
    await disable(id);
    expect(await probesWithin(10)).toEqual([2]);
  });

  test("that is refused again after it has really worked is asked as the first time", async () => {
    const [id] = [await add("first"), await add("second")];
    await disable(id);
    expect(await probesWithin(1)).toEqual([1]);
    live.noteSuccess(pool.find(id)!);
    await disable(id);
    expect(await probesWithin(10)).toEqual([1]);
  });

  test("is still asked when a request that was under way succeeds", async () => {
    const [id] = [await add("first"), await add("second")];
    await disable(id);
    live.noteSuccess(pool.find(id)!);
    expect(await probesWithin(1)).toEqual([1]);
  });

  test("is asked after a new start of the server too", async () => {
    const [id] = [await add("first"), await add("second")];
    await disable(id);
    nowMs += HOUR_MS;
    await open();
    expect(statusOf(id)).toBe(3);
    expect(await probesWithin(1)).toEqual([1]);
    expect(statusOf(id)).toBe(1);
  });

  test("does not wait for another one whose upstream is silent", async () => {
    const [first, second] = [await add("first"), await add("second")];
    await add("third");
    upstream.forKey("sk-first-0123456789", stayStill);
    await disable(first);
    await disable(second);
    nowMs += MINUTE_MS;
    const done = live.probe();
    while (statusOf(second) !== 1) await Bun.sleep(5);
    expect(statusOf(first)).toBe(3);
    await done;
    expect(statusOf(first)).toBe(3);
  });

  test("is not asked when an operator has taken it out of use", async () => {
    const [id] = [await add("first"), await add("second")];
    await disable(id);
    await store.change("relay.setChannelStatus", { id, status: 0 });
    await live.changed();
    expect(await probesWithin(5)).toEqual([]);
    expect(statusOf(id)).toBe(0);
  });
});

test("a channel whose address is not allowed any more says so to its operator", async () => {
  const places = [
    ["https://10.0.0.1/v1", "base_url leads to an address that is not allowed; RELAY_ALLOW_CIDRS can allow it."],
    [
      "http://1.1.1.1/v1",
      "base_url must use https: plain http needs RELAY_ALLOW_HTTP=1 or an address in RELAY_ALLOW_CIDRS.",
    ],
  ] as const;
  for (const [baseUrl, advice] of places) {
    const { channel } = pool.find(await add("moved", { baseUrl }))!;
    const report = await live.test(channel, { model: "any", isStream: false });
    expect(report).toMatchObject({ isSuccess: false, status: null, error: advice });
    const refused = await live.readModels(channel).catch(({ code, message }) => [code, message]);
    expect(refused).toEqual(["upstream_failed", advice]);
  }
});

test("an address that is refused says what would allow it", async () => {
  const refusal = (url: string) => live.check(url).catch(({ code, message, details }) => [code, message, details]);
  const named = { field: "base_url" };
  expect(await refusal("https://10.0.0.1/v1")).toEqual([
    "base_url_refused",
    "base_url leads to an address that is not allowed; RELAY_ALLOW_CIDRS can allow it.",
    named,
  ]);
  expect(await refusal("http://1.1.1.1/v1")).toEqual([
    "base_url_refused",
    "base_url must use https: plain http needs RELAY_ALLOW_HTTP=1 or an address in RELAY_ALLOW_CIDRS.",
    named,
  ]);
  expect(await refusal(upstream.url)).toBeUndefined();
});

test("an answer that there is no room for is told as such to whoever asked, and breaks nothing", async () => {
  const [id] = [await add("first"), await add("second")];
  const { channel } = pool.find(id)!;
  budget.tryReserve(BOUNDS.responseBytesMax);
  const refused = { name: "AppError", code: "overloaded", status: 503 };
  expect(await live.readModels(channel).catch((error) => error)).toMatchObject(refused);
  expect(await live.test(channel, { model: "any", isStream: false }).catch((error) => error)).toMatchObject(refused);
  await disable(id);
  nowMs += MINUTE_MS;
  expect(await live.probe().catch((error) => error)).toMatchObject(refused);
  budget.release(BOUNDS.responseBytesMax);
  expect(await probesWithin(2)).toEqual([2]);
  expect(statusOf(id)).toBe(1);
});

describe("the test of a channel", () => {
  test("sends the name that the upstream knows, also one that every object has", async () => {
    const id = await add("first", { modelMapping: { mine: "theirs" } });
    const channel = pool.find(id)!.channel;
    for (const model of ["mine", "constructor"]) {
      expect(await live.test(channel, { model, isStream: false })).toMatchObject({
        isSuccess: true,
        status: 200,
        model,
      });
    }
    expect(upstream.requests.map(({ json }) => json.model)).toEqual(["theirs", "constructor"]);
  });

  test("tells a refusal without the key", async () => {
    const id = await add("first");
    upstream.always(wrongKey);
    const report = await live.test(pool.find(id)!.channel, { model: "any", isStream: false });
    expect(report).toMatchObject({ isSuccess: false, status: 401, ttftMs: null });
    expect(report.error).toContain("Incorrect API key provided: ***");
  });
});

test("of the models that an upstream lists no more than ten thousand are told", async () => {
  const id = await add("first");
  upstream.always(answerJson({ data: Array.from({ length: 10_001 }, (_, index) => ({ id: `${index}` })) }));
  const models = await live.readModels(pool.find(id)!.channel);
  expect([models.length, models.at(-1)]).toEqual([10_000, "9999"]);
});
