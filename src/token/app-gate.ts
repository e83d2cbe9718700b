// The gate of the token API: from a request to the installation it speaks for, within its rates.

import { networkOf } from "../http/client-address.ts";
import type { RequestScope } from "../http/request-scope.ts";
import { type GcraLimiter, perMinute, rateLimited } from "../limits/gcra-limiter.ts";
import type { Clock } from "../shared/clock.ts";
import { AppError, type ErrorCode } from "../shared/errors.ts";
import type { Eventually } from "../shared/eventual.ts";
import type { Rate, TokenSource } from "../shared/setting-parsers.ts";
import type { Settings } from "../shared/settings.ts";
import { invalidToken, missingToken, tokenOfBody, tokenOutsideBody } from "./credential.ts";
import type { TokenStore } from "./token-store.ts";
import type { Installation } from "./token-tables.ts";

export type RateKind = "read" | "write" | "delete" | "batch";

/** A request that was let in. */
export interface Admitted {
  readonly installation: Installation;
  readonly credential: string;
}

export class AppGate {
  readonly #tokens: TokenStore;
  readonly #limiter: GcraLimiter;
  readonly #clock: Clock;
  readonly #sources: ReadonlySet<TokenSource>;
  readonly #rates: Readonly<Record<RateKind, Rate>>;
  readonly #failureRate: Rate;
  readonly #onFailure: (reason: ErrorCode) => void;

  /** `onFailure`: a credential is refused, or there is none, and why. */
  constructor(parts: {
    tokens: TokenStore;
    limiter: GcraLimiter;
    clock: Clock;
    settings: Settings;
    onFailure: (reason: ErrorCode) => void;
  }) {
    const { settings } = parts;
    this.#tokens = parts.tokens;
    this.#limiter = parts.limiter;
    this.#clock = parts.clock;
    this.#onFailure = parts.onFailure;
    this.#sources = settings.tokenSources;
    this.#rates = {
      read: perMinute(settings.tokenRateRead),
      write: perMinute(settings.tokenRateWrite),
      delete: perMinute(settings.tokenRateDelete),
      batch: perMinute(settings.tokenRateBatch),
    };
    this.#failureRate = perMinute(settings.tokenRateAuthFail);
  }

  /**
   * The credential of the headers or the query, null when neither has one.
   * @throws AppError token_invalid, rate_limited
   */
  credentialOutsideBody(scope: RequestScope): string | null {
    return this.#countFailures(scope, () => tokenOutsideBody(scope.request, this.#sources));
  }

  readsBodies(): boolean {
    return this.#sources.has("body");
  }

  /** @throws AppError token_missing, token_invalid, rate_limited */
  credentialOfBody(scope: RequestScope, text: string | null): string {
    return this.#countFailures(scope, () => {
      const token = text === null ? null : tokenOfBody(text);
      if (token === null) throw missingToken();
      return token;
    });
  }

  /**
   * The installation that `credential` belongs to, if it has requests of this kind left. Without a promise for a token
   * that is in use. The answer of the request carries the state of the limit.
   * @throws AppError token_invalid, rate_limited
   */
  admit(scope: RequestScope, credential: string, kind: RateKind): Eventually<Admitted> {
    const proceed = (installation: Installation): Admitted => {
      scope.tokenId = installation.id;
      this.#spend(scope, installation, kind);
      return { installation, credential };
    };
    const found = this.find(scope, credential);
    return found instanceof Promise ? found.then(proceed) : proceed(found);
  }

  /**
   * The installation that `credential` belongs to, as it is now; counts against no limit of its own. Without a promise
   * for a token that is in use.
   * @throws AppError token_invalid, rate_limited
   */
  find(scope: RequestScope, credential: string): Eventually<Installation> {
    const requireAlive = (installation: Installation | null): Installation => {
      const isAlive = installation !== null && (installation.expiresAtMs ?? Number.POSITIVE_INFINITY) > this.#clock();
      if (!isAlive) throw this.#failure(scope, invalidToken());
      return installation;
    };
    const found = this.#tokens.findByToken(credential);
    return found instanceof Promise ? found.then(requireAlive) : requireAlive(found);
  }

  #spend(scope: RequestScope, { id }: Installation, kind: RateKind): void {
    const rate = this.#rates[kind];
    if (rate.limit === 0) return;
    const { isAllowed, remaining, resetMs, retryAfterMs } = this.#limiter.take(`app ${kind} ${id}`, rate);
    const reset = Math.ceil(resetMs / 1000);
    // draft-ietf-httpapi-ratelimit-headers-07, section 3.
    scope.surfaceHeaders = {
      ...scope.surfaceHeaders,
      RateLimit: `limit=${rate.limit}, remaining=${remaining}, reset=${reset}`,
      "RateLimit-Policy": `${rate.limit};w=${rate.windowMs / 1000}`,
    };
    if (!isAllowed) throw rateLimited(retryAfterMs);
  }

  #countFailures<T>(scope: RequestScope, find: () => T): T {
    try {
      return find();
    } catch (error) {
      throw error instanceof AppError ? this.#failure(scope, error) : error;
    }
  }

  /** Guessing is slowed down by address; a valid token is never refused for its address. */
  #failure(scope: RequestScope, error: AppError): AppError {
    this.#onFailure(error.code);
    if (this.#failureRate.limit === 0) return error;
    const verdict = this.#limiter.take(`app failure ${networkOf(scope.clientIp)}`, this.#failureRate);
    return verdict.isAllowed ? error : rateLimited(verdict.retryAfterMs);
  }
}
