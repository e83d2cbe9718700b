// A provider that fails on request: every byte it sends, and when, is the test's; everything it saw is kept.

import { createServer, type Server, type Socket } from "node:net";
import { createServer as createTlsServer, type TLSSocket } from "node:tls";
import { answerNormally } from "./upstream-plans.ts";

/** What one request gets. It has come to its end when it returns. */
export type Plan = (exchange: Exchange) => void | Promise<void>;

export interface SeenRequest {
  readonly method: string;
  /** As sent, with the query. */
  readonly path: string;
  /** By names in small letters; repeated ones joined by ", ". */
  readonly headers: Readonly<Record<string, string>>;
  /** The bearer credential. */
  readonly key: string | null;
  readonly body: string;
  /** The body as JSON; an empty object when it is none. */
  readonly json: Readonly<Record<string, unknown>>;
  /** The name that TLS was asked for; null without one, and without TLS. */
  readonly serverName: string | null;
  /** Which connection it came on, counted from 0. */
  readonly connection: number;
  /** By performance.now(). */
  readonly arrivedMs: number;
  /** When the connection was closed, by performance.now(). */
  readonly closed: Promise<number>;
  /** Whether the other side closed the connection before the plan came to its end. */
  wasGivenUp: boolean;
}

/** One request with the connection it came on. Nothing is sent but what is written here. */
export class Exchange {
  readonly request: SeenRequest;
  readonly #socket: Socket;
  /** Whether the plan ended the connection. */
  wasEndedHere = false;

  constructor(request: SeenRequest, socket: Socket) {
    this.request = request;
    this.#socket = socket;
  }

  /** Resolves when the connection is closed, by whom ever. */
  get gone(): Promise<unknown> {
    return this.request.closed;
  }

  get isGone(): boolean {
    return this.#socket.destroyed;
  }

