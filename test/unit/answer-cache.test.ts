// Kept answers: what counts as the same request, for how long an answer is kept, how a header asks for it.

import { describe, expect, test } from "bun:test";
import { AnswerCache, cacheKey, cacheSecondsOf, type KeptAnswer } from "../../src/relay/answer-cache.ts";

const answer = (bytes: number): KeptAnswer => ({
  contentType: "application/json",
  chunks: [new Uint8Array(bytes)],
  isStream: false,
  model: "m",
});

describe("the same request", () => {
  const body = { model: "m", messages: [{ role: "user", content: "hi" }] };
  const key = cacheKey(1, "/chat/completions", false, body);

  test("is one whose members stand in another order", () => {
    const turned = { messages: [{ content: "hi", role: "user" }], model: "m" };
    expect(cacheKey(1, "/chat/completions", false, turned)).toBe(key);
  });

  test.each([
    ["of another token", () => cacheKey(2, "/chat/completions", false, body)],
    ["to another path", () => cacheKey(1, "/completions", false, body)],
    ["as a stream", () => cacheKey(1, "/chat/completions", true, body)],
    ["with one more member", () => cacheKey(1, "/chat/completions", false, { ...body, seed: 1 })],
    ["with items in another order", () => cacheKey(1, "/chat/completions", false, { ...body, messages: [2, 1] })],
  ])("is not one %s", (_, other) => {
    expect(other()).not.toBe(key);
  });

  test("is told from arrays and texts that look like it", () => {
    const keys = [{ a: 1 }, [["a", 1]], { pairs: [["a", 1]] }, '{"a":1}', { a: "1" }, null, {}, []];
    expect(new Set(keys.map((value) => cacheKey(1, "", false, value))).size).toBe(keys.length);
  });
});

describe("a kept answer", () => {
  test("is found until its time is over", () => {
    let nowMs = 0;
    const cache = new AnswerCache(() => nowMs, 100_000);
    cache.keep("k", answer(10), 60);
    nowMs = 59_999;
    expect(cache.find("k")).toEqual(answer(10));
    expect(cache.find("another")).toBe(null);
    nowMs = 60_000;
    expect(cache.find("k")).toBe(null);
  });

  test("goes when others need the place, the one used least recently first", () => {
    const cache = new AnswerCache(() => 0, 100_000);
    for (let index = 0; index < 12; index++) {
      cache.keep(`k${index}`, answer(9_000), 60);
      cache.find("k0");
    }
    expect(cache.find("k0")).not.toBe(null);
    expect(cache.find("k1")).toBe(null);
    expect(cache.find("k11")).not.toBe(null);
  });

  test("is not kept when it is too large, or nothing is to be kept", () => {
    const cache = new AnswerCache(() => 0, 100_000);
    cache.keep("large", answer(50_000), 60);
    expect(cache.find("large")).toBe(null);
    const off = new AnswerCache(() => 0, 0);
    off.keep("k", answer(1), 60);
    expect(off.find("k")).toBe(null);
  });
});

describe("the header that asks for it", () => {
  test.each([
    [null, 0, 0],
    [null, 30, 30],
    ["ttl=300", 0, 300],
    [" TTL=300 ", 30, 300],
    ["ttl=86400", 0, 86_400],
    ["ttl=0", 30, 0],
    ["no-store", 30, 0],
    ["ttl=86401", 0, null],
    ["ttl=-1", 0, null],
    ["ttl=1.5", 0, null],
    ["300", 0, null],
    ["", 0, null],
  ])("%p with %p seconds of the token means %p", (header, tokenSeconds, seconds) => {
    expect(cacheSecondsOf(header, tokenSeconds)).toBe(seconds);
  });
});
