// First path segments that belong to services which are on, and so cannot be buckets.

import type { Log } from "../shared/log.ts";
import type { ServiceName } from "../shared/setting-parsers.ts";
import { boundAfterKey, boundAfterPrefix } from "../storage/key-bounds.ts";
import type { KvEngine } from "../storage/kv-engine.ts";

/** Enough to see what is the matter. */
const NAMES_MAX = 10;

const MOUNTS: Readonly<Record<ServiceName, readonly string[]>> = {
  kv: [],
  token: ["api", "kv"],
  relay: ["api", "v1"],
  task: ["api"],
};

export function reservedBuckets(services: ReadonlySet<ServiceName>): ReadonlySet<string> {
  return new Set([...services].flatMap((service) => MOUNTS[service]));
}

/** Entries of a bucket whose name became reserved when a service was turned on are kept, but no route reaches them. */
export async function warnOfReservedBuckets(engine: KvEngine, reserved: ReadonlySet<string>, log: Log): Promise<void> {
  const named = [...reserved].map((name) => ({ lower: name, upper: boundAfterKey(name) }));
  const underscored = { lower: "_", upper: boundAfterPrefix("_") };
  for (const range of [underscored, ...named]) {
    const { names } = await engine.listBuckets({ ...range, isReverse: false, limit: NAMES_MAX }, null);
    for (const bucket of names) {
      log.warn("a bucket has a name that is reserved now; its entries are kept but cannot be reached", { bucket });
    }
  }
}
