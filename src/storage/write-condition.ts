// How a condition is judged, the same for reads on the main thread and writes inside a commit.

import type { RevisionTags, WriteCondition } from "./kv-engine.ts";

/** `revision` of the live entry, null when it is missing: nothing equals that, not even `*`. */
export function matchesRevision(tags: RevisionTags, revision: number | null): boolean {
  return revision !== null && (tags === "*" || tags.includes(revision));
}

export function holds({ ifMatch, ifNoneMatch }: WriteCondition, revision: number | null): boolean {
  if (ifMatch !== null && !matchesRevision(ifMatch, revision)) return false;
  return ifNoneMatch === null || !matchesRevision(ifNoneMatch, revision);
}
