// What was used: single requests, newest first, and sums of them.

import type { OperatorRoutes } from "../http/operator-routes.ts";
import { pageLimit } from "../http/pagination.ts";
import { parseQuery } from "../http/query-parameters.ts";
import { respondJson } from "../http/respond.ts";
import { AppError } from "../shared/errors.ts";
import { type ManagementRequest, numberOf, type RelayAdminServices } from "./management-request.ts";
import type { LogPlace, LogStat, StatGroup } from "./usage-log-store.ts";

const STAT_SPAN_MS = 86_400_000;
/** A smaller number counts seconds since 1970, a larger one milliseconds: the first reach the year 5138. */
const SECONDS_MAX = 1e11;
const TIME_MAX = 8.64e15;

const GROUPS: readonly StatGroup[] = ["token", "channel", "model", "day"];

/** Paths below `/api/log`, by method. */
export const USAGE_LOG_ROUTES: OperatorRoutes<RelayAdminServices> = {
  "": { GET: listLog },
  "/stat": { GET: showStat },
};

async function listLog({ services, scope }: ManagementRequest): Promise<Response> {
  const query = parseQuery(scope.request.url, [
    "token_id",
    "channel_id",
    "model",
    "status",
    "request_id",
    "from",
    "to",
    "limit",
    "before",
  ]);
  const filter = {
    tokenId: numberOf(query.token_id, { name: "token_id", min: 0, max: Number.MAX_SAFE_INTEGER }, null),
    channelId: numberOf(query.channel_id, { name: "channel_id", min: 0, max: Number.MAX_SAFE_INTEGER }, null),
    model: query.model || null,
    requestId: query.request_id || null,
    status: numberOf(query.status, { name: "status", min: 0, max: 999 }, null),
    fromMs: timeOf(query.from, "from"),
    toMs: timeOf(query.to, "to"),
  };
  const page = { limit: pageLimit(query.limit || undefined), before: placeOf(query.before) };
  const { rows, next } = await scope.whileReading((signal) => services.usageLog.list(filter, page, signal));
  return respondJson(scope, 200, { data: rows, next: next === null ? null : `${next.ts}-${next.id}` });
}

async function showStat({ services, scope }: ManagementRequest): Promise<Response> {
  const query = parseQuery(scope.request.url, ["group_by", "from", "to"]);
  const group = GROUPS.find((name) => name === (query.group_by || "day"));
  if (group === undefined) throw new AppError("invalid_parameter", `group_by is one of ${GROUPS.join(", ")}.`);
  // What is logged in this very moment belongs to it.
  const toMs = timeOf(query.to, "to") ?? services.clock() + 1;
  const fromMs = timeOf(query.from, "from") ?? toMs - STAT_SPAN_MS;
  const sums = await scope.whileReading((signal) => services.usageLog.stat(group, fromMs, toMs, signal));
  return respondJson(scope, 200, { data: sums.map(statBody) });
}

function timeOf(text: string | undefined, name: string): number | null {
  const time = numberOf(text, { name, min: 0, max: TIME_MAX }, null);
  return time !== null && time < SECONDS_MAX ? time * 1000 : time;
}

/** `next` of the page before. */
function placeOf(text: string | undefined): LogPlace | null {
  if (text === undefined || text === "") return null;
  const [, ts, id] = /^(\d{1,15})-(\d{1,15})$/.exec(text) ?? [];
  if (id === undefined) throw new AppError("invalid_parameter", "before is what a page gave as next.");
  return { ts: Number(ts), id: Number(id) };
}

function statBody({ key, requests, errors, quota, ...sums }: LogStat): Record<string, unknown> {
  return {
    key,
    requests,
    errors,
    prompt_tokens: sums.promptTokens,
    completion_tokens: sums.completionTokens,
    quota,
    duration_ms_avg: rounded(sums.durationMsAvg),
    ttft_ms_avg: sums.ttftMsAvg === null ? null : rounded(sums.ttftMsAvg),
  };
}

function rounded(ms: number): number {
  return Math.round(ms * 100) / 100;
}
