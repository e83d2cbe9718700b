// The mock provider: what official clients of the API need to find in its answers.

import { afterAll, beforeAll, expect, test } from "bun:test";
import { MockUpstream } from "../../src/relay/mock-upstream.ts";

let mock: MockUpstream;
beforeAll(() => {
  mock = new MockUpstream({ port: 0, delayMs: 0 });
});
afterAll(() => mock[Symbol.asyncDispose]());

const KEY = "sk-mock-aaaaaaaaaaaaaaaa";
type Json = Record<string, unknown>;

function ask(path: string, body?: unknown, method = body === undefined ? "GET" : "POST", key = KEY): Promise<Response> {
  return fetch(mock.url + path, {
    method,
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
    ...(body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) }),
  });
}

async function answer(path: string, body?: unknown): Promise<Json> {
  const response = await ask(path, body);
  expect(response.status).toBe(200);
  return (await response.json()) as Json;
}

/** The data of an event stream, JSON where it is JSON. */
async function events(path: string, body: unknown): Promise<{ event: string | null; data: Json | string }[]> {
  const response = await ask(path, body);
  expect([response.status, response.headers.get("content-type")]).toEqual([200, "text/event-stream"]);
  const blocks = (await response.text()).split("\n\n").filter(Boolean);
  return blocks.map((block) => {
    const data = /^data: (.*)$/m.exec(block)![1]!;
    return {
      event: /^event: (.*)$/m.exec(block)?.[1] ?? null,
      data: data === "[DONE]" ? data : (JSON.parse(data) as Json),
    };
  });
}

const CHAT = { model: "any", messages: [{ role: "user", content: "hello there" }] };

test("a key that starts with sk-mock- is accepted, anything else is 401 in error shape", async () => {
  expect((await ask("/v1/models")).status).toBe(200);
  for (const key of ["sk-other", "sk-mock-", "", "SK-MOCK-a", "x sk-mock-a"]) {
    const response = await ask("/v1/chat/completions", CHAT, "POST", key);
    expect([key, response.status]).toEqual([key, 401]);
    expect(await response.json()).toEqual({
      error: {
        message: "Incorrect API key provided.",
        type: "invalid_request_error",
        param: null,
        code: "invalid_api_key",
      },
    });
  }
  expect((await fetch(`${mock.url}/v1/models`)).status).toBe(401);
});

test("a chat is answered with a completion and its usage", async () => {
  const completion = await answer("/v1/chat/completions", CHAT);
  expect(completion).toEqual({
    id: expect.stringMatching(/^chatcmpl-/),
    object: "chat.completion",
    created: expect.any(Number),
    model: "any",
    choices: [
      {
        index: 0,
        message: { role: "assistant", content: "You said: hello there" },
        logprobs: null,
        finish_reason: "stop",
      },
    ],
    usage: { prompt_tokens: 2, completion_tokens: 4, total_tokens: 6 },
  });
  const withParts = { model: "any", messages: [{ role: "user", content: [{ type: "text", text: "in parts" }] }] };
  expect(JSON.stringify(await answer("/v1/chat/completions", withParts))).toContain("You said: in parts");
});

test("a streamed chat says the same in pieces, with usage only when asked", async () => {
  const chunks = await events("/v1/chat/completions", { ...CHAT, stream: true });
  expect(chunks.at(-1)).toEqual({ event: null, data: "[DONE]" });
  const values = chunks.slice(0, -1).map(({ data }) => data as Json & { choices: Json[] });
  const text = values.map(({ choices }) => (choices[0]!.delta as Json).content ?? "").join("");
  expect(text).toBe("You said: hello there");
  expect(values.map(({ choices }) => choices[0]!.finish_reason).at(-1)).toBe("stop");
  expect(new Set(values.map(({ id }) => id)).size).toBe(1);
  expect(values.every(({ object, usage }) => object === "chat.completion.chunk" && usage === undefined)).toBe(true);
  const asked = await events("/v1/chat/completions", {
    ...CHAT,
    stream: true,
    stream_options: { include_usage: true },
  });
  const last = asked.at(-2)!.data as Json;
  expect([last.choices, last.usage]).toEqual([[], { prompt_tokens: 2, completion_tokens: 4, total_tokens: 6 }]);
  expect(asked.slice(0, -2).every(({ data }) => (data as Json).usage === null)).toBe(true);
});

test("a tool that is offered is called, and its result is talked about", async () => {
  const tools = [{ type: "function", function: { name: "weather", parameters: { type: "object" } } }];
  const call = await answer("/v1/chat/completions", { ...CHAT, tools });
  const [choice] = call.choices as Json[];
  expect(choice).toMatchObject({
    finish_reason: "tool_calls",
    message: { content: null, tool_calls: [{ type: "function", function: { name: "weather", arguments: "{}" } }] },
  });
  const chunks = await events("/v1/chat/completions", { ...CHAT, tools, stream: true });
  expect(JSON.stringify(chunks)).toContain('"tool_calls":[{"index":0,');
  const messages = [...CHAT.messages, (choice as Json).message, { role: "tool", tool_call_id: "x", content: "sunny" }];
  const after = await answer("/v1/chat/completions", { ...CHAT, messages, tools });
  expect(JSON.stringify(after)).toContain("You said: sunny");
  const declined = await answer("/v1/chat/completions", { ...CHAT, tools, tool_choice: "none" });
  expect(JSON.stringify(declined)).not.toContain("tool_calls");
});

