// What a request asks of a model: read once, checked, and written anew for an upstream, so that both read the same.

import { AppError } from "../shared/errors.ts";
import { endOfString, isObject, requireShallowText, topLevelMembers } from "../shared/json-text.ts";
import { ANSWER_LIMITS, DEFAULT_MODERATION_MODEL, type Endpoint } from "./relay-endpoints.ts";
import { RelayError } from "./relay-errors.ts";

export interface RelayRequest {
  /**
   * As the client sent it; of a member that was sent twice, the last one. Emptied when no upstream is asked any more:
   * the account of a stream lives for as long as its stream.
   */
  body: Readonly<Record<string, unknown>>;
  readonly model: string;
  /** `model` and then its fallbacks, each once. */
  readonly names: readonly string[];
  readonly isStream: boolean;
  /** Whether the client asked for the usage at the end of its stream. */
  readonly wantsUsage: boolean;
  /** Null when the client leaves it to the upstream; the largest when it named several that the endpoint knows. */
  readonly maxTokens: number | null;
  /** How many answers are made: of several prompts, and of more than are given out, all of them. */
  readonly choices: number;
  readonly previousResponseId: string | null;
  /** Whether the upstream may keep the answer for later requests. */
  readonly isStored: boolean;
  /** Whether it is to be made in the background: it is finished, and kept, whoever listens. */
  readonly isBackground: boolean;
}

const NAMES_MAX = 5;
/** In UTF-16 code units, like all lengths here. */
const MODEL_NAME_LENGTH_MAX = 256;
const RESPONSE_ID_LENGTH_MAX = 512;
const CHOICES_MAX = 128;
/** That a request may allow its answer. */
const ASKED_TOKENS_MAX = 1_000_000;

/** They would split headers and log lines. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for.
const CONTROL_CHARACTER = /[\x00-\x1f\x7f-\x9f]/;

type Body = Record<string, unknown>;

/**
 * The text of a body, not yet known to be JSON.
 * @throws RelayError invalid_json when it is not strict UTF-8, or nested too deep for a parser
 */
export function decodeRelayBody(bytes: Uint8Array): string {
  try {
    return requireShallowText(bytes);
  } catch (error) {
    if (!(error instanceof AppError)) throw error;
    throw new RelayError("invalid_json", error.message, { cause: error });
  }
}

/**
 * @param text from `decodeRelayBody`
 * @throws RelayError invalid_json, missing_required_parameter, invalid_value
 */
export function parseRelayRequest(endpoint: Endpoint, text: string): RelayRequest {
  const body = parseBody(text);
  const model = modelOf(endpoint, body);
  const names = isGiven(body.models) ? [...new Set([model, ...fallbacksOf(body.models)])] : [model];
  if (names.length > NAMES_MAX) throw invalid("models", `names more than ${NAMES_MAX} models together with 'model'`);
  requireInput(endpoint, body);
  const isStream = endpoint.mayStream && optionalBoolean(body, "stream") === true;
  const isResponses = endpoint.name === "responses";
  return {
    body,
    model,
    names,
    isStream,
    wantsUsage: isUsageAsked(endpoint, body) && isStream,
    maxTokens: maxTokensOf(endpoint, body),
    choices: choicesOf(endpoint, body),
    previousResponseId: isResponses ? previousResponseOf(body) : null,
    isStored: isResponses && optionalBoolean(body, "store") !== false,
    isBackground: isResponses && optionalBoolean(body, "background") === true,
  };
}

/**
 * The body for an upstream: of what the client sent only `model`, `models` and `stream_options` change.
 * @param takesOptions whether the upstream knows `stream_options`: then the usage at the end of a stream is asked for,
 *   otherwise they are left out
 */
