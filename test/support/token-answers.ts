// The answers of the token API, each checked as a whole: body, members and their order, headers.

import { expect } from "bun:test";
import { type ErrorCode, STATUS_BY_CODE } from "../../src/shared/errors.ts";
import type { TargetInit } from "./targets.ts";
import { type Asked, asApp } from "./token-client.ts";

/** No limit of these gets in the way of a test that asks often or fails often. */
export const WITHOUT_RATES = {
  TOKEN_RATE_READ: "0",
  TOKEN_RATE_WRITE: "0",
  TOKEN_RATE_DELETE: "0",
  TOKEN_RATE_BATCH: "0",
  TOKEN_RATE_AUTH_FAIL: "0",
};

export const ISO_TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;

/** What every answer of the token API carries, refusals too. */
export function expectAppHeaders({ headers }: Response): void {
  expect(headers.get("cache-control")).toBe("private, no-cache");
  expect(headers.get("referrer-policy")).toBe("no-referrer");
  expect(headers.get("x-content-type-options")).toBe("nosniff");
  expect(headers.get("x-request-id")).toMatch(/^[0-9a-f-]{36}$/);
}

/** A refusal of the token API with exactly this code. */
export async function expectRefusal(response: Response, code: ErrorCode): Promise<void> {
  const statusCode = STATUS_BY_CODE[code];
  const text = await response.text();
  const { message } = JSON.parse(text) as { message: string };
  expect([response.status, text]).toEqual([statusCode, JSON.stringify({ statusCode, message, code })]);
  expect(message.length).toBeGreaterThan(10);
  expect(response.headers.get("content-type")).toBe("application/json");
  expect(response.headers.get("www-authenticate")).toBe(statusCode === 401 ? "Bearer" : null);
  expectAppHeaders(response);
}

/** The body of a 200 as text, which is compared as sent: members, their order, no spaces. */
export async function textOf(response: Response): Promise<string> {
  const text = await response.text();
  expect([response.status, text]).toEqual([200, text]);
  expectAppHeaders(response);
  return text;
}

/** Stores `json` at `key`, a path segment or more, and returns whether that created it, and its times and tag. */
export async function store(
  target: Asked,
  token: string,
  key: string,
  json: string | Uint8Array<ArrayBuffer>,
  init: TargetInit = {},
): Promise<{ created: boolean; updatedAt: string; etag: string }> {
  const response = await asApp(target, token, `/${key}`, { method: "POST", body: json, ...init });
  const text = await textOf(response);
  const body = JSON.parse(text) as { namespace: string; key: string; created: boolean; updatedAt: string };
  expect(Object.keys(body)).toEqual(["namespace", "key", "created", "updatedAt"]);
  expect(body.updatedAt).toMatch(ISO_TIME);
  const etag = response.headers.get("etag");
  expect(etag).toMatch(/^"[1-9]\d*"$/);
  return { created: body.created, updatedAt: body.updatedAt, etag: etag! };
}

/** The stored value as text, or null for a 404. */
export async function storedText(target: Asked, token: string, key: string): Promise<string | null> {
  const response = await asApp(target, token, `/${key}`);
  if (response.status !== 404) return textOf(response);
  await expectRefusal(response, "key_not_found");
  return null;
}

/** A body that is sent in chunks, without its length. (The stream of a Blob is sent with it.) */
export function unannounced(text: string): ReadableStream<Uint8Array> {
  const bytes = new TextEncoder().encode(text);
  const middle = bytes.length >> 1;
  return new ReadableStream({
    start(controller) {
      controller.enqueue(bytes.subarray(0, middle));
      controller.enqueue(bytes.subarray(middle));
      controller.close();
    },
  });
}

/** All keys that the token may read, at most 1000. */
export async function keysOf(target: Asked, token: string): Promise<string[]> {
  const text = await textOf(await asApp(target, token, "/_keys?limit=1000"));
  return (JSON.parse(text) as { keys: string[] }).keys;
}

export interface BatchAnswer {
  readonly namespace: string;
  readonly total: number;
  readonly successful: number;
  readonly failed: number;
  readonly results: readonly { readonly key: string; readonly created: boolean }[];
  readonly errors?: readonly { readonly key: string; readonly error: string; readonly code: ErrorCode }[];
}

export async function importBatch(
  target: Asked,
  token: string,
  json: string,
  init: TargetInit = {},
): Promise<BatchAnswer> {
  const response = await asApp(target, token, "/_batchimport", { method: "POST", body: json, ...init });
  return JSON.parse(await textOf(response)) as BatchAnswer;
}
