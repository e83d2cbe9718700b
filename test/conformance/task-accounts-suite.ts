// Accounts: registering, logging in, the profile, and the end of an account.

import { describe, expect, test } from "bun:test";
import { alterStore } from "../support/alter-store.ts";
import { queryStore } from "../support/query-store.ts";
import type { OpenTarget, Target } from "../support/targets.ts";
import { type Account, ask, createTask, logIn, signUp, type Task, UNLIMITED } from "../support/task-client.ts";
import { useTarget } from "../support/use-target.ts";

const PASSWORD = "password123";

export function taskAccountsSuite(name: string, open: OpenTarget): void {
  describe(`accounts of the task service on ${name}`, () => {
    firstStepsTests(useTarget(open, UNLIMITED));
    namesTests(useTarget(open, UNLIMITED));
    profileTests(useTarget(open, UNLIMITED));
    deletionTests(useTarget(open, UNLIMITED));
    closedTests(useTarget(open, { ...UNLIMITED, TASK_REGISTRATION: "closed", PASSWORD_MIN: "10" }));
  });
}

const register = (target: Target, body: unknown) => ask(target, "POST", "/auth/register", { body });
const answerOf = async (response: Response) => [response.status, await response.json()] as const;

function firstStepsTests(target: () => Target): void {
  test("the first user registers and logs in with what the documents show, in any case of the address", async () => {
    const registered = await register(
      target(),
      '{"username":"alice","email":"alice@example.com","password":"password123"}',
    );
    expect(await answerOf(registered)).toEqual([
      201,
      {
        message: "User registered successfully",
        user: { id: 1, username: "alice", email: "alice@example.com" },
      },
    ]);
    const login = await ask(target(), "POST", "/auth/login", {
      body: '{"email":"Alice@example.com","password":"password123"}',
      // As curl -d sends it.
      headers: { "Content-Type": "application/x-www-form-urlencoded" },
    });
    expect(login.headers.get("cache-control")).toBe("no-store");
    const [status, body] = await answerOf(login);
    expect([status, Object.keys(body as object)]).toEqual([
      200,
      ["token", "user", "refresh_token", "expires_in", "token_type"],
    ]);
    expect(body).toEqual({
      token: expect.stringMatching(/^eyJ/),
      user: { id: 1, username: "alice", email: "alice@example.com" },
      refresh_token: expect.stringMatching(/^rt_[\w-]{43}$/),
      expires_in: 900,
      token_type: "Bearer",
    });
    const { token } = body as { token: string };
    const claims = JSON.parse(Buffer.from(token.split(".")[1]!, "base64url").toString());
    expect(claims).toMatchObject({ user_id: 1, email: "alice@example.com", sub: "1" });
    expect(claims.exp - claims.iat).toBe(900);
    expect((await ask(target(), "GET", "/tasks", { token })).status).toBe(200);
    const me = await ask(target(), "GET", "/auth/me", { token });
    const time = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
    expect(await answerOf(me)).toEqual([
      200,
      { id: 1, username: "alice", email: "alice@example.com", created_at: time, updated_at: time },
    ]);
  });

  test("what is wrong with a registration is said member by member, in plain words", async () => {
    const good = { username: "carol", email: "carol@example.com", password: PASSWORD };
    const wrong: readonly (readonly [member: string, value: unknown, words: string])[] = [
      ["username", "ab", "must have at least 3 characters"],
      ["username", "a".repeat(21), "must have at most 20 characters"],
      ["username", "tab\there", "must not hold control characters"],
      ["username", 7, "must be a string"],
      ["email", "not-an-address", "must be an e-mail address"],
      ["email", "a@b", "must be an e-mail address"],
      ["password", "12345", "must have at least 6 characters"],
      ["password", "密".repeat(129), "must have at most 128 characters"],
      ["password", undefined, "required"],
      ["role", "admin", "unknown"],
    ];
    for (const [member, value, words] of wrong) {
      const refused = await register(target(), { ...good, [member]: value });
      expect(await answerOf(refused)).toEqual([
        400,
        { error: `${member}: ${words}`, code: "invalid_request", fields: { [member]: words } },
      ]);
    }
    const several = await register(target(), { username: "ab", email: "x" });
    expect(Object.keys(((await several.json()) as { fields: object }).fields)).toEqual([
      "username",
      "email",
      "password",
    ]);
    expect((await register(target(), "{")).status).toBe(400);
    expect((await register(target(), { ...good, email: `${"x".repeat(20_000)}@example.com` })).status).toBe(413);
  });

  test("the longest names and passwords of any script work", async () => {
    const [username, password] = ["🙂".repeat(20), "密".repeat(128)];
    const body = { username, email: "  long@example.com ", password };
    const registered = await register(target(), body);
    expect(registered.status).toBe(201);
    expect(((await registered.json()) as { user: object }).user).toMatchObject({ username, email: "long@example.com" });
    expect((await logIn(target(), "long@example.com", password)).username).toBe(username);
    const other = await ask(target(), "POST", "/auth/login", {
      body: { email: body.email, password: "密".repeat(127) },
    });
    expect(await answerOf(other)).toEqual([401, { error: "invalid credentials", code: "invalid_credentials" }]);
  });

  test("an unknown address and a wrong password are refused with the same words", async () => {
    const { email } = await signUp(target());
    const attempts = [
      { email, password: "not-the-password" },
      { email: "nobody@example.com", password: PASSWORD },
      { email: "no address at all", password: PASSWORD },
      { email, password: "" },
    ];
    for (const body of attempts) {
      const refused = await ask(target(), "POST", "/auth/login", { body });
      expect(refused.headers.get("www-authenticate")).toBe("Bearer");
      expect(await answerOf(refused)).toEqual([401, { error: "invalid credentials", code: "invalid_credentials" }]);
    }
  });

  test("accounts outlive a restart, and so do their tokens", async () => {
    const { token, email, id } = await signUp(target());
    await target().restart();
    expect((await ask(target(), "GET", "/auth/me", { token })).status).toBe(200);
    expect((await logIn(target(), email, PASSWORD)).id).toBe(id);
  });
}

