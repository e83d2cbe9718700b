// The read cache: a KV engine in front of another that keeps small hot entries in memory.

import { type BoundedCache, createBoundedCache } from "../limits/bounded-cache.ts";
import { Holds } from "../limits/holds.ts";
import { READ_CACHE_ENTRY_BYTES_MAX } from "../shared/bounds.ts";
import { systemClock } from "../shared/clock.ts";
import type { Eventually } from "../shared/eventual.ts";
import type {
  BucketPageQuery,
  KeyPageQuery,
  KeyRange,
  KvEngine,
  KvEntry,
  KvFound,
  KvOutcome,
  KvWrite,
  NamePage,
  OffsetPage,
  OffsetPageQuery,
  PageTurn,
} from "../storage/kv-engine.ts";

/** What a cached entry costs besides its value and its name. */
const OVERHEAD_BYTES = 512;

/**
 * Only for an engine whose writes all pass through this object. A key with a write queued or in flight is neither
 * served from the cache nor put into it; its entry is dropped when the write is queued. Expiry is checked on each hit.
 */
export class CachedKvEngine implements KvEngine {
  readonly #engine: KvEngine;
  readonly #cache: BoundedCache<KvFound>;
  /** Entries, by their names in the cache. */
  readonly #writing = new Holds<string>();
  /** Buckets: the store forgets the entries somewhat earlier than the cache does. */
  readonly #wiping = new Holds<string>();

  private constructor(engine: KvEngine, cache: BoundedCache<KvFound>) {
    this.#engine = engine;
    this.#cache = cache;
    engine.onWipe((bucket) => cache.deleteAll(cacheName(bucket, "")));
  }

  /** `engine` itself when `bytesMax` is 0. Disposing of the result disposes of `engine`. */
  static over(engine: KvEngine, bytesMax: number): KvEngine {
    const cache = createBoundedCache<KvFound>(bytesMax);
    return cache === null ? engine : new CachedKvEngine(engine, cache);
  }

  find(bucket: string, key: string): Eventually<KvFound | null> {
    const name = cacheName(bucket, key);
    const cached = this.#cached(bucket, name);
    if (cached !== null) return cached;
    const found = this.#engine.find(bucket, key);
    // Only what was read in this very turn is surely the latest.
    if (!(found instanceof Promise)) this.#keep(name, found);
    return found;
  }

  describe(bucket: string, key: string): Eventually<KvEntry | null> {
    return this.#cached(bucket, cacheName(bucket, key)) ?? this.#engine.describe(bucket, key);
  }

  write(write: KvWrite): Promise<KvOutcome> {
    const name = cacheName(write.bucket, write.key);
    this.#cache.delete(name);
    const release = this.#writing.hold(name);
    return this.#engine.write(write).then(
      (outcome) => {
        release();
        return outcome;
      },
      (error: unknown) => {
        release();
        throw error;
      },
    );
  }

  async writeTogether(writes: readonly KvWrite[]): Promise<KvOutcome[]> {
    const releases = writes.map(({ bucket, key }) => {
      const name = cacheName(bucket, key);
      this.#cache.delete(name);
      return this.#writing.hold(name);
    });
    try {
      return await this.#engine.writeTogether(writes);
    } finally {
      for (const release of releases) release();
    }
  }

  async wipe(bucket: string, installationId?: string): Promise<void> {
    const release = this.#wiping.hold(bucket);
    try {
      await this.#engine.wipe(bucket, installationId);
    } finally {
      release();
    }
  }

  onWipe(listener: (bucket: string) => void): void {
    this.#engine.onWipe(listener);
  }

  pageByOffset(query: OffsetPageQuery, turn: PageTurn | null): Eventually<OffsetPage> {
    return this.#engine.pageByOffset(query, turn);
  }

  load(bucket: string, key: string, revision: number): Promise<Uint8Array<ArrayBuffer> | null> {
    return this.#engine.load(bucket, key, revision);
  }

  listKeys(query: KeyPageQuery, signal: AbortSignal | null): Eventually<NamePage> {
    return this.#engine.listKeys(query, signal);
  }

  listBuckets(query: BucketPageQuery, signal: AbortSignal | null): Eventually<NamePage> {
    return this.#engine.listBuckets(query, signal);
  }

  count(range: KeyRange, signal: AbortSignal): Promise<number> {
    return this.#engine.count(range, signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#engine[Symbol.asyncDispose]();
  }

  #cached(bucket: string, name: string): KvFound | null {
    const cached = this.#cache.get(name);
    return cached === undefined || isExpired(cached) || this.#wiping.isHeld(bucket) ? null : cached;
  }

  #keep(name: string, found: KvFound | null): void {
    const value = found?.value;
    if (!found || !value || value.length > READ_CACHE_ENTRY_BYTES_MAX || this.#writing.isHeld(name)) return;
    this.#cache.set(name, found, value.length + 2 * name.length + OVERHEAD_BYTES);
  }
}

/** No bucket holds U+0000. */
function cacheName(bucket: string, key: string): string {
  return `${bucket}\0${key}`;
}

function isExpired(entry: KvEntry): boolean {
  return entry.expiresAtMs !== null && entry.expiresAtMs <= systemClock();
}
