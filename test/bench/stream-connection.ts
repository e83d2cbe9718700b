// A client of event streams on a bare socket: it costs next to nothing, and knows which events must have come.

import type { Socket } from "bun";

export interface StreamReading {
  /** From sending the request to the first byte of the first event; null = none came. */
  readonly firstEventMs: number | null;
  readonly events: number;
  /** Every event came, once and in order, and then the closing mark. */
  readonly isWhole: boolean;
}

/** How an event of the upstream tells its number. */
const NUMBERED_EVENT = /"content":"(\d+) "/g;
const DONE = "data: [DONE]\n\n";
const LAST_CHUNK = "0\r\n\r\n";
/** More than stands between the number of an event and the end of it: what is kept for the next chunk. */
const KEPT_CHARACTERS = 256;

/** One stream at a time; the next may follow on the same connection. */
export class StreamConnection {
  #socket: Socket | null = null;
  #sentMs = 0;
  #text = "";
  #firstEventMs: number | null = null;
  #events = 0;
  #isInOrder = true;
  #isDone = false;
  #onFirst: () => void = () => undefined;
  #onEnd: () => void = () => undefined;

  /** @throws Error when there is no listener */
  static async open(url: string): Promise<StreamConnection> {
    const { hostname, port } = new URL(url);
    const connection = new StreamConnection();
    connection.#socket = await Bun.connect({
      hostname,
      port: Number(port),
      socket: {
        data: (_, chunk) => connection.#receive(chunk.toString("latin1")),
        close: () => connection.#onEnd(),
        error: () => undefined,
      },
    });
    connection.#socket.setNoDelay(true);
    return connection;
  }

  /** Reads the answer to `request`, of `events` events, to its end, however it comes. */
  async read(request: Uint8Array, events: number): Promise<StreamReading> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#onEnd = resolve;
    this.#begin(request);
    await promise;
    const isWhole = this.#isInOrder && this.#isDone && this.#events === events;
    return { firstEventMs: this.#firstEventMs, events: this.#events, isWhole };
  }

  /** Resolves with the first event. @throws Error when the connection ends before */
  readFirst(request: Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#onFirst = resolve;
      this.#onEnd = () => reject(new Error("the connection ended before the first event"));
      this.#begin(request);
    });
  }

  /** Resolves when the request was handed to the system. */
  send(request: Uint8Array): void {
    this.#begin(request);
  }

  /** Says nothing more and reads nothing more: the other side sees the connection closed. */
  close(): void {
    this.#onEnd = () => undefined;
    this.#socket!.end();
  }

  #begin(request: Uint8Array): void {
    this.#text = "";
    this.#firstEventMs = null;
    this.#events = 0;
    this.#isInOrder = true;
    this.#isDone = false;
    this.#sentMs = performance.now();
    if (this.#socket!.write(request) !== request.length) this.#socket!.terminate();
  }

  #receive(chunk: string): void {
    this.#text += chunk;
    if (this.#firstEventMs === null && this.#text.includes("data: ")) {
      this.#firstEventMs = performance.now() - this.#sentMs;
      this.#onFirst();
    }
    let end = 0;
    for (const match of this.#text.matchAll(NUMBERED_EVENT)) {
      if (Number(match[1]) !== this.#events) this.#isInOrder = false;
      this.#events++;
      end = match.index + match[0].length;
    }
    if (this.#text.includes(DONE, end)) this.#isDone = true;
    const isEnd = this.#text.endsWith(LAST_CHUNK);
    this.#text = this.#text.slice(Math.max(end, this.#text.length - KEPT_CHARACTERS));
    if (isEnd) this.#onEnd();
  }
}
