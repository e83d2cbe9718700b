// How many tokens of a model a request costs: guessed before it is sent, read from the answer afterwards.

import { isObject } from "../shared/json-text.ts";
import type { Endpoint } from "./relay-endpoints.ts";
import type { RelayRequest } from "./relay-request.ts";

export interface TokenUsage {
  readonly promptTokens: number;
  readonly completionTokens: number;
  /** The part of the prompt that the upstream had kept; it costs the same here. */
  readonly cachedTokens: number;
}

/** Of one figure of an upstream, and of a reservation. */
export const USED_TOKENS_MAX = 1_000_000_000;

const BYTES_PER_TOKEN = 3;
const TOKENS_PER_MEDIA_PART = 1000;
/** What an answer may take when the request does not bound it. */
export const ANSWER_TOKENS = 1024;

/** Objects with one of these types hold something else than text. */
const MEDIA_TYPES: ReadonlySet<unknown> = new Set([
  "image",
  "image_url",
  "input_image",
  "computer_screenshot",
  "image_generation_call",
  "audio",
  "audio_url",
  "input_audio",
  "video",
  "video_url",
  "input_video",
  "file",
  "input_file",
  "document",
]);
/** Members that say what a part is, not what it says; a long one is no label. */
const LABELS: ReadonlySet<string> = new Set(["type", "role", "id", "call_id", "tool_call_id", "object", "detail"]);
const LABEL_LENGTH_MAX = 64;

/** From the size of text in UTF-8. */
export function estimateTokens(textBytes: number): number {
  return Math.ceil(textBytes / BYTES_PER_TOKEN);
}

/** What the prompt may cost, from the size of its text and the number of its images, files and the like. */
export function estimatePrompt(endpoint: Endpoint, body: Readonly<Record<string, unknown>>): number {
  if (endpoint.cost === "none") return 0;
  const tally = { textBytes: 0, mediaParts: 0 };
  tallyText(body[endpoint.input], tally);
  tallyText(body.instructions, tally);
  // Of a tool the model reads all, names of parameters too. `functions` is what they were called before.
  for (const tools of [body.tools, body.functions]) {
    if (typeof tools === "object" && tools !== null) tallyText(JSON.stringify(tools), tally);
  }
  return estimateTokens(tally.textBytes) + tally.mediaParts * TOKENS_PER_MEDIA_PART;
}

/**
 * The most that a request is expected to cost, 0..1e9: what its token must be able to pay before it is sent.
 * @param prompt what `estimatePrompt` says
 */
export function reservationFor(
  endpoint: Endpoint,
  { maxTokens, choices }: Pick<RelayRequest, "maxTokens" | "choices">,
  prompt: number,
): number {
  const answer = endpoint.cost === "generation" ? (maxTokens ?? ANSWER_TOKENS) * choices : 0;
  return Math.min(prompt + answer, USED_TOKENS_MAX);
}

/**
 * The figures of a `usage` object of any endpoint. Null when there is none, or one of its figures is no integer of
 * 0..1e9: then the usage has to be estimated. The cached part, which costs nothing extra, is 0 when it is unreadable.
 * @param cost of the endpoint: where only what goes in costs, a total that stands alone is the prompt
 */
export function usageOf(value: unknown, cost: Endpoint["cost"] = "generation"): TokenUsage | null {
  if (!isObject(value)) return null;
  const all = cost === "input" ? value.total_tokens : null;
  const promptTokens = figureOf(value.prompt_tokens ?? value.input_tokens ?? all);
  if (promptTokens === null) return null;
  const completionTokens = completionOf(value, promptTokens);
  if (completionTokens === null) return null;
  return { promptTokens, completionTokens, cachedTokens: Math.min(cachedOf(value), promptTokens) };
}

/** UTF-8 bytes of text in an answer, or in one event of a streamed one: for estimating what no usage was sent for. */
export function outputTextBytes(answer: unknown): number {
  if (!isObject(answer)) return 0;
  const tally = { textBytes: 0, mediaParts: 0 };
  if (typeof answer.delta === "string") tallyText(answer.delta, tally);
  tallyText(answer.output, tally);
  for (const choice of Array.isArray(answer.choices) ? answer.choices : []) {
    if (isObject(choice)) tallyText([choice.delta, choice.message, choice.text], tally);
  }
  return tally.textBytes;
}

interface Tally {
  textBytes: number;
  mediaParts: number;
}

/** No request is nested so deep; an upstream must not be able to exhaust the stack. */
const DEPTH_MAX = 600;

function tallyText(value: unknown, tally: Tally, depth = 0): void {
  if (depth > DEPTH_MAX) return;
  if (typeof value === "string") tally.textBytes += Buffer.byteLength(value);
  else if (Array.isArray(value)) {
    for (const item of value) {
      // A prompt may be given as numbers of tokens.
      if (typeof item === "number") tally.textBytes += BYTES_PER_TOKEN;
      else tallyText(item, tally, depth + 1);
    }
  } else if (isObject(value)) tallyMembers(value, tally, depth);
}

function tallyMembers(part: Record<string, unknown>, tally: Tally, depth: number): void {
  if (MEDIA_TYPES.has(part.type)) {
    tally.mediaParts++;
    // Such a type on something that does hold text must not make the text free.
    tallyText([part.text, part.content], tally, depth + 1);
    return;
  }
  for (const name of Object.keys(part)) {
    const value = part[name];
    const isLabel = typeof value === "string" && value.length <= LABEL_LENGTH_MAX && LABELS.has(name);
    if (!isLabel) tallyText(value, tally, depth + 1);
  }
}

/** Embeddings have a total and no completion. Elsewhere some count hidden reasoning in the total alone. */
function completionOf(usage: Record<string, unknown>, promptTokens: number): number | null {
  const total = figureOf(usage.total_tokens);
  const rest = total === null || total < promptTokens ? null : total - promptTokens;
  const given = usage.completion_tokens ?? usage.output_tokens;
  if (given === undefined || given === null) return rest;
  const completion = figureOf(given);
  return completion === null ? null : Math.max(completion, rest ?? 0);
}

function cachedOf(usage: Record<string, unknown>): number {
  const details = usage.prompt_tokens_details ?? usage.input_tokens_details;
  const cached = isObject(details) ? figureOf(details.cached_tokens) : null;
  return cached ?? figureOf(usage.prompt_cache_hit_tokens) ?? 0;
}

function figureOf(value: unknown): number | null {
  if (typeof value !== "number" || !Number.isInteger(value) || value < 0 || value > USED_TOKENS_MAX) return null;
  // Turns -0 into 0.
  return value + 0;
}
