// Writes that follow from their number alone, so that two processes know them without a word between them.

import type { KvWrite } from "../../src/storage/kv-engine.ts";
import { type Attempt, storedValue } from "./durable-load.ts";

const KEYS = 60;
const REMOVAL_EVERY = 7;

export function plannedAttempt(id: number): Attempt {
  return { id, key: `k${(id * 31) % KEYS}`, isRemoval: id % REMOVAL_EVERY === 0 };
}

export function plannedWrite({ id, key, isRemoval }: Attempt): KvWrite {
  const named = { bucket: "load", key, condition: null };
  if (isRemoval) return { kind: "delete", ...named };
  const value = storedValue(id, 100 + ((id * 997) % 6000));
  return { kind: "put", ...named, value, contentType: null, metadata: null, ttlMs: null, creatorIp: null };
}
