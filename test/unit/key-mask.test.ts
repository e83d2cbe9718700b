// Masks of keys: how much is shown at each length.

import { expect, test } from "bun:test";
import { maskKey } from "../../src/relay/key-mask.ts";

test("a mask shows more of a long key than of a short one, and nothing of the shortest", () => {
  for (const [key, mask] of [
    ["sk-mock-aaaaaaaaaaaaaaaa", "sk-mock...aaaa"],
    ["sk-0123456789abcdefg", "sk-0123...defg"],
    ["sk-0123456789abcdef", "sk-...ef"],
    ["sk-012345678", "sk-...78"],
    ["abcdefghijkl", "abc...kl"],
    ["sk-01234567", "sk-..."],
    ["sk-xxxx", "sk-..."],
    ["sk-", "sk-..."],
    ["SK-xxxx", "..."],
    ["abcdefghijk", "..."],
    ["a", "..."],
    ["k".repeat(4096), "kkkkkkk...kkkk"],
  ] as const) {
    expect([key, maskKey(key)]).toEqual([key, mask]);
  }
});

test("a mask holds at most 11 characters of a key, and at most five in nine of any", () => {
  for (let length = 1; length <= 64; length++) {
    const shown = maskKey("x".repeat(length)).replaceAll(".", "").length;
    expect(shown).toBeLessThanOrEqual(11);
    expect(shown / length).toBeLessThanOrEqual(5 / 9);
  }
});
