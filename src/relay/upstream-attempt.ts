// One request to one channel: either something that can be given to the client, or why not.

import { BudgetShare, type ByteBudget } from "../http/byte-budget.ts";
import { GatheredBytes } from "../http/gathered-bytes.ts";
import { type OutboundAnswer, OutboundFailure, type OutboundTransport } from "../http/outbound-transport.ts";
import { KiB, SMALL_STEP_BYTES } from "../shared/bounds.ts";
import type { Eventually } from "../shared/eventual.ts";
import { isObject } from "../shared/json-text.ts";
import type { PoolChannel } from "./channel-pool.ts";
import { parseEvent } from "./event-splitter.ts";
import type { Endpoint } from "./relay-endpoints.ts";
import { type ErrorObject, RelayError } from "./relay-errors.ts";
import type { Failure } from "./retry-rules.ts";
import { StreamWatch } from "./stream-watch.ts";
import { outputTextBytes, type TokenUsage, usageOf } from "./token-usage.ts";
import { errorInSuccess, readUpstreamError } from "./upstream-error.ts";
import { UpstreamEvents } from "./upstream-events.ts";

/** Enough for any error that is worth reading. */
const ERROR_BYTES_MAX = 64 * 1024;
const ERROR_READ_MS_MAX = 5_000;
/** Of what says nothing and comes before the first event of a stream: it is held until there is one. */
const COMMENT_BYTES_MAX = 64 * KiB;

/** A success that was read to its end. */
export interface WholeAnswer {
  readonly kind: "answer";
  readonly status: number;
  readonly headers: Headers;
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly usage: TokenUsage | null;
  /** Of text, for an estimate. */
  readonly outputBytes: number;
  readonly responseId: string | null;
  /** A response that is made in the background. */
  readonly isPending: boolean;
  /** To be called once, when the bytes are no longer held: they count against the body budget. */
  readonly release: () => void;
}

/** A stream whose first event was read and is no error. */
export interface BegunStream {
  readonly kind: "stream";
  readonly status: number;
  readonly headers: Headers;
  readonly source: UpstreamEvents;
  readonly first: readonly Uint8Array[];
  readonly responseId: string | null;
  /** To be called when the stream has ended: its deadline does not hold any more. */
  readonly end: () => void;
  /** The deadline that has ended it, not its upstream; null = none so far. */
  readonly overdue: () => Overdue | null;
}

export interface AttemptFailure {
  readonly kind: "failure";
  readonly failure: Failure;
  readonly answer: FailedAnswer;
}

export type AttemptResult = WholeAnswer | BegunStream | AttemptFailure | { readonly kind: "client_gone" };

/** What the client is told when this failure is the one that it gets to see. */
export interface FailedAnswer {
  readonly status: number;
  readonly error: ErrorObject;
  /** Null when no answer came from there. */
  readonly upstreamStatus: number | null;
}

export interface AttemptBounds {
  /** To the first event of a stream. */
  readonly ttftMs: number;
  /** From the beginning of this attempt to its end. */
  readonly totalMs: number;
  /** Left of the request that the attempt belongs to; absent = it is alone. */
  readonly leftMs?: number;
  /** Longest silence of a stream that has begun. */
  readonly idleMs: number;
  readonly responseBytesMax: number;
  readonly eventBytesMax: number;
}

export interface AttemptRequest {
  readonly endpoint: Endpoint;
  readonly method: "GET" | "POST" | "DELETE";
  /** Below the path of the endpoint; "" or `/id`. */
  readonly subpath: string;
  /** Null once it was sent: what is left of an attempt lives for as long as its stream. */
  body: string | null;
  /** Null = as its `Content-Type` says. */
  readonly isStream: boolean | null;
  /** Headers of the client that pass. */
  readonly passedHeaders: Readonly<Record<string, string>>;
  /** Has `leave` called, at once or later, when nobody waits for the answer any more; what it returns ends that. */
  readonly whenGivenUp: (leave: () => void) => () => void;
  readonly bounds: AttemptBounds;
  /** What the bytes of a whole answer count against. */
  readonly budget: ByteBudget;
}

/** What a response says that has not come to its end. */
const PENDING: ReadonlySet<unknown> = new Set(["queued", "in_progress"]);

/** A channel that had less than this part of its time, for what went before, is not to blame for being late. */
const FULL_SHARE = 0.9;

