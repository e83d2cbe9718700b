// What the suites of the task API share: accounts, and requests as a client with an access token makes them.

import { expect } from "bun:test";
import type { Target, TargetInit } from "./targets.ts";
import { expectDocumented } from "./task-contract.ts";

/** Whatever can be asked over HTTP: a target of a suite, or a server that a test has started itself. */
type Asked = Pick<Target, "fetch">;

export const API = "/api/v1";

export interface Account {
  readonly id: number;
  readonly username: string;
  readonly email: string;
  readonly password: string;
  readonly token: string;
  readonly refreshToken: string;
}

/** No limit that a suite would run into: suites of limits set their own. */
export const UNLIMITED = {
  TASK_RATE_PER_MINUTE: "0",
  TASK_RATE_LOGIN: "0/1m",
  TASK_RATE_REGISTER: "0/1h",
  PASSWORD_MEMORY_KIB: "8192",
  PASSWORD_TIME: "1",
} as const;

/**
 * The answer is compared with the OpenAPI document. Without a token unless `init.headers` has one; a body that is no
 * string is sent as JSON.
 */
export async function ask(
  target: Asked,
  method: string,
  path: string,
  { body, token, headers = {}, ...init }: Omit<TargetInit, "body"> & { body?: unknown; token?: string | null } = {},
): Promise<Response> {
  const response = await target.fetch(`${API}${path}`, {
    method,
    ...init,
    ...(body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) }),
    headers: {
      Authorization: token == null ? null : `Bearer ${token}`,
      ...(body === undefined ? {} : { "Content-Type": "application/json" }),
      ...headers,
    },
  });
  await expectDocumented(method, `${API}${path}`, response);
  return response;
}

let accounts = 0;

/** A new user, logged in. */
export async function signUp(target: Asked, name?: string): Promise<Account> {
  const username = name ?? `user${Date.now().toString(36)}${(accounts++).toString(36)}`.slice(-20);
  const [email, password] = [`${username.toLowerCase()}@example.com`, "password123"];
  const registered = await ask(target, "POST", "/auth/register", { body: { username, email, password } });
  expect(registered.status).toBe(201);
  const { user } = (await registered.json()) as { user: { id: number } };
  return { ...(await logIn(target, email, password)), id: user.id, username };
}

export async function logIn(
  target: Asked,
  email: string,
  password: string,
): Promise<Omit<Account, "username"> & { readonly username: string }> {
  const answer = await ask(target, "POST", "/auth/login", { body: { email, password } });
  expect(answer.status).toBe(200);
  const { token, refresh_token, user } = (await answer.json()) as {
    token: string;
    refresh_token: string;
    user: { id: number; username: string };
  };
  return { id: user.id, username: user.username, email, password, token, refreshToken: refresh_token };
}

export interface Task {
  readonly id: number;
  readonly title: string;
  readonly description: string;
  readonly status: "pending" | "in_progress" | "completed";
  readonly priority: "low" | "medium" | "high";
  readonly user_id: number;
  readonly assignee_id: number | null;
  readonly labels: readonly string[];
  readonly due_date: string | null;
  readonly remind_at: string | null;
  readonly completed_at: string | null;
  readonly created_at: string;
  readonly updated_at: string;
  readonly version: number;
}

/** A new task of the account. */
export async function createTask(
  target: Asked,
  { token }: Pick<Account, "token">,
  fields: Record<string, unknown> = {},
): Promise<Task> {
  const answer = await ask(target, "POST", "/tasks", { token, body: { title: "A task", ...fields } });
  expect(answer.status).toBe(201);
  return (await answer.json()) as Task;
}
