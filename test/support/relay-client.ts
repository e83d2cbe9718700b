// What the suites of the relay share: channels and tokens made as an operator does, calls as a client makes them.

import { expect } from "bun:test";
import type { RelayRefusal } from "../../src/relay/relay-errors.ts";
import type { FaultUpstream } from "./fault-upstream.ts";
import type { Target, TargetInit } from "./targets.ts";

/** What a server needs to call an upstream on this machine. */
export const RELAY_ENV = { RELAY_ALLOW_CIDRS: "127.0.0.0/8" };

export type Json = Record<string, unknown>;

export interface ChannelJson extends Json {
  readonly id: number;
  readonly key: string;
  readonly status: number;
}

export interface TokenJson extends Json {
  readonly id: number;
  /** In full when the token was just made, masked otherwise. */
  readonly key: string;
}

/** A row of the usage log. */
export interface LogRowJson extends Json {
  readonly request_id: string;
  readonly status: number;
}

/** Sends a body as JSON with the operator's token; text goes as it is. */
export function manage(target: Target, method: string, path: string, body?: unknown): Promise<Response> {
  const sent = body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) };
  return target.fetch(path, { method, ...sent });
}

/** The JSON of a successful answer; null when it is empty. */
export async function managed<T = Json>(target: Target, method: string, path: string, body?: unknown): Promise<T> {
  const response = await manage(target, method, path, body);
  const text = await response.text();
  expect([method, path, response.ok, text]).toEqual([method, path, true, text]);
  return (text === "" ? null : JSON.parse(text)) as T;
}

/** The status and code of a refusal by the management, with its message. */
export async function refusalOf(answer: Response): Promise<{ status: number; code: string; message: string }> {
  const { statusCode, message, code } = (await answer.json()) as { statusCode: number; message: string; code: string };
  expect(statusCode).toBe(answer.status);
  return { status: statusCode, code, message };
}

/** A channel that leads to `upstream`. */
export function makeChannel(target: Target, upstream: FaultUpstream, fields: Json = {}): Promise<ChannelJson> {
  const channel = { type: "Custom", name: "channel", key: "sk-mock-aaaaaaaaaaaaaaaa", base_url: upstream.url };
  return managed<ChannelJson>(target, "POST", "/api/channel", { ...channel, ...fields });
}

/** A token with its key. */
export function makeToken(target: Target, fields: Json = {}): Promise<TokenJson> {
  return managed<TokenJson>(target, "POST", "/api/token", { name: "token", ...fields });
}

/** Without channels and tokens, as a new server is; ids go on. */
export async function clearRelay(target: Target): Promise<void> {
  for (const path of ["/api/channel", "/api/token"]) {
    for (const { id } of await managed<{ id: number }[]>(target, "GET", path)) {
      await managed(target, "DELETE", `${path}/${id}`);
    }
  }
}

/** Rows of the usage log, newest first; `query` as the route takes it. They come up to 100 ms after their answers. */
export async function readLog(target: Target, query = "limit=1000"): Promise<LogRowJson[]> {
  return (await managed<{ data: LogRowJson[] }>(target, "GET", `/api/log?${query}`)).data;
}

/** A call below `/v1` as a client makes it. A body makes it a POST; what is no text goes as JSON. Null: no token. */
export function ask(
  target: Target,
  key: string | null,
  path: string,
  body?: unknown,
  init: TargetInit = {},
): Promise<Response> {
  const text = typeof body === "string" ? body : JSON.stringify(body);
  return target.fetch(`/v1${path}`, {
    ...(body === undefined ? {} : { method: "POST", body: text }),
    ...init,
    headers: {
      Authorization: key === null ? null : `Bearer ${key}`,
      ...(body === undefined ? {} : { "Content-Type": "application/json" }),
      ...init.headers,
    },
  });
}

/** One chat completion; a `key` of null sends none. */
export function chat(target: Target, key: string | null, fields: Json = {}, init: TargetInit = {}): Promise<Response> {
  const body = { model: "mock-small", messages: [{ role: "user", content: "hi" }], ...fields };
  return ask(target, key, "/chat/completions", body, init);
}

/** The code of a refusal of the relay, null for a success. */
export async function chatCode(answer: Response): Promise<string | null> {
  const body = (await answer.json()) as { error?: { code: string } };
  return answer.ok ? null : body.error!.code;
}

export interface ErrorJson {
  readonly message: string;
  readonly type: string;
  readonly param: string | null;
  readonly code: string | null;
}

/** The error of an answer of the relay, after what holds for every one of them was checked. */
export async function relayErrorOf(answer: Response): Promise<ErrorJson> {
  const text = await answer.text();
  const { error, ...others } = JSON.parse(text) as { error: ErrorJson };
  expect(answer.headers.get("content-type")).toMatch(/^application\/json/);
  expect(others).toEqual({});
  expect(Object.keys(error)).toEqual(["message", "type", "param", "code"]);
  expect(error.message.length).toBeWithin(1, 2001);
  expectRelayHeaders(answer);
  return error;
}

/** What every answer of the relay has. */
export function expectRelayHeaders({ headers }: Response): void {
  expect(headers.get("x-request-id")).toMatch(/^[0-9a-f-]{36}$/);
  expect(headers.get("x-gokv-attempts")).toMatch(/^\d+$/);
  expect(headers.get("x-gokv-overhead-ms")).toMatch(/^\d+\.\d$/);
}

/** Checks status, type, code and param of a refusal of gokv's own. */
export async function expectRelayError(
  answer: Response,
  status: number,
  type: string,
  code: RelayRefusal,
  param: string | null = null,
): Promise<ErrorJson> {
  const error = await relayErrorOf(answer);
  expect([answer.status, error.type, error.code, error.param]).toEqual([status, type, code, param]);
  return error;
}

/** The data lines of an event stream, in their order. */
export function dataOf(text: string): string[] {
  const lines = text.split("\n").filter((line) => line.startsWith("data: "));
  return lines.map((line) => line.slice("data: ".length));
}
