// Accounts and sessions as time goes by: expiry, the grace of a refresh, the throttle of logins.

import { describe, expect, test } from "bun:test";
import { openInProcessAt, type Target } from "../support/targets.ts";
import { API, ask, logIn, signUp, UNLIMITED } from "../support/task-client.ts";

const [SECOND_MS, MINUTE_MS, HOUR_MS, DAY_MS] = [1000, 60_000, 3_600_000, 86_400_000];

interface Timed extends AsyncDisposable {
  readonly target: Target;
  /** Lets so much time pass. */
  pass(ms: number): void;
}

async function openTimed(env: Record<string, string> = {}): Promise<Timed> {
  let nowMs = Date.now();
  const target = await openInProcessAt(() => nowMs)({ ...UNLIMITED, ...env });
  return {
    target,
    pass: (ms) => {
      nowMs += ms;
    },
    [Symbol.asyncDispose]: () => target[Symbol.asyncDispose](),
  };
}

interface Pair {
  readonly token: string;
  readonly refresh_token: string;
  readonly expires_in: number;
}

async function refresh(target: Target, refresh_token: string): Promise<Pair | number> {
  const answer = await ask(target, "POST", "/auth/refresh", { body: { refresh_token } });
  return answer.status === 200 ? ((await answer.json()) as Pair) : answer.status;
}

async function refreshed(target: Target, token: string): Promise<Pair> {
  const pair = await refresh(target, token);
  if (typeof pair === "number") throw new Error(`not refreshed: ${pair}`);
  return pair;
}

const statusOf = async (target: Target, token: string) => (await ask(target, "GET", "/auth/me", { token })).status;

describe("as time goes by", () => {
  test("an access token lives a quarter of an hour, or as long as was set", async () => {
    await using timed = await openTimed();
    const { target } = timed;
    const { token } = await signUp(target);
    timed.pass(15 * MINUTE_MS - SECOND_MS);
    expect(await statusOf(target, token)).toBe(200);
    timed.pass(SECOND_MS);
    expect(await statusOf(target, token)).toBe(401);
    await using short = await openTimed({ TASK_ACCESS_TTL: "1m" });
    const account = await signUp(short.target);
    expect((await refreshed(short.target, account.refreshToken)).expires_in).toBe(60);
    short.pass(MINUTE_MS);
    expect(await statusOf(short.target, account.token)).toBe(401);
  });

  test("an old refresh token gives the same child for ten seconds; afterwards it ends its session", async () => {
    await using timed = await openTimed();
    const { target } = timed;
    const alice = await signUp(target);
    const elsewhere = await logIn(target, alice.email, alice.password);
    const child = await refreshed(target, alice.refreshToken);
    timed.pass(10 * SECOND_MS);
    expect((await refreshed(target, alice.refreshToken)).refresh_token).toBe(child.refresh_token);
    timed.pass(1);
    expect(await refresh(target, alice.refreshToken)).toBe(401);
    for (const token of [alice.token, child.token]) expect(await statusOf(target, token)).toBe(401);
    expect(await refresh(target, child.refresh_token)).toBe(401);
    expect(await statusOf(target, elsewhere.token)).toBe(200);
    const answer = await ask(target, "GET", "/auth/sessions", { token: elsewhere.token });
    expect(((await answer.json()) as object[])[1]).toMatchObject({ revoked_reason: "refresh_reuse" });
  });

  test("a session that is not refreshed for seven days ends, one that is lives for thirty", async () => {
    await using timed = await openTimed();
    const { target } = timed;
    const idle = await signUp(target);
    const busy = await signUp(target);
    timed.pass(7 * DAY_MS - SECOND_MS);
    let { refresh_token } = await refreshed(target, busy.refreshToken);
    timed.pass(SECOND_MS);
    expect(await refresh(target, idle.refreshToken)).toBe(401);
    for (let week = 1; week < 4; week++) {
      timed.pass(6 * DAY_MS);
      ({ refresh_token } = await refreshed(target, refresh_token));
    }
    // 25 days so far.
    timed.pass(5 * DAY_MS - 5 * MINUTE_MS);
    const last = await refreshed(target, refresh_token);
    // An access token never outlives its session.
    expect(last.expires_in).toBe(5 * 60);
    timed.pass(5 * MINUTE_MS);
    expect(await statusOf(target, last.token)).toBe(401);
    expect(await refresh(target, last.refresh_token)).toBe(401);
  });

  test("both lives of a session can be set", async () => {
    await using timed = await openTimed({ TASK_REFRESH_TTL: "2h", TASK_REFRESH_IDLE: "1h" });
    const { target } = timed;
    const [idle, busy] = [await signUp(target), await signUp(target)];
    timed.pass(HOUR_MS - SECOND_MS);
    const { refresh_token } = await refreshed(target, busy.refreshToken);
    timed.pass(SECOND_MS);
    expect(await refresh(target, idle.refreshToken)).toBe(401);
    timed.pass(HOUR_MS - SECOND_MS);
    expect(await refresh(target, refresh_token)).toBe(401);
  });

  test("a session was last used when it was last refreshed, and not when a request came with its token", async () => {
    await using timed = await openTimed();
    const { target } = timed;
    const { token, refreshToken } = await signUp(target);
    const lastUsed = async (by: string) => {
      const answer = await ask(target, "GET", "/auth/sessions", { token: by });
      const [session] = (await answer.json()) as { created_at: string; last_used_at: string }[];
      return Date.parse(session!.last_used_at) - Date.parse(session!.created_at);
    };
    timed.pass(MINUTE_MS);
    expect(await lastUsed(token)).toBe(0);
    const next = await refreshed(target, refreshToken);
    timed.pass(MINUTE_MS);
    expect(await lastUsed(next.token)).toBe(MINUTE_MS);
  });

  test("an access token that has expired logs out with the refresh token beside it", async () => {
    await using timed = await openTimed();
    const { target } = timed;
    const { token, refreshToken } = await signUp(target);
    timed.pass(HOUR_MS);
    expect((await ask(target, "POST", "/auth/logout", { token })).status).toBe(401);
    const body = { refresh_token: refreshToken };
    expect((await ask(target, "POST", "/auth/logout", { token, body })).status).toBe(200);
    expect(await refresh(target, refreshToken)).toBe(401);
  });

  test("sessions that ended are shown for thirty days", async () => {
    await using timed = await openTimed();
    const { target } = timed;
    const alice = await signUp(target);
    await ask(target, "POST", "/auth/logout", { token: alice.token });
    const count = async () => {
      const { token } = await logIn(target, alice.email, alice.password);
      const answer = await ask(target, "GET", "/auth/sessions", { token });
      return ((await answer.json()) as { revoked_reason: string | null }[]).filter(
        ({ revoked_reason }) => revoked_reason === "logout",
      ).length;
    };
    timed.pass(30 * DAY_MS - SECOND_MS);
    expect(await count()).toBe(1);
    timed.pass(2 * SECOND_MS);
    expect(await count()).toBe(0);
  });
});

