// How long something is left alone: until a time that can be shown, and no longer than meant if the clock is set back.

export class Cooldown {
  #untilMs = 0;
  #lengthMs = 0;

  /**
   * When it is over, in ms since 1970; 0 = it never began. A clock that was set back makes it begin anew, at most: an
   * hour gained by the clock is no hour more to wait.
   */
  untilMs(nowMs: number): number {
    this.#untilMs = Math.min(this.#untilMs, nowMs + this.#lengthMs);
    return this.#untilMs;
  }

  isOver(nowMs: number): boolean {
    return this.untilMs(nowMs) <= nowMs;
  }

  /** From now on, whatever was before. */
  begin(nowMs: number, lengthMs: number): void {
    this.#untilMs = nowMs + lengthMs;
    this.#lengthMs = lengthMs;
  }

  /** As `begin`, unless it is longer already. */
  extend(nowMs: number, lengthMs: number): void {
    if (nowMs + lengthMs > this.untilMs(nowMs)) this.begin(nowMs, lengthMs);
  }

  end(): void {
    this.#untilMs = 0;
    this.#lengthMs = 0;
  }
}
