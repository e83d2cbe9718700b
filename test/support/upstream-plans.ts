// What a FaultUpstream can be told to do: good answers, and every bad one that providers are known for.

import { gzipSync } from "node:zlib";
import { MOCK_MODELS, mockAnswer, mockModel } from "../../src/relay/mock-answers.ts";
import type { Exchange, Plan } from "./fault-upstream.ts";

const JSON_TYPE = { "Content-Type": "application/json" };

/** As a provider in good health does: a whole answer, a stream, the list of its models. */
export const answerNormally: Plan = async (exchange) => {
  const { method, json } = exchange.request;
  const path = endpointPath(exchange);
  if (method === "GET" && path === "/models") {
    return exchange.answer(200, JSON_TYPE, JSON.stringify({ object: "list", data: MOCK_MODELS.map(mockModel) }));
  }
  const answer = mockAnswer(path, json);
  if (answer === null) return refuse(404, { code: "unknown_url", message: "There is nothing here." })(exchange);
  if (answer.kind === "json") return exchange.answer(200, JSON_TYPE, JSON.stringify(answer.body));
  return sendEvents(exchange, normalEvents(exchange), {});
};

/** The events of a good stream for this request, as they are on the wire, `[DONE]` among them. */
export function normalEvents(exchange: Exchange): string[] {
  const answer = mockAnswer(endpointPath(exchange), { ...exchange.request.json, stream: true });
  if (answer?.kind !== "events") throw new Error(`${exchange.request.path} has no stream`);
  return answer.events.map(({ event, data }) => `${event === null ? "" : `event: ${event}\n`}data: ${data}\n\n`);
}

function endpointPath(exchange: Exchange): string {
  return exchange.request.path.replace(/\?.*$/, "").replace(/^.*?\/v\d[^/]*(\/openai)?(?=\/)/, "");
}

export function answerJson(value: unknown, status = 200, headers: Readonly<Record<string, string>> = {}): Plan {
  return (exchange) => exchange.answer(status, { ...JSON_TYPE, ...headers }, JSON.stringify(value));
}

/** The good answer with something else in it, such as another usage. */
export function answerWith(change: Readonly<Record<string, unknown>>): Plan {
  return (exchange) => {
    const answer = mockAnswer(endpointPath(exchange), { ...exchange.request.json, stream: false });
    if (answer?.kind !== "json") throw new Error(`${exchange.request.path} has no answer`);
    return exchange.answer(200, JSON_TYPE, JSON.stringify({ ...answer.body, ...change }));
  };
}

export function answerText(text: string, contentType: string, status = 200): Plan {
  return (exchange) => exchange.answer(status, { "Content-Type": contentType }, text);
}

/** An error in the shape of OpenAI. */
export function refuse(
  status: number,
  error: {
    readonly code?: string | number | null;
    readonly type?: string;
    readonly message?: string;
    readonly param?: string;
  } = {},
  headers: Readonly<Record<string, string>> = {},
): Plan {
  const { code = null, type = "invalid_request_error", message = "It did not work.", param = null } = error;
  return answerJson({ error: { message, type, param, code } }, status, headers);
}

export const wrongKey: Plan = (exchange) =>
  refuse(401, {
    code: "invalid_api_key",
    message: `Incorrect API key provided: ${exchange.request.key}. You can find yours on your account page.`,
  })(exchange);

/** `headers` say how long to wait: retry-after in seconds or as a date, retry-after-ms, x-ms-retry-after-ms. */
export function rateLimit(headers: Readonly<Record<string, string>> = {}, message = "Rate limit reached."): Plan {
  return refuse(429, { code: "rate_limit_exceeded", type: "requests", message }, headers);
}

export function redirectTo(location: string, status = 307): Plan {
  return (exchange) => exchange.answer(status, { Location: location }, "");
}

/** Never answers; over when the other side gives up. */
export const stayStill: Plan = async (exchange) => {
  await exchange.gone;
};

/** The connection ends without a byte of an answer. */
export const resetAtOnce: Plan = (exchange) => exchange.reset();

export function afterMs(ms: number, plan: Plan): Plan {
  return async (exchange) => {
    await exchange.pause(ms);
    if (!exchange.isGone) await plan(exchange);
  };
}

/** Waits for something that the test decides. */
export function afterwards(condition: Promise<unknown>, plan: Plan): Plan {
  return async (exchange) => {
    await Promise.race([condition, exchange.gone]);
    if (!exchange.isGone) await plan(exchange);
  };
}

