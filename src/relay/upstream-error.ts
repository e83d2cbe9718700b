// Errors of upstreams in the one shape that clients know, without the keys that upstreams like to quote in them.

import { isObject, parseJson } from "../shared/json-text.ts";
import { type Unescaped, unescaped } from "./json-escapes.ts";
import type { ErrorObject } from "./relay-errors.ts";

interface UpstreamError {
  readonly error: ErrorObject;
  /** Of a `code` that is a whole number, written as one or as text: some providers number their errors. */
  readonly numericCode: number | null;
}

/** Lengths in UTF-16 code units. */
const PLAIN_TEXT_LENGTH_MAX = 500;
const MESSAGE_LENGTH_MAX = 4096;
const WORD_LENGTH_MAX = 256;
const DEFAULT_TYPE = "upstream_error";
const WHOLE_NUMBER = /^\d{1,9}$/;
/** Values of an upstream below this depth are dropped. */
const SCRUBBED_DEPTH_MAX = 64;

const SUCCESS_CODES: ReadonlySet<string> = new Set(["0", "200"]);

type Members = Record<string, unknown>;

/** What the upstream said, whatever form it chose. `contentType` is the header, or null. Still to be scrubbed. */
export function readUpstreamError(status: number, bodyText: string, contentType: string | null): UpstreamError {
  const text = bodyText.trim();
  if (text === "") return plainError(`the upstream answered ${status} without a body`);
  const parsed = parseJson(text);
  if (parsed !== undefined) {
    return errorOfValue(parsed) ?? plainError(sayingOf(parsed) ?? `the upstream answered ${status} without saying why`);
  }
  // A page is made for people, names hosts and may hold anything.
  if (text.startsWith("<") || contentType?.toLowerCase().includes("text/html")) {
    return plainError(`the upstream answered ${status} with a web page`);
  }
  return plainError(cut(text, PLAIN_TEXT_LENGTH_MAX));
}

/**
 * The error that a successful answer or an event of a stream turns out to be, or null: one with a member `error` that
 * is not empty, one that calls itself an error, or a code with a message in place of an answer. Still to be scrubbed.
 */
export function errorInSuccess(value: unknown): UpstreamError | null {
  if (!isObject(value)) return null;
  const isInPlaceOfAnswer = isText(value.message) && isGiven(value.code) && !hasAnswer(value);
  const isCalledSo = value.type === "error" || value.object === "error";
  const hasError = isText(value.error) || (isObject(value.error) && Object.keys(value.error).length > 0);
  if (!isCalledSo && !isInPlaceOfAnswer && !hasError) return null;
  return errorOfValue(value) ?? errorOf({});
}

/** Some say of every success that it is one, with a code and a message beside what was asked for. */
function hasAnswer({ code, choices, data, results, output }: Members): boolean {
  if (choices !== undefined) return true;
  const filled = [data, results, output].some((value) => Array.isArray(value) && value.length > 0);
  return filled && SUCCESS_CODES.has(String(code));
}

/** Null when nothing in the value says what is wrong. */
function errorOfValue(value: unknown): UpstreamError | null {
  if (isText(value)) return plainError(value);
  // Some wrap their only error in an array.
  if (Array.isArray(value)) return isObject(value[0]) ? errorOfValue(value[0]) : null;
  if (!isObject(value)) return null;
  if (isText(value.error)) return errorOf({ ...value, message: value.error });
  if (isObject(value.error)) return errorOf(value.error);
  if (isText(value.message) || isGiven(value.code)) return errorOf(value);
  return isText(value.detail) ? plainError(value.detail) : null;
}

/** Of a shape that nobody knows: as text, written anew so that no escape hides a key. */
function sayingOf(value: unknown): string | null {
  if (typeof value !== "object" || value === null || Object.keys(value).length === 0) return null;
  try {
    return cut(JSON.stringify(value), PLAIN_TEXT_LENGTH_MAX);
  } catch {
    // Nested too deep to be written.
    return null;
  }
}

function errorOf({ message, type, param, code }: Members): UpstreamError {
  const word = typeof code === "number" ? String(code) : code;
  return {
    error: {
      message: isText(message) ? cut(message, MESSAGE_LENGTH_MAX) : "the upstream reported an error",
      // An event of type "error" says with it what it is, not what went wrong.
      type: isText(type) && type !== "error" ? cut(type, WORD_LENGTH_MAX) : DEFAULT_TYPE,
      param: isText(param) ? cut(param, WORD_LENGTH_MAX) : null,
      code: isText(word) ? cut(word, WORD_LENGTH_MAX) : null,
    },
    numericCode: isText(word) && WHOLE_NUMBER.test(word) ? Number(word) : null,
  };
}

function plainError(message: string): UpstreamError {
  return errorOf({ message });
}

/** Never through the middle of a character. */
function cut(text: string, lengthMax: number): string {
  return text.length <= lengthMax ? text : text.slice(0, lengthMax).replace(/[\ud800-\udbff]$/, "");
}

function isGiven(value: unknown): boolean {
  return value !== undefined && value !== null;
}

function isText(value: unknown): value is string {
  return typeof value === "string" && value !== "";
}

export type Scrubber = (text: string) => string;

/** Parts of a key that are shorter say nothing about it. */
const KEY_PART_LENGTH_MIN = 8;
/** Whoever has so short a key does not need one, and half of any text would be taken for it. */
const KEY_LENGTH_MIN = 4;
const HIDDEN = "***";
/** Keys of others. The whole run is taken at once, which keeps this linear. */
const KEY_LIKE = /sk-[\w-]{5,}/g;

/**
 * Hides keys in text: each of `keys`, what begins or ends like one of them for 8 characters or more, with the escapes
 * of JSON or without, and all that looks like a key of this trade. Takes time linear in the text, whatever it holds.
 */
