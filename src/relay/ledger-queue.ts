// Reservations and settlements on their way to the store: all that came during one commit share the next.

import { AppError } from "../shared/errors.ts";
import type { UnitRunner } from "../storage/unit-of-work.ts";
import type { LedgerEntry, TokenTouch } from "./ledger-units.ts";
import type { RelayUnits } from "./relay-units.ts";

/** Entries of one commit: some ten milliseconds of work, between which other writes get their turn. */
const GROUP_ENTRIES_MAX = 64;

interface Waiting {
  readonly entry: LedgerEntry;
  readonly resolve: (result: boolean) => void;
  readonly reject: (error: unknown) => void;
}

export class LedgerQueue {
  readonly #units: UnitRunner<RelayUnits>;
  readonly #takeTouched: () => readonly TokenTouch[];
  readonly #waiting: Waiting[] = [];
  #isRunning = false;

  /** `takeTouched`: the tokens that were used since it was last called. */
  constructor(units: UnitRunner<RelayUnits>, takeTouched: () => readonly TokenTouch[]) {
    this.#units = units;
    this.#takeTouched = takeTouched;
  }

  /** Resolves after the commit was synced: false when a reservation was refused. @throws AppError */
  add(entry: LedgerEntry): Promise<boolean> {
    const { promise, resolve, reject } = Promise.withResolvers<boolean>();
    this.#waiting.push({ entry, resolve, reject });
    if (!this.#isRunning) void this.#run();
    return promise;
  }

  async #run(): Promise<void> {
    this.#isRunning = true;
    while (this.#waiting.length > 0) await this.#write(this.#waiting.splice(0, GROUP_ENTRIES_MAX));
    this.#isRunning = false;
  }

  async #write(group: readonly Waiting[]): Promise<void> {
    try {
      const entries = group.map(({ entry }) => entry);
      const results = await this.#units.run("relay.account", { entries, touched: this.#takeTouched() });
      for (const [index, { resolve }] of group.entries()) resolve(results[index]!);
    } catch (error) {
      // One that the store cannot take must not take the others with it.
      const isOfOne = error instanceof AppError && error.code === "internal_error" && group.length > 1;
      if (isOfOne) for (const single of group) await this.#write([single]);
      else for (const { reject } of group) reject(error);
    }
  }
}
