// What a request is expected to cost, and what an upstream says it has cost.

import { describe, expect, test } from "bun:test";
import { ENDPOINTS, type Endpoint } from "../../src/relay/relay-endpoints.ts";
import { parseRelayRequest, type RelayRequest } from "../../src/relay/relay-request.ts";
import {
  estimatePrompt,
  estimateTokens,
  outputTextBytes,
  reservationFor,
  USED_TOKENS_MAX,
  usageOf,
} from "../../src/relay/token-usage.ts";

const { chat, completions, embeddings, moderations, responses } = ENDPOINTS;
const ofContent = (content: unknown) => estimatePrompt(chat, { messages: [{ role: "user", content }] });

describe("the estimate of a prompt", () => {
  test("is a third of the bytes of its text, rounded up once", () => {
    for (const [content, tokens] of [
      ["", 0],
      ["a", 1],
      ["abc", 1],
      ["abcd", 2],
      ["é", 1],
      ["日本", 2],
      ["😀", 2],
      ["\ud800", 1],
      ["x".repeat(3_000_000), 1_000_000],
    ] as const) {
      expect([content.length, ofContent(content)]).toEqual([content.length, tokens]);
    }
    const messages = [
      { role: "system", content: "a" },
      { role: "user", content: "b" },
    ];
    expect(estimatePrompt(chat, { messages })).toBe(1);
    expect([estimateTokens(0), estimateTokens(1), estimateTokens(3), estimateTokens(4)]).toEqual([0, 1, 1, 2]);
  });

  test("counts text in every place where a model reads it", () => {
    const text = "x".repeat(300);
    for (const message of [
      { role: "user", content: text },
      { role: "user", content: [{ type: "text", text }] },
      { role: "assistant", content: null, refusal: text },
      { role: "assistant", tool_calls: [{ id: "call_1", type: "function", function: { name: "", arguments: text } }] },
      { role: "tool", tool_call_id: "call_1", content: text },
      { role: "user", name: text },
      { role: text, content: "" },
      { type: "unknown", id: text },
      { deep: [[{ any: { thing: [text] } }]] },
      text,
    ]) {
      expect([message, estimatePrompt(chat, { messages: [message] })]).toEqual([message, 100]);
    }
    for (const [endpoint, body] of [
      [completions, { prompt: text }],
      [completions, { prompt: [text.slice(0, 150), text.slice(150)] }],
      [embeddings, { input: [text] }],
      [responses, { input: text }],
      [responses, { input: "", instructions: text }],
      [responses, { input: [{ type: "message", role: "user", content: [{ type: "input_text", text }] }] }],
      [responses, { input: [{ type: "function_call_output", call_id: "call_1", output: text }] }],
      [chat, { messages: [], instructions: text }],
    ] as const) {
      expect([body, estimatePrompt(endpoint, body)]).toEqual([body, 100]);
    }
  });

  test("counts of tools all that is written about them", () => {
    const tools = [{ type: "function", function: { name: "f", parameters: { properties: { place: {} } } } }];
    expect(estimatePrompt(chat, { messages: [], tools })).toBe(Math.ceil(JSON.stringify(tools).length / 3));
    expect(estimatePrompt(chat, { messages: [], tools: null })).toBe(0);
  });

  test("counts functions, as tools were called before, like tools", () => {
    const functions = [{ name: "f", description: "x".repeat(150_000), parameters: { properties: { place: {} } } }];
    const written = Math.ceil(JSON.stringify(functions).length / 3);
    expect(estimatePrompt(chat, { messages: [], functions })).toBe(written);
    expect(estimatePrompt(chat, { messages: [], functions: null })).toBe(0);
  });

  test("counts the numbers of a prompt that is already cut into tokens", () => {
    expect(estimatePrompt(embeddings, { input: [1, 2, 3] })).toBe(3);
    expect(
      estimatePrompt(completions, {
        prompt: [
          [1, 2],
          [3, 4, 5],
        ],
      }),
    ).toBe(5);
  });

  test("takes a thousand for each part that is no text, whatever its size", () => {
    const data = `data:image/png;base64,${"A".repeat(100_000)}`;
    for (const part of [
      { type: "image_url", image_url: { url: data, detail: "high" } },
      { type: "input_image", image_url: data },
      { type: "input_audio", input_audio: { data, format: "wav" } },
      { type: "file", file: { file_data: data } },
      { type: "input_file", file_data: data },
      { type: "video_url", video_url: { url: data } },
    ]) {
      expect([part.type, ofContent([part])]).toEqual([part.type, 1000]);
      expect(ofContent([part, { type: "text", text: "abc" }, part])).toBe(2001);
    }
    const output = { type: "computer_screenshot", image_url: data };
    expect(estimatePrompt(responses, { input: [{ type: "computer_call_output", call_id: "c", output }] })).toBe(1000);
  });

  test("does not let text pass for an image", () => {
    const text = "x".repeat(9000);
    expect(ofContent([{ type: "image_url", text }])).toBe(4000);
    expect(estimatePrompt(chat, { messages: [{ role: "user", type: "image_url", content: text }] })).toBe(4000);
  });

  test("is nothing for what costs nothing, and for what is not there", () => {
    expect(estimatePrompt(moderations, { input: "some text" })).toBe(0);
    for (const body of [{}, { messages: null }, { messages: [null, true, [], {}] }, { messages: 5 }]) {
      expect([body, estimatePrompt(chat, body)]).toEqual([body, 0]);
    }
    expect(estimatePrompt(chat, { messages: [], prompt: "not read here", other: "neither" })).toBe(0);
  });
});

