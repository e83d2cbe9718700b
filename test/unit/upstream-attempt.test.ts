// What one request to one channel holds: the share of a whole answer in the byte budget, until somebody gives it back,
// and its connection, for no longer than there is something to read.

import { afterAll, beforeAll, describe, expect, jest, test } from "bun:test";
import { AddressRules } from "../../src/http/address-rules.ts";
import { ByteBudget } from "../../src/http/byte-budget.ts";
import { type OutboundAnswer, type OutboundRequest, OutboundTransport } from "../../src/http/outbound-transport.ts";
import { PoolChannel } from "../../src/relay/channel-pool.ts";
import { ENDPOINTS } from "../../src/relay/relay-endpoints.ts";
import type { Channel } from "../../src/relay/relay-tables.ts";
import { type AttemptRequest, attemptUpstream } from "../../src/relay/upstream-attempt.ts";
import { KiB, MiB } from "../../src/shared/bounds.ts";
import { Subnets } from "../../src/shared/ip-addresses.ts";
import { openLog } from "../../src/shared/log.ts";
import { type Exchange, FaultUpstream, type Plan } from "../support/fault-upstream.ts";
import { errorFrame } from "../support/upstream-plans.ts";

const BYTES = new TextEncoder().encode(JSON.stringify({ choices: [], pad: "x".repeat(100_000) }));
const BOUND_MS = 1_000;
const RESPONSE_BYTES_MAX = 1_000_000;

const JSON_TYPE = { "Content-Type": "application/json" };

const EVENTS_TYPE = { "Content-Type": "text/event-stream" };
/** Long enough that no deadline is what ends an attempt. */
const BOUNDS = {
  ttftMs: 60 * BOUND_MS,
  totalMs: 60 * BOUND_MS,
  idleMs: 60 * BOUND_MS,
  responseBytesMax: RESPONSE_BYTES_MAX,
  eventBytesMax: RESPONSE_BYTES_MAX,
};

const memberAt = (baseUrl: string) => new PoolChannel({ channel: { baseUrl } as Channel, key: "sk-mock-1" }, Date.now);

/** What is asked for when nothing else is said: a whole answer, by somebody who stays. */
const askedBy = (fields: Partial<AttemptRequest> = {}): AttemptRequest => ({
  endpoint: ENDPOINTS.chat,
  method: "POST",
  subpath: "",
  body: "{}",
  isStream: false,
  passedHeaders: {},
  whenGivenUp: () => () => undefined,
  budget: new ByteBudget(MiB),
  bounds: BOUNDS,
  ...fields,
});

/** How long an upstream goes on before it closes the connection itself. */
const GOES_ON_MS = 2 * BOUND_MS;

/** An answer that goes on as long as somebody takes it. */
function endless(status: number, headers: Readonly<Record<string, string>>): Plan {
  return async (exchange) => {
    await exchange.head(status, { ...headers, "Transfer-Encoding": "chunked" });
    const endMs = performance.now() + GOES_ON_MS;
    while (!exchange.isGone && performance.now() < endMs) {
      await exchange.chunk(" ".repeat(32 * KiB));
      await exchange.pause(1);
    }
    leave(exchange);
  };
}

/** One that begins with how much is to come. */
function promising(bytes: number): Plan {
  return async (exchange) => {
    await exchange.head(200, { ...JSON_TYPE, "Content-Length": `${bytes}` });
    await exchange.pause(GOES_ON_MS);
    leave(exchange);
  };
}

const beginWithError: Plan = async (exchange) => {
  await exchange.startEvents();
  await exchange.chunk(errorFrame);
  await exchange.pause(GOES_ON_MS);
  leave(exchange);
};

/** A stream that goes on as long as somebody takes it, and says nothing. */
const commentForEver: Plan = async (exchange) => {
  await exchange.startEvents();
  const endMs = performance.now() + GOES_ON_MS;
  while (!exchange.isGone && performance.now() < endMs) {
    await exchange.chunk(`: ${"x".repeat(32 * KiB)}\n\n`);
    await exchange.pause(1);
  }
  leave(exchange);
};

function leave(exchange: Exchange): void {
  if (!exchange.isGone) exchange.close();
}

