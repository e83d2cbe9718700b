// A stream from an upstream to a client: what passes, how it ends, what is told when it breaks.

import { describe, expect, jest, test } from "bun:test";
import { ENDPOINTS } from "../../src/relay/relay-endpoints.ts";
import { RelayStream, type StreamEnd } from "../../src/relay/relay-stream.ts";
import { StreamWatch } from "../../src/relay/stream-watch.ts";
import { UpstreamEvents } from "../../src/relay/upstream-events.ts";

const IDLE_MS = 1_000;
const EVENT_BYTES_MAX = 10_000;

const chunk = (content: string) => `data: ${JSON.stringify({ choices: [{ delta: { content } }] })}\n\n`;
const FINISH = `data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n`;
const USAGE = `data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n`;
const DONE = "data: [DONE]\n\n";
const INTERRUPTED = `data: ${JSON.stringify({
  error: {
    message: "the upstream stream was interrupted",
    type: "upstream_error",
    param: null,
    code: "upstream_stream_interrupted",
  },
})}\n\n`;

const scrub = (text: string) => text.replaceAll("secret", "***");

interface Options {
  readonly endpoint?: "chat" | "responses";
  readonly wantsUsage?: boolean;
  readonly onClientGone?: "cancel" | "drain";
}

/** A stream over an upstream that sends `pieces`, and what becomes of it. */
function open(pieces: readonly (string | Uint8Array | Error | Promise<Error>)[], options: Options = {}) {
  const { endpoint = "chat", wantsUsage = false, onClientGone = "cancel" } = options;
  const left = [...pieces];
  const state = { ends: [] as StreamEnd[], isCancelled: false, isAborted: false, isOverdue: false, kept: "" };
  const upstream = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const piece = await left.shift();
        if (piece === undefined) controller.close();
        else if (piece instanceof Error) controller.error(piece);
        else controller.enqueue(typeof piece === "string" ? new TextEncoder().encode(piece) : piece);
      },
      cancel() {
        state.isCancelled = true;
      },
    },
    { highWaterMark: 0 },
  );
  const abort = () => {
    state.isAborted = true;
  };
  const watch = new StreamWatch(ENDPOINTS[endpoint], wantsUsage, scrub);
  const client = new AbortController();
  const stream = new RelayStream({
    endpoint: ENDPOINTS[endpoint],
    watch,
    first: [],
    onClientGone,
    clientGone: client.signal,
    isOverdue: () => state.isOverdue,
    source: new UpstreamEvents(upstream, EVENT_BYTES_MAX, IDLE_MS, abort),
    onEvent: (event) => {
      state.kept += new TextDecoder().decode(event);
    },
    onEnd: (end) => state.ends.push(end),
  });
  return { stream, watch, state, client, left };
}