/** `cut_short` = a deadline that others have brought nearer. */
type Overdue = "deadline" | "cut_short";
type Cause = "client" | Overdue;

/** @throws RelayError overloaded, when the answer does not fit into the body budget */
export async function attemptUpstream(
  transport: OutboundTransport,
  { apiRoot, key }: PoolChannel,
  request: AttemptRequest,
): Promise<AttemptResult> {
  const { endpoint, bounds } = request;
  const end = new AttemptEnd(bounds.leftMs ?? Number.POSITIVE_INFINITY);
  const stay = request.whenGivenUp(end.leave);
  const { totalMs } = bounds;
  const firstEventMs = Math.min(bounds.ttftMs, totalMs);
  end.comeAfter(request.isStream ? firstEventMs : totalMs);
  try {
    const answer = await transport.send({
      url: apiRoot + endpoint.path + request.subpath,
      method: request.method,
      headers: { ...request.passedHeaders, authorization: `Bearer ${key}` },
      body: request.body,
      isAnswerLong: request.isStream === true,
      signal: end.signal,
    });
    request.body = null;
    const isStream = request.isStream ?? isEventStream(answer.headers);
    if (isStream && request.isStream === null) end.comeAfter(firstEventMs);
    const result = await readAnswer(answer, isStream, request, end.hangUp);
    // It is ended by a deadline alone from here on; a client that leaves cancels its stream.
    if (end.cause !== null) {
      if (result.kind === "answer") result.release();
      throw new OutboundFailure("aborted");
    }
    end.comeNoMore();
    stay();
    if (result.kind !== "stream") return result;
    end.comeAfter(totalMs);
    return { ...result, end: () => end.comeNoMore(), overdue: () => (end.cause === "client" ? null : end.cause) };
  } catch (error) {
    end.comeNoMore();
    stay();
    if (error instanceof RelayError) throw error;
    return failureOf(error, end.cause);
  }
}

/** What ends an attempt before its answer is there: its client, or a deadline. */
class AttemptEnd {
  readonly #controller = new AbortController();
  readonly #startedMs = performance.now();
  readonly #leftMs: number;
  #timer: ReturnType<typeof setTimeout> | null = null;
  /** The first of them. */
  cause: Cause | null = null;