describe("the amount that is reserved", () => {
  const reservationOf = (endpoint: Endpoint, request: RelayRequest) =>
    reservationFor(endpoint, request, estimatePrompt(endpoint, request.body));
  const amount = (endpoint: Endpoint, members: object = {}) => {
    const body = { model: "m", [endpoint.input]: endpoint.input === "messages" ? ["abc"] : "abc", ...members };
    return reservationOf(endpoint, parseRelayRequest(endpoint, JSON.stringify(body)));
  };

  test("is the prompt and the longest answer that was asked for, times the answers", () => {
    expect(amount(chat)).toBe(1 + 1024);
    expect(amount(chat, { max_tokens: 10 })).toBe(1 + 10);
    expect(amount(chat, { max_tokens: 10, n: 3 })).toBe(1 + 30);
    expect(amount(chat, { n: 128 })).toBe(1 + 128 * 1024);
    expect(amount(chat, { max_tokens: 10, max_completion_tokens: 20 })).toBe(1 + 20);
    expect(amount(completions, { max_tokens: 1_000_000, n: 128 })).toBe(1 + 128_000_000);
    expect(amount(responses, { max_output_tokens: 7 })).toBe(1 + 7);
    expect(amount(completions, { max_tokens: 10, prompt: ["abc", "def"], best_of: 3 })).toBe(2 + 60);
    expect(amount(chat, { max_output_tokens: 1 })).toBe(1 + 1024);
    expect(amount(responses, { max_tokens: 1 })).toBe(1 + 1024);
  });

  test("of what generates nothing is the prompt, of a moderation nothing", () => {
    expect(amount(embeddings, { max_tokens: 10, n: 3 })).toBe(1);
    expect(amount(moderations, { max_tokens: 10 })).toBe(0);
  });

  test("has an end", () => {
    const body = { messages: Array.from({ length: 1_100_000 }, () => ({ type: "image" })) };
    const request = { ...parseRelayRequest(chat, '{"model":"m","messages":[1]}'), body };
    expect(reservationOf(chat, request)).toBe(1_000_000_000);
  });
});

