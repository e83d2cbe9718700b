// Who is let in to the task service: users with an access token in force whose session is live.

import type { AccessClaims, UserTokens } from "../auth/user-token.ts";
import { createBoundedCache } from "../limits/bounded-cache.ts";
import { Holds } from "../limits/holds.ts";
import { MiB } from "../shared/bounds.ts";
import { AppError } from "../shared/errors.ts";
import type { Eventually } from "../shared/eventual.ts";

const CACHE_BYTES = 4 * MiB;
const USER_BYTES = 300;
const SESSION_BYTES = 120;
/** Of one user; with more, all of them are looked up again. */
const SESSIONS_KNOWN_MAX = 64;

/** What is known of a user: sessions that were live when they were looked up, and nothing has changed since. */
interface KnownUser {
  readonly tokenVersion: number;
  readonly sessionIds: Set<string>;
}

interface UserGateParts {
  readonly tokens: UserTokens;
  /** Looks it up: the session has not ended, the user is neither disabled nor deleted, the token version is today's. */
  readonly findLive: (who: AccessClaims) => Promise<boolean>;
  readonly onFailure: (reason: "missing" | "invalid") => void;
}

export class UserGate {
  readonly #parts: UserGateParts;
  readonly #known = createBoundedCache<KnownUser>(CACHE_BYTES)!;
  /** Users who are being changed, by their ids. */
  readonly #changing = new Holds<number>();

  constructor(parts: UserGateParts) {
    this.#parts = parts;
  }

  /** Without a promise for a token and a session that are known. @throws AppError unauthorized, invalid_token */
  admit(authorization: string | null): Eventually<AccessClaims> {
    if (!authorization) throw this.#refuse("missing");
    const claims = this.#parts.tokens.verify(authorization);
    return claims instanceof Promise ? claims.then((found) => this.#admitted(found)) : this.#admitted(claims);
  }

  /** Whether who was let in would be let in now, but for the end of the token. */
  isLive(who: AccessClaims): Eventually<boolean> {
    const { userId, sessionId, tokenVersion } = who;
    if (!this.#changing.isHeld(userId)) {
      const known = this.#known.get(`${userId}`);
      if (known?.tokenVersion === tokenVersion && known.sessionIds.has(sessionId)) return true;
    }
    return this.#look(who);
  }

  /**
   * To be called before a change of a user or of sessions: nothing that is known of the user is believed until the
   * function that is returned was called, and then it is looked up anew.
   */
  hold(userId: number): () => void {
    this.#known.delete(`${userId}`);
    return this.#changing.hold(userId);
  }

  #admitted(who: AccessClaims | null): Eventually<AccessClaims> {
    if (who === null) throw this.#refuse("invalid");
    const isLive = this.isLive(who);
    if (isLive === true) return who;
    return Promise.resolve(isLive).then((found) => {
      if (!found) throw this.#refuse("invalid");
      return who;
    });
  }

  async #look(who: AccessClaims): Promise<boolean> {
    const { turns } = this.#changing;
    const isLive = await this.#parts.findLive(who);
    if (isLive && turns === this.#changing.turns && !this.#changing.isHeld(who.userId)) this.#remember(who);
    return isLive;
  }

  #remember({ userId, sessionId, tokenVersion }: AccessClaims): void {
    const known = this.#known.get(`${userId}`);
    const isFit = known?.tokenVersion === tokenVersion && known.sessionIds.size < SESSIONS_KNOWN_MAX;
    const sessionIds = isFit ? known.sessionIds.add(sessionId) : new Set([sessionId]);
    this.#known.set(`${userId}`, { tokenVersion, sessionIds }, USER_BYTES + SESSION_BYTES * sessionIds.size);
  }

  #refuse(reason: "missing" | "invalid"): AppError {
    this.#parts.onFailure(reason);
    return reason === "missing"
      ? new AppError("unauthorized", "Authorization header required")
      : new AppError("invalid_token", "Invalid token");
  }
}
