// One client of a live stream: it is sent what its user's feed holds after the rev it has, no faster than it reads.

import type { AccessClaims } from "../auth/user-token.ts";
import { BudgetShare, type ByteBudget } from "../http/byte-budget.ts";
import { KiB, UNREAD_SECONDS_MAX } from "../shared/bounds.ts";
import type { LoopTurns } from "../shared/loop-turns.ts";
import { FEED_KEPT_MS, type FeedEntry, type FeedStore } from "./feed-store.ts";
import { entryText, greeting, PING, resetText } from "./feed-text.ts";

/** Of one read, unless the first event alone is longer. */
const BATCH_ROWS = 32;
const BATCH_BYTES = 32 * KiB;
/** Who is further behind reads the lists anew, which is less than all these events. */
const BEHIND_MAX = 10_000;
/** Events that wait for a client which does not read. */
const UNSENT_MAX = 256;
const PING_MS = 15_000;

const EMPTY = new Uint8Array();

type Controller = ReadableStreamDefaultController<Uint8Array>;

interface StreamParts {
  readonly feed: FeedStore;
  readonly who: AccessClaims;
  /** For texts that are longer than a batch, from before they are read until the client has taken them. */
  readonly budget: ByteBudget;
  /** A batch is read in a turn of its own: clients that are far behind would take the event loop for themselves. */
  readonly turns: LoopTurns;
  /** Called once, when nothing more will be sent. */
  readonly onEnd: (stream: EventStream) => void;
}

export class EventStream {
  readonly who: AccessClaims;
  readonly body: ReadableStream<Uint8Array>;
  readonly #parts: StreamParts;
  #controller: Controller | null = null;
  #sentRev = 0;
  /** Where the feed was when the client came: what it missed before is not counted as unsent. */
  #startRev = 0;
  /** Not sent yet. */
  #opening: string | null = null;
  /** What is left of a long text, and its part of the budget. */
  #rest: Uint8Array = EMPTY;
  #share: BudgetShare | null = null;
  readonly #ending = new AbortController();
  #oldestMs = 0;
  /** Set while the client has taken everything and waits for more. */
  #wake: (() => void) | null = null;
  /** Something happened since the feed was last read. */
  #isStale = false;
  #isPingDue = false;
  #sentMs = performance.now();
  /** As it was at the last check. */
  #checkedRev = 0;
  #hasEnded = false;

  constructor(parts: StreamParts) {
    this.who = parts.who;
    this.#parts = parts;
    this.body = new ReadableStream<Uint8Array>(
      {
        start: (controller) => {
          this.#controller = controller;
        },
        pull: (controller) => this.#pull(controller),
        cancel: () => this.#settle(),
      },
      { highWaterMark: 0 },
    );
  }

  /** To be called before the body is read. `lastRev` is the one the client has seen; null = it begins now. */
  async begin(lastRev: number | null, nowMs: number): Promise<void> {
    const { feed, who } = this.#parts;
    const head = (await feed.heads([who.userId])).get(who.userId) ?? 0;
    this.#startRev = head;
    this.#sentRev = lastRev ?? head;
    this.#oldestMs = nowMs - FEED_KEPT_MS;
    // One that lies ahead is of another store, such as the one before a backup was restored.
    const mustReset = this.#sentRev > head || head - this.#sentRev > BEHIND_MAX;
    if (mustReset) this.#sentRev = head;
    this.#opening = mustReset ? resetText(head) : greeting(this.#sentRev);
  }

  /** The feed may have grown. */
  wake(): void {
    this.#isStale = true;
    this.#wake?.();
  }

  /** To be called about every second, with the rev the feed has come to. */
  check(headRev: number): void {
    const silentMs = performance.now() - this.#sentMs;
    const isStalled = this.#wake === null && this.#sentRev === this.#checkedRev;
    this.#checkedRev = this.#sentRev;
    if (isStalled) {
      const unsent = headRev - Math.max(this.#sentRev, this.#startRev);
      if (unsent > UNSENT_MAX || silentMs > UNREAD_SECONDS_MAX * 1000) this.cut();
    }
    if (this.#wake === null) return;
    if (headRev > this.#sentRev) this.wake();
    else if (silentMs >= PING_MS) {
      this.#isPingDue = true;
      this.#wake();
    }
  }

  /** Nothing more is sent. */
  end(): void {
    if (!this.#hasEnded) this.#controller?.close();
    this.#settle();
  }

  /** As `end`, and what the client has not taken is dropped. */
  cut(): void {
    if (!this.#hasEnded) this.#controller?.error(new Error("the client takes nothing"));
    this.#settle();
  }

  #settle(): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.#rest = EMPTY;
    this.#share?.release();
    this.#ending.abort();
    this.#wake?.();
    this.#parts.onEnd(this);
  }

  /** Sends something or ends: a turn that sends nothing would be the last. */
  async #pull(controller: Controller): Promise<void> {
    try {
      while (this.#rest.length === 0 && !this.#hasEnded) {
        this.#share?.release();
        this.#rest = new TextEncoder().encode(await this.#next());
      }
      if (this.#hasEnded) return;
      this.#sentMs = performance.now();
      // A copy: the runtime may keep it for longer than what it was cut from.
      controller.enqueue(this.#rest.slice(0, BATCH_BYTES));
      this.#rest = this.#rest.subarray(BATCH_BYTES);
    } catch (error) {
      if (!this.#hasEnded) controller.error(error);
      this.#settle();
    }
  }

  /** Waits for something to send; may be "" when there was nothing after all. */
  async #next(): Promise<string> {
    if (this.#opening !== null) {
      const text = this.#opening;
      this.#opening = null;
      return text;
    }
    const { feed, turns } = this.#parts;
    await turns.next();
    this.#isStale = false;
    const { rows, bytes } = await feed.ahead(this.who.userId, this.#sentRev, BATCH_ROWS, BATCH_BYTES);
    if (rows > 0 || this.#sentRev < this.#startRev) {
      if (bytes > BATCH_BYTES && !(await this.#hold(bytes))) return "";
      return this.#textOf(await feed.after(this.who.userId, this.#sentRev, rows));
    }
    // It came while the feed was being read.
    if (this.#isStale) return "";
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
    this.#wake = null;
    if (!this.#isPingDue) return "";
    this.#isPingDue = false;
    return PING;
  }

  /** False = others have left too much unread for as long as they may, or this stream has ended. */
  async #hold(bytes: number): Promise<boolean> {
    const budget = this.#parts.budget.ofHolder(`user ${this.who.userId}`);
    const wanted = Math.min(bytes, budget.limitBytes);
    this.#share = await BudgetShare.take(budget, wanted, UNREAD_SECONDS_MAX * 1000, this.#ending.signal);
    if (this.#hasEnded) this.#share?.release();
    else if (this.#share === null) this.cut();
    return !this.#hasEnded;
  }

  /** A hole, or nothing at all, means that what was there has been removed for its age. */
  async #textOf(entries: readonly FeedEntry[]): Promise<string> {
    const { feed } = this.#parts;
    const hasHole = entries.some(({ rev }, index) => rev !== this.#sentRev + 1 + index);
    const last = entries.at(-1);
    if (last === undefined || hasHole || entries[0]!.atMs < this.#oldestMs) {
      this.#sentRev = (await feed.heads([this.who.userId])).get(this.who.userId) ?? this.#sentRev;
      return resetText(this.#sentRev);
    }
    this.#sentRev = last.rev;
    return entries.map(entryText).join("");
  }
}
