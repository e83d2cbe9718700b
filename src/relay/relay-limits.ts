// What a relay token may ask for at once and in a minute: requests, tokens of a model, calls in parallel.

import type { GcraLimiter, RateVerdict } from "../limits/gcra-limiter.ts";
import { RelayError } from "./relay-errors.ts";
import type { RelayToken } from "./relay-tables.ts";

const MINUTE_MS = 60_000;

/** A request within its limits. To be ended once. */
export interface Hold {
  /** `unusedTokens` of the amount were not needed. */
  release(unusedTokens: number): void;
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
  hold({ id, rpm, tpm, maxParallel }: RelayToken, amount: number): Hold {
    const active = this.#active.get(id) ?? 0;
    if (maxParallel > 0 && active >= maxParallel) {
      throw new RelayError("rate_limit_exceeded", `more than ${maxParallel} requests at once`, {
        headers: { "Retry-After": "1" },
      });
    }
    if (rpm > 0) {
      const verdict = this.#limiter.take(`relay rpm ${id}`, perMinute(rpm));
      if (!verdict.isAllowed) throw exceeded("requests", rpm, verdict);
    }
    if (tpm > 0) {
      const verdict = this.#limiter.take(`relay tpm ${id}`, perMinute(tpm), amount);
      if (!verdict.isAllowed) throw exceeded("tokens", tpm, verdict);
    }
    this.#active.set(id, active + 1);
    let isHeld = true;
    return {
      release: (unusedTokens) => {
        if (!isHeld) return;
        isHeld = false;
        const left = this.#active.get(id)! - 1;
        if (left === 0) this.#active.delete(id);
        else this.#active.set(id, left);
        if (tpm > 0 && unusedTokens > 0) this.#limiter.giveBack(`relay tpm ${id}`, unusedTokens);
      },
    };
  }
}

function perMinute(limit: number) {
  return { limit, windowMs: MINUTE_MS };
}

function exceeded(unit: "requests" | "tokens", limit: number, { remaining, resetMs, retryAfterMs }: RateVerdict) {
  return new RelayError("rate_limit_exceeded", `more than ${limit} ${unit} per minute`, {
    headers: {
      "Retry-After": `${Math.max(1, Math.ceil(retryAfterMs / 1000))}`,
      [`x-ratelimit-limit-${unit}`]: `${limit}`,
      [`x-ratelimit-remaining-${unit}`]: `${remaining}`,
      [`x-ratelimit-reset-${unit}`]: `${Math.ceil(resetMs / 1000)}s`,
    },
  });
}