  /** `leftMs`: of the request that the attempt belongs to. */
  constructor(leftMs: number) {
    this.#leftMs = leftMs;
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Its client has left. */
  readonly leave = (): void => this.#end("client");

  /** Nothing more is read, for what came already. */
  readonly hangUp = (): void => this.#controller.abort();

  /** Its deadline is `ownMs` after it began, instead of the one before. */
  comeAfter(ownMs: number): void {
    this.comeNoMore();
    const leftMs = this.#leftMs;
    const ms = Math.max(1, Math.min(ownMs, leftMs)) - (performance.now() - this.#startedMs);
    this.#timer = setTimeout(() => this.#end(leftMs < ownMs * FULL_SHARE ? "cut_short" : "deadline"), ms);
  }

  comeNoMore(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }

  #end(cause: Cause): void {
    this.cause ??= cause;
    this.#controller.abort();
  }
}

function failureOf(error: unknown, cause: Cause | null): AttemptResult {
  if (cause === "client") return { kind: "client_gone" };
  if (cause !== null) {
    const failure: Failure = { kind: "timeout", isCutShort: cause === "cut_short" };
    return ourFailure(failure, 504, "upstream_timeout", "the upstream did not answer in time");
  }
  if (error instanceof OutboundFailure && error.kind !== "bad_response") {
    const isAddressRefused = error.kind === "refused_address";
    const failure: Failure = { kind: "unreachable", isAddressRefused, systemCode: error.code };
    return ourFailure(failure, 502, "upstream_unreachable", "the upstream could not be reached");
  }
  return badResponse(null);
}

function readAnswer(
  answer: OutboundAnswer,
  isStream: boolean,
  request: AttemptRequest,
  abort: () => void,
): Eventually<WholeAnswer | BegunStream | AttemptFailure> {
  const { status } = answer;
  // No answer of our own could carry a status beyond 599.
  if ((status >= 300 && status < 400) || status > 599) {
    abort();
    return badResponse(status);
  }
  if (status < 200 || status >= 400) return refusalOf(answer, abort);
  return isStream ? readStream(answer, request, abort) : readWhole(answer, request, abort);
}

async function readWhole(
  answer: OutboundAnswer,
  request: AttemptRequest,
  abort: () => void,
): Promise<WholeAnswer | AttemptFailure> {
  const share = new BudgetShare(request.budget);
  try {
    const { whole } = answer;
    const { responseBytesMax } = request.bounds;
    let bytes: Uint8Array<ArrayBuffer> | null;
    if (whole === null) bytes = await readPieces(answer, responseBytesMax, share, abort);
    else if (whole.lengthBytes > responseBytesMax) {
      abort();
      bytes = null;
    } else {
      growTo(share, whole.lengthBytes, abort);
      bytes = new Uint8Array(await whole.read());
    }
    const result = bytes === null ? unread(answer) : wholeAnswer(bytes, answer, request, () => share.release());
    if (result.kind !== "answer") share.release();
    return result;
  } catch (error) {
    share.release();
    throw error;
  }
}

function wholeAnswer(
  bytes: Uint8Array<ArrayBuffer>,
  { status, headers }: OutboundAnswer,
  request: AttemptRequest,
  release: () => void,
): WholeAnswer | AttemptFailure {
  if (bytes.length === 0 && mayBeEmpty(request.method, status)) {
    const nothing = { usage: null, outputBytes: 0, responseId: null, isPending: false };
    return { kind: "answer", status, bytes, headers, ...nothing, release };
  }
  const value = parsed(bytes, request.endpoint.mayBeArray ?? false);
  if (value === null || !isJsonType(headers.get("content-type"))) return badResponse(status);
  const isResponse = request.endpoint.name === "responses";
  // A response that failed has an error of its own, and is an answer.
  const failure = isResponse ? null : errorInSuccess(value);
  if (failure !== null) return badResponse(status, failure.error);
  const id = isResponse && typeof value.id === "string" ? value.id : null;
  const usage = usageOf(value.usage, request.endpoint.cost);
  const outputBytes = usage === null ? outputTextBytes(value) : 0;
  const isPending = isResponse && usage === null && PENDING.has(value.status);
  return { kind: "answer", status, bytes, headers, usage, outputBytes, responseId: id, isPending, release };
}

/** What is deleted needs no description, and some statuses have no body. */
function mayBeEmpty(method: AttemptRequest["method"], status: number): boolean {
  return method === "DELETE" || (method === "GET" && (status === 204 || status === 205));
}

/** An answer of an upstream that is no success. */
async function refusalOf(answer: OutboundAnswer, abort: () => void): Promise<AttemptFailure> {
  const { status, headers } = answer;
  const text = new TextDecoder().decode(await readBeginning(answer, abort));
  const { error, numericCode } = readUpstreamError(status, text, headers.get("content-type"));
  const { code, type, param } = error;
  return {
    kind: "failure",
    failure: { kind: "status", status, code, type, param, numericCode, headers },
    answer: { status, error, upstreamStatus: status },
  };
}

/** As much of an error as is worth reading; less when it breaks off or takes too long. */
async function readBeginning(answer: OutboundAnswer, abort: () => void): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let total = 0;
  const timer = setTimeout(abort, ERROR_READ_MS_MAX);
  try {
    const { whole } = answer;
    if (whole !== null && whole.lengthBytes <= ERROR_BYTES_MAX) return new Uint8Array(await whole.read());
    for await (const chunk of answer.body ?? []) {
      chunks.push(chunk);
      total += chunk.length;
      if (total > ERROR_BYTES_MAX) {
        abort();
        break;
      }
    }
  } catch {
    // What came may say enough.
  } finally {
    clearTimeout(timer);
  }
  return Buffer.concat(chunks).subarray(0, ERROR_BYTES_MAX);
}

/** What came where events were asked for; it may say why. */
async function failureInPlaceOfEvents(answer: OutboundAnswer, abort: () => void): Promise<AttemptFailure> {
  const { status, headers } = answer;
  if (!isJsonType(headers.get("content-type"))) {
    abort();
    return badResponse(status);
  }
  const value = parsed(await readBeginning(answer, abort), false);
  return badResponse(status, errorInSuccess(value)?.error);
}

