// Client libraries as they are published, with their retries on, against the executable: an upstream that can fail, and
// a public mock server that somebody else wrote.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { LLMock } from "@copilotkit/aimock";
import { ChatOpenAI, OpenAIEmbeddings } from "@langchain/openai";
import { embed, generateText, jsonSchema, streamText, type ToolSet, tool } from "ai";
import OpenAI from "openai";
import type { Plan } from "../support/fault-upstream.ts";
import { expectTime } from "../support/figures-in-bounds.ts";
import { makeToken, managed, RELAY_ENV } from "../support/relay-client.ts";
import { RelayRig } from "../support/relay-rig.ts";
import { openBinary, type Target } from "../support/targets.ts";
import {
  answerJson,
  DONE,
  errorFrame,
  normalEvents,
  refuse,
  stayStill,
  stream,
  wrongKey,
} from "../support/upstream-plans.ts";
import { useTarget } from "../support/use-target.ts";

/** What all libraries can do, each in its own words. */
interface Library {
  text(prompt: string): Promise<string>;
  /** Every piece of text is handed on as it comes; what breaks is thrown. */
  stream(prompt: string, signal?: AbortSignal, onText?: (text: string) => void): Promise<string>;
  /** The name and arguments of the tool that the model wants to be called. */
  tool(prompt: string): Promise<readonly [name: string, input: unknown]>;
  embed(input: string): Promise<readonly number[]>;
}

interface Place {
  readonly url: string;
  readonly key: string;
  /** Counts what the library sends to the relay. */
  readonly fetch: typeof fetch;
}

type LibraryName = "openai" | "ai" | "langchain";

const MODEL = "mock-small";
const RETRIES = 2;
const ABORT_MS_MAX = 200;
/** Libraries wait a while between their tries. */
const RETRY_TEST_MS = 120_000;

const WEATHER = {
  description: "The weather of a place",
  parameters: { type: "object", properties: { place: { type: "string" } }, additionalProperties: false },
} as const;

function openaiClient({ url, key, fetch }: Place): OpenAI {
  return new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: RETRIES, fetch });
}

function openaiLibrary(place: Place): Library {
  const client = openaiClient(place);
  const messages = (content: string) => [{ role: "user" as const, content }];
  return {
    async text(prompt) {
      const { choices } = await client.chat.completions.create({ model: MODEL, messages: messages(prompt) });
      return choices[0]!.message.content!;
    },
    async stream(prompt, signal, onText = () => undefined) {
      const body = { model: MODEL, messages: messages(prompt), stream: true as const };
      let text = "";
      for await (const chunk of await client.chat.completions.create(body, signal === undefined ? {} : { signal })) {
        const piece = chunk.choices[0]?.delta.content ?? "";
        text += piece;
        if (piece !== "") onText(piece);
      }
      // This library ends its loop in silence when it is told to stop.
      signal?.throwIfAborted();
      return text;
    },
    async tool(prompt) {
      const tools = [{ type: "function" as const, function: { name: "weather", ...WEATHER } }];
      const { choices } = await client.chat.completions.create({ model: MODEL, messages: messages(prompt), tools });
      const call = choices[0]!.message.tool_calls![0]!;
      if (call.type !== "function") throw new Error(`a tool call of type ${call.type}`);
      return [call.function.name, JSON.parse(call.function.arguments)];
    },
    async embed(input) {
      const { data } = await client.embeddings.create({ model: MODEL, input });
      return data[0]!.embedding;
    },
  };
}

function aiLibrary({ url, key, fetch }: Place): Library {
  const provider = createOpenAICompatible({ name: "gokv", baseURL: `${url}/v1`, apiKey: key, fetch });
  const model = provider(MODEL);
  const options = { model, maxRetries: RETRIES };
  return {
    text: async (prompt) => (await generateText({ ...options, prompt })).text,
    async stream(prompt, signal, onText = () => undefined) {
      const aborting = signal === undefined ? {} : { abortSignal: signal };
      const { stream } = streamText({ ...options, ...aborting, prompt, onError: () => undefined });
      let text = "";
      for await (const part of stream) {
        if (part.type === "error") throw part.error;
        if (part.type === "abort") throw new Error("aborted");
        if (part.type !== "text-delta") continue;
        text += part.text;
        onText(part.text);
      }
      return text;
    },
    async tool(prompt) {
      const weather = tool({
        description: WEATHER.description,
        inputSchema: jsonSchema<{ place?: string }>(WEATHER.parameters),
      });
      // Its types are not made for optional members that must not be undefined.
      const tools = { weather } as unknown as ToolSet;
      const { toolCalls } = await generateText({ ...options, prompt, tools });
      return [toolCalls[0]!.toolName, toolCalls[0]!.input];
    },
    async embed(value) {
      return (await embed({ model: provider.embeddingModel(MODEL), value, maxRetries: RETRIES })).embedding;
    },
  };
}

