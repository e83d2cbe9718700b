// The parameters of the two lists: sorting and paging by position.

import { AppError } from "../shared/errors.ts";
import type { SortField } from "../storage/kv-engine.ts";

export interface ListParameters {
  readonly sortBy: SortField;
  readonly isReverse: boolean;
  /** The effective one: a larger one is cut to the setting. */
  readonly limit: number;
  readonly skip: number;
}

const SORT_FIELDS: readonly SortField[] = ["key", "createdAt", "updatedAt", "creatorIp"];
const NAMES = ["sortBy", "sortDir", "limit", "skip"] as const;
const DEFAULT_LIMIT = 100;

/** Parameters of other names are left alone. @throws AppError invalid_parameter */
export function parseListParameters(url: string, limitMax: number): ListParameters {
  const given = new URLSearchParams(url.slice(url.indexOf("?") + 1 || url.length));
  for (const name of NAMES) {
    if (given.getAll(name).length > 1) throw invalid(`${name} is given twice`);
  }
  const sortBy = SORT_FIELDS.find((field) => field === (given.get("sortBy") ?? "key"));
  if (sortBy === undefined) throw invalid(`sortBy is one of ${SORT_FIELDS.join(", ")}`);
  const sortDir = (given.get("sortDir") ?? "asc").toLowerCase();
  if (sortDir !== "asc" && sortDir !== "desc") throw invalid("sortDir is asc or desc");
  const limit = parseDigits("limit", given.get("limit") ?? `${DEFAULT_LIMIT}`);
  const skip = parseDigits("skip", given.get("skip") ?? "0");
  if (!Number.isSafeInteger(skip)) throw invalid(`skip is at most ${Number.MAX_SAFE_INTEGER}`);
  return { sortBy, isReverse: sortDir === "desc", limit: Math.min(limit, limitMax), skip };
}

/** The same list, one page further. */
export function nextPageQuery({ sortBy, isReverse, limit, skip }: ListParameters): string {
  return `sortBy=${sortBy}&sortDir=${isReverse ? "desc" : "asc"}&limit=${limit}&skip=${skip + limit}`;
}

function parseDigits(name: string, text: string): number {
  if (!/^\d+$/.test(text)) throw invalid(`${name} is a whole number`);
  return Number(text);
}

function invalid(problem: string): AppError {
  return new AppError("invalid_parameter", `${problem}.`);
}
