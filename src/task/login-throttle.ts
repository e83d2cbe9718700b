// Guessing passwords made slow: failures are remembered by account and address, and by account alone.

import { type BoundedCache, createBoundedCache } from "../limits/bounded-cache.ts";
import { MiB } from "../shared/bounds.ts";
import type { Clock } from "../shared/clock.ts";

const MINUTE_MS = 60_000;
/** Failures of an account from an address count for so long; so long is also the longest wait. */
const PAIR_WINDOW_MS = 15 * MINUTE_MS;
/** As many are free; the n-th has to be waited for 2^(n - 5) s. */
const PAIR_FREE = 5;
const ACCOUNT_WINDOW_MS = 60 * MINUTE_MS;
const ACCOUNT_MAX = 60;

/** For each of the two; the accounts and addresses that failed least recently are forgiven. */
const MEMORY_BYTES = 4 * MiB;
const ENTRY_BYTES = 300;
const FAILURE_BYTES = 8;

interface Failures {
  /** ms since 1970, ascending; those inside the window. */
  timesMs: number[];
  /** From the address: when it may try again. */
  freeAtMs: number;
}

/** `account` is whatever was typed as one, folded: whether it exists must not show. */
export class LoginThrottle {
  readonly #clock: Clock;
  readonly #pairs = createBoundedCache<Failures>(MEMORY_BYTES)!;
  readonly #accounts = createBoundedCache<Failures>(MEMORY_BYTES)!;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** How long this address has to wait before it may try this account again; 0 = not at all. */
  waitMs(account: string, address: string): number {
    const pair = this.#pairs.get(pairKey(account, address));
    // A clock that was set back locks nobody out for longer.
    return pair === undefined ? 0 : Math.min(PAIR_WINDOW_MS, Math.max(0, pair.freeAtMs - this.#clock()));
  }

  /** How long everybody has to wait who holds no live session of the account; 0 = not at all. */
  accountWaitMs(account: string): number {
    const nowMs = this.#clock();
    const timesMs = within(this.#accounts.get(account)?.timesMs ?? [], nowMs, ACCOUNT_WINDOW_MS);
    return timesMs.length < ACCOUNT_MAX ? 0 : timesMs.at(-ACCOUNT_MAX)! + ACCOUNT_WINDOW_MS - nowMs;
  }

  noteFailure(account: string, address: string): void {
    const nowMs = this.#clock();
    const key = pairKey(account, address);
    const pair = note(this.#pairs, key, nowMs, PAIR_WINDOW_MS);
    const waitMs = pair.timesMs.length <= PAIR_FREE ? 0 : 1000 * 2 ** (pair.timesMs.length - PAIR_FREE);
    pair.freeAtMs = nowMs + Math.min(PAIR_WINDOW_MS, waitMs);
    note(this.#accounts, account, nowMs, ACCOUNT_WINDOW_MS);
  }

  /** After a right password; failures from elsewhere still count. */
  forgive(account: string, address: string): void {
    this.#pairs.delete(pairKey(account, address));
  }

  /** Whatever has failed so far, from wherever. */
  forgiveAll(account: string): void {
    this.#accounts.delete(account);
    this.#pairs.deleteAll(pairKey(account, ""));
  }
}

function pairKey(account: string, address: string): string {
  return `${account} ${address}`;
}

function within(timesMs: readonly number[], nowMs: number, windowMs: number): readonly number[] {
  return timesMs.filter((timeMs) => timeMs > nowMs - windowMs && timeMs <= nowMs);
}

function note(cache: BoundedCache<Failures>, key: string, nowMs: number, windowMs: number): Failures {
  const failures = cache.get(key) ?? { timesMs: [], freeAtMs: 0 };
  failures.timesMs = [...within(failures.timesMs, nowMs, windowMs), nowMs].slice(-ACCOUNT_MAX);
  cache.set(key, failures, ENTRY_BYTES + 2 * key.length + FAILURE_BYTES * failures.timesMs.length);
  return failures;
}
