// Which channel is asked: groups, models, priorities, weights, and who has to wait.

import { describe, expect, test } from "bun:test";
import { ChannelPool, type EndpointName } from "../../src/relay/channel-pool.ts";
import type { Channel } from "../../src/relay/relay-tables.ts";
import { randomFrom } from "../support/seeded-random.ts";

const GROUPS = ["default"];
const NOBODY: ReadonlySet<number> = new Set();

function channel(id: number, changes: Partial<Channel> = {}): Channel {
  return {
    id,
    type: "Custom",
    name: `channel ${id}`,
    sealedKey: "",
    keyMask: "sk-...",
    baseUrl: "http://127.0.0.1/v1",
    models: [],
    discoveredModels: [],
    modelMapping: {},
    groups: GROUPS,
    weight: 1,
    priority: 0,
    status: 1,
    statusReason: null,
    autoBan: true,
    noStreamOptions: false,
    ttftMs: null,
    totalMs: null,
    createdMs: 0,
    updatedMs: 0,
    testedMs: null,
    responseMs: null,
    usedQuota: 0,
    ...changes,
  };
}

function poolOf(channels: readonly Channel[], random: () => number = () => 0) {
  let nowMs = 1_000_000;
  const pool = new ChannelPool(() => nowMs, random);
  const replace = (next: readonly Channel[], key: string | null = "sk-key") =>
    pool.replaceAll(next.map((one) => ({ channel: one, key })));
  replace(channels);
  return {
    pool,
    replace,
    pass: (ms: number) => {
      nowMs += ms;
    },
    picked: (model = "m", tried = NOBODY, endpoint: EndpointName = "chat") =>
      pool.pick(model, endpoint, GROUPS, tried)?.channel.id ?? null,
  };
}

/** Upper tail of chi-square with two degrees of freedom: exp(-x/2). */
const CHI_SQUARE_P = 0.001;

describe("the choice of a channel", () => {
  test("follows the weights", () => {
    const picks = 10_000;
    const weights = [1, 3, 6];
    const pool = poolOf(
      weights.map((weight, index) => channel(index + 1, { weight })),
      randomFrom(20_261_120).next,
    ).pool;
    const counts = new Map<number, number>();
    for (let pick = 0; pick < picks; pick++) {
      const { id } = pool.pick("m", "chat", GROUPS, NOBODY)!.channel;
      counts.set(id, (counts.get(id) ?? 0) + 1);
    }
    const chiSquare = weights.reduce((sum, weight, index) => {
      const expected = (picks * weight) / 10;
      return sum + ((counts.get(index + 1) ?? 0) - expected) ** 2 / expected;
    }, 0);
    expect(Math.exp(-chiSquare / 2)).toBeGreaterThan(CHI_SQUARE_P);
  });

  test("never falls on weight 0 beside others, whatever the random number", () => {
    for (const number of [0, 0.2, 0.5, 0.999_999_999_999]) {
      const { picked } = poolOf([channel(1, { weight: 0 }), channel(2), channel(3, { weight: 0 })], () => number);
      expect(picked()).toBe(2);
    }
  });

  test("among weights of 0 is even", () => {
    const zero = [channel(1, { weight: 0 }), channel(2, { weight: 0 })];
    expect([0, 0.49, 0.5, 0.99].map((number) => poolOf(zero, () => number).picked())).toEqual([1, 1, 2, 2]);
  });

  test("falls on a lower priority only when no higher one can be asked", () => {
    const { pool, picked } = poolOf([channel(1, { priority: -1 }), channel(2, { priority: 5 }), channel(3)]);
    expect([
      picked(),
      picked("m", new Set([2])),
      picked("m", new Set([2, 3])),
      picked("m", new Set([1, 2, 3])),
    ]).toEqual([2, 3, 1, null]);
    pool.find(2)!.cool("m", null);
    expect(picked()).toBe(3);
    expect(picked("another")).toBe(2);
  });

  test("leaves out what is disabled, locked, of another group, or does not serve the model", () => {
    const { pool, picked, replace } = poolOf([
      channel(1, { status: 0 }),
      channel(2, { status: 3 }),
      channel(3, { groups: ["vip"] }),
      channel(4, { models: ["other"] }),
      channel(5, { models: ["other"], modelMapping: { m: "other" } }),
    ]);
    expect(picked()).toBe(5);
    expect(picked("other")).toBe(4);
    expect(pool.pick("m", "chat", ["vip"], NOBODY)?.channel.id).toBe(3);
    replace([channel(6)], null);
    expect(picked()).toBe(null);
    expect(pool.shortageOf(["m"], "chat", GROUPS)).toBe("none_enabled");
  });

  test("knows why there is none: nobody enabled, nobody serves it, or all wait and until when", () => {
    const { pool, pass } = poolOf([channel(1, { models: ["a"] }), channel(2, { models: ["a", "b"] })]);
    expect(pool.shortageOf(["a"], "chat", GROUPS)).toBe(null);
    expect(pool.shortageOf(["a"], "chat", ["vip"])).toBe("none_enabled");
    expect(pool.shortageOf(["c"], "chat", GROUPS)).toBe("none_serves");
    pool.find(1)!.cool("a", 7_000);
    pool.find(2)!.cool("a", 3_000);
    expect(pool.shortageOf(["a"], "chat", GROUPS)).toEqual({ waitUntilMs: 1_003_000 });
    expect(pool.shortageOf(["a", "b"], "chat", GROUPS)).toBe(null);
    pass(3_000);
    expect(pool.shortageOf(["a"], "chat", GROUPS)).toBe(null);
  });
});