describe("guessing a password", () => {
  const PROXIED = { TRUSTED_PROXIES: "127.0.0.1" };
  const attempt = (target: Target, email: string, password: string, address: string) =>
    target.fetch(`${API}/auth/login`, {
      method: "POST",
      headers: { Authorization: null, "X-Forwarded-For": address },
      body: JSON.stringify({ email, password }),
    });

  test("after six wrong attempts an address has to wait, twice as long each time; others have not", async () => {
    await using timed = await openTimed(PROXIED);
    const { target } = timed;
    for (const email of [(await signUp(target)).email, "nobody@example.com"]) {
      for (let failure = 1; failure <= 6; failure++) {
        expect((await attempt(target, email, "wrong", "1.1.1.1")).status).toBe(401);
      }
      for (const waitS of [2, 4, 8]) {
        const refused = await attempt(target, email, "password123", "1.1.1.1");
        expect([refused.status, refused.headers.get("retry-after"), await refused.json()]).toEqual([
          429,
          `${waitS}`,
          { error: "Rate limit exceeded", code: "rate_limited" },
        ]);
        timed.pass(waitS * SECOND_MS - 1);
        expect((await attempt(target, email, "password123", "1.1.1.1")).status).toBe(429);
        timed.pass(1);
        expect((await attempt(target, email, "wrong", "1.1.1.1")).status).toBe(401);
      }
      const status = email.startsWith("nobody") ? 401 : 200;
      expect((await attempt(target, email, "password123", "2.2.2.2")).status).toBe(status);
      timed.pass(16 * SECOND_MS);
      expect((await attempt(target, email, "password123", "1.1.1.1")).status).toBe(status);
    }
  });

  test("failures from everywhere close an account to strangers, never to an address that is signed in", async () => {
    await using timed = await openTimed(PROXIED);
    const { target } = timed;
    const { email, password } = await signUp(target);
    expect((await attempt(target, email, password, "9.9.9.9")).status).toBe(200);
    for (let failure = 0; failure < 60; failure++) {
      expect((await attempt(target, email, "wrong", `10.0.0.${failure}`)).status).toBe(401);
    }
    const stranger = await attempt(target, email, password, "10.1.1.1");
    expect([stranger.status, stranger.headers.get("retry-after")]).toEqual([429, "3600"]);
    expect((await attempt(target, email, "wrong", "9.9.9.9")).status).toBe(401);
    expect((await attempt(target, email, password, "9.9.9.9")).status).toBe(200);
    timed.pass(HOUR_MS);
    expect((await attempt(target, email, password, "10.1.1.1")).status).toBe(200);
  });

  for (const change of [{ password: "another-password" }, { disabled: false }]) {
    const what = Object.keys(change).join();
    test(`an account that was closed by failures is opened by an operator who sets ${what}`, async () => {
      await using timed = await openTimed(PROXIED);
      const { target } = timed;
      const { id, email, password } = await signUp(target);
      for (let failure = 0; failure < 60; failure++) {
        expect((await attempt(target, email, "wrong", `10.0.0.${failure % 12}`)).status).toBe(401);
      }
      const right = "password" in change ? change.password : password;
      expect((await attempt(target, email, right, "10.1.1.1")).status).toBe(429);
      const init = { method: "PATCH", body: JSON.stringify(change) };
      expect((await target.fetch(`/_admin/task/users/${id}`, init)).status).toBe(200);
      expect((await attempt(target, email, right, "10.1.1.1")).status).toBe(200);
    });
  }

  test("with an access token, from everywhere, is closed as well but where another session lives", async () => {
    await using timed = await openTimed(PROXIED);
    const { target } = timed;
    const { email, password } = await signUp(target);
    const tokenAt = async (address: string) =>
      ((await (await attempt(target, email, password, address)).json()) as Pair).token;
    const [stolen, own] = [await tokenAt("6.6.6.6"), await tokenAt("9.9.9.9")];
    const rename = (token: string, current_password: string, address: string) =>
      ask(target, "PATCH", "/auth/me", {
        token,
        body: { email: `new-${email}`, current_password },
        headers: { "X-Forwarded-For": address },
      });
    for (let failure = 0; failure < 60; failure++) {
      expect((await rename(stolen, "wrong", `10.0.0.${failure}`)).status).toBe(403);
    }
    for (const address of ["10.1.1.1", "6.6.6.6"]) {
      const refused = await rename(stolen, password, address);
      expect([address, refused.status, refused.headers.get("retry-after")]).toEqual([address, 429, "3600"]);
    }
    expect((await attempt(target, email, password, "9.9.9.9")).status).toBe(200);
    expect((await rename(own, password, "9.9.9.9")).status).toBe(200);
  });

  test("of many attempts at once few are tried", async () => {
    await using timed = await openTimed({ ...PROXIED, PASSWORD_PARALLEL: "1" });
    const { target } = timed;
    const { email } = await signUp(target);
    const answers = await Promise.all(
      Array.from({ length: 40 }, (_, index) => attempt(target, email, `guess ${index}`, "1.1.1.1")),
    );
    expect(answers.filter(({ status }) => status === 401)).toHaveLength(6);
    expect(answers.filter(({ status }) => status === 429)).toHaveLength(34);
  });

  test("of many attempts at once from everywhere no more are tried than close the account", async () => {
    await using timed = await openTimed({ ...PROXIED, PASSWORD_PARALLEL: "1" });
    const { target } = timed;
    const { email } = await signUp(target);
    for (let failure = 0; failure < 50; failure++) await attempt(target, email, "wrong", `10.0.0.${failure}`);
    const answers = await Promise.all(
      Array.from({ length: 40 }, (_, index) => attempt(target, email, `guess ${index}`, `10.0.1.${index}`)),
    );
    expect(answers.filter(({ status }) => status === 401)).toHaveLength(10);
    const refused = answers.filter(({ status }) => status === 429);
    expect(refused.map(({ headers }) => headers.get("retry-after"))).toEqual(Array.from({ length: 30 }, () => "1"));
  });

  test("with an access token is slowed down as well", async () => {
    await using timed = await openTimed();
    const { target } = timed;
    const { token } = await signUp(target);
    const change = () =>
      ask(target, "POST", "/auth/password", { token, body: { current_password: "wrong", new_password: "password" } });
    for (let failure = 1; failure <= 6; failure++) expect((await change()).status).toBe(403);
    expect((await change()).status).toBe(429);
  });

  test("logins and registrations of an address are limited by themselves", async () => {
    await using timed = await openTimed({ TASK_RATE_LOGIN: "3/1m", TASK_RATE_REGISTER: "2/1h", ...PROXIED });
    const { target } = timed;
    const statuses: number[] = [];
    for (let index = 0; index < 3; index++) {
      const body = JSON.stringify({
        username: `user${index}`,
        email: `u${index}@example.com`,
        password: "password123",
      });
      const answer = await target.fetch(`${API}/auth/register`, {
        method: "POST",
        body,
        headers: { Authorization: null },
      });
      statuses.push(answer.status);
      if (answer.status === 429) expect(answer.headers.get("ratelimit-policy")).toBe('"register";q=2;w=3600');
    }
    expect(statuses).toEqual([201, 201, 429]);
    for (const status of [200, 200, 200, 429]) {
      const answer = await attempt(target, "u0@example.com", "password123", "1.1.1.1");
      expect([answer.status, answer.headers.get("ratelimit-policy")]).toEqual([status, '"login";q=3;w=60']);
    }
    expect((await attempt(target, "u0@example.com", "password123", "2.2.2.2")).status).toBe(200);
    timed.pass(20 * SECOND_MS);
    expect((await attempt(target, "u0@example.com", "password123", "1.1.1.1")).status).toBe(200);
  });
});
