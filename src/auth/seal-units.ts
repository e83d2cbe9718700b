// The salt of the sealing keys: one per store, whatever services seal with it.

import { tablesOf, type UnitOfWork, type UnitRunner } from "../storage/unit-of-work.ts";
import { deriveSealingKeys, type SealingKey } from "./secret-seal.ts";

const SALT_BYTES = 16;
/** Named after the service that was the first to seal anything. */
const SALT_NAME = "relay_salt";

type StoreTable = { store: { name: string; value: Uint8Array } };

export const SEAL_UNITS = {
  /** The salt of this store: `proposal`, 16 random bytes, when it has none yet. */
  async "auth.ensureSalt"(work: UnitOfWork, { proposal }: { proposal: Uint8Array }): Promise<Uint8Array> {
    const db = tablesOf<StoreTable>(work.tables);
    const row = await db.selectFrom("store").select("value").where("name", "=", SALT_NAME).executeTakeFirst();
    if (row !== undefined) return new Uint8Array(row.value);
    await db.insertInto("store").values({ name: SALT_NAME, value: proposal }).execute();
    return proposal;
  },
} as const;

/** What a write unit did to the sealed values of a kind. */
export interface Resealed<Id> {
  /** How many were sealed anew. */
  readonly resealed: number;
  /** Of the key that seals them now. */
  readonly kid: string;
  /** Of the rows that no key opens; they stay as they are. */
  readonly unreadable: readonly Id[];
}

/**
 * The sealing keys of this store for one purpose, which `info` names: a key for each of `secrets`, in their order.
 * Throws what the store throws.
 */
export async function openRing(
  store: UnitRunner<typeof SEAL_UNITS>,
  secrets: readonly Uint8Array[],
  info: string,
): Promise<readonly SealingKey[]> {
  const proposal = crypto.getRandomValues(new Uint8Array(SALT_BYTES));
  return deriveSealingKeys(secrets, await store.run("auth.ensureSalt", { proposal }), info);
}
