// Signing in and staying signed in: passwords under the throttle, and pairs of tokens for sessions.

import type { Passwords } from "../auth/passwords.ts";
import type { RefreshToken, RefreshTokens } from "../auth/refresh-token.ts";
import type { AccessClaims, UserTokens } from "../auth/user-token.ts";
import type { RequestScope } from "../http/request-scope.ts";
import type { Clock } from "../shared/clock.ts";
import { AppError } from "../shared/errors.ts";
import type { Log } from "../shared/log.ts";
import type { Settings } from "../shared/settings.ts";
import { eraseRest } from "./account-erasure.ts";
import type { AccountMetrics } from "./account-metrics.ts";
import { emailKeyOf } from "./account-rules.ts";
import type { AccountStore, Credentials } from "./account-store.ts";
import type { LoginThrottle } from "./login-throttle.ts";
import { orUnavailable, PasswordChecks } from "./password-checks.ts";
import type { OpenedSession } from "./session-units.ts";
import type { User } from "./task-tables.ts";
import type { TaskUnits } from "./task-units.ts";
import type { TaskWriter } from "./task-writer.ts";
import type { UserGate } from "./user-gate.ts";

const USER_AGENT_MAX = 256;

interface AccountParts {
  readonly settings: Settings;
  readonly clock: Clock;
  readonly log: Log;
  readonly store: AccountStore;
  readonly writer: TaskWriter;
  readonly gate: UserGate;
  readonly passwords: Passwords;
  readonly tokens: UserTokens;
  readonly refreshTokens: RefreshTokens;
  readonly throttle: LoginThrottle;
  readonly metrics: AccountMetrics;
}

/** As clients get it. */
interface TokenPair {
  readonly token: string;
  readonly refresh_token: string;
  /** Of `token`, in seconds. */
  readonly expires_in: number;
  readonly token_type: "Bearer";
}

export class Accounts {
  readonly store: AccountStore;
  readonly passwords: Passwords;
  readonly #parts: AccountParts;
  readonly #checks: PasswordChecks;

  constructor(parts: AccountParts) {
    this.store = parts.store;
    this.passwords = parts.passwords;
    this.#parts = parts;
    this.#checks = new PasswordChecks(parts);
  }

  /** A write unit that changes what the gate knows of the user. Throws what the unit throws. */
  async change<Name extends keyof TaskUnits & string>(
    userId: number,
    name: Name,
    args: Parameters<TaskUnits[Name]>[1],
    stale: readonly number[] | "all" = [],
  ) {
    const { gate, writer } = this.#parts;
    const release = gate.hold(userId);
    try {
      return await writer.run(name, args, stale);
    } finally {
      release();
    }
  }

