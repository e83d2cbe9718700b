// What a write of the token API says beside its body. What it would not get is refused: nobody is to rely on it.

import { MEDIA_TYPE_QUOTED, MEDIA_TYPE_TOKEN } from "../kv/entry-headers.ts";
import { CONTENT_TYPE_BYTES_MAX } from "../shared/bounds.ts";
import { AppError } from "../shared/errors.ts";

const CHARSET = 'charset=(?:utf-8|"utf-8")';
const OTHER_PARAMETER = `(?!charset=)${MEDIA_TYPE_TOKEN}=(?:${MEDIA_TYPE_TOKEN}|${MEDIA_TYPE_QUOTED})`;
const JSON_TYPE = new RegExp(
  `^(?:application/json|[\\w.+-]+/[\\w.+-]+\\+json)(?:[ \\t]*;(?:[ \\t]*(?:${CHARSET}|${OTHER_PARAMETER}))?)*[ \\t]*$`,
  "i",
);
const CONDITIONS = ["if-match", "if-none-match", "if-unmodified-since"];

/** @throws AppError invalid_content_type */
export function requireJsonType(headers: Headers): void {
  if (!headers.has("content-encoding") && isJsonType(headers.get("content-type"))) return;
  throw new AppError("invalid_content_type", "The body must be application/json in UTF-8, not encoded otherwise.");
}

function isJsonType(type: string | null): boolean {
  return type === null || type === "" || (type.length <= CONTENT_TYPE_BYTES_MAX && JSON_TYPE.test(type));
}

/** For a change of many keys, which no tag stands for. @throws AppError precondition_unsupported */
export function refuseConditions(headers: Headers): void {
  if (CONDITIONS.every((name) => !headers.has(name))) return;
  throw new AppError("precondition_unsupported", "Only a request about one key may have a condition.");
}

/** What an app stores has no expiry, and must not seem to have one. @throws AppError invalid_parameter */
export function refuseExpiry({ url, headers }: Request): void {
  const start = url.indexOf("?");
  const isGiven = headers.has("x-ttl") || (start >= 0 && new URLSearchParams(url.slice(start)).has("ttl"));
  if (isGiven) throw new AppError("invalid_parameter", "Entries of the token API have no time to live.");
}
