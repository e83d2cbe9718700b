// What a client is sent: an answer, a stream, a kept answer, a failure; each closes the account of its request.

import type { ByteBudget } from "../http/byte-budget.ts";
import { streamPieces } from "../http/held-bytes.ts";
import type { RequestScope } from "../http/request-scope.ts";
import { type ResponseHeaders, respond, UNKNOWN_LENGTH } from "../http/respond.ts";
import { INLINE_VALUE_BYTES_MAX, UNREAD_SECONDS_MAX } from "../shared/bounds.ts";
import type { AnswerCache, KeptAnswer } from "./answer-cache.ts";
import type { PoolChannel } from "./channel-pool.ts";
import { CollectedEvents } from "./collected-events.ts";
import type { RelayCall } from "./relay-call.ts";
import { CLIENT_GONE, type ErrorObject, RelayError, type RelayRefusal, type StreamErrorCode } from "./relay-errors.ts";
import type { RelayMetrics } from "./relay-metrics.ts";
import { RelayStream, type StreamEnd } from "./relay-stream.ts";
import { StreamWatch } from "./stream-watch.ts";
import type { BegunStream, FailedAnswer, WholeAnswer } from "./upstream-attempt.ts";
import { createScrubber } from "./upstream-error.ts";
import { shownProcessingMs, shownType } from "./upstream-headers.ts";

interface AnswerSettings {
  readonly onClientAbort: "cancel" | "drain";
  readonly exposesChannel: boolean;
}

export interface ToldFailure {
  readonly answer: FailedAnswer;
  /** How long the client is told to wait, under 429; null = nothing is known of it. */
  readonly waitSeconds: number | null;
  /** Whether the upstream has done its work all the same: it costs what was set aside. */
  readonly isBilled: boolean;
}

const STREAM_HEADERS = {
  "Content-Type": "text/event-stream; charset=utf-8",
  "Cache-Control": "no-cache",
  "X-Accel-Buffering": "no",
};

const UNBILLED = { isBilled: false, usage: null, outputBytes: 0 };

/** What the log says of a stream; an error of the upstream's own may have any code. */
type LoggedCode = StreamErrorCode | RelayRefusal | typeof CLIENT_GONE.errorCode | "upstream_error";

const ERROR_CODES: Readonly<Record<StreamEnd, LoggedCode | null>> = {
  complete: null,
  interrupted: "upstream_stream_interrupted",
  oversized: "upstream_stream_interrupted",
  late: "upstream_timeout",
  unread: "upstream_timeout",
  upstream_error: "upstream_error",
  client_gone: CLIENT_GONE.errorCode,
  shutting_down: "server_shutting_down",
};

export class RelayAnswers {
  readonly #settings: AnswerSettings;
  readonly #budget: ByteBudget;
  readonly #cache: AnswerCache;
  readonly #metrics: RelayMetrics;
  readonly #streams = new Set<RelayStream>();

  /** `budget`: what streams are collected in, for the cache. */
  constructor(settings: AnswerSettings, budget: ByteBudget, cache: AnswerCache, metrics: RelayMetrics) {
    this.#settings = settings;
    this.#budget = budget;
    this.#cache = cache;
    this.#metrics = metrics;
  }

