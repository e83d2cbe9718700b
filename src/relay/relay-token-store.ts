// Relay tokens: read here, changed by write units, those in use kept in memory.

import type { Kysely } from "kysely";
import { hashOpaque } from "../auth/opaque-token.ts";
import { type BoundedCache, createBoundedCache } from "../limits/bounded-cache.ts";
import type { Clock } from "../shared/clock.ts";
import { AppError } from "../shared/errors.ts";
import type { Eventually } from "../shared/eventual.ts";
import type { TableStore } from "../storage/unit-of-work.ts";
import type { TokenTouch } from "./ledger-units.ts";
import { relayTables } from "./relay-base-units.ts";
import { type RelayTables, type RelayToken, toRelayToken } from "./relay-tables.ts";
import type { RelayUnits } from "./relay-units.ts";

/** What an entry costs besides its key and its texts. */
const ENTRY_BYTES = 600;
/** What a string in a list costs besides its characters. */
const STRING_BYTES = 32;
const CACHE_BYTES = 8 * 1024 * 1024;
/** `accessed_time` is written at most so often for each token. */
const TOUCH_INTERVAL_MS = 10_000;

/** Null filters nothing. */
interface RelayTokenFilter {
  readonly status: number | null;
  readonly userId: number | null;
}

interface InUse {
  readonly token: RelayToken;
  /** When its use was last noted. */
  touchedMs: number;
}

export class RelayTokenStore {
  readonly #store: TableStore<RelayUnits>;
  readonly #db: Kysely<RelayTables>;
  readonly #clock: Clock;
  /**
   * By the key itself; dropped as a whole with every change, before the change is answered. So a token that was
   * disabled is refused to every request that starts later.
   */
  readonly #inUse: BoundedCache<InUse> = createBoundedCache<InUse>(CACHE_BYTES)!;
  /** Counts how often that happened: what was read before a drop is not kept after it. */
  #drops = 0;
  #touched = new Map<number, number>();

  constructor(store: TableStore<RelayUnits>, clock: Clock) {
    this.#store = store;
    this.#db = relayTables(store);
    this.#clock = clock;
  }

  /**
   * The token of a key, whatever its state, or null. Its quota may be out of date: `relay.account` decides. Without a
   * promise when it is in use. The use of a valid one is noted: see `takeTouched`.
   */
  findByKey(key: string): Eventually<RelayToken | null> {
    const known = this.#inUse.get(key);
    return known === undefined ? this.#read(key) : this.#use(known);
  }

  /** Uses since the last call, to be written with the next rows of the log. */
  takeTouched(): readonly TokenTouch[] {
    if (this.#touched.size === 0) return [];
    const touched = [...this.#touched].map(([id, atMs]) => ({ id, atMs }));
    this.#touched = new Map();
    return touched;
  }

  /** Throws what the unit throws; see UnitRunner. */
  async change<Name extends keyof RelayUnits>(
    name: Name,
    args: Parameters<RelayUnits[Name]>[1],
  ): Promise<Awaited<ReturnType<RelayUnits[Name]>>> {
    try {
      return await this.#store.run(name, args);
    } finally {
      this.#forgetCached();
    }
  }

  /** Those that match, by id, and how many there are in all. */
  async list(
    filter: RelayTokenFilter,
    { limit, offset }: { limit: number; offset: number },
  ): Promise<{ tokens: RelayToken[]; total: number }> {
    let query = this.#db.selectFrom("relay_token");
    if (filter.status !== null) query = query.where("status", "=", filter.status === 1 ? 1 : 0);
    if (filter.userId !== null) query = query.where("user_id", "=", filter.userId);
    const { total } = await query.select((build) => build.fn.countAll<number>().as("total")).executeTakeFirstOrThrow();
    const rows = await query.selectAll().orderBy("id").limit(limit).offset(offset).execute();
    return { tokens: rows.map(toRelayToken), total };
  }

  /** As it is stored now. @throws AppError token_not_found */
  async require(id: number): Promise<RelayToken> {
    const row = await this.#db.selectFrom("relay_token").selectAll().where("id", "=", id).executeTakeFirst();
    if (row === undefined) throw new AppError("token_not_found", "There is no such token.");
    return toRelayToken(row);
  }

  /** What is being read at the moment is not kept either. */
  #forgetCached(): void {
    this.#drops++;
    this.#inUse.clear();
  }

  async #read(key: string): Promise<RelayToken | null> {
    const drops = this.#drops;
    const hashed = this.#db.selectFrom("relay_token").where("key_hash", "=", hashOpaque(key));
    const row = await hashed.selectAll().executeTakeFirst();
    if (row === undefined) return null;
    const found = { token: toRelayToken(row), touchedMs: row.accessed_time };
    if (drops === this.#drops) this.#inUse.set(key, found, weightOf(key, found.token));
    return this.#use(found);
  }

  #use(inUse: InUse): RelayToken {
    const { token, touchedMs } = inUse;
    const nowMs = this.#clock();
    const isValid = token.status === 1 && (token.expiresAtMs === null || token.expiresAtMs > nowMs);
    if (isValid && nowMs - touchedMs >= TOUCH_INTERVAL_MS) {
      inUse.touchedMs = nowMs;
      this.#touched.set(token.id, nowMs);
    }
    return token;
  }
}

/** Some tokens may use every model, others name five thousand. */
function weightOf(key: string, { name, models, allowIps, groups }: RelayToken): number {
  const ofList = (list: readonly string[]) => list.reduce((sum, { length }) => sum + STRING_BYTES + 2 * length, 0);
  return ENTRY_BYTES + 2 * (key.length + name.length) + ofList(models) + ofList(allowIps) + ofList(groups);
}
