// The upstream of the relay's benchmarks: a provider that costs next to nothing, so that what is measured is the relay.
// In a process of its own, on bare sockets, which also tell it exactly when a connection was opened and closed.

import { join } from "node:path";
import type { Socket } from "bun";
import { InvalidRun } from "./figures.ts";
import { readLines } from "./read-lines.ts";

/** What a request asks of it, by the name of its model: the same for everything that stands in between. */
export interface UpstreamPlan {
  /** Before the answer, or before the first event. */
  readonly delayMs: number;
  /** Events of a stream, besides its closing mark; 0 = one JSON answer. */
  readonly events: number;
  /** Between two events; 0 = all in one piece. */
  readonly everyMs: number;
}

export function modelOf({ delayMs, events, everyMs }: UpstreamPlan): string {
  return `after-${delayMs}-events-${events}-every-${everyMs}`;
}

export interface UpstreamCounts {
  /** Connections since the start, and open ones. */
  readonly accepted: number;
  readonly open: number;
  readonly requests: number;
  /** When connections were closed under an answer that had not ended, in milliseconds since 1970. */
  readonly abortedAtMs: readonly number[];
}

export interface QuickUpstream extends AsyncDisposable {
  /** Without a path. */
  readonly url: string;
  readonly pid: number;
  counts(): Promise<UpstreamCounts>;
}

/** Not pinned to any cores: what is measured and its floors call the same one. */
export async function startQuickUpstream(): Promise<QuickUpstream> {
  const child = Bun.spawn([process.execPath, join(import.meta.dir, "quick-upstream.ts")], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "inherit",
  });
  const { value: url } = await readLines(child.stdout).next();
  if (url === undefined) throw new Error(`the upstream ended with ${await child.exited}`);
  return {
    url,
    pid: child.pid,
    async counts() {
      const response = await fetch(`${url}/counts`, { headers: { Connection: "close" } });
      if (response.status !== 200) throw new InvalidRun(`the upstream answers ${response.status}`);
      return (await response.json()) as UpstreamCounts;
    },
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await child.exited;
    },
  };
}

/** The text of event number `index` of every stream. */
function eventText(index: number): string {
  const choices = [{ index: 0, delta: { content: `${index} ` }, finish_reason: null }];
  const chunk = { id: "chatcmpl-1", object: "chat.completion.chunk", created: 1_790_000_000, model: "quick", choices };
  return `data: ${JSON.stringify(chunk)}\n\n`;
}

const LAST_EVENTS = [
  `data: ${JSON.stringify({
    id: "chatcmpl-1",
    object: "chat.completion.chunk",
    created: 1_790_000_000,
    model: "quick",
    choices: [{ index: 0, delta: {}, finish_reason: "stop" }],
    usage: { prompt_tokens: 10, completion_tokens: 20, total_tokens: 30 },
  })}\n\n`,
  "data: [DONE]\n\n",
].join("");

/** What the one JSON answer says. */
export const ANSWER_TEXT = "A model would have said something here, in a sentence or two.";

const ANSWER = JSON.stringify({
  id: "chatcmpl-1",
  object: "chat.completion",
  created: 1_790_000_000,
  model: "quick",
  choices: [{ index: 0, message: { role: "assistant", content: ANSWER_TEXT }, logprobs: null, finish_reason: "stop" }],
  usage: { prompt_tokens: 10, completion_tokens: 20, total_tokens: 30 },
});

const JSON_HEAD = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
const STREAM_HEAD = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
const HEAD_END = "\r\n\r\n";
const LAST_CHUNK = "0\r\n\r\n";

function chunked(text: string): string {
  return `${text.length.toString(16)}\r\n${text}\r\n`;
}

function jsonAnswer(text: string): Buffer {
  return Buffer.from(`${JSON_HEAD}Content-Length: ${text.length}\r\n\r\n${text}`, "latin1");
}

interface Peer {
  received: string;
  /** Whether an answer is under way. */
  isBusy: boolean;
  timer: ReturnType<typeof setTimeout> | null;
}

