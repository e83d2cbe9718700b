// The token gate by itself, under a clock that the test moves, and against the public vectors for HS256 signatures.

import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type AuthFailure, JwtGate } from "../../src/auth/jwt-gate.ts";
import type { Principal } from "../../src/auth/principal.ts";
import { JWT_BYTES_MAX, JWT_CACHE_BYTES } from "../../src/shared/bounds.ts";
import { AppError } from "../../src/shared/errors.ts";
import { forgeToken } from "../support/forge-token.ts";
import { SECRET } from "../support/targets.ts";

const NOW_S = 1_800_000_000;
const LATER_S = NOW_S + 60;

interface TestGate {
  readonly gate: JwtGate;
  /** Reasons in the order in which they were given. */
  readonly failures: AuthFailure[];
  nowMs: number;
}

function openGate(secrets: readonly (string | Uint8Array<ArrayBuffer>)[] = [SECRET]): TestGate {
  const failures: AuthFailure[] = [];
  const parts = { nowMs: NOW_S * 1000 };
  const gate = new JwtGate({
    secrets: secrets.map((secret) => (typeof secret === "string" ? new TextEncoder().encode(secret) : secret)),
    clock: () => parts.nowMs,
    onFailure: (reason) => failures.push(reason),
  });
  return Object.assign(parts, { gate, failures });
}

/** What became of an Authorization header: a principal or the refusal. */
async function outcome({ gate }: TestGate, authorization: string | null): Promise<Principal | AppError> {
  try {
    return await gate.admit(authorization);
  } catch (error) {
    if (error instanceof AppError) return error;
    throw error;
  }
}

/** "accepted", or why not. */
async function verdict(opened: TestGate, authorization: string | null): Promise<AuthFailure | "accepted"> {
  const result = await outcome(opened, authorization);
  return result instanceof AppError ? opened.failures.at(-1)! : "accepted";
}

const withClaims = (claims: unknown) => `Bearer ${forgeToken({ payload: claims })}`;

interface VectorGroup {
  readonly private: { readonly kty: string; readonly k: string };
  readonly tests: readonly { tcId: number; comment: string; jws: unknown; result: "valid" | "invalid" }[];
}

/** Vectors whose label contradicts their bytes. */
const MISLABELLED: Readonly<Record<number, string>> = {
  367: "named a padding error and invalid, but byte for byte the token of the valid vector 357",
  370: "named a padding error and invalid, but byte for byte the token of the valid vector 357",
  372: "valid with a ? inside the header segment, which is no character of base64url",
  373: "valid with a ? inside the payload segment, which is no character of base64url",
};

describe("the Wycheproof vectors", () => {
  const path = join(import.meta.dir, "../data/wycheproof_json_web_signature_test.json");
  const { testGroups } = JSON.parse(readFileSync(path, "utf8")) as { testGroups: VectorGroup[] };
  const symmetric = testGroups.filter((group) => group.private?.kty === "oct");
  const others = testGroups.filter((group) => group.private?.kty !== "oct");

  // Their payloads are no claims, so a good one is refused for its claims: behind the form and the signature.
  const isSigned = (reason: string) => reason === "claims" || reason === "expired" || reason === "accepted";
  const bearer = (jws: unknown) => `Bearer ${typeof jws === "string" ? jws : JSON.stringify(jws)}`;

  test("for HS256 are judged as they are labelled", async () => {
    const wrong: string[] = [];
    let judged = 0;
    for (const group of symmetric) {
      const opened = openGate([new Uint8Array(Buffer.from(group.private.k, "base64url"))]);
      for (const { tcId, comment, jws, result } of group.tests) {
        if (tcId in MISLABELLED) continue;
        judged++;
        const reason = await verdict(opened, bearer(jws));
        if (isSigned(reason) !== (result === "valid")) wrong.push(`${tcId} ${comment}: ${result}, but ${reason}`);
      }
    }
    expect(wrong).toEqual([]);
    expect(judged).toBe(36);
  });

  test("that are left out contradict themselves", () => {
    const byId = new Map(symmetric.flatMap((group) => group.tests).map((vector) => [vector.tcId, vector]));
    for (const tcId of [367, 370]) {
      expect(byId.get(tcId)).toMatchObject({ result: "invalid", jws: byId.get(357)?.jws });
    }
    expect(byId.get(357)?.result).toBe("valid");
    for (const tcId of [372, 373]) {
      expect(byId.get(tcId)).toMatchObject({ result: "valid", jws: expect.stringContaining("?") });
    }
  });

  test("for other algorithms are all refused, one that claims to be HS256 by its signature", async () => {
    const opened = openGate();
    const vectors = others.flatMap((group) => group.tests);
    const looked: string[] = [];
    for (const { comment, jws } of vectors) {
      const reason = await verdict(opened, bearer(jws));
      expect(["malformed", "signature"]).toContain(reason);
      if (reason === "signature") looked.push(comment);
    }
    expect(looked).toEqual(["rejectsSymmetryConfusionAttacks_aesKeyFromEcVerificationKeyBytes"]);
    expect(vectors.length).toBe(361);
  });
});