function namesTests(target: () => Target): void {
  test("an address or a name that differs in case or spacing only is taken", async () => {
    const { username, email } = await signUp(target(), "Taken");
    for (const same of [email, email.toUpperCase(), ` ${email} `]) {
      const refused = await register(target(), { username: "another", email: same, password: PASSWORD });
      expect(await answerOf(refused)).toEqual([409, { error: "email is already registered", code: "email_taken" }]);
    }
    for (const same of [username, "TAKEN", "ｔａｋｅｎ"]) {
      const refused = await register(target(), { username: same, email: "other@example.com", password: PASSWORD });
      expect(await answerOf(refused)).toEqual([409, { error: "username is already taken", code: "username_taken" }]);
    }
  });

  test("of twenty who register one address or one name at once, one does", async () => {
    const many = (body: (index: number) => object) =>
      Promise.all(
        Array.from({ length: 20 }, async (_, index) => {
          const answer = await register(target(), { password: PASSWORD, ...body(index) });
          return `${answer.status} ${((await answer.json()) as { code?: string }).code ?? "made"}`;
        }),
      );
    const addresses = await many((index) => ({ username: `racer${index}`, email: "Race@example.com" }));
    const names = await many((index) => ({ username: "racer", email: `racer${index}@example.com` }));
    const losers = (code: string) => Array.from({ length: 19 }, () => `409 ${code}`);
    expect(addresses.sort()).toEqual(["201 made", ...losers("email_taken")]);
    expect(names.sort()).toEqual(["201 made", ...losers("username_taken")]);
  });

  test("an account whose name or address holds what is not taken any more still logs in", async () => {
    const { id, password } = await signUp(target());
    const [username, email] = ["bo\u200db", "bob\u200b@example.com"];
    await alterStore(
      target().dbPath,
      `UPDATE task_user SET username = '${username}', username_key = '${username}', email = '${email}',
         email_key = '${email}' WHERE id = ${id}`,
    );
    expect(await logIn(target(), email, password)).toMatchObject({ id, username });
  });

  test("a user is found by the exact name in any case, and shows no address", async () => {
    const { token } = await signUp(target());
    const { id } = await signUp(target(), "Findable");
    const find = async (name: string) =>
      answerOf(await ask(target(), "GET", `/users?username=${encodeURIComponent(name)}`, { token }));
    expect(await find("fINDABLE")).toEqual([200, [{ id, username: "Findable" }]]);
    for (const name of ["Findabl", "Findable%", "%", "_indable", "nobody"]) expect(await find(name)).toEqual([200, []]);
    for (const query of ["", "?username=", "?name=x", "?username=a&username=b"]) {
      const refused = await ask(target(), "GET", `/users${query}`, { token });
      expect([query, refused.status]).toEqual([query, 400]);
    }
  });
}