/** Bytes as they are; the connection stays open. */
export function sendRaw(...pieces: readonly (string | Uint8Array)[]): Plan {
  return async (exchange) => {
    for (const piece of pieces) await exchange.write(piece);
  };
}

/** A head that promises more than comes, then the end of the connection. */
export function cutAnswer(text: string): Plan {
  return async (exchange) => {
    await exchange.head(200, { ...JSON_TYPE, "Content-Length": String(Buffer.byteLength(text) + 100) });
    await exchange.write(text);
    exchange.close();
  };
}

/** The good answer, compressed although nobody asked for it. */
export const answerGzipped: Plan = (exchange) => {
  const answer = mockAnswer(endpointPath(exchange), { ...exchange.request.json, stream: false });
  if (answer?.kind !== "json") throw new Error(`${exchange.request.path} has no answer`);
  const body = gzipSync(JSON.stringify(answer.body));
  return exchange.answer(200, { ...JSON_TYPE, "Content-Encoding": "gzip" }, body);
};

export interface StreamShape {
  /** What is sent, each as it is on the wire with its blank line; default: the good stream of the request. */
  readonly events?: readonly string[];
  /** Before each event but the first. */
  readonly gapMs?: number;
  /** Only so many events are sent, or only so many bytes of them all; then `end` comes. */
  readonly cutAfterEvents?: number;
  readonly cutAfterBytes?: number;
  /**
   * How it ends: whole = as it should; clean = the body ends well, whatever is missing; close = the connection ends
   * without the end of the body; reset; still = nothing more comes until the other side gives up.
   */
  readonly end?: "whole" | "clean" | "close" | "reset" | "still";
  /** All bytes of the body are sent in pieces of this length, each on its own. */
  readonly pieceBytes?: number;
  readonly headers?: Readonly<Record<string, string>>;
}

export function stream(shape: StreamShape = {}): Plan {
  return (exchange) => sendEvents(exchange, shape.events ?? normalEvents(exchange), shape);
}

async function sendEvents(exchange: Exchange, events: readonly string[], shape: StreamShape): Promise<void> {
  await exchange.startEvents(shape.headers);
  const sent = events.slice(0, shape.cutAfterEvents ?? events.length);
  if (shape.pieceBytes !== undefined || shape.cutAfterBytes !== undefined) {
    const bytes = Buffer.from(sent.join("")).subarray(0, shape.cutAfterBytes);
    const step = shape.pieceBytes ?? Math.max(1, bytes.length);
    for (let at = 0; at < bytes.length && !exchange.isGone; at += step) {
      await exchange.chunk(bytes.subarray(at, at + step));
      // Lets the piece leave, and be read, on its own.
      await exchange.pause(1);
    }
  } else {
    for (const [index, event] of sent.entries()) {
      if (index > 0 && shape.gapMs !== undefined) await exchange.pause(shape.gapMs);
      if (exchange.isGone) return;
      await exchange.chunk(event);
    }
  }
  await endStream(exchange, shape.end ?? "whole");
}

/** By then the other side has read what was sent, however busy the machine is. */
const UNREAD_MS = 1_000;

async function endStream(exchange: Exchange, end: NonNullable<StreamShape["end"]>): Promise<void> {
  if (end === "whole" || end === "clean") return exchange.endChunks();
  if (end === "still") {
    await exchange.gone;
    return;
  }
  // Both would take along what the other side has not read yet.
  await exchange.pause(UNREAD_MS);
  if (end === "close") exchange.close();
  else exchange.reset();
}

/** One event of a stream; `value` as JSON unless it is text. */
export function event(value: unknown, name?: string): string {
  const data = typeof value === "string" ? value : JSON.stringify(value);
  return `${name === undefined ? "" : `event: ${name}\n`}data: ${data}\n\n`;
}

/** A chunk of a chat. */
export function chatChunk(content: string, finish: string | null = null, more: Readonly<Record<string, unknown>> = {}) {
  return event({
    id: "chatcmpl-1",
    object: "chat.completion.chunk",
    created: 1,
    model: "any",
    choices: [{ index: 0, delta: content === "" ? {} : { content }, finish_reason: finish }],
    ...more,
  });
}

export const DONE = event("[DONE]");

export const errorFrame = event({
  error: { message: "The server had an error.", type: "server_error", param: null, code: "server_error" },
});
