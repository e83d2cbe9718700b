// The events of one upstream answer, in the pieces in which they arrive; silence and size have bounds.

import { EventSplitter } from "./event-splitter.ts";

interface BytesReader {
  read(): Promise<{ readonly done: boolean; readonly value?: Uint8Array | undefined }>;
  cancel(): Promise<void>;
}

/** Reads an event stream; one reader at a time. */
export class UpstreamEvents {
  readonly #reader: BytesReader;
  readonly #splitter: EventSplitter;
  readonly #abort: () => void;
  /** Longest silence; null = whoever reads watches the time. */
  idleMs: number | null;

  /** `abort` gives the connection up. */
  constructor(body: ReadableStream<Uint8Array>, eventBytesMax: number, idleMs: number | null, abort: () => void) {
    this.#reader = body.getReader();
    this.#splitter = new EventSplitter(eventBytesMax);
    this.#abort = abort;
    this.idleMs = idleMs;
  }

  /** Whether it was given up for too large an event. */
  get isOversized(): boolean {
    return this.#splitter.isOversized;
  }

  /**
   * At least one piece of the splitter, a whole event as a rule. Null when the stream has ended, broke, went silent or
   * sent too large an event.
   */
  async next(): Promise<Uint8Array[] | null> {
    while (!this.#splitter.isOversized) {
      const chunk = await this.#read();
      if (chunk === null) return null;
      const events = this.#splitter.push(chunk);
      if (events.length > 0) return events;
    }
    this.cancel();
    return null;
  }

  /** Gives the upstream up: it sees its connection close. */
  cancel(): void {
    this.#reader.cancel().catch(() => undefined);
    this.#abort();
  }

  /** Nothing more is wanted of a stream that has said its last: its end is read, so that the connection can be kept. */
  release(): void {
    this.#readEnd().catch(() => undefined);
  }

  async #readEnd(): Promise<void> {
    const timer = setTimeout(() => this.cancel(), END_MS_MAX);
    while ((await this.#read()) !== null) {}
    clearTimeout(timer);
  }

  async #read(): Promise<Uint8Array | null> {
    const timer = this.idleMs === null ? null : setTimeout(() => this.cancel(), this.idleMs);
    try {
      const { done, value } = await this.#reader.read();
      return done || value === undefined ? null : value;
    } catch {
      return null;
    } finally {
      if (timer !== null) clearTimeout(timer);
    }
  }
}

/** How long the end of a finished stream is waited for. */
const END_MS_MAX = 1_000;
