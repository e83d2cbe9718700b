// GET and HEAD of one value: conditions, ranges, and large values as a stream that holds its share of the budget.

import type { BudgetShare, ByteBudget } from "../http/byte-budget.ts";
import { streamPieces, takeShare } from "../http/held-bytes.ts";
import type { RequestScope } from "../http/request-scope.ts";
import { headerTemplate, type ResponseHeaders, respond, respondFrom } from "../http/respond.ts";
import { INLINE_VALUE_BYTES_MAX } from "../shared/bounds.ts";
import { systemClock } from "../shared/clock.ts";
import { AppError } from "../shared/errors.ts";
import type { Eventually } from "../shared/eventual.ts";
import { formatTime } from "../shared/iso-time.ts";
import type { KvEngine, KvEntry, KvFound } from "../storage/kv-engine.ts";
import { matchesRevision } from "../storage/write-condition.ts";
import { type ByteRange, parseRange } from "./byte-range.ts";
import { formatEtag, parseTags } from "./conditions.ts";
import { metadataHeaders } from "./entry-headers.ts";
import type { KvTarget } from "./kv-path.ts";

export interface ValueServices {
  readonly engine: KvEngine;
  readonly budget: ByteBudget;
  /** Header templates of entries that are being read often: an entry that the cache keeps is the same object. */
  readonly templates: WeakMap<KvEntry, Headers>;
}

/**
 * Longer than other connections may be idle: the system takes some megabytes off our hands, and says nothing before a
 * third of them has left.
 */
const SLOW_READER_SECONDS = 30;

/** A large value that is overwritten again and again while it is read gives up after this many tries. */
const LOAD_TRIES_MAX = 3;

export const DEFAULT_CONTENT_TYPE = "application/octet-stream";

/** What a read asks for, and how it is judged. */
interface Asked extends KvTarget {
  readonly judge: Judge;
  readonly confirm: () => Promise<void>;
}

/**
 * GET. Without a promise when the engine answers at once and the value is small. `confirm` is awaited before the entry
 * is looked at again after a wait: it throws if it is not the client's any more.
 */
export function readValue(
  services: ValueServices,
  scope: RequestScope,
  { bucket, key }: KvTarget,
  confirm: () => Promise<void> = async () => undefined,
): Eventually<Response> {
  const asked: Asked = { bucket, key, confirm, judge: parseReadConditions(scope.request.headers) };
  const found = services.engine.find(bucket, key);
  return found instanceof Promise
    ? found.then((entry) => answer(services, scope, asked, entry))
    : answer(services, scope, asked, found);
}

/** HEAD: the headers of GET without a look at the value. `Range` is not evaluated. */
export async function describeValue(
  services: ValueServices,
  scope: RequestScope,
  { bucket, key }: KvTarget,
): Promise<Response> {
  const judge = parseReadConditions(scope.request.headers);
  const entry = await services.engine.describe(bucket, key);
  if (judge(entry) === "unchanged") return notModified(scope, entry!);
  if (entry === null) throw keyNotFound();
  const size = `${entry.sizeBytes}`;
  const streamed: ResponseHeaders = entry.sizeBytes > INLINE_VALUE_BYTES_MAX ? { "X-Size": size } : {};
  return respond(scope, 200, { ...entryHeaders(entry), ...streamed, "Content-Length": size });
}

export function keyNotFound(): AppError {
  return new AppError("key_not_found", "No such key in this bucket.");
}

/** 412 with the ETag of the live entry, if there is one. */
export function preconditionFailed(revision: number | null): AppError {
  return new AppError("precondition_failed", "The precondition does not hold.", {
    details: revision === null ? {} : { revision },
  });
}

/** @throws AppError precondition_failed */
type Judge = (entry: KvEntry | null) => "send" | "unchanged";

/** RFC 9110, section 13.2.2, for the two conditions that are evaluated. @throws AppError precondition_invalid */
function parseReadConditions(headers: Headers): Judge {
  const ifMatch = parseTags(headers.get("if-match"), "strong");
  const ifNoneMatch = parseTags(headers.get("if-none-match"), "weak");
  return (entry) => {
    const revision = entry?.revision ?? null;
    if (ifMatch !== null && !matchesRevision(ifMatch, revision)) throw preconditionFailed(revision);
    return ifNoneMatch !== null && matchesRevision(ifNoneMatch, revision) ? "unchanged" : "send";
  };
}

