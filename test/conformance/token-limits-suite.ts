// The limits of the token API: how many requests an installation has, how often a guess may fail, what is told of it.

import { describe, expect, test } from "bun:test";
import { parseRateLimit } from "ratelimit-header-parser";
import { eventually } from "../support/eventually.ts";
import { openRaw, sendRaw } from "../support/raw-request.ts";
import { metricOf } from "../support/relay-books.ts";
import type { OpenTarget, Target, TargetInit } from "../support/targets.ts";
import { administer, asApp, type Installed, install, JSON_TYPE } from "../support/token-client.ts";
import { useTarget } from "../support/use-target.ts";

/** Few requests, so that they are used up before one of them comes back: the fastest needs 6 seconds for that. */
const FEW = {
  TOKEN_RATE_READ: "10",
  TOKEN_RATE_WRITE: "7",
  TOKEN_RATE_DELETE: "5",
  TOKEN_RATE_BATCH: "3",
  TOKEN_RATE_AUTH_FAIL: "6",
};
const OFF = { TOKEN_RATE_READ: "0", TOKEN_RATE_WRITE: "0", TOKEN_RATE_DELETE: "0", TOKEN_RATE_BATCH: "0" };
const KiB = 1024;
const MiB = 1024 * KiB;
const STRANGERS = 48;
const WAIT_MS_MAX = 5_000;
/** Other bounds may not be above the budget. */
const SMALL_REST = { RELAY_BODY_MAX: "1000000", RELAY_RESPONSE_MAX: "1000000" };
const WITHOUT_AUTHORIZATION = { Authorization: null };

type Ask = (target: Target, app: Installed) => Promise<Response>;

/** One request of each kind, with its limit in FEW. */
const KINDS: readonly (readonly [kind: string, limit: number, ask: Ask])[] = [
  ["read", 10, (target, { token }) => asApp(target, token, "/_keys")],
  ["write", 7, (target, { token }) => asApp(target, token, "/k", { method: "POST", body: "1" })],
  ["delete", 5, (target, { token }) => asApp(target, token, "/k", { method: "DELETE" })],
  ["batch", 3, (target, { token }) => asApp(target, token, "/_batchimport", { method: "POST", body: '{"k":1}' })],
];

export function tokenLimitsSuite(name: string, open: OpenTarget): void {
  describe(`rates of an installation on ${name}`, () => rateTests(useTarget(open, FEW)));
  describe(`rate headers on ${name}`, () => headerTests(useTarget(open), useTarget(open, OFF)));
  describe(`guessing of tokens on ${name}`, () => {
    guessTests(useTarget(open, { ...FEW, TRUSTED_PROXIES: "127.0.0.0/8" }));
    manyGuessesTests(useTarget(open));
  });
  describe(`bodies of strangers on ${name}`, () => strangerTests(useTarget(open)));
  describe(`announced bodies on ${name}`, () => announcedTests(useTarget(open)));
  describe(`bodies beside a small budget on ${name}`, () => {
    smallBudgetTests(useTarget(open, { MAX_VALUE_BYTES: "1000000", BODY_BUDGET_BYTES: "1000000", ...SMALL_REST }));
  });
}

function strangerTests(target: () => Target): void {
  test("that are announced count by what has come of them: many large ones take no room from others", async () => {
    using clients = new DisposableStack();
    const connections = await Promise.all(Array.from({ length: STRANGERS }, () => openRaw(target().url)));
    for (const connection of connections) {
      clients
        .use(connection)
        .send(
          "POST /kv/token/a HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n" +
            `Content-Length: ${MiB}\r\n\r\n{`,
        );
    }
    const used = () => metricOf(target(), "gokv_body_budget_used_bytes");
    await eventually("all of them have begun", WAIT_MS_MAX, async () => (await used()) >= STRANGERS);
    expect((await target().fetch("/b/k", { method: "POST", body: "hi" })).status).toBe(200);
    expect(await used()).toBeLessThan(STRANGERS * 64 * KiB);
    clients.dispose();
    await eventually("all of it is back", WAIT_MS_MAX, async () => (await used()) === 0);
  });

  test("that say who they are are read to their end, and not beyond what has come", async () => {
    const { token } = await install(target());
    const headers = { ...JSON_TYPE, ...WITHOUT_AUTHORIZATION };
    const value = "x".repeat(100_000);
    const body = JSON.stringify({ token, value });
    expect((await target().fetch("/kv/token/whole", { method: "POST", headers, body })).status).toBe(200);
    const head = `POST /kv/token/cut HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n`;
    const cut = `${head}Content-Length: ${body.length + 10}\r\n\r\n${body}`;
    await sendRaw(target().url, cut, { isHalfClosed: true, answerMs: 500 });
    expect((await asApp(target(), token, "/whole")).status).toBe(200);
    expect((await asApp(target(), token, "/cut")).status).toBe(404);
  });
}