export function createScrubber(keys: readonly string[]): Scrubber {
  const secrets = keys.map(plainSecret).filter(isSecret);
  // Most streams never come to need them.
  let inEscapes: readonly Secret[] | null = null;
  return (text) => {
    let parts = secrets.flatMap((secret) => partsOfKey(text, secret));
    if (text.includes("\\")) {
      inEscapes ??= keys.map(unescapedSecret).filter(isSecret);
      parts = parts.concat(partsInEscapes(unescaped(text), inEscapes));
    }
    const withoutKeys = hide(text, parts);
    return withoutKeys.replace(KEY_LIKE, (run, at: number) => (isKeyLike(withoutKeys, run, at) ? HIDDEN : run));
  };
}

interface Secret {
  readonly key: string;
  /** How much of its beginning, and of its end, is hidden. */
  readonly beginningMin: number;
  readonly endingMin: number;
}

function isSecret({ key }: Secret): boolean {
  return key.length >= KEY_LENGTH_MIN;
}

function plainSecret(key: string): Secret {
  const length = Math.min(key.length, KEY_PART_LENGTH_MIN);
  return { key, beginningMin: length, endingMin: length };
}

/** As `unescaped` leaves it: without its backslashes, a part of it is shorter. */
function unescapedSecret(written: string): Secret {
  const key = unescaped(written).text;
  const lengthMin = (part: string) => Math.min(key.length, Math.max(unescaped(part).text.length, KEY_LENGTH_MIN));
  return {
    key,
    beginningMin: lengthMin(written.slice(0, KEY_PART_LENGTH_MIN)),
    endingMin: lengthMin(written.slice(-KEY_PART_LENGTH_MIN)),
  };
}

/** All that is text in the error, hidden keys aside. */
export function scrubError({ message, type, param, code }: ErrorObject, scrub: Scrubber): ErrorObject {
  return {
    message: scrub(message),
    type: scrub(type),
    param: param === null ? null : scrub(param),
    code: code === null ? null : scrub(code),
  };
}

/** A parsed value with every text in it scrubbed, names of members too. What lies too deep becomes null. */
export function scrubValue(value: unknown, scrub: Scrubber, depth = 0): unknown {
  if (typeof value === "string") return scrub(value);
  if (typeof value !== "object" || value === null) return value;
  if (depth === SCRUBBED_DEPTH_MAX) return null;
  if (Array.isArray(value)) return value.map((item) => scrubValue(item, scrub, depth + 1));
  const members = Object.entries(value).map(([name, member]) => [scrub(name), scrubValue(member, scrub, depth + 1)]);
  return Object.fromEntries(members) as Members;
}

/** In the middle of a word ("task-manager") it is one only with what no word has. */
function isKeyLike(text: string, run: string, at: number): boolean {
  return at === 0 || !/[a-z0-9]/i.test(text[at - 1]!) || /[A-Z0-9]/.test(run);
}

type Part = readonly [start: number, end: number];

/** Where keys stand in the text that was freed of its escapes: there, and with the escapes. */
function partsInEscapes({ text, ends }: Unescaped, secrets: readonly Secret[]): Part[] {
  return secrets
    .flatMap((secret) => partsOfKey(text, secret))
    .map(([start, end]) => [start === 0 ? 0 : ends[start - 1]!, ends[end - 1]!]);
}

/** Where `text` holds the beginning or the end of a key, as much of it as must not be seen. */
function partsOfKey(text: string, { key, beginningMin, endingMin }: Secret): Part[] {
  const beginnings = text.includes(key.slice(0, beginningMin)) ? beginningsOfKey(text, key, beginningMin) : [];
  if (!text.includes(key.slice(-endingMin))) return beginnings;
  const endings = beginningsOfKey(reversed(text), reversed(key), endingMin);
  return [...beginnings, ...endings.map(([start, end]) => [text.length - end, text.length - start] as const)];
}

function beginningsOfKey(text: string, key: string, lengthMin: number): Part[] {
  const parts: Part[] = [];
  let coveredTo = 0;
  matchLengths(text, key).forEach((length, start) => {
    const end = start + Math.min(length, key.length);
    if (length < lengthMin || end <= coveredTo) return;
    parts.push([start, end]);
    coveredTo = end;
  });
  return parts;
}

/**
 * At each place of `text`, how much of the beginning of `key` stands there: the Z algorithm, as a comparison at every
 * place would take time in proportion to the length of both.
 */
function matchLengths(text: string, key: string): Int32Array {
  // A match may reach over the seam when the text has this character: the caller cuts it.
  const joined = `${key}\0${text}`;
  const counts = new Int32Array(joined.length);
  // The match that reaches farthest so far.
  let start = 0;
  let end = 0;
  for (let at = 1; at < joined.length; at++) {
    let count = at < end ? Math.min(end - at, counts[at - start]!) : 0;
    while (at + count < joined.length && joined.charCodeAt(count) === joined.charCodeAt(at + count)) count++;
    counts[at] = count;
    if (at + count > end) {
      start = at;
      end = at + count;
    }
  }
  return counts.subarray(key.length + 1);
}

/** By code unit. */
function reversed(text: string): string {
  return text.split("").reverse().join("");
}

function hide(text: string, parts: readonly Part[]): string {
  if (parts.length === 0) return text;
  const pieces: string[] = [];
  let hiddenTo = -1;
  for (const [start, end] of parts.toSorted((a, b) => a[0] - b[0])) {
    if (start > hiddenTo) pieces.push(text.slice(Math.max(hiddenTo, 0), start), HIDDEN);
    hiddenTo = Math.max(hiddenTo, end);
  }
  return pieces.join("") + text.slice(hiddenTo);
}
