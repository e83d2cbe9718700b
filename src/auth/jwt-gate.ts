// The gate of the operator surface: which HS256 tokens are let in. Claims are checked here: jose by itself accepts a
// missing `exp`, and `exp` without end.

import { type BoundedCache, createBoundedCache } from "../limits/bounded-cache.ts";
import { EXPIRY_SECONDS_MAX, JWT_CACHE_BYTES, NOT_BEFORE_LEEWAY_S, TOKEN_BUCKETS_MAX } from "../shared/bounds.ts";
import type { Clock } from "../shared/clock.ts";
import { AppError } from "../shared/errors.ts";
import type { Eventually } from "../shared/eventual.ts";
import { parseBearer, parseJsonObject, signedPayload, verifyingKeys } from "./bearer-jws.ts";
import { kvRights, type Principal, rightsOf } from "./principal.ts";

export type AuthFailure = "missing" | "malformed" | "signature" | "expired" | "claims";

interface VerifiedToken {
  readonly principal: Principal;
  /** Seconds since 1970, fractions allowed (RFC 7519, section 2). */
  readonly expiresAtS: number;
  readonly notBeforeS: number;
}

interface JwtGateOptions {
  /** All of them verify. HMAC keys as exact bytes. */
  readonly secrets: readonly Uint8Array<ArrayBuffer>[];
  readonly clock: Clock;
  onFailure(reason: AuthFailure): void;
}

export class JwtGate {
  readonly #options: JwtGateOptions;
  readonly #keys: Promise<CryptoKey>[];
  readonly #verified: BoundedCache<VerifiedToken> = createBoundedCache<VerifiedToken>(JWT_CACHE_BYTES)!;

  constructor(options: JwtGateOptions) {
    this.#options = options;
    this.#keys = verifyingKeys(options.secrets);
  }

  /**
   * The principal of an Authorization header: at once for a token that was verified before (its `exp` and `nbf` are
   * checked again), else after one HMAC.
   * @throws AppError unauthorized
   */
  admit(authorization: string | null): Eventually<Principal> {
    const known = authorization === null ? undefined : this.#verified.get(authorization);
    return known === undefined ? this.#verify(authorization) : this.#inForce(known);
  }

  async #verify(authorization: string | null): Promise<Principal> {
    if (authorization === null) throw this.#refuse("missing");
    const token = parseBearer(authorization, isJwt);
    if (token === null) throw this.#refuse("malformed");
    const payload = await signedPayload(token, this.#keys);
    if (payload === null) throw this.#refuse("signature");
    const verified = parseClaims(payload);
    if (verified === null) throw this.#refuse("claims");
    const principal = this.#inForce(verified);
    this.#verified.set(authorization, verified, 2 * authorization.length);
    return principal;
  }

  #inForce({ principal, expiresAtS, notBeforeS }: VerifiedToken): Principal {
    const nowS = this.#options.clock() / 1000;
    if (expiresAtS <= nowS) throw this.#refuse("expired");
    if (notBeforeS > nowS + NOT_BEFORE_LEEWAY_S) throw this.#refuse("claims");
    return principal;
  }

  /** One body for every refusal. The challenge (RFC 6750, section 3) says what a client can act on, the log why. */
  #refuse(reason: AuthFailure): AppError {
    this.#options.onFailure(reason);
    const error = reason === "missing" ? "" : ', error="invalid_token"';
    const description = reason === "expired" ? ', error_description="expired"' : "";
    return new AppError("unauthorized", "A valid bearer token is required.", {
      details: { challenge: `Bearer realm="gokv"${error}${description}` },
      cause: reason,
    });
  }
}

function isJwt(typ: unknown): boolean {
  return typ === undefined || (typeof typ === "string" && typ.toUpperCase() === "JWT");
}

/** The claims that count, or null when one of them has the wrong type or lies outside its bounds. */
function parseClaims(payload: Uint8Array): VerifiedToken | null {
  const claims = parseJsonObject(payload);
  if (claims === null) return null;
  const { exp, nbf, scope, prefix, sub, jti, buckets } = claims;
  if (typeof exp !== "number" || !(exp < EXPIRY_SECONDS_MAX + 1)) return null;
  if (nbf !== undefined && (typeof nbf !== "number" || !Number.isFinite(nbf))) return null;
  if (![scope, prefix, sub, jti].every((claim) => claim === undefined || typeof claim === "string")) return null;
  if (buckets !== undefined && !isBucketList(buckets)) return null;
  return {
    principal: {
      rights: scopeRights(scope as string | undefined, buckets !== undefined || prefix !== undefined),
      buckets: (buckets as string[] | undefined) ?? null,
      prefix: (prefix as string | undefined) ?? null,
      subject: (sub as string | undefined) ?? null,
      tokenId: (jti as string | undefined) ?? null,
    },
    expiresAtS: exp,
    notBeforeS: (nbf as number | undefined) ?? Number.NEGATIVE_INFINITY,
  };
}

function isBucketList(value: unknown): boolean {
  return Array.isArray(value) && value.length <= TOKEN_BUCKETS_MAX && value.every((item) => typeof item === "string");
}

function scopeRights(scope: string | undefined, isLimited: boolean): Principal["rights"] {
  if (scope !== undefined) return rightsOf(scope);
  return isLimited ? kvRights() : null;
}
