// The allowances of users and addresses are kept for as many of them as was promised, in bounded memory.

import { describe, expect, test } from "bun:test";
import type { RequestScope } from "../../src/http/request-scope.ts";
import { TaskRates } from "../../src/task/task-rates.ts";

const NOW_MS = 1_790_000_000_123;
const RATE = { limit: 5, windowMs: 60_000 };
const KEYS = 80_000;
/** Twice as many as are kept, and more. */
const STRANGERS = 250_000;

const addressOf = (index: number) => `2001:db8:${(index >> 8).toString(16)}:${(index & 255).toString(16)}::1`;

describe("the rates of the task service", () => {
  test("remember the last eighty thousand addresses at least, and forgive those seen longest ago", () => {
    const rates = new TaskRates(() => NOW_MS, { ip: RATE, user: RATE, login: RATE, register: RATE });
    const remaining = (clientIp: string) => {
      const scope: Pick<RequestScope, "clientIp" | "surfaceHeaders"> = { clientIp, surfaceHeaders: null };
      rates.takeAddress(scope as RequestScope);
      return /r=(\d+)/.exec((scope.surfaceHeaders as Record<string, string>).RateLimit ?? "")?.[1];
    };
    for (let index = 0; index < KEYS; index++) remaining(addressOf(index));
    expect([remaining(addressOf(0)), remaining(addressOf(KEYS - 1))]).toEqual(["3", "3"]);
    for (let index = 0; index < STRANGERS; index++) remaining(addressOf(KEYS + index));
    expect([remaining(addressOf(0)), remaining(addressOf(KEYS + STRANGERS - 1))]).toEqual(["4", "3"]);
  });
});
