// Large bodies on their way out: they hold their share of the byte budget until the client has taken them.

import { KiB, STREAM_PIECE_BYTES, STREAM_WAIT_MS } from "../shared/bounds.ts";
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
  if (budget.waitingBytes > budget.limitBytes * WAITING_SHARE) throw tooManyRead();
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