  /** Bytes as they are; resolves when the connection takes more, or is gone. */
  async write(bytes: string | Uint8Array): Promise<void> {
    if (this.#socket.destroyed || this.#socket.write(bytes)) return;
    await Promise.race([new Promise((resolve) => this.#socket.once("drain", resolve)), this.gone]);
  }

  head(status: number, headers: Readonly<Record<string, string>>): Promise<void> {
    const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
    return this.write(`HTTP/1.1 ${status} Status\r\n${lines.join("")}\r\n`);
  }

  /** A whole answer. */
  async answer(status: number, headers: Readonly<Record<string, string>>, body: string | Uint8Array): Promise<void> {
    const bytes = Buffer.from(body);
    await this.head(status, { ...headers, "Content-Length": String(bytes.length) });
    await this.write(bytes);
  }

  startEvents(headers: Readonly<Record<string, string>> = {}): Promise<void> {
    return this.head(200, { "Content-Type": "text/event-stream", "Transfer-Encoding": "chunked", ...headers });
  }

  /** One piece of a body that has begun with `Transfer-Encoding: chunked`. */
  chunk(bytes: string | Uint8Array): Promise<void> {
    const body = Buffer.from(bytes);
    return this.write(Buffer.concat([Buffer.from(`${body.length.toString(16)}\r\n`), body, Buffer.from("\r\n")]));
  }

  endChunks(): Promise<void> {
    return this.write("0\r\n\r\n");
  }

  /** Waits, but not for longer than the other side does. */
  async pause(ms: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, ms);
    await Promise.race([promise, this.gone]);
    clearTimeout(timer);
  }

  /** Closes the connection: what was written is sent. */
  close(): void {
    this.wasEndedHere = true;
    this.#socket.end();
  }

  /** Resets the connection. */
  reset(): void {
    this.wasEndedHere = true;
    this.#socket.resetAndDestroy();
  }
}

export interface UpstreamOptions {
  /** PEM; without it the server speaks plain http. */
  readonly tls?: { readonly key: string; readonly cert: string };
  /** An address of this machine; default 127.0.0.1. */
  readonly host?: string;
  /** To listen where another one did; default: a free one. */
  readonly port?: number;
}

export class FaultUpstream implements AsyncDisposable {
  readonly #server: Server;
  readonly #isTls: boolean;
  readonly #place: { readonly host: string; readonly port: number };
  readonly #sockets = new Set<Socket>();
  readonly #queue: Plan[] = [];
  readonly #byModel = new Map<string, Plan>();
  readonly #byKey = new Map<string, Plan>();
  readonly #arrivals = new Set<() => void>();
  #plan: Plan = answerNormally;
  #connections = 0;
  /** Every request, in the order of arrival. */
  readonly requests: SeenRequest[] = [];
  /** What a plan threw: a mistake of the test. */
  readonly mistakes: unknown[] = [];

  private constructor({ tls, host = "127.0.0.1", port = 0 }: UpstreamOptions) {
    this.#isTls = tls !== undefined;
    this.#place = { host, port };
    const serve = (socket: Socket) => this.#serve(socket);
    this.#server = tls === undefined ? createServer(serve) : createTlsServer(tls, serve);
  }

  /** Answers well until told otherwise. */
  static async start(options: UpstreamOptions = {}): Promise<FaultUpstream> {
    const upstream = new FaultUpstream(options);
    const { port, host } = upstream.#place;
    await new Promise<void>((resolve) => upstream.#server.listen(port, host, resolve));
    return upstream;
  }

  get port(): number {
    return (this.#server.address() as { port: number }).port;
  }

  /** To be used as a base_url: without a version segment. */
  get url(): string {
    return `${this.#isTls ? "https" : "http"}://${this.#place.host}:${this.port}`;
  }

  /** Connections that were opened so far. */
  get connections(): number {
    return this.#connections;
  }

  get openConnections(): number {
    return this.#sockets.size;
  }

  /** The bearer credentials seen, in the order of arrival. */
  get keys(): (string | null)[] {
    return this.requests.map(({ key }) => key);
  }

  /** The next requests get these, one each; before any other plan. */
  next(...plans: readonly Plan[]): void {
    this.#queue.push(...plans);
  }

  forModel(model: string, plan: Plan): void {
    this.#byModel.set(model, plan);
  }

  /** Comes before the plan of a model. */
  forKey(key: string, plan: Plan): void {
    this.#byKey.set(key, plan);
  }

  /** What every other request gets. */
  always(plan: Plan): void {
    this.#plan = plan;
  }

  /** Forgets what was seen and every plan. */
  reset(): void {
    this.requests.length = 0;
    this.#queue.length = 0;
    this.#byModel.clear();
    this.#byKey.clear();
    this.#plan = answerNormally;
  }

  /** The request of this number, counted from 0, as soon as it has come. */
  async request(index: number): Promise<SeenRequest> {
    while (this.requests.length <= index) await new Promise<void>((resolve) => this.#arrivals.add(resolve));
    return this.requests[index]!;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  #serve(socket: Socket): void {
    const connection = this.#connections++;
    this.#sockets.add(socket);
    const closed = Promise.withResolvers<number>();
    socket.setNoDelay(true);
    socket.on("error", () => undefined);
    socket.on("close", () => {
      this.#sockets.delete(socket);
      closed.resolve(performance.now());
    });
    let received: Buffer = Buffer.alloc(0);
    let work: Promise<void> = Promise.resolve();
    socket.on("data", (bytes: Buffer) => {
      received = received.length === 0 ? bytes : Buffer.concat([received, bytes]);
      for (;;) {
        const parsed = parseRequest(received);
        if (parsed === null) return;
        received = received.subarray(parsed.length);
        const serverName = (socket as TLSSocket).servername || null;
        const request = { ...seenRequest(parsed, connection, closed.promise), serverName };
        work = work.then(() => this.#run(new Exchange(request, socket)));
      }
    });
  }

  async #run(exchange: Exchange): Promise<void> {
    const { request } = exchange;
    const plan =
      this.#queue.shift() ??
      this.#byKey.get(request.key ?? "") ??
      this.#byModel.get(String(request.json.model)) ??
      this.#plan;
    this.requests.push(request);
    for (const arrived of this.#arrivals) arrived();
    this.#arrivals.clear();
    let isAtWork = true;
    request.closed.then(() => {
      request.wasGivenUp = isAtWork && !exchange.wasEndedHere;
    });
    try {
      await plan(exchange);
    } catch (error) {
      this.mistakes.push(error);
      exchange.reset();
    }
    if (!exchange.isGone) isAtWork = false;
  }
}

interface ParsedRequest {
  readonly head: string;
  readonly body: string;
  /** Of the whole, in bytes. */
  readonly length: number;
}

/** The first request of what was received; null when it is not complete. */
function parseRequest(received: Buffer): ParsedRequest | null {
  const headEnd = received.indexOf("\r\n\r\n");
  if (headEnd < 0) return null;
  const head = received.toString("latin1", 0, headEnd);
  const start = headEnd + 4;
  if (/^transfer-encoding:.*chunked/im.test(head)) {
    const end = received.indexOf("\r\n0\r\n\r\n", headEnd);
    if (end < 0) return null;
    return { head, body: joinChunks(received.subarray(start, end + 2)), length: end + 7 };
  }
  const length = Number(/^content-length: *(\d+)/im.exec(head)?.[1] ?? 0);
  if (received.length < start + length) return null;
  return { head, body: received.toString("utf8", start, start + length), length: start + length };
}

function joinChunks(bytes: Buffer): string {
  const chunks: Buffer[] = [];
  for (let at = 0; at < bytes.length; ) {
    const lineEnd = bytes.indexOf("\r\n", at);
    const size = Number.parseInt(bytes.toString("latin1", at, lineEnd), 16);
    chunks.push(bytes.subarray(lineEnd + 2, lineEnd + 2 + size));
    at = lineEnd + 2 + size + 2;
  }
  return Buffer.concat(chunks).toString("utf8");
}

function seenRequest(
  { head, body }: ParsedRequest,
  connection: number,
  closed: Promise<number>,
): Omit<SeenRequest, "serverName"> {
  const [first = "", ...lines] = head.split("\r\n");
  const [method = "", path = ""] = first.split(" ");
  const headers: Record<string, string> = {};
  for (const line of lines) {
    const colon = line.indexOf(":");
    const [name, value] = [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()];
    headers[name] = name in headers ? `${headers[name]}, ${value}` : value;
  }
  return {
    method,
    path,
    headers,
    body,
    json: jsonOf(body),
    connection,
    closed,
    wasGivenUp: false,
    key: /^Bearer (.+)$/.exec(headers.authorization ?? "")?.[1] ?? null,
    arrivedMs: performance.now(),
  };
}

function jsonOf(body: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(body);
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}
