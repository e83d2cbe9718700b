// Conditional requests (RFC 9110, section 13): from header text to something that can be judged.

import { CONDITION_BYTES_MAX, CONDITION_TAGS_MAX } from "../shared/bounds.ts";
import { AppError } from "../shared/errors.ts";
import type { RevisionTags, WriteCondition } from "../storage/kv-engine.ts";

export function formatEtag(revision: number): string {
  return `"${revision}"`;
}

/** An entity tag (section 8.8.3): opaque characters in quotes, perhaps weak. */
const TAG = /(W\/)?"([\x21\x23-\x7e\x80-\uffff]*)"/y;
const SEPARATOR = /[ \t]*,[ \t,]*/y;
/** Empty elements are passed over wherever they stand (RFC 9110, section 5.6.1.2). */
const EMPTY_ELEMENTS = /^[ \t]*,[ \t,]*/;
/** What our own tags look like. Any other tag is legal and equals none of them. */
const REVISION = /^[1-9]\d{0,15}$/;

/**
 * The condition of a write, or null when none is asked.
 * @throws AppError precondition_invalid; precondition_unsupported for If-Unmodified-Since, whose precision of one
 *   second would lose updates
 */
export function parseWriteCondition(headers: Headers): WriteCondition | null {
  if (headers.has("if-unmodified-since")) {
    throw new AppError("precondition_unsupported", "If-Unmodified-Since is too coarse to be safe; use If-Match.");
  }
  const ifMatch = parseTags(headers.get("if-match"), "strong");
  const ifNoneMatch = parseTags(headers.get("if-none-match"), "weak");
  return ifMatch === null && ifNoneMatch === null ? null : { ifMatch, ifNoneMatch };
}

/**
 * A list of tags as the revisions they can equal; null when the header is absent. Under strong comparison
 * (section 8.8.3.2) a weak tag equals nothing.
 * @throws AppError precondition_invalid
 */
export function parseTags(header: string | null, comparison: "strong" | "weak"): RevisionTags | null {
  if (header === null) return null;
  if (header.trim() === "*") return "*";
  if (header.length > CONDITION_BYTES_MAX) throw invalid();
  const revisions: number[] = [];
  let tags = 0;
  for (let at = EMPTY_ELEMENTS.exec(header)?.[0].length ?? 0; at < header.length; ) {
    TAG.lastIndex = at;
    const match = TAG.exec(header);
    if (match === null || ++tags > CONDITION_TAGS_MAX) throw invalid();
    const [, weak, opaque = ""] = match;
    if (REVISION.test(opaque) && (weak === undefined || comparison === "weak")) revisions.push(Number(opaque));
    at = TAG.lastIndex;
    if (at === header.length) break;
    SEPARATOR.lastIndex = at;
    if (!SEPARATOR.test(header)) throw invalid();
    at = SEPARATOR.lastIndex;
  }
  if (tags === 0) throw invalid();
  return revisions;
}

function invalid(): AppError {
  return new AppError(
    "precondition_invalid",
    `A condition is * or up to ${CONDITION_TAGS_MAX} quoted tags separated by commas, such as "42".`,
  );
}
