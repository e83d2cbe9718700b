// The byte budget: never more than its limit, in order, and nothing is lost of it.

import { describe, expect, test } from "bun:test";
import { BudgetShare, ByteBudget } from "../../src/http/byte-budget.ts";
import { randomFrom } from "../support/seeded-random.ts";

const LONG_MS = 10_000;

describe("who yields", () => {
  let nowMs = 0;
  const hold = (budget: ByteBudget, bytes: number) => {
    expect(budget.tryReserve(bytes)).toBe(true);
    const state = { bytes, hasGivenWay: false };
    const end = budget.yieldWhenOld({
      heldBytes: () => state.bytes,
      giveWay() {
        budget.release(state.bytes);
        state.bytes = 0;
        state.hasGivenWay = true;
      },
    });
    return { state, end };
  };

  test("gives way after ten seconds when somebody needs the room, the oldest first and no more than it takes", () => {
    const budget = new ByteBudget(100, () => nowMs);
    const held = [40, 40, 20].map((bytes) => hold(budget, bytes));
    nowMs += 9_999;
    expect(budget.tryReserve(1)).toBe(false);
    nowMs += 1;
    expect(budget.tryReserve(50)).toBe(true);
    expect(held.map(({ state }) => state.hasGivenWay)).toEqual([true, true, false]);
    expect(budget.usedBytes).toBe(70);
  });

  test("keeps what it has when all of them together were not enough, and once it has ended", () => {
    const budget = new ByteBudget(100, () => nowMs);
    expect(budget.tryReserve(30)).toBe(true);
    const [first, second] = [hold(budget, 40), hold(budget, 30)];
    nowMs += LONG_MS;
    expect(budget.tryReserve(71)).toBe(false);
    expect([first.state.hasGivenWay, second.state.hasGivenWay]).toEqual([false, false]);
    first.end();
    expect(budget.tryReserve(31)).toBe(false);
    expect(budget.tryReserve(30)).toBe(true);
    expect([first.state.hasGivenWay, second.state.hasGivenWay]).toEqual([false, true]);
  });

  test("makes room for those who wait first", async () => {
    const budget = new ByteBudget(100, () => nowMs);
    hold(budget, 100);
    const waiting = budget.reserve(80, LONG_MS);
    nowMs += LONG_MS;
    expect(budget.tryReserve(30)).toBe(false);
    expect(await waiting).toBe(true);
    expect(budget.usedBytes).toBe(80);
  });

  test("makes room once for whoever waited until then", async () => {
    const budget = new ByteBudget(100, () => nowMs);
    hold(budget, 90);
    expect(budget.tryReserve(10)).toBe(true);
    const waiting = [budget.reserve(40, LONG_MS), budget.reserve(60, LONG_MS)];
    nowMs += LONG_MS;
    budget.release(1);
    expect(await waiting[0]).toBe(true);
    expect(budget.usedBytes).toBe(49);
    budget.release(9);
    expect(await waiting[1]).toBe(true);
    expect(budget.usedBytes).toBe(100);
  });
});

