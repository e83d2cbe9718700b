// What is known of other servers' addresses: which were reached lately, which were not, which are to be tried first.

import { connect } from "node:net";
import { type ConnectionOptions, connect as connectSecurely } from "node:tls";
import type { Clock } from "../shared/clock.ts";

/** An address unused for so long is dialled bare before a request goes there: fetch has no deadline for connecting. */
const FRESH_MS = 30_000;
const ADDRESSES_MAX = 4_096;
const NEVER = Number.NEGATIVE_INFINITY;

/** Of a TLS connection: the name that is asked for. Null = plain. */
export type Secured = Pick<ConnectionOptions, "servername"> | null;

interface State {
  reachedMs: number;
  failedMs: number;
  /** The last request there was answered: so a connection can be made, and TLS on it. */
  hasAnswered: boolean;
  /** A bare dial under way: requests that come in the meantime wait for the same one. */
  dial: Promise<void> | null;
}

export class OutboundDialer {
  readonly #connectMs: number;
  readonly #now: Clock;
  readonly #states = new Map<string, State>();

  constructor(connectMs: number, now: Clock) {
    this.#connectMs = connectMs;
    this.#now = now;
  }

  /** Those that failed lately come last. */
  inOrder(addresses: readonly string[], port: number): readonly string[] {
    if (addresses.length < 2) return addresses;
    const oldestMs = this.#now() - FRESH_MS;
    const hasFailed = (address: string) => (this.#states.get(keyOf(address, port))?.failedMs ?? NEVER) > oldestMs;
    return [...addresses.filter((address) => !hasFailed(address)), ...addresses.filter(hasFailed)];
  }

  /**
   * Null when a request may go there at once; otherwise settles when a connection could, or could not, be made. TLS is
   * only tried where no request was answered yet or the last one was not: elsewhere it would be done twice for nothing.
   */
  reach(address: string, port: number, secured: Secured): Promise<void> | null {
    const state = this.#stateOf(address, port);
    if (state.reachedMs > this.#now() - FRESH_MS) return null;
    state.dial ??= dialBare(address, port, state.hasAnswered ? null : secured, this.#connectMs)
      .then(
        () => {
          state.reachedMs = this.#now();
        },
        (error) => {
          this.noteFailed(address, port);
          throw error;
        },
      )
      .finally(() => {
        state.dial = null;
      });
    return state.dial;
  }

  noteAnswered(address: string, port: number): void {
    const state = this.#stateOf(address, port);
    state.reachedMs = this.#now();
    state.failedMs = NEVER;
    state.hasAnswered = true;
  }

  noteFailed(address: string, port: number): void {
    const state = this.#stateOf(address, port);
    state.reachedMs = NEVER;
    state.failedMs = this.#now();
    state.hasAnswered = false;
  }

  /** No answer came from there before it was given up: whether it can be reached has to be seen again. */
  noteSilent(address: string, port: number): void {
    const state = this.#stateOf(address, port);
    state.reachedMs = NEVER;
    state.hasAnswered = false;
  }

  #stateOf(address: string, port: number): State {
    const key = keyOf(address, port);
    const known = this.#states.get(key);
    if (known !== undefined) return known;
    // What is forgotten costs one more dial.
    if (this.#states.size >= ADDRESSES_MAX) this.#states.clear();
    const state: State = { reachedMs: NEVER, failedMs: NEVER, hasAnswered: false, dial: null };
    this.#states.set(key, state);
    return state;
  }
}

function keyOf(address: string, port: number): string {
  return `${address} ${port}`;
}

/** @throws Error with the `code` of the system, ETIMEDOUT after `timeoutMs` */
function dialBare(address: string, port: number, secured: Secured, timeoutMs: number): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  // Whose certificate it is, the request itself judges.
  const socket =
    secured === null
      ? connect({ host: address, port })
      : connectSecurely({ host: address, port, rejectUnauthorized: false, ...secured });
  const timer = setTimeout(() => {
    reject(Object.assign(new Error(`no connection within ${timeoutMs} ms`), { code: "ETIMEDOUT" }));
    socket.destroy();
  }, timeoutMs);
  socket.once(secured === null ? "connect" : "secureConnect", resolve);
  socket.on("error", reject);
  return promise.finally(() => {
    clearTimeout(timer);
    socket.destroy();
  });
}