function langchainLibrary({ url, key, fetch }: Place): Library {
  const configuration = { baseURL: `${url}/v1`, fetch };
  const options = { model: MODEL, apiKey: key, maxRetries: RETRIES, configuration };
  const model = new ChatOpenAI(options);
  return {
    text: async (prompt) => (await model.invoke(prompt)).text,
    async stream(prompt, signal, onText = () => undefined) {
      let text = "";
      for await (const chunk of await model.stream(prompt, signal === undefined ? {} : { signal })) {
        text += chunk.text;
        if (chunk.text !== "") onText(chunk.text);
      }
      signal?.throwIfAborted();
      return text;
    },
    async tool(prompt) {
      const bound = model.bindTools([{ type: "function", function: { name: "weather", ...WEATHER } }]);
      const { tool_calls } = await bound.invoke(prompt);
      return [tool_calls![0]!.name, tool_calls![0]!.args];
    },
    embed: (input) => new OpenAIEmbeddings(options).embedQuery(input),
  };
}

const LIBRARIES: Readonly<Record<LibraryName, (place: Place) => Library>> = {
  openai: openaiLibrary,
  ai: aiLibrary,
  langchain: langchainLibrary,
};

/** How often a library asks the relay, and what the statuses of its answers are. */
function countingFetch(): { calls: () => number; statuses: number[]; fetch: typeof fetch } {
  let calls = 0;
  const statuses: number[] = [];
  const counting = async (...args: Parameters<typeof fetch>) => {
    calls++;
    const answer = await fetch(...args);
    statuses.push(answer.status);
    return answer;
  };
  return { calls: () => calls, statuses, fetch: counting as typeof fetch };
}

function placeOf(target: Target, key: string) {
  const { calls, statuses, fetch } = countingFetch();
  return { place: { url: target.url, key, fetch }, calls, statuses };
}

/** What was thrown, with what libraries say of an answer that was no success. */
async function failureOf(work: Promise<unknown>): Promise<{ message: string; status: number | undefined }> {
  const error = await work.then(
    (value) => new Error(`it did not fail: ${JSON.stringify(value)}`),
    (reason: unknown) => reason,
  );
  const { message, status, statusCode } = error as { message?: string; status?: number; statusCode?: number };
  return { message: message ?? JSON.stringify(error), status: status ?? statusCode };
}