/** An attempt that is answered with a body of which `onRead` sees the end, in the turn in which it is complete. */
function attempt(onRead: (client: AbortController) => void, budget: ByteBudget) {
  const client = new AbortController();
  const read = async () => {
    onRead(client);
    return BYTES.buffer;
  };
  const whole = { lengthBytes: BYTES.length, read };
  return attemptAnswered({ status: 200, headers: new Headers(JSON_TYPE), body: null, whole }, budget, client);
}

/** One that is answered in chunks, which come when they are written. */
function attemptInChunks(budget: ByteBudget, responseBytesMax = RESPONSE_BYTES_MAX) {
  const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
  const answer = { status: 200, headers: new Headers(JSON_TYPE), body: readable, whole: null };
  const result = attemptAnswered(answer, budget, new AbortController(), responseBytesMax);
  return { chunks: writable.getWriter(), result };
}

function attemptAnswered(
  answer: OutboundAnswer,
  budget: ByteBudget,
  client: AbortController,
  responseBytesMax = RESPONSE_BYTES_MAX,
) {
  const transport: Pick<OutboundTransport, "send"> = { send: async () => answer };
  const channel = { baseUrl: "http://upstream.example" } as Channel;
  const member = new PoolChannel({ channel, key: "sk-mock-1" }, Date.now);
  return attemptUpstream(transport as OutboundTransport, member, {
    endpoint: ENDPOINTS.chat,
    method: "POST",
    subpath: "",
    body: "{}",
    isStream: false,
    passedHeaders: {},
    whenGivenUp(leave) {
      client.signal.addEventListener("abort", leave);
      return () => client.signal.removeEventListener("abort", leave);
    },
    budget,
    bounds: { ttftMs: BOUND_MS, totalMs: BOUND_MS, idleMs: BOUND_MS, responseBytesMax, eventBytesMax: 1_000_000 },
  });
}

describe("the share of a whole answer in the byte budget", () => {
  test("is its reader's to give back", async () => {
    const budget = new ByteBudget(1_000_000);
    const result = await attempt(() => undefined, budget);
    if (result.kind !== "answer") throw new Error(`no answer but ${result.kind}`);
    expect(budget.usedBytes).toBe(BYTES.length);
    result.release();
    expect(budget.usedBytes).toBe(0);
  });

  test("is given back when the client leaves in the turn in which the answer is complete", async () => {
    const budget = new ByteBudget(1_000_000);
    expect((await attempt((client) => client.abort(), budget)).kind).toBe("client_gone");
    expect(budget.usedBytes).toBe(0);
  });

  test("grows with what has come: two hundred answers that have just begun leave room", async () => {
    const budget = new ByteBudget(48 * MiB);
    const begun = Array.from({ length: 200 }, () => attemptInChunks(budget));
    for (const { chunks } of begun) await chunks.write(BYTES.subarray(0, 10));
    await Bun.sleep(0);
    expect(budget.usedBytes).toBeGreaterThan(0);
    expect(budget.usedBytes).toBeLessThan(4 * MiB);
    for (const { chunks, result } of begun) {
      await chunks.abort();
      await result;
    }
    expect(budget.usedBytes).toBe(0);
  });

  test("is never more than the largest answer takes, however small the budget", async () => {
    for (const bytesMax of [128 * KiB, BYTES.length]) {
      const budget = new ByteBudget(bytesMax);
      const { chunks, result } = attemptInChunks(budget, bytesMax);
      const written = chunks.write(BYTES).then(() => chunks.close());
      const answer = await result;
      await written;
      if (answer.kind !== "answer") throw new Error(`no answer but ${answer.kind}`);
      expect(answer.bytes).toEqual(BYTES);
      answer.release();
      expect(budget.usedBytes).toBe(0);
    }
  });
});

