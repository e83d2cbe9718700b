// Who is let in to the task API: the form of the header, and tokens that are for something else.

import { describe, expect, test } from "bun:test";
import { hkdfSync } from "node:crypto";
import { forgeToken, secondsFromNow, type TokenParts } from "../support/forge-token.ts";
import { sendRaw } from "../support/raw-request.ts";
import { makeToken } from "../support/relay-client.ts";
import { mint, type OpenTarget, SECRET, type Target } from "../support/targets.ts";
import { type Account, API, ask, signUp, UNLIMITED } from "../support/task-client.ts";
import { install } from "../support/token-client.ts";
import { useTarget } from "../support/use-target.ts";

const HEADER = { alg: "HS256", typ: "at+jwt" };
const ACCESS_KEY = new Uint8Array(hkdfSync("sha256", SECRET, new Uint8Array(0), "gokv/task/access/v1", 32));

export function taskGateSuite(name: string, open: OpenTarget): void {
  describe(`the gate of the task API on ${name}`, () => {
    const target = useTarget(open, UNLIMITED);
    headerTests(target);
    forgedTests(target);
    otherTokensTests(target);
  });
}

const claimsOf = (token: string) => JSON.parse(Buffer.from(token.split(".")[1]!, "base64url").toString());
const withHeader = (target: Target, Authorization: string) =>
  ask(target, "GET", "/auth/me", { headers: { Authorization } });

async function expectInvalid(what: string, answer: Response): Promise<void> {
  const { status, headers } = answer;
  expect([what, status, headers.get("www-authenticate"), await answer.json()]).toEqual([
    what,
    401,
    "Bearer",
    { error: "Invalid token", code: "invalid_token" },
  ]);
}

function headerTests(target: () => Target): void {
  test("without a header the answer asks for one, on every route that needs a user", async () => {
    const routes = [
      "GET /auth/me",
      "PATCH /auth/me",
      "DELETE /auth/me",
      "POST /auth/password",
      "POST /auth/logout-all",
      "GET /auth/sessions",
      "DELETE /auth/sessions/1",
      "GET /users",
      "GET /tasks",
      "POST /tasks",
      "GET /tasks/1",
      "PUT /tasks/1",
      "PATCH /tasks/1",
      "DELETE /tasks/1",
      "POST /tasks/1/restore",
      "GET /tasks/1/comments",
      "GET /labels",
      "GET /tasks/stats",
      "GET /tasks/stream",
      "GET /exports",
      "GET /jobs",
      "GET /webhooks",
    ];
    for (const route of routes) {
      const [method = "", path = ""] = route.split(" ");
      const answer = await ask(target(), method, path);
      expect([route, answer.status, answer.headers.get("www-authenticate"), await answer.json()]).toEqual([
        route,
        401,
        "Bearer",
        { error: "Authorization header required", code: "unauthorized" },
      ]);
    }
  });

  test("the scheme is Bearer in any case; a bare token, a comma, two tokens or two headers are refused", async () => {
    const { token } = await signUp(target());
    for (const scheme of ["Bearer", "bearer", "BEARER", "bEaReR"]) {
      expect([scheme, (await withHeader(target(), `${scheme} ${token}`)).status]).toEqual([scheme, 200]);
    }
    const refused = [
      token,
      `Basic ${token}`,
      `Bearer ${token},`,
      `Bearer ${token}, Bearer ${token}`,
      `Bearer ${token} ${token}`,
      `Bearer ${token}=`,
      "Bearer",
      "Bearer null",
      `Bearer Bearer ${token}`,
      `Bearer ${token}.${token}`,
    ];
    for (const header of refused) await expectInvalid(header, await withHeader(target(), header));
    const line = `Authorization: Bearer ${token}\r\n`;
    const head = `GET ${API}/auth/me HTTP/1.1\r\nHost: x\r\n`;
    expect((await sendRaw(target().url, `${head}${line}\r\n`)).statuses).toEqual([200]);
    expect((await sendRaw(target().url, `${head}${line}${line}\r\n`)).statuses).toEqual([401]);
  });

  test("a token stands in the header only", async () => {
    const { token } = await signUp(target());
    expect((await ask(target(), "GET", `/auth/me?access_token=${token}`)).status).toBe(401);
    expect((await ask(target(), "GET", "/auth/me", { headers: { Cookie: `token=${token}` } })).status).toBe(401);
  });
}

