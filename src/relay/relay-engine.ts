// One request from its plan to its answer: one channel after the other, by the rules of what may be retried.

import type { ByteBudget } from "../http/byte-budget.ts";
import type { OutboundTransport } from "../http/outbound-transport.ts";
import type { Clock } from "../shared/clock.ts";
import { messageOf } from "../shared/errors.ts";
import type { Eventually } from "../shared/eventual.ts";
import type { Log } from "../shared/log.ts";
import { type AnswerCache, CACHE_TTL_SECONDS_MAX, cacheKey, cacheSecondsOf } from "./answer-cache.ts";
import { CallAccount } from "./call-account.ts";
import { type ChannelPool, type PoolChannel, type Shortage, upstreamModelOf } from "./channel-pool.ts";
import type { CircuitBreaker } from "./circuit-breaker.ts";
import { InflightCalls } from "./inflight-calls.ts";
import type { LiveChannels } from "./live-channels.ts";
import type { RelayAnswers, ToldFailure } from "./relay-answers.ts";
import type { IncomingRequest, KeepPlan, RelayCall } from "./relay-call.ts";
import { RelayError } from "./relay-errors.ts";
import type { RelayLimits } from "./relay-limits.ts";
import type { RelayMetrics } from "./relay-metrics.ts";
import { forwardedBody } from "./relay-request.ts";
import type { NewLogRow, RelayToken } from "./relay-tables.ts";
import type { ResponseStore } from "./response-store.ts";
import { judgeFailure, retryAfterMs, retryAfterSeconds, type Verdict } from "./retry-rules.ts";
import { type AttemptFailure, type AttemptRequest, type AttemptResult, attemptUpstream } from "./upstream-attempt.ts";
import { createScrubber, scrubError } from "./upstream-error.ts";
import type { UsageLog } from "./usage-log.ts";

interface EngineSettings {
  /** Per model. */
  readonly attemptsMax: number;
  readonly retriesTimeouts: boolean;
  readonly ttftMs: number;
  readonly idleMs: number;
  readonly totalMs: number;
  readonly responseBytesMax: number;
  readonly eventBytesMax: number;
  readonly onClientAbort: "cancel" | "drain";
}

export interface EngineParts {
  readonly settings: EngineSettings;
  readonly pool: ChannelPool;
  readonly channels: LiveChannels;
  readonly transport: OutboundTransport;
  readonly budget: ByteBudget;
  readonly answers: RelayAnswers;
  readonly limits: RelayLimits;
  readonly usageLog: UsageLog;
  readonly cache: AnswerCache;
  readonly responses: ResponseStore;
  readonly metrics: RelayMetrics;
  readonly clock: Clock;
  readonly log: Log;
}

interface FailedAttempt extends ToldFailure {
  readonly verdict: Verdict;
}

type Success = Extract<AttemptResult, { kind: "answer" | "stream" }>;

/** What is asked of an upstream besides a body that is made for each channel. */
interface Ask {
  readonly method: "GET" | "POST" | "DELETE";
  readonly subpath: string;
}

/** With less time left than this no upstream is asked any more: it would work for nobody, and may be paid for that. */
const ATTEMPT_MS_MIN = 10;

const POST: Ask = { method: "POST", subpath: "" };
/** Where a stored response is asked for: after a 429 all such requests of the channel wait under this name. */
const NO_MODEL = "";
const NO_HEADERS = new Headers();

