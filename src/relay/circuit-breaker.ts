// Whether a channel is worth asking: open after failures, half-open for a single request when its time is over.

import type { Clock } from "../shared/clock.ts";
import { Cooldown } from "./cooldown.ts";

const BUCKET_MS = 6_000;
const BUCKETS = 10;
const REQUESTS_MIN = 5;
const FAILURE_SHARE = 0.5;
const CONNECT_FAILURES_MAX = 3;
const OPEN_MS_MIN = 15_000;
const OPEN_MS_MAX = 300_000;

type BreakerState = "closed" | "open" | "half_open";

interface Bucket {
  readonly startMs: number;
  requests: number;
  failures: number;
}

/**
 * Circuit breaker (M. Nygard, Release It!, chapter 5) over a window of one minute. Closed: opens when at least five
 * requests of the window failed by half, or three could not connect in a row. Open: nothing passes for 15 s, doubled
 * each time up to 5 min. Half-open: one request passes; its outcome closes or opens. A clock that is set back keeps
 * nothing open, and no failure, for longer than that.
 */
export class CircuitBreaker {
  readonly #clock: Clock;
  #buckets: Bucket[] = [];
  #connectFailures = 0;
  readonly #cooldown = new Cooldown();
  /** 0 = closed. */
  #openMs = 0;
  /** Of the request that tries whether it may close: who it is, null = nobody is out. */
  #trial: object | null = null;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get state(): BreakerState {
    if (this.#openMs === 0) return "closed";
    return this.#cooldown.isOver(this.#clock()) ? "half_open" : "open";
  }

  /** When it becomes half-open; 0 when closed. */
  get openUntilMs(): number {
    return this.#openMs === 0 ? 0 : this.#cooldown.untilMs(this.#clock());
  }

  /** Whether a request may pass now. */
  get isPassable(): boolean {
    return this.state === "closed" || (this.state === "half_open" && this.#trial === null);
  }

  /**
   * To be called for a request that passes; the returned function takes its outcome, once. While one tries a half-open
   * channel, another one that came past it all the same neither opens nor closes anything.
   */
  enter(): (outcome: "success" | "failure" | "connect_failure" | "none") => void {
    const trial = this.state === "half_open" && this.#trial === null ? {} : null;
    if (trial !== null) this.#trial = trial;
    let isSettled = false;
    return (outcome) => {
      if (isSettled) return;
      isSettled = true;
      // After a reset it tries nothing any more.
      const isTrial = trial !== null && this.#trial === trial;
      if (isTrial) this.#trial = null;
      if (outcome === "none") return;
      this.#count({ requests: 1, failures: outcome === "success" ? 0 : 1 });
      if (outcome === "success") this.#succeed(isTrial);
      else this.#fail(outcome === "connect_failure", isTrial);
    };
  }

  /** An answer that had begun, and was counted as a success, has broken off after all. */
  breakOff(): void {
    if (this.state !== "closed") return;
    this.#count({ requests: 0, failures: 1 });
    this.#openIfFailing();
  }

  /** As if nothing had failed. */
  reset(): void {
    this.#buckets = [];
    this.#connectFailures = 0;
    this.#openMs = 0;
    this.#cooldown.end();
    this.#trial = null;
  }

  /** Of the last minute. */
  get figures(): { readonly requests: number; readonly failures: number } {
    const buckets = this.#live();
    const failures = buckets.reduce((sum, bucket) => sum + bucket.failures, 0);
    // What has broken off may have begun before the window.
    return {
      requests: Math.max(
        failures,
        buckets.reduce((sum, bucket) => sum + bucket.requests, 0),
      ),
      failures,
    };
  }

  #succeed(isTrial: boolean): void {
    this.#connectFailures = 0;
    // A request that was under way when it opened says nothing of the present.
    if (isTrial) this.reset();
  }

  #fail(isConnectFailure: boolean, isTrial: boolean): void {
    this.#connectFailures = isConnectFailure ? this.#connectFailures + 1 : 0;
    if (isTrial) this.#open();
    if (this.state === "closed") this.#openIfFailing();
  }

  #openIfFailing(): void {
    const { requests, failures } = this.figures;
    const isFailing = requests >= REQUESTS_MIN && failures >= requests * FAILURE_SHARE;
    if (isFailing || this.#connectFailures >= CONNECT_FAILURES_MAX) this.#open();
  }

  #open(): void {
    this.#openMs = Math.min(OPEN_MS_MAX, Math.max(OPEN_MS_MIN, this.#openMs * 2));
    this.#cooldown.begin(this.#clock(), this.#openMs);
    this.#buckets = [];
    this.#connectFailures = 0;
  }

  #count({ requests, failures }: { readonly requests: number; readonly failures: number }): void {
    const nowMs = this.#clock();
    const startMs = nowMs - (nowMs % BUCKET_MS);
    const buckets = this.#live();
    let bucket = buckets.at(-1);
    if (bucket?.startMs !== startMs) {
      bucket = { startMs, requests: 0, failures: 0 };
      buckets.push(bucket);
    }
    bucket.requests += requests;
    bucket.failures += failures;
    this.#buckets = buckets;
  }

  #live(): Bucket[] {
    const nowMs = this.#clock();
    const oldestMs = nowMs - BUCKETS * BUCKET_MS;
    const [first, last] = [this.#buckets[0], this.#buckets.at(-1)];
    return first === undefined || (first.startMs > oldestMs && last!.startMs <= nowMs)
      ? this.#buckets
      : this.#buckets.filter(({ startMs }) => startMs > oldestMs && startMs <= nowMs);
  }
}