function forgedTests(target: () => Target): void {
  const forge = ({ token }: Account, parts: TokenParts = {}) =>
    forgeToken({ header: HEADER, payload: claimsOf(token), secret: ACCESS_KEY, ...parts });

  test("a token signed as no access token is, or with claims of none, is refused", async () => {
    const account = await signUp(target());
    const claims = claimsOf(account.token);
    const { exp: _, ...endless } = claims;
    expect((await withHeader(target(), `Bearer ${forge(account)}`)).status).toBe(200);
    const forged: Readonly<Record<string, string>> = {
      HS384: forge(account, { header: { ...HEADER, alg: "HS384" }, digest: "sha384" }),
      HS512: forge(account, { header: { ...HEADER, alg: "HS512" }, digest: "sha512" }),
      none: forge(account, { header: { ...HEADER, alg: "none" } }),
      "the raw secret": forge(account, { secret: SECRET }),
      "another audience": forge(account, { payload: { ...claims, aud: "kv" } }),
      "another issuer": forge(account, { payload: { ...claims, iss: "task" } }),
      "another type": forge(account, { header: { alg: "HS256", typ: "JWT" } }),
      "no end": forge(account, { payload: endless }),
      "an end that has come": forge(account, { payload: { ...claims, exp: secondsFromNow(-1) } }),
      "an unknown session": forge(account, { payload: { ...claims, sid: Bun.randomUUIDv7() } }),
      "another version": forge(account, { payload: { ...claims, ver: claims.ver + 1 } }),
      "another user's session": forge(account, { payload: { ...claims, sub: `${account.id + 1}` } }),
    };
    for (const [what, token] of Object.entries(forged)) {
      await expectInvalid(what, await withHeader(target(), `Bearer ${token}`));
    }
  });

  test("what a token says of an address is not believed", async () => {
    const account = await signUp(target());
    const payload = { ...claimsOf(account.token), email: "other@example.com", user_id: account.id + 1 };
    const answer = await withHeader(target(), `Bearer ${forge(account, { payload })}`);
    expect(await answer.json()).toMatchObject({ id: account.id, email: account.email });
  });
}

function otherTokensTests(target: () => Target): void {
  test("tokens of operators, apps and the relay, and refresh tokens, open nothing here", async () => {
    const { refreshToken } = await signUp(target());
    const app = await install(target());
    const relay = await makeToken(target());
    const others = { "an operator's": await mint(), "an app's": app.token, "the relay's": relay.key, refreshToken };
    for (const [whose, token] of Object.entries(others)) {
      await expectInvalid(whose, await ask(target(), "GET", "/tasks", { token }));
      await expectInvalid(whose, await ask(target(), "POST", "/auth/logout", { token }));
    }
  });

  test("a user's token opens no bucket, nothing of operators, of apps and of the relay", async () => {
    const { token } = await signUp(target());
    const headers = { Authorization: `Bearer ${token}` };
    const paths = [
      "/bucket/key",
      "/_list",
      "/metrics",
      "/_admin/task/users",
      "/_admin/task/tasks/1",
      "/api/kv/devices",
      "/api/channel",
      "/v1/models",
      "/kv/token/_info",
    ];
    for (const path of paths) {
      expect([path, (await target().fetch(path, { headers })).status]).toEqual([path, 401]);
    }
    expect((await target().fetch("/bucket/key", { method: "POST", body: "x", headers })).status).toBe(401);
  });
}
