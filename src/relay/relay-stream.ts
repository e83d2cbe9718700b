// A stream on its way from an upstream to a client: whole events, byte for byte, no faster than the client reads.

import { UNREAD_SECONDS_MAX } from "../shared/bounds.ts";
import { lacksLineFeed } from "./event-splitter.ts";
import type { Endpoint } from "./relay-endpoints.ts";
import { type ErrorObject, streamError } from "./relay-errors.ts";
import type { StreamWatch } from "./stream-watch.ts";
import type { UpstreamEvents } from "./upstream-events.ts";

/** A comment in every silence of this length keeps proxies and clients patient. */
const PING_MS = 15_000;

const PING = new TextEncoder().encode(": ping\n\n");
const LINE_FEED = new TextEncoder().encode("\n");
const DONE = new TextEncoder().encode("data: [DONE]\n\n");

/**
 * How a stream came to its end; its time was over: `late` while its upstream was waited for, `unread` otherwise. It was
 * `oversized` when an event was larger than we take.
 */
export type StreamEnd =
  | "complete"
  | "interrupted"
  | "oversized"
  | "late"
  | "unread"
  | "upstream_error"
  | "client_gone"
  | "shutting_down";

interface StreamParts {
  readonly endpoint: Endpoint;
  readonly source: UpstreamEvents;
  readonly watch: StreamWatch;
  /** What was read before the answer was committed: at least one event. */
  readonly first: readonly Uint8Array[];
  /** Whether our own deadline has ended the source. */
  readonly isOverdue: () => boolean;
  /** Aborts when the client has left, also before it has read anything. */
  readonly clientGone: AbortSignal;
  /** The client has left: "cancel" gives the upstream up, "drain" reads it to its end for exact usage. */
  readonly onClientGone: "cancel" | "drain";
  /** Called for every event that is sent, or piece of one, for the cache. */
  readonly onEvent: (event: Uint8Array) => void;
  /** Called once, when nothing more will be sent or read. */
  readonly onEnd: (end: StreamEnd) => void;
}

type Controller = ReadableStreamDefaultController<Uint8Array>;

export class RelayStream {
  readonly #parts: StreamParts;
  readonly body: ReadableStream<Uint8Array>;
  #waiting: Uint8Array[];
  #controller: Controller | null = null;
  #reading: Promise<Uint8Array[] | null> | null = null;
  #unreadTimer: ReturnType<typeof setTimeout> | null = null;
  /** When its time was over nobody waited for the upstream: the client had not taken what was there. */
  #wasUnread = false;
  #end: StreamEnd | null = null;
  #isLeft = false;

