// Reads request bodies under the byte budget: what is too large or does not fit is refused before it is read.

import { BODY_STEP_BYTES, IDLE_SECONDS, KiB, SMALL_STEP_BYTES } from "../shared/bounds.ts";
import { AppError } from "../shared/errors.ts";
import { parsedBytes } from "../shared/json-text.ts";
import { BudgetShare, type ByteBudget, type Yielding } from "./byte-budget.ts";
import { GatheredBytes } from "./gathered-bytes.ts";
import type { BodyReader } from "./linger.ts";
import type { RequestScope } from "./request-scope.ts";

/** A body with its share of the budget, which the caller must release when the bytes are no longer held. */
export interface HeldBody {
  readonly bytes: Uint8Array<ArrayBuffer>;
  release(): void;
}

/**
 * An operator; a user, an app or a client of the relay who was let in; anybody else. What users may shut others out
 * with is bounded, and so is how long strangers may take.
 */
type Sender = "operator" | "user" | "stranger";

/** What the client of an operator announces up to this is read at once, in the time that any connection may be idle. */
const QUICK_BYTES = 40 * KiB;

const EMPTY: Promise<HeldBody> = Promise.resolve({ bytes: new Uint8Array(0), release: () => undefined });

/**
 * The raw body, whatever its encoding; no body is an empty one. What the client of an operator announces is its share
 * of the budget. Of others only what arrived counts: an announced length costs nothing, and some of them would shut
 * everybody out. Who was let in may be as slow as he is, if something comes all the time, until somebody else needs the
 * memory that a slow body holds. While it waits for the body the request is not among those at work: clients that send
 * slowly, or nothing, take nobody's place.
 * @throws AppError body_too_large, overloaded (both end the connection), body_incomplete
 */
export function readBody(
  scope: RequestScope,
  maxBytes: number,
  budget: ByteBudget,
  sender: Sender = "operator",
): Promise<HeldBody> {
  const { request } = scope;
  const length = request.headers.get("content-length");
  // The runtime lets one that is given twice with the same number pass, as "3, 3".
  if (length?.includes(",")) {
    return Promise.reject(refuse(scope, new AppError("body_incomplete", "Content-Length is given twice.")));
  }
  const lengthBytes = length === null ? null : Number(length);
  const simpleBytes = sender === "operator" ? QUICK_BYTES : SMALL_STEP_BYTES;
  const isSimple = lengthBytes! <= simpleBytes || lengthBytes! > maxBytes || request.body === null;
  if (lengthBytes !== null && isSimple) return readKnownLength(scope, lengthBytes, maxBytes, budget, sender);
  if (request.body === null || (length === null && !request.headers.has("transfer-encoding"))) return EMPTY;
  return readPieces(scope, lengthBytes, maxBytes, budget, sender);
}

/**
 * Takes what a JSON text will be in memory when it is parsed, `bytesMax` at most, beside the `heldBytes` that it has of
 * the budget already; to be released when that is gone. Returns how much.
 * @throws AppError body_too_large when the two would never fit together, overloaded
 */
export function reserveParsed(
  budget: ByteBudget,
  text: string,
  { heldBytes = 0, bytesMax = Number.POSITIVE_INFINITY }: { readonly heldBytes?: number; readonly bytesMax?: number },
): number {
  const bytes = Math.min(parsedBytes(text), bytesMax);
  if (heldBytes + bytes > budget.limitBytes) {
    const message = "The JSON holds too many values: parsed, it would be larger than the memory for bodies.";
    throw new AppError("body_too_large", message);
  }
  if (bytes > 0 && !budget.tryReserve(bytes)) throw overloaded();
  return bytes;
}

async function readKnownLength(
  scope: RequestScope,
  lengthBytes: number,
  maxBytes: number,
  budget: ByteBudget,
  sender: Sender,
): Promise<HeldBody> {
  if (lengthBytes > maxBytes) throw refuse(scope, tooLarge(maxBytes));
  let isHeld = sender === "operator";
  if (isHeld && !budget.tryReserve(lengthBytes)) throw refuse(scope, overloaded());
  scope.place?.leave(scope);
  try {
    const bytes = new Uint8Array(await scope.request.arrayBuffer());
    if (bytes.length !== lengthBytes) throw incomplete();
    if (!isHeld && !budget.tryReserve(lengthBytes)) throw overloaded();
    isHeld = true;
    scope.place?.enter(scope);
    scope.bytesIn = lengthBytes;
    return { bytes, release: () => budget.release(lengthBytes) };
  } catch (error) {
    if (isHeld) budget.release(lengthBytes);
    throw error instanceof AppError ? error : incomplete(error);
  }
}

