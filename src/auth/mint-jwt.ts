// Mints operator tokens, as `jwt-gen` and the development mode hand them out.

import { SignJWT } from "jose";

export interface OperatorClaims {
  readonly expiresInMs: number;
  readonly notBeforeMs?: number | undefined;
  readonly subject?: string | undefined;
  readonly tokenId?: string | undefined;
  readonly scope?: string | undefined;
  readonly buckets?: readonly string[] | undefined;
  readonly prefix?: string | undefined;
}

/** Header exactly `{"alg":"HS256","typ":"JWT"}`; payload `iat`, `exp`, then the claims asked for. */
export async function mintJwt(secret: Uint8Array, claims: OperatorClaims, nowMs: number): Promise<string> {
  const nowS = Math.floor(nowMs / 1000);
  const payload: Record<string, unknown> = { iat: nowS, exp: nowS + Math.ceil(claims.expiresInMs / 1000) };
  if (claims.notBeforeMs !== undefined) payload.nbf = nowS + Math.floor(claims.notBeforeMs / 1000);
  const { subject: sub, tokenId: jti, scope, buckets, prefix } = claims;
  for (const [name, value] of Object.entries({ sub, jti, scope, buckets, prefix })) {
    if (value !== undefined) payload[name] = value;
  }
  return new SignJWT(payload).setProtectedHeader({ alg: "HS256", typ: "JWT" }).sign(secret);
}
