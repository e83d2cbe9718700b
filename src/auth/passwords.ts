// Hashes of passwords: argon2id (RFC 9106), computed on the runtime's threads, so many at once and no more.

import { randomBytes } from "node:crypto";
import { AppError } from "../shared/errors.ts";

/** How many may wait for their turn; each of them is a request that is held. */
const HASHES_WAITING_MAX = 64;
const SALT_BYTES = 32;
const TAG_BYTES = 32;
const ARGON2ID = /^\$argon2id\$v=19\$m=(\d+),t=(\d+),p=1\$/;

interface PasswordCost {
  readonly memoryKib: number;
  readonly passes: number;
  /** Hashes at once: each takes `memoryKib` and a core. */
  readonly parallel: number;
}

/** Called while the verification has its turn: the next one begins afterwards. */
interface VerificationWatch {
  /** What it throws ends the verification without any work. */
  begins(): void;
  ends(isRight: boolean): void;
}

const UNWATCHED: VerificationWatch = { begins: () => undefined, ends: () => undefined };

export class Passwords {
  readonly #cost: PasswordCost;
  /** Nobody's: of the same cost as a real one, so that an unknown address takes as long as a known one. */
  readonly #dummy: string;
  readonly #waiting: (() => void)[] = [];
  #running = 0;

  constructor(cost: PasswordCost) {
    this.#cost = cost;
    const [salt, tag] = [SALT_BYTES, TAG_BYTES].map((size) => randomBytes(size).toString("base64").replace(/=+$/, ""));
    this.#dummy = `$argon2id$v=19$m=${cost.memoryKib},t=${cost.passes},p=1$${salt}$${tag}`;
  }

  /** @throws AppError busy */
  hash(password: string): Promise<string> {
    const { memoryKib: memoryCost, passes: timeCost } = this.#cost;
    return this.#inTurn(() => Bun.password.hash(password, { algorithm: "argon2id", memoryCost, timeCost }));
  }

  /**
   * Whether `password` belongs to `hash`: argon2id of any cost, or bcrypt. Without a hash it is false after the same
   * time.
   * @throws AppError busy, and what `watch.begins` throws
   */
  verify(password: string, hash: string | null, watch: VerificationWatch = UNWATCHED): Promise<boolean> {
    return this.#inTurn(async () => {
      watch.begins();
      const matches = await Bun.password.verify(password, hash ?? this.#dummy);
      const isRight = matches && hash !== null;
      watch.ends(isRight);
      return isRight;
    });
  }

  /** Whether a hash was made in another way or at another cost than new ones are. */
  isOutdated(hash: string): boolean {
    const [, memory, passes] = ARGON2ID.exec(hash) ?? [];
    return Number(memory) !== this.#cost.memoryKib || Number(passes) !== this.#cost.passes;
  }

  async #inTurn<T>(work: () => Promise<T>): Promise<T> {
    if (this.#running < this.#cost.parallel) this.#running++;
    else {
      if (this.#waiting.length >= HASHES_WAITING_MAX) {
        throw new AppError("busy", "Too many passwords are being checked. Try again.");
      }
      // Whoever is done hands its place on.
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#running--;
      else next();
    }
  }
}