  /**
   * With all that it leaves behind. `expectedHash`: see task.deleteUser.
   * @throws AppError wrong_password, invalid_token, not_found
   */
  async delete(scope: RequestScope, userId: number, expectedHash: string | null): Promise<void> {
    const args = { userId, expectedHash, nowMs: this.#parts.clock() };
    const isAll = await this.change(userId, "task.deleteUser", args, "all");
    if (!isAll) await scope.whileSilent(() => eraseRest(this.#parts, userId));
  }

  /**
   * By an operator. With a new password, or enabled, the account is open again to whoever knows its password, however
   * many have guessed.
   * @throws AppError not_found
   */
  async administer(args: Parameters<TaskUnits["task.administerUser"]>[1]): Promise<User> {
    const user = await this.change(args.userId, "task.administerUser", args);
    const isOpened = args.passwordHash !== undefined || args.isDisabled === false;
    if (isOpened) this.#parts.throttle.forgiveAll(emailKeyOf(user.email));
    return user;
  }

  /** @throws AppError rate_limited, invalid_credentials, account_disabled, busy, unavailable, storage_full */
  async logIn(scope: RequestScope, email: string, password: string) {
    const { user, passwordHash } = await this.#checks.requireRight(scope, email, password);
    const newHash = this.passwords.isOutdated(passwordHash) ? await this.passwords.hash(password) : null;
    const { session, refresh } = this.#newSession(scope);
    const nowMs = this.#parts.clock();
    const args = { userId: user.id, expectedHash: passwordHash, newHash, session, nowMs };
    const opened = await orUnavailable(this.#parts.writer.run("task.openSession", args));
    return { user, pair: await this.pairOf(opened, refresh) };
  }

  /** As asked before what only its owner may do. @throws AppError wrong_password, rate_limited, busy */
  async requirePassword(
    { scope, who: { sessionId } }: { readonly scope: RequestScope; readonly who: AccessClaims },
    { user, passwordHash: hash }: Credentials,
    password: string,
  ): Promise<void> {
    const attempt = { account: emailKeyOf(user.email), password, hash, userId: user.id, sessionId };
    if (await this.#checks.isRight(scope, attempt)) return;
    throw new AppError("wrong_password", "wrong password");
  }

  /** @throws AppError invalid_refresh_token */
  async refresh(scope: RequestScope, text: string): Promise<TokenPair> {
    const { refreshTokens, settings, clock } = this.#parts;
    const { token, userId, sessionId } = await this.requireRefresh(text);
    const children = refreshTokens.childrenOf(token);
    const args = {
      hash: token.hash,
      childHashes: children.map(({ hash }) => hash),
      ip: scope.clientIp,
      idleMs: settings.taskRefreshIdleMs,
      nowMs: clock(),
    };
    const refreshed = await this.change(userId, "task.refreshSession", args);
    scope.subject = `${userId}`;
    if (refreshed.isReused) {
      this.#parts.metrics.countReuse();
      this.#parts.log.warn("a refresh token was used twice; its session was ended", {
        id: scope.id,
        sub: `${userId}`,
        session: sessionId,
        ip: scope.clientIp,
      });
      throw invalidRefreshToken();
    }
    return this.pairOf(refreshed.session, children.find(({ hash }) => hash === refreshed.childHash)!);
  }

  /** Whose refresh token it is, used or not, its session live or not. @throws AppError invalid_refresh_token */
  async requireRefresh(text: string): Promise<{ token: RefreshToken; userId: number; sessionId: string }> {
    const token = this.#parts.refreshTokens.parse(text);
    const found = token === null ? null : await this.store.findByRefreshHash(token.hash);
    if (token === null || found === null) throw invalidRefreshToken();
    return { token, ...found };
  }

  /** Whose it is, if the session is live. @throws AppError invalid_refresh_token */
  async requireLiveRefresh(text: string): Promise<{ userId: number; sessionId: string }> {
    const found = await this.requireRefresh(text);
    if (!(await this.store.hasLiveSession(found.sessionId, this.#parts.clock()))) throw invalidRefreshToken();
    return found;
  }

  newRefreshToken(): RefreshToken {
    return this.#parts.refreshTokens.create();
  }

  /** The access token ends no later than its session. */
  async pairOf(session: OpenedSession, refresh: RefreshToken): Promise<TokenPair> {
    const { tokens, settings, clock } = this.#parts;
    const issuedAtMs = clock();
    const expiresAtMs = Math.min(issuedAtMs + settings.taskAccessTtlMs, session.endsAtMs);
    const token = await tokens.mint({ ...session, issuedAtMs, expiresAtMs });
    const expires_in = Math.floor((expiresAtMs - issuedAtMs) / 1000);
    return { token, refresh_token: refresh.text, expires_in, token_type: "Bearer" };
  }

  #newSession({ clientIp: ip, request }: RequestScope) {
    const { settings, clock } = this.#parts;
    const nowMs = clock();
    const refresh = this.newRefreshToken();
    const session = {
      id: Bun.randomUUIDv7(),
      ip,
      refreshHash: refresh.hash,
      userAgent: request.headers.get("user-agent")?.slice(0, USER_AGENT_MAX) ?? null,
      idleUntilMs: nowMs + settings.taskRefreshIdleMs,
      expiresAtMs: nowMs + settings.taskRefreshTtlMs,
    };
    return { session, refresh };
  }
}

function invalidRefreshToken(): AppError {
  return new AppError("invalid_refresh_token", "invalid refresh token");
}
