// Memory for bodies as a budget: what does not fit is refused or waits its turn, instead of killing the process.

import { IDLE_SECONDS } from "../shared/bounds.ts";
import { type Clock, monotonicMs } from "../shared/clock.ts";

/** Beyond what any connection may be idle. */
const OLD_AFTER_MS = IDLE_SECONDS * 1000;
/** Beyond, those who hold nothing are forgotten. */
const HOLDERS_MAX = 1_000;

/** Whoever holds bytes that somebody else may need more. */
export interface Yielding {
  heldBytes(): number;
  /** Called once. Has to release them at once. */
  giveWay(): void;
}

type Registered = { yielding: Yielding | null; readonly oldFromMs: number; readonly budget: ByteBudget };
type Waiting = { readonly bytes: number; grant(isGranted: boolean): void };

export class ByteBudget {
  readonly limitBytes: number;
  readonly #now: Clock;
  /** Itself, and what it is a part of, the nearest first. */
  readonly #levels: readonly ByteBudget[];
  readonly #parts: ByteBudget[] = [];
  readonly #holders = new Map<string, ByteBudget>();
  /** What each of them may have. */
  #holderBytes: number;
  #used = 0;
  readonly #waiting: Waiting[] = [];
  /** How many wait, in parts and with holders, too. */
  #waitingBelow = 0;
  #isGranting = false;
  /** Those of its parts, too, in the order in which they began. */
  readonly #yielding = new Set<Registered>();

  constructor(limitBytes: number, now: Clock = monotonicMs, whole: ByteBudget | null = null) {
    this.limitBytes = limitBytes;
    this.#holderBytes = limitBytes;
    this.#now = now;
    this.#levels = whole === null ? [this] : [this, ...whole.#levels];
  }