describe("a model that cools down", () => {
  test("waits 5 s without a Retry-After, doubled with each further refusal up to a minute; a success ends that", () => {
    const { pool, pass } = poolOf([channel(1)]);
    const member = pool.find(1)!;
    const waits: number[] = [];
    for (let refusal = 0; refusal < 6; refusal++) {
      const [before] = member.cooling();
      expect(before).toBeUndefined();
      member.cool("m", null);
      const waitMs = member.cooling()[0]!.untilMs - 1_000_000 - waits.reduce((sum, ms) => sum + ms, 0);
      waits.push(waitMs);
      pass(waitMs);
    }
    expect(waits).toEqual([5_000, 10_000, 20_000, 40_000, 60_000, 60_000]);
    member.succeeded("m");
    member.cool("m", null);
    expect(member.cooling()[0]!.untilMs - 1_000_000 - 195_000).toBe(5_000);
  });

  test("waits no longer for refusals of what was under way when the first one came", () => {
    const { pool, pass } = poolOf([channel(1)]);
    const member = pool.find(1)!;
    expect(Array.from({ length: 6 }, () => member.cool("m", null))).toEqual(new Array(6).fill(5_000));
    pass(5_000);
    expect(member.cool("m", null)).toBe(10_000);
  });

  test("does so under all its names", () => {
    const { pool } = poolOf([channel(1, { modelMapping: { a: "real", b: "real" } })]);
    const member = pool.find(1)!;
    member.cool("a", 30_000);
    expect(["a", "b", "real", "other"].map((name) => member.waitUntilMs(name, "chat"))).toEqual([
      1_030_000, 1_030_000, 1_030_000, 0,
    ]);
  });

  test("is not woken earlier by a shorter Retry-After", () => {
    const { pool } = poolOf([channel(1)]);
    const member = pool.find(1)!;
    member.cool("m", 60_000);
    member.cool("m", 1_000);
    expect(member.cooling()).toEqual([{ model: "m", untilMs: 1_060_000 }]);
  });

  test("that its channel does not know is left alone for ten minutes", () => {
    const { pool, pass, picked } = poolOf([channel(1)]);
    pool.find(1)!.switchOff("m", "chat");
    expect([picked(), picked("n"), pool.find(1)!.modelsOff()]).toEqual([null, 1, ["m"]]);
    pass(600_000);
    expect([picked(), pool.find(1)!.modelsOff()]).toEqual([1, []]);
  });

  test("that its channel does not know at one endpoint is asked for at the others", () => {
    const { pool, pass, picked } = poolOf([channel(1)]);
    const member = pool.find(1)!;
    member.switchOff("m", "embeddings");
    expect([picked("m", NOBODY, "embeddings"), picked("m", NOBODY, "chat"), member.modelsOff()]).toEqual([
      null,
      1,
      ["m"],
    ]);
    expect(pool.shortageOf(["m"], "embeddings", GROUPS)).toBe("none_serves");
    expect(pool.shortageOf(["m"], "chat", GROUPS)).toBe(null);
    pass(300_000);
    member.switchOff("m", "chat");
    pass(300_000);
    expect([picked("m", NOBODY, "embeddings"), picked(), member.modelsOff()]).toEqual([1, null, ["m"]]);
  });
});