for (const [name, create] of Object.entries(LIBRARIES)) {
  describe(`the library ${name}`, () => {
    const target = useTarget(openBinary, RELAY_ENV);

    test("gets an answer, a stream, a call of a tool and an embedding, each with one request", async () => {
      await using rig = await RelayRig.open(target());
      const { place, calls } = placeOf(target(), rig.token.key);
      const library = create(place);
      expect(await library.text("grüße")).toBe("You said: grüße");
      const pieces: string[] = [];
      expect(await library.stream("one two three", undefined, (piece) => pieces.push(piece))).toBe(
        "You said: one two three",
      );
      expect(pieces.length).toBeGreaterThan(2);
      expect(await library.tool("What is it like in Oslo?")).toEqual(["weather", {}]);
      expect(await library.embed("x")).toEqual([0.25, -0.5, 0.75, -1]);
      expect([calls(), rig.calls]).toEqual([4, [4]]);
    });

    test("gets a refusal of an upstream as an error with its status and message, and does not repeat it", async () => {
      await using rig = await RelayRig.open(target());
      rig.plan(refuse(400, { code: "context_length_exceeded", message: "That is too long." }));
      const { place, calls } = placeOf(target(), rig.token.key);
      const library = create(place);
      for (const action of ["text", "stream", "tool", "embed"] as const) {
        const { message, status } = await failureOf(library[action]("x"));
        expect([status, message]).toEqual([400, expect.stringContaining("That is too long.")]);
      }
      expect([calls(), rig.calls]).toEqual([4, [4]]);
    });

    test("gets an error for a wrong token and for a model that it may not use, at once", async () => {
      await using rig = await RelayRig.open(target());
      const narrow = await makeToken(target(), { group: rig.group, models: ["other"] });
      for (const [key, status] of [
        ["sk-nexus-wrong-0123456789", 401],
        [narrow.key, 403],
      ] as const) {
        const { place, calls } = placeOf(target(), key);
        expect((await failureOf(create(place).text("x"))).status).toBe(status);
        expect(calls()).toBe(1);
      }
      expect(rig.calls).toEqual([0]);
    });

    test("notices nothing of a channel that fails while another works", async () => {
      await using rig = await RelayRig.open(target(), [{}, {}, {}]);
      rig.plan(refuse(500), stream({ events: [errorFrame, DONE] }));
      const { place, calls } = placeOf(target(), rig.token.key);
      const library = create(place);
      expect(await library.text("one")).toBe("You said: one");
      expect(await library.stream("two")).toBe("You said: two");
      expect([calls(), rig.calls]).toEqual([2, [2, 2, 2]]);
    });

    test(
      "repeats what failed everywhere no more often than it was told to",
      async () => {
        await using rig = await RelayRig.open(target());
        rig.plan(refuse(500, { message: "It is on fire." }));
        const { place, calls } = placeOf(target(), rig.token.key);
        const { message } = await failureOf(create(place).text("x"));
        expect(message).toContain("It is on fire.");
        expect([calls(), rig.calls]).toEqual([RETRIES + 1, [RETRIES + 1]]);
      },
      RETRY_TEST_MS,
    );

    for (const [what, end] of [
      ["ends too soon", "clean"],
      ["breaks off", "close"],
    ] as const) {
      test(`gets an error for a stream that ${what}, after what had come`, async () => {
        await using rig = await RelayRig.open(target());
        rig.plan(stream({ cutAfterEvents: 4, end }));
        const { place, calls } = placeOf(target(), rig.token.key);
        let seen = "";
        const work = create(place).stream("one two three", undefined, (piece) => {
          seen += piece;
        });
        expect((await failureOf(work)).message).toContain("the upstream stream was interrupted");
        expect(seen).toStartWith("You said:");
        expect([calls(), rig.calls]).toEqual([1, [1]]);
      });
    }

    test("gets an error that comes in mid-stream", async () => {
      await using rig = await RelayRig.open(target());
      const breaking: Plan = (exchange) =>
        stream({ events: [...normalEvents(exchange).slice(0, 3), errorFrame] })(exchange);
      rig.plan(breaking);
      const { place } = placeOf(target(), rig.token.key);
      expect((await failureOf(create(place).stream("one two"))).message).toContain("The server had an error.");
      expect(rig.calls).toEqual([1]);
    });

    test("stops a stream when its user does, and the upstream stops at once", async () => {
      await using rig = await RelayRig.open(target());
      rig.plan(stream({ cutAfterEvents: 3, end: "still" }));
      const { place, calls } = placeOf(target(), rig.token.key);
      const controller = new AbortController();
      let abortedMs = 0;
      const work = create(place).stream("one two three", controller.signal, () => {
        if (abortedMs !== 0) return;
        abortedMs = performance.now();
        controller.abort();
      });
      await failureOf(work);
      const request = await rig.upstream.request(0);
      expectTime("closing upstream", (await request.closed) - abortedMs, ABORT_MS_MAX);
      expect(await rig.onlyRow()).toMatchObject({ status: 499 });
      expect(calls()).toBe(1);
    });

    test("stops before the first byte when its user does, and the upstream stops at once", async () => {
      await using rig = await RelayRig.open(target());
      rig.plan(stayStill);
      const { place, calls } = placeOf(target(), rig.token.key);
      const controller = new AbortController();
      const failure = failureOf(create(place).stream("x", controller.signal));
      const request = await rig.upstream.request(0);
      const abortedMs = performance.now();
      controller.abort();
      await failure;
      expectTime("closing upstream", (await request.closed) - abortedMs, ABORT_MS_MAX);
      expect(request.wasGivenUp).toBe(true);
      expect(await rig.onlyRow()).toMatchObject({ status: 499 });
      expect(calls()).toBe(1);
    });
  });
}

