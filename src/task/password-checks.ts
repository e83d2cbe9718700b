// Whether a password is right: asked under the throttle, and answered alike for accounts that are not there.

import type { Passwords } from "../auth/passwords.ts";
import { networkOf } from "../http/client-address.ts";
import type { RequestScope } from "../http/request-scope.ts";
import { rateLimited } from "../limits/gcra-limiter.ts";
import type { Clock } from "../shared/clock.ts";
import { AppError } from "../shared/errors.ts";
import { EMAIL_MAX, emailKeyOf } from "./account-rules.ts";
import type { AccountStore, Credentials } from "./account-store.ts";
import type { LoginThrottle } from "./login-throttle.ts";

interface PasswordCheckParts {
  readonly clock: Clock;
  readonly store: AccountStore;
  readonly passwords: Passwords;
  readonly throttle: LoginThrottle;
}

interface Attempt {
  /** The key of the address that was given, whether anybody has it or not. */
  readonly account: string;
  readonly password: string;
  readonly hash: string | null;
  /** Null: nobody's. */
  readonly userId: number | null;
  /** By whose access token it is made. */
  readonly sessionId: string | null;
}

export class PasswordChecks {
  readonly #parts: PasswordCheckParts;

  constructor(parts: PasswordCheckParts) {
    this.#parts = parts;
  }

  /** Whose address and password these are. @throws AppError invalid_credentials, rate_limited, busy, unavailable */
  async requireRight(scope: RequestScope, email: string, password: string): Promise<Credentials> {
    const account = emailKeyOf(email).slice(0, EMAIL_MAX);
    const found = await orUnavailable(this.#parts.store.findByEmail(email));
    const owner = { hash: found?.passwordHash ?? null, userId: found?.user.id ?? null };
    const isRight = await this.isRight(scope, { account, password, ...owner, sessionId: null });
    if (found !== null && isRight) return found;
    throw new AppError("invalid_credentials", "invalid credentials");
  }

  /**
   * The throttle is asked again when its turn has come: of many attempts at once few are tried.
   * @throws AppError rate_limited, busy
   */
  async isRight(scope: RequestScope, attempt: Attempt): Promise<boolean> {
    const { account, password, hash } = attempt;
    const { throttle, passwords } = this.#parts;
    const isClosed = throttle.accountWaitMs(account) > 0;
    if (isClosed) await this.#requireKnownAddress(scope, attempt);
    const address = networkOf(scope.clientIp);
    const begins = () => {
      const waitMs = throttle.waitMs(account, address);
      if (waitMs > 0) throw rateLimited(waitMs);
      // Who came before the account was closed may be known here: the next try finds out, and may be made at once.
      if (!isClosed && throttle.accountWaitMs(account) > 0) throw rateLimited(0);
    };
    const ends = (isRight: boolean) =>
      isRight ? throttle.forgive(account, address) : throttle.noteFailure(account, address);
    begins();
    return passwords.verify(password, hash, { begins, ends });
  }

  /**
   * Who is signed in from this address is not kept out by failures from elsewhere; the session that asks does not
   * count, it may be stolen.
   * @throws AppError rate_limited
   */
  async #requireKnownAddress(scope: RequestScope, { account, userId, sessionId }: Attempt): Promise<void> {
    const { clock, store, throttle } = this.#parts;
    const addresses = userId === null ? [] : await orUnavailable(store.addressesOf(userId, sessionId, clock()));
    const network = networkOf(scope.clientIp);
    if (addresses.some((address) => networkOf(address) === network)) return;
    throw rateLimited(throttle.accountWaitMs(account));
  }
}

/** A store that does not answer says nothing about a password: 503, never 401. */
export async function orUnavailable<T>(asked: Promise<T>): Promise<T> {
  try {
    return await asked;
  } catch (error) {
    if (error instanceof AppError && error.status !== 500) throw error;
    throw new AppError("unavailable", "The store cannot be reached. Try again.", { cause: error });
  }
}
