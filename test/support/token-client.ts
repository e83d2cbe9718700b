// What the suites of the token API share: devices and installations made as an operator does, requests as an app does.

import { expect } from "bun:test";
import { mint, type Target, type TargetInit } from "./targets.ts";

export interface Installed {
  readonly id: string;
  readonly uuid: string;
  readonly token: string;
}

export interface Rights {
  readonly permissionPrefix?: string | null;
  readonly permissionKey?: readonly string[];
  readonly isReadOnly?: boolean;
  readonly expiresAt?: string | null;
}

/** Whatever can be asked over HTTP: a target of a suite, or a server that a test has started itself. */
export type Asked = Pick<Target, "fetch">;

/** A server of a test's own, asked with the operator's token like the target of a suite. */
export async function operatorAt(url: string): Promise<Asked> {
  const operator = `Bearer ${await mint()}`;
  return {
    fetch(path, { headers = {}, ...init } = {}) {
      const sent = Object.entries({ Authorization: operator, ...headers }).filter((header) => header[1] !== null);
      return fetch(`${url}${path}`, { ...init, headers: sent as [string, string][] });
    },
  };
}

export const JSON_TYPE = { "Content-Type": "application/json" };
const APP_ID = "suite";

/** Sends a body as JSON with the operator's token. */
export function administer(target: Asked, method: string, path: string, body?: unknown): Promise<Response> {
  const sent = body === undefined ? {} : { body: JSON.stringify(body), headers: JSON_TYPE };
  return target.fetch(`/api/kv${path}`, { method, ...sent });
}

/** Installs an app of all suites on a device, which it makes when it is missing. */
export async function install(
  target: Asked,
  rights: Rights = {},
  uuid: string = crypto.randomUUID(),
): Promise<Installed> {
  expect((await administer(target, "POST", "/devices", { uuid })).status).toBeOneOf([201, 409]);
  expect((await administer(target, "POST", "/apps", { id: APP_ID, name: "Suite" })).status).toBeOneOf([201, 409]);
  const answer = await administer(target, "POST", "/installations", { deviceUuid: uuid, appId: APP_ID, ...rights });
  expect(answer.status).toBe(201);
  const { id, token } = (await answer.json()) as { id: string; token: string };
  return { id, uuid, token };
}

/** Asks as an app does, below /kv/token; `body` is JSON text unless a Content-Type says otherwise. */
export function asApp(target: Asked, token: string, path: string, init: TargetInit = {}): Promise<Response> {
  const type = init.body === undefined ? {} : JSON_TYPE;
  return target.fetch(`/kv/token${path}`, {
    ...init,
    headers: { Authorization: `Bearer ${token}`, ...type, ...init.headers },
  });
}
