// How often users and addresses may ask, and the headers that tell them (draft-ietf-httpapi-ratelimit-headers-11).

import { networkOf } from "../http/client-address.ts";
import type { RequestScope } from "../http/request-scope.ts";
import { GcraLimiter, rateLimited } from "../limits/gcra-limiter.ts";
import type { Clock } from "../shared/clock.ts";
import type { Rate } from "../shared/setting-parsers.ts";

type RateLayer = "ip" | "user" | "login" | "register";

/**
 * 98 000 users, or some 80 000 addresses; those seen least recently are forgiven. With a few more keys the tables
 * behind them double, to 28 MB.
 */
const LIMITER_BYTES = 98_000 * 212;

export class TaskRates {
  readonly #limiter: GcraLimiter;
  readonly #rates: Readonly<Record<RateLayer, Rate>>;

  constructor(clock: Clock, rates: Readonly<Record<RateLayer, Rate>>) {
    this.#limiter = new GcraLimiter(clock, LIMITER_BYTES);
    this.#rates = rates;
  }

  /** `key` is a user's id. @throws AppError rate_limited; a refused request costs nothing */
  takeUser(scope: RequestScope, userId: number, cost = 1): void {
    this.#take(scope, "user", `${userId}`, cost);
  }

  /** By the client's address: of IPv6 by the network it has, which is as much as one customer gets. */
  takeAddress(scope: RequestScope, cost = 1): void {
    this.#take(scope, "ip", networkOf(scope.clientIp), cost);
  }

  /** After `takeAddress`, which counted the request already: a refused one costs nothing there either. */
  takeStricter(scope: RequestScope, layer: "login" | "register"): void {
    const network = networkOf(scope.clientIp);
    try {
      this.#take(scope, layer, network, 1);
    } catch (error) {
      if (this.#rates.ip.limit > 0) this.#limiter.correct(keyOf("ip", network), this.#rates.ip, -1);
      throw error;
    }
  }

  /** What costs more than the limit takes all of it: it can pass, if alone. */
  #take(scope: RequestScope, layer: RateLayer, key: string, cost: number): void {
    const rate = this.#rates[layer];
    if (rate.limit === 0) return;
    const verdict = this.#limiter.take(keyOf(layer, key), rate, Math.min(cost, rate.limit));
    const { remaining, resetMs, retryAfterMs } = verdict;
    scope.surfaceHeaders = {
      ...scope.surfaceHeaders,
      "RateLimit-Policy": `"${layer}";q=${rate.limit};w=${rate.windowMs / 1000}`,
      RateLimit: `"${layer}";r=${remaining};t=${Math.ceil(resetMs / 1000)}`,
    };
    if (!verdict.isAllowed) throw rateLimited(retryAfterMs);
  }
}

function keyOf(layer: RateLayer, key: string): string {
  return `${layer} ${key}`;
}
