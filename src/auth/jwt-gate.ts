// The gate of the operator surface: which HS256 tokens are let in. A strict form check stands in front of jose, which
// by itself accepts padded or altered tokens, missing `exp` and `exp` without end.

import { compactVerify } from "jose";
import { type BoundedCache, createBoundedCache } from "../limits/bounded-cache.ts";
import {
  EXPIRY_SECONDS_MAX,
  JWT_BYTES_MAX,
  JWT_CACHE_BYTES,
  NOT_BEFORE_LEEWAY_S,
  TOKEN_BUCKETS_MAX,
} from "../shared/bounds.ts";
import type { Clock } from "../shared/clock.ts";
import { AppError } from "../shared/errors.ts";
import { kvRights, type Principal, rightsOf } from "./principal.ts";

export type AuthFailure = "missing" | "malformed" | "signature" | "expired" | "claims";

interface VerifiedToken {
  readonly principal: Principal;
  /** Seconds since 1970, fractions allowed (RFC 7519, section 2). */
  readonly expiresAtS: number;
  readonly notBeforeS: number;
}

export interface JwtGateOptions {
  /** All of them verify. HMAC keys as exact bytes. */
  readonly secrets: readonly Uint8Array<ArrayBuffer>[];
  readonly clock: Clock;
  onFailure(reason: AuthFailure): void;
}

const BEARER = /^Bearer +([A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+)$/i;

export class JwtGate {
  readonly #options: JwtGateOptions;
  readonly #keys: Promise<CryptoKey>[];
  readonly #verified: BoundedCache<VerifiedToken> = createBoundedCache<VerifiedToken>(JWT_CACHE_BYTES)!;

  constructor(options: JwtGateOptions) {
    this.#options = options;
    this.#keys = options.secrets.map((secret) =>
      crypto.subtle.importKey("raw", secret, { name: "HMAC", hash: "SHA-256" }, false, ["verify"]),
    );
  }

  /**
   * The principal of an Authorization header: at once for a token that was verified before (its `exp` and `nbf` are
   * checked again), else after one HMAC.
   * @throws AppError unauthorized
   */
  admit(authorization: string | null): Principal | Promise<Principal> {
    const known = authorization === null ? undefined : this.#verified.get(authorization);
    return known === undefined ? this.#verify(authorization) : this.#inForce(known);
  }

  async #verify(authorization: string | null): Promise<Principal> {
    if (authorization === null) throw this.#refuse("missing");
    const token = parseBearer(authorization);
    if (token === null) throw this.#refuse("malformed");
    const payload = await this.#signedPayload(token);
    if (payload === null) throw this.#refuse("signature");
    const verified = parseClaims(payload);
    if (verified === null) throw this.#refuse("claims");
    const principal = this.#inForce(verified);
    this.#verified.set(authorization, verified, 2 * authorization.length);
    return principal;
  }

  async #signedPayload(token: string): Promise<Uint8Array | null> {
    for (const key of this.#keys) {
      try {
        return (await compactVerify(token, await key, { algorithms: ["HS256"] })).payload;
      } catch {
        // Wrong under this secret; an older one may have signed it.
      }
    }
    return null;
  }

  #inForce({ principal, expiresAtS, notBeforeS }: VerifiedToken): Principal {
    const nowS = this.#options.clock() / 1000;
    if (expiresAtS <= nowS) throw this.#refuse("expired");
    if (notBeforeS > nowS + NOT_BEFORE_LEEWAY_S) throw this.#refuse("claims");
    return principal;
  }

  /** One body for every refusal; only the challenge (RFC 6750, section 3) tells what a client can act on. */
  #refuse(reason: AuthFailure): AppError {
    this.#options.onFailure(reason);
    const error = reason === "missing" ? "" : ', error="invalid_token"';
    const description = reason === "expired" ? ', error_description="expired"' : "";
    return new AppError("unauthorized", "A valid bearer token is required.", {
      details: { challenge: `Bearer realm="gokv"${error}${description}` },
    });
  }
}

/** The compact JWS of a header in canonical form with an acceptable JOSE header, or null. */
function parseBearer(authorization: string): string | null {
  if (authorization.length > JWT_BYTES_MAX) return null;
  const token = BEARER.exec(authorization)?.[1];
  if (token === undefined) return null;
  const segments = token.split(".");
  // Base64url has several texts for one value (spare bits); a token has one text only.
  if (!segments.every((segment) => Buffer.from(segment, "base64url").toString("base64url") === segment)) return null;
  const header = parseJsonObject(Buffer.from(segments[0]!, "base64url"));
  if (header === null || header.alg !== "HS256" || "crit" in header || "b64" in header) return null;
  const { typ } = header;
  return typ === undefined || (typeof typ === "string" && typ.toUpperCase() === "JWT") ? token : null;
}

function parseJsonObject(bytes: Uint8Array): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes));
    return typeof value === "object" && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : null;
  } catch {
    return null;
  }
}

/** The claims that count, or null when one of them has the wrong type or lies outside its bounds. */
function parseClaims(payload: Uint8Array): VerifiedToken | null {
  const claims = parseJsonObject(payload);
  if (claims === null) return null;
  const { exp, nbf, scope, prefix, sub, jti, buckets } = claims;
  if (typeof exp !== "number" || !(exp <= EXPIRY_SECONDS_MAX)) return null;
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