function profileTests(target: () => Target): void {
  const me = (method: string, { token }: Pick<Account, "token">, body?: unknown) =>
    ask(target(), method, "/auth/me", { token, body });

  test("the name changes freely, the address with the password only", async () => {
    const alice = await signUp(target());
    const renamed = await me("PATCH", alice, { username: "Renamed" });
    expect([renamed.status, await renamed.json()]).toMatchObject([200, { username: "Renamed", email: alice.email }]);
    const moved = { email: "moved@example.com" };
    expect(await answerOf(await me("PATCH", alice, moved))).toEqual([
      400,
      { error: "current_password: required", code: "invalid_request", fields: { current_password: "required" } },
    ]);
    expect(await answerOf(await me("PATCH", alice, { ...moved, current_password: "wrong" }))).toEqual([
      403,
      { error: "wrong password", code: "wrong_password" },
    ]);
    const done = await me("PATCH", alice, { ...moved, current_password: alice.password });
    expect([done.status, await done.json()]).toMatchObject([200, { username: "Renamed", ...moved }]);
    expect((await logIn(target(), moved.email, alice.password)).id).toBe(alice.id);
    const old = await ask(target(), "POST", "/auth/login", { body: { email: alice.email, password: alice.password } });
    expect(old.status).toBe(401);
    // The old address is free.
    expect((await register(target(), { username: "heir", email: alice.email, password: PASSWORD })).status).toBe(201);
  });

  test("an address that is sent as it is needs no password, one that differs at all does", async () => {
    const alice = await signUp(target());
    const same = await me("PATCH", alice, { username: "Unmoved", email: ` ${alice.email}` });
    expect([same.status, await same.json()]).toMatchObject([200, { username: "Unmoved", email: alice.email }]);
    expect((await me("PATCH", alice, { email: alice.email.toUpperCase() })).status).toBe(400);
  });

  test("a name or address of somebody else is taken, one's own in another case is not", async () => {
    const [alice, bob] = [await signUp(target()), await signUp(target())];
    const taken = await me("PATCH", alice, { username: bob.username.toUpperCase() });
    expect(await taken.json()).toMatchObject({ code: "username_taken" });
    const both = await me("PATCH", alice, { email: bob.email, current_password: alice.password });
    expect([both.status, await both.json()]).toMatchObject([409, { code: "email_taken" }]);
    expect((await me("PATCH", alice, { username: alice.username.toUpperCase() })).status).toBe(200);
    for (const body of [{ username: "ab" }, { username: null }, { id: 7 }, { created_at: "2026-01-01T00:00:00Z" }]) {
      expect([body, (await me("PATCH", alice, body)).status]).toEqual([body, 400]);
    }
    expect((await me("PATCH", alice, {})).status).toBe(200);
  });
}

