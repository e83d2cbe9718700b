// Bytes on a socket, as they are: what no well-behaved client can send.

import { connect } from "node:net";

export interface RawAnswer {
  /** Everything received until the server closed, or went silent. One character per byte. */
  readonly text: string;
  /** Status codes of the responses in it, in order. */
  readonly statuses: readonly number[];
  readonly isClosed: boolean;
}

export interface RawOptions {
  /** How many answers are waited for; 1 unless given. */
  readonly answers?: number;
  /** How long the server may be silent before it has given them. */
  readonly answerMs?: number;
  /** Silence after them that counts as the end. */
  readonly quietMs?: number;
  /** Each part is sent once the one before it is answered, however long that takes. */
  readonly isInTurn?: boolean;
  /** End our side after the last part, as a client does that has gone. */
  readonly isHalfClosed?: boolean;
}

const ANSWER_MS = 30_000;
const QUIET_MS = 50;
const BETWEEN_PARTS_MS = 30;

/** Sends `bytes` and gathers what comes back. Several parts are sent one after the other with a pause between. */
export function sendRaw(
  url: string,
  bytes: string | Uint8Array | readonly (string | Uint8Array)[],
  { answers = 1, answerMs = ANSWER_MS, quietMs = QUIET_MS, isInTurn = false, isHalfClosed = false }: RawOptions = {},
): Promise<RawAnswer> {
  const { hostname, port } = new URL(url);
  const parts = typeof bytes === "string" || bytes instanceof Uint8Array ? [bytes] : bytes;
  return new Promise((resolve) => {
    const socket = connect({ host: hostname, port: Number(port) });
    let text = "";
    let isClosed = false;
    let timer: Timer;
    const finish = () => {
      clearTimeout(timer);
      socket.destroy();
      resolve({ text, statuses: statusesIn(text), isClosed });
    };
    const arm = () => {
      clearTimeout(timer);
      timer = setTimeout(finish, statusesIn(text).length < answers ? answerMs : quietMs);
    };
    socket.on("connect", async () => {
      for (const [index, part] of parts.entries()) {
        if (index > 0) await Bun.sleep(BETWEEN_PARTS_MS);
        while (isInTurn && !isClosed && statusesIn(text).length < index) await Bun.sleep(BETWEEN_PARTS_MS);
        if (!socket.destroyed) socket.write(typeof part === "string" ? Buffer.from(part, "latin1") : part);
      }
      if (isHalfClosed && !socket.destroyed) socket.end();
      if (!isClosed) arm();
    });
    socket.on("data", (chunk) => {
      text += chunk.toString("latin1");
      arm();
    });
    socket.on("close", () => {
      isClosed = true;
      finish();
    });
    socket.on("error", () => undefined);
  });
}

function statusesIn(text: string): number[] {
  return [...text.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map((match) => Number(match[1]));
}

/** A connection that stays open: requests that are held back half-way, readers that do not read. */
export interface RawConnection extends Disposable {
  send(bytes: string | Uint8Array): void;
  /** Resolves with everything received as soon as it matches; rejects when the server closes before that. */
  received(pattern: RegExp): Promise<string>;
  /** Resolves with everything received when the server has closed. */
  closed(): Promise<string>;
  /** Stops taking bytes from the kernel, so that the server feels it. */
  pause(): void;
  resume(): void;
}

export async function openRaw(url: string): Promise<RawConnection> {
  const { hostname, port } = new URL(url);
  const socket = connect({ host: hostname, port: Number(port) });
  let text = "";
  let onChange = () => {};
  socket.on("data", (chunk) => {
    text += chunk.toString("latin1");
    onChange();
  });
  socket.on("close", () => onChange());
  await new Promise<void>((resolve, reject) => socket.once("connect", resolve).once("error", reject));
  socket.on("error", () => undefined);
  return {
    send: (bytes) => void socket.write(typeof bytes === "string" ? Buffer.from(bytes, "latin1") : bytes),
    received: (pattern) =>
      new Promise((resolve, reject) => {
        onChange = () => {
          if (pattern.test(text)) resolve(text);
          else if (socket.closed) reject(new Error(`the server closed after ${JSON.stringify(text)}`));
        };
        onChange();
      }),
    closed: () =>
      new Promise((resolve) => {
        onChange = () => socket.closed && resolve(text);
        onChange();
      }),
    pause: () => void socket.pause(),
    resume: () => void socket.resume(),
    [Symbol.dispose]: () => void socket.destroy(),
  };
}