describe("a stream of chunks", () => {
  test("passes byte for byte, however its bytes are cut, without the usage that nobody asked for", async () => {
    const sent = `: comment\n\n${chunk("你好 😀")}${chunk("b")}${FINISH}${USAGE}${DONE}`;
    const expected = sent.replace(USAGE, "");
    const bytes = new TextEncoder().encode(sent);
    for (let at = 1; at < bytes.length; at += 7) {
      const { stream, watch, state } = open([bytes.slice(0, at), bytes.slice(at)]);
      expect(await new Response(stream.body).text()).toBe(expected);
      expect(watch.usage).toEqual({ promptTokens: 3, completionTokens: 2, cachedTokens: 0 });
      expect(state.ends).toEqual(["complete"]);
    }
  });

  describe.each([
    ["LF", "\n"],
    ["CRLF", "\r\n"],
    ["CR", "\r"],
  ])("with %s as line end, however its bytes are cut in two", (_, lineEnd) => {
    const inLines = (text: string) => text.replaceAll("\n", lineEnd);
    const opening = inLines(`: comment\n\nevent: x\n${chunk("你好")}${FINISH}`);
    const [usage, done] = [inLines(USAGE), inLines(DONE)];
    const bytes = new TextEncoder().encode(opening + usage + done);
    const cases = [
      ["with the usage", true, opening + usage + done],
      ["without the usage that nobody asked for", false, opening + done],
    ] as const;
    test.each(cases)("passes byte for byte %s, and is kept so", async (_, wantsUsage, expected) => {
      for (let at = 1; at < bytes.length; at++) {
        const { stream, state } = open([bytes.slice(0, at), bytes.slice(at)], { wantsUsage });
        const text = await new Response(stream.body).text();
        expect([at, text, state.kept, state.ends]).toEqual([at, expected, expected, ["complete"]]);
      }
    });
  });

  test("has the usage when it was asked for", async () => {
    const sent = `${chunk("a")}${FINISH}${USAGE}${DONE}`;
    const { stream } = open([sent], { wantsUsage: true });
    expect(await new Response(stream.body).text()).toBe(sent);
  });

  test.each<[string, (string | Error)[], StreamEnd]>([
    ["breaks", [new Error("reset")], "interrupted"],
    ["ends", [], "interrupted"],
    ["ends within an event", ['data: {"choices":[{"del'], "interrupted"],
    ["sends an event that is too large", [`data: ${"x".repeat(EVENT_BYTES_MAX)}\n\n`, chunk("late")], "oversized"],
  ])("that %s before its end is told to be interrupted, and has no [DONE]", async (_, pieces, end) => {
    const { stream, state } = open([chunk("a"), chunk("b"), ...pieces]);
    expect(await new Response(stream.body).text()).toBe(chunk("a") + chunk("b") + INTERRUPTED);
    expect(state.ends).toEqual([end]);
  });

  test("that falls silent for too long is interrupted, and its upstream closed", async () => {
    const silent = new ReadableStream<Uint8Array>({ start: (c) => c.enqueue(new TextEncoder().encode(chunk("a"))) });
    let isAborted = false;
    const source = new UpstreamEvents(silent, EVENT_BYTES_MAX, 50, () => {
      isAborted = true;
    });
    const ends: StreamEnd[] = [];
    const stream = new RelayStream({
      endpoint: ENDPOINTS.chat,
      source,
      watch: new StreamWatch(ENDPOINTS.chat, false, scrub),
      first: [],
      onClientGone: "cancel",
      clientGone: new AbortController().signal,
      isOverdue: () => false,
      onEvent: () => undefined,
      onEnd: (end) => ends.push(end),
    });
    expect(await new Response(stream.body).text()).toBe(chunk("a") + INTERRUPTED);
    expect([isAborted, ends]).toEqual([true, ["interrupted"]]);
  });

  test("that named its finish but lacks [DONE] gets it, once", async () => {
    const { stream, state } = open([chunk("a"), FINISH]);
    expect(await new Response(stream.body).text()).toBe(chunk("a") + FINISH + DONE);
    expect([state.ends, state.kept]).toEqual([["complete"], chunk("a") + FINISH + DONE]);
  });

  test("ends with an error frame, scrubbed, and nothing after it", async () => {
    const frame = 'data: {"error":{"message":"bad secret","type":"server_error","code":"boom"}}\n\n';
    const { stream, state } = open([chunk("a"), frame, chunk("b"), DONE]);
    const shown = 'data: {"error":{"message":"bad ***","type":"server_error","param":null,"code":"boom"}}\n\n';
    expect(await new Response(stream.body).text()).toBe(chunk("a") + shown);
    expect([state.ends, state.isAborted]).toEqual([["upstream_error"], true]);
  });

  test("ends with an event that is named an error, in whatever form that comes, scrubbed", async () => {
    for (const data of ['{"message":"bad secret"}', "bad secret", '["bad secret"]', '"bad secret"']) {
      const { stream, state } = open([chunk("a"), `event: error\ndata: ${data}\n\n`, chunk("b"), DONE]);
      const text = await new Response(stream.body).text();
      expect([data, text]).toEqual([
        data,
        expect.stringMatching(/^data: .+\n\ndata: \{"error":\{.*bad \*\*\*.*\}\}\n\n$/),
      ]);
      expect([state.ends, state.kept]).toEqual([["upstream_error"], chunk("a")]);
    }
  });

  test("passes events that are no JSON, and counts the text of the others", async () => {
    const { stream, watch } = open([chunk("abc"), "data: {not json\n\n", "id: 7\n\n", chunk("é"), DONE]);
    expect(await new Response(stream.body).text()).toContain("data: {not json\n\nid: 7\n\n");
    expect(watch.outputBytes).toBe(5);
  });

  test("is not read faster than its client reads", async () => {
    const events = Array.from({ length: 100 }, (_, index) => chunk(`${index}`));
    const { stream, left } = open([...events, FINISH, DONE]);
    const reader = stream.body.getReader();
    await reader.read();
    await Bun.sleep(20);
    expect(left.length).toBeGreaterThanOrEqual(98);
    await reader.cancel();
  });
});

