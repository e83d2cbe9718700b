// The requests that most KV tests are made of, each with the checks that hold for every one of its answers.

import { expect } from "bun:test";
import type { ErrorCode } from "../../src/shared/errors.ts";
import type { Target, TargetInit } from "./targets.ts";

/** Bucket and key in one segment each, everything that could mean something to a URL encoded. */
export function keyPath(bucket: string, key: string): string {
  return `/${encodeURIComponent(bucket)}/${encodeURIComponent(key)}`;
}

/** Stores `value` and returns the ETag. Sends no content type that was not asked for. */
export async function put(
  target: Target,
  path: string,
  value: string | Uint8Array<ArrayBuffer> = "",
  headers: Record<string, string> = {},
): Promise<string> {
  const body = typeof value === "string" ? new TextEncoder().encode(value) : value;
  const response = await target.fetch(path, { method: "PUT", body, headers });
  expect([response.status, await response.text()]).toEqual([200, ""]);
  const etag = response.headers.get("etag");
  expect(etag).toMatch(/^"[1-9]\d*"$/);
  return etag!;
}

/** The value as text, or null when the key is missing. */
export async function read(target: Target, path: string): Promise<string | null> {
  const response = await target.fetch(path);
  if (response.status === 404) {
    await expectError(response, "key_not_found");
    return null;
  }
  expect(response.status).toBe(200);
  return response.text();
}

export async function remove(target: Target, path: string): Promise<void> {
  const response = await target.fetch(path, { method: "DELETE" });
  expect([response.status, await response.text()]).toEqual([200, ""]);
}

/** The JSON of a 200. */
export async function readJson<T>(target: Target, path: string, init?: TargetInit): Promise<T> {
  const response = await target.fetch(path, init);
  expect([path, response.status]).toEqual([path, 200]);
  expect(response.headers.get("content-type")).toBe("application/json");
  return (await response.json()) as T;
}

/** `parameters` as the query string of /_list; null leaves one out. */
export function listPath(parameters: Readonly<Record<string, string | number | null>> = {}): string {
  const given = Object.entries(parameters).filter(([, value]) => value !== null);
  return `/_list?${given.map(([name, value]) => `${name}=${encodeURIComponent(`${value}`)}`).join("&")}`;
}

export function list(
  target: Target,
  parameters: Readonly<Record<string, string | number | null>> = {},
): Promise<string[]> {
  return readJson<string[]>(target, listPath(parameters));
}

const STATUSES: Partial<Record<ErrorCode, number>> = {
  unauthorized: 401,
  forbidden: 403,
  key_not_found: 404,
  route_not_found: 404,
  method_not_allowed: 405,
  precondition_failed: 412,
  body_too_large: 413,
  range_not_satisfiable: 416,
  internal_error: 500,
  overloaded: 503,
};

/** Status, members and their order, headers: what every error answer has. All codes not listed above are 400. */
export async function expectError(response: Response, code: ErrorCode): Promise<void> {
  const statusCode = STATUSES[code] ?? 400;
  const text = await response.text();
  const message = (JSON.parse(text) as { message: string }).message;
  expect([response.status, text]).toEqual([statusCode, JSON.stringify({ statusCode, message, code })]);
  expect(message.length).toBeGreaterThan(10);
  expect(response.headers.get("content-type")).toBe("application/json");
  expect(response.headers.get("cache-control")).toBe("no-store");
  expect(response.headers.get("x-content-type-options")).toBe("nosniff");
  expect(response.headers.get("retry-after")).toBe(statusCode === 503 ? "1" : null);
}
