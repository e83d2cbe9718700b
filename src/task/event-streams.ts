// All live streams of this node: who may open one, what wakes them, what ends them.

import type { AccessClaims } from "../auth/user-token.ts";
import type { ByteBudget } from "../http/byte-budget.ts";
import type { Clock } from "../shared/clock.ts";
import { AppError } from "../shared/errors.ts";
import { every } from "../shared/every.ts";
import type { Log } from "../shared/log.ts";
import { LoopTurns } from "../shared/loop-turns.ts";
import { EventStream } from "./event-stream.ts";
import type { FeedStore } from "./feed-store.ts";

const STREAMS_PER_USER_MAX = 5;
/** For wake-ups that were lost, tokens that end, pings, clients that do not read. */
const CHECK_MS = 1000;

export class EventStreams {
  readonly #feed: FeedStore;
  readonly #clock: Clock;
  readonly #limit: number;
  readonly #log: Log;
  readonly #budget: ByteBudget;
  readonly #turns = new LoopTurns();
  readonly #byUser = new Map<number, Set<EventStream>>();
  #count = 0;
  #timer: Timer | null = null;
  #isClosed = false;

  /** `limit`: open at once, of all users together. */
  constructor(parts: { feed: FeedStore; clock: Clock; limit: number; budget: ByteBudget; log: Log }) {
    this.#feed = parts.feed;
    this.#clock = parts.clock;
    this.#limit = parts.limit;
    this.#budget = parts.budget;
    this.#log = parts.log;
  }

  /**
   * The body of a stream, which ends with the token of its user. `lastRev` is the one the client has seen, null = none;
   * `gone` aborts when the client has left, also before it has read anything.
   * @throws AppError too_many_streams, draining
   */
  async open(who: AccessClaims, lastRev: number | null, gone: AbortSignal): Promise<ReadableStream<Uint8Array>> {
    const stream = this.#admit(who);
    try {
      await stream.begin(lastRev, this.#clock());
    } catch (error) {
      stream.end();
      throw error;
    }
    gone.addEventListener("abort", () => stream.cut(), { once: true });
    if (gone.aborted) stream.cut();
    return stream.body;
  }

  get count(): number {
    return this.#count;
  }

  /** The feeds or the sessions of these users have changed. */
  wake(userIds: readonly number[]): void {
    const streams = userIds.flatMap((id) => [...(this.#byUser.get(id) ?? [])]);
    for (const stream of streams) stream.wake();
    // What fails here is tried again within a second, and told then.
    if (streams.length > 0) this.#endSignedOut(streams).catch(() => undefined);
  }

  /** Ends all of them, and admits no more: the server stops. */
  close(): void {
    this.#isClosed = true;
    for (const stream of this.#all()) stream.end();
  }

  #admit(who: AccessClaims): EventStream {
    if (this.#isClosed) throw new AppError("draining", "The server is shutting down.");
    const own = this.#byUser.get(who.userId) ?? new Set();
    if (own.size >= STREAMS_PER_USER_MAX) {
      throw new AppError("too_many_streams", `A user can have ${STREAMS_PER_USER_MAX} live streams at once.`);
    }
    if (this.#count >= this.#limit) throw new AppError("too_many_streams", "Too many live streams. Try again later.");
    const stream = new EventStream({
      feed: this.#feed,
      who,
      budget: this.#budget,
      turns: this.#turns,
      onEnd: (ended) => this.#forget(ended),
    });
    this.#byUser.set(who.userId, own.add(stream));
    this.#count++;
    this.#timer ??= every(CHECK_MS, this.#log, "live streams could not be looked at", () => this.#check());
    return stream;
  }

  #forget(stream: EventStream): void {
    const { userId } = stream.who;
    const own = this.#byUser.get(userId);
    if (own?.delete(stream) !== true) return;
    if (own.size === 0) this.#byUser.delete(userId);
    this.#count--;
    if (this.#count > 0 || this.#timer === null) return;
    clearInterval(this.#timer);
    this.#timer = null;
  }

  async #check(): Promise<void> {
    const nowMs = this.#clock();
    for (const stream of this.#all()) if (stream.who.expiresAtMs <= nowMs) stream.end();
    const heads = await this.#feed.heads([...this.#byUser.keys()]);
    const streams = this.#all();
    for (const stream of streams) stream.check(heads.get(stream.who.userId) ?? 0);
    if (streams.length > 0) await this.#endSignedOut(streams);
  }

  async #endSignedOut(streams: readonly EventStream[]): Promise<void> {
    const live = await this.#feed.liveSessions([...new Set(streams.map(({ who }) => who.sessionId))]);
    for (const stream of streams) if (live.get(stream.who.sessionId) !== stream.who.tokenVersion) stream.end();
  }

  #all(): EventStream[] {
    return [...this.#byUser.values()].flatMap((own) => [...own]);
  }
}
