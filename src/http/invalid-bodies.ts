// What the schemas of bodies find wrong with a member, in plain words.

import type { z } from "zod";

const KINDS: Readonly<Record<string, string>> = { array: "a list", int: "a whole number", object: "an object" };

/** Null for what has words of its own, or none. */
export function issueWords(issue: z.core.$ZodIssue): string | null {
  switch (issue.code) {
    case "invalid_type":
      return `must be ${KINDS[issue.expected] ?? `a ${issue.expected}`}`;
    case "too_small":
      return `must ${bound("at least", issue.minimum, issue.origin)}`;
    case "too_big":
      return `must ${bound("at most", issue.maximum, issue.origin)}`;
    case "invalid_value":
      return `must be one of ${issue.values.join(", ")}`;
    default:
      return null;
  }
}

function bound(side: string, limit: number | bigint, origin: string): string {
  const things = (name: string) => `have ${side} ${limit} ${name}${Number(limit) === 1 ? "" : "s"}`;
  if (origin === "array") return things("element");
  return origin === "string" ? things("character") : `be ${side} ${limit}`;
}