describe("a byte budget", () => {
  test("gives out at once what fits, and nothing of what does not", () => {
    const budget = new ByteBudget(100);
    expect([budget.tryReserve(60), budget.tryReserve(41), budget.tryReserve(40), budget.tryReserve(1)]).toEqual([
      true,
      false,
      true,
      false,
    ]);
    expect(budget.tryReserve(0)).toBe(true);
    expect(budget.usedBytes).toBe(100);
    budget.release(60);
    expect(budget.usedBytes).toBe(40);
    expect(budget.tryReserve(60)).toBe(true);
  });

  test("lets those wait in order who do not fit yet", async () => {
    const budget = new ByteBudget(100);
    budget.tryReserve(100);
    const order: string[] = [];
    const wait = async (name: string, bytes: number) => {
      expect(await budget.reserve(bytes, LONG_MS)).toBe(true);
      order.push(name);
    };
    const all = [wait("large", 90), wait("small", 5), wait("last", 50)];
    budget.release(80);
    await Promise.resolve();
    // The small one would fit, but the large one was first.
    expect(order).toEqual([]);
    budget.release(20);
    await Promise.all(all.slice(0, 2));
    expect([order, budget.usedBytes]).toEqual([["large", "small"], 95]);
    budget.release(90);
    await all[2];
    expect([order, budget.usedBytes]).toEqual([["large", "small", "last"], 55]);
  });

  test("does not let a later one pass those who wait", async () => {
    const budget = new ByteBudget(100);
    budget.tryReserve(50);
    const first = budget.reserve(60, LONG_MS);
    const second = budget.reserve(10, LONG_MS);
    let isGranted = false;
    second.then(() => {
      isGranted = true;
    });
    await Promise.resolve();
    expect(isGranted).toBe(false);
    budget.release(50);
    expect(await Promise.all([first, second])).toEqual([true, true]);
  });

  test("forgets who has left while waiting, and lets the next one go on", async () => {
    const budget = new ByteBudget(100);
    budget.tryReserve(50);
    const client = new AbortController();
    const [left, patient] = [budget.reserve(60, LONG_MS, client.signal), budget.reserve(50, LONG_MS)];
    client.abort();
    expect(await left).toBe(false);
    expect(await patient).toBe(true);
    expect(await budget.reserve(0, LONG_MS, client.signal)).toBe(false);
    expect([budget.usedBytes, budget.waitingBytes]).toEqual([100, 0]);
  });

  test("gives up after the wait, takes nothing, and lets the next one go on", async () => {
    const budget = new ByteBudget(100);
    budget.tryReserve(50);
    const [impatient, patient] = [budget.reserve(60, 20), budget.reserve(50, LONG_MS)];
    expect(await impatient).toBe(false);
    expect(await patient).toBe(true);
    expect(budget.usedBytes).toBe(100);
    expect(await budget.reserve(1, 0)).toBe(false);
    expect(budget.usedBytes).toBe(100);
  });

  test("never grants more than the whole, and says so without waiting", async () => {
    const budget = new ByteBudget(100);
    expect(await budget.reserve(100, LONG_MS)).toBe(true);
    expect(await budget.reserve(101, LONG_MS)).toBe(false);
    budget.release(100);
    expect(await budget.reserve(101, LONG_MS)).toBe(false);
    expect(budget.usedBytes).toBe(0);
  });

  test("keeps its limit and ends at zero under any order of use", async () => {
    const whole = new ByteBudget(1000);
    const budgets = [whole, whole.part(700)];
    budgets.push(budgets[1]!.part(500));
    const random = randomFrom(7);
    const use = async () => {
      const bytes = random.below(600);
      const budget = budgets[random.below(3)]!;
      const isHeld = random.chance(0.5) ? budget.tryReserve(bytes) : await budget.reserve(bytes, random.below(5));
      for (const { usedBytes, limitBytes } of budgets) expect(usedBytes).toBeLessThanOrEqual(limitBytes);
      if (!isHeld) return;
      if (random.chance(0.5)) await new Promise(setImmediate);
      budget.release(bytes);
    };
    await Promise.all(Array.from({ length: 500 }, use));
    expect(budgets.map(({ usedBytes, waitingBytes }) => usedBytes + waitingBytes)).toEqual([0, 0, 0]);
  });
});

describe("a part of a byte budget", () => {
  test("sends nobody away for what the whole has no room for either", () => {
    let nowMs = 0;
    const whole = new ByteBudget(100, () => nowMs);
    const part = whole.part(80);
    const left: string[] = [];
    const hold = (name: string, bytes: number) => {
      expect(part.tryReserve(bytes)).toBe(true);
      part.yieldWhenOld({
        heldBytes: () => bytes,
        giveWay() {
          left.push(name);
          part.release(bytes);
        },
      });
    };
    hold("small", 2);
    expect([part.tryReserve(70), whole.tryReserve(28)]).toEqual([true, true]);
    nowMs += LONG_MS;
    expect([part.tryReserve(10), left, whole.usedBytes]).toEqual([false, [], 100]);
    // Who has to leave the part is among those who have to leave the whole.
    part.release(20);
    hold("large", 20);
    nowMs += LONG_MS;
    expect([part.tryReserve(22), left, whole.usedBytes]).toEqual([true, ["small", "large"], 100]);
  });

  test("never holds more than its limit, and no more than the whole has left; the rest is for others", () => {
    const whole = new ByteBudget(100);
    const part = whole.part(70);
    expect([part.tryReserve(71), part.tryReserve(70), part.tryReserve(1)]).toEqual([false, true, false]);
    expect([whole.tryReserve(31), whole.tryReserve(30)]).toEqual([false, true]);
    part.release(70);
    expect([part.usedBytes, whole.usedBytes]).toEqual([0, 30]);
    expect(whole.tryReserve(50)).toBe(true);
    expect([part.tryReserve(21), part.tryReserve(20)]).toEqual([false, true]);
    expect([part.usedBytes, whole.usedBytes]).toEqual([20, 100]);
  });

  test("may have parts of its own", () => {
    const whole = new ByteBudget(100);
    const users = whole.part(80);
    const calls = users.part(60);
    expect([calls.tryReserve(60), calls.tryReserve(1), users.tryReserve(21), users.tryReserve(20)]).toEqual([
      true,
      false,
      false,
      true,
    ]);
    calls.release(60);
    expect([calls.usedBytes, users.usedBytes, whole.usedBytes]).toEqual([0, 20, 20]);
  });

  test("lets those wait who do not fit into it, without anybody waiting for them", async () => {
    const whole = new ByteBudget(100);
    const part = whole.part(70);
    expect(part.tryReserve(60)).toBe(true);
    const waiting = part.reserve(20, LONG_MS);
    expect(await whole.reserve(30, LONG_MS)).toBe(true);
    part.release(60);
    expect(await waiting).toBe(true);
    expect([part.usedBytes, whole.usedBytes]).toEqual([20, 50]);
  });

  test("gets what comes free in the whole after those who wait there", async () => {
    const whole = new ByteBudget(100);
    const part = whole.part(70);
    expect(whole.tryReserve(100)).toBe(true);
    const order: string[] = [];
    const all = [part.reserve(50, LONG_MS), whole.reserve(60, LONG_MS)];
    all[0]!.then(() => order.push("part"));
    all[1]!.then(() => order.push("whole"));
    whole.release(60);
    await all[1];
    expect(order).toEqual(["whole"]);
    whole.release(40);
    await Promise.resolve();
    expect(order).toEqual(["whole"]);
    whole.release(60);
    expect(await all[0]).toBe(true);
  });

  test("has those who yield in it make room in it and in the whole, and nobody outside for its own bound", () => {
    let nowMs = 0;
    const whole = new ByteBudget(100, () => nowMs);
    const users = whole.part(80);
    const calls = users.part(50);
    const hold = (budget: ByteBudget, bytes: number) => {
      const state = { held: bytes };
      expect(budget.tryReserve(bytes)).toBe(true);
      budget.yieldWhenOld({
        heldBytes: () => state.held,
        giveWay() {
          budget.release(state.held);
          state.held = 0;
        },
      });
      return state;
    };
    const held = [hold(users, 30), hold(calls, 20), hold(calls, 30)];
    nowMs = LONG_MS;
    expect(calls.tryReserve(10)).toBe(true);
    expect(held.map((state) => state.held)).toEqual([30, 0, 30]);
    expect(whole.tryReserve(40)).toBe(true);
    expect(held.map((state) => state.held)).toEqual([0, 0, 30]);
    expect([calls.usedBytes, users.usedBytes, whole.usedBytes]).toEqual([40, 40, 80]);
  });
});

