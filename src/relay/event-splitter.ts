// Cuts a stream of server-sent events into whole events without changing a byte of them.

const LF = 0x0a;
const CR = 0x0d;
/** A larger buffer is given back once its event is complete: streams live long. */
const KEPT_BUFFER_BYTES_MAX = 16 * 1024;
const FIRST_BUFFER_BYTES = 1024;
const NO_BYTES = new Uint8Array(0);

/**
 * One per stream. What `push` has returned, followed by `rest`, is at any time exactly what was pushed.
 *
 * An event ends with the blank line behind it; further blank lines belong to the event that follows. The LF of a CRLF
 * whose CR was the last byte that had come is a piece of its own: nobody knows whether it will come, and an event does
 * not wait for it. A comment counts as an event, as does a byte order mark.
 */
export class EventSplitter {
  /** The unfinished event is `#held.subarray(0, #heldBytes)`. */
  #held: Uint8Array = NO_BYTES;
  #heldBytes = 0;
  /** Whether the unfinished event has a line with something in it, and whether the line now under way has. */
  #hasContent = false;
  #isLineBegun = false;
  /** Whether the last byte was a CR: an LF then belongs to it. */
  #isAfterReturn = false;
  #isOversized = false;
  readonly #eventBytesMax: number;

  constructor(eventBytesMax: number) {
    this.#eventBytesMax = eventBytesMax;
  }

  /** True from the moment an event, finished or not, exceeds the bound: from then on nothing more comes out. */
  get isOversized(): boolean {
    return this.#isOversized;
  }

  /** What came behind the last whole event. Valid until the next `push`. */
  get rest(): Uint8Array {
    return this.#held.subarray(0, this.#heldBytes);
  }

  /** The events that `chunk` completes, in order. Most of them share its memory. Look at `isOversized` afterwards. */
  push(chunk: Uint8Array): Uint8Array[] {
    const events: Uint8Array[] = [];
    if (this.#isOversized) return events;
    let start = 0;
    let hasContent = this.#hasContent;
    let isLineBegun = this.#isLineBegun;
    let isAfterReturn = this.#isAfterReturn;
    const length = chunk.length;
    if (isAfterReturn && this.#heldBytes === 0 && chunk[0] === LF) {
      events.push(length === 1 ? chunk : chunk.subarray(0, 1));
      start = 1;
    }
    for (let at = 0; at < length; at++) {
      const byte = chunk[at]!;
      if (byte !== LF && byte !== CR) {
        isLineBegun = true;
        continue;
      }
      const isSecondOfTwo = byte === LF && (at === 0 ? isAfterReturn : chunk[at - 1] === CR);
      if (isSecondOfTwo) continue;
      if (isLineBegun) {
        isLineBegun = false;
        hasContent = true;
      } else if (hasContent) {
        hasContent = false;
        const end = byte === CR && chunk[at + 1] === LF ? at + 2 : at + 1;
        if (!this.#take(chunk, start, end, events)) return events;
        start = end;
      }
    }
    if (length > 0) isAfterReturn = chunk[length - 1] === CR;
    this.#hasContent = hasContent;
    this.#isLineBegun = isLineBegun;
    this.#isAfterReturn = isAfterReturn;
    this.#hold(chunk, start);
    return events;
  }

  /** Adds the event that ends before `end`. False when it is too large. */
  #take(chunk: Uint8Array, start: number, end: number, events: Uint8Array[]): boolean {
    const eventBytes = this.#heldBytes + end - start;
    if (eventBytes > this.#eventBytesMax) {
      this.#isOversized = true;
      return false;
    }
    if (this.#heldBytes === 0) {
      events.push(start === 0 && end === chunk.length ? chunk : chunk.subarray(start, end));
      return true;
    }
    const event = new Uint8Array(eventBytes);
    event.set(this.rest);
    event.set(chunk.subarray(start, end), this.#heldBytes);
    events.push(event);
    this.#heldBytes = 0;
    if (this.#held.length > KEPT_BUFFER_BYTES_MAX) this.#held = NO_BYTES;
    return true;
  }

  /** Copies, so that a few bytes keep no large chunk alive, and many small chunks cost no more than their bytes. */
  #hold(chunk: Uint8Array, start: number): void {
    const added = chunk.length - start;
    if (added === 0) return;
    const needed = this.#heldBytes + added;
    if (needed > this.#eventBytesMax) {
      this.#isOversized = true;
      return;
    }
    if (needed > this.#held.length) {
      const grown = new Uint8Array(
        Math.max(needed, Math.min(this.#held.length * 2, this.#eventBytesMax), FIRST_BUFFER_BYTES),
      );
      grown.set(this.rest);
      this.#held = grown;
    }
    this.#held.set(chunk.subarray(start), this.#heldBytes);
    this.#heldBytes = needed;
  }
}

/** Whether a piece of the splitter is what was missing of the line end of the event before it. */
export function isLateLineFeed(piece: Uint8Array): boolean {
  return piece.length === 1 && piece[0] === LF;
}

/** Whether a piece of the splitter ends as one does of which half a line end is still to come. */
export function lacksLineFeed(piece: Uint8Array): boolean {
  const { length } = piece;
  return length > 2 && piece[length - 1] === CR && piece[length - 2] === LF && piece[length - 3] === CR;
}

/** What an event says. Null: it has no such field. */
interface ParsedEvent {
  readonly event: string | null;
  readonly data: string | null;
}

/** It drops a byte order mark at the beginning, where only the first event can have one. */
const DECODER = new TextDecoder();
const LINE_END = /\r\n|\r|\n/;

/** The fields of one event of the splitter. Several lines of data are joined by LF; bad UTF-8 becomes U+FFFD. */
export function parseEvent(bytes: Uint8Array): ParsedEvent {
  // Blank lines before it say nothing; without them an event reads the same wherever its stream was cut.
  let start = 0;
  while (bytes[start] === LF || bytes[start] === CR) start++;
  const text = DECODER.decode(start === 0 ? bytes : bytes.subarray(start));
  // Nearly every event: one line of data and the blank line.
  const isOneLine = text.indexOf("\n") === text.length - 2 && !text.includes("\r");
  if (isOneLine && text.startsWith("data: ")) {
    return { event: null, data: text.slice("data: ".length, -2) };
  }
  let event: string | null = null;
  const data: string[] = [];
  for (const line of text.split(LINE_END)) {
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    if (name !== "data" && name !== "event") continue;
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (name === "data") data.push(value);
    else event = value;
  }
  return { event, data: data.length === 0 ? null : data.join("\n") };
}
