// How a batch of writes and its outcomes cross the thread border: as a few plain strings, which the runtime hands over
// several times faster than objects; only large values are moved as buffers.

import type { KvOutcome, KvPut, KvWrite, RevisionTags, WriteCondition } from "./kv-engine.ts";

/** Above this a value is moved; below, it travels in the text with the others. */
const PACKED_VALUE_BYTES_MAX = 16 * 1024;

export interface PackedBatch {
  /** The fields of all items, each followed by U+0000, which none of them can hold. */
  readonly header: string;
  /** The small values in the order of their items, one character per byte. */
  readonly values: string;
  /** The large values in the order of their items; absent when there are none. */
  readonly moved?: readonly Uint8Array<ArrayBuffer>[];
}

/** The buffers in `transfer` belong to the receiver afterwards. */
export function packBatch(items: readonly KvWrite[]): { batch: PackedBatch; transfer: ArrayBuffer[] } {
  let header = "";
  let values = "";
  let moved: Uint8Array<ArrayBuffer>[] | undefined;
  for (const item of items) {
    const { kind, bucket, key, condition, installationId = "" } = item;
    header += `${kind}\0${bucket}\0${key}\0${installationId}\0`;
    header += `${packTags(condition?.ifMatch)}\0${packTags(condition?.ifNoneMatch)}\0`;
    if (kind === "delete") continue;
    const { value, contentType, metadata, ttlMs, creatorIp } = item;
    header += `${value.length}\0${contentType ?? ""}\0${metadata ?? ""}\0${ttlMs ?? ""}\0${creatorIp ?? ""}\0`;
    if (value.length > PACKED_VALUE_BYTES_MAX) {
      moved ??= [];
      moved.push(ownBuffer(value));
    } else values += Buffer.from(value.buffer, value.byteOffset, value.length).toString("latin1");
  }
  return moved === undefined
    ? { batch: { header, values }, transfer: [] }
    : { batch: { header, values, moved }, transfer: moved.map((value) => value.buffer) };
}

/** A view that shares its buffer with others cannot be moved. */
function ownBuffer(value: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  return value.byteLength === value.buffer.byteLength ? value : value.slice();
}

export function unpackBatch({ header, values, moved }: PackedBatch): KvWrite[] {
  const fields = header.split("\0");
  const small = Buffer.from(values, "latin1");
  const items: KvWrite[] = [];
  let nextMoved = 0;
  let offset = 0;
  let at = 0;
  const next = () => fields[at++]!;
  const nextOrNull = () => fields[at++] || null;
  while (at < fields.length - 1) {
    const kind = next() as KvWrite["kind"];
    const [bucket, key, installationId] = [next(), next(), next() || undefined];
    const named = { bucket, key, installationId, condition: unpackCondition(next(), next()) };
    if (kind === "delete") {
      items.push({ kind, ...named });
      continue;
    }
    const sizeBytes = Number(next());
    const isMoved = sizeBytes > PACKED_VALUE_BYTES_MAX;
    const value = isMoved ? moved![nextMoved++]! : small.subarray(offset, offset + sizeBytes);
    if (!isMoved) offset += sizeBytes;
    const put: KvPut = {
      kind,
      ...named,
      value,
      contentType: nextOrNull(),
      metadata: nextOrNull(),
      ttlMs: numberOrNull(next()),
      creatorIp: nextOrNull(),
    };
    items.push(put);
  }
  return items;
}

/** "" = not asked; "[]" = tags that no revision equals. */
function packTags(tags: RevisionTags | null | undefined): string {
  return tags === null || tags === undefined ? "" : JSON.stringify(tags);
}

function unpackCondition(ifMatch: string, ifNoneMatch: string): WriteCondition | null {
  if (ifMatch === "" && ifNoneMatch === "") return null;
  return { ifMatch: unpackTags(ifMatch), ifNoneMatch: unpackTags(ifNoneMatch) };
}

function unpackTags(text: string): RevisionTags | null {
  return text === "" ? null : (JSON.parse(text) as RevisionTags);
}

function numberOrNull(text: string): number | null {
  return text === "" ? null : Number(text);
}

/**
 * What became of one item. "full", "limited" (by DB_MAX_BYTES), "failed", "busy" and "revoked" (the installation that
 * it was written for is gone) mean surely not applied.
 */
export type ItemOutcome = KvOutcome | { readonly kind: "full" | "limited" | "failed" | "busy" | "revoked" };

/** `created 12 1750000000000,absent,unmet 7`: kind, revision, time of the commit. */
export function packOutcomes(outcomes: readonly ItemOutcome[]): string {
  return outcomes
    .map((outcome) => {
      if (!("revision" in outcome)) return outcome.kind;
      const time = "updatedAtMs" in outcome ? ` ${outcome.updatedAtMs}` : "";
      return `${outcome.kind} ${outcome.revision ?? 0}${time}`;
    })
    .join();
}

export function unpackOutcomes(text: string): ItemOutcome[] {
  return text.split(",").map((item) => {
    const [kind, number, time] = item.split(" ") as [ItemOutcome["kind"], string?, string?];
    const revision = Number(number);
    switch (kind) {
      case "created":
      case "replaced":
        return { kind, revision, updatedAtMs: Number(time) };
      case "deleted":
        return { kind, revision };
      case "unmet":
        return { kind, revision: revision === 0 ? null : revision };
      default:
        return { kind };
    }
  });
}