  /** For some who together may hold `limitBytes` of it, so that there is room for others; it is not set aside. */
  part(limitBytes: number): ByteBudget {
    const part = new ByteBudget(limitBytes, this.#now, this);
    this.#parts.push(part);
    return part;
  }

  /** From now on nobody who is named can have more than that of it, so that one of them leaves room for the others. */
  limitEach(holderBytes: number): void {
    this.#holderBytes = holderBytes;
  }

  /** What `name` may have of it, wherever: to be asked for when it is needed, and not kept. */
  ofHolder(name: string): ByteBudget {
    const known = this.#holders.get(name);
    if (known !== undefined) return known;
    if (this.#holders.size >= HOLDERS_MAX) this.#forgetIdleHolders();
    const holder = new ByteBudget(this.#holderBytes, this.#now, this);
    this.#holders.set(name, holder);
    return holder;
  }

  get usedBytes(): number {
    return this.#used;
  }

  /** What has been asked for and is not granted yet, by holders, too, but not in its parts. */
  get waitingBytes(): number {
    if (this.#waitingBelow === 0) return 0;
    let total = this.#waiting.reduce((sum, { bytes }) => sum + bytes, 0);
    for (const holder of this.#holders.values()) total += holder.waitingBytes;
    return total;
  }

  /** More than this share waits, here or in what it is a part of. */
  isBeset(share: number): boolean {
    return this.#levels.some((level) => level.waitingBytes > level.limitBytes * share);
  }

  /** Takes the bytes at once or not at all. What has been held for long by those who yield makes room. */
  tryReserve(bytes: number): boolean {
    if (!this.#fits(bytes) && !this.#makeRoom(bytes)) return false;
    for (const level of this.#levels) level.#used += bytes;
    return true;
  }

  /** After a while `yielding` is asked to give way when somebody else needs what it holds. Returns what ends that. */
  yieldWhenOld(yielding: Yielding): () => void {
    const registered: Registered = { yielding, oldFromMs: this.#now() + OLD_AFTER_MS, budget: this };
    for (const level of this.#levels) level.#yielding.add(registered);
    return () => this.#forget(registered);
  }

  /** Waits in order for up to `waitMs`, or until `signal` is aborted. False = not granted, nothing reserved. */
  async reserve(bytes: number, waitMs: number, signal: AbortSignal | null = null): Promise<boolean> {
    if (signal?.aborted) return false;
    if (this.#levels.every((level) => level.#waiting.length === 0) && this.tryReserve(bytes)) return true;
    if (bytes > this.limitBytes) return false;
    return new Promise<boolean>((resolve) => {
      const waiting: Waiting = {
        bytes,
        grant: (isGranted) => {
          for (const level of this.#levels) level.#waitingBelow--;
          clearTimeout(timer);
          signal?.removeEventListener("abort", giveUp);
          resolve(isGranted);
        },
      };
      const giveUp = () => {
        this.#waiting.splice(this.#waiting.indexOf(waiting), 1);
        waiting.grant(false);
        this.#grantAllWaiting();
      };
      const timer = setTimeout(giveUp, waitMs);
      signal?.addEventListener("abort", giveUp);
      this.#waiting.push(waiting);
      for (const level of this.#levels) level.#waitingBelow++;
    });
  }

  release(bytes: number): void {
    for (const level of this.#levels) level.#used -= bytes;
    this.#grantAllWaiting();
  }

  #fits(bytes: number): boolean {
    return this.#levels.every((level) => level.#used + bytes <= level.limitBytes);
  }

  /** The oldest give way, as many as it takes; none of them when all of them were not enough. */
  #makeRoom(bytes: number): boolean {
    const leaving = new Set<Registered>();
    for (const level of this.#levels) if (!level.#findLeaving(bytes, leaving)) return false;
    for (const registered of leaving) {
      const { yielding } = registered;
      // Whoever was let in by the one before may have sent it away.
      if (yielding === null) continue;
      this.#forget(registered);
      yielding.giveWay();
    }
    // Those who waited for room come first.
    return this.#fits(bytes);
  }

  /** Adds to `leaving` who has to give way here beside them. */
  #findLeaving(bytes: number, leaving: Set<Registered>): boolean {
    const nowMs = this.#now();
    let missing = this.#used + bytes - this.limitBytes;
    for (const registered of leaving) missing -= registered.yielding!.heldBytes();
    for (const registered of this.#yielding) {
      if (missing <= 0 || registered.oldFromMs > nowMs) break;
      if (leaving.has(registered)) continue;
      leaving.add(registered);
      missing -= registered.yielding!.heldBytes();
    }
    return missing <= 0;
  }

  #forget(registered: Registered): void {
    // A set may refer for a while to what it has let go of.
    registered.yielding = null;
    for (const level of registered.budget.#levels) level.#yielding.delete(registered);
  }

  /** Room in a part may be room in another, and the whole comes first. */
  #grantAllWaiting(): void {
    this.#levels.at(-1)!.#grantWaiting();
  }

  #grantWaiting(): void {
    if (this.#waitingBelow === 0) return;
    // Making room for one releases what others had, and would grant him the same again.
    if (this.#isGranting) return;
    this.#isGranting = true;
    while (this.#waiting[0] !== undefined && this.tryReserve(this.#waiting[0].bytes)) {
      this.#waiting.shift()!.grant(true);
    }
    this.#isGranting = false;
    if (this.#waiting.length > 0) return;
    for (const part of this.#parts) part.#grantWaiting();
    for (const holder of this.#holders.values()) holder.#grantWaiting();
  }

  #forgetIdleHolders(): void {
    for (const [name, holder] of this.#holders) {
      if (holder.#used === 0 && holder.#waiting.length === 0) this.#holders.delete(name);
    }
  }
}

/** A part of a budget, given back once however often it is released. It holds nothing at first, and may grow. */
export class BudgetShare {
  readonly #budget: ByteBudget;
  #bytes = 0;

  constructor(budget: ByteBudget) {
    this.#budget = budget;
  }

  /** Null when the budget has no such room within `waitMs`, or until `signal` is aborted. */
  static async take(
    budget: ByteBudget,
    bytes: number,
    waitMs: number,
    signal: AbortSignal | null = null,
  ): Promise<BudgetShare | null> {
    if (!(await budget.reserve(bytes, waitMs, signal))) return null;
    const share = new BudgetShare(budget);
    share.#bytes = bytes;
    return share;
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
