// Sealed secrets: what opens them, what does not, and that nothing can be read from them.

import { describe, expect, test } from "bun:test";
import { deriveSealingKeys, SecretSeal } from "../../src/auth/secret-seal.ts";

const SALT = new Uint8Array(16).fill(7);
const secret = (text: string) => new TextEncoder().encode(text);
const sealOf = (...secrets: string[]) => new SecretSeal(deriveSealingKeys(secrets.map(secret), SALT, "test key v1"));

describe("a sealed secret", () => {
  test("opens with the same secret, salt, purpose and place", () => {
    const sealed = sealOf("one").seal("sk-密钥-aaaa", "1 https://a");
    expect(sealed).toMatch(/^v1:[0-9a-f]{8}:[A-Za-z0-9_-]{16}:[A-Za-z0-9_-]+$/);
    expect(sealOf("one").open(sealed, "1 https://a")).toBe("sk-密钥-aaaa");
  });

  test("never looks the same twice, and holds nothing readable", () => {
    const seal = sealOf("one");
    const [first, second] = [seal.seal("sk-aaaa", "x"), seal.seal("sk-aaaa", "x")];
    expect(first).not.toBe(second);
    expect(first).not.toContain(Buffer.from("sk-aaaa").toString("base64url"));
  });

  test("does not open in another place, with another secret, salt or purpose", () => {
    const sealed = sealOf("one").seal("sk-aaaa", "1 https://a");
    expect(sealOf("one").open(sealed, "2 https://a")).toBeNull();
    expect(sealOf("one").open(sealed, "1 https://b")).toBeNull();
    expect(sealOf("two").open(sealed, "1 https://a")).toBeNull();
    const otherSalt = new SecretSeal(deriveSealingKeys([secret("one")], new Uint8Array(16), "test key v1"));
    const otherPurpose = new SecretSeal(deriveSealingKeys([secret("one")], SALT, "test key v2"));
    expect([otherSalt, otherPurpose].map((seal) => seal.open(sealed, "1 https://a"))).toEqual([null, null]);
  });

  test("does not open when any of its parts was altered or cut", () => {
    const seal = sealOf("one");
    const sealed = seal.seal("sk-aaaa", "x");
    const parts = sealed.split(":");
    for (const at of [0, 1, 2, 3]) {
      const part = parts[at]!;
      const changed = parts.with(at, part.replace(/.$/, part.endsWith("0") ? "1" : "0")).join(":");
      // The last character of base64url may hold spare bits: the first one never does.
      const changedFirst = parts.with(at, part.replace(/^./, part.startsWith("0") ? "1" : "0")).join(":");
      expect([at, changedFirst === sealed, seal.open(changedFirst, "x")]).toEqual([at, false, null]);
      if (at < 2) expect(seal.open(changed, "x")).toBeNull();
      expect(seal.open(parts.with(at, part.slice(0, -4)).join(":"), "x")).toBeNull();
    }
    for (const text of ["", "v1", "v1::", "v1:::", `${sealed}:more`, `v2${sealed.slice(2)}`]) {
      expect([text, seal.open(text, "x")]).toEqual([text, null]);
    }
  });

  test("made by an older secret opens while that one is in the ring, and is to be resealed", () => {
    const sealed = sealOf("old").seal("sk-aaaa", "x");
    const both = sealOf("new", "old");
    expect(both.open(sealed, "x")).toBe("sk-aaaa");
    expect(both.needsReseal(sealed)).toBe(true);
    const resealed = both.seal("sk-aaaa", "x");
    expect(both.needsReseal(resealed)).toBe(false);
    expect(sealOf("new").open(resealed, "x")).toBe("sk-aaaa");
    expect(sealOf("new").open(sealed, "x")).toBeNull();
  });

  test("is named by its key, not by its secret: the same secret twice is one key", () => {
    expect(sealOf("one", "one", "two").ring.map(({ kid }) => kid)).toEqual([sealOf("one").kid, sealOf("two").kid]);
    expect(sealOf("one").kid).not.toBe(sealOf("two").kid);
  });
});