function answer(
  services: ValueServices,
  scope: RequestScope,
  asked: Asked,
  found: KvFound | null,
): Eventually<Response> {
  if (asked.judge(found) === "unchanged") return notModified(scope, found!);
  if (found === null) throw keyNotFound();
  if (found.value !== null) {
    const range = requestedRange(scope.request.headers, found);
    if (range === null && found.expiresAtMs === null) {
      return respondFrom(scope, 200, templateOf(services.templates, found), found.value);
    }
    const body = range === null ? found.value : found.value.subarray(range.first, range.last + 1);
    return respond(scope, range === null ? 200 : 206, contentHeaders(found, range), body);
  }
  return answerLarge(services, scope, asked, found);
}

/** The value is loaded and verified once, by the reader thread; only then is the status known to be true. */
async function answerLarge(
  services: ValueServices,
  scope: RequestScope,
  asked: Asked,
  found: KvFound,
): Promise<Response> {
  const { engine, budget } = services;
  const { bucket, key, judge, confirm } = asked;
  let entry = found;
  for (let tries = 1; tries <= LOAD_TRIES_MAX; tries++) {
    const range = requestedRange(scope.request.headers, entry);
    const share = await takeShare(budget, entry.sizeBytes, scope.request.signal);
    const value = await loadOrRelease(engine, asked, entry, share);
    if (value !== null) return sendLoaded(scope, entry, range, value, () => share.release());
    // It was overwritten in between: what is there now is judged anew.
    await confirm();
    const latest = await engine.find(bucket, key);
    if (latest === null || latest.value !== null) return answer(services, scope, asked, latest);
    if (judge(latest) === "unchanged") return notModified(scope, latest);
    entry = latest;
  }
  throw new AppError("busy", "The value is being overwritten too often to be read. Try again.");
}

function sendLoaded(
  scope: RequestScope,
  entry: KvEntry,
  range: ByteRange | null,
  value: Uint8Array<ArrayBuffer>,
  release: () => void,
): Response {
  const status = range === null ? 200 : 206;
  const headers = contentHeaders(entry, range);
  const part = range === null ? value : value.subarray(range.first, range.last + 1);
  if (part.length <= INLINE_VALUE_BYTES_MAX) {
    const copy = part.slice();
    release();
    return respond(scope, status, headers, copy);
  }
  scope.bytesOut = part.length;
  scope.extendIdleTimeout(SLOW_READER_SECONDS);
  // The runtime sends streams chunked, without Content-Length.
  headers["X-Size"] = `${part.length}`;
  return respond(scope, status, headers, streamPieces(part, release));
}

async function loadOrRelease(
  engine: KvEngine,
  { bucket, key }: KvTarget,
  entry: KvEntry,
  share: BudgetShare,
): Promise<Uint8Array<ArrayBuffer> | null> {
  try {
    const value = await engine.load(bucket, key, entry.revision);
    if (value === null) share.release();
    return value;
  } catch (error) {
    share.release();
    throw error;
  }
}

/** `If-Range` with a tag that is not the current strong one means the whole value. */
function requestedRange(headers: Headers, entry: KvEntry): ByteRange | null {
  const range = headers.get("range");
  if (range === null) return null;
  const ifRange = headers.get("if-range");
  return ifRange !== null && ifRange !== formatEtag(entry.revision) ? null : parseRange(range, entry.sizeBytes);
}

function notModified(scope: RequestScope, entry: KvEntry): Response {
  return respond(scope, 304, { ETag: formatEtag(entry.revision), "Cache-Control": "private, no-cache" });
}

function contentHeaders(entry: KvEntry, range: ByteRange | null): ResponseHeaders {
  const headers = entryHeaders(entry);
  if (range !== null) headers["Content-Range"] = `bytes ${range.first}-${range.last}/${entry.sizeBytes}`;
  return headers;
}

function templateOf(templates: WeakMap<KvEntry, Headers>, entry: KvEntry): Headers {
  let template = templates.get(entry);
  if (template === undefined) {
    template = headerTemplate(entryHeaders(entry));
    templates.set(entry, template);
  }
  return template;
}

/** Stored bytes are never to run as a page of this origin: hence the sandbox. */
function entryHeaders(entry: KvEntry): ResponseHeaders {
  const headers: ResponseHeaders = {
    "Content-Type": entry.contentType ?? DEFAULT_CONTENT_TYPE,
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cache-Control": "private, no-cache",
    ETag: formatEtag(entry.revision),
    "Last-Modified": new Date(entry.updatedAtMs).toUTCString(),
    "Accept-Ranges": "bytes",
  };
  if (entry.expiresAtMs !== null) {
    headers["X-TTL"] = `${Math.max(0, Math.ceil((entry.expiresAtMs - systemClock()) / 1000))}`;
    headers["X-Expires-At"] = formatTime(entry.expiresAtMs);
  }
  return entry.metadata === null ? headers : { ...headers, ...metadataHeaders(entry.metadata) };
}