  constructor(parts: StreamParts) {
    this.#parts = parts;
    this.#waiting = [...parts.first];
    this.body = new ReadableStream<Uint8Array>(
      {
        start: (controller) => {
          this.#controller = controller;
        },
        pull: (controller) => this.#pull(controller),
        cancel: () => this.#leave(),
      },
      { highWaterMark: 0 },
    );
    parts.clientGone.addEventListener("abort", this.#leave, { once: true });
    // Not at once: whoever makes this stream does not have it yet.
    if (parts.clientGone.aborted) queueMicrotask(this.#leave);
    this.#watchReader();
  }

  /** Ends the stream, with an error that its client sees if it is still there: the server stops. */
  interrupt(): void {
    if (this.#end !== null || this.#controller === null) return;
    if (this.#isLeft) {
      this.#parts.source.cancel();
      this.#settle("client_gone");
      return;
    }
    this.#finish(this.#controller, "shutting_down", [this.#errorEvent(streamError("server_shutting_down"))]);
  }

  /** Sends something or ends: a turn that sends nothing would be the last. */
  async #pull(controller: Controller): Promise<void> {
    this.#clearUnread();
    for (let hasSent = false; !hasSent && this.#end === null; ) {
      const events = this.#waiting.length > 0 ? this.#waiting : await this.#nextOrPing();
      this.#waiting = [];
      if (this.#end !== null || this.#isLeft) return;
      if (events === null) return this.#endOfUpstream(controller);
      hasSent = events === "ping" ? this.#ping(controller) : this.#send(controller, events);
    }
    if (this.#end === null && !this.#isLeft) this.#watchReader();
  }

  /** Events of the upstream, null at its end, "ping" when it is silent. The read goes on for the next turn. */
  async #nextOrPing(): Promise<Uint8Array[] | null | "ping"> {
    const { promise: silence, resolve } = Promise.withResolvers<"ping">();
    const timer = setTimeout(() => resolve("ping"), PING_MS);
    if (this.#reading === null) {
      this.#wasUnread = this.#parts.isOverdue();
      this.#reading = this.#parts.source.next();
    }
    const events = await Promise.race([this.#reading, silence]);
    clearTimeout(timer);
    if (events !== "ping") this.#reading = null;
    return events;
  }

  #ping(controller: Controller): boolean {
    controller.enqueue(PING);
    return true;
  }

  /** Whether anything of `events` is for the client. */
  #send(controller: Controller, events: readonly Uint8Array[]): boolean {
    const { watch, onEvent } = this.#parts;
    const sent: Uint8Array[] = [];
    for (const event of events) {
      const verdict = watch.see(event);
      if (verdict === "drop") continue;
      if (verdict !== "pass" && "error" in verdict) {
        this.#finish(controller, "upstream_error", [...sent, this.#errorEvent(verdict.error)]);
        return true;
      }
      const passed = verdict === "pass" ? event : verdict.event;
      onEvent(passed);
      sent.push(passed);
      if (watch.isDone) {
        // Nothing more is read, and some clients take no event before its last line end is whole.
        if (lacksLineFeed(passed)) {
          onEvent(LINE_FEED);
          sent.push(LINE_FEED);
        }
        this.#finish(controller, "complete", sent);
        return true;
      }
    }
    enqueueAll(controller, sent);
    return sent.length > 0;
  }

  #endOfUpstream(controller: Controller): void {
    const { watch, endpoint } = this.#parts;
    if (!watch.isComplete) {
      this.#finish(controller, this.#earlyEnd(), [this.#errorEvent(streamError("upstream_stream_interrupted"))]);
      return;
    }
    const closing = endpoint.name === "responses" || watch.isDone ? [] : [DONE];
    for (const event of closing) this.#parts.onEvent(event);
    this.#finish(controller, "complete", closing);
  }

  #earlyEnd(): StreamEnd {
    const { source, isOverdue } = this.#parts;
    if (source.isOversized) return "oversized";
    if (!isOverdue()) return "interrupted";
    return this.#wasUnread ? "unread" : "late";
  }

  #finish(controller: Controller, end: StreamEnd, last: readonly Uint8Array[]): void {
    const { source } = this.#parts;
    enqueueAll(controller, last);
    controller.close();
    this.#settle(end);
    if (end === "complete") source.release();
    else source.cancel();
  }

  #settle(end: StreamEnd): void {
    if (this.#end !== null) return;
    this.#end = end;
    this.#clearUnread();
    this.#parts.clientGone.removeEventListener("abort", this.#leave);
    this.#parts.onEnd(end);
  }

  /** The client closed its connection. */
  readonly #leave = (): void => {
    this.#clearUnread();
    if (this.#end !== null || this.#isLeft) return;
    this.#isLeft = true;
    if (this.#parts.onClientGone === "cancel") {
      this.#parts.source.cancel();
      this.#settle("client_gone");
    } else {
      this.#drain().finally(() => this.#settle("client_gone"));
    }
  };

  async #drain(): Promise<void> {
    const { source, watch } = this.#parts;
    for (let events: readonly Uint8Array[] | null = this.#waiting; events !== null; ) {
      for (const event of events) {
        const verdict = watch.see(event);
        if ((typeof verdict === "object" && "error" in verdict) || watch.isDone) return source.release();
      }
      events = await (this.#reading ?? source.next());
      this.#reading = null;
    }
  }

  #watchReader(): void {
    this.#unreadTimer = setTimeout(() => {
      this.#controller?.error(new Error("the client takes nothing"));
      this.#parts.source.cancel();
      this.#settle("client_gone");
    }, UNREAD_SECONDS_MAX * 1000);
  }

  #clearUnread(): void {
    if (this.#unreadTimer !== null) clearTimeout(this.#unreadTimer);
    this.#unreadTimer = null;
  }

  #errorEvent(error: ErrorObject): Uint8Array {
    const { message, param, code } = error;
    const text =
      this.#parts.endpoint.name === "responses"
        ? `event: error\ndata: ${JSON.stringify({ type: "error", code, message, param })}\n\n`
        : `data: ${JSON.stringify({ error })}\n\n`;
    return new TextEncoder().encode(text);
  }
}

/** Neighbours in memory go out in one piece, as most events of one read are: each piece is a write of its own. */
function enqueueAll(controller: Controller, events: readonly Uint8Array[]): void {
  for (let first = 0, next = 1; first < events.length; first = next++) {
    const { buffer, byteOffset, length } = events[first]!;
    let end = byteOffset + length;
    for (; next < events.length && events[next]!.buffer === buffer && events[next]!.byteOffset === end; next++) {
      end += events[next]!.length;
    }
    controller.enqueue(next === first + 1 ? events[first]! : new Uint8Array(buffer, byteOffset, end - byteOffset));
  }
}
