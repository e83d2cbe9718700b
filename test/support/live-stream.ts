// A client of live streams: reads server-sent events off a real connection, and remembers when each came.

import { expect } from "bun:test";
import type { Target } from "./targets.ts";
import { type Account, ask } from "./task-client.ts";

export interface LiveEvent {
  /** The rev. */
  readonly id: number;
  readonly type: string;
  /** Parsed. */
  readonly data: Record<string, unknown>;
  readonly atMs: number;
}

const WAIT_MS = 10_000;

export class LiveStream implements AsyncDisposable {
  readonly events: LiveEvent[] = [];
  /** Lines that only keep the connection alive. */
  comments = 0;
  /** As a browser keeps it for its next try. */
  lastId: number | null = null;
  hasEnded = false;
  readonly ended: Promise<void>;
  readonly #leaving: AbortController;
  #taken = 0;
  #onChange: () => void = () => undefined;

  private constructor(body: ReadableStream<Uint8Array>, leaving: AbortController) {
    this.#leaving = leaving;
    this.ended = this.#read(body).finally(() => {
      this.hasEnded = true;
      this.#onChange();
    });
  }

  /** Resolves when the server has said where the stream begins. */
  static async open(
    target: Pick<Target, "fetch">,
    { token }: Pick<Account, "token">,
    lastEventId?: number,
  ): Promise<LiveStream> {
    const leaving = new AbortController();
    const headers: Record<string, string> = lastEventId === undefined ? {} : { "Last-Event-ID": `${lastEventId}` };
    const answer = await ask(target, "GET", "/tasks/stream", { token, headers, signal: leaving.signal });
    expect([answer.status, answer.headers.get("content-type")]).toEqual([200, "text/event-stream"]);
    const stream = new LiveStream(answer.body!, leaving);
    await stream.#until(() => stream.lastId !== null, "the stream begins");
    return stream;
  }

  /** The next event that was not taken yet. */
  async next(): Promise<LiveEvent> {
    return (await this.take(1))[0]!;
  }

  async take(count: number): Promise<LiveEvent[]> {
    await this.#until(() => this.events.length >= this.#taken + count, `${count} more events`);
    this.#taken += count;
    return this.events.slice(this.#taken - count, this.#taken);
  }

  /** Everything that came and was not taken. */
  get rest(): readonly LiveEvent[] {
    return this.events.slice(this.#taken);
  }

  /** The client closes its connection. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#leaving.abort();
    await this.ended;
  }

  async #until(isSo: () => boolean, what: string): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const fail = (why: string) => reject(new Error(`${why}: ${what}; came ${JSON.stringify(this.events)}`));
    const timer = setTimeout(() => fail(`not within ${WAIT_MS} ms`), WAIT_MS);
    this.#onChange = () => {
      if (isSo()) resolve();
      else if (this.hasEnded) fail("the stream has ended before");
    };
    this.#onChange();
    await promise.finally(() => clearTimeout(timer));
  }

  async #read(body: ReadableStream<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder();
    let text = "";
    try {
      for await (const bytes of body) {
        text += decoder.decode(bytes, { stream: true });
        const blocks = text.split("\n\n");
        text = blocks.pop()!;
        for (const block of blocks) this.#take(block);
        this.#onChange();
      }
    } catch {
      // Cut off, by either side.
    }
    expect(text).toBe("");
  }

  #take(block: string): void {
    const fields = new Map<string, string>();
    for (const line of block.split("\n")) {
      const [, name, value] = /^(\w*): ?(.*)$/.exec(line)!;
      expect(fields.has(name!)).toBe(false);
      fields.set(name!, value!);
    }
    if (fields.has("")) this.comments++;
    if (fields.has("id")) this.lastId = Number(fields.get("id"));
    const data = fields.get("data");
    if (data === undefined) return;
    const type = fields.get("event") ?? "message";
    this.events.push({ id: this.lastId!, type, data: JSON.parse(data), atMs: performance.now() });
  }
}
