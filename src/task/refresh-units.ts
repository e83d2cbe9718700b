// The write unit that continues a session: one transaction, so that a refresh token is used once, whoever asks.

import { AppError } from "../shared/errors.ts";
import type { UnitOfWork } from "../storage/unit-of-work.ts";
import { endSessions, insertRefresh, type OpenedSession, toldTo } from "./session-units.ts";
import { taskTables } from "./task-base-units.ts";
import { type Changed, changed } from "./task-effects.ts";

/** A refresh token that was used may be used again for this long, if nobody used its child: its answer was lost. */
const REFRESH_GRACE_MS = 10_000;

type Refreshed =
  | { readonly isReused: false; readonly session: OpenedSession; readonly childHash: string }
  | { readonly isReused: true };

interface Refresh {
  readonly hash: string;
  /** What may follow it; the first one is what will. */
  readonly childHashes: readonly string[];
  readonly ip: string | null;
  readonly idleMs: number;
  readonly nowMs: number;
}

export const REFRESH_UNITS = {
  /**
   * A refresh token gives way to its child, once. One that comes again gets the same child for a moment; later, or when
   * the child was used, somebody else has it: the session ends (RFC 9700, section 4.14.2).
   * @throws AppError invalid_refresh_token
   */
  async "task.refreshSession"(
    work: UnitOfWork,
    { hash, childHashes, ip, idleMs, nowMs }: Refresh,
  ): Promise<Changed<Refreshed>> {
    const db = taskTables(work);
    const row = await db
      .selectFrom("task_refresh")
      .innerJoin("task_session", "task_session.id", "task_refresh.session_id")
      .innerJoin("task_user", "task_user.id", "task_session.user_id")
      .select(["session_id", "used_at_ms", "user_id", "idle_until_ms", "expires_at_ms", "revoked_at_ms"])
      .select(["username", "email", "token_version", "disabled_at_ms", "deleted_at_ms"])
      .where("hash", "=", hash)
      .executeTakeFirst();
    const isLive =
      row !== undefined &&
      row.revoked_at_ms === null &&
      row.disabled_at_ms === null &&
      row.deleted_at_ms === null &&
      Math.min(row.idle_until_ms, row.expires_at_ms) > nowMs;
    if (!isLive) throw new AppError("invalid_refresh_token", "invalid refresh token");
    const { session_id: sessionId, user_id: userId, username, email, token_version: tokenVersion } = row;
    const opened = { userId, username, email, tokenVersion, sessionId };
    if (row.used_at_ms === null) {
      await db.updateTable("task_refresh").set({ used_at_ms: nowMs }).where("hash", "=", hash).execute();
      await insertRefresh(db, sessionId, childHashes[0]!, nowMs);
      const idleUntilMs = nowMs + idleMs;
      const used = { last_used_at_ms: nowMs, idle_until_ms: idleUntilMs, ip };
      await db.updateTable("task_session").set(used).where("id", "=", sessionId).execute();
      const endsAtMs = Math.min(idleUntilMs, row.expires_at_ms);
      return changed({ isReused: false, session: { ...opened, endsAtMs }, childHash: childHashes[0]! });
    }
    const child = await db
      .selectFrom("task_refresh")
      .select(["hash", "used_at_ms"])
      .where("session_id", "=", sessionId)
      .where("hash", "in", childHashes)
      .executeTakeFirst();
    if (nowMs - row.used_at_ms <= REFRESH_GRACE_MS && child?.used_at_ms === null) {
      const endsAtMs = Math.min(row.idle_until_ms, row.expires_at_ms);
      return changed({ isReused: false, session: { ...opened, endsAtMs }, childHash: child.hash });
    }
    await endSessions(db, userId, "refresh_reuse", nowMs, { only: sessionId });
    return changed({ isReused: true }, toldTo(userId));
  },
} as const;