test("completions, embeddings and moderations are answered", async () => {
  const completion = await answer("/v1/completions", { model: "any", prompt: "once upon" });
  expect((completion.choices as Json[])[0]).toMatchObject({ text: "You wrote: once upon", finish_reason: "stop" });
  const streamed = await events("/v1/completions", { model: "any", prompt: "once", stream: true });
  const texts = streamed.slice(0, -1).map(({ data }) => ((data as Json).choices as Json[])[0]!.text);
  expect(texts.join("")).toBe("You wrote: once");
  const floats = await answer("/v1/embeddings", { model: "any", input: ["a", "b c"] });
  expect(floats).toMatchObject({
    object: "list",
    data: [
      { index: 0, embedding: [0.25, -0.5, 0.75, -1] },
      { index: 1, embedding: [0.25, -0.5, 0.75, -1] },
    ],
    usage: { prompt_tokens: 3, total_tokens: 3 },
  });
  const encoded = await answer("/v1/embeddings", { model: "any", input: "a", encoding_format: "base64" });
  const base64 = (encoded.data as Json[])[0]!.embedding as string;
  expect([...new Float32Array(new Uint8Array(Buffer.from(base64, "base64")).buffer)]).toEqual([0.25, -0.5, 0.75, -1]);
  const tokens = await answer("/v1/embeddings", { model: "any", input: [1, 2, 3] });
  expect(tokens.data).toHaveLength(1);
  const moderation = await answer("/v1/moderations", { input: ["a", "b"] });
  expect(moderation).toMatchObject({ model: "omni-moderation-latest", results: [{ flagged: false }, {}] });
});

test("a response is kept until it is deleted, unless it should not be", async () => {
  const made = await answer("/v1/responses", { model: "any", input: "who are you", previous_response_id: "resp_1" });
  expect(made).toMatchObject({ object: "response", status: "completed", previous_response_id: "resp_1" });
  expect((made.output as Json[])[0]).toMatchObject({ content: [{ text: "You asked: who are you" }] });
  expect(made.usage).toMatchObject({ input_tokens: 3, output_tokens: 5, total_tokens: 8 });
  const path = `/v1/responses/${made.id}`;
  expect(await answer(path)).toEqual(made);
  expect(await (await ask(path, undefined, "DELETE")).json()).toEqual({
    id: made.id,
    object: "response",
    deleted: true,
  });
  expect((await ask(path)).status).toBe(404);
  const unkept = await answer("/v1/responses", { model: "any", input: "x", store: false });
  expect((await ask(`/v1/responses/${unkept.id}`)).status).toBe(404);
});

test("a streamed response names its events, numbers them, and ends with the whole", async () => {
  const steps = await events("/v1/responses", { model: "any", input: "hi", stream: true });
  expect(steps.every(({ event, data }) => event === (data as Json).type)).toBe(true);
  expect(steps.map(({ data }) => (data as Json).sequence_number)).toEqual(steps.map((_, index) => index));
  expect([steps[0]!.event, steps.at(-1)!.event]).toEqual(["response.created", "response.completed"]);
  const deltas = steps.filter(({ event }) => event === "response.output_text.delta");
  expect(deltas.map(({ data }) => (data as Json).delta).join("")).toBe("You asked: hi");
  expect(((steps.at(-1)!.data as Json).response as Json).status).toBe("completed");
});

test("its models are listed and shown; other names, paths, methods and bodies are refused in error shape", async () => {
  const list = await answer("/v1/models");
  expect((list.data as Json[]).map(({ id }) => id)).toEqual(["mock-large", "mock-small"]);
  expect(await answer("/v1/models/mock-small")).toMatchObject({ id: "mock-small", object: "model" });
  for (const [path, body, method, status, code] of [
    ["/v1/models/other", undefined, "GET", 404, "model_not_found"],
    ["/v1/images", {}, "POST", 404, "unknown_url"],
    ["/", undefined, "GET", 404, "unknown_url"],
    ["/v1/chat/completions", undefined, "GET", 404, "unknown_url"],
    ["/v1/responses/resp_none", undefined, "DELETE", 404, "unknown_url"],
    ["/v1/chat/completions", "{", "POST", 400, "invalid_json"],
    ["/v1/chat/completions", "[]", "POST", 400, "invalid_json"],
  ] as const) {
    const response = await ask(path, body, method);
    const { error } = (await response.json()) as { error: Json };
    expect([path, response.status, error.code]).toEqual([path, status, code]);
  }
});

test("a delay comes before each answer, and before each event of a stream", async () => {
  await using slow = new MockUpstream({ port: 0, delayMs: 40 });
  const post = (body: unknown) =>
    fetch(`${slow.url}/v1/chat/completions`, {
      method: "POST",
      headers: { authorization: `Bearer ${KEY}` },
      body: JSON.stringify(body),
    });
  let startMs = performance.now();
  await (await post(CHAT)).text();
  expect(performance.now() - startMs).toBeGreaterThanOrEqual(39);
  startMs = performance.now();
  const streamed = await post({ ...CHAT, stream: true });
  const arrivals: number[] = [];
  for await (const _ of streamed.body!) arrivals.push(performance.now() - startMs);
  expect(arrivals[0]).toBeLessThan(arrivals.at(-1)! - 100);
  expect(arrivals.at(-1)).toBeGreaterThan(5 * 40);
});