  /** Tells the clients of streams that the server stops. */
  interruptStreams(): void {
    for (const stream of this.#streams) stream.interrupt();
  }

  whole(call: RelayCall, member: PoolChannel, answer: WholeAnswer): Response {
    const { scope, account, keep } = call;
    const { status, bytes, usage, outputBytes, isPending } = answer;
    const contentType = shownType(answer.headers, member.key!);
    const outcome = { status, errorCode: null, isBilled: true, usage, outputBytes, isPending };
    const isGone = scope.request.signal.aborted;
    if (keep !== null && !isGone && status === 200) {
      const kept = { contentType, chunks: [bytes], isStream: false, model: account.model };
      this.#cache.keep(keep.key, kept, keep.seconds);
    }
    if (isGone) this.#metrics.countAbort("before_answer");
    account.settle(isGone ? { ...outcome, ...CLIENT_GONE } : outcome);
    const headers = this.#headers(call, answer.headers);
    if (bytes.length > 0) headers["Content-Type"] = contentType;
    // HEAD would never take the stream, and its share would be held for good.
    if (bytes.length > INLINE_VALUE_BYTES_MAX && !scope.isHead) {
      scope.bytesOut = bytes.length;
      return respond(scope, status, headers, piecesOf(call, answer));
    }
    answer.release();
    account.leave();
    return respond(scope, status, headers, bytes.length > 0 ? bytes : null);
  }

  stream(call: RelayCall, member: PoolChannel, begun: BegunStream): Response {
    const { scope, endpoint, request, account, keep } = call;
    if (scope.isHead) return this.#headOf(call, begun);
    const watch = new StreamWatch(endpoint, request.wantsUsage, createScrubber([member.key!]));
    const collected = keep === null ? null : new CollectedEvents(this.#budget, this.#cache.answerBytesMax);
    const release = call.holdBody();
    account.noteFirstEvent();
    const stream = new RelayStream({
      clientGone: scope.request.signal,
      endpoint,
      source: begun.source,
      watch,
      first: begun.first,
      isOverdue: () => begun.overdue() !== null,
      onClientGone: this.#settings.onClientAbort,
      onEvent: (event) => collected?.add(event),
      onEnd: (end) => {
        begun.end();
        release();
        scope.extendIdleTimeout(UNREAD_SECONDS_MAX);
        this.#streams.delete(stream);
        const isLate = end === "late" && begun.overdue() === "deadline";
        const isBroken = end === "interrupted" || end === "upstream_error" || isLate;
        if (isBroken && call.blamesChannel) member.breaker.breakOff();
        // What was said of a stream so far is not the last word: an estimate is, unless it came to its end.
        const usage = watch.isComplete ? watch.usage : null;
        const status = end === "client_gone" ? CLIENT_GONE.status : begun.status;
        // Its upstream goes on with one in the background, and the client may come back for it. Of another, nobody
        // knows how much there was in what is too large, whether its client has waited for it or not.
        const isPending = !watch.isComplete && (request.isBackground || begun.source.isOversized);
        const { outputBytes } = watch;
        account.close({ status, errorCode: ERROR_CODES[end], isBilled: true, usage, outputBytes, isPending });
        if (end === "client_gone") this.#metrics.countAbort("stream");
        const events = collected?.events ?? null;
        if (end === "complete" && keep !== null && events !== null) {
          const kept = { contentType: STREAM_HEADERS["Content-Type"], chunks: events, isStream: true };
          this.#cache.keep(keep.key, { ...kept, model: account.model }, keep.seconds);
        }
        collected?.release();
      },
    });
    this.#streams.add(stream);
    scope.isWatched = true;
    return respond(scope, begun.status, { ...this.#headers(call, begun.headers), ...STREAM_HEADERS }, stream.body);
  }

  /** HEAD takes no stream: nobody would read it to its end, or leave. */
  #headOf(call: RelayCall, { status, headers, source, end }: BegunStream): Response {
    source.cancel();
    end();
    call.account.close({ ...UNBILLED, status, errorCode: null });
    return respond(call.scope, status, { ...this.#headers(call, headers), ...STREAM_HEADERS, ...UNKNOWN_LENGTH });
  }

  /** Costs nothing and is logged. */
  kept(call: RelayCall, { contentType, chunks, isStream, model }: KeptAnswer): Response {
    call.account.model = model;
    call.account.close({ ...UNBILLED, status: 200, errorCode: null });
    const headers: ResponseHeaders = {
      ...this.#headers(call, null),
      ...(isStream ? STREAM_HEADERS : { "Content-Type": contentType }),
      ...(call.request.names.length > 1 ? { "x-gokv-model": encodeURI(model) } : {}),
      "x-gokv-cache": "HIT",
    };
    return respond(call.scope, 200, headers, call.scope.isHead ? null : streamChunks(chunks));
  }

  /** An upstream has refused or failed, and there is no other. */
  failure(call: RelayCall, { answer, waitSeconds, isBilled }: ToldFailure): Response {
    const { status, error, upstreamStatus } = answer;
    const { scope, account } = call;
    if (scope.request.signal.aborted) return this.gone(call, isBilled, isBilled);
    const { message, type, param, code } = error;
    account.close({ ...UNBILLED, status, errorCode: code ?? type, isBilled, isPending: isBilled });
    const headers = this.#headers(call, null);
    if (upstreamStatus !== null) headers["x-gokv-upstream-status"] = `${upstreamStatus}`;
    if (status === 429 && waitSeconds !== null) headers["Retry-After"] = `${waitSeconds}`;
    headers["Content-Type"] = "application/json";
    scope.failure = new RelayError("bad_upstream_response", message);
    const body: { error: ErrorObject } = { error: { message, type, param, code } };
    return respond(scope, status, headers, JSON.stringify(body));
  }

  /**
   * Nobody reads this one: the connection is gone. A client that leaves an upstream at work pays for its prompt;
   * `isPending`: for all that was set aside, as the upstream has done its work.
   */
  gone({ scope, account }: RelayCall, isBilled: boolean, isPending = false): Response {
    this.#metrics.countAbort("before_answer");
    account.close({ ...UNBILLED, ...CLIENT_GONE, isBilled, isPending });
    return respond(scope, CLIENT_GONE.status, {});
  }

  #headers(call: RelayCall, upstream: Headers | null): ResponseHeaders {
    const { scope, account, keep, request } = call;
    const headers: ResponseHeaders = {};
    describeAttempts(scope, account.attempts, account.overheadMs);
    const processingMs = upstream === null ? null : shownProcessingMs(upstream);
    if (processingMs !== null) headers["openai-processing-ms"] = processingMs;
    if (request.names.length > 1 && account.attempts > 0) headers["x-gokv-model"] = encodeURI(account.model);
    if (account.channelId !== null && this.#settings.exposesChannel) {
      headers["x-gokv-channel-id"] = `${account.channelId}`;
    }
    if (keep !== null) headers["x-gokv-cache"] = "MISS";
    else if (scope.request.headers.has("x-gokv-cache")) headers["x-gokv-cache"] = "BYPASS";
    return headers;
  }
}

/** A large answer: its request is at work until the client has taken all of it. */
function piecesOf({ account }: RelayCall, { bytes, release }: WholeAnswer): ReadableStream {
  return streamPieces(bytes, () => {
    release();
    account.leave();
  });
}

/** Every answer of the relay says how often an upstream was asked, and how long it took besides. */
export function describeAttempts(scope: RequestScope, attempts: number, overheadMs: number): void {
  const described = { "x-gokv-attempts": `${attempts}`, "x-gokv-overhead-ms": tenths(overheadMs) };
  scope.surfaceHeaders = scope.surfaceHeaders === null ? described : { ...scope.surfaceHeaders, ...described };
}

/** With one digit behind the point; `toFixed` is slow. */
function tenths(ms: number): string {
  const rounded = Math.round(ms * 10);
  return `${Math.trunc(rounded / 10)}.${rounded % 10}`;
}

/** Kept bytes as they are, one piece as soon as the client has taken the last. */
function streamChunks(chunks: readonly Uint8Array[]): Uint8Array<ArrayBuffer> | ReadableStream {
  const bytes = chunks.reduce((sum, { length }) => sum + length, 0);
  if (bytes <= INLINE_VALUE_BYTES_MAX) return new Uint8Array(Buffer.concat(chunks));
  const pieces = chunks.values();
  return new ReadableStream(
    {
      pull(controller) {
        const { done, value } = pieces.next();
        if (done) controller.close();
        else controller.enqueue(value);
      },
    },
    { highWaterMark: 0 },
  );
}