describe("the usage that an upstream reports", () => {
  test("is read in the words of every endpoint", () => {
    for (const [usage, promptTokens, completionTokens, cachedTokens] of [
      [{ prompt_tokens: 5, completion_tokens: 7, total_tokens: 12 }, 5, 7, 0],
      [{ prompt_tokens: 5, completion_tokens: 7 }, 5, 7, 0],
      [{ input_tokens: 5, output_tokens: 7, total_tokens: 12 }, 5, 7, 0],
      [{ prompt_tokens: 5, total_tokens: 5 }, 5, 0, 0],
      [{ prompt_tokens: 5, completion_tokens: null, total_tokens: 9 }, 5, 4, 0],
      [{ prompt_tokens: 0, completion_tokens: 0 }, 0, 0, 0],
      [{ prompt_tokens: -0, completion_tokens: 5.0 }, 0, 5, 0],
      [{ prompt_tokens: 5, completion_tokens: 7, input_tokens: 0, output_tokens: 0 }, 5, 7, 0],
      [{ prompt_tokens: 5, completion_tokens: 7, total_tokens: "x" }, 5, 7, 0],
      [{ prompt_tokens: 5, completion_tokens: 7, total_tokens: 11 }, 5, 7, 0],
      [{ prompt_tokens: 5, completion_tokens: 7, total_tokens: 1e9 + 1 }, 5, 7, 0],
      [{ prompt_tokens: 1e9, completion_tokens: 1e9 }, 1e9, 1e9, 0],
      [{ prompt_tokens: 9, completion_tokens: 7, prompt_tokens_details: { cached_tokens: 4 } }, 9, 7, 4],
      [{ input_tokens: 9, output_tokens: 7, input_tokens_details: { cached_tokens: 4 } }, 9, 7, 4],
      [{ prompt_tokens: 9, completion_tokens: 7, prompt_cache_hit_tokens: 4 }, 9, 7, 4],
      [{ prompt_tokens: 9, completion_tokens: 7, prompt_tokens_details: null, prompt_cache_hit_tokens: 4 }, 9, 7, 4],
      [{ prompt_tokens: 9, completion_tokens: 7, prompt_tokens_details: {}, prompt_cache_hit_tokens: 4 }, 9, 7, 4],
    ] as const) {
      expect([usage, usageOf(usage)]).toEqual([usage, { promptTokens, completionTokens, cachedTokens }]);
    }
  });

  test("has as completion all that its total counts beside the prompt, hidden reasoning too", () => {
    for (const [usage, completionTokens] of [
      [{ prompt_tokens: 10_120, completion_tokens: 1_499, total_tokens: 14_428 }, 4_308],
      [{ prompt_tokens: 21, completion_tokens: 0, total_tokens: 81 }, 60],
      [{ input_tokens: 21, output_tokens: 1, total_tokens: 81 }, 60],
    ] as const) {
      expect([usage, usageOf(usage)?.completionTokens]).toEqual([usage, completionTokens]);
    }
  });

  test("may be a total alone where only what goes in costs", () => {
    const all = { promptTokens: 77, completionTokens: 0, cachedTokens: 0 };
    expect(usageOf({ total_tokens: 77 }, "input")).toEqual(all);
    expect(usageOf({ prompt_tokens: 7, total_tokens: 77 }, "input")?.promptTokens).toBe(7);
    for (const total_tokens of [-1, "77", 0.5]) expect(usageOf({ total_tokens }, "input")).toBeNull();
    expect(usageOf({ total_tokens: 77 }, "generation")).toBeNull();
  });

  test("is none when a figure is no possible one: it is never a credit and never beyond reason", () => {
    const impossible = [-1, -1e9, 0.5, USED_TOKENS_MAX + 1, 2 ** 53, 1e300, "5", "", true, {}, [5], [], Number.NaN];
    for (const figure of impossible) {
      for (const usage of [
        { prompt_tokens: figure, completion_tokens: 5 },
        { prompt_tokens: 5, completion_tokens: figure },
        { input_tokens: figure, output_tokens: 5 },
        { input_tokens: 5, output_tokens: figure },
        { prompt_tokens: 5, total_tokens: figure },
      ]) {
        expect([usage, usageOf(usage)]).toEqual([usage, null]);
      }
    }
    for (const usage of [
      undefined,
      null,
      0,
      5,
      "",
      "usage",
      true,
      [],
      [{ prompt_tokens: 5, completion_tokens: 5 }],
      {},
      { completion_tokens: 5 },
      { total_tokens: 5 },
      { prompt_tokens: 5 },
      { prompt_tokens: 5, total_tokens: 4 },
      JSON.parse('{"__proto__":{"prompt_tokens":5,"completion_tokens":5}}'),
    ]) {
      expect([usage, usageOf(usage)]).toEqual([usage, null]);
    }
  });

  test("has no more from a cache than there is, and nothing that cannot be read", () => {
    const cached = (tokens: unknown) =>
      usageOf({ prompt_tokens: 9, completion_tokens: 1, prompt_tokens_details: { cached_tokens: tokens } })
        ?.cachedTokens;
    expect([cached(9), cached(10), cached(1e9)]).toEqual([9, 9, 9]);
    for (const tokens of [-1, 0.5, "4", null, {}, 1e10]) expect([tokens, cached(tokens)]).toEqual([tokens, 0]);
  });
});

describe("the text of an answer", () => {
  test("is counted where endpoints put it", () => {
    for (const [answer, bytes] of [
      [{ choices: [{ index: 0, delta: { role: "assistant", content: "é" } }] }, 2],
      [{ choices: [{ delta: { reasoning_content: "abc", content: null } }] }, 3],
      [
        {
          choices: [
            { delta: { tool_calls: [{ index: 0, id: "x", type: "function", function: { arguments: "{}" } }] } },
          ],
        },
        2,
      ],
      [{ choices: [{ message: { role: "assistant", content: "abc" }, finish_reason: "stop" }] }, 3],
      [{ choices: [{ text: "abc", logprobs: null }, { text: "de" }] }, 5],
      [{ type: "response.output_text.delta", delta: "abc" }, 3],
      [{ output: [{ type: "message", content: [{ type: "output_text", text: "abc" }] }] }, 3],
      [{ choices: [], usage: {} }, 0],
      [{ id: "x", object: "list", data: [{ embedding: [0.1] }], model: "m" }, 0],
    ] as const) {
      expect([answer, outputTextBytes(answer)]).toEqual([answer, bytes]);
    }
  });

  test("is nothing in what is no answer, however it is made", () => {
    for (const answer of [
      undefined,
      null,
      1,
      "text",
      [],
      {},
      { choices: "x" },
      { choices: [null, 1, "x"] },
      { delta: 1 },
    ]) {
      expect([answer, outputTextBytes(answer)]).toEqual([answer, 0]);
    }
    const deep = JSON.parse(`{"choices":[{"delta":${"[".repeat(100_000)}${"]".repeat(100_000)}}]}`);
    expect(outputTextBytes(deep)).toBe(0);
  });
});
