// Administration of accounts and tasks by operators.

import { describe, expect, test } from "bun:test";
import { mint, type OpenTarget, type Target } from "../support/targets.ts";
import { ask, createTask, logIn, signUp, UNLIMITED } from "../support/task-client.ts";
import { useTarget } from "../support/use-target.ts";

interface User {
  readonly id: number;
  readonly username: string;
  readonly email: string;
  readonly disabled: boolean;
}

export function taskAdminSuite(name: string, open: OpenTarget): void {
  describe(`administration of the task service on ${name}`, () => {
    usersTests(useTarget(open, UNLIMITED));
    listTests(useTarget(open, UNLIMITED));
    tasksTests(useTarget(open, UNLIMITED));
    rightsTests(useTarget(open, UNLIMITED));
  });
}

const administer = (target: Target, method: string, path: string, body?: unknown, token?: string) =>
  target.fetch(`/_admin/task${path}`, {
    method,
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    ...(token === undefined ? {} : { headers: { Authorization: `Bearer ${token}` } }),
  });
const answerOf = async (response: Response) => [response.status, await response.json()] as const;

function usersTests(target: () => Target): void {
  const time = expect.stringMatching(/Z$/);

  test("an operator makes an account, looks at it, and its owner logs in", async () => {
    const body = { username: "Made", email: "made@example.com", password: "password123" };
    const created = await administer(target(), "POST", "/users", body);
    const user = (await created.json()) as User;
    const { password, ...shown } = body;
    expect([created.status, user]).toEqual([
      201,
      {
        id: expect.any(Number),
        ...shown,
        disabled: false,
        created_at: time,
        updated_at: time,
        deleted_at: null,
      } as never,
    ]);
    expect(await answerOf(await administer(target(), "GET", `/users/${user.id}`))).toEqual([200, user]);
    expect((await logIn(target(), body.email, password)).id).toBe(user.id);
    const again = await administer(target(), "POST", "/users", body);
    expect(await answerOf(again)).toEqual([
      409,
      { statusCode: 409, message: "email is already registered", code: "email_taken" },
    ]);
    const bad = await administer(target(), "POST", "/users", { ...body, username: "x" });
    expect(await answerOf(bad)).toEqual([
      400,
      { statusCode: 400, message: "username: must have at least 3 characters", code: "invalid_request" },
    ]);
  });

  test("a disabled account is told so after its right password only, and its tokens end at once", async () => {
    const alice = await signUp(target());
    const disable = (disabled: boolean) => administer(target(), "PATCH", `/users/${alice.id}`, { disabled });
    expect(await answerOf(await disable(true))).toMatchObject([200, { id: alice.id, disabled: true }]);
    expect((await ask(target(), "GET", "/auth/me", { token: alice.token })).status).toBe(401);
    const login = (password: string) =>
      ask(target(), "POST", "/auth/login", { body: { email: alice.email, password } });
    expect(await answerOf(await login(alice.password))).toEqual([
      403,
      { error: "account is disabled", code: "account_disabled" },
    ]);
    expect((await login("wrong")).status).toBe(401);
    const refresh = { body: { refresh_token: alice.refreshToken } };
    expect((await ask(target(), "POST", "/auth/refresh", refresh)).status).toBe(401);
    expect(await answerOf(await disable(false))).toMatchObject([200, { disabled: false }]);
    expect((await ask(target(), "GET", "/auth/me", { token: alice.token })).status).toBe(401);
    expect((await logIn(target(), alice.email, alice.password)).id).toBe(alice.id);
  });

  test("a disabled account can be assigned nothing and is not found by name", async () => {
    const [alice, bob] = [await signUp(target()), await signUp(target())];
    await administer(target(), "PATCH", `/users/${bob.id}`, { disabled: true });
    const found = await ask(target(), "GET", `/users?username=${bob.username}`, { token: alice.token });
    expect(await found.json()).toEqual([]);
    const body = { title: "x", assignee_id: bob.id };
    expect((await ask(target(), "POST", "/tasks", { token: alice.token, body })).status).toBe(400);
  });

  test("a password from an operator ends the sessions; logging out says how many there were", async () => {
    const alice = await signUp(target());
    const changed = await administer(target(), "PATCH", `/users/${alice.id}`, { password: "by-the-operator" });
    expect(changed.status).toBe(200);
    expect((await ask(target(), "GET", "/auth/me", { token: alice.token })).status).toBe(401);
    await logIn(target(), alice.email, "by-the-operator");
    await logIn(target(), alice.email, "by-the-operator");
    const out = await administer(target(), "POST", `/users/${alice.id}/logout`);
    expect(await answerOf(out)).toEqual([200, { sessions: 2 }]);
    const short = await administer(target(), "PATCH", `/users/${alice.id}`, { password: "12345" });
    expect([short.status, await short.json()]).toMatchObject([400, { code: "invalid_request" }]);
  });

  test("a deleted account is gone from the list, shown by its number, and cannot be changed", async () => {
    const alice = await signUp(target());
    expect(await answerOf(await administer(target(), "DELETE", `/users/${alice.id}`))).toEqual([
      200,
      { message: "Account deleted" },
    ]);
    expect((await ask(target(), "GET", "/auth/me", { token: alice.token })).status).toBe(401);
    const shown = await administer(target(), "GET", `/users/${alice.id}`);
    expect(await shown.json()).toMatchObject({
      id: alice.id,
      username: `deleted-${alice.id}`,
      email: "",
      deleted_at: time,
    });
    const list = await administer(target(), "GET", `/users?q=${alice.username}`);
    expect(await list.json()).toEqual([]);
    for (const [method, path, body] of [
      ["DELETE", "", undefined],
      ["PATCH", "", { disabled: true }],
      ["POST", "/logout", undefined],
    ] as const) {
      const missing = await administer(target(), method, `/users/${alice.id}${path}`, body);
      expect(await answerOf(missing)).toEqual([404, { statusCode: 404, message: "user not found", code: "not_found" }]);
    }
  });

  test("what is no number, and nobody's number, is refused", async () => {
    for (const id of ["x", "0", "-1", "1e3", "01", `${2 ** 53}`]) {
      const refused = await administer(target(), "GET", `/users/${id}`);
      expect(await answerOf(refused)).toEqual([
        400,
        { statusCode: 400, message: "Invalid user ID", code: "invalid_id" },
      ]);
    }
    expect((await administer(target(), "GET", "/users/4294967296")).status).toBe(404);
    const allowed = await administer(target(), "PUT", "/users/1", {});
    expect([allowed.status, allowed.headers.get("allow")]).toEqual([405, "GET, PATCH, DELETE, HEAD, OPTIONS"]);
    expect((await administer(target(), "GET", "/nothing")).status).toBe(404);
  });
}

