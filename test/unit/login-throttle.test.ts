// The throttle of logins under a clock that the test moves.

import { describe, expect, test } from "bun:test";
import { LoginThrottle } from "../../src/task/login-throttle.ts";

const [SECOND_MS, MINUTE_MS, HOUR_MS] = [1000, 60_000, 3_600_000];

function openThrottle() {
  const time = { nowMs: 1_800_000_000_000 };
  return { time, throttle: new LoginThrottle(() => time.nowMs) };
}

describe("the throttle of logins", () => {
  test("five failures are free; from the sixth on each doubles the wait", () => {
    const { time, throttle } = openThrottle();
    const waits: number[] = [];
    for (let failure = 1; failure <= 12; failure++) {
      throttle.noteFailure("a", "1.1.1.1");
      const waitMs = throttle.waitMs("a", "1.1.1.1");
      waits.push(waitMs / SECOND_MS);
      time.nowMs += waitMs;
      expect(throttle.waitMs("a", "1.1.1.1")).toBe(0);
    }
    expect(waits).toEqual([0, 0, 0, 0, 0, 2, 4, 8, 16, 32, 64, 128]);
  });

  test("failures at once wait a quarter of an hour at most", () => {
    const { throttle } = openThrottle();
    for (let failure = 1; failure <= 40; failure++) throttle.noteFailure("a", "1.1.1.1");
    expect(throttle.waitMs("a", "1.1.1.1")).toBe(15 * MINUTE_MS);
  });

  test("failures older than a quarter of an hour do not count", () => {
    const { time, throttle } = openThrottle();
    for (let failure = 1; failure <= 5; failure++) throttle.noteFailure("a", "1.1.1.1");
    time.nowMs += 15 * MINUTE_MS;
    throttle.noteFailure("a", "1.1.1.1");
    expect(throttle.waitMs("a", "1.1.1.1")).toBe(0);
  });

  test("an account and an address are one thing: neither another address nor another account waits", () => {
    const { throttle } = openThrottle();
    for (let failure = 1; failure <= 10; failure++) throttle.noteFailure("a", "1.1.1.1");
    expect(throttle.waitMs("a", "2.2.2.2")).toBe(0);
    expect(throttle.waitMs("b", "1.1.1.1")).toBe(0);
    expect(throttle.waitMs("a", "1.1.1.1")).toBe(32 * SECOND_MS);
  });

  test("a right password forgives the address, not the failures from elsewhere", () => {
    const { throttle } = openThrottle();
    for (let index = 0; index < 60; index++) throttle.noteFailure("a", `10.0.0.${index % 6}`);
    throttle.forgive("a", "10.0.0.1");
    expect(throttle.waitMs("a", "10.0.0.1")).toBe(0);
    expect(throttle.waitMs("a", "10.0.0.2")).toBeGreaterThan(0);
    expect(throttle.accountWaitMs("a")).toBe(HOUR_MS);
  });

  test("all failures of an account are forgiven at once, and those of no other account", () => {
    const { throttle } = openThrottle();
    for (let index = 0; index < 60; index++) {
      for (const account of ["a@b.c", "a@b.co"]) throttle.noteFailure(account, `10.0.0.${index % 6}`);
    }
    throttle.forgiveAll("a@b.c");
    expect([throttle.accountWaitMs("a@b.c"), throttle.waitMs("a@b.c", "10.0.0.1")]).toEqual([0, 0]);
    expect(throttle.accountWaitMs("a@b.co")).toBe(HOUR_MS);
    expect(throttle.waitMs("a@b.co", "10.0.0.1")).toBeGreaterThan(0);
  });

  test("sixty failures of an account in an hour close it for strangers until the first is an hour old", () => {
    const { time, throttle } = openThrottle();
    for (let index = 0; index < 60; index++) {
      expect(throttle.accountWaitMs("a")).toBe(0);
      throttle.noteFailure("a", `10.0.0.${index}`);
      time.nowMs += SECOND_MS;
    }
    expect(throttle.accountWaitMs("a")).toBe(HOUR_MS - 60 * SECOND_MS);
    expect(throttle.accountWaitMs("b")).toBe(0);
    time.nowMs += HOUR_MS - 60 * SECOND_MS;
    expect(throttle.accountWaitMs("a")).toBe(0);
  });

  test("a clock that is set back locks nobody out for longer", () => {
    const { time, throttle } = openThrottle();
    for (let failure = 1; failure <= 6; failure++) throttle.noteFailure("a", "1.1.1.1");
    time.nowMs -= 24 * HOUR_MS;
    expect(throttle.waitMs("a", "1.1.1.1")).toBeLessThanOrEqual(15 * MINUTE_MS);
    expect(throttle.accountWaitMs("a")).toBe(0);
  });

  test("many accounts and addresses take bounded memory, and the newest are not forgotten", () => {
    const { throttle } = openThrottle();
    const before = process.memoryUsage().heapUsed;
    for (let index = 0; index < 100_000; index++) throttle.noteFailure(`account-${index}`, `2001:db8:${index}::/64`);
    for (let failure = 1; failure <= 6; failure++) throttle.noteFailure("a", "1.1.1.1");
    Bun.gc(true);
    expect(process.memoryUsage().heapUsed - before).toBeLessThan(64 * 1024 * 1024);
    expect(throttle.waitMs("a", "1.1.1.1")).toBe(2 * SECOND_MS);
  });
});
