// Requests that may be sent twice: the second one is answered with what the first one did, whatever came between.

import { AppError } from "../shared/errors.ts";
import type { UnitOfWork } from "../storage/unit-of-work.ts";
import { taskTables } from "./task-base-units.ts";
import { type Changed, changed } from "./task-effects.ts";

/** How long an answer is kept, ms. */
export const IDEMPOTENCY_MS = 86_400_000;

/** A request with an Idempotency-Key. */
export interface KeyedRequest {
  readonly userId: number;
  /** SHA-256 of the key, hex. */
  readonly keyHash: string;
  /** Method and path. */
  readonly route: string;
  /** SHA-256 of method, path and body, hex. */
  readonly bodyHash: string;
  readonly nowMs: number;
}

/** What a request is answered with, by the request itself or the one it repeats. */
export interface Answered<T> {
  readonly status: number;
  readonly body: T;
  readonly isReplayed: boolean;
}

/**
 * Runs `act` unless the same request was answered within IDEMPOTENCY_MS, in one transaction with the note of its
 * answer; what `act` refuses leaves no note. `body` must be JSON. @throws AppError idempotency_mismatch, and of `act`
 */
export async function answerOnce<T>(
  work: UnitOfWork,
  request: KeyedRequest | null,
  status: number,
  act: () => Promise<Changed<T>>,
): Promise<Changed<Answered<T>>> {
  const earlier = request === null ? null : await findAnswer(work, request);
  if (earlier !== null) {
    return changed({ status: earlier.status, body: JSON.parse(earlier.response) as T, isReplayed: true });
  }
  const { value, effects } = await act();
  if (request !== null) await keepAnswer(work, request, status, JSON.stringify(value));
  return changed({ status, body: value, isReplayed: false }, effects);
}

async function findAnswer(work: UnitOfWork, { userId, keyHash, bodyHash, nowMs }: KeyedRequest) {
  const row = await taskTables(work)
    .selectFrom("task_idempotency")
    .selectAll()
    .where("user_id", "=", userId)
    .where("key_hash", "=", keyHash)
    .executeTakeFirst();
  if (row === undefined || row.created_at_ms <= nowMs - IDEMPOTENCY_MS) return null;
  if (row.body_hash === bodyHash) return row;
  throw new AppError("idempotency_mismatch", "This Idempotency-Key was used for another request.");
}

/** In place of one that has expired. */
async function keepAnswer(work: UnitOfWork, request: KeyedRequest, status: number, response: string): Promise<void> {
  const { userId, keyHash, route, bodyHash, nowMs } = request;
  const note = { route, body_hash: bodyHash, status, response, created_at_ms: nowMs };
  await taskTables(work)
    .insertInto("task_idempotency")
    .values({ user_id: userId, key_hash: keyHash, ...note })
    .onConflict((conflict) => conflict.columns(["user_id", "key_hash"]).doUpdateSet(note))
    .execute();
}