describe("a stream whose time is over", () => {
  test("ends as late when its upstream was waited for", async () => {
    const { promise: broken, resolve: breakOff } = Promise.withResolvers<Error>();
    const { stream, state } = open([chunk("a"), broken]);
    const reader = stream.body.getReader();
    await reader.read();
    const last = reader.read();
    // The read of the upstream has begun.
    for (let turn = 0; turn < 10; turn++) await Promise.resolve();
    state.isOverdue = true;
    breakOff(new Error("aborted"));
    expect([new TextDecoder().decode((await last).value), state.ends]).toEqual([INTERRUPTED, ["late"]]);
  });

  test("ends as unread when its client had not taken what was there", async () => {
    const { stream, state } = open([chunk("a"), new Error("aborted")]);
    const reader = stream.body.getReader();
    await reader.read();
    state.isOverdue = true;
    expect([new TextDecoder().decode((await reader.read()).value), state.ends]).toEqual([INTERRUPTED, ["unread"]]);
  });

  test("is complete all the same when its end was seen before", async () => {
    const { stream, state } = open([chunk("a") + FINISH, new Error("aborted")]);
    state.isOverdue = true;
    expect(await new Response(stream.body).text()).toBe(chunk("a") + FINISH + DONE);
    expect(state.ends).toEqual(["complete"]);
  });
});

describe("a client that leaves", () => {
  test("has its upstream closed at once", async () => {
    const { stream, state } = open([chunk("a"), chunk("b"), chunk("c")]);
    const reader = stream.body.getReader();
    await reader.read();
    await reader.cancel();
    expect([state.isCancelled, state.isAborted, state.ends]).toEqual([true, true, ["client_gone"]]);
  });

  test("before it has read anything, as well", async () => {
    const { state, client } = open([chunk("a"), chunk("b")]);
    client.abort();
    expect([state.isCancelled, state.ends]).toEqual([true, ["client_gone"]]);
  });

  test("has its upstream read to the end when the exact usage is wanted", async () => {
    const { stream, state, watch } = open([chunk("a"), chunk("b"), FINISH, USAGE, DONE], { onClientGone: "drain" });
    const reader = stream.body.getReader();
    await reader.read();
    await reader.cancel();
    while (state.ends.length === 0) await Bun.sleep(1);
    expect(state.ends).toEqual(["client_gone"]);
    expect(watch.usage).toEqual({ promptTokens: 3, completionTokens: 2, cachedTokens: 0 });
  });
});

test("a server that stops ends the stream with an error that its client sees", async () => {
  const { stream, state } = open([chunk("a"), chunk("b")]);
  const reader = stream.body.getReader();
  await reader.read();
  stream.interrupt();
  const { value } = await reader.read();
  expect(new TextDecoder().decode(value)).toContain('"code":"server_shutting_down"');
  expect([(await reader.read()).done, state.ends]).toEqual([true, ["shutting_down"]]);
});

