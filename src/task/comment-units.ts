// The write units of comments: one transaction each.

import { AppError } from "../shared/errors.ts";
import type { UnitOfWork } from "../storage/unit-of-work.ts";
import { announce } from "./feed-units.ts";
import { type Answered, answerOnce, type KeyedRequest } from "./idempotency-units.ts";
import { roleOf } from "./item-rules.ts";
import { type CommentView, commentView, requireVisibleItem } from "./item-store.ts";
import type { Act } from "./item-units.ts";
import { taskTables } from "./task-base-units.ts";
import { type Changed, changed } from "./task-effects.ts";

interface CommentCreation extends Act {
  readonly taskId: number;
  readonly body: string;
  readonly keyed: KeyedRequest | null;
}

interface CommentDeletion extends Act {
  readonly taskId: number;
  readonly commentId: number;
}

export const COMMENT_UNITS = {
  /** @throws AppError not_found, idempotency_mismatch */
  async "task.createComment"(work: UnitOfWork, creation: CommentCreation): Promise<Changed<Answered<CommentView>>> {
    const { userId, taskId, body, requestId } = creation;
    const db = taskTables(work);
    // Before a repeated answer, too: whoever has lost sight of the task is told nothing of it.
    const { row: task, labels } = await requireVisibleItem(db, taskId, userId);
    return answerOnce(work, creation.keyed, 201, async () => {
      const row = { task_id: taskId, user_id: userId, body, created_at_ms: work.nowMs, deleted_at_ms: null };
      const { id } = await db.insertInto("task_comment").values(row).returning("id").executeTakeFirstOrThrow();
      const author = await db.selectFrom("task_user").select("username").where("id", "=", userId).executeTakeFirst();
      const changes = { comment_id: [null, id] } as const;
      const event = { type: "comment.created", task, labels, changes, actorId: userId, requestId } as const;
      return changed(commentView({ ...row, id, username: author?.username ?? "" }), await announce(work, event));
    });
  },

  /** By its author or the owner of the task; nothing of its text is kept. @throws AppError not_found, forbidden */
  async "task.deleteComment"(
    work: UnitOfWork,
    { userId, taskId, commentId, requestId }: CommentDeletion,
  ): Promise<Changed<null>> {
    const db = taskTables(work);
    const { row: task, labels } = await requireVisibleItem(db, taskId, userId);
    const comment = await db
      .selectFrom("task_comment")
      .select("user_id")
      .where("id", "=", commentId)
      .where("task_id", "=", taskId)
      .where("deleted_at_ms", "is", null)
      .executeTakeFirst();
    if (comment === undefined) throw new AppError("not_found", "comment not found");
    if (comment.user_id !== userId && roleOf(task, userId) !== "owner") {
      throw new AppError("forbidden", "Only the owner of the task may delete comments of others.");
    }
    const gone = { body: "", deleted_at_ms: work.nowMs };
    await db.updateTable("task_comment").set(gone).where("id", "=", commentId).execute();
    const changes = { comment_id: [commentId, null] } as const;
    const event = { type: "comment.deleted", task, labels, changes, actorId: userId, requestId } as const;
    return changed(null, await announce(work, event));
  },
} as const;