describe("the library openai, all the rest of it", () => {
  const target = useTarget(openBinary, RELAY_ENV);
  const clientOf = (key: string) => {
    const { place, calls } = placeOf(target(), key);
    return { client: openaiClient(place), calls };
  };

  test("asks once when there is no channel, when a key is bad and when a quota is spent", async () => {
    await using rig = await RelayRig.open(target());
    const nowhere = await makeToken(target(), { group: "nobody" });
    const spent = await makeToken(target(), { group: rig.group, remain_quota: 1 });
    rig.plan(wrongKey);
    for (const [key, status, code] of [
      [nowhere.key, 500, "no_available_channel"],
      [spent.key, 429, "insufficient_quota"],
      [rig.token.key, 401, "invalid_api_key"],
    ] as const) {
      const { client, calls } = clientOf(key);
      const body = { model: MODEL, messages: [{ role: "user" as const, content: "x" }] };
      const error = await client.chat.completions.create(body).catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(OpenAI.APIError);
      expect(error).toMatchObject({ status, code });
      expect(calls()).toBe(1);
    }
    expect(rig.calls).toEqual([1]);
  });

  test("completions, moderations and embeddings", async () => {
    await using rig = await RelayRig.open(target());
    const { client } = clientOf(rig.token.key);
    const completion = await client.completions.create({ model: MODEL, prompt: "say" });
    expect(completion.choices[0]!.text).toBe("You wrote: say");
    let text = "";
    for await (const chunk of await client.completions.create({ model: MODEL, prompt: "say it", stream: true })) {
      text += chunk.choices[0]?.text ?? "";
    }
    expect(text).toBe("You wrote: say it");
    const moderation = await client.moderations.create({ input: "x" });
    expect(moderation.results).toHaveLength(1);
    const embeddings = await client.embeddings.create({ model: MODEL, input: ["x", "y"], encoding_format: "float" });
    expect(embeddings.data.map(({ embedding }) => embedding[0])).toEqual([0.25, 0.25]);
    expect(rig.upstream.requests.map(({ path }) => path)).toEqual(
      ["completions", "completions", "moderations", "embeddings"].map((path) => `/v1/${path}`),
    );
  });

  test("usage comes at the end of a stream when it is asked for, and not otherwise", async () => {
    await using rig = await RelayRig.open(target());
    const { client } = clientOf(rig.token.key);
    const body = { model: MODEL, messages: [{ role: "user" as const, content: "a b" }], stream: true as const };
    for (const include_usage of [true, false]) {
      const usages: unknown[] = [];
      for await (const chunk of await client.chat.completions.create({ ...body, stream_options: { include_usage } })) {
        if (chunk.usage) usages.push(chunk.usage.total_tokens);
      }
      expect(usages).toEqual(include_usage ? [expect.any(Number)] : []);
    }
  });

  test("responses: made, streamed, followed, read, deleted, and cut", async () => {
    await using rig = await RelayRig.open(target(), [{ priority: 0 }, { priority: 0 }]);
    const { client, calls } = clientOf(rig.token.key);
    const response = await client.responses.create({ model: MODEL, input: "one" });
    expect(response.output_text).toBe("You asked: one");
    const home = rig.calls.indexOf(1);
    const followed = client.responses.stream({ model: MODEL, input: "two", previous_response_id: response.id });
    const types: string[] = [];
    for await (const part of followed) types.push(part.type);
    expect([types[0], types.at(-1)]).toEqual(["response.created", "response.completed"]);
    expect((await followed.finalResponse()).output_text).toBe("You asked: two");
    rig.upstreams[home]!.next(answerJson({ id: response.id, object: "response", output: [] }));
    expect((await client.responses.retrieve(response.id)).id).toBe(response.id);
    rig.upstreams[home]!.next(answerJson({ id: response.id, deleted: true }));
    await client.responses.delete(response.id);
    const gone = await client.responses.retrieve(response.id).catch((reason: unknown) => reason);
    expect(gone).toBeInstanceOf(OpenAI.NotFoundError);
    expect([calls(), rig.calls[home], rig.calls[1 - home]]).toEqual([5, 4, 0]);
    rig.plan(...[1, 2].map(() => stream({ cutAfterEvents: 3, end: "close" })));
    const cut = (async () => {
      for await (const _ of await client.responses.create({ model: MODEL, input: "x", stream: true }));
    })();
    expect((await failureOf(cut)).message).toContain("the upstream stream was interrupted");
  });

  test("the list of models is exactly what the token may use, and each is found by its name", async () => {
    await using rig = await RelayRig.open(target(), [{ models: ["Qwen/Qwen3-8B", "a", "b"] }], {
      models: ["Qwen/Qwen3-8B", "b", "not-served"],
    });
    const { client } = clientOf(rig.token.key);
    const ids: string[] = [];
    for await (const { id } of client.models.list()) ids.push(id);
    expect(ids).toEqual(["Qwen/Qwen3-8B", "b"]);
    const model = await client.models.retrieve("Qwen/Qwen3-8B");
    expect(model).toMatchObject({ id: "Qwen/Qwen3-8B", object: "model", owned_by: "gokv" });
    const refused = await client.models.retrieve("a").catch((reason: unknown) => reason);
    expect(refused).toBeInstanceOf(OpenAI.NotFoundError);
    expect(rig.calls).toEqual([0]);
  });
});