function announcedTests(target: () => Target): void {
  test("of apps, too, cost nothing while nothing of them has come, however small they are", async () => {
    const { token } = await install(target());
    using clients = new DisposableStack();
    const connections = await Promise.all(Array.from({ length: STRANGERS }, () => openRaw(target().url)));
    for (const connection of connections) {
      const head = `POST /kv/token/a HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${token}\r\n`;
      clients.use(connection).send(`${head}Content-Type: application/json\r\nContent-Length: ${16 * KiB}\r\n\r\n{`);
    }
    // Each has been looked at when an answer came that was asked for later.
    for (let round = 0; round < 5; round++) expect((await asApp(target(), token, "/_check")).status).toBe(404);
    expect(await metricOf(target(), "gokv_body_budget_used_bytes")).toBe(0);
  });
}

function smallBudgetTests(target: () => Target): void {
  test("a token in a body is found however large the body may be", async () => {
    const { token } = await install(target());
    const headers = { ...JSON_TYPE, ...WITHOUT_AUTHORIZATION };
    for (const length of [300_000, 900_000, 999_000]) {
      const body = JSON.stringify({ token, value: "x".repeat(length) });
      const chunked = new Blob([body]).stream();
      expect((await target().fetch("/kv/token/k", { method: "POST", headers, body })).status).toBe(200);
      expect((await target().fetch("/kv/token/k", { method: "POST", headers, body: chunked })).status).toBe(200);
    }
    expect(await metricOf(target(), "gokv_body_budget_used_bytes")).toBe(0);
  });

  test("what the values of a body take while it is looked through is given back with it", async () => {
    const { token } = await install(target());
    const body = `[${"[],".repeat(40_000)}[]]`;
    expect((await asApp(target(), token, "/many", { method: "POST", body })).status).toBe(200);
    expect(await metricOf(target(), "gokv_body_budget_used_bytes")).toBe(0);
  });

  test("a body of an app that is as large as the budget fits into it", async () => {
    const { token } = await install(target());
    const body = JSON.stringify("x".repeat(999_998));
    expect((await asApp(target(), token, "/large", { method: "POST", body })).status).toBe(200);
  });

  test("a batch as large as the budget fits into it, however many values it holds", async () => {
    const { token } = await install(target());
    const body = `{"k":[${"[],".repeat(333_330)}1]}`;
    expect(body.length).toBeWithin(990_000, 1_000_000);
    for (const sent of [body, new Blob([body]).stream()]) {
      const answer = await asApp(target(), token, "/_batchimport", { method: "POST", body: sent, headers: JSON_TYPE });
      expect([answer.status, await answer.json()]).toMatchObject([200, { successful: 1 }]);
    }
    expect(await metricOf(target(), "gokv_body_budget_used_bytes")).toBe(0);
  });
}

