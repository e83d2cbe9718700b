// A map that forgets what was used least recently, bounded by bytes.

import { LRUCache } from "lru-cache";

export interface BoundedCache<V> {
  get(key: string): V | undefined;
  /** `bytes` counts against the bound; an item larger than the bound is not kept. */
  set(key: string, value: V, bytes: number): void;
  delete(key: string): void;
  /** Forgets every key that starts with `prefix`; looks at all of them. */
  deleteAll(prefix: string): void;
  clear(): void;
}

/** Null when `bytesMax` is 0: the cache is off. */
export function createBoundedCache<V extends object>(bytesMax: number): BoundedCache<V> | null {
  if (bytesMax === 0) return null;
  const cache = new LRUCache<string, V>({ maxSize: bytesMax });
  return {
    get: (key) => cache.get(key),
    set: (key, value, bytes) => void cache.set(key, value, { size: Math.max(1, bytes) }),
    delete: (key) => void cache.delete(key),
    clear: () => cache.clear(),
    deleteAll(prefix) {
      for (const key of [...cache.keys()]) if (key.startsWith(prefix)) cache.delete(key);
    },
  };
}
