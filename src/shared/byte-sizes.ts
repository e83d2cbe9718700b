// Byte counts as operators write them: plain, KiB, MiB, GiB.

import { GiB, KiB, MiB } from "./bounds.ts";

const BYTES_PER_UNIT: Readonly<Record<string, number>> = { "": 1, b: 1, kib: KiB, mib: MiB, gib: GiB };

/** Reads `1048576`, `512KiB`, `25MiB`, `1GiB` (any case) into bytes, or null. */
export function parseByteSize(text: string): number | null {
  const match = /^(\d{1,15}) ?([a-z]*)$/i.exec(text);
  const unit = BYTES_PER_UNIT[match?.[2]?.toLowerCase() ?? "?"];
  if (match === null || unit === undefined) return null;
  const bytes = Number(match[1]) * unit;
  return Number.isSafeInteger(bytes) ? bytes : null;
}

/** `26214400` → `25MiB`; the largest unit that divides evenly. */
export function formatByteSize(bytes: number): string {
  if (bytes === 0) return "0";
  if (bytes % GiB === 0) return `${bytes / GiB}GiB`;
  if (bytes % MiB === 0) return `${bytes / MiB}MiB`;
  return bytes % KiB === 0 ? `${bytes / KiB}KiB` : `${bytes}`;
}
