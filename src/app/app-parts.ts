// What the whole server is made of: what it is given, and what its services share.

import { JwtGate } from "../auth/jwt-gate.ts";
import { ByteBudget } from "../http/byte-budget.ts";
import type { Metrics } from "../http/metrics.ts";
import type { ServerState } from "../http/request-scope.ts";
import { Admission } from "../http/surface.ts";
import { CachedKvEngine } from "../kv/cached-kv-engine.ts";
import { GcraLimiter } from "../limits/gcra-limiter.ts";
import { MiB } from "../shared/bounds.ts";
import type { Clock } from "../shared/clock.ts";
import type { Log } from "../shared/log.ts";
import type { Settings } from "../shared/settings.ts";
import type { BackupClient } from "../storage/backup-client.ts";
import type { KvEntry } from "../storage/kv-engine.ts";
import type { SqliteStore } from "../storage/sqlite-store.ts";
import { reservedBuckets } from "./reserved-buckets.ts";

/** Some fifty thousand clients at once; those seen least recently are forgiven. */
const LIMITER_BYTES = 16 * MiB;

/** Of the memory for bodies, on top of it. */
const STRANGERS_SHARE = 0.25;

export interface AppParts {
  readonly settings: Settings;
  readonly log: Log;
  /** Of gates, limits and backups. The storage thread dates writes by its own. */
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly store: SqliteStore;
  readonly backups: BackupClient;
  readonly state: ServerState;
}

export type SharedParts = ReturnType<typeof createSharedParts>;

/** One engine, one gate, one budget, one limiter of those that have none of their own. */
export function createSharedParts({ settings, clock, metrics, store }: AppParts) {
  const gate = new JwtGate({
    secrets: settings.secrets,
    clock,
    onFailure: (reason) => metrics.countAuthFailure(reason),
  });
  const admission = new Admission(settings.maxInflight);
  return {
    admission,
    surface: { gate, admission },
    engine: CachedKvEngine.over(store, settings.readCacheBytes),
    budget: new ByteBudget(settings.bodyBudgetBytes),
    strangers: new ByteBudget(strangersBytes(settings)),
    limiter: new GcraLimiter(clock, LIMITER_BYTES),
    templates: new WeakMap<KvEntry, Headers>(),
    reservedBuckets: reservedBuckets(settings.services),
  };
}

/** At least what one of them may send. */
function strangersBytes({ bodyBudgetBytes, tokenBodyAuthBytes }: Settings): number {
  return Math.max(Math.floor(bodyBudgetBytes * STRANGERS_SHARE), tokenBodyAuthBytes);
}
