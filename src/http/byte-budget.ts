// Memory for bodies as a budget: what does not fit is refused or waits its turn, instead of killing the process.

import { IDLE_SECONDS } from "../shared/bounds.ts";
import { type Clock, monotonicMs } from "../shared/clock.ts";

/** Beyond what any connection may be idle. */
const OLD_AFTER_MS = IDLE_SECONDS * 1000;

/** Whoever holds bytes that somebody else may need more. */
export interface Yielding {
  heldBytes(): number;
  /** Called once. Has to release them at once. */
  giveWay(): void;
}

type Registered = { yielding: Yielding | null; readonly oldFromMs: number };
type Waiting = { readonly bytes: number; grant(isGranted: boolean): void };

export class ByteBudget {
  readonly limitBytes: number;
  readonly #now: Clock;
  #used = 0;
  readonly #waiting: Waiting[] = [];
  /** In the order in which they began. */
  readonly #yielding = new Set<Registered>();

  constructor(limitBytes: number, now: Clock = monotonicMs) {
    this.limitBytes = limitBytes;
    this.#now = now;
  }

  get usedBytes(): number {
    return this.#used;
  }

  /** What has been asked for and is not granted yet. */
  get waitingBytes(): number {
    return this.#waiting.reduce((total, { bytes }) => total + bytes, 0);
  }

  /** Takes the bytes at once or not at all. What has been held for long by those who yield makes room. */
  tryReserve(bytes: number): boolean {
    if (this.#used + bytes > this.limitBytes && !this.#makeRoom(bytes)) return false;
    this.#used += bytes;
    return true;
  }

  /** After a while `yielding` is asked to give way when somebody else needs what it holds. Returns what ends that. */
  yieldWhenOld(yielding: Yielding): () => void {
    const registered: Registered = { yielding, oldFromMs: this.#now() + OLD_AFTER_MS };
    this.#yielding.add(registered);
    return () => {
      this.#yielding.delete(registered);
      // A set may refer for a while to what it has let go of.
      registered.yielding = null;
    };
  }

  /** Waits in order for up to `waitMs`. False = not granted, nothing reserved. */
  async reserve(bytes: number, waitMs: number): Promise<boolean> {
    if (this.#waiting.length === 0 && this.tryReserve(bytes)) return true;
    if (bytes > this.limitBytes) return false;
    return new Promise<boolean>((resolve) => {
      const waiting: Waiting = {
        bytes,
        grant: (isGranted) => {
          clearTimeout(timer);
          resolve(isGranted);
        },
      };
      const timer = setTimeout(() => {
        this.#waiting.splice(this.#waiting.indexOf(waiting), 1);
        waiting.grant(false);
        this.#grantWaiting();
      }, waitMs);
      this.#waiting.push(waiting);
    });
  }

  release(bytes: number): void {
    this.#used -= bytes;
    this.#grantWaiting();
  }

  /** The oldest give way, as many as it takes; none of them when all of them were not enough. */
  #makeRoom(bytes: number): boolean {
    const nowMs = this.#now();
    const leaving: Registered[] = [];
    let missing = this.#used + bytes - this.limitBytes;
    for (const registered of this.#yielding) {
      if (missing <= 0 || registered.oldFromMs > nowMs) break;
      leaving.push(registered);
      missing -= registered.yielding!.heldBytes();
    }
    if (missing > 0) return false;
    for (const registered of leaving) {
      this.#yielding.delete(registered);
      registered.yielding!.giveWay();
    }
    // Those who waited for room come first.
    return this.#used + bytes <= this.limitBytes;
  }

  #grantWaiting(): void {
    while (this.#waiting[0] !== undefined && this.tryReserve(this.#waiting[0].bytes)) {
      this.#waiting.shift()!.grant(true);
    }
  }
}

/** A part of a budget, given back once however often it is released. */
export class BudgetShare {
  readonly #budget: ByteBudget;
  #bytes: number;

  private constructor(budget: ByteBudget, bytes: number) {
    this.#budget = budget;
    this.#bytes = bytes;
  }

  /** Null when the budget has no such room within `waitMs`. */
  static async take(budget: ByteBudget, bytes: number, waitMs: number): Promise<BudgetShare | null> {
    return (await budget.reserve(bytes, waitMs)) ? new BudgetShare(budget, bytes) : null;
  }

  /** Gives back what lies above `bytes`. */
  shrinkTo(bytes: number): void {
    const spare = Math.max(0, this.#bytes - bytes);
    this.#bytes -= spare;
    this.#budget.release(spare);
  }

  release(): void {
    this.shrinkTo(0);
  }
}

/** A part of a budget that grows while nobody knows how much is to come. */
export class GrowingShare {
  readonly #budget: ByteBudget;
  #bytes = 0;

  constructor(budget: ByteBudget) {
    this.#budget = budget;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** False = the budget has no such room, and the share is what it was. */
  tryGrowTo(bytes: number): boolean {
    const more = bytes - this.#bytes;
    if (more <= 0) return true;
    if (!this.#budget.tryReserve(more)) return false;
    // Not `bytes`: what it had may have been given up to make room for this.
    this.#bytes += more;
    return true;
  }

  /** Gives back what lies above `bytes`. */
  shrinkTo(bytes: number): void {
    const spare = Math.max(0, this.#bytes - bytes);
    this.#bytes -= spare;
    this.#budget.release(spare);
  }

  release(): void {
    this.shrinkTo(0);
  }
}
