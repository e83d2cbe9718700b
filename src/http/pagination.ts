// Pages of lists: how many rows one has, and the headers that lead to the next.

import type { ErrorCode } from "../shared/errors.ts";
import { wholeNumber } from "./query-parameters.ts";
import { requestPath } from "./request-path.ts";
import type { ResponseHeaders } from "./respond.ts";

export const PAGE_MAX = 1000;
const PAGE_DEFAULT = 100;

/** The parameter `limit`; `code` is that of the refusal. @throws AppError */
export function pageLimit(
  text: string | undefined,
  { max = PAGE_MAX, fallback = PAGE_DEFAULT, code }: { max?: number; fallback?: number; code?: ErrorCode } = {},
): number {
  return text === undefined ? fallback : wholeNumber(text, { name: "limit", min: 1, max }, code);
}

/** None behind the last page, where `cursor` is null. `parameters` are those of the page itself. */
export function nextPageHeaders(
  url: string,
  parameters: Readonly<Record<string, string>>,
  cursor: string | null,
): ResponseHeaders {
  if (cursor === null) return {};
  const next = new URLSearchParams({ ...parameters, cursor });
  return { "X-Next-Cursor": cursor, Link: `<${requestPath(url)}?${next}>; rel="next"` };
}