export function forwardedBody(
  request: RelayRequest,
  endpoint: Endpoint,
  upstreamModel: string,
  takesOptions: boolean,
): string {
  const { body, isStream } = request;
  const forwarded: Body = { ...body };
  // A moderation may come without one, and its upstream then chooses.
  if (isGiven(body.model)) forwarded.model = upstreamModel;
  // Not written, at no cost: deleting it would make the object slow to write.
  forwarded.models = undefined;
  if (endpoint.hasStreamOptions && !takesOptions) forwarded.stream_options = undefined;
  else if (endpoint.hasStreamOptions && isStream) {
    forwarded.stream_options = { ...(body.stream_options as Body | null | undefined), include_usage: true };
  }
  return JSON.stringify(forwarded);
}

function parseBody(text: string): Body {
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch (error) {
    throw new RelayError("invalid_json", "the body is not one valid JSON text", { cause: error });
  }
  if (!isObject(body)) throw new RelayError("invalid_json", "the body must be a JSON object");
  const inexactAt = findInexactNumber(text);
  if (inexactAt >= 0) {
    const member = topLevelMembers(text)?.find(({ end }) => inexactAt < end);
    const message = "the body holds a number that cannot be kept exactly (beyond 2^53)";
    const isNamed = member !== undefined && member.name.length <= MODEL_NAME_LENGTH_MAX;
    throw new RelayError("invalid_value", message, isNamed ? { param: member.name } : {});
  }
  return body;
}

/** @throws RelayError missing_required_parameter, invalid_value */
function modelOf(endpoint: Endpoint, body: Body): string {
  if (isGiven(body.model)) return requireModelName(body.model, "model");
  // Fallbacks of a model that nobody named: the body could not say which one is meant.
  if (endpoint.name !== "moderations" || isGiven(body.models)) throw missing("model");
  return DEFAULT_MODERATION_MODEL;
}

function fallbacksOf(models: unknown): string[] {
  if (!Array.isArray(models)) throw invalid("models", "must be an array of model names");
  return models.map((name) => requireModelName(name, "models"));
}

function requireModelName(name: unknown, param: string): string {
  const isName =
    typeof name === "string" &&
    name !== "" &&
    name.length <= MODEL_NAME_LENGTH_MAX &&
    name.isWellFormed() &&
    !CONTROL_CHARACTER.test(name);
  if (!isName) throw invalid(param, `must hold names of 1 to ${MODEL_NAME_LENGTH_MAX} printable characters`);
  return name;
}

function requireInput({ input }: Endpoint, body: Body): void {
  const value = body[input];
  if (!isGiven(value)) throw missing(input);
  if (input !== "messages") {
    // What else stands in it is the upstream's to judge: some take objects with text and images.
    if (typeof value !== "string" && typeof value !== "object") throw invalid(input, "must be a string or an array");
  } else if (!Array.isArray(value) || value.length === 0) throw invalid(input, "must be a non-empty array");
}

/** Bounds of other endpoints must be possible ones, too, but an upstream does not heed them. */
function maxTokensOf({ answerLimits }: Endpoint, body: Body): number | null {
  let max: number | null = null;
  for (const name of ANSWER_LIMITS) {
    const limit = optionalInteger(body, name, ASKED_TOKENS_MAX);
    if (limit !== null && answerLimits.includes(name)) max = Math.max(max ?? 0, limit);
  }
  return max;
}

function choicesOf({ name }: Endpoint, body: Body): number {
  const asked = optionalInteger(body, "n", CHOICES_MAX) ?? 1;
  if (name !== "completions") return asked;
  const made = Math.max(asked, optionalInteger(body, "best_of", CHOICES_MAX) ?? 1);
  return made * promptsIn(body.prompt);
}

/** Numbers in a list are the tokens of one prompt. */
function promptsIn(prompt: unknown): number {
  if (!Array.isArray(prompt)) return 1;
  let prompts = 0;
  for (const item of prompt) if (typeof item !== "number") prompts++;
  return Math.max(1, prompts);
}

