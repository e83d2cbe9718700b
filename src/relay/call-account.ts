// What one request of a token costs: reserved before it goes out, settled once when nothing more can come of it.

import type { Clock } from "../shared/clock.ts";
import { AppError } from "../shared/errors.ts";
import type { Endpoint } from "./relay-endpoints.ts";
import { RelayError } from "./relay-errors.ts";
import type { Hold, RelayLimits } from "./relay-limits.ts";
import type { RelayRequest } from "./relay-request.ts";
import type { NewLogRow, RelayToken } from "./relay-tables.ts";
import { ANSWER_TOKENS, estimatePrompt, estimateTokens, reservationFor, type TokenUsage } from "./token-usage.ts";
import type { UsageLog } from "./usage-log.ts";

/** A reservation outlives its request by this much, on an engine that several nodes share. */
const RESERVATION_GRACE_MS = 60_000;

const NOTHING: TokenUsage = { promptTokens: 0, completionTokens: 0, cachedTokens: 0 };

/** How a request ended. */
interface CallOutcome {
  /** What the client was told; 499 = it left. */
  readonly status: number;
  readonly errorCode: string | null;
  /** Whether an upstream has begun to answer: everything before is free. */
  readonly isBilled: boolean;
  /** As the upstream says; null = it is estimated. */
  readonly usage: TokenUsage | null;
  /** Bytes of text that were generated, for an estimate. */
  readonly outputBytes: number;
  /** The upstream goes on with it in the background, or has sent more than we take: nobody knows what it takes. */
  readonly isPending?: boolean;
}

export interface CallParts {
  readonly requestId: string;
  readonly token: RelayToken;
  readonly endpoint: Endpoint;
  readonly request: RelayRequest;
  readonly clientIp: string | null;
  readonly limits: RelayLimits;
  readonly usageLog: UsageLog;
  readonly clock: Clock;
  readonly totalMs: number;
  /** Called once; null = it was refused before anything was sent, and is not logged. */
  readonly onClosed: (row: NewLogRow | null) => void;
  /** Called once, when nothing more is received or sent. */
  readonly onOver: () => void;
}

export class CallAccount {
  readonly #parts: CallParts;
  readonly #startedMs = performance.now();
  readonly #amount: number;
  readonly #prompt: number;
  readonly #hold: Hold;
  #hasReserved = false;
  #isClosed = false;
  #isOver = false;
  /** Until the answer began: what comes after that is waiting, for the upstream or the client. */
  #overheadMs: number | null = null;
  /** Kept by the engine while it tries. */
  attempts = 0;
  upstreamMs = 0;
  channelId: number | null = null;
  upstreamModel: string | null = null;
  model: string;
  ttftMs: number | null = null;

  /** @throws RelayError rate_limit_exceeded */
  constructor(parts: CallParts) {
    const { token, endpoint, request, limits } = parts;
    this.#parts = parts;
    this.model = request.model;
    this.#prompt = estimatePrompt(endpoint, request.body);
    this.#amount = reservationFor(endpoint, request, this.#prompt);
    this.#hold = limits.hold(token, this.#amount);
  }

  /** Another attempt begins. */
  begin(channelId: number, model: string, upstreamModel: string): void {
    this.attempts++;
    this.channelId = channelId;
    this.model = model;
    this.upstreamModel = upstreamModel;
  }

  get elapsedMs(): number {
    return performance.now() - this.#startedMs;
  }

  /** Time that was not spent waiting for an upstream. */
  get overheadMs(): number {
    return this.#overheadMs ?? Math.max(0, this.elapsedMs - this.upstreamMs);
  }

  /** The first event of a stream is here. */
  noteFirstEvent(): void {
    this.ttftMs = this.elapsedMs;
    this.#overheadMs = this.overheadMs;
  }

  /** Only a finite quota pays for its reservation with a commit. */
  get mustReserve(): boolean {
    return !this.#parts.token.isUnlimited && this.#amount > 0;
  }

