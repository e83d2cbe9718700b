// Conditional requests (RFC 9110, section 13): from header text to something that can be judged.

import { parseTagList } from "../http/entity-tags.ts";
import { AppError } from "../shared/errors.ts";
import type { RevisionTags, WriteCondition } from "../storage/kv-engine.ts";

export function formatEtag(revision: number): string {
  return `"${revision}"`;
}

/** What formatEtag makes. */
const REVISION_TAG = /^"([1-9]\d{0,15})"$/;

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

/** The revisions that a list can equal; null when the header is absent. @throws AppError precondition_invalid */
export function parseTags(header: string | null, comparison: "strong" | "weak"): RevisionTags | null {
  return parseTagList(header, comparison, REVISION_TAG);
}