test("what gives a stream up before its first event is taken away once, when that came", async () => {
  const event = new TextEncoder().encode('data: {"choices":[]}\n\n');
  const answer = {
    status: 200,
    headers: new Headers({ "Content-Type": "text/event-stream" }),
    whole: null,
    body: new ReadableStream<Uint8Array>({ start: (controller) => controller.enqueue(event) }),
  } satisfies OutboundAnswer;
  const transport: Pick<OutboundTransport, "send"> = { send: async () => answer };
  const channel = { baseUrl: "http://upstream.example" } as Channel;
  const member = new PoolChannel({ channel, key: "sk-mock-1" }, Date.now);
  let removals = 0;
  const result = await attemptUpstream(transport as OutboundTransport, member, {
    endpoint: ENDPOINTS.chat,
    method: "POST",
    subpath: "",
    body: "{}",
    isStream: true,
    passedHeaders: {},
    whenGivenUp: () => () => {
      removals++;
    },
    budget: new ByteBudget(1_000_000),
    bounds: {
      ttftMs: BOUND_MS,
      totalMs: BOUND_MS,
      idleMs: BOUND_MS,
      responseBytesMax: 1_000_000,
      eventBytesMax: 1_000_000,
    },
  });
  if (result.kind !== "stream") throw new Error(`no stream but ${result.kind}`);
  expect(removals).toBe(1);
  result.end();
  result.source.cancel();
  expect(removals).toBe(1);
});

/** An attempt that is answered with these pieces of a stream. */
function attemptStream(pieces: readonly string[]) {
  const encoder = new TextEncoder();
  const left = pieces.values();
  let taken = 0;
  const body = new ReadableStream<Uint8Array>(
    {
      pull(controller) {
        const { done, value } = left.next();
        if (done) return controller.close();
        taken++;
        controller.enqueue(encoder.encode(value));
      },
    },
    { highWaterMark: 0 },
  );
  const answer = { status: 200, headers: new Headers(EVENTS_TYPE), body, whole: null } satisfies OutboundAnswer;
  const transport: Pick<OutboundTransport, "send"> = { send: async () => answer };
  const member = memberAt("http://upstream.example");
  const result = attemptUpstream(transport as OutboundTransport, member, askedBy({ isStream: true }));
  return { result, taken: () => taken };
}

describe("what says nothing before the first event of a stream", () => {
  const comment = (bytes: number) => `: ${"x".repeat(bytes - 4)}\n\n`;
  const event = 'data: {"choices":[]}\n\n';

  test("is passed on as it came, up to 64 KiB of it", async () => {
    const comments = Array.from({ length: 64 }, () => comment(KiB));
    const result = await attemptStream([...comments, event]).result;
    if (result.kind !== "stream") throw new Error(`no stream but ${result.kind}`);
    result.end();
    expect(Buffer.concat(result.first).toString()).toBe(comments.join("") + event);
  });

  test("is not held beyond that, however much of it comes: the upstream is given up", async () => {
    const { result, taken } = attemptStream([...Array.from({ length: 1000 }, () => comment(KiB)), event]);
    expect(await result).toMatchObject({
      kind: "failure",
      failure: { kind: "bad_response" },
      answer: { status: 502, error: { code: "bad_upstream_response" }, upstreamStatus: 200 },
    });
    expect(taken()).toBe(65);
  });
});

test("a stream that nobody knew of before its head is given as long for its first event as any other", async () => {
  const transport: Pick<OutboundTransport, "send"> = {
    send: async ({ signal }) => ({
      status: 200,
      headers: new Headers({ "Content-Type": "text/event-stream" }),
      whole: null,
      body: new ReadableStream<Uint8Array>({
        start: (controller) => signal.addEventListener("abort", () => controller.error(new Error("aborted"))),
      }),
    }),
  };
  const channel = { baseUrl: "http://upstream.example" } as Channel;
  const member = new PoolChannel({ channel, key: "sk-mock-1" }, Date.now);
  const result = await attemptUpstream(transport as OutboundTransport, member, {
    endpoint: ENDPOINTS.responses,
    method: "GET",
    subpath: "/resp_1",
    body: null,
    isStream: null,
    passedHeaders: {},
    whenGivenUp: () => () => undefined,
    budget: new ByteBudget(1_000_000),
    bounds: {
      ttftMs: BOUND_MS / 10,
      totalMs: BOUND_MS * 60,
      idleMs: BOUND_MS,
      responseBytesMax: 1_000_000,
      eventBytesMax: 1_000_000,
    },
  });
  expect(result).toMatchObject({ kind: "failure", failure: { kind: "timeout" } });
});

