// Whether a long text is JSON (RFC 8259), without making its values: the parser takes a microsecond and more for each
// name that it has not seen, which of a few megabytes is most of a second for which nobody else is served.

/**
 * What `JSON.parse` would accept. A loop and not a recursion; the brackets that are open are one text of bits.
 */
export function isJsonText(text: string): boolean {
  /** Of each container that is open, innermost last. */
  const isObjects: boolean[] = [];
  let at = skipSpace(text, 0);
  for (;;) {
    // A value begins here.
    const first = text.charCodeAt(at);
    if (first === OPEN_BRACE || first === OPEN_BRACKET) {
      const isObject = first === OPEN_BRACE;
      at = skipSpace(text, at + 1);
      if (text.charCodeAt(at) === (isObject ? CLOSE_BRACE : CLOSE_BRACKET)) at++;
      else {
        isObjects.push(isObject);
        if (isObject) at = endOfName(text, at);
        if (at < 0) return false;
        continue;
      }
    } else at = first === QUOTE ? endOfString(text, at) : endOfScalar(text, at, first);
    if (at < 0) return false;
    // It has ended, and perhaps what it stands in.
    at = skipSpace(text, at);
    while (isObjects.length > 0 && text.charCodeAt(at) === (isObjects.at(-1) ? CLOSE_BRACE : CLOSE_BRACKET)) {
      isObjects.pop();
      at = skipSpace(text, at + 1);
    }
    if (isObjects.length === 0) return at === text.length;
    if (text.charCodeAt(at) !== COMMA) return false;
    at = skipSpace(text, at + 1);
    if (isObjects.at(-1)) at = endOfName(text, at);
    if (at < 0) return false;
  }
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;
const COMMA = 0x2c;
const COLON = 0x3a;
const MINUS = 0x2d;
const PLUS = 0x2b;
const DOT = 0x2e;
const ZERO = 0x30;
const NINE = 0x39;
const LETTER_U = 0x75;
/** `e`, and `E` with this bit. */
const LETTER_E = 0x65;
const LOWER_CASE = 0x20;

function skipSpace(text: string, from: number): number {
  let at = from;
  for (;;) {
    const code = text.charCodeAt(at);
    // Of a text that has ended the code is NaN.
    if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return at;
    at++;
  }
}

/** Behind the colon of a name that begins at `from`, where its value begins; -1 when there is none. */
function endOfName(text: string, from: number): number {
  if (text.charCodeAt(from) !== QUOTE) return -1;
  const end = endOfString(text, from);
  const colon = end < 0 ? -1 : skipSpace(text, end);
  return colon >= 0 && text.charCodeAt(colon) === COLON ? skipSpace(text, colon + 1) : -1;
}

function endOfString(text: string, from: number): number {
  for (let at = from + 1; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === QUOTE) return at + 1;
    if (code < 0x20) return -1;
    if (code !== BACKSLASH) continue;
    at++;
    if (text.charCodeAt(at) === LETTER_U) {
      if (!isHex(text, at + 1, at + 5)) return -1;
      at += 4;
    } else if (at >= text.length || !'"\\/bfnrt'.includes(text[at]!)) return -1;
  }
  return -1;
}

function isHex(text: string, from: number, to: number): boolean {
  for (let at = from; at < to; at++) {
    const code = text.charCodeAt(at);
    const letter = code | LOWER_CASE;
    if (!isDigit(code) && !(letter >= 0x61 && letter <= 0x66)) return false;
  }
  return true;
}

function endOfScalar(text: string, from: number, first: number): number {
  if (first === MINUS || isDigit(first)) return endOfNumber(text, first === MINUS ? from + 1 : from);
  for (const word of ["true", "false", "null"]) {
    if (text.startsWith(word, from)) return from + word.length;
  }
  return -1;
}

/** Of a number whose first digit is at `from`. */
function endOfNumber(text: string, from: number): number {
  let at = text.charCodeAt(from) === ZERO ? from + 1 : endOfDigits(text, from);
  if (at >= 0 && text.charCodeAt(at) === DOT) at = endOfDigits(text, at + 1);
  if (at < 0 || (text.charCodeAt(at) | LOWER_CASE) !== LETTER_E) return at;
  const sign = text.charCodeAt(at + 1);
  return endOfDigits(text, sign === PLUS || sign === MINUS ? at + 2 : at + 1);
}

/** One at least; -1 when there is none. */
function endOfDigits(text: string, from: number): number {
  let at = from;
  while (isDigit(text.charCodeAt(at))) at++;
  return at > from ? at : -1;
}

function isDigit(code: number): boolean {
  return code >= ZERO && code <= NINE;
}
