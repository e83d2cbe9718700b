// What the whole server is made of: what it is given, and what its services share.

import { JwtGate } from "../auth/jwt-gate.ts";
import { ByteBudget } from "../http/byte-budget.ts";
import type { Metrics } from "../http/metrics.ts";
import type { ServerState } from "../http/request-scope.ts";
import { Admission } from "../http/surface.ts";
import { CachedKvEngine } from "../kv/cached-kv-engine.ts";
import { GcraLimiter } from "../limits/gcra-limiter.ts";
import { ACCOUNT_BODY_BYTES_MAX, KiB, MiB } from "../shared/bounds.ts";
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

/** Of the memory for bodies. Calls of the relay hold their part for as long as an upstream takes to answer. */
const USERS_SHARE = 7 / 8;
const RELAY_SHARE = 3 / 4;
/** Of its part: so much is left for answers, and no body keeps out what an upstream is at work on, and is paid for. */
const RELAY_BODIES_SHARE = 7 / 8;
/** Of what users have: one of them, or one app, leaves room for the others. */
const HOLDER_SHARE = 1 / 2;
/** What a body may hold beside what its bound is about. */
const BODY_SLACK_BYTES = 64 * KiB;

/** One engine, one gate, one budget, one limiter of those that have none of their own. */
export function createSharedParts({ settings, clock, metrics, store }: AppParts) {
  const gate = new JwtGate({
    secrets: settings.secrets,
    clock,
    onFailure: (reason) => metrics.countAuthFailure(reason),
  });
  const admission = new Admission(settings.maxInflight);
  const budget = new ByteBudget(settings.bodyBudgetBytes);
  const usersBudget = budget.part(usersBytes(settings));
  usersBudget.limitEach(shareOf(usersBudget.limitBytes, HOLDER_SHARE, 2 * largestUserBytes(settings)));
  const relayBudget = usersBudget.part(relayBytes(settings));
  return {
    admission,
    surface: { gate, admission },
    engine: CachedKvEngine.over(store, settings.readCacheBytes),
    /** Of operators, who alone may have all of it. */
    budget,
    /** Of all others: so many bodies and answers as they may hold leave room for operators. */
    usersBudget,
    /** Of clients of the relay: it leaves room for other users. */
    relayBudget,
    /** Of what they send. */
    relayBodyBudget: relayBudget.part(shareOf(relayBudget.limitBytes, RELAY_BODIES_SHARE, settings.relayBodyMax)),
    /** Of those of whom only a body may say who they are, or who need not say it. */
    strangers: new ByteBudget(strangersBytes(settings)),
    limiter: new GcraLimiter(clock, LIMITER_BYTES),
    templates: new WeakMap<KvEntry, Headers>(),
    reservedBuckets: reservedBuckets(settings.services),
  };
}

function usersBytes(settings: Settings): number {
  const largestBytes = Math.max(largestUserBytes(settings), largestCallBytes(settings));
  return shareOf(settings.bodyBudgetBytes, USERS_SHARE, largestBytes);
}

function largestUserBytes({ services, maxValueBytes, tokenMaxBatchBytes, taskBodyMax }: Settings): number {
  const ofApps = services.has("token") ? Math.max(maxValueBytes, tokenMaxBatchBytes) : 0;
  return Math.max(ofApps, services.has("task") ? taskBodyMax : 0);
}

function relayBytes(settings: Settings): number {
  return shareOf(settings.bodyBudgetBytes, RELAY_SHARE, largestCallBytes(settings));
}

/** A call holds its body while its answer comes. */
function largestCallBytes({ services, relayBodyMax, relayResponseMax }: Settings): number {
  return services.has("relay") ? relayBodyMax + relayResponseMax : 0;
}

/** All of it, where the settings permit one of them something that would not fit into the share even alone. */
function shareOf(wholeBytes: number, share: number, largestBytes: number): number {
  const bytes = Math.floor(wholeBytes * share);
  return largestBytes + BODY_SLACK_BYTES <= bytes ? bytes : wholeBytes;
}

/** At least what one of them may send. */
function strangersBytes({ bodyBudgetBytes, tokenBodyAuthBytes }: Settings): number {
  return Math.max(Math.floor(bodyBudgetBytes * STRANGERS_SHARE), tokenBodyAuthBytes, ACCOUNT_BODY_BYTES_MAX);
}