function listTests(target: () => Target): void {
  test("the list comes in pages, and can be searched by part of a name or an address in any case", async () => {
    const names = ["Anna", "annabel", "Bernd", "王小明", "under_score", "per%cent"];
    for (const [index, username] of names.entries()) {
      const body = {
        username,
        email: `mail-${index}@${index % 2 === 0 ? "even" : "odd"}.example`,
        password: "password",
      };
      expect((await administer(target(), "POST", "/users", body)).status).toBe(201);
    }
    const found = async (query: string) => {
      const answer = await administer(target(), "GET", `/users?${query}`);
      expect([query, answer.status]).toEqual([query, 200]);
      return { users: (await answer.json()) as User[], next: answer.headers.get("x-next-cursor") };
    };
    const search = async (text: string) =>
      (await found(`q=${encodeURIComponent(text)}`)).users.map(({ username }) => username);
    expect(await search("ANN")).toEqual(["Anna", "annabel"]);
    expect(await search("小明")).toEqual(["王小明"]);
    expect(await search("@odd.")).toEqual(["annabel", "王小明", "per%cent"]);
    expect(await search("%")).toEqual(["per%cent"]);
    expect(await search("_")).toEqual(["under_score"]);
    expect(await search("nobody")).toEqual([]);
    const walked: string[] = [];
    let cursor = "";
    do {
      const { users, next } = await found(`limit=2${cursor}`);
      expect(users.length).toBe(2);
      walked.push(...users.map(({ username }) => username));
      cursor = next === null ? "" : `&cursor=${next}`;
    } while (cursor !== "");
    expect(walked).toEqual(names);
    const linked: string[] = [];
    for (let path: string | null = "/_admin/task/users?q=example&limit=2"; path !== null; ) {
      const page: Response = await target().fetch(path);
      linked.push(...((await page.json()) as User[]).map(({ username }) => username));
      path = /^<(.*)>; rel="next"$/.exec(page.headers.get("link") ?? "")?.[1] ?? null;
    }
    expect(linked).toEqual(names);
    for (const query of ["limit=0", "limit=1001", "cursor=x", "cursor=-1", "page=2", "q=a&q=b"]) {
      expect([query, (await administer(target(), "GET", `/users?${query}`)).status]).toEqual([query, 400]);
    }
  });
}

