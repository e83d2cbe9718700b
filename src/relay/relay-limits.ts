// What a relay token may ask for at once and in a minute: requests, tokens of a model, calls in parallel.

import type { GcraLimiter, RateLimit, RateVerdict } from "../limits/gcra-limiter.ts";
import { RelayError } from "./relay-errors.ts";
import type { RelayToken } from "./relay-tables.ts";

const MINUTE_MS = 60_000;

/** A request within its limits. Each of the two is to be called once; a second call does nothing. */
export interface Hold {
  /** It took `tokens` instead of the amount it was let in with. */
  settle(tokens: number): void;
  /** Its client has the answer, or is gone: another may come. */
  leave(): void;
}

export class RelayLimits {
  readonly #limiter: GcraLimiter;
  readonly #active = new Map<number, number>();

  constructor(limiter: GcraLimiter) {
    this.#limiter = limiter;
  }

  /**
   * Takes one request and `amount` tokens.
   * @throws RelayError rate_limit_exceeded; nothing is taken then but the request
   */
  hold(token: RelayToken, amount: number): Hold {
    const { rpm, tpm, maxParallel } = token;
    const active = this.#active.get(token.id) ?? 0;
    if (maxParallel > 0 && active >= maxParallel) {
      throw this.#exceeded(token, `more than ${maxParallel} requests at once`, 1000);
    }
    if (rpm > 0) {
      const { isAllowed, retryAfterMs } = this.#limiter.take(rpmKey(token), perMinute(rpm));
      if (!isAllowed) throw this.#exceeded(token, `more than ${rpm} requests per minute`, retryAfterMs);
    }
    if (tpm > 0) {
      if (amount > tpm) {
        const message = `this may take ${amount} tokens, more than the ${tpm} per minute of the API key: ask for fewer`;
        // No wait would help.
        throw this.#exceeded(token, message, MINUTE_MS, { "x-should-retry": "false" });
      }
      const { isAllowed, retryAfterMs } = this.#limiter.take(tpmKey(token), perMinute(tpm), amount);
      if (!isAllowed) throw this.#exceeded(token, `more than ${tpm} tokens per minute`, retryAfterMs);
    }
    this.#active.set(token.id, active + 1);
    let isSettled = false;
    let isHere = true;
    return {
      settle: (tokens) => {
        if (isSettled) return;
        isSettled = true;
        if (tpm > 0 && tokens !== amount) this.#limiter.correct(tpmKey(token), perMinute(tpm), tokens - amount);
      },
      leave: () => {
        if (isHere) this.#leave(token.id);
        isHere = false;
      },
    };
  }

  #leave(id: number): void {
    const left = this.#active.get(id)! - 1;
    if (left === 0) this.#active.delete(id);
    else this.#active.set(id, left);
  }

  #exceeded(token: RelayToken, message: string, retryAfterMs: number, more: Record<string, string> = {}): RelayError {
    const { rpm, tpm } = token;
    return new RelayError("rate_limit_exceeded", message, {
      headers: {
        ...more,
        "Retry-After": `${Math.max(1, Math.ceil(retryAfterMs / 1000))}`,
        ...(rpm > 0 ? described("requests", rpm, this.#limiter.take(rpmKey(token), perMinute(rpm), 0)) : {}),
        ...(tpm > 0 ? described("tokens", tpm, this.#limiter.take(tpmKey(token), perMinute(tpm), 0)) : {}),
      },
    });
  }
}

function rpmKey({ id }: RelayToken): string {
  return `relay rpm ${id}`;
}

function tpmKey({ id }: RelayToken): string {
  return `relay tpm ${id}`;
}

function perMinute(limit: number): RateLimit {
  return { limit, windowMs: MINUTE_MS };
}

function described(unit: "requests" | "tokens", limit: number, { remaining, resetMs }: RateVerdict) {
  return {
    [`x-ratelimit-limit-${unit}`]: `${limit}`,
    [`x-ratelimit-remaining-${unit}`]: `${remaining}`,
    [`x-ratelimit-reset-${unit}`]: `${Math.ceil(resetMs / 1000)}s`,
  };
}
