// A request to the task service, as its routes are given it.

import type { AccessClaims } from "../auth/user-token.ts";
import { readBody } from "../http/read-body.ts";
import type { RequestScope } from "../http/request-scope.ts";
import { AppError } from "../shared/errors.ts";
import type { Eventually } from "../shared/eventual.ts";
import { isUuidV7 } from "../shared/uuids.ts";
import type { TaskServices } from "./task-services.ts";
import type { UserGate } from "./user-gate.ts";

export interface TaskRequest {
  readonly services: TaskServices;
  readonly scope: RequestScope;
  /** Of a verified access token whose session is live; null on the few routes that anybody may ask. */
  readonly who: AccessClaims | null;
  /** Of a route that users may ask, but others as well: why the access token does not count. */
  readonly refusal?: AppError;
  /** Segments of the path, as they were sent. */
  readonly params: Readonly<Record<string, string>>;
}

/** Of a route that needs a user. */
export interface UserRequest extends TaskRequest {
  readonly who: AccessClaims;
}

export type UserAct = (request: UserRequest) => Eventually<Response>;
type OpenAct = (request: TaskRequest) => Eventually<Response>;

/** One method of a route. `cost` counts against the rate limit of the user or the address. */
export type TaskRoute =
  | { readonly auth: "user"; readonly cost: number; readonly act: UserAct }
  | { readonly auth: "none" | "either"; readonly cost: number; readonly act: OpenAct };

export type TaskMethods = Readonly<Partial<Record<"GET" | "POST" | "PUT" | "PATCH" | "DELETE", TaskRoute>>>;
/** Patterns below `/api/v1`, by method. */
export type TaskRoutes = Readonly<Record<string, TaskMethods>>;

export function forUsers(act: UserAct, cost = 1): TaskRoute {
  return { auth: "user", cost, act };
}

export function forAnybody(act: OpenAct, cost = 1): TaskRoute {
  return { auth: "none", cost, act };
}

/** Counted by user when there is a valid access token, by address when there is none. */
export function forEither(act: OpenAct, cost = 1): TaskRoute {
  return { auth: "either", cost, act };
}

const ID = /^[1-9][0-9]{0,15}$/;

/** A number of a path. @throws AppError invalid_id */
export function parseId(text: string | undefined, what = "task"): number {
  const id = text !== undefined && ID.test(text) ? Number(text) : Number.NaN;
  if (Number.isSafeInteger(id)) return id;
  throw new AppError("invalid_id", `Invalid ${what} ID`);
}

/** A UUIDv7 of a path; anything else cannot be there. @throws AppError not_found */
export function requireUuid(text: string | undefined, what: string): string {
  if (text !== undefined && isUuidV7(text)) return text;
  throw new AppError("not_found", `${what} not found`);
}

const JSON_TYPES: ReadonlySet<string> = new Set([
  "application/json",
  "application/merge-patch+json",
  // What curl's -d says; the body is JSON all the same.
  "application/x-www-form-urlencoded",
]);

interface BodySource {
  readonly services: Pick<TaskServices, "budget" | "strangers"> & { readonly gate: Pick<UserGate, "isLive"> };
  readonly scope: RequestScope;
  readonly who: AccessClaims | null;
}

/**
 * The body as `parse` reads it (see request-bodies.ts), of somebody who is still signed in when all of it is there, or
 * of a stranger.
 * @throws AppError invalid_token, unsupported_media_type, body_too_large, overloaded, body_incomplete, and what `parse`
 * throws
 */
export async function readJsonBody<T>(
  { services: { budget, strangers, gate }, scope, who }: BodySource,
  bytesMax: number,
  parse: (bytes: Uint8Array) => T,
): Promise<T> {
  requireJsonType(scope);
  const isStranger = who === null;
  const body = await readBody(scope, bytesMax, isStranger ? strangers : budget, isStranger ? "stranger" : "user");
  try {
    // A body may take its time, and the session may have ended meanwhile.
    const isLive = isStranger || gate.isLive(who);
    if (isLive !== true && !(await isLive)) throw new AppError("invalid_token", "Invalid token");
    return parse(body.bytes);
  } finally {
    body.release();
  }
}

/** @throws AppError unsupported_media_type */
export function requireJsonType({ request }: RequestScope): void {
  const type = request.headers.get("content-type");
  if (type !== null && !JSON_TYPES.has(type.split(";")[0]!.trim().toLowerCase())) {
    throw new AppError("unsupported_media_type", "Send JSON, as application/json.");
  }
  if (request.headers.has("content-encoding")) {
    throw new AppError("unsupported_media_type", "The body must not be compressed.");
  }
}
