// The write units of accounts: one transaction each.

import type { Kysely } from "kysely";
import { AppError } from "../shared/errors.ts";
import { given } from "../shared/given.ts";
import type { UnitOfWork } from "../storage/unit-of-work.ts";
import { emailKeyOf, usernameKeyOf } from "./account-rules.ts";
import {
  endSessions,
  insertRefresh,
  type OpenedSession,
  outdateTokens,
  requireCurrent,
  toldTo,
} from "./session-units.ts";
import { taskTables } from "./task-base-units.ts";
import { type Changed, changed } from "./task-effects.ts";
import { type TaskTables, toUser, type User } from "./task-tables.ts";

interface NewUser {
  readonly username: string;
  readonly email: string;
  readonly passwordHash: string;
}

interface UserChanges {
  readonly userId: number;
  readonly username?: string | undefined;
  readonly email?: string | undefined;
  /** The current password was verified against this one; another address needs it. */
  readonly expectedHash?: string | undefined;
}

interface NewPassword {
  readonly userId: number;
  /** The current password was verified against this one. */
  readonly expectedHash: string;
  readonly passwordHash: string;
  /** It goes on, with a refresh token of its own; all others end. */
  readonly sessionId: string;
  readonly refreshHash: string;
  readonly idleMs: number;
  readonly nowMs: number;
}

interface Administered {
  readonly userId: number;
  readonly isDisabled?: boolean | undefined;
  readonly passwordHash?: string | undefined;
  readonly nowMs: number;
}

export const ACCOUNT_UNITS = {
  /** @throws AppError email_taken, username_taken */
  async "task.createUser"(work: UnitOfWork, { username, email, passwordHash }: NewUser): Promise<Changed<User>> {
    const db = taskTables(work);
    await requireFree(db, { username, email });
    const row = await db
      .insertInto("task_user")
      .values({
        username,
        username_key: usernameKeyOf(username),
        email,
        email_key: emailKeyOf(email),
        password_hash: passwordHash,
        token_version: 1,
        disabled_at_ms: null,
        deleted_at_ms: null,
        created_at_ms: work.nowMs,
        updated_at_ms: work.nowMs,
      })
      .returningAll()
      .executeTakeFirstOrThrow();
    return changed(toUser(row));
  },

  /** @throws AppError email_taken, username_taken, wrong_password, invalid_token, not_found */
  async "task.updateUser"(
    work: UnitOfWork,
    { userId, username, email, expectedHash }: UserChanges,
  ): Promise<Changed<User>> {
    const db = taskTables(work);
    if (expectedHash !== undefined) await requireCurrent(db, userId, expectedHash, "wrong_password");
    const before = await requireUser(db, userId);
    await requireFree(db, { username, email }, userId);
    const set = given({
      username,
      username_key: username === undefined ? undefined : usernameKeyOf(username),
      email,
      email_key: email === undefined ? undefined : emailKeyOf(email),
    });
    const isSame = (username ?? before.username) === before.username && (email ?? before.email) === before.email;
    if (isSame) return changed(before);
    await db
      .updateTable("task_user")
      .set({ ...set, updated_at_ms: work.nowMs })
      .where("id", "=", userId)
      .execute();
    return changed(await requireUser(db, userId));
  },

  /** Every access token and every other session of the user ends. @throws AppError wrong_password, invalid_token */
  async "task.changePassword"(
    work: UnitOfWork,
    { userId, expectedHash, passwordHash, sessionId, refreshHash, idleMs, nowMs }: NewPassword,
  ): Promise<Changed<OpenedSession>> {
    const db = taskTables(work);
    const user = await requireCurrent(db, userId, expectedHash, "wrong_password");
    const session = await db
      .selectFrom("task_session")
      .select("expires_at_ms")
      .where("id", "=", sessionId)
      .where("revoked_at_ms", "is", null)
      .executeTakeFirst();
    if (session === undefined) throw new AppError("invalid_token", "Invalid token");
    await setPassword(db, userId, passwordHash, work.nowMs);
    await endSessions(db, userId, "password_changed", nowMs, { but: sessionId });
    await db.deleteFrom("task_refresh").where("session_id", "=", sessionId).execute();
    await insertRefresh(db, sessionId, refreshHash, nowMs);
    const idleUntilMs = nowMs + idleMs;
    const used = { last_used_at_ms: nowMs, idle_until_ms: idleUntilMs };
    await db.updateTable("task_session").set(used).where("id", "=", sessionId).execute();
    const { username, email, token_version } = user;
    const endsAtMs = Math.min(idleUntilMs, session.expires_at_ms);
    const opened = { userId, username, email, tokenVersion: token_version + 1, sessionId, endsAtMs };
    return changed(opened, toldTo(userId));
  },

  /** By an operator. A new password, or being disabled, ends every session. @throws AppError not_found */
  async "task.administerUser"(
    work: UnitOfWork,
    { userId, isDisabled, passwordHash, nowMs }: Administered,
  ): Promise<Changed<User>> {
    const db = taskTables(work);
    const { isDisabled: wasDisabled } = await requireUser(db, userId);
    if (passwordHash !== undefined) {
      await setPassword(db, userId, passwordHash, work.nowMs);
      await endSessions(db, userId, "operator", nowMs);
    }
    if (isDisabled !== undefined && isDisabled !== wasDisabled) {
      const set = { disabled_at_ms: isDisabled ? work.nowMs : null, updated_at_ms: work.nowMs };
      await db.updateTable("task_user").set(set).where("id", "=", userId).execute();
      await outdateTokens(db, userId);
      await endSessions(db, userId, "disabled", nowMs);
    }
    return changed(await requireUser(db, userId), toldTo(userId));
  },
} as const;

/** @throws AppError not_found, for deleted ones as well */
export async function requireUser(db: Kysely<TaskTables>, userId: number): Promise<User> {
  const row = await db.selectFrom("task_user").selectAll().where("id", "=", userId).executeTakeFirst();
  if (row?.deleted_at_ms === null) return toUser(row);
  throw new AppError("not_found", "user not found");
}

/** @throws AppError email_taken, username_taken */
async function requireFree(
  db: Kysely<TaskTables>,
  { username, email }: { username?: string | undefined; email?: string | undefined },
  exceptId = 0,
): Promise<void> {
  const users = db.selectFrom("task_user").select("id").where("id", "!=", exceptId);
  const holds = async (key: "email_key" | "username_key", value: string) =>
    (await users.where(key, "=", value).executeTakeFirst()) !== undefined;
  if (email !== undefined && (await holds("email_key", emailKeyOf(email)))) {
    throw new AppError("email_taken", "email is already registered");
  }
  if (username !== undefined && (await holds("username_key", usernameKeyOf(username)))) {
    throw new AppError("username_taken", "username is already taken");
  }
}

async function setPassword(db: Kysely<TaskTables>, userId: number, hash: string, nowMs: number): Promise<void> {
  const set = { password_hash: hash, updated_at_ms: nowMs };
  await db.updateTable("task_user").set(set).where("id", "=", userId).execute();
  await outdateTokens(db, userId);
}
