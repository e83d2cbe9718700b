// Rate limits of the task API by a clock that the test moves.

import { afterEach, describe, expect, test } from "bun:test";
import { openInProcessAt, type Target } from "../support/targets.ts";
import { type Account, ask, signUp } from "../support/task-client.ts";

const CHEAP = { PASSWORD_MEMORY_KIB: "8192", PASSWORD_TIME: "1", TASK_RATE_LOGIN: "0/1m", TASK_RATE_REGISTER: "0/1h" };
const LIMIT = 60;

let nowMs = Date.now();
const opened: Target[] = [];
afterEach(async () => {
  for (const target of opened.splice(0)) await target[Symbol.asyncDispose]();
});

async function open(env: Record<string, string> = {}): Promise<Target> {
  const target = await openInProcessAt(() => nowMs)({ ...CHEAP, ...env });
  opened.push(target);
  return target;
}

const me = (target: Target, { token }: Account) => ask(target, "GET", "/auth/me", { token });
const stranger = (target: Target, forwarded: string | null = null) =>
  ask(target, "GET", "/tasks", { headers: { "X-Forwarded-For": forwarded } });

describe("of a user", () => {
  test("sixty requests pass at once and the next is refused until its time has come", async () => {
    const target = await open();
    const account = await signUp(target);
    for (let left = LIMIT - 1; left >= 0; left--) {
      const { status, headers } = await me(target, account);
      expect([status, headers.get("ratelimit-policy")]).toEqual([200, '"user";q=60;w=60']);
      expect(headers.get("ratelimit")).toBe(`"user";r=${left};t=${LIMIT - left}`);
    }
    // A refused request costs nothing: however often it is tried, the wait does not grow.
    for (let tries = 0; tries < 5; tries++) {
      const refused = await me(target, account);
      expect([refused.status, await refused.json()]).toEqual([
        429,
        { error: "Rate limit exceeded", code: "rate_limited" },
      ]);
      expect([refused.headers.get("retry-after"), refused.headers.get("ratelimit")]).toEqual(["1", '"user";r=0;t=60']);
    }
    nowMs += 1000;
    expect((await me(target, account)).status).toBe(200);
    expect((await me(target, account)).status).toBe(429);
  });

  test("two behind one address have an allowance each, and strangers there another", async () => {
    const target = await open();
    const [one, other] = [await signUp(target), await signUp(target)];
    for (let asked = 0; asked < LIMIT; asked++) await me(target, one);
    expect((await me(target, one)).status).toBe(429);
    expect((await me(target, other)).status).toBe(200);
    expect((await stranger(target)).status).toBe(401);
  });
});

describe("of what is not served", () => {
  test("what a user asks for counts as his, and what a stranger does as his address's", async () => {
    const target = await open();
    const account = await signUp(target);
    for (const [method, path, status] of [
      ["GET", "/nope", 404],
      ["PUT", "/tasks", 405],
    ] as const) {
      for (const [token, layer] of [
        [account.token, "user"],
        [null, "ip"],
      ] as const) {
        const answer = await ask(target, method, path, token === null ? {} : { token });
        expect([answer.status, answer.headers.get("ratelimit-policy")]).toEqual([status, `"${layer}";q=60;w=60`]);
      }
    }
    for (let asked = 0; asked < LIMIT; asked++) await ask(target, "PUT", "/tasks");
    expect((await ask(target, "PUT", "/tasks")).status).toBe(429);
    expect((await me(target, account)).status).toBe(200);
  });
});

describe("of an address", () => {
  const askUntilRefused = async (target: Target, forwarded: (asked: number) => string | null) => {
    for (let asked = 0; asked <= LIMIT; asked++) {
      const { status } = await stranger(target, forwarded(asked));
      if (status !== 401) return [asked, status];
    }
    return null;
  };

  test("sixty requests without a valid token pass, whatever they say of where they come from", async () => {
    expect(await askUntilRefused(await open(), (asked) => `10.1.2.${asked}`)).toEqual([LIMIT, 429]);
  });

  test("it is the rightmost that is no trusted proxy, behind one", async () => {
    const target = await open({ TRUSTED_PROXIES: "127.0.0.1,10.0.0.0/8" });
    expect(await askUntilRefused(target, (asked) => `10.1.2.${asked}, 203.0.113.9, 10.0.0.1`)).toEqual([LIMIT, 429]);
    expect((await stranger(target, "203.0.113.8")).status).toBe(401);
  });

  test("a network of IPv6 is one, and its neighbour another", async () => {
    const target = await open({ TRUSTED_PROXIES: "127.0.0.1" });
    expect(await askUntilRefused(target, (asked) => `2001:db8:1:2::${asked.toString(16)}`)).toEqual([LIMIT, 429]);
    expect((await stranger(target, "2001:db8:1:3::1")).status).toBe(401);
  });

  test("nothing is limited with a limit of 0, and the health of the server never is", async () => {
    const target = await open({ TASK_RATE_PER_MINUTE: "0" });
    expect(await askUntilRefused(target, () => null)).toBeNull();
    const { headers } = await stranger(target);
    expect(headers.get("ratelimit")).toBeNull();
    const limited = await open({ TASK_RATE_IP: "1/1m" });
    await stranger(limited);
    expect((await stranger(limited)).status).toBe(429);
    for (let asked = 0; asked < 100; asked++) expect((await limited.fetch("/livez")).status).toBe(200);
  });
});
