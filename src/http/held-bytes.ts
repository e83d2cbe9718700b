// Large bodies on their way out: they hold their share of the byte budget until the client has taken them.

import { KiB, STREAM_PIECE_BYTES, STREAM_WAIT_MS, UNREAD_SECONDS_MAX } from "../shared/bounds.ts";
import { AppError, nobodyWaits } from "../shared/errors.ts";
import { BudgetShare, type ByteBudget } from "./byte-budget.ts";
import type { RequestScope } from "./request-scope.ts";
import { type ResponseHeaders, respond } from "./respond.ts";

/** Sends pieces as the client takes them; `release` runs once, at the end or when the client leaves. */
export function streamPieces(bytes: Uint8Array<ArrayBuffer>, release: () => void): ReadableStream {
  let offset = 0;
  return new ReadableStream(
    {
      pull(controller) {
        controller.enqueue(bytes.subarray(offset, offset + STREAM_PIECE_BYTES));
        offset += STREAM_PIECE_BYTES;
        if (offset < bytes.length) return;
        controller.close();
        release();
      },
      cancel: release,
    },
    { highWaterMark: 0 },
  );
}

interface HeldPieces {
  readonly scope: RequestScope;
  /** Null = there are no more. */
  readonly next: () => Promise<Uint8Array | null>;
  /** What a piece has at most, more or less. */
  readonly pieceBytes: number;
  /** Asked for anew with each piece. */
  readonly budget: () => ByteBudget;
  /** Aborts when the client has left. */
  readonly gone: AbortSignal;
  /** Called when nothing more will be sent; perhaps more than once. */
  readonly onEnd: () => void;
}

/**
 * Pieces that are made one by one, when the client has taken the one before. From before it is made until the client
 * has taken it each holds its share of the budget, for which it waits its turn.
 */
export function streamHeld(pieces: HeldPieces): ReadableStream<Uint8Array> {
  const { scope, gone } = pieces;
  let share: BudgetShare | null = null;
  const end = () => {
    share?.release();
    pieces.onEnd();
  };
  const nextHeld = async () => {
    share?.release();
    const budget = pieces.budget();
    const bytes = Math.min(pieces.pieceBytes, budget.limitBytes);
    share = await BudgetShare.take(budget, bytes, UNREAD_SECONDS_MAX * 1000, gone);
    if (share === null) throw tooManyRead();
    return pieces.next();
  };
  gone.addEventListener("abort", end, { once: true });
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          // A client that does not read what it was sent is not waited for; one that waits for a piece is.
          const piece = await scope.whileSilent(nextHeld);
          if (piece !== null) return controller.enqueue(piece);
          controller.close();
          end();
        } catch (error) {
          end();
          throw error;
        } finally {
          if (gone.aborted) end();
        }
      },
      cancel: end,
    },
    { highWaterMark: 0 },
  );
}

/** An answer up to this size is the business of the runtime and the system. */
const FREE_BYTES_MAX = 128 * KiB;

/** What waits for a share is in memory already: only so much of the budget may wait on top of it. */
const WAITING_SHARE = 0.25;

/**
 * JSON that may be large: it holds its share of the budget until the client has taken it, so that clients who ask and
 * do not read cannot fill the memory. One that is larger than the budget goes alone.
 * @throws AppError overloaded
 */
export async function respondHeldJson(
  scope: RequestScope,
  budget: ByteBudget,
  value: unknown,
  headers: ResponseHeaders,
): Promise<Response> {
  headers["Content-Type"] = "application/json";
  const text = JSON.stringify(value);
  if (text.length <= FREE_BYTES_MAX || scope.isHead) return respond(scope, 200, headers, text);
  if (budget.isBeset(WAITING_SHARE)) throw tooManyRead();
  const share = await takeShare(budget, Math.min(Buffer.byteLength(text), budget.limitBytes), scope.request.signal);
  const bytes = new TextEncoder().encode(text);
  scope.bytesOut = bytes.length;
  return respond(
    scope,
    200,
    headers,
    streamPieces(bytes, () => share.release()),
  );
}

/** Waits for it, but not long. @throws AppError overloaded, unavailable when `signal` is aborted */
export async function takeShare(budget: ByteBudget, bytes: number, signal: AbortSignal): Promise<BudgetShare> {
  if (bytes > budget.limitBytes) {
    throw new AppError("overloaded", "This value is larger than the memory for bodies. Raise BODY_BUDGET_BYTES.");
  }
  const share = await BudgetShare.take(budget, bytes, STREAM_WAIT_MS, signal);
  if (signal.aborted) {
    share?.release();
    throw nobodyWaits();
  }
  if (share === null) throw tooManyRead();
  return share;
}

function tooManyRead(): AppError {
  return new AppError("overloaded", "Too many large values are being read. Try again.");
}
