// Streams that are collected for the cache: what they hold counts against the byte budget, and only while they last.

import { expect, test } from "bun:test";
import { ByteBudget } from "../../src/http/byte-budget.ts";
import { RequestScope } from "../../src/http/request-scope.ts";
import { AnswerCache } from "../../src/relay/answer-cache.ts";
import type { PoolChannel } from "../../src/relay/channel-pool.ts";
import { RelayAnswers } from "../../src/relay/relay-answers.ts";
import type { RelayCall } from "../../src/relay/relay-call.ts";
import { ENDPOINTS } from "../../src/relay/relay-endpoints.ts";
import type { RelayMetrics } from "../../src/relay/relay-metrics.ts";
import { parseRelayRequest } from "../../src/relay/relay-request.ts";
import { UpstreamEvents } from "../../src/relay/upstream-events.ts";
import { KiB, MiB } from "../../src/shared/bounds.ts";
import { eventually } from "../support/eventually.ts";

const LONG_MS = 10_000;
const STATE = { isDraining: false, hasFailed: false, trustedProxies: null };
const LINE = `data: ${JSON.stringify({ choices: [{ delta: { content: "x".repeat(100 * KiB) } }] })}\n\n`;
const LINES = 10;
const END = 'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n';
const nothing = () => undefined;

type Ending = "complete" | "broken" | "endless";

/** A relay that answers with a stream of LINES large events, of which it may keep up to 8 MiB. */
function open(budget: ByteBudget, ending: Ending = "complete") {
  const cache = new AnswerCache(() => 0, 64 * MiB);
  const metrics = { countAbort: nothing } as unknown as RelayMetrics;
  const answers = new RelayAnswers({ onClientAbort: "cancel", exposesChannel: false }, budget, cache, metrics);
  const pieces = Array.from({ length: LINES }, () => LINE);
  if (ending === "complete") pieces.push(END);
  const upstream = new ReadableStream<Uint8Array>(
    {
      pull(controller) {
        const piece = pieces.shift();
        if (piece !== undefined) controller.enqueue(new TextEncoder().encode(piece));
        else if (ending !== "endless") controller.close();
      },
    },
    { highWaterMark: 0 },
  );
  const client = new AbortController();
  const request = new Request("http://h/v1/chat/completions", { method: "POST", signal: client.signal });
  const text = JSON.stringify({ model: "m", stream: true, messages: [{ role: "user", content: "hi" }] });
  const call = {
    scope: new RequestScope(request, null, STATE),
    endpoint: ENDPOINTS.chat,
    blamesChannel: false,
    request: parseRelayRequest(ENDPOINTS.chat, text),
    holdBody: () => nothing,
    account: { attempts: 1, overheadMs: 0, channelId: null, model: "m", noteFirstEvent: nothing, close: nothing },
    keep: { key: "k", seconds: 60 },
  } as unknown as RelayCall;
  const source = new UpstreamEvents(upstream, MiB, LONG_MS, nothing);
  const begun = { kind: "stream", status: 200, headers: new Headers(), source, first: [], responseId: null } as const;
  const member = { key: "sk-1", breaker: { breakOff: nothing } } as unknown as PoolChannel;
  const reader = answers.stream(call, member, { ...begun, end: nothing, overdue: () => null }).body!.getReader();
  return { cache, answers, client, reader };
}

type Reader = ReturnType<typeof open>["reader"];

async function readLines(reader: Reader, bytes: number): Promise<void> {
  for (let read = 0; read < bytes; ) read += (await reader.read()).value!.length;
}

async function readAll(reader: Reader): Promise<void> {
  while (!(await reader.read()).done) {}
}

test("a stream that is collected for the cache has its share of the byte budget until it is complete", async () => {
  const budget = new ByteBudget(16 * MiB);
  const { cache, reader } = open(budget);
  await readLines(reader, 5 * LINE.length);
  expect(budget.usedBytes).toBeGreaterThanOrEqual(5 * LINE.length);
  await readAll(reader);
  expect([cache.find("k")?.chunks.length, budget.usedBytes]).toEqual([LINES + 2, 0]);
});

test("a stream for which the byte budget has no room reaches its client, and is not kept", async () => {
  const budget = new ByteBudget(16 * MiB);
  budget.tryReserve(8 * MiB - 3 * LINE.length);
  const before = budget.usedBytes;
  const { cache, reader } = open(budget);
  await readLines(reader, LINES * LINE.length);
  expect(budget.usedBytes).toBe(before);
  await readAll(reader);
  expect([cache.find("k"), budget.usedBytes]).toEqual([null, before]);
});

const ends: Readonly<Record<string, (rig: ReturnType<typeof open>) => unknown>> = {
  "is broken off by its upstream": ({ reader }) => readAll(reader),
  "is cancelled by its client": ({ reader }) => reader.cancel(),
  "loses its client": ({ client }) => client.abort(),
  "ends with the server": ({ answers }) => answers.interruptStreams(),
};

for (const [what, finish] of Object.entries(ends)) {
  test(`a collected stream that ${what} gives its share of the byte budget back`, async () => {
    const budget = new ByteBudget(16 * MiB);
    const rig = open(budget, what.includes("broken") ? "broken" : "endless");
    await readLines(rig.reader, 5 * LINE.length);
    expect(budget.usedBytes).toBeGreaterThanOrEqual(5 * LINE.length);
    await finish(rig);
    await eventually("the budget is free", LONG_MS, () => budget.usedBytes === 0);
    expect(rig.cache.find("k")).toBeNull();
  });
}
