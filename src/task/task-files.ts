// Lists of tasks as files that are sent while they are read.

import { streamHeld } from "../http/held-bytes.ts";
import { parseQuery } from "../http/query-parameters.ts";
import { respond, UNKNOWN_LENGTH } from "../http/respond.ts";
import { KiB } from "../shared/bounds.ts";
import { AppError } from "../shared/errors.ts";
import { BYTE_ORDER_MARK } from "./csv-text.ts";
import { ExportStore } from "./export-store.ts";
import { type FileText, fileTextOf } from "./export-text.ts";
import { goneUntilMs } from "./item-rules.ts";
import { FILTER_PARAMETERS, parseListQuery, requireOneOf } from "./task-query.ts";
import type { UserRequest } from "./task-request.ts";
import type { View } from "./visible-task-store.ts";

const ROWS_MAX = 10_000;
/** What a group of tasks may become, or one whose text alone is as long as texts may be. */
const PIECE_BYTES = 128 * KiB;
const PARAMETERS = [...FILTER_PARAMETERS, "sort"] as const;

/** `bom=1` is for spreadsheets that would not take the file for UTF-8. */
export function showTable(request: UserRequest): Promise<Response> {
  const { bom, ...parameters } = parseQuery(request.scope.request.url, [...PARAMETERS, "bom"]);
  if (bom !== undefined) requireOneOf("bom", bom, ["0", "1"]);
  const text = fileTextOf("csv", "");
  const head = bom === "1" ? BYTE_ORDER_MARK + text.head : text.head;
  return sendFile(request, parameters, { ...text, head }, { type: "text/csv; charset=utf-8", name: "tasks.csv" });
}

export async function showCalendar(request: UserRequest): Promise<Response> {
  const parameters = parseQuery(request.scope.request.url, PARAMETERS);
  const file = { type: "text/calendar; charset=utf-8", name: "tasks.ics" };
  const text = fileTextOf("ics", await new ExportStore(request.services.store).storeId());
  return sendFile(request, parameters, text, file);
}

/** @throws AppError export_too_large, before anything was sent */
async function sendFile(
  { services, scope, who }: UserRequest,
  parameters: Parameters<typeof parseListQuery>[0],
  text: FileText,
  { type, name }: { readonly type: string; readonly name: string },
): Promise<Response> {
  const { filter, sort } = parseListQuery(parameters);
  const view: View = { userId: who.userId, filter, nowMs: services.clock(), goneUntilMs: goneUntilMs(services) };
  const total = await scope.whileReading((signal) => services.lists.count(view, signal, ROWS_MAX));
  if (total > ROWS_MAX) {
    throw new AppError(
      "export_too_large",
      `A file has at most ${ROWS_MAX} tasks; POST /api/v1/exports makes larger ones.`,
    );
  }
  const headers = { "Content-Type": type, "Content-Disposition": `attachment; filename="${name}"` };
  if (scope.isHead) return respond(scope, 200, { ...headers, ...UNKNOWN_LENGTH });
  const left = new AbortController();
  const gone = AbortSignal.any([scope.request.signal, left.signal]);
  const pieces = textOf(services.lists.items(view, sort, gone), text);
  const encoder = new TextEncoder();
  const next = async () => {
    const { done, value } = await pieces.next();
    return done ? null : encoder.encode(value);
  };
  const budget = () => services.unread.ofHolder(`user ${who.userId}`);
  const held = { scope, next, pieceBytes: PIECE_BYTES, budget, gone, onEnd: () => left.abort() };
  return respond(scope, 200, headers, streamHeld(held));
}

async function* textOf(
  slices: ReturnType<UserRequest["services"]["lists"]["items"]>,
  { head, entry, tail }: FileText,
): AsyncGenerator<string> {
  yield head;
  for await (const items of slices) yield items.map(entry).join("");
  if (tail !== "") yield tail;
}