/** `lengthBytes` null = it comes in chunks. */
async function readPieces(
  scope: RequestScope,
  lengthBytes: number | null,
  maxBytes: number,
  budget: ByteBudget,
  sender: Sender,
): Promise<HeldBody> {
  const reader: BodyReader = scope.request.body!.getReader();
  const stepBytes = sender === "operator" ? BODY_STEP_BYTES : SMALL_STEP_BYTES;
  // Not beyond what is to come: a body as large as the budget fits into it.
  const bytesMax = Math.min(lengthBytes ?? maxBytes, budget.limitBytes);
  const announcedBytes = sender === "operator" ? (lengthBytes ?? 0) : 0;
  const arriving = new ArrivingBody(reader, budget, announcedBytes);
  if (arriving.hasNoRoom) throw refuse(scope, overloaded(), reader);
  // With a byte now and then users would hold what is there for ever, and operators would find no room.
  const endYielding = sender === "operator" ? () => undefined : budget.yieldWhenOld(arriving);
  scope.place?.leave(scope);
  try {
    for (;;) {
      const piece = await arriving.next();
      if (piece === null) break;
      // The runtime counts less than 16 KiB a second as silence.
      if (sender !== "stranger") scope.extendIdleTimeout(IDLE_SECONDS);
      const total = arriving.bytes.length + piece.length;
      if (total > maxBytes) throw refuse(scope, tooLarge(maxBytes), reader);
      const wanted = Math.min(Math.ceil(total / stepBytes) * stepBytes, Math.max(total, bytesMax));
      if (!arriving.tryAdd(piece, wanted)) break;
    }
    endYielding();
    if (arriving.hasNoRoom) throw refuse(scope, overloaded(), reader);
    const { bytes, share } = arriving;
    if (lengthBytes === null) await requireProperEnd(scope);
    else if (bytes.length !== lengthBytes) throw incomplete();
    scope.place?.enter(scope);
    scope.bytesIn = bytes.length;
    // Of a body in chunks the last step may have been longer than what came.
    share.shrinkTo(bytes.length);
    return { bytes: bytes.joined(), release: () => share.release() };
  } catch (error) {
    endYielding();
    arriving.share.release();
    throw error instanceof AppError ? error : incomplete(error);
  }
}

/** What has come of a body, with its share of the budget; all of it goes at once when others need the room. */
class ArrivingBody implements Yielding {
  readonly bytes: GatheredBytes;
  readonly share: BudgetShare;
  readonly #reader: BodyReader;
  #hasNoRoom = false;
  #wake: () => void = () => undefined;

  /** `announcedBytes` are its share from the first; 0 = it has to get what it needs bit by bit. */
  constructor(reader: BodyReader, budget: ByteBudget, announcedBytes: number) {
    this.#reader = reader;
    this.share = new BudgetShare(budget);
    this.#hasNoRoom = !this.share.tryGrowTo(announcedBytes);
    this.bytes = new GatheredBytes(this.#hasNoRoom ? 0 : announcedBytes);
  }

  /** It was refused more room, or has given way: there is nothing left of it. */
  get hasNoRoom(): boolean {
    return this.#hasNoRoom;
  }

  /** The next piece; null at the end, and as soon as there is no room for it any more. */
  async next(): Promise<Uint8Array | null> {
    // A promise of its own for each piece: one that is raced for all of them would gather what waits for it.
    const result = await new Promise<{ readonly value?: Uint8Array | undefined } | null>((resolve, reject) => {
      this.#wake = () => resolve(null);
      this.#reader.read().then(resolve, reject);
    });
    // It may have given way after the piece came, in the same turn.
    return this.#hasNoRoom ? null : (result?.value ?? null);
  }

  /** Adds `piece` to a share of `wantedBytes` then. */
  tryAdd(piece: Uint8Array, wantedBytes: number): boolean {
    if (!this.share.tryGrowTo(wantedBytes)) this.giveWay();
    // It may have given way to itself.
    if (this.#hasNoRoom) return false;
    this.bytes.add(piece);
    return true;
  }

  heldBytes(): number {
    return this.share.bytes;
  }

  giveWay(): void {
    this.#hasNoRoom = true;
    this.share.release();
    this.bytes.clear();
    this.#wake();
  }
}

/**
 * The runtime hands the end of a body over before it has looked at what stands behind the last chunk. Malformed, it
 * answers 400 by itself and ends the request: in that case nothing may be stored.
 */
async function requireProperEnd({ request }: RequestScope): Promise<void> {
  await new Promise(setImmediate);
  if (request.signal.aborted) throw incomplete();
}

/** The rest of the body is not wanted: the answer lingers over it, then the connection closes. */
function refuse(scope: RequestScope, error: AppError, reader?: BodyReader): AppError {
  scope.unreadBody = reader ?? scope.request.body?.getReader() ?? null;
  return error;
}

function tooLarge(maxBytes: number): AppError {
  return new AppError("body_too_large", `The body is larger than ${maxBytes} bytes.`);
}

function overloaded(): AppError {
  return new AppError("overloaded", "Too many bodies are being received. Try again.");
}

function incomplete(cause?: unknown): AppError {
  return new AppError("body_incomplete", "The body ended early; nothing was stored.", { cause });
}