/** What the process of its own does. */
class Upstream {
  readonly #answer = jsonAnswer(ANSWER);
  /** Whole streams that go out in one piece, by their number of events. */
  readonly #streams = new Map<number, Buffer>();
  #accepted = 0;
  #open = 0;
  #requests = 0;
  readonly #abortedAtMs: number[] = [];

  listen(): string {
    const { port } = Bun.listen<Peer>({
      hostname: "127.0.0.1",
      port: 0,
      socket: {
        open: (socket) => {
          socket.data = { received: "", isBusy: false, timer: null };
          socket.setNoDelay(true);
          this.#accepted++;
          this.#open++;
        },
        data: (socket, chunk) => this.#receive(socket, chunk.toString("latin1")),
        close: (socket) => this.#close(socket.data),
        error: () => undefined,
      },
    });
    return `http://127.0.0.1:${port}`;
  }

  #close(peer: Peer): void {
    this.#open--;
    if (peer.timer !== null) clearTimeout(peer.timer);
    if (peer.isBusy) this.#abortedAtMs.push(performance.timeOrigin + performance.now());
  }

  #receive(socket: Socket<Peer>, chunk: string): void {
    const peer = socket.data;
    peer.received += chunk;
    const headEnd = peer.received.indexOf(HEAD_END);
    if (headEnd < 0) return;
    const head = peer.received.slice(0, headEnd);
    const length = Number(/\r\ncontent-length: *(\d+)/i.exec(head)?.[1] ?? 0);
    const bodyAt = headEnd + HEAD_END.length;
    if (peer.received.length < bodyAt + length) return;
    const body = peer.received.slice(bodyAt, bodyAt + length);
    peer.received = peer.received.slice(bodyAt + length);
    if (head.startsWith("GET")) {
      this.#send(socket, jsonAnswer(JSON.stringify(this.#counts())));
      return;
    }
    this.#requests++;
    const [, delay, events, every] = /"model":"after-(\d+)-events-(\d+)-every-(\d+)"/.exec(body) ?? [];
    peer.isBusy = true;
    const respond = () => this.#respond(socket, Number(events ?? 0), Number(every ?? 0));
    if (Number(delay ?? 0) === 0) respond();
    else peer.timer = setTimeout(respond, Number(delay));
  }

  #respond(socket: Socket<Peer>, events: number, everyMs: number): void {
    if (events > 0 && everyMs > 0) {
      this.#stream(socket, events, everyMs);
    } else {
      socket.data.isBusy = false;
      this.#send(socket, events === 0 ? this.#answer : this.#wholeStream(events));
    }
  }

  #stream(socket: Socket<Peer>, events: number, everyMs: number): void {
    const peer = socket.data;
    let index = 0;
    const next = () => {
      const head = index === 0 ? STREAM_HEAD : "";
      const isLast = index === events;
      const text = isLast ? chunked(LAST_EVENTS) + LAST_CHUNK : head + chunked(eventText(index));
      index++;
      if (isLast) {
        clearInterval(timer);
        peer.isBusy = false;
      }
      this.#send(socket, Buffer.from(text, "latin1"));
    };
    const timer = setInterval(next, everyMs);
    peer.timer = timer;
    next();
  }

  #wholeStream(events: number): Buffer {
    const known = this.#streams.get(events);
    if (known !== undefined) return known;
    const texts = Array.from({ length: events }, (_, index) => chunked(eventText(index)));
    const made = Buffer.from(STREAM_HEAD + texts.join("") + chunked(LAST_EVENTS) + LAST_CHUNK, "latin1");
    this.#streams.set(events, made);
    return made;
  }

  /** Answers are small enough for the buffer of a socket; one that does not fit is for nobody who reads. */
  #send(socket: Socket<Peer>, bytes: Buffer): void {
    if (socket.write(bytes) !== bytes.length) socket.terminate();
  }

  #counts(): UpstreamCounts {
    return {
      accepted: this.#accepted,
      open: this.#open,
      requests: this.#requests,
      abortedAtMs: this.#abortedAtMs,
    };
  }
}

if (import.meta.main) console.log(new Upstream().listen());