test("a stream has the time of the whole request from its beginning on, not from its first event", async () => {
  const [firstEventMs, totalMs] = [1_800, 2_000];
  const aborted = Promise.withResolvers<void>();
  const event = new TextEncoder().encode('data: {"choices":[]}\n\n');
  const transport: Pick<OutboundTransport, "send"> = {
    async send({ signal }) {
      signal.addEventListener("abort", () => aborted.resolve());
      await Bun.sleep(firstEventMs);
      const body = new ReadableStream<Uint8Array>({ start: (controller) => controller.enqueue(event) });
      return { status: 200, headers: new Headers(EVENTS_TYPE), body, whole: null };
    },
  };
  const startedMs = performance.now();
  const result = await attemptUpstream(transport as OutboundTransport, memberAt("http://upstream.example"), {
    ...askedBy({ isStream: true }),
    bounds: { ...BOUNDS, ttftMs: totalMs, totalMs },
  });
  expect(result.kind).toBe("stream");
  await aborted.promise;
  expect(performance.now() - startedMs).toBeLessThan(firstEventMs + totalMs - 50);
});

test("a refusal whose text does not end is read for five seconds, and what came of it is told", async () => {
  jest.useFakeTimers();
  try {
    const head = Promise.withResolvers<AbortSignal>();
    const transport: Pick<OutboundTransport, "send"> = {
      async send({ signal }) {
        const body = new ReadableStream<Uint8Array>({
          start(controller) {
            controller.enqueue(new TextEncoder().encode("It did not work."));
            signal.addEventListener("abort", () => controller.error(new Error("aborted")));
          },
        });
        head.resolve(signal);
        return { status: 500, headers: new Headers(JSON_TYPE), body, whole: null };
      },
    };
    const result = attemptUpstream(transport as OutboundTransport, memberAt("http://upstream.example"), askedBy());
    const signal = await head.promise;
    for (let turn = 0; turn < 10; turn++) await Promise.resolve();
    jest.advanceTimersByTime(4_999);
    expect(signal.aborted).toBe(false);
    jest.advanceTimersByTime(1);
    expect(signal.aborted).toBe(true);
    const answer = { error: { message: "It did not work." } };
    expect(await result).toMatchObject({ kind: "failure", failure: { kind: "status", status: 500 }, answer });
  } finally {
    jest.useRealTimers();
  }
});

describe("the connection of an answer that is of no use, and does not end,", () => {
  let upstream: FaultUpstream;
  let transport: OutboundTransport;
  /** Kept: an answer that nobody has any more is closed by the garbage collector. */
  const answers: OutboundAnswer[] = [];
  const keeping = {
    async send(asked: OutboundRequest) {
      const answer = await transport.send(asked);
      answers.push(answer);
      return answer;
    },
  } as OutboundTransport;
  beforeAll(async () => {
    upstream = await FaultUpstream.start();
    const log = openLog({ mode: "test", logLevel: "error" });
    const rules = new AddressRules(new Subnets(["127.0.0.0/8"]), true);
    transport = new OutboundTransport({ what: "upstreams", rules, connectMs: BOUND_MS, log, env: {} });
  });
  afterAll(async () => {
    await transport[Symbol.asyncDispose]();
    await upstream[Symbol.asyncDispose]();
  });

  test.each<[string, Plan, Partial<AttemptRequest>]>([
    ["a refusal", endless(500, JSON_TYPE), {}],
    ["a redirect", endless(302, { ...JSON_TYPE, Location: "/" }), {}],
    ["one of another type than a stream", endless(200, JSON_TYPE), { isStream: true }],
    ["one that becomes too large", endless(200, JSON_TYPE), {}],
    ["one that says how much too large it is", promising(RESPONSE_BYTES_MAX + 1), {}],
    ["one that becomes larger than what is left of the budget", endless(200, JSON_TYPE), { budget: new ByteBudget(9) }],
    ["one that says it is larger than that", promising(10), { budget: new ByteBudget(9) }],
    ["a stream that begins with an error", beginWithError, { isStream: true }],
    ["a stream of comments", commentForEver, { isStream: true }],
  ])("is closed: %s", async (_, plan, fields) => {
    const index = upstream.requests.length;
    upstream.next(plan);
    const result = await attemptUpstream(keeping, memberAt(upstream.url), askedBy(fields)).catch(({ code }) => code);
    if (fields.budget === undefined) expect(result.kind).toBe("failure");
    else expect(result).toBe("overloaded");
    const request = await upstream.request(index);
    await request.closed;
    expect(request.wasGivenUp).toBe(true);
  });
});
