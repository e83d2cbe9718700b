// Large bodies on their way out: they hold their share of the byte budget until the client has taken them.

import { STREAM_PIECE_BYTES, STREAM_WAIT_MS } from "../shared/bounds.ts";
import { AppError } from "../shared/errors.ts";
import { BudgetShare, type ByteBudget } from "./byte-budget.ts";

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

/** Waits for it, but not long. @throws AppError overloaded */
export async function takeShare(budget: ByteBudget, bytes: number): Promise<BudgetShare> {
  if (bytes > budget.limitBytes) {
    throw new AppError("overloaded", "This value is larger than all memory for bodies. Raise BODY_BUDGET_BYTES.");
  }
  const share = await BudgetShare.take(budget, bytes, STREAM_WAIT_MS);
  if (share === null) throw new AppError("overloaded", "Too many large values are being read. Try again.");
  return share;
}