export class RelayEngine {
  readonly #parts: EngineParts;
  /** What ends each attempt that is under way, for the day the server stops and waits no longer. */
  readonly #calls = new InflightCalls();
  #isStopped = false;
  #inflight = 0;
  /** The same for every call. */
  readonly #onClosed = (row: NewLogRow | null) => {
    if (row !== null) this.#parts.metrics.countCall(row);
  };
  readonly #onOver = () => {
    this.#inflight--;
  };

  constructor(parts: EngineParts) {
    this.#parts = parts;
  }

  get inflight(): number {
    return this.#inflight;
  }

  /** Gives up every attempt that is under way, and all that would follow. */
  stop(): void {
    this.#isStopped = true;
    this.#calls.endAll();
  }

  /** @throws RelayError */
  relay(incoming: IncomingRequest): Promise<Response> {
    const { pool, clock } = this.#parts;
    const { token, endpoint, request } = incoming;
    const { previousResponseId: previous } = request;
    if (previous !== null) return this.#continue(incoming, previous);
    const shortage = pool.shortageOf(request.names, endpoint.name, token.groups);
    if (shortage !== null) throw shortageError(shortage, clock());
    return this.#account(incoming, (call) => this.#tryChannels(call, null));
  }

  async #continue(incoming: IncomingRequest, previous: string): Promise<Response> {
    const { token, request } = incoming;
    const channelId = await this.#requireBound(token, previous, "previous_response_id");
    const requireSticky = () => this.#requireReady(channelId, incoming, request.model);
    requireSticky();
    // Once more: while the quota was reserved others have passed, failed, or changed the channel.
    return this.#account(incoming, (call) => this.#tryChannels(call, requireSticky()));
  }

  /**
   * A response that was made with the token: read or deleted where it is. `search` of its URL begins with "?", or is
   * empty.
   * @throws RelayError
   */
  async passResponse(
    incoming: IncomingRequest,
    method: "GET" | "DELETE",
    { responseId, search }: { responseId: string; search: string },
  ): Promise<Response> {
    const { token } = incoming;
    const channelId = await this.#requireBound(token, responseId, "response_id");
    const member = this.#requireReady(channelId, incoming, NO_MODEL);
    return this.#account(incoming, async (call) => {
      const ask: Ask = { method, subpath: `/${encodeURIComponent(responseId)}${search}` };
      const result = await this.#attempt(call, member, NO_MODEL, ask);
      if (result.kind === "client_gone") return this.#givenUp(call);
      if (result.kind === "failure") return this.#answerFailure(call, member, NO_MODEL, result);
      if (method === "DELETE") {
        await this.#unlessRefused("forgotten", this.#parts.responses.unbind(responseId, token.id));
      }
      return this.#commit(call, member, result);
    });
  }

  /** The id of the channel that holds a response. @throws RelayError response_not_found */
  async #requireBound(token: RelayToken, responseId: string, param: string): Promise<number> {
    const channelId = await this.#parts.responses.findChannel(responseId, token.id);
    if (channelId === null) throw new RelayError("response_not_found", "there is no such response", { param });
    return channelId;
  }

  /**
   * A channel that may be asked for `model` now by the token of a request.
   * @throws RelayError channel_unavailable, model_not_found, channels_cooling_down
   */
  #requireReady(channelId: number, { token, endpoint }: IncomingRequest, model: string): PoolChannel {
    const member = this.#parts.pool.find(channelId);
    const isOpen = member?.channel.groups.some((group) => token.groups.includes(group)) === true;
    if (member === null || !isOpen || !member.isEnabled || member.key === null || !member.breaker.isPassable) {
      throw new RelayError("channel_unavailable", "the channel that holds this response is not available", {
        headers: { "Retry-After": "1" },
      });
    }
    const { clock } = this.#parts;
    const isServed = member.serves(model) && !member.isOff(model, endpoint.name);
    if (model !== NO_MODEL && !isServed) throw shortageError("none_serves", clock());
    const waitUntilMs = member.waitUntilMs(model, endpoint.name);
    if (waitUntilMs > 0) throw shortageError({ waitUntilMs }, clock());
    return member;
  }

  /** Holds limits and quota around `act`; whatever happens, the account is closed once. */
  async #account(incoming: IncomingRequest, act: (call: RelayCall) => Promise<Response>): Promise<Response> {
    const { limits, usageLog, clock, settings, cache, answers } = this.#parts;
    const { scope, token, endpoint, request } = incoming;
    const keep = cachePlan(incoming);
    const account = new CallAccount({
      requestId: scope.id,
      token,
      endpoint,
      request,
      clientIp: scope.clientIp,
      limits,
      usageLog,
      clock,
      totalMs: settings.totalMs,
      onClosed: this.#onClosed,
      onOver: this.#onOver,
    });
    this.#inflight++;
    const { signal } = scope.request;
    // What is read on for the sake of its usage keeps nobody out, within the bound of the limits.
    if (settings.onClientAbort === "drain")
      signal.addEventListener("abort", () => account.clientGone(), { once: true });
    const call: RelayCall = { ...incoming, account, keep };
    const kept = keep === null ? null : cache.find(keep.key);
    if (keep !== null) this.#parts.metrics.countCache(kept === null ? "miss" : "hit");
    if (kept !== null) return answers.kept(call, kept);
    if (account.mustReserve) await account.reserve();
    if (signal.aborted) return answers.gone(call, false);
    try {
      return await act(call);
    } catch (error) {
      const [status, errorCode] = error instanceof RelayError ? [error.status, error.code] : [500, "internal_error"];
      account.close({ status, errorCode, isBilled: false, usage: null, outputBytes: 0 });
      throw error;
    }
  }

  async #tryChannels(call: RelayCall, sticky: PoolChannel | null): Promise<Response> {
    const { settings, pool, answers, clock } = this.#parts;
    const { request, token, endpoint, account } = call;
    const attemptsMax = settings.attemptsMax + request.names.length - 1;
    let best: FailedAttempt | null = null;
    for (const [index, name] of request.names.entries()) {
      const tried = new Set<number>();
      // An attempt is kept for each model that is still to come, if anybody can be asked for it.
      const isAskable = (later: string) => pool.shortageOf([later], endpoint.name, token.groups) === null;
      const kept = () => request.names.slice(index + 1).filter(isAskable).length;
      while (tried.size < settings.attemptsMax && account.attempts < attemptsMax - kept()) {
        if (best !== null && settings.totalMs - account.elapsedMs < ATTEMPT_MS_MIN) {
          return answers.failure(call, best);
        }
        const member = sticky ?? pool.pick(name, endpoint.name, token.groups, tried);
        if (member === null) break;
        tried.add(member.channel.id);
        const result = await this.#attempt(call, member, name, POST);
        if (result.kind === "client_gone") return this.#givenUp(call);
        if (result.kind !== "failure") return this.#commit(call, member, result);
        const failed = this.#takeFailure(call, member, name, result);
        if (best === null || failed.verdict.rank >= best.verdict.rank) best = failed;
        const isWanted = !call.scope.request.signal.aborted;
        if (!failed.verdict.mayRetry || sticky !== null || !isWanted) return answers.failure(call, failed);
      }
    }
    if (best !== null) return answers.failure(call, best);
    // Between the plan and the pick others have failed there.
    const shortage = pool.shortageOf(request.names, endpoint.name, token.groups);
    throw shortageError(shortage ?? { waitUntilMs: clock() + 1000 }, clock());
  }

  async #attempt(call: RelayCall, member: PoolChannel, name: string, ask: Ask): Promise<AttemptResult> {
    const { settings, metrics, channels } = this.#parts;
    const { scope, endpoint, request, account } = call;
    const { id, noStreamOptions, ttftMs, totalMs } = member.channel;
    const model = upstreamModelOf(member.channel, name);
    const settle = member.breaker.enter();
    // However long it is read on: another one may try whether the channel works, and nothing of this one counts.
    if (settings.onClientAbort === "drain")
      scope.request.signal.addEventListener("abort", () => settle("none"), { once: true });
    account.begin(id, name, model);
    const isStream = ask.method === "POST" ? request.isStream : null;
    const startedMs = performance.now();
    const asked: AttemptRequest = {
      endpoint,
      method: ask.method,
      subpath: ask.subpath,
      isStream,
      body: ask.method === "POST" ? forwardedBody(request, endpoint, model, !noStreamOptions) : null,
      passedHeaders: passedHeaders(scope.request.headers, isStream, call.token, model),
      whenGivenUp: (leave) => this.#whenGivenUp(scope.request, leave),
      bounds: {
        ttftMs: ttftMs ?? settings.ttftMs,
        totalMs: Math.min(totalMs ?? settings.totalMs, settings.totalMs),
        leftMs: settings.totalMs - account.elapsedMs,
        idleMs: settings.idleMs,
        responseBytesMax: settings.responseBytesMax,
        eventBytesMax: settings.eventBytesMax,
      },
      budget: this.#parts.budget,
    };
    let result: AttemptResult;
    try {
      result = await attemptUpstream(this.#parts.transport, member, asked);
    } catch (error) {
      // An answer that there is no room for says nothing of its channel.
      settle("none");
      throw error;
    }
    const tookMs = performance.now() - startedMs;
    account.upstreamMs += tookMs;
    metrics.countAttempt(id, result, tookMs);
    if (result.kind === "failure") this.#settleFailure(call, member, result, settle);
    else settle(result.kind === "client_gone" ? "none" : "success");
    if (result.kind === "answer" || result.kind === "stream") {
      member.succeeded(name);
      channels.noteSuccess(member);
    }
    return result;
  }

  #settleFailure(
    call: RelayCall,
    member: PoolChannel,
    result: AttemptFailure,
    settle: ReturnType<CircuitBreaker["enter"]>,
  ): void {
    const { breaker } = member;
    const before = breaker.state;
    settle(breakerOutcome(this.#judge(call, result)));
    if (before === "open" || breaker.state !== "open") return;
    const { failure } = result;
    this.#parts.log.warn("a channel fails again and again: it is left alone for a while", {
      channel: member.channel.id,
      reason: reasonOf(member, result),
      ...(failure.kind === "unreachable" && failure.systemCode !== null ? { cause: failure.systemCode } : {}),
    });
  }

  /** Its client has left, or the server stops and waits no longer. @throws RelayError server_shutting_down */
  #givenUp(call: RelayCall): Response {
    const { request, state } = call.scope;
    if (!this.#isStopped || request.signal.aborted) return this.#parts.answers.gone(call, !state.isDraining);
    throw new RelayError("server_shutting_down", "the server is shutting down", { headers: { "Retry-After": "1" } });
  }

  /** Without a listener on a signal of the engine: all attempts under way would share it. */
  #whenGivenUp({ signal }: Request, leave: () => void): () => void {
    const isCancelled = this.#parts.settings.onClientAbort === "cancel";
    if (isCancelled) signal.addEventListener("abort", leave);
    const takeOut = this.#calls.add(leave);
    if (this.#isStopped || (isCancelled && signal.aborted)) leave();
    return () => {
      if (isCancelled) signal.removeEventListener("abort", leave);
      takeOut();
    };
  }

  #commit(call: RelayCall, member: PoolChannel, result: Success): Eventually<Response> {
    const { responseId } = result;
    if (responseId === null || !call.request.isStored) return this.#respond(call, member, result);
    return this.#commitBound(call, member, result, responseId);
  }

  async #commitBound(call: RelayCall, member: PoolChannel, result: Success, responseId: string): Promise<Response> {
    // Before the client can come back with it.
    await this.#unlessRefused("bound", this.#parts.responses.bind(responseId, call.token.id, member.channel.id));
    return this.#respond(call, member, result);
  }

  #respond(call: RelayCall, member: PoolChannel, result: Success): Response {
    const { answers } = this.#parts;
    return result.kind === "stream" ? answers.stream(call, member, result) : answers.whole(call, member, result);
  }

  async #unlessRefused(done: string, write: Promise<void>): Promise<void> {
    try {
      await write;
    } catch (cause) {
      this.#parts.log.warn(`the store took no note: a response could not be ${done}`, { cause: messageOf(cause) });
    }
  }

  #answerFailure(call: RelayCall, member: PoolChannel, name: string, result: AttemptFailure): Response {
    return this.#parts.answers.failure(call, this.#takeFailure(call, member, name, result));
  }

  /**
   * What comes after its client has left does nothing to the channel, not even what the next one will find true.
   * Whatever a client asked for, a channel that is asked too much waits. How an upstream describes what it keeps says
   * nothing of how it answers models.
   */
  #judge({ blamesChannel, scope }: RelayCall, { failure }: AttemptFailure): Verdict {
    const verdict = judgeFailure(failure, this.#parts.settings.retriesTimeouts);
    const { method, signal } = scope.request;
    if (signal.aborted) return { ...verdict, effect: "none" };
    const isOfStored = failure.kind === "bad_response" && method !== "POST";
    return (blamesChannel && !isOfStored) || verdict.effect === "cool" ? verdict : { ...verdict, effect: "none" };
  }

  /** What a failure means for its channel, and what the client would be told of it. */
  #takeFailure(call: RelayCall, member: PoolChannel, model: string, result: AttemptFailure): FailedAttempt {
    const { clock, channels, log } = this.#parts;
    const { endpoint } = call;
    const verdict = this.#judge(call, result);
    const error = scrubError(result.answer.error, createScrubber([member.key!]));
    const reason = reasonOf(member, result);
    const { failure } = result;
    const headers = failure.kind === "status" ? failure.headers : NO_HEADERS;
    let waitSeconds = retryAfterSeconds(headers, clock());
    member.lastError = { code: reason, atMs: clock() };
    switch (verdict.effect) {
      case "cool": {
        const waitMs = member.cool(model, retryAfterMs(headers, clock()));
        waitSeconds ??= Math.max(1, Math.ceil(waitMs / 1000));
        break;
      }
      case "model_off":
        // What is missing may be the response that was named: that says nothing of a model.
        if (model !== NO_MODEL && call.request.previousResponseId === null) member.switchOff(model, endpoint.name);
        break;
      case "disable":
        channels.disable(member, reason).catch((cause: unknown) => {
          log.error("a channel could not be disabled", { channel: member.channel.id, cause: messageOf(cause) });
        });
    }
    return { answer: { ...result.answer, error }, waitSeconds, verdict, isBilled: failure.kind === "oversized" };
  }
}

