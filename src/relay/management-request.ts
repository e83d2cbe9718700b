// A request to the management routes of the relay, and the small readings that all of them share.

import type { ByteBudget } from "../http/byte-budget.ts";
import type { OperatorRequest } from "../http/operator-routes.ts";
import { pageLimit } from "../http/pagination.ts";
import { wholeNumber } from "../http/query-parameters.ts";
import { readBody } from "../http/read-body.ts";
import type { OperatorSurface } from "../http/surface.ts";
import { KiB } from "../shared/bounds.ts";
import type { Clock } from "../shared/clock.ts";
import { AppError } from "../shared/errors.ts";
import type { ChannelMonitor } from "./channel-monitor.ts";
import type { ChannelStore } from "./channel-store.ts";
import type { RelayTokenStore } from "./relay-token-store.ts";
import type { UsageLogStore } from "./usage-log-store.ts";

export interface RelayAdminServices extends OperatorSurface {
  readonly channels: ChannelStore;
  readonly tokens: RelayTokenStore;
  readonly usageLog: UsageLogStore;
  readonly monitor: ChannelMonitor;
  readonly budget: ByteBudget;
  readonly clock: Clock;
}

export type ManagementRequest = OperatorRequest<RelayAdminServices>;

const ID = /^[1-9]\d{0,14}$/;

const BODY_BYTES_MAX = 512 * KiB;

/** The `:id` of the path. @throws AppError route_not_found: nothing else can be there */
export function idOf({ params: { id = "" } }: ManagementRequest): number {
  if (!ID.test(id)) throw new AppError("route_not_found", "There is nothing at this path.");
  return Number(id);
}

/** @throws AppError body_too_large, overloaded, body_incomplete, and what `parse` throws */
export async function readBytes<T>(
  { services, scope }: ManagementRequest,
  parse: (bytes: Uint8Array) => T,
): Promise<T> {
  const body = await readBody(scope, BODY_BYTES_MAX, services.budget);
  try {
    return parse(body.bytes);
  } finally {
    body.release();
  }
}

/** A whole number from `min` to `max`; `fallback` when there is none. @throws AppError invalid_parameter */
export function numberOf<T>(
  text: string | undefined,
  bounds: Parameters<typeof wholeNumber>[1],
  fallback: T,
): number | T {
  return text === undefined || text === "" ? fallback : wholeNumber(text, bounds);
}

/** Part of a list; `bounds` as pageLimit has them. @throws AppError invalid_parameter */
export function pageOf(
  { limit, offset }: { limit?: string; offset?: string },
  bounds?: Parameters<typeof pageLimit>[1],
): { limit: number; offset: number } {
  return {
    limit: pageLimit(limit || undefined, bounds),
    offset: numberOf(offset, { name: "offset", min: 0, max: Number.MAX_SAFE_INTEGER }, 0),
  };
}

export function secondsOf(ms: number): number {
  return Math.floor(ms / 1000);
}
