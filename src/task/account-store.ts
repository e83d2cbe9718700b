// Accounts and sessions, as they are read: points and short pages.

import type { Kysely } from "kysely";
import type { AccessClaims } from "../auth/user-token.ts";
import { AppError } from "../shared/errors.ts";
import { SCANS_OF, type TableStore } from "../storage/unit-of-work.ts";
import { emailKeyOf, usernameKeyOf } from "./account-rules.ts";
import { taskTables } from "./task-base-units.ts";
import { type TaskTables, toUser, type User } from "./task-tables.ts";

const SESSIONS_SHOWN_MAX = 200;
const ADDRESSES_MAX = 1000;
const SCAN_ROWS = 2000;

/** A user with what a password is verified against. */
export interface Credentials {
  readonly user: User;
  readonly passwordHash: string;
}

export type SessionRow = TaskTables["task_session"];

interface UserQuery {
  /** Part of a name or an address, in any case; null = everybody. */
  readonly text: string | null;
  readonly limit: number;
  /** Go on behind this id. */
  readonly afterId: number;
}

type Store = Pick<TableStore<never>, "tables" | "scansFor">;

export class AccountStore {
  readonly #db: Kysely<TaskTables>;
  readonly #store: Pick<Store, "scansFor">;

  constructor(store: Store) {
    this.#db = taskTables(store);
    this.#store = store;
  }

  /** See UserGate. */
  async isLive({ userId, sessionId, tokenVersion }: AccessClaims): Promise<boolean> {
    const row = await this.#db
      .selectFrom("task_session")
      .innerJoin("task_user", "task_user.id", "task_session.user_id")
      .select(["user_id", "revoked_at_ms", "token_version", "disabled_at_ms", "deleted_at_ms"])
      .where("task_session.id", "=", sessionId)
      .executeTakeFirst();
    return (
      row?.user_id === userId &&
      row.token_version === tokenVersion &&
      row.revoked_at_ms === null &&
      row.disabled_at_ms === null &&
      row.deleted_at_ms === null
    );
  }

  /** Null when nobody has the address. */
  async findByEmail(email: string): Promise<Credentials | null> {
    return toCredentials(await this.#users().where("email_key", "=", emailKeyOf(email)).executeTakeFirst());
  }

  async hasUsername(username: string): Promise<boolean> {
    const users = this.#db.selectFrom("task_user").select("id");
    return (await users.where("username_key", "=", usernameKeyOf(username)).executeTakeFirst()) !== undefined;
  }

  /** @throws AppError not_found, for deleted ones as well */
  async requireCredentials(userId: number): Promise<Credentials> {
    const found = toCredentials(await this.#users().where("id", "=", userId).executeTakeFirst());
    if (found === null || found.user.deletedAtMs !== null) throw new AppError("not_found", "user not found");
    return found;
  }

  /** One that is neither disabled nor deleted, or null. */
  async findActiveByName(username: string): Promise<Pick<User, "id" | "username"> | null> {
    const row = await this.#db
      .selectFrom("task_user")
      .select(["id", "username"])
      .where("username_key", "=", usernameKeyOf(username))
      .where("disabled_at_ms", "is", null)
      .executeTakeFirst();
    return row ?? null;
  }

  /** Deleted ones too. @throws AppError not_found */
  async requireAnyUser(userId: number): Promise<User> {
    const row = await this.#users().where("id", "=", userId).executeTakeFirst();
    if (row === undefined) throw new AppError("not_found", "user not found");
    return toUser(row);
  }

  /**
   * Accounts that are not deleted, in the order of their ids: up to `limit`, fewer at the end only.
   * @throws AppError unavailable when `signal` is aborted
   */
  async listUsers({ text, limit, afterId }: UserQuery, signal: AbortSignal): Promise<readonly User[]> {
    const scans = taskTables({ tables: this.#store.scansFor(SCANS_OF.operators, signal) });
    const users = (after: number) =>
      scans
        .selectFrom("task_user")
        .selectAll()
        .where("id", ">", after)
        .where("deleted_at_ms", "is", null)
        .orderBy("id");
    if (text === null) return (await users(afterId).limit(limit).execute()).map(toUser);
    const [nameKey, emailKey] = [usernameKeyOf(text), emailKeyOf(text)];
    const found: User[] = [];
    for (let after = afterId; ; ) {
      const rows = await users(after).limit(SCAN_ROWS).execute();
      for (const row of rows) {
        const isFound = row.username_key!.includes(nameKey) || row.email_key!.includes(emailKey);
        if (isFound && found.push(toUser(row)) === limit) return found;
      }
      if (rows.length < SCAN_ROWS) return found;
      after = rows.at(-1)!.id;
    }
  }

  /** Of whichever session has this refresh token, used or not; null when none has. */
  async findByRefreshHash(hash: string): Promise<{ readonly userId: number; readonly sessionId: string } | null> {
    const row = await this.#db
      .selectFrom("task_refresh")
      .innerJoin("task_session", "task_session.id", "task_refresh.session_id")
      .select(["user_id", "session_id"])
      .where("hash", "=", hash)
      .executeTakeFirst();
    return row === undefined ? null : { userId: row.user_id, sessionId: row.session_id };
  }

  async hasLiveSession(sessionId: string, nowMs: number): Promise<boolean> {
    return (await this.#liveSessions(nowMs).where("id", "=", sessionId).executeTakeFirst()) !== undefined;
  }

  /** The newest, live at `nowMs` or ended after `sinceMs`: live ones first, so that none of them is out of reach. */
  listSessions(userId: number, nowMs: number, sinceMs: number): Promise<SessionRow[]> {
    return this.#db
      .selectFrom("task_session")
      .selectAll()
      .where("user_id", "=", userId)
      .where((eb) => eb.or([eb("revoked_at_ms", "is", null), eb("revoked_at_ms", ">", sinceMs)]))
      .where("idle_until_ms", ">", sinceMs)
      .where("expires_at_ms", ">", sinceMs)
      .orderBy(({ eb, and }) =>
        eb
          .case()
          .when(
            and([eb("revoked_at_ms", "is", null), eb("idle_until_ms", ">", nowMs), eb("expires_at_ms", ">", nowMs)]),
          )
          .then(0)
          .else(1)
          .end(),
      )
      .orderBy("id", "desc")
      .limit(SESSIONS_SHOWN_MAX)
      .execute();
  }

  /** Where live sessions of the user were seen last, but for the session `exceptId`. */
  async addressesOf(userId: number, exceptId: string | null, nowMs: number): Promise<readonly (string | null)[]> {
    const rows = await this.#liveSessions(nowMs)
      .where("user_id", "=", userId)
      .$if(exceptId !== null, (query) => query.where("id", "!=", exceptId!))
      .limit(ADDRESSES_MAX)
      .execute();
    return rows.map(({ ip }) => ip);
  }

  #liveSessions(nowMs: number) {
    return this.#db
      .selectFrom("task_session")
      .select("ip")
      .distinct()
      .where("revoked_at_ms", "is", null)
      .where("idle_until_ms", ">", nowMs)
      .where("expires_at_ms", ">", nowMs);
  }

  #users() {
    return this.#db.selectFrom("task_user").selectAll();
  }
}

function toCredentials(row: (Parameters<typeof toUser>[0] & { password_hash: string }) | undefined) {
  return row === undefined ? null : { user: toUser(row), passwordHash: row.password_hash };
}
