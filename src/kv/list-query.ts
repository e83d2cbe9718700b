// The query of /_list: from parameters to what is to be listed, and the cursor that carries it to the next page.

import { pageLimit } from "../http/pagination.ts";
import { parseQuery } from "../http/query-parameters.ts";
import { DELIMITER_BYTES_MAX, LIST_PAGE_MAX } from "../shared/bounds.ts";
import { AppError } from "../shared/errors.ts";
import { boundAfterPrefix, earlierBound, laterBound } from "../storage/key-bounds.ts";

const flag = { enum: ["1"] };

/** What may stand in a query of /_list; the names here are the ones that are accepted. */
export const LIST_PARAMETERS = {
  bucket: { description: "List its keys; without it buckets are listed", schema: { type: "string" } },
  prefix: { description: "Only names that start with it", schema: { type: "string" } },
  start: { description: "From this name on, inclusive", schema: { type: "string" } },
  end: { description: "Up to this name, exclusive", schema: { type: "string" } },
  limit: { description: "Page size", schema: { type: "integer", minimum: 1, maximum: LIST_PAGE_MAX } },
  cursor: { description: "X-Next-Cursor of the page before", schema: { type: "string" } },
  reverse: { description: "Descending", schema: flag },
  delimiter: {
    description: `Names with it behind the prefix collapse into one; 1 to ${DELIMITER_BYTES_MAX} bytes`,
    schema: { type: "string", minLength: 1 },
  },
  details: { description: "Sizes, times and metadata, too", schema: flag },
  count: { description: "Only how many", schema: flag },
} as const;

type Parameter = keyof typeof LIST_PARAMETERS;
type Parameters = Partial<Record<Parameter, string>>;

const PARAMETERS = Object.keys(LIST_PARAMETERS) as Parameter[];

export interface ListQuery {
  /** Null = list the buckets. */
  readonly bucket: string | null;
  /** `lower <= name < upper` in byte order; null = no upper bound. */
  readonly lower: string;
  readonly upper: string | null;
  readonly prefix: string;
  readonly isReverse: boolean;
  /** Null = everything. */
  readonly limit: number | null;
  readonly delimiter: string | null;
  readonly hasDetails: boolean;
  readonly isCount: boolean;
  /** The parameters as given, for the link to the next page. */
  readonly given: Parameters;
}

/** @throws AppError query_invalid, cursor_invalid */
export function parseListQuery(url: string): ListQuery {
  const given = parseQuery(url, PARAMETERS);
  const bucket = given.bucket || null;
  const hasDetails = parseFlag(given, "details");
  const isCount = parseFlag(given, "count");
  const isReverse = parseFlag(given, "reverse");
  const delimiter = parseDelimiter(given.delimiter);
  const limit =
    given.limit === undefined ? null : pageLimit(given.limit, { max: LIST_PAGE_MAX, code: "query_invalid" });
  if (bucket === null && (hasDetails || delimiter !== null || isCount)) {
    throw new AppError("query_invalid", "details, delimiter and count need a bucket.");
  }
  if (isCount && ["limit", "cursor", "reverse", "delimiter", "details"].some((name) => name in given)) {
    throw new AppError("query_invalid", "count goes with bucket, prefix, start and end only.");
  }
  const prefix = given.prefix ?? "";
  const range = {
    lower: laterBound(prefix, given.start ?? ""),
    upper: earlierBound(boundAfterPrefix(prefix), given.end || null),
  };
  const isPaged = limit !== null || hasDetails || Boolean(given.cursor);
  return {
    ...(given.cursor ? resume(range, given, isReverse) : range),
    bucket,
    prefix,
    isReverse,
    delimiter,
    hasDetails,
    isCount,
    given,
    limit: isPaged ? (limit ?? LIST_PAGE_MAX) : null,
  };
}

/**
 * An opaque text for "go on at `resumeAt`", bound to the query it came from. It is no secret and grants nothing: rights
 * are checked on every page.
 */
export function formatCursor(query: ListQuery, resumeAt: string): string {
  return Buffer.concat([bindingOf(query.given, query.isReverse), Buffer.from(resumeAt)]).toString("base64url");
}

type Range = Pick<ListQuery, "lower" | "upper">;

function resume(range: Range, given: Parameters, isReverse: boolean): Range {
  const cursor = Buffer.from(given.cursor!, "base64url");
  const binding = bindingOf(given, isReverse);
  const isCanonical = cursor.toString("base64url") === given.cursor;
  if (!isCanonical || cursor.length <= binding.length || !cursor.subarray(0, binding.length).equals(binding)) {
    throw new AppError("cursor_invalid", "This cursor belongs to another query. Start again without it.");
  }
  const resumeAt = cursor.subarray(binding.length).toString();
  return isReverse
    ? { ...range, upper: earlierBound(range.upper, resumeAt) }
    : { ...range, lower: laterBound(range.lower, resumeAt) };
}

function bindingOf({ bucket, prefix, start, end, delimiter }: Parameters, isReverse: boolean): Buffer {
  const text = JSON.stringify([bucket || "", prefix ?? "", start ?? "", end || "", delimiter ?? "", isReverse]);
  const binding = Buffer.alloc(4);
  binding.writeUInt32BE(Bun.hash.xxHash32(text, 0));
  return binding;
}

function parseFlag(given: Parameters, name: "details" | "count" | "reverse"): boolean {
  const text = given[name];
  if (text !== undefined && text !== "1") throw new AppError("query_invalid", `${name} takes 1 or is left out.`);
  return text === "1";
}

function parseDelimiter(text: string | undefined): string | null {
  if (text === undefined) return null;
  const bytes = Buffer.byteLength(text);
  if (bytes < 1 || bytes > DELIMITER_BYTES_MAX) {
    throw new AppError("query_invalid", `delimiter has 1 to ${DELIMITER_BYTES_MAX} bytes.`);
  }
  return text;
}
