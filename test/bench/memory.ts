// Many large bodies at once, and many slow readers of large values, in less memory than they would fill: the process
// lives, and everybody gets an answer.

import { connect, type Socket } from "node:net";
import type { ServerProcess } from "../support/executable.ts";
import { requireStatuses, residentMb, startBenchServer } from "./bench-server.ts";
import { type Bench, type Benchmark, sized } from "./benchmark.ts";
import { atMost, type Figure, InvalidRun, reported } from "./figures.ts";
import { getRequest } from "./light-connection.ts";
import { memoryLimit } from "./memory-limit.ts";

const CLIENTS = 200;
const VALUE_BYTES = 8_000_000;
const LIMIT_BYTES = 300_000_000;
const BUCKET = "large";
const WRITE_STEP_BYTES = 64 * 1024;
/** A slow reader takes this much, then pauses: 8 MB in about three seconds. */
const READ_STEP_BYTES = 256 * 1024;
const READ_PAUSE_MS = 90;
/** Whoever has heard nothing for so long will never get an answer. */
const SILENCE_MS_MAX = 60_000;

const HEAD_END = "\r\n\r\n";
const LAST_CHUNK = "0\r\n\r\n";

interface Exchange {
  /** 0 = the connection ended without a whole answer head. */
  readonly status: number;
  readonly body: Buffer;
}

/** One request on a connection of its own, read at leisure. */
function exchange(
  url: string,
  { head, body, isSlow }: { head: Uint8Array; body: Buffer | null; isSlow: boolean },
): Promise<Exchange> {
  const { hostname, port } = new URL(url);
  return new Promise((resolve) => {
    const socket = connect({ host: hostname, port: Number(port) });
    const chunks: Buffer[] = [];
    let sinceBreak = 0;
    socket.setTimeout(SILENCE_MS_MAX, () => socket.destroy());
    socket.on("connect", () => {
      socket.write(head);
      if (body !== null) sendBody(socket, body);
    });
    socket.on("data", (chunk: Buffer) => {
      chunks.push(chunk);
      sinceBreak += chunk.length;
      if (isWhole(chunks)) socket.destroy();
      else if (isSlow && sinceBreak >= READ_STEP_BYTES) {
        sinceBreak = 0;
        socket.pause();
        setTimeout(() => socket.resume(), READ_PAUSE_MS);
      }
    });
    socket.on("error", () => undefined);
    socket.on("close", () => resolve(parseExchange(Buffer.concat(chunks))));
  });
}

/** A piece per turn, so that the others send and read as well. Once an answer came, the rest is not sent. */
function sendBody(socket: Socket, body: Buffer, offset = 0): void {
  if (offset >= body.length || socket.destroyed || !socket.writable) return;
  const next = () => sendBody(socket, body, offset + WRITE_STEP_BYTES);
  if (socket.write(body.subarray(offset, offset + WRITE_STEP_BYTES))) setImmediate(next);
  else socket.once("drain", next);
}

/** The head comes in one piece: it is short and nothing was sent before it. */
function isWhole(chunks: readonly Buffer[]): boolean {
  const first = chunks[0]!;
  const headBytes = first.indexOf(HEAD_END) + HEAD_END.length;
  const lengthBytes = /\r\ncontent-length: (\d+)\r\n/i.exec(first.toString("latin1", 0, headBytes))?.[1];
  if (lengthBytes === undefined) return chunks.at(-1)!.subarray(-LAST_CHUNK.length).toString("latin1") === LAST_CHUNK;
  return chunks.reduce((total, chunk) => total + chunk.length, 0) >= headBytes + Number(lengthBytes);
}

function parseExchange(received: Buffer): Exchange {
  const headEnd = received.indexOf(HEAD_END);
  if (headEnd < 0) return { status: 0, body: Buffer.alloc(0) };
  const head = received.toString("latin1", 0, headEnd);
  const body = received.subarray(headEnd + HEAD_END.length);
  const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(head)?.[1] ?? 0);
  return { status, body: /transfer-encoding: chunked/i.test(head) ? joinChunks(body) : body };
}

function joinChunks(body: Buffer): Buffer {
  const parts: Buffer[] = [];
  for (let at = 0; ; ) {
    const lineEnd = body.indexOf("\r\n", at);
    const size = Number.parseInt(body.toString("latin1", at, lineEnd), 16);
    if (lineEnd < 0 || !(size > 0)) return Buffer.concat(parts);
    parts.push(body.subarray(lineEnd + 2, lineEnd + 2 + size));
    at = lineEnd + 2 + size + 2;
  }
}