function deletionTests(target: () => Target): void {
  const remove = ({ token }: Account, current_password: unknown) =>
    ask(target(), "DELETE", "/auth/me", { token, body: { current_password } });

  test("of deletions of an account at once one is answered so, and no right password is called wrong", async () => {
    const alice = await signUp(target());
    const answers = await Promise.all(Array.from({ length: 3 }, () => remove(alice, alice.password)));
    expect(answers.map(({ status }) => status).sort()).toEqual([200, 401, 401]);
  });

  test("deleting an account needs its password, ends its tokens and frees its names at once", async () => {
    const alice = await signUp(target(), "Leaver");
    const elsewhere = await logIn(target(), alice.email, alice.password);
    expect((await remove(alice, "wrong")).status).toBe(403);
    expect((await remove(alice, undefined)).status).toBe(400);
    expect(await answerOf(await remove(alice, alice.password))).toEqual([200, { message: "Account deleted" }]);
    for (const token of [alice.token, elsewhere.token]) {
      expect((await ask(target(), "GET", "/auth/me", { token })).status).toBe(401);
    }
    for (const refresh_token of [alice.refreshToken, elsewhere.refreshToken]) {
      expect((await ask(target(), "POST", "/auth/refresh", { body: { refresh_token } })).status).toBe(401);
    }
    const login = { email: alice.email, password: alice.password };
    expect((await ask(target(), "POST", "/auth/login", { body: login })).status).toBe(401);
    const again = await signUp(target(), "leaver");
    expect(again.id).not.toBe(alice.id);
    expect((await ask(target(), "GET", "/tasks", { token: again.token })).status).toBe(200);
  });

  test("its name is shown nowhere any more, neither beside what it said nor in the store", async () => {
    const [alice, bob] = [await signUp(target(), "Departing"), await signUp(target())];
    const { id } = await createTask(target(), bob, { assignee_id: alice.id });
    const path = `/tasks/${id}/comments`;
    expect((await ask(target(), "POST", path, { token: alice.token, body: { body: "done" } })).status).toBe(201);
    expect((await remove(alice, alice.password)).status).toBe(200);
    const username = `deleted-${alice.id}`;
    const comments = await ask(target(), "GET", path, { token: bob.token });
    expect(await comments.json()).toMatchObject([{ user: { id: alice.id, username }, body: "done" }]);
    const rows = await queryStore(target().dbPath, `SELECT username, email FROM task_user WHERE id = ${alice.id}`);
    expect(rows).toEqual([{ username, email: "" }]);
    const found = await ask(target(), "GET", `/users?username=${username}`, { token: bob.token });
    expect(await found.json()).toEqual([]);
    const taken = await register(target(), { username, email: "imposter@example.com", password: PASSWORD });
    expect(await answerOf(taken)).toMatchObject([400, { fields: { username: "is kept for deleted accounts" } }]);
  });

  test("its tasks vanish for whoever was to do them, and it was to do none of others any more", async () => {
    const [alice, bob] = [await signUp(target()), await signUp(target())];
    const given = await createTask(target(), alice, { assignee_id: bob.id, title: "of the one who leaves" });
    const taken = await createTask(target(), bob, { assignee_id: alice.id, title: "for the one who leaves" });
    expect((await ask(target(), "GET", `/tasks/${given.id}`, { token: bob.token })).status).toBe(200);
    expect((await ask(target(), "GET", `/tasks/${taken.id}`, { token: alice.token })).status).toBe(200);
    expect((await remove(alice, alice.password)).status).toBe(200);
    expect((await ask(target(), "GET", `/tasks/${given.id}`, { token: bob.token })).status).toBe(404);
    const left = (await (await ask(target(), "GET", `/tasks/${taken.id}`, { token: bob.token })).json()) as Task;
    expect([left.assignee_id, left.version]).toEqual([null, taken.version + 1]);
    const list = (await (await ask(target(), "GET", "/tasks", { token: bob.token })).json()) as Task[];
    expect(list.map(({ id }) => id)).toEqual([taken.id]);
    const events = await ask(target(), "GET", `/tasks/${taken.id}/events`, { token: bob.token });
    expect(((await events.json()) as object[]).at(-1)).toMatchObject({
      type: "task.assigned",
      actor_id: alice.id,
      changes: { assignee_id: [alice.id, null] },
    });
    const assigned = await ask(target(), "PATCH", `/tasks/${taken.id}`, {
      token: bob.token,
      body: { assignee_id: alice.id },
    });
    expect([assigned.status, await assigned.json()]).toMatchObject([400, { code: "invalid_request" }]);
  });
}

function closedTests(target: () => Target): void {
  test("closed registration refuses, and the shortest password is the one that was set", async () => {
    const body = { username: "alice", email: "alice@example.com", password: "password123" };
    expect(await answerOf(await register(target(), body))).toEqual([
      403,
      { error: "registration is closed", code: "registration_closed" },
    ]);
    const create = (password: string) =>
      target().fetch("/_admin/task/users", { method: "POST", body: JSON.stringify({ ...body, password }) });
    expect((await create("password1")).status).toBe(400);
    expect((await create("password12")).status).toBe(201);
    expect((await logIn(target(), body.email, "password12")).username).toBe("alice");
  });
}
