// The write units of sessions: one transaction each.

import type { Kysely } from "kysely";
import { AppError } from "../shared/errors.ts";
import type { UnitOfWork } from "../storage/unit-of-work.ts";
import { taskTables } from "./task-base-units.ts";
import { type Changed, changed, type Effects } from "./task-effects.ts";
import type { TaskTables } from "./task-tables.ts";

interface NewSession {
  /** UUIDv7. */
  readonly id: string;
  readonly ip: string | null;
  readonly userAgent: string | null;
  readonly idleUntilMs: number;
  readonly expiresAtMs: number;
  readonly refreshHash: string;
}

/** Whose session it is, for an access token. */
export interface OpenedSession {
  readonly userId: number;
  readonly username: string;
  readonly email: string;
  readonly tokenVersion: number;
  readonly sessionId: string;
  /** When it ends unless it is refreshed. */
  readonly endsAtMs: number;
}

type EndReason =
  | "logout"
  | "logout_all"
  | "revoked"
  | "password_changed"
  | "disabled"
  | "account_deleted"
  | "operator"
  | "refresh_reuse";

interface Login {
  readonly userId: number;
  /** The password was verified against this one. */
  readonly expectedHash: string;
  /** Of the same password, at today's cost. */
  readonly newHash: string | null;
  readonly session: NewSession;
  readonly nowMs: number;
}

export const SESSION_UNITS = {
  /** @throws AppError invalid_credentials when the account has changed since it was looked at, account_disabled */
  async "task.openSession"(
    work: UnitOfWork,
    { userId, expectedHash, newHash, session, nowMs }: Login,
  ): Promise<Changed<OpenedSession>> {
    const db = taskTables(work);
    const user = await requireCurrent(db, userId, expectedHash, "invalid_credentials");
    if (user.disabled_at_ms !== null) throw new AppError("account_disabled", "account is disabled");
    if (newHash !== null) {
      await db.updateTable("task_user").set({ password_hash: newHash }).where("id", "=", userId).execute();
    }
    const { id, ip, userAgent, idleUntilMs, expiresAtMs, refreshHash } = session;
    const times = { created_at_ms: nowMs, last_used_at_ms: nowMs, idle_until_ms: idleUntilMs };
    await db
      .insertInto("task_session")
      .values({
        id,
        user_id: userId,
        ip,
        user_agent: userAgent,
        ...times,
        expires_at_ms: expiresAtMs,
        revoked_at_ms: null,
        revoked_reason: null,
      })
      .execute();
    await insertRefresh(db, id, refreshHash, nowMs);
    const { username, email, token_version: tokenVersion } = user;
    const endsAtMs = Math.min(idleUntilMs, expiresAtMs);
    return changed({ userId, username, email, tokenVersion, sessionId: id, endsAtMs });
  },

  /** @throws AppError not_found when there is no such session of the user, or it has ended */
  async "task.endSession"(
    work: UnitOfWork,
    { userId, sessionId, reason, nowMs }: { userId: number; sessionId: string; reason: EndReason; nowMs: number },
  ): Promise<Changed<null>> {
    const ended = await endSessions(taskTables(work), userId, reason, nowMs, { only: sessionId });
    if (ended === 0) throw new AppError("not_found", "session not found");
    return changed(null, toldTo(userId));
  },

  /** All of a user, and with them every access token. Returns how many were live. */
  async "task.endSessions"(
    work: UnitOfWork,
    { userId, reason, nowMs }: { userId: number; reason: EndReason; nowMs: number },
  ): Promise<Changed<number>> {
    const db = taskTables(work);
    await outdateTokens(db, userId);
    return changed(await endSessions(db, userId, reason, nowMs), toldTo(userId));
  },
} as const;

export function toldTo(userId: number): Effects {
  return { userIds: [userId], hasJobs: false };
}

export function insertRefresh(db: Kysely<TaskTables>, sessionId: string, hash: string, nowMs: number) {
  const row = { hash, session_id: sessionId, created_at_ms: nowMs, used_at_ms: null };
  return db.insertInto("task_refresh").values(row).execute();
}

/** Every access token that was issued to the user is dead. */
export async function outdateTokens(db: Kysely<TaskTables>, userId: number): Promise<void> {
  await db
    .updateTable("task_user")
    .set((eb) => ({ token_version: eb("token_version", "+", 1) }))
    .where("id", "=", userId)
    .execute();
}

/** Of all live sessions of the user, or `only` one, or all `but` one. Returns how many they were. */
export async function endSessions(
  db: Kysely<TaskTables>,
  userId: number,
  reason: EndReason,
  nowMs: number,
  { only, but }: { only?: string; but?: string } = {},
): Promise<number> {
  let query = db
    .updateTable("task_session")
    .set({ revoked_at_ms: nowMs, revoked_reason: reason })
    .where("user_id", "=", userId)
    .where("revoked_at_ms", "is", null)
    .where("idle_until_ms", ">", nowMs)
    .where("expires_at_ms", ">", nowMs);
  if (only !== undefined) query = query.where("id", "=", only);
  if (but !== undefined) query = query.where("id", "!=", but);
  return Number((await query.executeTakeFirst()).numUpdatedRows);
}

/**
 * A user whose password is still the one that was verified.
 * @throws AppError `code`; of an account that has ended meanwhile, invalid_token where it was signed in
 */
export async function requireCurrent(
  db: Kysely<TaskTables>,
  userId: number,
  expectedHash: string,
  code: "invalid_credentials" | "wrong_password",
) {
  const user = await db.selectFrom("task_user").selectAll().where("id", "=", userId).executeTakeFirst();
  if (user?.deleted_at_ms === null && user.password_hash === expectedHash) return user;
  // Of two requests that end it at once, the second had the right password as well.
  if (code === "wrong_password" && user?.deleted_at_ms !== null) throw new AppError("invalid_token", "Invalid token");
  throw new AppError(code, code === "wrong_password" ? "wrong password" : "invalid credentials");
}
