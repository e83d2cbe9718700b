// A queue for what takes long: one at a time, callers in turn, and without those who have left.

import { AppError, nobodyWaits } from "../shared/errors.ts";

interface Waiting {
  begin(): void;
  refuse(error: AppError): void;
}

export class TurnQueue {
  readonly #lengthMax: number;
  /** Who waits, by caller; the turn is the first caller's, who then goes to the end. */
  readonly #callers = new Map<string, Waiting[]>();
  #length = 0;
  #isBusy = false;

  /** What waits must not grow without bound: at most `lengthMax`. */
  constructor(lengthMax: number) {
    this.#lengthMax = lengthMax;
  }

  /** Runs `act` when it is the caller's turn. @throws AppError overloaded, unavailable when `signal` comes first */
  async run<T>(caller: string, signal: AbortSignal | null, act: () => Promise<T>): Promise<T> {
    if (signal?.aborted) throw nobodyWaits();
    if (this.#isBusy) await this.#turnOf(caller, signal);
    this.#isBusy = true;
    try {
      return await act();
    } finally {
      this.#next();
    }
  }

  async #turnOf(caller: string, signal: AbortSignal | null): Promise<void> {
    if (this.#length === this.#lengthMax) this.#makeRoom(caller);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const waiting = { begin: resolve, refuse: reject };
    const leave = () => {
      this.#remove(caller, waiting);
      reject(nobodyWaits());
    };
    this.#add(caller, waiting);
    signal?.addEventListener("abort", leave);
    try {
      await promise;
    } finally {
      signal?.removeEventListener("abort", leave);
    }
  }

  /** The place is free at once, or goes to the next without anybody between. */
  #next(): void {
    const [next] = this.#callers;
    if (next === undefined) {
      this.#isBusy = false;
      return;
    }
    const [caller, [first, ...others]] = next;
    this.#callers.delete(caller);
    if (others.length > 0) this.#callers.set(caller, others);
    this.#length--;
    first!.begin();
  }

  /** Who fills the queue gives way to who asks for little. @throws AppError overloaded */
  #makeRoom(caller: string): void {
    const [greediest, waiting] = [...this.#callers].reduce((most, other) =>
      other[1].length > most[1].length ? other : most,
    );
    if (waiting.length <= (this.#callers.get(caller)?.length ?? 0) + 1) throw tooMany();
    const last = waiting.at(-1)!;
    this.#remove(greediest, last);
    last.refuse(tooMany());
  }

  #add(caller: string, waiting: Waiting): void {
    const own = this.#callers.get(caller);
    if (own === undefined) this.#callers.set(caller, [waiting]);
    else own.push(waiting);
    this.#length++;
  }

  /** Does nothing once its turn has come. */
  #remove(caller: string, waiting: Waiting): void {
    const own = this.#callers.get(caller) ?? [];
    const index = own.indexOf(waiting);
    if (index < 0) return;
    own.splice(index, 1);
    if (own.length === 0) this.#callers.delete(caller);
    this.#length--;
  }
}

function tooMany(): AppError {
  return new AppError("overloaded", "Too many long lists are waiting. Try again.");
}