  /** @throws RelayError insufficient_quota, quota_store_unavailable */
  async reserve(): Promise<void> {
    const { token, requestId, usageLog, clock, totalMs } = this.#parts;
    const expiresAtMs = clock() + totalMs + RESERVATION_GRACE_MS;
    try {
      const mayGo = await usageLog.reserve({ requestId, tokenId: token.id, amount: this.#amount, expiresAtMs });
      if (!mayGo) throw this.#insufficientQuota();
      this.#hasReserved = true;
    } catch (error) {
      this.#isClosed = true;
      this.#hold.settle(0);
      this.#parts.onClosed(null);
      this.leave();
      if (!(error instanceof AppError)) throw error;
      throw new RelayError("quota_store_unavailable", "quotas cannot be counted at the moment", {
        headers: { "Retry-After": "1" },
        cause: error,
      });
    }
  }

  #insufficientQuota(): RelayError {
    const { endpoint, request } = this.#parts;
    // Nobody who left the answer open knows of what is set aside for it.
    const isOpen = endpoint.cost === "generation" && request.maxTokens === null;
    const limit = endpoint.name === "responses" ? "max_output_tokens" : "max_tokens";
    const advice = isOpen ? `; it names no ${limit}: one below ${ANSWER_TOKENS} asks for fewer` : "";
    const message = `the quota of the API key does not cover the ${this.#amount} tokens that this may take${advice}`;
    return new RelayError("insufficient_quota", message, { headers: { "x-should-retry": "false" } });
  }

  /** Nobody waits for the answer any more: another request of the token may come, while this one is still at work. */
  clientGone(): void {
    this.#hold.drain();
  }

  /** Nothing more is received or sent. Only the first call counts. */
  leave(): void {
    this.#hold.leave();
    if (this.#isOver) return;
    this.#isOver = true;
    this.#parts.onOver();
  }

  /** Settles, logs and leaves. Only the first call counts. */
  close(outcome: CallOutcome): void {
    this.settle(outcome);
    this.leave();
  }

  /** Settles and logs, while the answer is on its way: `leave` is to be called when it has arrived. */
  settle(outcome: CallOutcome): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    const { status, errorCode, isBilled } = outcome;
    const { token, endpoint, request, requestId, clientIp, clock, usageLog, onClosed } = this.#parts;
    const used = isBilled && endpoint.cost !== "none" ? this.#usedBy(outcome) : NOTHING;
    const quota = endpoint.cost === "input" ? used.promptTokens : used.promptTokens + used.completionTokens;
    this.#hold.settle(quota);
    const row: NewLogRow = {
      request_id: requestId,
      ts: clock(),
      token_id: token.id,
      token_name: token.name,
      channel_id: this.channelId,
      route: endpoint.name,
      model: this.model,
      upstream_model: this.upstreamModel,
      status,
      // A stored response is streamed without a word about it in a request.
      stream: request.isStream || this.ttftMs !== null ? 1 : 0,
      ttft_ms: rounded(this.ttftMs),
      duration_ms: Math.round(this.elapsedMs),
      overhead_ms: Math.round(this.overheadMs * 100) / 100,
      prompt_tokens: used.promptTokens,
      completion_tokens: used.completionTokens,
      cached_tokens: used.cachedTokens,
      estimated: used !== NOTHING && outcome.usage === null ? 1 : 0,
      quota,
      attempts: this.attempts,
      error_code: errorCode,
      client_ip: clientIp,
    };
    if (this.#hasReserved) usageLog.settle(row, this.#amount);
    else usageLog.record(row);
    onClosed(row);
  }

  /** As the upstream says, or an estimate: of what goes on without us, at least all that was set aside for it. */
  #usedBy({ usage, outputBytes, isPending }: CallOutcome): TokenUsage {
    if (usage !== null) return usage;
    const seenTokens = estimateTokens(outputBytes);
    const completionTokens = isPending === true ? Math.max(seenTokens, this.#amount - this.#prompt) : seenTokens;
    return { promptTokens: this.#prompt, completionTokens, cachedTokens: 0 };
  }
}

function rounded(ms: number | null): number | null {
  return ms === null ? null : Math.round(ms);
}
