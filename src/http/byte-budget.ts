// Memory for bodies as a budget: what does not fit is refused or waits its turn, instead of killing the process.

type Waiting = { readonly bytes: number; grant(isGranted: boolean): void };

export class ByteBudget {
  readonly limitBytes: number;
  #used = 0;
  readonly #waiting: Waiting[] = [];

  constructor(limitBytes: number) {
    this.limitBytes = limitBytes;
  }

  get usedBytes(): number {
    return this.#used;
  }

  /** What has been asked for and is not granted yet. */
  get waitingBytes(): number {
    return this.#waiting.reduce((total, { bytes }) => total + bytes, 0);
  }

  /** Takes the bytes at once or not at all. */
  tryReserve(bytes: number): boolean {
    if (this.#used + bytes > this.limitBytes) return false;
    this.#used += bytes;
    return true;
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