/** No byte repeats at a distance that a piece of a stream could be off by. */
function largeValue(): Buffer {
  const value = Buffer.alloc(VALUE_BYTES);
  for (let at = 0; at + 4 <= VALUE_BYTES; at += 4) value.writeUInt32LE(Math.imul(at, 2654435761) >>> 0, at);
  return value;
}

function tally(exchanges: readonly Exchange[], into: Map<number, number>): void {
  for (const { status } of exchanges) into.set(status, (into.get(status) ?? 0) + 1);
}

async function uploadAtOnce({ url }: ServerProcess, token: string, value: Buffer): Promise<Exchange[]> {
  const upload = (client: number) => {
    const fields = `Host: 127.0.0.1\r\nAuthorization: Bearer ${token}\r\nContent-Length: ${value.length}\r\n`;
    const head = Buffer.from(`POST /${BUCKET}/${client} HTTP/1.1\r\n${fields}\r\n`);
    return exchange(url, { head, body: value, isSlow: false });
  };
  return Promise.all(Array.from({ length: CLIENTS }, (_, client) => upload(client)));
}

async function readSlowly({ url }: ServerProcess, token: string, keys: readonly number[]): Promise<Exchange[]> {
  const read = (client: number) => {
    const head = getRequest(`/${BUCKET}/${keys[client % keys.length]}`, token);
    return exchange(url, { head, body: null, isSlow: true });
  };
  return Promise.all(Array.from({ length: CLIENTS }, (_, client) => read(client)));
}

async function requireAlive(server: ServerProcess): Promise<void> {
  const response = await fetch(`${server.url}/livez`).catch(() => null);
  if (response?.status !== 200) throw new InvalidRun(`the server did not survive:\n${server.log().slice(-2000)}`);
}

function requireTally(name: string, counts: ReadonlyMap<number, number>): void {
  const odd = [...counts].filter(([status]) => status !== 200 && status !== 503);
  if (odd.length > 0) {
    const list = odd.map(([status, count]) => `${count} × ${status === 0 ? "no answer" : status}`).join(", ");
    throw new InvalidRun(`${name}: ${list}, besides 200 and 503`);
  }
  if (!counts.has(200)) throw new InvalidRun(`${name}: not one was served`);
}

async function run(bench: Bench): Promise<Figure[]> {
  using limit = memoryLimit(LIMIT_BYTES);
  await using server = await startBenchServer(bench.newPath(), {}, limit?.wrapper ?? []);
  const value = largeValue();
  const uploads = new Map<number, number>();
  const reads = new Map<number, number>();
  const stored = new Set<number>();
  for (let round = 0; round < sized(bench, 5, 2); round++) {
    const answers = await uploadAtOnce(server, bench.token, value);
    await requireAlive(server);
    tally(answers, uploads);
    for (const [client, { status }] of answers.entries()) if (status === 200) stored.add(client);
  }
  const uploadMb = residentMb(server.pid, "VmHWM");
  for (let round = 0; round < sized(bench, 3, 1); round++) {
    const answers = await readSlowly(server, bench.token, [...stored]);
    await requireAlive(server);
    tally(answers, reads);
    const isTorn = answers.some(({ status, body }) => status === 200 && !body.equals(value));
    if (isTorn) throw new InvalidRun("a slow reader did not get the stored bytes");
  }
  requireTally(`${CLIENTS} uploads at once`, uploads);
  requireTally(`${CLIENTS} slow readers`, reads);
  await requireStatuses(server.url, bench.token, [200, 503]);
  const bound = limit === null ? "watched only" : "enforced";
  const bothMb = residentMb(server.pid, "VmHWM");
  const name = (what: string) => `${what} of 8 MB at once, most memory (300 MB ${bound})`;
  const share = (counts: ReadonlyMap<number, number>) =>
    (100 * counts.get(200)!) / [...counts.values()].reduce((sum, count) => sum + count, 0);
  return [
    atMost(300, { name: name(`${CLIENTS} POSTs`), unit: "MB", measured: uploadMb }),
    atMost(300, { name: name(`${CLIENTS} slow readers`), unit: "MB", measured: bothMb }),
    reported({ name: "  uploads stored, the others 503", unit: "%", measured: share(uploads) }),
    reported({ name: "  slow readers served, the others 503", unit: "%", measured: share(reads) }),
  ];
}

export const MEMORY: Benchmark = { name: "memory", run };
