// GET /_list: buckets or keys as a bare JSON array, page by page, with details, or only counted.

import { type Principal, requireRight } from "../auth/principal.ts";
import { getRoute } from "../http/methods.ts";
import { nextPageHeaders } from "../http/pagination.ts";
import { requireNoFragment } from "../http/request-path.ts";
import type { RequestScope } from "../http/request-scope.ts";
import { respond, respondJson } from "../http/respond.ts";
import { asOperator, type Handler, type OperatorSurface } from "../http/surface.ts";
import { requireSomebodyWaits } from "../shared/errors.ts";
import type { LoopTurns } from "../shared/loop-turns.ts";
import type { KvEngine, NamePage } from "../storage/kv-engine.ts";
import { describeEntry } from "./kv-routes.ts";
import { countableRange, pageReader, type ReadPage, resumedAt } from "./list-pages.ts";
import { formatCursor, type ListQuery, parseListQuery } from "./list-query.ts";

interface ListServices extends OperatorSurface {
  readonly engine: KvEngine;
  /** Of pages of lists without an end, one a turn: however many are being sent, other requests wait for one page. */
  readonly listTurns: LoopTurns;
}

/** A long list may keep the connection silent for as long as one page takes, not for ever. */
const LIST_IDLE_SECONDS = 60;

export function createListHandler(services: ListServices): Handler {
  return getRoute("/_list", (scope) => asOperator(services, scope, (principal) => answer(services, scope, principal)));
}

async function answer(services: ListServices, scope: RequestScope, principal: Principal): Promise<Response> {
  const { engine } = services;
  requireNoFragment(scope.request.url);
  requireRight(principal, "kv:list");
  const query = parseListQuery(scope.request.url);
  if (query.isCount) {
    const range = countableRange(principal, query);
    const count = range === null ? 0 : await scope.whileReading((signal) => engine.count(range, signal));
    return respondJson(scope, 200, { count });
  }
  const readPage = pageReader(engine, principal, query, scope.request.signal);
  const page = await readPage(query);
  if (query.limit === null && page.resumeAt !== null) return streamed(services, scope, query, readPage, page);
  const cursor = page.resumeAt === null ? null : formatCursor(query, page.resumeAt);
  const headers = nextPageHeaders(scope.request.url, query.given, cursor);
  return respondJson(scope, 200, query.hasDetails ? detailed(page, cursor) : page.names, headers);
}

function detailed({ names, entries }: NamePage, cursor: string | null): Record<string, unknown> {
  const keys = names.flatMap((name, index) => {
    const entry = entries[index];
    return entry ? [{ name, ...describeEntry(entry) }] : [];
  });
  const prefixes = names.filter((_, index) => !entries[index]);
  return { keys, prefixes, list_complete: cursor === null, cursor };
}

/**
 * Everything, one page at a time as the client takes it. No read transaction stays open between two pages. A failure
 * in mid-stream cuts the connection, so a list that is cut is never valid JSON.
 */
async function streamed(
  { listTurns }: ListServices,
  scope: RequestScope,
  query: ListQuery,
  readPage: ReadPage,
  first: NamePage,
): Promise<Response> {
  const encoder = new TextEncoder();
  let page = first;
  let opening = "[";
  const body = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const isLast = page.resumeAt === null;
        const names = JSON.stringify(page.names).slice(1, -1);
        const text = `${names === "" ? "" : opening + names}${isLast ? "]" : ""}`;
        if (text !== "") controller.enqueue(encoder.encode(text));
        opening = ",";
        if (page.resumeAt === null) return controller.close();
        await listTurns.next();
        requireSomebodyWaits(scope.request.signal);
        page = await readPage(resumedAt(query, page.resumeAt));
      },
    },
    { highWaterMark: 0 },
  );
  const headers: Record<string, string> = { "Content-Type": "application/json" };
  if (!scope.isHead) {
    scope.extendIdleTimeout(LIST_IDLE_SECONDS);
    return respond(scope, 200, headers, body);
  }
  // As long as the same GET would be: nobody knows before all of it was read.
  let lengthBytes = 0;
  await scope.whileSilent(async () => {
    for await (const { length } of body) lengthBytes += length;
  });
  headers["Content-Length"] = `${lengthBytes}`;
  return respond(scope, 200, headers);
}
