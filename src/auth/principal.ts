// Who a verified operator token speaks for, and what that may touch.

import { AppError } from "../shared/errors.ts";

export type Right = "kv:read" | "kv:write" | "kv:delete" | "kv:list" | "relay:read" | "relay:write" | "admin";

const KV_RIGHTS: readonly Right[] = ["kv:read", "kv:write", "kv:delete", "kv:list"];
const OTHER_RIGHTS: readonly Right[] = ["relay:read", "relay:write", "admin"];

/** What the scope of a token may say; see rightsOf. */
export const SCOPE_WORDS: readonly string[] = [...KV_RIGHTS, "kv", ...OTHER_RIGHTS];

export interface Principal {
  /** Null = every right of every service: the plain token. */
  readonly rights: ReadonlySet<Right> | null;
  /** Bucket names, or prefixes when they end in `*`; null = all. */
  readonly buckets: readonly string[] | null;
  /** Keys must start with it; null = all. */
  readonly prefix: string | null;
  readonly subject: string | null;
  readonly tokenId: string | null;
}

/** The scope words of a token as rights. `kv` stands for all four; unknown words grant nothing. */
export function rightsOf(scope: string): ReadonlySet<Right> {
  const rights = new Set<Right>();
  for (const word of scope.split(" ")) {
    if (word === "kv") for (const right of KV_RIGHTS) rights.add(right);
    else if (([...KV_RIGHTS, ...OTHER_RIGHTS] as string[]).includes(word)) rights.add(word as Right);
  }
  return rights;
}

/** What `buckets` or `prefix` without `scope` leave: KV inside these limits, no administration. */
export function kvRights(): ReadonlySet<Right> {
  return new Set(KV_RIGHTS);
}

/** @throws AppError forbidden */
export function requireRight(principal: Principal, right: Right): void {
  if (principal.rights !== null && !principal.rights.has(right)) throw lacking(right);
}

/**
 * Management of the relay: `relay:write` holds `relay:read`, `admin` holds both. Buckets and prefixes speak of keys;
 * there is no part of a channel that they could stand for.
 * @throws AppError forbidden
 */
export function requireRelayRight(principal: Principal, right: "relay:read" | "relay:write"): void {
  const { rights, buckets, prefix } = principal;
  if (buckets !== null || prefix !== null) throw forbidden(right, NARROWED);
  if (rights === null || rights.has("admin") || rights.has("relay:write") || rights.has(right)) return;
  throw lacking(right);
}

/**
 * What concerns everything that is stored: no bucket and no prefix is a part of it.
 * @throws AppError forbidden
 */
export function requireAdmin(principal: Principal): void {
  requireRight(principal, "admin");
  if (principal.buckets !== null || principal.prefix !== null) throw forbidden("admin", NARROWED);
}

/** @throws AppError forbidden, for existing and missing keys alike */
export function requireKeyRight(principal: Principal, right: Right, bucket: string, key: string): void {
  requireRight(principal, right);
  requireBucket(principal, right, bucket);
  if (principal.prefix !== null && !key.startsWith(principal.prefix)) {
    throw forbidden(right, "This token is for keys with another prefix.");
  }
}

/** @throws AppError forbidden */
export function requireBucket(principal: Principal, right: Right, bucket: string): void {
  if (principal.buckets !== null && !principal.buckets.some((pattern) => covers(pattern, bucket))) {
    throw forbidden(right, "This token is not for this bucket.");
  }
}

/** For administration that no part of the keys could stand for. */
export const NARROWED = "This token is narrowed to buckets or a prefix, and may not do that.";

function covers(pattern: string, bucket: string): boolean {
  return pattern.endsWith("*") ? bucket.startsWith(pattern.slice(0, -1)) : bucket === pattern;
}

function lacking(right: Right): AppError {
  return forbidden(right, `This token may not do that: it needs ${right}.`);
}

/** Its message speaks of the token and the request, never of what is stored. */
function forbidden(right: Right, message: string): AppError {
  return new AppError("forbidden", message, { details: { scope: right } });
}
