// Access tokens of users (RFC 9068 in form): short-lived, signed with a key of their own, told apart by type.

import { SignJWT } from "jose";
import { type BoundedCache, createBoundedCache } from "../limits/bounded-cache.ts";
import { ACCESS_CACHE_BYTES, EXPIRY_SECONDS_MAX } from "../shared/bounds.ts";
import type { Clock } from "../shared/clock.ts";
import type { Eventually } from "../shared/eventual.ts";
import { parseBearer, parseJsonObject, signedPayload, verifyingKeys } from "./bearer-jws.ts";
import { deriveKeys } from "./derived-keys.ts";

const KEY_INFO = "gokv/task/access/v1";
const ISSUER = "gokv";
const AUDIENCE = "task";
const TYP = "at+jwt";
/** What an entry costs besides its token. */
const ENTRY_BYTES = 400;

/** What an access token says that counts. `email` and `user_id` stand in it for clients and are never read. */
export interface AccessClaims {
  readonly userId: number;
  /** UUIDv7. */
  readonly sessionId: string;
  /** It must be the user's of today. */
  readonly tokenVersion: number;
  /** ms since 1970. */
  readonly expiresAtMs: number;
}

interface NewAccess extends AccessClaims {
  readonly email: string;
  readonly issuedAtMs: number;
}

export class UserTokens {
  readonly #signingKey: Uint8Array;
  readonly #keys: readonly Promise<CryptoKey>[];
  readonly #clock: Clock;
  readonly #verified: BoundedCache<AccessClaims> = createBoundedCache<AccessClaims>(ACCESS_CACHE_BYTES)!;

  /** All secrets verify, the first one signs. */
  constructor(secrets: readonly Uint8Array[], clock: Clock) {
    const keys = deriveKeys(secrets, KEY_INFO);
    this.#signingKey = keys[0]!;
    this.#keys = verifyingKeys(keys);
    this.#clock = clock;
  }

  mint({ userId, email, sessionId, tokenVersion, issuedAtMs, expiresAtMs }: NewAccess): Promise<string> {
    const claims = {
      iss: ISSUER,
      aud: AUDIENCE,
      sub: `${userId}`,
      user_id: userId,
      email,
      sid: sessionId,
      ver: tokenVersion,
      jti: Bun.randomUUIDv7(),
      iat: Math.floor(issuedAtMs / 1000),
      exp: Math.floor(expiresAtMs / 1000),
    };
    return new SignJWT(claims).setProtectedHeader({ alg: "HS256", typ: TYP }).sign(this.#signingKey);
  }

  /**
   * The claims of an Authorization header, null when it holds no token in force: at once for one that was verified
   * before (its `exp` is checked again), else after an HMAC for each secret.
   */
  verify(authorization: string): Eventually<AccessClaims | null> {
    const known = this.#verified.get(authorization);
    return known === undefined ? this.#verifyNew(authorization) : this.#inForce(known);
  }

  async #verifyNew(authorization: string): Promise<AccessClaims | null> {
    const token = parseBearer(authorization, (typ) => typeof typ === "string" && typ.toLowerCase() === TYP);
    const payload = token === null ? null : await signedPayload(token, this.#keys);
    const claims = payload === null ? null : parseClaims(payload);
    if (claims === null || this.#inForce(claims) === null) return null;
    this.#verified.set(authorization, claims, authorization.length + ENTRY_BYTES);
    return claims;
  }

  #inForce(claims: AccessClaims): AccessClaims | null {
    return claims.expiresAtMs > this.#clock() ? claims : null;
  }
}

/** Null when one of them is missing, has the wrong type or is another's. */
function parseClaims(payload: Uint8Array): AccessClaims | null {
  const claims = parseJsonObject(payload);
  if (claims === null) return null;
  const { iss, aud, sub, sid, ver, exp } = claims;
  if (iss !== ISSUER || aud !== AUDIENCE || typeof sub !== "string" || !/^[1-9]\d{0,15}$/.test(sub)) return null;
  if (typeof exp !== "number" || !(exp <= EXPIRY_SECONDS_MAX)) return null;
  if (typeof sid !== "string" || typeof ver !== "number" || !Number.isSafeInteger(Number(sub))) return null;
  return { userId: Number(sub), sessionId: sid, tokenVersion: ver, expiresAtMs: exp * 1000 };
}