/** Null when the answer is not to be kept. @throws RelayError invalid_value */
function cachePlan({ scope, token, endpoint, request }: IncomingRequest): KeepPlan | null {
  const seconds = cacheSecondsOf(scope.request.headers.get("x-gokv-cache"), token.cacheTtlSeconds);
  if (seconds === null) {
    const message = `x-gokv-cache must be ttl=SECONDS, at most ${CACHE_TTL_SECONDS_MAX}, or no-store`;
    throw new RelayError("invalid_value", message, { param: "x-gokv-cache" });
  }
  const isKept = endpoint.cost !== "none" && endpoint.name !== "responses" && seconds > 0;
  return isKept ? { key: cacheKey(token.id, endpoint.path, request.isStream, request.body), seconds } : null;
}

/** For operators, of whom clients know nothing: there an address that is not allowed could not be reached. */
function reasonOf({ key }: PoolChannel, { failure, answer }: AttemptFailure): string {
  if (failure.kind === "unreachable" && failure.isAddressRefused) return "address_refused";
  const { code } = scrubError(answer.error, createScrubber([key!]));
  return code ?? `${answer.status}`;
}

function breakerOutcome({ effect }: Verdict): "failure" | "connect_failure" | "none" {
  return effect === "failure" || effect === "connect_failure" ? effect : "none";
}

