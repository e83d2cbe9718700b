// Access tokens of users by themselves, under a clock that the test moves.

import { describe, expect, test } from "bun:test";
import { hkdfSync } from "node:crypto";
import { UserTokens } from "../../src/auth/user-token.ts";
import { forgeToken, type TokenParts } from "../support/forge-token.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const SECRET_TEXT = "a secret that is long enough for a test";
const NOW_MS = 1_800_000_000_000;
const ACCESS = {
  userId: 7,
  email: "a@example.com",
  sessionId: Bun.randomUUIDv7(),
  tokenVersion: 3,
  issuedAtMs: NOW_MS,
  expiresAtMs: NOW_MS + 60_000,
};
const CLAIMS = { iss: "gokv", aud: "task", sub: "7", sid: ACCESS.sessionId, ver: 3, exp: NOW_MS / 1000 + 60 };
const HEADER = { alg: "HS256", typ: "at+jwt" };
const KEY = new Uint8Array(hkdfSync("sha256", bytes(SECRET_TEXT), new Uint8Array(0), "gokv/task/access/v1", 32));

const forge = (parts: TokenParts = {}) =>
  `Bearer ${forgeToken({ header: HEADER, payload: CLAIMS, secret: KEY, ...parts })}`;
const payloadOf = (token: string) => JSON.parse(Buffer.from(token.split(".")[1]!, "base64url").toString());

describe("access tokens", () => {
  const tokens = new UserTokens([bytes(SECRET_TEXT)], () => NOW_MS);

  test("carry their claims and verify, at once when they are known", async () => {
    const token = await tokens.mint(ACCESS);
    expect(JSON.parse(Buffer.from(token.split(".")[0]!, "base64url").toString())).toEqual(HEADER);
    expect(payloadOf(token)).toEqual({
      ...CLAIMS,
      user_id: 7,
      email: "a@example.com",
      iat: NOW_MS / 1000,
      jti: expect.stringMatching(/^[0-9a-f-]{36}$/),
    });
    const { userId, sessionId, tokenVersion, expiresAtMs } = ACCESS;
    const claims = { userId, sessionId, tokenVersion, expiresAtMs };
    const first = tokens.verify(`Bearer ${token}`);
    expect(first).toBeInstanceOf(Promise);
    expect(await first).toEqual(claims);
    expect(tokens.verify(`Bearer ${token}`)).toEqual(claims);
  });

  test("are what a token of the right form, key and claims is", async () => {
    expect(await tokens.verify(forge())).toMatchObject({ userId: 7, sessionId: ACCESS.sessionId });
  });

  test("of another algorithm, key, type, issuer or audience are none, nor without an end", async () => {
    const { exp, sid, ver, sub, ...rest } = CLAIMS;
    const wrong: Readonly<Record<string, string>> = {
      HS384: forge({ header: { ...HEADER, alg: "HS384" }, digest: "sha384" }),
      HS512: forge({ header: { ...HEADER, alg: "HS512" }, digest: "sha512" }),
      "HS384 that says HS256": forge({ digest: "sha384" }),
      "no algorithm": forge({ header: { ...HEADER, alg: "none" } }),
      "no algorithm, no signature": `${forge({ header: { ...HEADER, alg: "none" } })
        .split(".")
        .slice(0, 2)
        .join(".")}.`,
      "the raw secret": forge({ secret: SECRET_TEXT }),
      "another secret": forge({ secret: "another one" }),
      "type JWT": forge({ header: { ...HEADER, typ: "JWT" } }),
      "no type": forge({ header: { alg: "HS256" } }),
      "critical extensions": forge({ header: { ...HEADER, crit: ["b64"], b64: false } }),
      "another issuer": forge({ payload: { ...CLAIMS, iss: "other" } }),
      "another audience": forge({ payload: { ...CLAIMS, aud: "kv" } }),
      "several audiences": forge({ payload: { ...CLAIMS, aud: ["task"] } }),
      "no end": forge({ payload: { ...rest, sid, ver, sub } }),
      "an end that is text": forge({ payload: { ...CLAIMS, exp: "1900000000" } }),
      "no session": forge({ payload: { ...rest, exp, ver, sub } }),
      "no version": forge({ payload: { ...rest, exp, sid, sub } }),
      "no subject": forge({ payload: { ...rest, exp, sid, ver } }),
      "a subject that is no id": forge({ payload: { ...CLAIMS, sub: "07" } }),
      "no object": forge({ payload: [CLAIMS] }),
      "an end that has come": forge({ payload: { ...CLAIMS, exp: NOW_MS / 1000 } }),
    };
    for (const [what, header] of Object.entries(wrong)) {
      expect([what, await tokens.verify(header)]).toEqual([what, null]);
    }
    expect(await tokens.verify(forge())).not.toBeNull();
  });

  test("end at their time, although they are known", async () => {
    let nowMs = NOW_MS;
    const aging = new UserTokens([bytes(SECRET_TEXT)], () => nowMs);
    const header = `Bearer ${await aging.mint(ACCESS)}`;
    expect(await aging.verify(header)).not.toBeNull();
    nowMs = ACCESS.expiresAtMs - 1;
    expect(await aging.verify(header)).not.toBeNull();
    nowMs = ACCESS.expiresAtMs;
    expect(await aging.verify(header)).toBeNull();
  });

  test("of an older secret verify, new ones are signed with the first", async () => {
    const later = new UserTokens([bytes("the next secret"), bytes(SECRET_TEXT)], () => NOW_MS);
    expect(await later.verify(`Bearer ${await tokens.mint(ACCESS)}`)).toMatchObject({ userId: 7 });
    expect(await tokens.verify(`Bearer ${await later.mint(ACCESS)}`)).toBeNull();
  });
});
