// One byte range of a value (RFC 9110, section 14).

import { AppError } from "../shared/errors.ts";

/** First and last byte, both inclusive. */
export interface ByteRange {
  readonly first: number;
  readonly last: number;
}

const SINGLE_RANGE = /^bytes=(\d*)-(\d*)$/i;

/**
 * The range that `header` asks of a value of `sizeBytes`, or null for the whole value: no header, several ranges,
 * another unit or bad syntax, all of which a server may ignore.
 * @throws AppError range_not_satisfiable
 */
export function parseRange(header: string | null, sizeBytes: number): ByteRange | null {
  const match = header === null ? null : SINGLE_RANGE.exec(header);
  if (match === null) return null;
  const [, start = "", end = ""] = match;
  if (start === "" && end === "") return null;
  if (start === "") return suffix(Number(end), sizeBytes);
  if (end !== "" && Number(end) < Number(start)) return null;
  if (Number(start) >= sizeBytes) throw notSatisfiable(sizeBytes);
  return { first: Number(start), last: end === "" ? sizeBytes - 1 : Math.min(Number(end), sizeBytes - 1) };
}

function suffix(lengthBytes: number, sizeBytes: number): ByteRange {
  if (lengthBytes === 0 || sizeBytes === 0) throw notSatisfiable(sizeBytes);
  return { first: Math.max(0, sizeBytes - lengthBytes), last: sizeBytes - 1 };
}

function notSatisfiable(sizeBytes: number): AppError {
  return new AppError("range_not_satisfiable", `The value has ${sizeBytes} bytes; the range lies outside.`, {
    details: { sizeBytes },
  });
}
