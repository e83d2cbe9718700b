// What one request to one channel holds: the share of a whole answer in the byte budget, until somebody gives it back.

import { describe, expect, test } from "bun:test";
import { ByteBudget } from "../../src/http/byte-budget.ts";
import type { OutboundAnswer, OutboundTransport } from "../../src/http/outbound-transport.ts";
import { PoolChannel } from "../../src/relay/channel-pool.ts";
import { ENDPOINTS } from "../../src/relay/relay-endpoints.ts";
import type { Channel } from "../../src/relay/relay-tables.ts";
import { attemptUpstream } from "../../src/relay/upstream-attempt.ts";
import { KiB, MiB } from "../../src/shared/bounds.ts";

const BYTES = new TextEncoder().encode(JSON.stringify({ choices: [], pad: "x".repeat(100_000) }));
const BOUND_MS = 1_000;
const RESPONSE_BYTES_MAX = 1_000_000;

const JSON_TYPE = { "Content-Type": "application/json" };

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
    ...{ endpoint: ENDPOINTS.chat, method: "POST", subpath: "", body: "{}", isStream: false, passedHeaders: {} },
    whenGivenUp(leave) {
      client.signal.addEventListener("abort", leave);
      return () => client.signal.removeEventListener("abort", leave);
    },
    budget,
    bounds: {
      ...{ ttftMs: BOUND_MS, totalMs: BOUND_MS, idleMs: BOUND_MS },
      ...{ responseBytesMax, eventBytesMax: 1_000_000 },
    },
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
    ...{ status: 200, headers: new Headers({ "Content-Type": "text/event-stream" }), whole: null },
    body: new ReadableStream<Uint8Array>({ start: (controller) => controller.enqueue(event) }),
  } satisfies OutboundAnswer;
  const transport: Pick<OutboundTransport, "send"> = { send: async () => answer };
  const channel = { baseUrl: "http://upstream.example" } as Channel;
  const member = new PoolChannel({ channel, key: "sk-mock-1" }, Date.now);
  let removals = 0;
  const result = await attemptUpstream(transport as OutboundTransport, member, {
    ...{ endpoint: ENDPOINTS.chat, method: "POST", subpath: "", body: "{}", isStream: true, passedHeaders: {} },
    whenGivenUp: () => () => {
      removals++;
    },
    budget: new ByteBudget(1_000_000),
    bounds: {
      ...{ ttftMs: BOUND_MS, totalMs: BOUND_MS, idleMs: BOUND_MS },
      ...{ responseBytesMax: 1_000_000, eventBytesMax: 1_000_000 },
    },
  });
  if (result.kind !== "stream") throw new Error(`no stream but ${result.kind}`);
  expect(removals).toBe(1);
  result.end();
  result.source.cancel();
  expect(removals).toBe(1);
});

test("a stream that nobody knew of before its head is given as long for its first event as any other", async () => {
  const transport: Pick<OutboundTransport, "send"> = {
    send: async ({ signal }) => ({
      ...{ status: 200, headers: new Headers({ "Content-Type": "text/event-stream" }), whole: null },
      body: new ReadableStream<Uint8Array>({
        start: (controller) => signal.addEventListener("abort", () => controller.error(new Error("aborted"))),
      }),
    }),
  };
  const channel = { baseUrl: "http://upstream.example" } as Channel;
  const member = new PoolChannel({ channel, key: "sk-mock-1" }, Date.now);
  const result = await attemptUpstream(transport as OutboundTransport, member, {
    ...{ endpoint: ENDPOINTS.responses, method: "GET", subpath: "/resp_1", body: null, isStream: null },
    ...{ passedHeaders: {}, whenGivenUp: () => () => undefined, budget: new ByteBudget(1_000_000) },
    bounds: {
      ...{ ttftMs: BOUND_MS / 10, totalMs: BOUND_MS * 60, idleMs: BOUND_MS },
      ...{ responseBytesMax: 1_000_000, eventBytesMax: 1_000_000 },
    },
  });
  expect(result).toMatchObject({ kind: "failure", failure: { kind: "timeout" } });
});
