// Finds the keys that an export names twice, in memory that does not grow with it.

import type { ExportedEntry } from "./export-entries.ts";
import { compareByteOrder } from "./key-bounds.ts";

type Named = Pick<ExportedEntry, "bucket" | "key">;

/** Digests that are held at once: some tens of megabytes. */
const HELD_MAX = 250_000;

/** Whether entries come in a strict order: then none of them comes twice. Every export is in one when it is made. */
export class StrictOrder {
  #last: Named | null = null;
  #isKept = true;

  get isKept(): boolean {
    return this.#isKept;
  }

  see({ bucket, key }: Named): void {
    const last = this.#last;
    if (last !== null) {
      this.#isKept &&= (compareByteOrder(bucket, last.bucket) || compareByteOrder(key, last.key)) > 0;
    }
    this.#last = { bucket, key };
  }
}

/**
 * Tells `onRepeated` of each of `count` entries that came before, with its place from 0. They are read again for every
 * `heldMax` of them, each time to compare another part.
 */
export async function findRepeated(
  entries: () => AsyncIterable<Named>,
  count: number,
  onRepeated: (index: number, entry: Named) => void,
  heldMax = HELD_MAX,
): Promise<void> {
  const parts = Math.ceil(count / heldMax);
  for (let part = 0; part < parts; part++) {
    const seen = new Set<string>();
    let index = -1;
    for await (const entry of entries()) {
      index++;
      const digest = new Bun.CryptoHasher("sha256").update(JSON.stringify([entry.bucket, entry.key])).digest();
      if (digest.readUInt32LE(0) % parts !== part) continue;
      const name = digest.toString("base64");
      if (seen.has(name)) onRepeated(index, entry);
      seen.add(name);
    }
  }
}
