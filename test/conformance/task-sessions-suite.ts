// Sessions: refreshing, ending them here and elsewhere, and what ends with them.

import { describe, expect, test } from "bun:test";
import { requestHead } from "../support/keep-alive-connection.ts";
import { openRaw } from "../support/raw-request.ts";
import type { OpenTarget, Target } from "../support/targets.ts";
import { type Account, API, ask, createTask, logIn, signUp, UNLIMITED } from "../support/task-client.ts";
import { useTarget } from "../support/use-target.ts";

interface Pair {
  readonly token: string;
  readonly refresh_token: string;
}

interface Session {
  readonly id: string;
  readonly current: boolean;
  readonly revoked_reason: string | null;
}

type Ask = (who: Pick<Account, "token">, method: string, path: string, body?: unknown) => Promise<Response>;

export function taskSessionsSuite(name: string, open: OpenTarget): void {
  describe(`sessions of the task service on ${name}`, () => {
    const target = useTarget(open, UNLIMITED);
    const as: Ask = ({ token }, method, path, body) => ask(target(), method, path, { token, body });
    refreshTests(target);
    endTests(target, as);
    slowBodyTests(target);
    passwordTests(target, as);
    revocationTests(target, as);
  });
}

const refresh = (target: Target, refresh_token: unknown) =>
  ask(target, "POST", "/auth/refresh", { body: { refresh_token } });
const isLive = async (target: Target, token: string) =>
  (await ask(target, "GET", "/auth/me", { token })).status === 200;

async function refreshed(target: Target, token: string): Promise<Pair> {
  const answer = await refresh(target, token);
  expect(answer.status).toBe(200);
  return (await answer.json()) as Pair;
}

function refreshTests(target: () => Target): void {
  test("a refresh token gives a new pair, and its child the next", async () => {
    const { refreshToken, token } = await signUp(target());
    const answer = await refresh(target(), refreshToken);
    expect(answer.headers.get("cache-control")).toBe("no-store");
    const pair = (await answer.json()) as Pair;
    expect([answer.status, pair]).toMatchObject([200, { expires_in: 900, token_type: "Bearer" }]);
    expect(pair.refresh_token).not.toBe(refreshToken);
    for (const access of [token, pair.token]) expect(await isLive(target(), access)).toBe(true);
    const next = await refreshed(target(), pair.refresh_token);
    expect(await isLive(target(), next.token)).toBe(true);
  });

  test("ten refreshes at once all get the one child, and the session lives", async () => {
    const { refreshToken } = await signUp(target());
    const pairs = await Promise.all(Array.from({ length: 10 }, () => refreshed(target(), refreshToken)));
    expect(new Set(pairs.map(({ refresh_token }) => refresh_token)).size).toBe(1);
    for (const { token } of pairs) expect(await isLive(target(), token)).toBe(true);
    const next = await refreshed(target(), pairs[0]!.refresh_token);
    expect(await isLive(target(), next.token)).toBe(true);
  });

  test("a refresh whose answer was lost can be asked again, also after a restart", async () => {
    const { refreshToken } = await signUp(target());
    const pair = await refreshed(target(), refreshToken);
    await target().restart();
    expect((await refreshed(target(), refreshToken)).refresh_token).toBe(pair.refresh_token);
  });

  test("an old refresh token whose child was used ends its session, and no other", async () => {
    const alice = await signUp(target());
    const elsewhere = await logIn(target(), alice.email, alice.password);
    const child = await refreshed(target(), alice.refreshToken);
    const grandchild = await refreshed(target(), child.refresh_token);
    const reused = await refresh(target(), alice.refreshToken);
    expect([reused.status, await reused.json()]).toEqual([
      401,
      { error: "invalid refresh token", code: "invalid_refresh_token" },
    ]);
    for (const token of [alice.token, child.token, grandchild.token]) expect(await isLive(target(), token)).toBe(false);
    expect((await refresh(target(), grandchild.refresh_token)).status).toBe(401);
    expect(await isLive(target(), elsewhere.token)).toBe(true);
    const list = (await (await ask(target(), "GET", "/auth/sessions", { token: elsewhere.token })).json()) as Session[];
    expect(list.map(({ current, revoked_reason }) => ({ current, revoked_reason }))).toEqual([
      { current: true, revoked_reason: null },
      { current: false, revoked_reason: "refresh_reuse" },
    ]);
    const metrics = await (await target().fetch("/metrics")).text();
    expect(metrics).toMatch(/^gokv_task_refresh_reuse_total [1-9]/m);
  });

  test("what is no refresh token is refused, and ends nothing", async () => {
    const { token, refreshToken } = await signUp(target());
    for (const text of ["", "rt_", token, `${refreshToken} `, refreshToken.slice(3), `rt_${"A".repeat(43)}`]) {
      const refused = await refresh(target(), text);
      expect([text, refused.status, await refused.json()]).toMatchObject([
        text,
        401,
        { code: "invalid_refresh_token" },
      ]);
    }
    expect((await refresh(target(), 7)).status).toBe(400);
    expect((await ask(target(), "POST", "/auth/refresh")).status).toBe(400);
    expect((await ask(target(), "POST", `/auth/refresh?refresh_token=${refreshToken}`)).status).toBe(400);
    expect(await isLive(target(), token)).toBe(true);
  });
}

