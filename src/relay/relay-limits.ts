// What a relay token may ask for at once and in a minute: requests, tokens of a model, calls in parallel.

import { type GcraLimiter, perMinute, type RateVerdict } from "../limits/gcra-limiter.ts";
import { RelayError } from "./relay-errors.ts";
import type { RelayToken } from "./relay-tables.ts";

const MINUTE_MS = 60_000;

/** Requests at work, by token, and those of them whose client is gone. */
interface Counts {
  readonly active: Map<number, number>;
  readonly drained: Map<number, number>;
}

/** A request within its limits. A second call of one of its methods does nothing. */
export class Hold {
  readonly #limiter: GcraLimiter;
  readonly #counts: Counts;
  readonly #token: RelayToken;
  readonly #amount: number;
  #isSettled = false;
  #isHere = true;
  #isDrained = false;

  /** It was let in with `amount` tokens. */
  constructor(limiter: GcraLimiter, counts: Counts, token: RelayToken, amount: number) {
    this.#limiter = limiter;
    this.#counts = counts;
    this.#token = token;
    this.#amount = amount;
    count(counts.active, token.id, 1);
  }

  /** It took `tokens` instead of the amount it was let in with. */
  settle(tokens: number): void {
    if (this.#isSettled) return;
    this.#isSettled = true;
    const { tpm } = this.#token;
    const more = tokens - this.#amount;
    if (tpm > 0 && more !== 0) this.#limiter.correct(tpmKey(this.#token), perMinute(tpm), more);
  }

  /** Its client is gone, and it is read on for its usage: another may come. */
  drain(): void {
    if (!this.#isHere || this.#isDrained) return;
    this.#isDrained = true;
    count(this.#counts.drained, this.#token.id, 1);
  }

  /** Nothing more is received or sent. */
  leave(): void {
    if (!this.#isHere) return;
    this.#isHere = false;
    count(this.#counts.active, this.#token.id, -1);
    if (this.#isDrained) count(this.#counts.drained, this.#token.id, -1);
  }
}

export class RelayLimits {
  readonly #limiter: GcraLimiter;
  readonly #counts: Counts = { active: new Map(), drained: new Map() };

  constructor(limiter: GcraLimiter) {
    this.#limiter = limiter;
  }

  /**
   * Takes one request and `amount` tokens.
   * @throws RelayError rate_limit_exceeded; nothing is taken then but the request
   */
  hold(token: RelayToken, amount: number): Hold {
    const { rpm, tpm, maxParallel } = token;
    if (maxParallel > 0) this.#requirePlace(token);
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
    return new Hold(this.#limiter, this.#counts, token, amount);
  }

  /**
   * Twice as many as may be parallel may be at work, those among them that are read on for clients that have left.
   * Without a bound for these, whoever asks and leaves would have any number at work, and fill all places of the relay.
   */
  #requirePlace(token: RelayToken): void {
    const { id, maxParallel } = token;
    const active = this.#counts.active.get(id) ?? 0;
    const waiting = active - (this.#counts.drained.get(id) ?? 0);
    if (waiting >= maxParallel) throw this.#exceeded(token, `more than ${maxParallel} requests at once`, 1000);
    if (active < 2 * maxParallel) return;
    throw this.#exceeded(token, "requests that were left before their answers came are still at work", 1000);
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

function count(counts: Map<number, number>, id: number, change: 1 | -1): void {
  const changed = (counts.get(id) ?? 0) + change;
  if (changed === 0) counts.delete(id);
  else counts.set(id, changed);
}

function rpmKey({ id }: RelayToken): string {
  return `relay rpm ${id}`;
}

function tpmKey({ id }: RelayToken): string {
  return `relay tpm ${id}`;
}

function described(unit: "requests" | "tokens", limit: number, { remaining, resetMs }: RateVerdict) {
  return {
    [`x-ratelimit-limit-${unit}`]: `${limit}`,
    [`x-ratelimit-remaining-${unit}`]: `${remaining}`,
    [`x-ratelimit-reset-${unit}`]: `${Math.ceil(resetMs / 1000)}s`,
  };
}