function rateTests(target: () => Target): void {
  for (const [kind, limit, ask] of KINDS) {
    test(`the ${kind} after the last one of a burst is 429, and another token of the device goes on`, async () => {
      const app = await install(target());
      const neighbour = await install(target(), {}, app.uuid);
      for (let asked = 0; asked < limit; asked++) {
        const response = await ask(target(), app);
        expect([asked, response.status]).not.toEqual([asked, 429]);
        expect(parseRateLimit(response)).toMatchObject({ limit, remaining: limit - 1 - asked });
      }
      await expectLimited(await ask(target(), app), limit);
      const response = await ask(target(), neighbour);
      expect(response.status).not.toBe(429);
      expect(parseRateLimit(response)).toMatchObject({ limit, remaining: limit - 1 });
    });
  }

  test("each kind has a count of its own", async () => {
    const app = await install(target());
    for (const [, limit, ask] of KINDS) {
      const response = await ask(target(), app);
      expect(parseRateLimit(response)).toMatchObject({ limit, remaining: limit - 1 });
    }
  });

  test("refused, failing and invalid requests count, as HEAD does among the reads", async () => {
    const app = await install(target(), { permissionPrefix: "p" });
    const remaining = async (status: number, path: string, init: TargetInit = {}) => {
      const response = await asApp(target(), app.token, path, init);
      expect([path, response.status]).toEqual([path, status]);
      return parseRateLimit(response)!.remaining;
    };
    expect(await remaining(404, "/p.k")).toBe(9);
    expect(await remaining(403, "/denied")).toBe(8);
    expect(await remaining(400, "/_keys?limit=x")).toBe(7);
    expect(await remaining(200, "/_info", { method: "HEAD" })).toBe(6);
    expect(await remaining(403, "/denied/metadata")).toBe(5);
    expect(await remaining(403, "/denied", { method: "POST", body: "1" })).toBe(6);
    expect(await remaining(400, "/p.k", { method: "POST", body: "{" })).toBe(5);
    expect(await remaining(403, "/", { method: "POST", body: "1" })).toBe(4);
    expect(await remaining(403, "/", { method: "DELETE" })).toBe(4);
    expect(await remaining(400, "/_batchimport", { method: "POST", body: "[]" })).toBe(2);
  });

  test("a path that is wrong in itself, and a method that no path takes, do not count", async () => {
    const { token } = await install(target());
    for (let asked = 0; asked < 20; asked++) {
      expect((await asApp(target(), token, "/%FF")).status).toBe(400);
      expect((await asApp(target(), token, "/k", { method: "PUT", body: "1" })).status).toBe(405);
      expect((await asApp(target(), token, "/k", { method: "OPTIONS" })).status).toBe(204);
    }
    expect(parseRateLimit(await asApp(target(), token, "/_keys"))).toMatchObject({ remaining: 9 });
  });

  test("the token counts wherever it stands", async () => {
    const { token } = await install(target());
    const body = JSON.stringify({ token, k: 1 });
    const ask = (path: string, init: TargetInit = {}) =>
      target().fetch(`/kv/token${path}`, { ...init, headers: { ...WITHOUT_AUTHORIZATION, ...init.headers } });
    await asApp(target(), token, "/k", { method: "POST", body: "1" });
    await ask("/k", { method: "POST", body: "1", headers: { "X-App-Token": token } });
    await ask(`/k?token=${token}`, { method: "POST", body: "1" });
    expect(parseRateLimit(await ask("/k", { method: "POST", body }))).toMatchObject({ remaining: 3 });
  });

  test("rotation does not give a burst back", async () => {
    const app = await install(target());
    for (let asked = 0; asked < 10; asked++) await asApp(target(), app.token, "/_info");
    const rotated = await administer(target(), "POST", `/installations/${app.id}/rotate`);
    const { token } = (await rotated.json()) as { token: string };
    await expectLimited(await asApp(target(), token, "/_info"), 10);
  });

  test("a request that is refused for its rate changes nothing", async () => {
    const app = await install(target());
    for (let asked = 0; asked < 7; asked++)
      await asApp(target(), app.token, "/k", { method: "POST", body: `${asked}` });
    await expectLimited(await asApp(target(), app.token, "/k", { method: "POST", body: "99" }), 7);
    await expectLimited(await asApp(target(), app.token, "/new", { method: "POST", body: "99" }), 7);
    expect(await (await asApp(target(), app.token, "/k")).text()).toBe("6");
    expect((await asApp(target(), app.token, "/new")).status).toBe(404);
  });

  test("neither the operator's routes nor the KV ones are limited or counted", async () => {
    const app = await install(target());
    for (let asked = 0; asked < 20; asked++) {
      const response = await target().fetch(`/${app.uuid}/k`);
      expect([response.status, response.headers.get("ratelimit")]).toEqual([404, null]);
      const shown = await administer(target(), "GET", `/installations/${app.id}`);
      expect([shown.status, shown.headers.get("ratelimit")]).toEqual([200, null]);
    }
    expect(parseRateLimit(await asApp(target(), app.token, "/_keys"))).toMatchObject({ remaining: 9 });
  });
}