describe("a public mock server as the upstream", () => {
  const target = useTarget(openBinary, RELAY_ENV);
  const KEY = "sk-public-mock-0123456789";
  let mock: LLMock;
  let token: string;

  beforeAll(async () => {
    mock = new LLMock({ port: 0, host: "127.0.0.1" });
    mock.onMessage("call", { toolCalls: [{ name: "weather", arguments: '{"place":"Oslo"}' }] });
    mock.onMessage("refuse", { error: { message: "No.", type: "invalid_request_error", code: "nope" }, status: 400 });
    // Without a pause the mock destroys the connection before its first event is out.
    mock.onMessage("cut", { content: "a b c d e f g h i j" }, { chunkSize: 2, truncateAfterChunks: 3, latency: 20 });
    mock.onMessage("hello", { content: "Hello from far away, ünïcode and all." }, { chunkSize: 5 });
    mock.onEmbedding("x", { embedding: [0.5, -0.25] });
    mock.onModerate("bad", { flagged: true, categories: { violence: true } });
    await mock.start();
    const channel = { type: "Custom", name: "public", key: KEY, base_url: mock.url, group: "public" };
    await managed(target(), "POST", "/api/channel", channel);
    token = (await makeToken(target(), { group: "public" })).key;
  });
  afterAll(() => mock.stop());

  for (const [name, create] of Object.entries(LIBRARIES)) {
    test(`serves ${name}: an answer, a stream, a call of a tool, an embedding, an error, a cut`, async () => {
      mock.clearRequests();
      const { place, statuses } = placeOf(target(), token);
      const library = create(place);
      expect(await library.text("hello")).toBe("Hello from far away, ünïcode and all.");
      expect(await library.stream("hello")).toBe("Hello from far away, ünïcode and all.");
      expect(await library.tool("call")).toEqual(["weather", { place: "Oslo" }]);
      expect(await library.embed("x")).toEqual([0.5, -0.25]);
      expect(await failureOf(library.text("refuse"))).toMatchObject({ status: 400 });
      expect((await failureOf(library.stream("cut"))).message).toContain("the upstream stream was interrupted");
      const requests = mock.getRequests();
      expect([statuses, requests.length]).toEqual([[200, 200, 200, 200, 400, 200], 6]);
      expect(JSON.stringify(requests)).not.toContain(token);
    });
  }

  test("serves openai: moderations and responses, whole and streamed", async () => {
    mock.clearRequests();
    const { place } = placeOf(target(), token);
    const client = openaiClient(place);
    expect((await client.moderations.create({ input: "bad" })).results[0]!.flagged).toBe(true);
    const response = await client.responses.create({ model: MODEL, input: "hello" });
    expect(response.output_text).toBe("Hello from far away, ünïcode and all.");
    const streamed = client.responses.stream({ model: MODEL, input: "hello" });
    let text = "";
    for await (const part of streamed) if (part.type === "response.output_text.delta") text += part.delta;
    expect(text).toBe("Hello from far away, ünïcode and all.");
    expect(mock.getRequests().map(({ path }) => path)).toEqual(["/v1/moderations", "/v1/responses", "/v1/responses"]);
  });
});