describe("models of which no channel can be asked", () => {
  test("are not served, when all that would serve them have said that they do not know them", () => {
    const { pool, pass } = poolOf([channel(1), channel(2), channel(3, { models: ["other"] })]);
    const shortage = (models = ["m", "n"]) => pool.shortageOf(models, "chat", GROUPS);
    for (const id of [1, 2]) for (const model of ["m", "n"]) pool.find(id)!.switchOff(model, "chat");
    expect([shortage(), shortage(["m", "other"])]).toEqual(["none_serves", null]);
    for (let failures = 0; failures < 5; failures++) pool.find(1)!.breaker.enter()("failure");
    expect(shortage()).toBe("none_serves");
    pass(600_000);
    expect(shortage()).toBe(null);
  });

  test("are waited for, when one that would serve them is left alone for another reason", () => {
    const { pool } = poolOf([channel(1), channel(2)]);
    pool.find(1)!.switchOff("m", "chat");
    pool.find(2)!.cool("m", 60_000);
    expect(pool.shortageOf(["m"], "chat", GROUPS)).toEqual({ waitUntilMs: 1_060_000 });
  });
});

test("a clock that is set back lets no model wait for longer than was meant", () => {
  const { pool, pass, picked } = poolOf([channel(1)]);
  const member = pool.find(1)!;
  member.cool("a", 60_000);
  member.switchOff("b", "chat");
  pass(-900_000);
  expect(member.cooling()).toEqual([{ model: "a", untilMs: 160_000 }]);
  expect(member.waitUntilMs("b", "chat")).toBe(700_000);
  pass(60_000);
  expect([picked("a"), picked("b")]).toEqual([1, null]);
  pass(540_000);
  expect([picked("b"), member.cooling(), member.modelsOff()]).toEqual([1, [], []]);
});

describe("a change of the channels", () => {
  test("keeps what is known of those that stay, and forgets it when the address or the key changes", () => {
    const { pool, replace, picked } = poolOf([channel(1)]);
    pool.find(1)!.cool("m", 60_000);
    replace([channel(1, { name: "renamed" })]);
    expect([picked(), pool.find(1)!.channel.name]).toEqual([null, "renamed"]);
    replace([channel(1, { baseUrl: "http://127.0.0.2/v1" })]);
    expect(picked()).toBe(1);
    pool.find(1)!.cool("m", 60_000);
    replace([channel(1, { baseUrl: "http://127.0.0.2/v1" })], "sk-other");
    expect(picked()).toBe(1);
    replace([]);
    expect([picked(), pool.find(1)]).toEqual([null, null]);
  });

  test("holds for requests that name many models: the state of a thousand is kept, not more", () => {
    const { pool } = poolOf([channel(1)]);
    const member = pool.find(1)!;
    for (let model = 0; model < 5_000; model++) member.cool(`model ${model}`, 60_000);
    expect(member.cooling()).toHaveLength(1000);
  });
});