function tasksTests(target: () => Target): void {
  test("an operator sees any task, deletes and restores it, and its owner is told", async () => {
    const alice = await signUp(target());
    const task = await createTask(target(), alice, { title: "hers", labels: ["red"] });
    const shown = await administer(target(), "GET", `/tasks/${task.id}`);
    expect(await answerOf(shown)).toEqual([200, { ...task, deleted_at: null }]);
    const deleted = await administer(target(), "DELETE", `/tasks/${task.id}`);
    expect(await answerOf(deleted)).toEqual([200, { message: "Task deleted successfully" }]);
    expect((await ask(target(), "GET", `/tasks/${task.id}`, { token: alice.token })).status).toBe(404);
    const gone = await administer(target(), "GET", `/tasks/${task.id}`);
    expect(await answerOf(gone)).toMatchObject([200, { id: task.id, deleted_at: expect.stringMatching(/Z$/) }]);
    const again = await administer(target(), "DELETE", `/tasks/${task.id}`);
    expect(await answerOf(again)).toEqual([404, { statusCode: 404, message: "task not found", code: "not_found" }]);
    const restored = await administer(target(), "POST", `/tasks/${task.id}/restore`);
    expect(await answerOf(restored)).toMatchObject([200, { id: task.id, version: 3, deleted_at: null }]);
    expect((await administer(target(), "POST", `/tasks/${task.id}/restore`)).status).toBe(409);
    const events = await ask(target(), "GET", `/tasks/${task.id}/events`, { token: alice.token });
    expect(((await events.json()) as object[]).slice(1)).toMatchObject([
      { type: "task.deleted", actor_id: null },
      { type: "task.restored", actor_id: null },
    ]);
    expect((await administer(target(), "GET", "/tasks/999999")).status).toBe(404);
    expect((await administer(target(), "GET", "/tasks/abc")).status).toBe(400);
  });
}

function rightsTests(target: () => Target): void {
  test("a token with limits needs the administrative scope", async () => {
    const statusWith = async (token: string) => (await administer(target(), "GET", "/users", undefined, token)).status;
    expect(await statusWith(await mint())).toBe(200);
    expect(await statusWith(await mint({ scope: "admin" }))).toBe(200);
    expect(await statusWith(await mint({ scope: "kv admin", buckets: ["a"] }))).toBe(200);
    for (const claims of [
      { scope: "kv" },
      { buckets: ["a"] },
      { prefix: "p" },
      { scope: "relay:write" },
      { scope: "" },
    ]) {
      expect([claims, await statusWith(await mint(claims))]).toEqual([claims, 403]);
    }
    expect(await statusWith("nonsense")).toBe(401);
    const { token } = await signUp(target());
    expect(await statusWith(token)).toBe(401);
    expect((await target().fetch("/_admin/task/users", { headers: { Authorization: null } })).status).toBe(401);
  });
}
