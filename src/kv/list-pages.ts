// Pages of names for a principal: the query narrowed to what its token may see.

import { type Principal, requireBucket } from "../auth/principal.ts";
import { LIST_PAGE_MAX } from "../shared/bounds.ts";
import type { Eventually } from "../shared/eventual.ts";
import { boundAfterKey, boundAfterPrefix, compareByteOrder, earlierBound, laterBound } from "../storage/key-bounds.ts";
import type { KeyRange, KvEngine, NamePage } from "../storage/kv-engine.ts";
import { isBucketName } from "./kv-path.ts";
import type { ListQuery } from "./list-query.ts";

type Range = Pick<ListQuery, "lower" | "upper">;

const NOTHING: NamePage = { names: [], entries: [], resumeAt: null };

/** Reads one page of `query`; the returned `resumeAt` goes into the query of the next one. */
export type ReadPage = (query: ListQuery) => Eventually<NamePage>;

/** @throws AppError forbidden for a bucket that is not granted */
export function pageReader(
  engine: KvEngine,
  principal: Principal,
  query: ListQuery,
  signal: AbortSignal | null,
): ReadPage {
  if (query.bucket === null) {
    const granted = grantedRanges(principal);
    return (page) => bucketPage(engine, page, granted, signal);
  }
  const range = grantedKeys(principal, query.bucket, query);
  return (page) =>
    range === null ? NOTHING : keyPage(engine, { ...page, ...intersect(page, range) }, query.bucket!, signal);
}

/** The range whose keys may be counted; null when no key can be in it. @throws AppError forbidden */
export function countableRange(principal: Principal, query: ListQuery): KeyRange | null {
  const range = grantedKeys(principal, query.bucket!, query);
  return range === null || isEmpty(range) ? null : { bucket: query.bucket!, ...range };
}

/** The query of the page that begins at `resumeAt`. */
export function resumedAt(query: ListQuery, resumeAt: string): ListQuery {
  return query.isReverse ? { ...query, upper: resumeAt } : { ...query, lower: resumeAt };
}

function grantedKeys(principal: Principal, bucket: string, range: Range): Range | null {
  requireBucket(principal, "kv:list", bucket);
  if (!isBucketName(bucket)) return null;
  return principal.prefix === null ? range : intersect(range, prefixRange(principal.prefix));
}

function keyPage(engine: KvEngine, query: ListQuery, bucket: string, signal: AbortSignal | null): Eventually<NamePage> {
  if (isEmpty(query)) return NOTHING;
  const { lower, upper, prefix, delimiter, isReverse, hasDetails } = query;
  const page = {
    range: { bucket, lower, upper },
    isReverse,
    hasDetails,
    limit: query.limit ?? LIST_PAGE_MAX,
    grouping: delimiter === null ? null : { prefix, delimiter },
  };
  return engine.listKeys(page, signal);
}

/** Walks the granted ranges in order; the page ends where `limit` is reached. */
async function bucketPage(
  engine: KvEngine,
  query: ListQuery,
  granted: readonly Range[],
  signal: AbortSignal | null,
): Promise<NamePage> {
  const limit = query.limit ?? LIST_PAGE_MAX;
  const { isReverse } = query;
  const names: string[] = [];
  for (const range of isReverse ? granted.toReversed() : granted) {
    const part = intersect(query, range);
    if (isEmpty(part)) continue;
    // With a full page one more name is asked for: whether something remains, and where.
    const isFull = names.length === limit;
    const page = await engine.listBuckets({ ...part, isReverse, limit: isFull ? 1 : limit - names.length }, signal);
    if (isFull && page.names.length > 0) {
      const next = page.names[0]!;
      return { names, entries: [], resumeAt: isReverse ? boundAfterKey(next) : next };
    }
    names.push(...page.names);
    if (page.resumeAt !== null) return { names, entries: [], resumeAt: page.resumeAt };
  }
  return { names, entries: [], resumeAt: null };
}

/** What a token's bucket patterns cover, in byte order. Such ranges are nested or disjoint: nested ones are dropped. */
function grantedRanges({ buckets }: Principal): Range[] {
  if (buckets === null) return [{ lower: "", upper: null }];
  const ranges = buckets
    .map((pattern) =>
      pattern.endsWith("*") ? prefixRange(pattern.slice(0, -1)) : { lower: pattern, upper: boundAfterKey(pattern) },
    )
    .sort((a, b) => compareByteOrder(a.lower, b.lower) || compareUpper(b, a));
  return ranges.filter((range, index) => !ranges.slice(0, index).some((wider) => compareUpper(wider, range) >= 0));
}

function prefixRange(prefix: string): Range {
  return { lower: prefix, upper: boundAfterPrefix(prefix) };
}

function compareUpper(a: Range, b: Range): number {
  if (a.upper === null || b.upper === null) return a.upper === b.upper ? 0 : a.upper === null ? 1 : -1;
  return compareByteOrder(a.upper, b.upper);
}

function intersect(a: Range, b: Range): Range {
  return { lower: laterBound(a.lower, b.lower), upper: earlierBound(a.upper, b.upper) };
}

function isEmpty({ lower, upper }: Range): boolean {
  return upper !== null && compareByteOrder(lower, upper) >= 0;
}
