// One connection with every byte of it under the test's control, to see what a server that is stopping does with it.

import { connect, type Socket } from "node:net";

export interface ConnectionAnswer {
  readonly status: number;
  /** Names in lower case. */
  readonly headers: ReadonlyMap<string, string>;
  readonly body: string;
}

/** Understands answers with Content-Length, chunked ones and those without a body. */
export class KeepAliveConnection implements Disposable {
  readonly #socket: Socket;
  #received: Buffer = Buffer.alloc(0);
  #isClosed = false;
  #wake = Promise.withResolvers<void>();

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("data", (chunk) => {
      this.#received = Buffer.concat([this.#received, chunk as Buffer]);
      this.#notify();
    });
    socket.on("close", () => {
      this.#isClosed = true;
      this.#notify();
    });
    // "close" follows and says it all.
    socket.on("error", () => undefined);
  }

  /** @throws Error when nobody listens */
  static open(url: string): Promise<KeepAliveConnection> {
    const { hostname, port } = new URL(url);
    return new Promise((resolve, reject) => {
      const socket = connect({ host: hostname, port: Number(port) });
      socket.once("connect", () => resolve(new KeepAliveConnection(socket)));
      socket.once("error", reject);
    });
  }

  /** True when the other side has ended the connection. */
  get isClosed(): boolean {
    return this.#isClosed;
  }

  write(bytes: string | Uint8Array): void {
    this.#socket.write(bytes);
  }

  /** Sends a request with a Content-Length and waits for its answer. @throws Error when the connection ends first */
  request(
    method: string,
    path: string,
    headers: Readonly<Record<string, string>> = {},
    body = "",
  ): Promise<ConnectionAnswer> {
    this.write(`${requestHead(method, path, { ...headers, "Content-Length": `${Buffer.byteLength(body)}` })}${body}`);
    return this.answer();
  }

  /** The next answer. @throws Error when the connection ends first */
  async answer(): Promise<ConnectionAnswer> {
    const head = (await this.#take(await this.#indexOf("\r\n\r\n", 0))).toString("latin1");
    await this.#take(4);
    const [first = "", ...lines] = head.split("\r\n");
    const headers = new Map(
      lines.map((line) => [line.slice(0, line.indexOf(":")).toLowerCase(), line.slice(line.indexOf(":") + 1).trim()]),
    );
    const body = headers.has("transfer-encoding")
      ? await this.#chunks()
      : await this.#take(Number(headers.get("content-length") ?? 0));
    return { status: Number(first.split(" ")[1]), headers, body: body.toString("latin1") };
  }

  /** Resolves when the other side has ended the connection. */
  async closed(): Promise<void> {
    while (!this.#isClosed) await this.#more();
  }

  /** Reads no more until `resume`: a client that is slow. */
  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }

  async #chunks(): Promise<Buffer> {
    const pieces: Buffer[] = [];
    for (;;) {
      const size = Number.parseInt((await this.#take(await this.#indexOf("\r\n", 0))).toString("latin1"), 16);
      await this.#take(2);
      pieces.push(await this.#take(size));
      await this.#take(2);
      if (size === 0) return Buffer.concat(pieces);
    }
  }

  async #indexOf(text: string, from: number): Promise<number> {
    for (;;) {
      const at = this.#received.indexOf(text, from, "latin1");
      if (at >= 0) return at;
      await this.#orFail();
    }
  }

  async #take(length: number): Promise<Buffer> {
    while (this.#received.length < length) await this.#orFail();
    const taken = this.#received.subarray(0, length);
    this.#received = this.#received.subarray(length);
    return taken;
  }

  async #orFail(): Promise<void> {
    if (this.#isClosed) throw new Error("the connection ended before the answer was complete");
    await this.#more();
  }

  #more(): Promise<void> {
    return this.#wake.promise;
  }

  #notify(): void {
    this.#wake.resolve();
    this.#wake = Promise.withResolvers<void>();
  }
}

export function requestHead(method: string, path: string, headers: Readonly<Record<string, string>>): string {
  const lines = Object.entries({ Host: "h", ...headers }).map(([name, value]) => `${name}: ${value}\r\n`);
  return `${method} ${path} HTTP/1.1\r\n${lines.join("")}\r\n`;
}
