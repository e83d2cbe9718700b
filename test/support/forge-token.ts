// Tokens made by hand, as another library or an attacker would make them: any header, any payload, any digest.

import { createHmac } from "node:crypto";
import { SECRET } from "./targets.ts";

export interface TokenParts {
  /** An object becomes JSON; text is taken as it is, for what JSON.stringify cannot write. */
  readonly header?: unknown;
  readonly payload?: unknown;
  readonly secret?: string | Uint8Array;
  readonly digest?: "sha256" | "sha384" | "sha512";
}

/** Seconds since 1970, `offset` of them from now on. */
export function secondsFromNow(offset: number): number {
  return Math.floor(Date.now() / 1000) + offset;
}

/** Without any part given: a token that is accepted, with only `exp` in it. */
export function forgeToken(parts: TokenParts = {}): string {
  const { header = { alg: "HS256" }, payload = { exp: secondsFromNow(3600) }, secret = SECRET } = parts;
  const signed = `${segment(header)}.${segment(payload)}`;
  return `${signed}.${createHmac(parts.digest ?? "sha256", secret)
    .update(signed)
    .digest("base64url")}`;
}

function segment(part: unknown): string {
  const bytes = typeof part === "string" || part instanceof Uint8Array ? part : JSON.stringify(part);
  return Buffer.from(bytes as string).toString("base64url");
}

const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/** The same bytes in another text: the last character of a signature holds two bits that belong to none of them. */
export function bumpLastCharacter(token: string): string {
  return token.slice(0, -1) + ALPHABET[ALPHABET.indexOf(token.at(-1)!) + 1];
}