function headerTests(target: () => Target, unlimited: () => Target): void {
  test("every authenticated answer says how many requests are left, in the form that clients parse", async () => {
    const app = await install(target(), { permissionPrefix: "p" });
    for (const [path, init, status, limit] of [
      ["/_keys", {}, 200, 1024],
      ["/", {}, 200, 1024],
      ["/_info", {}, 200, 1024],
      ["/_token", {}, 200, 1024],
      ["/p.k", { method: "POST", body: "1" }, 200, 512],
      ["/p.k", {}, 200, 1024],
      ["/p.k", { method: "HEAD" }, 200, 1024],
      ["/p.k", { headers: { "If-None-Match": "*" } }, 304, 1024],
      ["/p.k/metadata", {}, 200, 1024],
      ["/p.k", { method: "POST", body: "1", headers: { "If-Match": '"999"' } }, 412, 512],
      ["/other", {}, 403, 1024],
      ["/p.none", {}, 404, 1024],
      ["/p.k", { method: "POST", body: "{" }, 400, 512],
      ["/p.k", { method: "POST", body: `"${"x".repeat(1024 * 1024)}"` }, 413, 512],
      ["/_batchimport", { method: "POST", body: '{"p.a":1}' }, 200, 128],
      ["/p.k", { method: "DELETE" }, 204, 256],
      ["/", { method: "DELETE" }, 403, 256],
    ] as const) {
      const response = await asApp(target(), app.token, path, init);
      expect([path, response.status]).toEqual([path, status]);
      expect(response.headers.get("ratelimit")).toMatch(/^limit=\d+, remaining=\d+, reset=\d+$/);
      expect(response.headers.get("ratelimit-policy")).toBe(`${limit};w=60`);
      const parsed = parseRateLimit(response)!;
      expect(parsed.limit).toBe(limit);
      expect(parsed.remaining).toBeGreaterThanOrEqual(limit - 20);
      expect(parsed.remaining).toBeLessThan(limit);
      const untilReset = parsed.reset!.getTime() - Date.now();
      expect(untilReset).toBeGreaterThan(-1000);
      expect(untilReset).toBeLessThan(60_000);
    }
  });

  test("an answer to nobody in particular says nothing of limits", async () => {
    const { token } = await install(target());
    for (const [path, init] of [
      ["/k", { headers: { Authorization: "Bearer revoked-token-000" } }],
      ["/k", { headers: WITHOUT_AUTHORIZATION }],
      ["/k", { method: "OPTIONS" }],
      ["/k", { method: "PUT", body: "1" }],
    ] as const) {
      const { headers } = await asApp(target(), token, path, init);
      expect([headers.get("ratelimit"), headers.get("ratelimit-policy")]).toEqual([null, null]);
    }
  });

  test("a limit of 0 is no limit, and its headers are gone", async () => {
    const app = await install(unlimited());
    for (const [, , ask] of KINDS) {
      const answers = await Promise.all(Array.from({ length: 150 }, () => ask(unlimited(), app)));
      expect(answers.some(({ status }) => status === 429)).toBe(false);
      const { headers } = answers[0]!;
      expect([headers.get("ratelimit"), headers.get("ratelimit-policy")]).toEqual([null, null]);
    }
  });
}

