// If-Match on tasks (RFC 9110, section 13.1.1): from header text to the versions it names.

import { CONDITION_BYTES_MAX, CONDITION_TAGS_MAX } from "../shared/bounds.ts";
import { AppError } from "../shared/errors.ts";
import type { VersionMatch } from "./item-rules.ts";

/** An entity tag (section 8.8.3): opaque characters in quotes, perhaps weak. */
const TAG = /^(W\/)?"([\x21\x23-\x7e\x80-\uffff]*)"$/;
/** What our own tags look like; no other tag equals one of them. */
const VERSION = /^v([1-9]\d{0,14})$/;

/** Under the strong comparison of If-Match a weak tag equals nothing. @throws AppError precondition_invalid */
export function readVersionMatch(header: string | null): VersionMatch {
  if (header === null || header.trim() === "*") return header === null ? null : "*";
  // Commas inside of tags are legal, but none of ours has one: such a tag would be refused, not misread.
  const tags = header.split(",").map((part) => TAG.exec(part.trim()));
  if (header.length > CONDITION_BYTES_MAX || tags.length > CONDITION_TAGS_MAX || tags.includes(null)) {
    throw new AppError("precondition_invalid", 'If-Match is * or a list of quoted tags, such as "v3".');
  }
  return tags.flatMap((tag) => {
    const version = VERSION.exec(tag![2]!);
    return tag![1] === undefined && version !== null ? [Number(version[1])] : [];
  });
}