describe("holders of a byte budget", () => {
  const budget = new ByteBudget(100);
  const users = budget.part(80);
  users.limitEach(50);

  test("have no more than each may, all they hold taken together, and no more together than there is", () => {
    expect(users.ofHolder("ann").tryReserve(30)).toBe(true);
    expect(users.ofHolder("ann").tryReserve(30)).toBe(false);
    expect(users.ofHolder("ben").tryReserve(40)).toBe(true);
    expect(users.ofHolder("cyd").tryReserve(20)).toBe(false);
    expect([users.usedBytes, budget.usedBytes]).toEqual([70, 70]);
    users.ofHolder("ann").release(30);
    users.ofHolder("ben").release(40);
    expect([users.usedBytes, budget.usedBytes]).toEqual([0, 0]);
  });

  test("wait for what they hold themselves without keeping others from what there is", async () => {
    expect(users.ofHolder("ann").tryReserve(50)).toBe(true);
    const waiting = users.ofHolder("ann").reserve(40, LONG_MS);
    expect([users.waitingBytes, users.isBeset(0.5), users.isBeset(0.4)]).toEqual([40, false, true]);
    expect(users.ofHolder("ann").isBeset(0.5)).toBe(true);
    expect(await users.ofHolder("ben").reserve(20, 0)).toBe(true);
    users.ofHolder("ann").release(50);
    expect(await waiting).toBe(true);
    expect([users.waitingBytes, users.usedBytes]).toEqual([0, 60]);
    expect(await users.ofHolder("cyd").reserve(30, 1)).toBe(false);
    users.ofHolder("ann").release(40);
    users.ofHolder("ben").release(20);
  });

  test("are forgotten when there are many, but not while they hold something", () => {
    expect(users.ofHolder("ann").tryReserve(50)).toBe(true);
    for (let name = 0; name < 5_000; name++) users.ofHolder(`user ${name}`);
    expect(users.ofHolder("ann").tryReserve(1)).toBe(false);
    users.ofHolder("ann").release(50);
    expect(budget.usedBytes).toBe(0);
  });
});

describe("a share of a byte budget", () => {
  test("gives back what it does not need, and the rest once however often it is released", async () => {
    const budget = new ByteBudget(100);
    const share = (await BudgetShare.take(budget, 80, 0))!;
    expect(budget.usedBytes).toBe(80);
    share.shrinkTo(30);
    share.shrinkTo(50);
    expect(budget.usedBytes).toBe(30);
    const waiting = BudgetShare.take(budget, 100, 1000);
    share.release();
    share.release();
    expect(await waiting).not.toBeNull();
    expect(budget.usedBytes).toBe(100);
  });

  test("is not had when there is no room in time", async () => {
    const budget = new ByteBudget(100);
    expect(budget.tryReserve(60)).toBe(true);
    expect(await BudgetShare.take(budget, 50, 1)).toBeNull();
    expect(budget.usedBytes).toBe(60);
  });
});
