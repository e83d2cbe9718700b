// Answers of the task API as values that can be compared.

import { expect } from "bun:test";
import type { Target } from "./targets.ts";
import { type Account, ask, type Task } from "./task-client.ts";

type By = Pick<Account, "token">;
type Asked = Pick<Target, "fetch">;

export interface Answer<T> {
  readonly status: number;
  readonly body: T;
  readonly headers: Headers;
}

/** As `by`; the body of the answer is parsed. */
export async function send<T>(
  target: Asked,
  { token }: By,
  method: string,
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<Answer<T>> {
  const answer = await ask(target, method, path, { token, body, headers });
  return { status: answer.status, body: (await answer.json()) as T, headers: answer.headers };
}

/** The body of an answer that must be 200. */
export async function sendOk<T = Task>(
  target: Asked,
  by: By,
  method: string,
  path: string,
  body?: unknown,
  headers?: Record<string, string>,
): Promise<T> {
  const answer = await send<T>(target, by, method, path, body, headers);
  expect(answer).toMatchObject({ status: 200 });
  return answer.body;
}

/** `status code`, with the members that are at fault: `400 invalid_request title`. */
export async function refusalBy(
  target: Asked,
  by: By,
  method: string,
  path: string,
  body?: unknown,
  headers?: Record<string, string>,
): Promise<string> {
  const answer = await send<{ error: string; code: string; fields?: object }>(target, by, method, path, body, headers);
  const { error, code, fields = {} } = answer.body;
  expect([typeof error, Object.keys(answer.body).slice(0, 2)]).toEqual(["string", ["error", "code"]]);
  return [answer.status, code, ...Object.keys(fields)].join(" ");
}

export interface TaskEvent {
  readonly id: number;
  readonly type: string;
  readonly actor_id: number | null;
  readonly version: number;
  readonly changes: Record<string, [unknown, unknown]>;
  readonly at: string;
}

export function eventsOf(target: Asked, by: By, taskId: number): Promise<TaskEvent[]> {
  return sendOk<TaskEvent[]>(target, by, "GET", `/tasks/${taskId}/events?limit=1000`);
}