describe("the gate", () => {
  test("accepts the HS256 example of RFC 7515, appendix A.1, until it expires", async () => {
    const key = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
    const example =
      "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9" +
      ".eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ" +
      ".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const opened = openGate([new Uint8Array(Buffer.from(key, "base64url"))]);
    opened.nowMs = 1_300_819_379_999;
    expect(await verdict(opened, `Bearer ${example}`)).toBe("accepted");
    opened.nowMs = 1_300_819_380_000;
    expect(await verdict(opened, `Bearer ${example}`)).toBe("expired");
  });

  test("turns the claims into a principal", async () => {
    const claims = { exp: LATER_S, scope: "kv:read", buckets: ["a", "b*"], prefix: "p/", sub: "ada", jti: "7" };
    expect(await outcome(openGate(), withClaims(claims))).toEqual({
      rights: new Set(["kv:read"]),
      buckets: ["a", "b*"],
      prefix: "p/",
      subject: "ada",
      tokenId: "7",
    });
    expect(await outcome(openGate(), withClaims({ exp: LATER_S }))).toEqual({
      rights: null,
      buckets: null,
      prefix: null,
      subject: null,
      tokenId: null,
    });
  });

  test("takes limits without a scope for the four KV rights", async () => {
    const four = new Set(["kv:read", "kv:write", "kv:delete", "kv:list"]);
    for (const limits of [{ buckets: ["a"] }, { buckets: [] }, { prefix: "p" }, { prefix: "" }]) {
      expect(await outcome(openGate(), withClaims({ exp: LATER_S, ...limits }))).toMatchObject({ rights: four });
    }
  });

  test("answers at once for a token that it knows, until the instant at which it expires", async () => {
    const opened = openGate();
    const authorization = withClaims({ exp: NOW_S + 10.5 });
    const first = opened.gate.admit(authorization);
    expect(first).toBeInstanceOf(Promise);
    await first;
    opened.nowMs = NOW_S * 1000 + 10_499;
    expect(opened.gate.admit(authorization)).not.toBeInstanceOf(Promise);
    opened.nowMs = NOW_S * 1000 + 10_500;
    expect(() => opened.gate.admit(authorization)).toThrow(AppError);
    expect(opened.failures).toEqual(["expired"]);
  });

  test("looks at nbf of a known token again when the clock was set back", async () => {
    const opened = openGate();
    const authorization = withClaims({ exp: LATER_S, nbf: NOW_S });
    await opened.gate.admit(authorization);
    opened.nowMs = (NOW_S - 6) * 1000;
    expect(() => opened.gate.admit(authorization)).toThrow(AppError);
    expect(opened.failures).toEqual(["claims"]);
  });

  test("remembers no token that it refused", async () => {
    const opened = openGate();
    for (const authorization of [withClaims({ exp: NOW_S }), withClaims({}), "Bearer a.b.c"]) {
      for (let attempt = 0; attempt < 2; attempt++) {
        const answer = opened.gate.admit(authorization);
        expect(answer).toBeInstanceOf(Promise);
        await expect(answer).rejects.toBeInstanceOf(AppError);
      }
    }
  });

  test("forgets the oldest tokens when those it knows take up too much memory", async () => {
    const opened = openGate();
    const first = withClaims({ exp: LATER_S });
    await opened.gate.admit(first);
    const sub = "x".repeat(JWT_BYTES_MAX / 2);
    const enough = Math.ceil(JWT_CACHE_BYTES / sub.length) + 1;
    for (let index = 0; index < enough; index++) {
      await opened.gate.admit(withClaims({ exp: LATER_S, sub, jti: `${index}` }));
    }
    const again = opened.gate.admit(first);
    expect(again).toBeInstanceOf(Promise);
    await again;
  });

  test("lets exp have no leeway and nbf five seconds", async () => {
    const cases: [Record<string, unknown>, AuthFailure | "accepted"][] = [
      [{ exp: NOW_S }, "expired"],
      [{ exp: NOW_S + 0.001 }, "accepted"],
      [{ exp: NOW_S - 1 }, "expired"],
      [{ exp: LATER_S, nbf: NOW_S + 5 }, "accepted"],
      [{ exp: LATER_S, nbf: NOW_S + 5.001 }, "claims"],
      [{ exp: LATER_S, nbf: NOW_S - 1 }, "accepted"],
      // 9999-12-31T23:59:59Z and one second later.
      [{ exp: 253_402_300_799 }, "accepted"],
      [{ exp: 253_402_300_800 }, "claims"],
    ];
    for (const [claims, expected] of cases) {
      expect([claims, await verdict(openGate(), withClaims(claims))]).toEqual([claims, expected]);
    }
  });

  test("verifies with each of its secrets and no other", async () => {
    const opened = openGate(["current secret", "older secret", "oldest secret"]);
    for (const secret of ["current secret", "older secret", "oldest secret"]) {
      const token = forgeToken({ secret, payload: { exp: LATER_S } });
      expect(await verdict(opened, `Bearer ${token}`)).toBe("accepted");
    }
    const foreign = forgeToken({ secret: "foreign secret", payload: { exp: LATER_S } });
    expect(await verdict(opened, `Bearer ${foreign}`)).toBe("signature");
  });

  test("tells a client that a token has expired only when its signature is right", async () => {
    const challengeOf = async (authorization: string | null) => {
      const refusal = await outcome(openGate(), authorization);
      expect(refusal).toBeInstanceOf(AppError);
      const { code, message, details } = refusal as AppError;
      expect([code, message]).toEqual(["unauthorized", "A valid bearer token is required."]);
      return details.challenge;
    };
    const invalid = 'Bearer realm="gokv", error="invalid_token"';
    expect(await challengeOf(null)).toBe('Bearer realm="gokv"');
    expect(await challengeOf("")).toBe(invalid);
    expect(await challengeOf(withClaims({ exp: NOW_S - 1 }))).toBe(`${invalid}, error_description="expired"`);
    const forged = forgeToken({ secret: "foreign secret", payload: { exp: NOW_S - 1 } });
    expect(await challengeOf(`Bearer ${forged}`)).toBe(invalid);
    expect(await challengeOf(withClaims({ exp: LATER_S, nbf: LATER_S }))).toBe(invalid);
  });
});
