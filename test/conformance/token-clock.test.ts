// What the token API does by the clock, with one that stands still until it is moved: whole bursts, refills, expiry.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { parseRateLimit } from "ratelimit-header-parser";
import { openInProcessAt, type Target } from "../support/targets.ts";
import { asApp, type Installed, install } from "../support/token-client.ts";
import { expectLimited } from "./token-limits-suite.ts";

const MINUTE_MS = 60_000;
const START_MS = Date.now();

type Ask = (app: Installed) => Promise<Response>;

describe("with a clock that stands still", () => {
  let target: Target;
  let nowMs = START_MS;
  beforeAll(async () => {
    target = await openInProcessAt(() => nowMs)();
  });
  afterAll(() => target[Symbol.asyncDispose]());

  const kinds: readonly (readonly [kind: string, limit: number, ask: Ask])[] = [
    ["read", 1024, ({ token }) => asApp(target, token, "/k")],
    ["write", 512, ({ token }) => asApp(target, token, "/k", { method: "POST", body: "1" })],
    ["delete", 256, ({ token }) => asApp(target, token, "/k", { method: "DELETE" })],
    ["batch", 128, ({ token }) => asApp(target, token, "/_batchimport", { method: "POST", body: '{"k":1}' })],
  ];

  for (const [kind, limit, ask] of kinds) {
    test(`request ${limit + 1} of kind ${kind} is refused, one more passes for each share of the minute`, async () => {
      const app = await install(target);
      const neighbour = await install(target, {}, app.uuid);
      for (let asked = 0; asked < limit; asked++) {
        const response = await ask(app);
        expect(response.status).not.toBe(429);
        const reset = Math.ceil(((asked + 1) * 60) / limit);
        const expected = `limit=${limit}, remaining=${limit - 1 - asked}, reset=${reset}`;
        expect(response.headers.get("ratelimit")).toBe(expected);
        await response.arrayBuffer();
      }
      const refused = await ask(app);
      expect(refused.headers.get("retry-after")).toBe("1");
      expect(refused.headers.get("ratelimit")).toBe(`limit=${limit}, remaining=0, reset=60`);
      await expectLimited(refused, limit);
      expect(parseRateLimit(await ask(neighbour))).toMatchObject({ limit, remaining: limit - 1 });
      nowMs += Math.floor(MINUTE_MS / limit);
      await expectLimited(await ask(app), limit);
      nowMs += 1;
      expect((await ask(app)).status).not.toBe(429);
      await expectLimited(await ask(app), limit);
      nowMs += MINUTE_MS;
      expect(parseRateLimit(await ask(app))).toMatchObject({ limit, remaining: limit - 1 });
    }, 120_000);
  }

  test("failure 121 of an address in a minute is refused, a valid token is not", async () => {
    const app = await install(target);
    const fail = () => asApp(target, "revoked-token-000", "/k");
    for (let asked = 0; asked < 120; asked++) expect((await fail()).status).toBe(401);
    await expectLimited(await fail(), null);
    expect((await asApp(target, app.token, "/_info")).status).toBe(200);
    nowMs += 500;
    expect((await fail()).status).toBe(401);
    await expectLimited(await fail(), null);
  });

  test("a clock that is set back locks no token out", async () => {
    const app = await install(target);
    for (let asked = 0; asked < 128; asked++) await kinds[3]![2](app);
    nowMs -= 10 * MINUTE_MS;
    await expectLimited(await kinds[3]![2](app), 128);
    nowMs += 500;
    expect((await kinds[3]![2](app)).status).toBe(200);
    nowMs = START_MS + 10 * MINUTE_MS;
  });

  test("a token is accepted until the millisecond before it expires", async () => {
    const expiresAtMs = nowMs + MINUTE_MS;
    const app = await install(target, { expiresAt: new Date(expiresAtMs).toISOString() });
    const status = async () => (await asApp(target, app.token, "/_info")).status;
    expect(await status()).toBe(200);
    nowMs = expiresAtMs - 1;
    expect(await status()).toBe(200);
    nowMs = expiresAtMs;
    expect(await status()).toBe(401);
  });
});
