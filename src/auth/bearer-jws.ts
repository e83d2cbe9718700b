// A bearer token that is a compact JWS under HS256, read strictly: jose by itself accepts padded or altered texts.

import { compactVerify } from "jose";
import { JWT_BYTES_MAX } from "../shared/bounds.ts";
import { isObject } from "../shared/json-text.ts";

const BEARER = /^Bearer +([A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+)$/i;

/** The compact JWS of an Authorization header in canonical form with an acceptable JOSE header, or null. */
export function parseBearer(authorization: string, isTyp: (typ: unknown) => boolean): string | null {
  if (authorization.length > JWT_BYTES_MAX) return null;
  const token = BEARER.exec(authorization)?.[1];
  if (token === undefined) return null;
  const segments = token.split(".");
  // Base64url has several texts for one value (spare bits); a token has one text only.
  if (!segments.every((segment) => Buffer.from(segment, "base64url").toString("base64url") === segment)) return null;
  const header = parseJsonObject(Buffer.from(segments[0]!, "base64url"));
  if (header === null || header.alg !== "HS256" || "crit" in header || "b64" in header) return null;
  return isTyp(header.typ) ? token : null;
}

/** HMAC keys that verify. */
export function verifyingKeys(secrets: readonly Uint8Array<ArrayBuffer>[]): Promise<CryptoKey>[] {
  return secrets.map((secret) =>
    crypto.subtle.importKey("raw", secret, { name: "HMAC", hash: "SHA-256" }, false, ["verify"]),
  );
}

/** What one of the keys has signed; null when none has. */
export async function signedPayload(token: string, keys: readonly Promise<CryptoKey>[]): Promise<Uint8Array | null> {
  for (const key of keys) {
    try {
      return (await compactVerify(token, await key, { algorithms: ["HS256"] })).payload;
    } catch {
      // Wrong under this secret; an older one may have signed it.
    }
  }
  return null;
}

/** Null for anything but one JSON object in strict UTF-8. */
export function parseJsonObject(bytes: Uint8Array): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes));
    return isObject(value) ? value : null;
  } catch {
    return null;
  }
}