async function readStream(
  answer: OutboundAnswer,
  { endpoint, bounds }: AttemptRequest,
  abort: () => void,
): Promise<WholeAnswer | BegunStream | AttemptFailure> {
  const { status, headers, body } = answer;
  if (body === null || !isEventStream(headers)) return failureInPlaceOfEvents(answer, abort);
  // Until the first event its own deadline holds.
  const source = new UpstreamEvents(body, bounds.eventBytesMax, null, abort);
  const comments = new GatheredBytes();
  for (;;) {
    const events = await source.next();
    if (events === null) return source.isOversized ? oversized(status) : badResponse(status);
    const event = events.find((candidate) => parseEvent(candidate).data !== null);
    if (event === undefined) {
      for (const comment of events) comments.add(comment);
      if (comments.length <= COMMENT_BYTES_MAX) continue;
      source.cancel();
      return badResponse(status);
    }
    // Whatever it says is scrubbed with all other failures.
    const watch = new StreamWatch(endpoint, true, (text) => text);
    const verdict = watch.see(event);
    if (typeof verdict === "object" && "error" in verdict) {
      source.cancel();
      return badResponse(status, verdict.error);
    }
    source.idleMs = bounds.idleMs;
    // Together they read as one event that says nothing.
    const first = comments.length === 0 ? events : [comments.joined(), ...events];
    return { kind: "stream", status, headers, source, first, responseId: watch.responseId, ...UNBOUND };
  }
}

/** Until its deadline is known. */
const UNBOUND: Pick<BegunStream, "end" | "overdue"> = { end: () => undefined, overdue: () => null };

/**
 * Null when there are more than `bytesMax`. `share` grows with them.
 * @throws RelayError overloaded
 */
async function readPieces(
  { body }: OutboundAnswer,
  bytesMax: number,
  share: BudgetShare,
  abort: () => void,
): Promise<Uint8Array<ArrayBuffer> | null> {
  if (body === null) return new Uint8Array(0);
  const gathered = new GatheredBytes();
  for await (const chunk of body) {
    const total = gathered.length + chunk.length;
    if (total > bytesMax) {
      abort();
      return null;
    }
    growTo(share, Math.min(bytesMax, Math.ceil(total / SMALL_STEP_BYTES) * SMALL_STEP_BYTES), abort);
    gathered.add(chunk);
  }
  return gathered.joined();
}

/** @throws RelayError overloaded, after `abort` */
function growTo(share: BudgetShare, bytes: number, abort: () => void): void {
  if (share.tryGrowTo(bytes)) return;
  abort();
  throw new RelayError("overloaded", "too many answers are being received", { headers: { "Retry-After": "1" } });
}

const STRICT = new TextDecoder("utf-8", { fatal: true });

function parsed(bytes: Uint8Array, mayBeArray: boolean): Readonly<Record<string, unknown>> | null {
  try {
    const value: unknown = JSON.parse(STRICT.decode(bytes));
    return isObject(value) || (mayBeArray && Array.isArray(value)) ? (value as Record<string, unknown>) : null;
  } catch {
    return null;
  }
}

function isEventStream(headers: Headers): boolean {
  return /^text\/event-stream\b/i.test(headers.get("content-type") ?? "");
}

function isJsonType(type: string | null): boolean {
  return type === null || /^[a-z]+\/([a-z0-9.-]+\+)?json\b/i.test(type);
}

/** What came is no answer of this API; `error` when it was an error after all. */
function badResponse(
  upstreamStatus: number | null,
  error: ErrorObject = {
    message: "the upstream sent an answer that cannot be read",
    type: "upstream_error",
    param: null,
    code: "bad_upstream_response",
  },
): AttemptFailure {
  return {
    kind: "failure",
    failure: { kind: "bad_response" },
    answer: { status: 502, error, upstreamStatus },
  };
}

/** Too large to be read: of another type it would have been no answer at any size. */
function unread({ status, headers }: OutboundAnswer): AttemptFailure {
  return isJsonType(headers.get("content-type")) ? oversized(status) : badResponse(status);
}

/** A success that is larger than we take. */
function oversized(upstreamStatus: number): AttemptFailure {
  const message = "the answer of the upstream is too large to be passed on";
  const error = { message, type: "upstream_error", param: null, code: "bad_upstream_response" };
  return { kind: "failure", failure: { kind: "oversized" }, answer: { status: 502, error, upstreamStatus } };
}

function ourFailure(failure: Failure, status: number, code: string, message: string): AttemptResult {
  const error = { message, type: "upstream_error", param: null, code };
  return { kind: "failure", failure, answer: { status, error, upstreamStatus: null } };
}