function endTests(target: () => Target, as: Ask): void {
  test("logging out ends this session, here and for its refresh token", async () => {
    const alice = await signUp(target());
    const elsewhere = await logIn(target(), alice.email, alice.password);
    const answer = await as(alice, "POST", "/auth/logout");
    expect([answer.status, await answer.json()]).toEqual([200, { message: "Logged out" }]);
    expect(await isLive(target(), alice.token)).toBe(false);
    expect((await refresh(target(), alice.refreshToken)).status).toBe(401);
    expect((await as(alice, "POST", "/auth/logout")).status).toBe(401);
    expect(await isLive(target(), elsewhere.token)).toBe(true);
  });

  test("a refresh token alone logs out, once; without any token nobody does", async () => {
    const alice = await signUp(target());
    const { refresh_token } = await refreshed(target(), alice.refreshToken);
    const logOut = () => ask(target(), "POST", "/auth/logout", { token: "expired", body: { refresh_token } });
    expect((await logOut()).status).toBe(200);
    expect(await isLive(target(), alice.token)).toBe(false);
    const again = await logOut();
    expect([again.status, await again.json()]).toMatchObject([401, { code: "invalid_refresh_token" }]);
    const nobody = await ask(target(), "POST", "/auth/logout");
    expect([nobody.status, await nobody.json()]).toEqual([
      401,
      { error: "Authorization header required", code: "unauthorized" },
    ]);
  });

  test("logging out everywhere ends all sessions and says how many", async () => {
    const alice = await signUp(target());
    const others = [
      await logIn(target(), alice.email, alice.password),
      await logIn(target(), alice.email, "password123"),
    ];
    await as(others[0]!, "POST", "/auth/logout");
    const answer = await as(alice, "POST", "/auth/logout-all");
    expect([answer.status, await answer.json()]).toEqual([200, { message: "Logged out everywhere", sessions: 2 }]);
    for (const { token } of [alice, ...others]) expect(await isLive(target(), token)).toBe(false);
    expect(await isLive(target(), (await logIn(target(), alice.email, alice.password)).token)).toBe(true);
  });

  test("the list shows where sessions are, which is this one, and how others ended", async () => {
    const alice = await signUp(target());
    const agent = { "User-Agent": "a browser" };
    const body = { email: alice.email, password: alice.password };
    const { token } = (await (await ask(target(), "POST", "/auth/login", { body, headers: agent })).json()) as Pair;
    const list = (await (await as({ token }, "GET", "/auth/sessions")).json()) as Session[];
    const time = expect.stringMatching(/Z$/);
    expect(list).toHaveLength(2);
    expect(list[0] as unknown).toEqual({
      id: expect.stringMatching(/^[\da-f]{8}-[\da-f]{4}-7/) as unknown as string,
      created_at: time,
      last_used_at: time,
      expires_at: time,
      ip: "127.0.0.1",
      user_agent: "a browser",
      current: true,
      revoked_at: null,
      revoked_reason: null,
    });
    expect(list[1]!.current).toBe(false);
    const revoked = await as({ token }, "DELETE", `/auth/sessions/${list[1]!.id}`);
    expect([revoked.status, await revoked.json()]).toEqual([200, { message: "Session revoked" }]);
    expect(await isLive(target(), alice.token)).toBe(false);
    expect((await refresh(target(), alice.refreshToken)).status).toBe(401);
    expect(((await (await as({ token }, "GET", "/auth/sessions")).json()) as Session[])[1]).toMatchObject({
      revoked_at: time,
      revoked_reason: "revoked",
    });
  });

  test("a session of somebody else, an unknown one and one that has ended are not there", async () => {
    const [alice, bob] = [await signUp(target()), await signUp(target())];
    const [own] = (await (await as(bob, "GET", "/auth/sessions")).json()) as Session[];
    for (const id of [own!.id, Bun.randomUUIDv7(), "1", "x"]) {
      const missing = await as(alice, "DELETE", `/auth/sessions/${id}`);
      expect([missing.status, await missing.json()]).toEqual([404, { error: "session not found", code: "not_found" }]);
    }
    expect(await isLive(target(), bob.token)).toBe(true);
    const elsewhere = await logIn(target(), bob.email, bob.password);
    expect((await as(elsewhere, "DELETE", `/auth/sessions/${own!.id}`)).status).toBe(200);
    expect((await as(elsewhere, "DELETE", `/auth/sessions/${own!.id}`)).status).toBe(404);
  });
}

