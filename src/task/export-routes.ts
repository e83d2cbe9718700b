// Routes of the task service that lead to exports: files of a whole list, built by a job, kept for a day.

import { isUnchanged } from "../http/entity-tags.ts";
import { streamHeld } from "../http/held-bytes.ts";
import { parseQuery } from "../http/query-parameters.ts";
import { requestPath } from "../http/request-path.ts";
import { type ResponseHeaders, respond, respondJson } from "../http/respond.ts";
import { ACCOUNT_BODY_BYTES_MAX } from "../shared/bounds.ts";
import { AppError } from "../shared/errors.ts";
import { given } from "../shared/given.ts";
import { formatTime } from "../shared/iso-time.ts";
import { NewExportBody } from "./export-bodies.ts";
import { PART_BYTES } from "./export-build.ts";
import { type ExportRow, ExportStore } from "./export-store.ts";
import { readIdempotencyKey } from "./idempotency-key.ts";
import { parseFields, within } from "./request-bodies.ts";
import { parseListQuery } from "./task-query.ts";
import { forUsers, readJsonBody, requireUuid, type TaskRoutes, type UserRequest } from "./task-request.ts";

/** A file takes as long as some pages of a list. */
const COST = 10;
const TYPES = { csv: "text/csv; charset=utf-8", ics: "text/calendar; charset=utf-8" } as const;

const NEVER_READY =
  "The export has failed or was cancelled: it will not be ready unless its job is retried, which also says why.";

export const EXPORT_ROUTES: TaskRoutes = {
  "/exports": { GET: forUsers(listExports), POST: forUsers(createExport, COST) },
  "/exports/:id": { GET: forUsers(showExport), DELETE: forUsers(deleteExport) },
  "/exports/:id/file": { GET: forUsers(sendFile) },
};

async function createExport(request: UserRequest): Promise<Response> {
  const { services, scope, who } = request;
  const { url } = scope.request;
  parseQuery(url, []);
  const keyedBy = readIdempotencyKey(request);
  const wanted = await readJsonBody(request, ACCOUNT_BODY_BYTES_MAX, (bytes) => {
    const { format, ...body } = parseFields(bytes, NewExportBody);
    const filter = given({ ...body.filter });
    // What the job will do again: whoever asks is told at once.
    within("filter", () => parseListQuery(filter));
    return { format, filter: JSON.stringify(filter), keyed: keyedBy(bytes) };
  });
  const act = { userId: who.userId, requestId: scope.id, nowMs: services.clock() };
  const { status, body, isReplayed } = await services.writer.run("task.createExport", { ...wanted, ...act });
  return respondJson(scope, status, body, {
    Location: `${requestPath(url)}/${body.id}`,
    ...(isReplayed ? { "Idempotent-Replayed": "true" } : {}),
  });
}

async function listExports({ services, scope, who }: UserRequest): Promise<Response> {
  parseQuery(scope.request.url, []);
  const rows = await new ExportStore(services.store).list(who.userId);
  const nowMs = services.clock();
  return respondJson(
    scope,
    200,
    rows.map((row) => exportView(row, nowMs)),
  );
}

async function showExport(request: UserRequest): Promise<Response> {
  const { services, scope } = request;
  return respondJson(scope, 200, exportView(await requireExport(request), services.clock()));
}

async function deleteExport(request: UserRequest): Promise<Response> {
  const { services, scope, who } = request;
  const { id, job_id } = await requireExport(request);
  await services.writer.run("task.deleteExport", { id, userId: who.userId });
  await services.jobs.cancel(job_id, who.userId).catch(ignoreEnded);
  // Nothing but deleted ones had expired by then. What a stopping server leaves is removed with the next cleanup.
  while ((await services.writer.run("task.removeExports", { nowMs: 0, beforeMs: 0 })) > 0) {}
  return respondJson(scope, 200, { message: "Export deleted" });
}

async function sendFile(request: UserRequest): Promise<Response> {
  const { services, scope, who } = request;
  const { id, format, state, sha256, byte_count, expires_at_ms } = await requireExport(request);
  if (state === "failed") throw new AppError("not_ready", NEVER_READY);
  if (state !== "ready") throw new AppError("not_ready", "The export is still being built.");
  if (expires_at_ms <= services.clock()) throw new AppError("expired", "The export has expired.");
  const etag = `"${sha256}"`;
  const headers: ResponseHeaders = { ETag: etag, "Cache-Control": "private, no-cache" };
  if (isUnchanged(scope.request.headers.get("if-none-match"), etag)) return respond(scope, 304, headers);
  headers["Content-Type"] = TYPES[format];
  headers["Content-Disposition"] = `attachment; filename="tasks.${format}"`;
  if (scope.isHead) return respond(scope, 200, { ...headers, "Content-Length": `${byte_count}` });
  scope.bytesOut = byte_count ?? 0;
  const next = partsOf(new ExportStore(services.store), id, scope.bytesOut);
  const { signal: gone } = scope.request;
  const budget = () => services.unread.ofHolder(`user ${who.userId}`);
  const held = { scope, next, pieceBytes: PART_BYTES, budget, gone, onEnd: () => undefined };
  return respond(scope, 200, headers, streamHeld(held));
}

/** Part after part; it breaks off when the export is removed meanwhile. */
function partsOf(exports: ExportStore, id: string, bytesWanted: number): () => Promise<Uint8Array | null> {
  let [seq, bytes] = [0, 0];
  return async () => {
    if (bytes >= bytesWanted) return null;
    const part = await exports.part(id, seq++);
    if (part === null) throw new Error("the export was removed");
    bytes += part.length;
    return part;
  };
}

/** @throws AppError not_found */
async function requireExport({ services, scope, who, params }: UserRequest): Promise<ExportRow> {
  parseQuery(scope.request.url, []);
  const row = await new ExportStore(services.store).find(requireUuid(params.id, "export"));
  if (row?.user_id === who.userId) return row;
  throw new AppError("not_found", "export not found");
}

function exportView(row: ExportRow, nowMs: number): Record<string, unknown> {
  const state = row.state === "ready" && row.expires_at_ms <= nowMs ? "expired" : row.state;
  return {
    id: row.id,
    job_id: row.job_id,
    state,
    format: row.format,
    filter: JSON.parse(row.filter),
    row_count: row.row_count,
    byte_count: row.byte_count,
    sha256: row.sha256,
    created_at: formatTime(row.created_at_ms),
    expires_at: formatTime(row.expires_at_ms),
  };
}

function ignoreEnded(error: unknown): void {
  if (!(error instanceof AppError) || !["state_conflict", "not_found"].includes(error.code)) throw error;
}
