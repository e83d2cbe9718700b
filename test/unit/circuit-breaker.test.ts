// The breaker of a channel: when it opens, for how long, and what closes it.

import { describe, expect, test } from "bun:test";
import { CircuitBreaker } from "../../src/relay/circuit-breaker.ts";

const MINUTE_MS = 60_000;
const HOUR_MS = 3_600_000;

function breakerAt(startMs = 1_000_000) {
  let nowMs = startMs;
  const breaker = new CircuitBreaker(() => nowMs);
  return {
    breaker,
    pass: (ms: number) => {
      nowMs += ms;
    },
    ask: (outcome: Parameters<ReturnType<CircuitBreaker["enter"]>>[0]) => breaker.enter()(outcome),
    nowMs: () => nowMs,
  };
}

describe("a circuit breaker", () => {
  test("opens with the fifth request when half of them failed, not before", () => {
    const { breaker, ask } = breakerAt();
    for (const outcome of ["success", "failure", "failure", "success"] as const) ask(outcome);
    expect(breaker.state).toBe("closed");
    ask("failure");
    expect(breaker.state).toBe("open");
    expect(breaker.isPassable).toBe(false);
  });

  test("stays closed while more than half succeed", () => {
    const { breaker, ask } = breakerAt();
    for (let round = 0; round < 50; round++)
      for (const outcome of ["success", "failure", "success"] as const) ask(outcome);
    expect(breaker.state).toBe("closed");
  });

  test("opens after three connections in a row that failed; a success in between starts the count anew", () => {
    const { breaker, ask } = breakerAt();
    ask("connect_failure");
    ask("connect_failure");
    for (let successes = 0; successes < 5; successes++) ask("success");
    ask("connect_failure");
    ask("connect_failure");
    expect(breaker.state).toBe("closed");
    ask("connect_failure");
    expect(breaker.state).toBe("open");
  });

  test("forgets what is older than a minute", () => {
    const { breaker, ask, pass } = breakerAt();
    for (let failures = 0; failures < 4; failures++) ask("failure");
    pass(MINUTE_MS + 6_000);
    expect(breaker.figures).toEqual({ requests: 0, failures: 0 });
    ask("failure");
    expect(breaker.state).toBe("closed");
  });

  test("does not count what says nothing of the upstream", () => {
    const { breaker, ask } = breakerAt();
    for (let requests = 0; requests < 20; requests++) ask("none");
    expect(breaker.figures).toEqual({ requests: 0, failures: 0 });
  });

  test("is open for 15 s, then lets one request through; its failure doubles the time, up to 5 minutes", () => {
    const { breaker, ask, pass, nowMs } = breakerAt();
    for (let failures = 0; failures < 5; failures++) ask("failure");
    for (const openMs of [15_000, 30_000, 60_000, 120_000, 240_000, 300_000, 300_000]) {
      expect(breaker.openUntilMs - nowMs()).toBe(openMs);
      pass(openMs - 1);
      expect(breaker.state).toBe("open");
      pass(1);
      expect(breaker.state).toBe("half_open");
      ask("failure");
    }
  });

  test("half-open lets exactly one of many through, and its success closes it", () => {
    const { breaker, ask, pass } = breakerAt();
    for (let failures = 0; failures < 5; failures++) ask("failure");
    pass(15_000);
    expect(breaker.isPassable).toBe(true);
    const settle = breaker.enter();
    expect(breaker.isPassable).toBe(false);
    settle("success");
    expect([breaker.state, breaker.isPassable, breaker.openUntilMs]).toEqual(["closed", true, 0]);
    for (let failures = 0; failures < 5; failures++) ask("failure");
    pass(14_999);
    expect(breaker.state).toBe("open");
  });

  test("half-open goes by the one that tries, whatever becomes of others that came past it", () => {
    const { breaker, ask, pass } = breakerAt();
    for (let failures = 0; failures < 5; failures++) ask("failure");
    pass(15_000);
    const settle = breaker.enter();
    const others = Array.from({ length: 30 }, () => breaker.enter());
    for (const [index, other] of others.entries()) other(index % 2 === 0 ? "failure" : "success");
    expect([breaker.state, breaker.isPassable]).toEqual(["half_open", false]);
    settle("failure");
    pass(29_999);
    expect(breaker.state).toBe("open");
    pass(1);
    expect(breaker.state).toBe("half_open");
  });

  test("does not open again for one that tried it before it was reset", () => {
    const { breaker, ask, pass } = breakerAt();
    for (let failures = 0; failures < 5; failures++) ask("failure");
    pass(15_000);
    const settle = breaker.enter();
    breaker.reset();
    settle("failure");
    expect([breaker.state, breaker.figures]).toEqual(["closed", { requests: 1, failures: 1 }]);
  });

  test("half-open passes the next one when the first came to no outcome", () => {
    const { breaker, ask, pass } = breakerAt();
    for (let failures = 0; failures < 5; failures++) ask("failure");
    pass(15_000);
    ask("none");
    expect([breaker.state, breaker.isPassable]).toEqual(["half_open", true]);
  });

  test("is not opened anew by requests that were under way when it opened", () => {
    const { breaker, ask, pass } = breakerAt();
    const late = [breaker.enter(), breaker.enter()];
    for (let failures = 0; failures < 5; failures++) ask("failure");
    const untilMs = breaker.openUntilMs;
    pass(5_000);
    for (const settle of late) settle("failure");
    expect(breaker.openUntilMs).toBe(untilMs);
    pass(10_000);
    expect(breaker.state).toBe("half_open");
  });

  test("is open for no longer than meant when the clock is set back, and shows the time that it holds to", () => {
    const { breaker, ask, pass, nowMs } = breakerAt(100 * HOUR_MS);
    for (let failures = 0; failures < 5; failures++) ask("failure");
    pass(-2 * HOUR_MS);
    expect([breaker.state, breaker.openUntilMs - nowMs()]).toEqual(["open", 15_000]);
    pass(14_999);
    expect(breaker.state).toBe("open");
    pass(1);
    expect(breaker.state).toBe("half_open");
  });

  test("holds nothing against an upstream from before the clock was set back", () => {
    const { breaker, ask, pass } = breakerAt(100 * HOUR_MS);
    for (let failures = 0; failures < 4; failures++) ask("failure");
    pass(-2 * HOUR_MS);
    expect(breaker.figures).toEqual({ requests: 0, failures: 0 });
    ask("failure");
    expect([breaker.state, breaker.figures]).toEqual(["closed", { requests: 1, failures: 1 }]);
  });

  test("takes one outcome of a request", () => {
    const { breaker } = breakerAt();
    const settle = breaker.enter();
    for (let calls = 0; calls < 10; calls++) settle("failure");
    expect(breaker.figures).toEqual({ requests: 1, failures: 1 });
  });

  test("counts an answer that breaks off as one request that failed, also when it began before the window", () => {
    const { breaker, ask, pass } = breakerAt();
    for (let requests = 0; requests < 5; requests++) ask("success");
    for (let broken = 0; broken < 2; broken++) breaker.breakOff();
    expect([breaker.state, breaker.figures]).toEqual(["closed", { requests: 5, failures: 2 }]);
    pass(120_000);
    breaker.breakOff();
    expect(breaker.figures).toEqual({ requests: 1, failures: 1 });
    for (let requests = 0; requests < 5; requests++) ask("success");
    breaker.breakOff();
    expect(breaker.state).toBe("closed");
    breaker.breakOff();
    expect(breaker.state).toBe("open");
    const { openUntilMs } = breaker;
    breaker.breakOff();
    pass(15_000);
    breaker.breakOff();
    expect([breaker.state, breaker.openUntilMs]).toEqual(["half_open", openUntilMs]);
  });

  test("is not kept open by answers that break off while it is open", () => {
    const { breaker, ask } = breakerAt();
    for (let failures = 0; failures < 5; failures++) ask("failure");
    const { openUntilMs } = breaker;
    for (let broken = 0; broken < 5; broken++) breaker.breakOff();
    expect(breaker.openUntilMs).toBe(openUntilMs);
  });

  test("reset, has forgotten everything", () => {
    const { breaker, ask } = breakerAt();
    for (let failures = 0; failures < 5; failures++) ask("failure");
    breaker.reset();
    expect([breaker.state, breaker.figures]).toEqual(["closed", { requests: 0, failures: 0 }]);
  });
});
