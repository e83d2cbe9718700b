// Minted tokens, byte for byte: what stands in them is a promise to every verifier.

import { describe, expect, test } from "bun:test";
import { createHmac } from "node:crypto";
import { mintJwt, type OperatorClaims } from "../../src/auth/mint-jwt.ts";

const SECRET = new TextEncoder().encode("a secret for minting, of 40 bytes at least");
const NOW_MS = 1_800_000_000_750;
const HOUR_MS = 3_600_000;

async function partsOf(claims: Partial<OperatorClaims> = {}, secret = SECRET) {
  const token = await mintJwt(secret, { expiresInMs: HOUR_MS, ...claims }, NOW_MS);
  const [header, payload, signature] = token.split(".") as [string, string, string];
  const text = (segment: string) => Buffer.from(segment, "base64url").toString();
  return { token, signature, signed: `${header}.${payload}`, header: text(header), payload: text(payload) };
}

describe("a minted token", () => {
  test("has exactly the header that tools of the field expect", async () => {
    const { token, header } = await partsOf();
    expect(header).toBe('{"alg":"HS256","typ":"JWT"}');
    expect(token).toStartWith("eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.");
  });

  test("is signed over its text with HMAC-SHA-256 and the bytes of the secret", async () => {
    for (const secret of [SECRET, Uint8Array.of(0, 255, 128, 10), new Uint8Array(200).fill(7)]) {
      const { signed, signature } = await partsOf({}, secret);
      expect(signature).toBe(createHmac("sha256", secret).update(signed).digest("base64url"));
    }
  });

  test("holds iat and exp in whole seconds, and nothing else unless it was asked for", async () => {
    expect((await partsOf()).payload).toBe('{"iat":1800000000,"exp":1800003600}');
  });

  test("has its lifetime rounded up to whole seconds", async () => {
    expect((await partsOf({ expiresInMs: 1001 })).payload).toBe('{"iat":1800000000,"exp":1800000002}');
  });

  test("holds every claim that was asked for, in a fixed order", async () => {
    const claims = { prefix: "p/", buckets: ["a", "b*"], scope: "kv:read", tokenId: "7", subject: "ada" };
    expect((await partsOf({ ...claims, notBeforeMs: 60_000 })).payload).toBe(
      '{"iat":1800000000,"exp":1800003600,"nbf":1800000060,' +
        '"sub":"ada","jti":"7","scope":"kv:read","buckets":["a","b*"],"prefix":"p/"}',
    );
  });

  test("keeps claims that are empty: they forbid, where a missing one would allow", async () => {
    expect((await partsOf({ scope: "", buckets: [], prefix: "", subject: "" })).payload).toBe(
      '{"iat":1800000000,"exp":1800003600,"sub":"","scope":"","buckets":[],"prefix":""}',
    );
  });

  test("takes texts as they are", async () => {
    const subject = '"\\\u0000é😀__proto__';
    expect(JSON.parse((await partsOf({ subject })).payload).sub).toBe(subject);
  });
});