function shortageError(shortage: Shortage, nowMs: number): RelayError {
  if (shortage === "none_enabled") {
    return new RelayError("no_available_channel", "no channel is available", {
      headers: { "x-should-retry": "false" },
    });
  }
  if (shortage === "none_serves") {
    return new RelayError("model_not_found", "no channel serves this model", { param: "model" });
  }
  const seconds = Math.max(1, Math.ceil((shortage.waitUntilMs - nowMs) / 1000));
  return new RelayError("channels_cooling_down", "all channels for this model are cooling down", {
    headers: { "Retry-After": `${seconds}` },
  });
}

/** All that an upstream gets to see of the headers of a client. */
function passedHeaders(
  headers: Headers,
  isStream: boolean | null,
  token: RelayToken,
  model: string,
): Record<string, string> {
  const one = isStream ? "text/event-stream" : "application/json";
  const passed: Record<string, string> = {
    "content-type": "application/json",
    accept: isStream === null ? "application/json, text/event-stream" : one,
    "accept-encoding": "identity",
  };
  const beta = headers.get("openai-beta");
  if (beta !== null) passed["openai-beta"] = beta;
  const idempotencyKey = headers.get("idempotency-key");
  if (idempotencyKey) passed["idempotency-key"] = ownIdempotencyKey(token, model, idempotencyKey);
  return passed;
}

/**
 * To an upstream all tokens are one client: with a key that another token has used it would answer with what that one
 * was told. The same key of the same token is the same there too, but for a fallback: it is another request, and must
 * not be told how the one before it has failed.
 */
function ownIdempotencyKey({ id }: RelayToken, model: string, key: string): string {
  return new Bun.CryptoHasher("sha256").update(`${id}\n${model}\n${key}`).digest("hex");
}
