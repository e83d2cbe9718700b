// Refresh tokens by themselves: their form, and the children that follow from them.

import { describe, expect, test } from "bun:test";
import { RefreshTokens } from "../../src/auth/refresh-token.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const [TODAY, YESTERDAY] = [bytes("today's secret"), bytes("yesterday's secret")];

describe("refresh tokens", () => {
  test("are random, read back as themselves, and their hash does not tell them", () => {
    const tokens = new RefreshTokens([TODAY]);
    const [first, second] = [tokens.create(), tokens.create()];
    expect(first.text).toMatch(/^rt_[A-Za-z0-9_-]{43}$/);
    expect(first.hash).toMatch(/^[0-9a-f]{64}$/);
    expect(second.text).not.toBe(first.text);
    expect(tokens.parse(first.text)).toEqual(first);
  });

  test("have one text only", () => {
    const tokens = new RefreshTokens([TODAY]);
    const { text } = tokens.create();
    const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    const bumped = text.slice(0, -1) + alphabet[alphabet.indexOf(text.at(-1)!) + 1];
    for (const other of [bumped, `${text}=`, ` ${text}`, text.slice(1), text.slice(0, -1), "", "rt_", `${text}A`]) {
      expect([other, tokens.parse(other)]).toEqual([other, null]);
    }
  });

  test("have the same child each time, another one under another secret, found by the older secret as well", () => {
    const before = new RefreshTokens([YESTERDAY]);
    const parent = before.create();
    const [child] = before.childrenOf(parent);
    expect(before.childrenOf(parent)).toEqual([child!]);
    const after = new RefreshTokens([TODAY, YESTERDAY]);
    const [fresh, older] = after.childrenOf(parent);
    expect(older).toEqual(child!);
    expect(fresh).not.toEqual(child!);
    expect(after.parse(fresh!.text)).toEqual(fresh!);
  });
});