function guessTests(target: () => Target): void {
  const guess = (forwardedFor: string, init: TargetInit = {}) =>
    asApp(target(), `kvt_${"A".repeat(43)}`, "/k", {
      ...init,
      headers: { ...init.headers, "X-Forwarded-For": forwardedFor },
    });

  test("after the last one in a minute further failures are 429, and a valid token goes on", async () => {
    const app = await install(target());
    for (let asked = 0; asked < 6; asked++) expect((await guess("203.0.113.1")).status).toBe(401);
    const refused = await guess("203.0.113.1");
    await expectLimited(refused, null);
    expect(refused.headers.get("www-authenticate")).toBeNull();
    const headers = { "X-Forwarded-For": "203.0.113.1" };
    expect((await asApp(target(), app.token, "/_info", { headers })).status).toBe(200);
    expect((await guess("203.0.113.2")).status).toBe(401);
  });

  test("every way to fail counts: no token, a malformed one, two of them, a body without one", async () => {
    const ask = async (path: string, init: TargetInit) => {
      const headers = { ...WITHOUT_AUTHORIZATION, "X-Forwarded-For": "203.0.113.3", ...init.headers };
      return (await target().fetch(`/kv/token${path}`, { ...init, headers })).status;
    };
    const statuses = [
      await ask("/k", {}),
      await ask("/k", { headers: { Authorization: "Bearer short" } }),
      await ask("/k?token=aaaaaaaaaaaaaaaa&token=aaaaaaaaaaaaaaaa", {}),
      await ask("/k", { method: "POST", body: '{"token":"short"}' }),
      await ask("/k", { method: "POST", body: "[]" }),
      await ask("/k", { method: "POST", body: `{"token":"${"B".repeat(20)}"}` }),
    ];
    expect(statuses).toEqual([401, 401, 401, 401, 401, 401]);
    expect(await ask("/k", {})).toBe(429);
    expect(await ask("/k", { method: "POST", body: "[]" })).toBe(429);
  });

  test("IPv6 clients are counted by their /64, however its addresses are written", async () => {
    const sameNetwork = ["2001:db8:1:2::1", "2001:db8:1:2::2", "2001:0DB8:0001:0002:ffff:ffff:ffff:ffff"];
    sameNetwork.push("2001:db8:1:2:0:0:0:9", "2001:db8:1:2:a:b:c:d", "2001:db8:1:2:1::");
    for (const address of sameNetwork) expect([address, (await guess(address)).status]).toEqual([address, 401]);
    expect((await guess("2001:db8:1:2:7::7")).status).toBe(429);
    expect((await guess("2001:db8:1:3::1")).status).toBe(401);
    expect((await guess("2001:db8:1::1")).status).toBe(401);
    for (const address of ["::1:2", "::1", "0:0:0:0:5::", "::ffff:0:0:5"]) await guess(address);
    expect((await guess("::")).status).toBe(401);
    expect((await guess("::9")).status).toBe(401);
    expect((await guess("::8")).status).toBe(429);
    for (const address of ["2001:0:0:1:2:3:4:5", "2001:0:0:1::", "2001::1:0:0:7:8"]) {
      for (let asked = 0; asked < 2; asked++) expect([address, (await guess(address)).status]).toEqual([address, 401]);
    }
    expect((await guess("2001:0:0:1:9:9:9:9")).status).toBe(429);
    expect((await guess("2001:0:0:2:2:3:4:5")).status).toBe(401);
    for (let asked = 0; asked < 6; asked++) expect((await guess("::ffff:198.51.100.7")).status).toBe(401);
    expect((await guess("198.51.100.7")).status).toBe(429);
  });
}

function manyGuessesTests(target: () => Target): void {
  test("ten thousand wrong tokens from one address end in 429, a valid token from it is never refused", async () => {
    const app = await install(target());
    const statuses = new Map<number, number>();
    const startMs = performance.now();
    const refusedValid: number[] = [];
    for (let round = 0; round < 100; round++) {
      const guesses = Array.from({ length: 100 }, async (_, index) => {
        const { status } = await asApp(target(), `guess-${round}-${index}-aaaaaaaaaaaaaa`, "/k");
        statuses.set(status, (statuses.get(status) ?? 0) + 1);
      });
      await Promise.all(guesses);
      const { status } = await asApp(target(), app.token, "/_info");
      if (status !== 200) refusedValid.push(status);
    }
    expect(refusedValid).toEqual([]);
    expect([...statuses.keys()].toSorted()).toEqual([401, 429]);
    // The burst of a minute, and what has come back while this ran: two in a second.
    expect(statuses.get(401)).toBeGreaterThanOrEqual(120);
    expect(statuses.get(401)).toBeLessThanOrEqual(121 + (2 * (performance.now() - startMs)) / 1000);
  }, 240_000);
}

/** A refusal for the rate; `limit` is told when the token was a valid one. */
export async function expectLimited(response: Response, limit: number | null): Promise<void> {
  const text = await response.text();
  const { message } = JSON.parse(text) as { message: string };
  expect([response.status, text]).toEqual([429, JSON.stringify({ statusCode: 429, message, code: "rate_limited" })]);
  expect(message).not.toBe("");
  expect(response.headers.get("retry-after")).toMatch(/^[1-9]\d*$/);
  expect(Number(response.headers.get("retry-after"))).toBeLessThanOrEqual(60);
  if (limit === null) expect(response.headers.get("ratelimit")).toBeNull();
  else {
    expect(response.headers.get("ratelimit")).toMatch(new RegExp(`^limit=${limit}, remaining=0, reset=\\d+$`));
    expect(response.headers.get("ratelimit-policy")).toBe(`${limit};w=60`);
  }
}
