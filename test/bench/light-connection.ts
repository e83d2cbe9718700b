// A kept-alive HTTP/1.1 connection that costs next to nothing, so that what is measured is the server.

import type { Socket } from "bun";

export interface Answer {
  readonly status: number;
  /** As it was on the wire: a chunked body with its chunk sizes. */
  readonly body: Uint8Array;
}

const HEAD_END = "\r\n\r\n";
const LAST_CHUNK = "0\r\n\r\n";
/** It has no body, whatever length it tells (RFC 9110, section 15.4.5). */
const NOT_MODIFIED = 304;
const STATUS_AT = "HTTP/1.1 ".length;

/** One request at a time: the next is sent when the answer is there. */
export class LightConnection {
  /** Called with each answer, or with null when the connection has ended; nothing comes after that. */
  onAnswer: (answer: Answer | null) => void = () => undefined;
  #socket: Socket | null = null;
  #received: Buffer = Buffer.alloc(0);

  /** @throws Error when there is no listener */
  static async open(url: string): Promise<LightConnection> {
    const { hostname, port } = new URL(url);
    const connection = new LightConnection();
    connection.#socket = await Bun.connect({
      hostname,
      port: Number(port),
      socket: {
        data: (_, chunk) => connection.#receive(chunk),
        close: () => connection.onAnswer(null),
        error: () => undefined,
      },
    });
    connection.#socket.setNoDelay(true);
    return connection;
  }

  /** For requests of a few hundred bytes, which the empty buffer of a socket takes whole. */
  send(request: Uint8Array): void {
    if (this.#socket!.write(request) !== request.length) this.#socket!.terminate();
  }

  /** Sends and waits. @throws Error when the connection ends without an answer */
  ask(request: Uint8Array): Promise<Answer> {
    return new Promise((resolve, reject) => {
      this.onAnswer = (answer) =>
        answer === null ? reject(new Error("the connection ended without an answer")) : resolve(answer);
      this.send(request);
    });
  }

  close(): void {
    this.onAnswer = () => undefined;
    this.#socket!.terminate();
  }

  #receive(chunk: Buffer): void {
    this.#received = this.#received.length === 0 ? chunk : Buffer.concat([this.#received, chunk]);
    const answer = readAnswer(this.#received);
    if (answer === null) {
      // The runtime may use the buffer of a chunk again.
      if (this.#received === chunk) this.#received = Buffer.from(chunk);
      return;
    }
    this.#received = Buffer.alloc(0);
    this.onAnswer(answer);
  }
}

/** The answer that `bytes` hold whole, or null while some of it is missing. */
function readAnswer(bytes: Buffer): Answer | null {
  const headEnd = bytes.indexOf(HEAD_END);
  if (headEnd < 0) return null;
  const head = bytes.toString("latin1", 0, headEnd);
  const body = bytes.subarray(headEnd + HEAD_END.length);
  const length = /content-length: (\d+)/i.exec(head)?.[1];
  const status = Number(head.slice(STATUS_AT, STATUS_AT + 3));
  if (status === NOT_MODIFIED) return { status, body: body.subarray(0, 0) };
  const isWhole = length === undefined ? endsWithLastChunk(body) : body.length >= Number(length);
  return isWhole ? { status, body } : null;
}

function endsWithLastChunk(body: Buffer): boolean {
  return body.subarray(-LAST_CHUNK.length).toString("latin1") === LAST_CHUNK;
}

/** The bytes of a GET. */
export function getRequest(path: string, token: string): Uint8Array {
  return Buffer.from(`GET ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer ${token}\r\n\r\n`);
}
