// How many rows a page of a management list has.

import { AppError } from "../shared/errors.ts";

export const PAGE_MAX = 1000;
export const PAGE_DEFAULT = 100;

/** The parameter `limit`. @throws AppError invalid_parameter */
export function pageLimit(text: string | undefined, { max = PAGE_MAX, fallback = PAGE_DEFAULT } = {}): number {
  if (text === undefined) return fallback;
  const limit = /^\d{1,15}$/.test(text) ? Number(text) : 0;
  if (limit >= 1 && limit <= max) return limit;
  throw new AppError("invalid_parameter", `limit is a whole number from 1 to ${max}.`);
}
