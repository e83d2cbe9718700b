// The body of a request to another server, sent so that it is not kept for longer than it takes to send it.

import { SMALL_STEP_BYTES } from "../shared/bounds.ts";
import { streamPieces } from "./held-bytes.ts";

/** Up to this a body is not worth the pieces. */
export const KEPT_BODY_BYTES_MAX = SMALL_STEP_BYTES;

interface BodyInPieces {
  readonly body: ReadableStream;
  readonly lengthBytes: number;
}

/**
 * What is given to the runtime in one piece it keeps until the answer has come to its end, which may be minutes away;
 * a stream it lets go of. Null when the body is small enough to be kept.
 */
export function inPieces(body: string | Uint8Array<ArrayBuffer>): BodyInPieces | null {
  if (Buffer.byteLength(body) <= KEPT_BODY_BYTES_MAX) return null;
  const bytes = typeof body === "string" ? new TextEncoder().encode(body) : body;
  return { body: streamPieces(bytes, () => undefined), lengthBytes: bytes.length };
}
