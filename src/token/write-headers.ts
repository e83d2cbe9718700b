// What a write of the token API says beside its body.

import { MEDIA_TYPE_QUOTED, MEDIA_TYPE_TOKEN } from "../kv/entry-headers.ts";
import { CONTENT_TYPE_BYTES_MAX } from "../shared/bounds.ts";
import { AppError } from "../shared/errors.ts";

const CHARSET = 'charset=(?:utf-8|"utf-8")';
const OTHER_PARAMETER = `(?!charset=)${MEDIA_TYPE_TOKEN}=(?:${MEDIA_TYPE_TOKEN}|${MEDIA_TYPE_QUOTED})`;
const JSON_TYPE = new RegExp(
  `^(?:application/json|[\\w.+-]+/[\\w.+-]+\\+json)(?:[ \\t]*;(?:[ \\t]*(?:${CHARSET}|${OTHER_PARAMETER}))?)*[ \\t]*$`,
  "i",
);

/** @throws AppError invalid_content_type */
export function requireJsonType(headers: Headers): void {
  if (!headers.has("content-encoding") && isJsonType(headers.get("content-type"))) return;
  throw new AppError("invalid_content_type", "The body must be application/json in UTF-8, not encoded otherwise.");
}

function isJsonType(type: string | null): boolean {
  return type === null || type === "" || (type.length <= CONTENT_TYPE_BYTES_MAX && JSON_TYPE.test(type));
}
