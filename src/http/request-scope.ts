// What the server knows of one request while it is at work: created first, accounted for last.

import type { Server } from "bun";
import { IDLE_SECONDS } from "../shared/bounds.ts";
import type { Subnets } from "../shared/ip-addresses.ts";
import { clientAddress } from "./client-address.ts";
import type { BodyReader } from "./linger.ts";

export type HttpServer = Server<undefined>;

/** An incoming id is kept when it has this form: nothing in it can break a log line or a header. */
const REQUEST_ID = /^[A-Za-z0-9._-]{1,64}$/;

/** The pattern of whatever leads nowhere. */
export const UNMATCHED_ROUTE = "unmatched";

/** State that all requests of one server share. */
export interface ServerState {
  /** From the first signal on every answer closes its connection. */
  isDraining: boolean;
  /** The store has failed: readiness and liveness say so until the process is gone. */
  hasFailed: boolean;
  readonly trustedProxies: Subnets | null;
}

/** Has room for so many requests at once. */
export interface Place {
  /** @throws AppError overloaded */
  enter(scope: RequestScope): void;
  leave(scope: RequestScope): void;
}

export class RequestScope {
  readonly request: Request;
  /** As its client sent it; a surface whose ids must be its own gives it another. */
  id: string;
  readonly startedMs = performance.now();
  readonly state: ServerState;
  readonly #server: HttpServer | null;
  /** The pattern of the route, never the path: it becomes a metric label. */
  route = UNMATCHED_ROUTE;
  subject: string | null = null;
  tokenId: string | null = null;
  bytesIn = 0;
  /** Null = nobody knows: a stream whose length was not told. */
  bytesOut: number | null = 0;
  /** The answer is sent before the body was read to its end: it lingers over the rest, then the connection closes. */
  unreadBody: BodyReader | null = null;
  /** Headers that every answer of this request carries besides those of all: of the surface it came to. */
  surfaceHeaders: Record<string, string> | null = null;
  /** Counts against MAX_INFLIGHT. */
  isAdmitted = false;
  /** Where it was admitted; null = such a request is counted elsewhere. */
  place: Place | null = null;
  /** The answer is a stream that ends by itself when its client stands still. */
  isWatched = false;
  /** For the log: what stands behind an error answer. */
  failure: unknown = null;
  #clientIp: string | null | undefined;

  constructor(request: Request, server: HttpServer | null, state: ServerState) {
    this.request = request;
    this.#server = server;
    this.state = state;
    const incoming = request.headers.get("x-request-id");
    this.id = incoming !== null && REQUEST_ID.test(incoming) ? incoming : Bun.randomUUIDv7();
  }

  get isHead(): boolean {
    return this.request.method === "HEAD";
  }

  /** The peer, or what a trusted proxy says of it; null for a peer without an address. */
  get clientIp(): string | null {
    if (this.#clientIp === undefined) {
      const peer = this.#server?.requestIP(this.request)?.address ?? null;
      this.#clientIp = clientAddress(peer, this.request.headers, this.state.trustedProxies);
    }
    return this.#clientIp;
  }

  /** Silence is normal on this connection for `seconds`, while a long answer is prepared. */
  extendIdleTimeout(seconds: number): void {
    this.#server?.timeout(this.request, seconds);
  }

  /** Silence is normal for as long as `act` takes, and no longer: the connection may be kept for other requests. */
  async whileSilent<T>(act: () => Promise<T>): Promise<T> {
    this.extendIdleTimeout(0);
    try {
      return await act();
    } finally {
      this.extendIdleTimeout(IDLE_SECONDS);
    }
  }

  /**
   * A read of as many slices as there are rows takes the time that it takes, but not longer than somebody waits: `read`
   * is to give up when the signal says so.
   */
  whileReading<T>(read: (signal: AbortSignal) => Promise<T>): Promise<T> {
    return this.whileSilent(() => read(this.request.signal));
  }
}