function slowBodyTests(target: () => Target): void {
  test("a body that arrives after its session has ended is refused, and changes nothing", async () => {
    const alice = await signUp(target());
    const task = await createTask(target(), alice);
    const writes = [
      { method: "POST", path: "/tasks", body: '{"title":"late"}' },
      { method: "PATCH", path: `/tasks/${task.id}`, body: '{"title":"late"}' },
      { method: "POST", path: `/tasks/${task.id}/comments`, body: '{"body":"late"}' },
    ];
    const late = await Promise.all(
      writes.map(async ({ method, path, body }) => {
        const connection = await openRaw(target().url);
        const headers = { Authorization: `Bearer ${alice.token}`, "Content-Length": `${body.length}` };
        connection.send(requestHead(method, `${API}${path}`, headers) + body.slice(0, 5));
        return { connection, rest: body.slice(5) };
      }),
    );
    // Slower than their heads are to arrive.
    const elsewhere = await logIn(target(), alice.email, alice.password);
    expect((await ask(target(), "POST", "/auth/logout-all", { token: elsewhere.token })).status).toBe(200);
    for (const { connection, rest } of late) {
      using _ = connection;
      connection.send(rest);
      const answer = await connection.received(/\}$/);
      expect([answer.slice(0, 12), answer.split("\r\n\r\n")[1]]).toEqual([
        "HTTP/1.1 401",
        '{"error":"Invalid token","code":"invalid_token"}',
      ]);
    }
    const { token } = await logIn(target(), alice.email, alice.password);
    expect(await (await ask(target(), "GET", "/tasks", { token })).json()).toEqual([task]);
    expect(await (await ask(target(), "GET", `/tasks/${task.id}/comments`, { token })).json()).toEqual([]);
  });
}

function passwordTests(target: () => Target, as: Ask): void {
  test("changing the password needs the current one and leaves only this session, with a fresh pair", async () => {
    const alice = await signUp(target());
    const elsewhere = await logIn(target(), alice.email, alice.password);
    const change = (current_password: string, new_password: string) =>
      as(alice, "POST", "/auth/password", { current_password, new_password });
    const wrong = await change("wrong", "new-password");
    expect([wrong.status, await wrong.json()]).toEqual([403, { error: "wrong password", code: "wrong_password" }]);
    const short = await change(alice.password, "12345");
    expect([short.status, await short.json()]).toMatchObject([
      400,
      { fields: { new_password: "must have at least 6 characters" } },
    ]);
    const answer = await change(alice.password, "new-password");
    expect(answer.status).toBe(200);
    const pair = (await answer.json()) as Pair;
    expect(Object.keys(pair)).toEqual(["token", "refresh_token", "expires_in", "token_type"]);
    for (const token of [alice.token, elsewhere.token]) expect(await isLive(target(), token)).toBe(false);
    for (const token of [alice.refreshToken, elsewhere.refreshToken]) {
      expect((await refresh(target(), token)).status).toBe(401);
    }
    expect(await isLive(target(), pair.token)).toBe(true);
    expect(await isLive(target(), (await refreshed(target(), pair.refresh_token)).token)).toBe(true);
    const old = { email: alice.email, password: alice.password };
    expect((await ask(target(), "POST", "/auth/login", { body: old })).status).toBe(401);
    expect((await logIn(target(), alice.email, "new-password")).id).toBe(alice.id);
  });

  test("of two who change the password at once, one does", async () => {
    const alice = await signUp(target());
    const change = (new_password: string) =>
      as(alice, "POST", "/auth/password", { current_password: alice.password, new_password });
    const answers = await Promise.all([change("first-password"), change("second-password")]);
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1);
    expect(answers.filter(({ status }) => status === 401 || status === 403)).toHaveLength(1);
  });
}

/** What ends a session, as its user or an operator does it. */
const ENDINGS: Readonly<Record<string, (target: Target, account: Account) => Promise<Response>>> = {
  "logging out": (target, { token }) => ask(target, "POST", "/auth/logout", { token }),
  "logging out everywhere": (target, { token }) => ask(target, "POST", "/auth/logout-all", { token }),
  "changing the password": (target, { token, password }) =>
    ask(target, "POST", "/auth/password", { token, body: { current_password: password, new_password: password } }),
  "disabling the account": (target, { id }) =>
    target.fetch(`/_admin/task/users/${id}`, { method: "PATCH", body: '{"disabled":true}' }),
  "a password from an operator": (target, { id }) =>
    target.fetch(`/_admin/task/users/${id}`, { method: "PATCH", body: '{"password":"password123"}' }),
  "an operator who logs it out": (target, { id }) =>
    target.fetch(`/_admin/task/users/${id}/logout`, { method: "POST" }),
  "deleting the account": (target, { token, password }) =>
    ask(target, "DELETE", "/auth/me", { token, body: { current_password: password } }),
};

function revocationTests(target: () => Target, as: Ask): void {
  for (const [ending, end] of Object.entries(ENDINGS)) {
    test(`no request after ${ending} is let in, while others ask with the token all the time`, async () => {
      for (let round = 0; round < 3; round++) {
        const account = await signUp(target());
        let isOver = false;
        const load = Array.from({ length: 4 }, async () => {
          while (!isOver) await (await as(account, "GET", "/auth/me")).arrayBuffer();
        });
        expect((await end(target(), account)).status).toBe(200);
        const { status } = await as(account, "GET", "/auth/me");
        isOver = true;
        await Promise.all(load);
        expect(status).toBe(401);
        expect((await refresh(target(), account.refreshToken)).status).toBe(401);
      }
    });
  }
}