/** Whether `stream_options` asks for the usage. Elsewhere such a member means nothing to us. */
function isUsageAsked({ hasStreamOptions }: Endpoint, body: Body): boolean {
  if (!hasStreamOptions || !isGiven(body.stream_options)) return false;
  if (!isObject(body.stream_options)) throw invalid("stream_options", "must be an object");
  const isAsked = body.stream_options.include_usage;
  if (isGiven(isAsked) && typeof isAsked !== "boolean") throw invalid("stream_options.include_usage", MUST_BE_BOOLEAN);
  return isAsked === true;
}

function previousResponseOf(body: Body): string | null {
  const id = body.previous_response_id;
  if (!isGiven(id)) return null;
  if (typeof id !== "string" || id === "" || id.length > RESPONSE_ID_LENGTH_MAX) {
    throw invalid("previous_response_id", `must be a string of 1 to ${RESPONSE_ID_LENGTH_MAX} characters`);
  }
  return id;
}

const MUST_BE_BOOLEAN = "must be true or false";

function optionalBoolean(body: Body, name: string): boolean | null {
  const value = body[name];
  if (!isGiven(value)) return null;
  if (typeof value !== "boolean") throw invalid(name, MUST_BE_BOOLEAN);
  return value;
}

function optionalInteger(body: Body, name: string, max: number): number | null {
  const value = body[name];
  if (!isGiven(value)) return null;
  if (typeof value !== "number" || !Number.isInteger(value) || value < 1 || value > max) {
    throw invalid(name, `must be an integer from 1 to ${max}`);
  }
  return value;
}

/** Null is how many clients leave a member out. */
function isGiven(value: unknown): boolean {
  return value !== undefined && value !== null;
}

function missing(param: string): RelayError {
  return new RelayError("missing_required_parameter", `'${param}' is missing`, { param });
}

function invalid(param: string, problem: string): RelayError {
  return new RelayError("invalid_value", `'${param}' ${problem}`, { param });
}

const QUOTE = 0x22;
const DOT = 0x2e;
const ZERO = 0x30;
const NINE = 0x39;
/** So many digits before the point are always below 2^53. */
const SAFE_DIGITS = 15;
const LARGEST_DIGITS = "9007199254740992";

/** Where in a valid JSON text the first number beyond ±2^53 begins, or -1. In one pass. */
function findInexactNumber(text: string): number {
  for (let at = 0; at < text.length; ) {
    const code = text.charCodeAt(at);
    if (code === QUOTE) at = endOfString(text, at);
    else if (code < ZERO || code > NINE) at++;
    else {
      const digitsEnd = endOfDigits(text, at);
      const end = endOfNumber(text, digitsEnd);
      const isPlain = end === digitsEnd;
      if (digitsEnd - at > SAFE_DIGITS || !(isPlain || isFraction(text, digitsEnd, end))) {
        if (isInexact(text.slice(at, end), isPlain)) return at;
      }
      at = end;
    }
  }
  return -1;
}

function isInexact(token: string, isPlain: boolean): boolean {
  // As text: the parser has already rounded the next integer to 2^53 itself.
  if (isPlain && token.length === LARGEST_DIGITS.length) return token > LARGEST_DIGITS;
  return Number(token) >= 2 ** 53;
}

function endOfDigits(text: string, from: number): number {
  let at = from;
  while (isDigit(text.charCodeAt(at))) at++;
  return at;
}

/** Behind the fraction and the exponent, given where the digits before them end. */
function endOfNumber(text: string, digitsEnd: number): number {
  let at = digitsEnd;
  while (at < text.length && (isDigit(text.charCodeAt(at)) || ".eE+-".includes(text[at]!))) at++;
  return at;
}

/** Whether all that stands there is a point and digits: no exponent. */
function isFraction(text: string, from: number, end: number): boolean {
  return text.charCodeAt(from) === DOT && endOfDigits(text, from + 1) === end;
}

function isDigit(code: number): boolean {
  return code >= ZERO && code <= NINE;
}
