// Entity tags (RFC 9110, sections 8.8.3 and 13.1): the lists of them that conditional requests send.

import { AppError } from "../shared/errors.ts";

const LIST_BYTES_MAX = 1024;
const LIST_TAGS_MAX = 16;

/** Opaque characters in quotes, perhaps weak. */
const TAG = /(?:W\/)?"[\x21\x23-\x7e\x80-\uffff]*"/g;
/** Empty elements are passed over wherever they stand (section 5.6.1.2). */
const LIST = new RegExp(`^[ \\t,]*${TAG.source}(?:[ \\t]*,[ \\t,]*${TAG.source})*[ \\t,]*$`);

/**
 * If-Match or If-None-Match as the numbers that `own`, the pattern of our own strong tags, finds in it; null when the
 * header is absent. Any other tag is legal and equals none of ours; so does a weak one under strong comparison.
 * @throws AppError precondition_invalid
 */
export function parseTagList(
  header: string | null,
  comparison: "strong" | "weak",
  own: RegExp,
): readonly number[] | "*" | null {
  if (header === null) return null;
  // What nearly all clients send.
  const only = own.exec(header)?.[1];
  if (only !== undefined) return [Number(only)];
  if (header.trim() === "*") return "*";
  const tags = header.length > LIST_BYTES_MAX ? null : tagsOf(header);
  if (tags === null || tags.length > LIST_TAGS_MAX) {
    throw new AppError(
      "precondition_invalid",
      `A condition is * or up to ${LIST_TAGS_MAX} ETags as they were sent, in quotes and separated by commas.`,
    );
  }
  return tags.flatMap((tag) => {
    const number = own.exec(comparison === "weak" ? opaqueTag(tag) : tag)?.[1];
    return number === undefined ? [] : [Number(number)];
  });
}

/** Whether the sender of If-None-Match has the answer with this tag already. A malformed list says nothing. */
export function isUnchanged(header: string | null, etag: string): boolean {
  if (header === null) return false;
  if (header === etag || header.trim() === "*") return true;
  return tagsOf(header)?.some((tag) => opaqueTag(tag) === opaqueTag(etag)) ?? false;
}

/** As they were sent; null for what is no list of tags. */
function tagsOf(header: string): readonly string[] | null {
  return LIST.test(header) ? header.match(TAG) : null;
}

/** What weak comparison (section 8.8.3.2) compares. */
function opaqueTag(tag: string): string {
  return tag.startsWith("W/") ? tag.slice(2) : tag;
}
