// Where an app token may stand in a request, and which one counts.

import { AppError } from "../shared/errors.ts";
import { type JsonMember, membersNamed, parseJson } from "../shared/json-text.ts";
import type { TokenSource } from "../shared/setting-parsers.ts";
import { isToken } from "./app-token.ts";

/**
 * The token of the headers or the query, in this order, or null when none of them has one. A credential that is there
 * but wrong never leads to the next source.
 * @throws AppError token_invalid
 */
export function tokenOutsideBody(request: Request, sources: ReadonlySet<TokenSource>): string | null {
  if (sources.has("header")) {
    const fromHeader = bearerToken(request.headers) ?? (request.headers.get("x-app-token") || null);
    if (fromHeader !== null) return requireToken(fromHeader);
  }
  if (!sources.has("query")) return null;
  const fromQuery = queryToken(request.url);
  return fromQuery === null ? null : requireToken(fromQuery);
}

/**
 * The token of a body that is a JSON object: its member `token`, when that is a string. Null when there is none.
 * @throws AppError token_invalid when there are two
 */
export function tokenOfBody(text: string): string | null {
  const tokens = tokenMembers(text).map((member) => memberValue(text, member));
  if (tokens.length > 1) throw invalidToken();
  const [token] = tokens;
  return typeof token === "string" && token !== "" ? requireToken(token) : null;
}

/** The members that carry the accepted credential and so must not be stored. */
export function credentialMembers(text: string, credential: string): JsonMember[] {
  return tokenMembers(text).filter((member) => memberValue(text, member) === credential);
}

export function missingToken(): AppError {
  return new AppError("token_missing", "missing or invalid token");
}

/** Unknown, revoked and expired tokens get the same answer. */
export function invalidToken(): AppError {
  return new AppError("token_invalid", "missing or invalid token");
}

/** @throws AppError token_invalid for text that no lookup is worth */
function requireToken(text: string): string {
  if (!isToken(text)) throw invalidToken();
  return text;
}

/** Two headers reach us joined by a comma, which no token holds. */
function bearerToken(headers: Headers): string | null {
  const authorization = headers.get("authorization");
  if (authorization === null || authorization === "") return null;
  const token = /^Bearer +(.*)$/i.exec(authorization)?.[1];
  if (token === undefined && /,\s*Bearer\b/i.test(authorization)) throw invalidToken();
  return token || null;
}

/** @throws AppError token_invalid when it is given twice or malformed */
function queryToken(url: string): string | null {
  const start = url.indexOf("?");
  if (start < 0) return null;
  const values = url
    .slice(start + 1)
    .split("&")
    .filter((pair) => pair === "token" || pair.startsWith("token="))
    .map((pair) => pair.slice("token=".length));
  if (values.length > 1) throw invalidToken();
  try {
    return values[0] ? decodeURIComponent(values[0]) : null;
  } catch {
    throw invalidToken();
  }
}

/** Undefined for what is no string: only that is given to the parser, for it may be nested as deep as one likes. */
function memberValue(text: string, { valueStart, end }: JsonMember): unknown {
  return text[valueStart] === '"' ? parseJson(text.slice(valueStart, end)) : undefined;
}

function tokenMembers(text: string): JsonMember[] {
  return membersNamed(text, "token");
}
