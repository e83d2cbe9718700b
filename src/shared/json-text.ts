// JSON as text: validated, but kept byte for byte, which a round trip through JSON.parse would not do.

import { KiB } from "./bounds.ts";
import { AppError } from "./errors.ts";
import { isJsonText } from "./json-grammar.ts";

const NESTING_MAX = 512;
/** Up to this the parser is as fast as reading it, whatever it holds. */
const PARSED_LENGTH_MAX = 16 * KiB;

/** A top-level member of an object: `text.slice(start, end)` is all of it, the value begins at `valueStart`. */
export interface JsonMember {
  /** Unescaped. */
  readonly name: string;
  readonly start: number;
  readonly valueStart: number;
  readonly end: number;
}

/**
 * One JSON text (RFC 8259) in strict UTF-8 without a byte order mark.
 * @throws AppError invalid_json, json_too_deep
 */
export function requireJson(bytes: Uint8Array): string {
  const text = requireShallowText(bytes);
  requireValid(text);
  return text;
}

/** Of what requireShallowText gave. @throws AppError invalid_json */
export function requireValid(text: string): void {
  if (!isValid(text)) throw new AppError("invalid_json", "The body is not one valid JSON text.");
}

export function isValid(text: string): boolean {
  return text.length > PARSED_LENGTH_MAX ? isJsonText(text) : parseJson(text) !== undefined;
}

/** Undefined for what is no JSON. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * Text that may be given to a parser, which has yet to say whether it is JSON.
 * @throws AppError invalid_json when it is not strict UTF-8 without a byte order mark, json_too_deep
 */
export function requireShallowText(bytes: Uint8Array): string {
  const text = decode(bytes);
  // Before the parser sees it: its recursion must not be a client's to choose.
  if (nestingOf(text) > NESTING_MAX) {
    throw new AppError("json_too_deep", `JSON may be nested ${NESTING_MAX} levels deep.`);
  }
  return text;
}

/** Whether stored bytes are one JSON text that may stand inside another. */
export function isJson(bytes: Uint8Array): boolean {
  try {
    requireJson(bytes);
    return true;
  } catch {
    return false;
  }
}

const STRICT = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function decode(bytes: Uint8Array): string {
  try {
    const text = STRICT.decode(bytes);
    if (text.charCodeAt(0) !== 0xfeff) return text;
  } catch {
    // Falls through to the same answer.
  }
  throw new AppError("invalid_json", "The body must be JSON in UTF-8 without a byte order mark.");
}

/** Brackets open at once, strings left out. Right for valid JSON; for anything else the parser has the last word. */
function nestingOf(text: string): number {
  let depth = 0;
  let deepest = 0;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === QUOTE) at = endOfString(text, at) - 1;
    else if (code === OPEN_BRACE || code === OPEN_BRACKET) deepest = Math.max(deepest, ++depth);
    else if (code === CLOSE_BRACE || code === CLOSE_BRACKET) depth--;
  }
  return deepest;
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;
const COMMA = 0x2c;
const COLON = 0x3a;

/**
 * About what a parsed text takes in memory beyond the length of the text, in bytes. An object, an array, a string that
 * was not there before have a head and a place each: of `[{},{},…]` twenty times what was sent, of ordinary text
 * nothing. The schemas of tools, small objects with few names, count about three times. The first few KiB are free.
 */
export function parsedBytes(text: string): number {
  // Whatever it holds, it stays below what is free.
  if (text.length * DENSEST_BYTES_PER_CHAR <= FREE_BYTES) return 0;
  const seen = new SeenStrings(text);
  let bytes = 0;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === OPEN_BRACE || code === OPEN_BRACKET) bytes += CONTAINER_BYTES;
    else if (code === QUOTE) {
      const end = endOfString(text, at);
      bytes += seen.see(at, end) ? PLACE_BYTES : STRING_BYTES;
      at = end - 1;
    }
  }
  return Math.max(0, bytes - text.length - FREE_BYTES);
}

const CONTAINER_BYTES = 72;
const STRING_BYTES = 64;
/** Of a string that the parser has made already. */
const PLACE_BYTES = 16;
/** `[` after `[`. */
const DENSEST_BYTES_PER_CHAR = CONTAINER_BYTES;
/** More than a chat of ordinary length takes. As much for each of two thousand calls is a third of the budget. */
const FREE_BYTES = 8 * KiB;

/**
 * Which strings of a text came before, by a table of a fixed size: one that was overwritten counts as new. One text at
 * a time: the next begins with an empty table.
 */
class SeenStrings {
  readonly #text: string;
  readonly #starts = STARTS.fill(-1);

  constructor(text: string) {
    this.#text = text;
  }

  /** Its quotes included. */
  see(start: number, end: number): boolean {
    const length = end - start;
    // Of a long one the text is what counts.
    if (length > SEEN_LENGTH_MAX) return false;
    const text = this.#text;
    const ends = text.charCodeAt(start + 1) * 31 + text.charCodeAt(end - 2);
    // Near its ends, as the parser has it: long ones that differ in the middle take each other's place there, too.
    const within = length > PROBED_LENGTH_MAX ? start + 5 : start + (length >> 1);
    const slot = (ends * 31 + text.charCodeAt(within) + length * 7) % SEEN_SLOTS;
    const earlier = this.#starts[slot]!;
    this.#starts[slot] = start;
    if (earlier < 0) return false;
    for (let at = 1; at < length; at++) {
      if (text.charCodeAt(earlier + at) !== text.charCodeAt(start + at)) return false;
    }
    return true;
  }
}