describe("a client that takes nothing", () => {
  test.each([0, 1])("for a minute after %d events is dropped, and its upstream closed", async (taken) => {
    jest.useFakeTimers();
    try {
      const { stream, state } = open([chunk("a"), chunk("b"), chunk("c")]);
      const reader = stream.body.getReader();
      for (let event = 0; event < taken; event++) await reader.read();
      // The turn that has sent an event comes to its end.
      for (let turn = 0; turn < 10; turn++) await Promise.resolve();
      jest.advanceTimersByTime(59_999);
      expect(state.ends).toEqual([]);
      jest.advanceTimersByTime(1);
      expect([state.ends, state.isCancelled, state.isAborted]).toEqual([["client_gone"], true, true]);
      await expect(reader.read()).rejects.toThrow("takes nothing");
    } finally {
      jest.useRealTimers();
    }
  });
});

describe("a stream of responses", () => {
  const created = `event: response.created\ndata: {"type":"response.created","response":{"id":"resp_1"}}\n\n`;
  const delta = `event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"hi"}\n\n`;
  const completed = `event: response.completed\ndata: ${JSON.stringify({
    type: "response.completed",
    response: { id: "resp_1", usage: { input_tokens: 4, output_tokens: 1 } },
  })}\n\n`;

  test("keeps its events and gets no [DONE]; id and usage are read", async () => {
    const { stream, watch } = open([created, delta, completed], { endpoint: "responses" });
    expect(await new Response(stream.body).text()).toBe(created + delta + completed);
    expect(watch.usage).toEqual({ promptTokens: 4, completionTokens: 1, cachedTokens: 0 });
    expect(watch.responseId).toBe("resp_1");
  });

  test("with CRLF as line end passes byte for byte, however its bytes are cut in two", async () => {
    const sent = (created + delta + completed).replaceAll("\n", "\r\n");
    for (let at = 1; at < sent.length; at++) {
      const { stream, state } = open([sent.slice(0, at), sent.slice(at)], { endpoint: "responses" });
      expect([at, await new Response(stream.body).text(), state.kept]).toEqual([at, sent, sent]);
    }
  });

  test("that failed has one line end only, wherever that of its upstream was cut", async () => {
    const data = JSON.stringify({ type: "response.failed", response: { id: "resp_1" } });
    const failed = `event: response.failed\ndata: ${data}\n\n`;
    const { stream } = open([`${failed.replaceAll("\n", "\r\n").slice(0, -1)}`, "\n"], { endpoint: "responses" });
    expect(await new Response(stream.body).text()).toBe(failed);
  });

  test("that was cut short for its length is complete, and its usage is read", async () => {
    const incomplete = completed.replaceAll("response.completed", "response.incomplete");
    const { stream, watch, state } = open([created, delta, incomplete], { endpoint: "responses" });
    expect(await new Response(stream.body).text()).toBe(created + delta + incomplete);
    expect(watch.usage).toEqual({ promptTokens: 4, completionTokens: 1, cachedTokens: 0 });
    expect([watch.isDone, ...state.ends]).toEqual([true, "complete"]);
  });

  test("that failed says so without what is secret", async () => {
    const failed = (reason: string) =>
      `event: response.failed\ndata: ${JSON.stringify({
        type: "response.failed",
        response: { id: "resp_1", error: { message: reason } },
      })}\n\n`;
    const { stream, state } = open([created, failed("bad secret")], { endpoint: "responses" });
    expect(await new Response(stream.body).text()).toBe(created + failed("bad ***"));
    expect(state.ends).toEqual(["complete"]);
  });

  test("that breaks is told so by an error event", async () => {
    const { stream } = open([created, delta], { endpoint: "responses" });
    const error =
      'event: error\ndata: {"type":"error","code":"upstream_stream_interrupted",' +
      '"message":"the upstream stream was interrupted","param":null}\n\n';
    expect(await new Response(stream.body).text()).toBe(created + delta + error);
  });
});