const SEEN_SLOTS = 512;
/** For one text after the other: with every request anew, it would be a tenth of what one leaves to the collector. */
const STARTS = new Int32Array(SEEN_SLOTS);
/** With the quotes; the parser looks at all of what is no longer. */
const PROBED_LENGTH_MAX = 18;
const SEEN_LENGTH_MAX = 40;

/**
 * The members of an object in order; null when `text` is another value. Of a text that is no valid JSON it finds what
 * it can, and comes to an end.
 */
export function topLevelMembers(text: string): JsonMember[] | null {
  const members: JsonMember[] = [];
  const isObject = eachMember(text, (start, nameEnd, valueStart, end) => {
    members.push({ name: nameOf(text.slice(start, nameEnd)), start, valueStart, end });
  });
  return isObject ? members : null;
}

/** Whether `text` is an object of more than `max` members; it is read no further than that takes. */
export function hasMoreMembers(text: string, max: number): boolean {
  let count = 0;
  eachMember(text, () => ++count <= max);
  return count > max;
}

/** Those members that have this name; none when `text` is no object. Cheaper than to look through all of them. */
export function membersNamed(text: string, name: string): JsonMember[] {
  const members: JsonMember[] = [];
  eachMember(text, (start, nameEnd, valueStart, end) => {
    const nameLength = nameEnd - start - 2;
    if (nameLength < name.length) return;
    // A longer one may be the same with escapes.
    const isSame =
      nameLength === name.length ? text.startsWith(name, start + 1) : isEscaped(text, start, nameEnd, name);
    if (isSame) members.push({ name, start, valueStart, end });
  });
  return members;
}

/** An escape takes six characters at most for each that it stands for. */
function isEscaped(text: string, start: number, nameEnd: number, name: string): boolean {
  return nameEnd - start - 2 <= 6 * name.length && nameOf(text.slice(start, nameEnd)) === name;
}

/** Returns false for: that is enough. */
type SeeMember = (start: number, nameEnd: number, valueStart: number, end: number) => boolean | undefined;

/** Returns whether `text` begins an object. */
function eachMember(text: string, see: SeeMember): boolean {
  let at = skipSpace(text, 0);
  if (text.charCodeAt(at) !== OPEN_BRACE) return false;
  at = skipSpace(text, at + 1);
  while (at < text.length && text.charCodeAt(at) !== CLOSE_BRACE) {
    const start = at;
    const nameEnd = endOfString(text, at);
    const valueStart = skipSpace(text, skipSpace(text, nameEnd) + 1);
    const end = endOfValue(text, valueStart);
    if (see(start, nameEnd, valueStart, end) === false) break;
    at = skipSpace(text, end);
    if (text.charCodeAt(at) === COMMA) at = skipSpace(text, at + 1);
  }
  return true;
}

/** Of a quoted name; as it stands there, if it is malformed. */
function nameOf(quoted: string): string {
  if (!quoted.includes("\\")) return quoted.slice(1, -1);
  try {
    return JSON.parse(quoted) as string;
  } catch {
    return quoted;
  }
}

/** `text` without the member and one adjoining comma; every other character stays. */
export function cutMember(text: string, { start, end }: JsonMember): string {
  const behind = skipSpace(text, end);
  if (text.charCodeAt(behind) === COMMA) return text.slice(0, start) + text.slice(behind + 1);
  const comma = text.lastIndexOf(",", start);
  const isOurs = comma >= 0 && text.slice(comma + 1, start).trim() === "";
  return text.slice(0, isOurs ? comma : start) + text.slice(end);
}

function skipSpace(text: string, from: number): number {
  let at = from;
  while (isSpace(text.charCodeAt(at))) at++;
  return at;
}

/** False behind the end, where there is no code. */
function isSpace(code: number): boolean {
  return code === 0x20 || code === 0x09 || code === 0x0a || code === 0x0d;
}

/** Behind the closing quote of the string that starts at `from`, or the end of the text. */
export function endOfString(text: string, from: number): number {
  for (let at = text.indexOf('"', from + 1); at >= 0; at = text.indexOf('"', at + 1)) {
    let escapes = at;
    while (escapes > from + 1 && text.charCodeAt(escapes - 1) === BACKSLASH) escapes--;
    // Two backslashes are one that is escaped itself.
    if ((at - escapes) % 2 === 0) return at + 1;
  }
  return text.length;
}

function endOfValue(text: string, from: number): number {
  const first = text.charCodeAt(from);
  if (first === QUOTE) return endOfString(text, from);
  if (first !== OPEN_BRACE && first !== OPEN_BRACKET) return endOfScalar(text, from);
  let depth = 0;
  for (let at = from; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === QUOTE) at = endOfString(text, at) - 1;
    else if (code === OPEN_BRACE || code === OPEN_BRACKET) depth++;
    else if ((code === CLOSE_BRACE || code === CLOSE_BRACKET) && --depth === 0) return at + 1;
  }
  return text.length;
}

function endOfScalar(text: string, from: number): number {
  let at = from;
  while (at < text.length && !endsScalar(text.charCodeAt(at))) at++;
  return at;
}

function endsScalar(code: number): boolean {
  return code === COMMA || code === COLON || code === CLOSE_BRACE || code === CLOSE_BRACKET || isSpace(code);
}
