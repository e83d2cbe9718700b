// Devices, apps and installations: read here, changed by write units, installations in use kept in memory.

import { expressionBuilder, type Kysely, sql } from "kysely";
import { hashOpaque } from "../auth/opaque-token.ts";
import { type BoundedCache, createBoundedCache } from "../limits/bounded-cache.ts";
import { AppError } from "../shared/errors.ts";
import type { Eventually } from "../shared/eventual.ts";
import { boundAfterPrefix } from "../storage/key-bounds.ts";
import { type TableStore, tablesOf } from "../storage/unit-of-work.ts";
import {
  type App,
  type Device,
  type Installation,
  type TokenTables,
  toApp,
  toDevice,
  toInstallation,
} from "./token-tables.ts";
import type { TokenUnits } from "./token-units.ts";

/** What an entry costs besides its token. */
const ENTRY_BYTES = 600;
const CACHE_BYTES = 8 * 1024 * 1024;

/** A page of rows in the order of their ids; `nextCursor` is the id to go on behind, null at the end. */
export interface Rows<T> {
  readonly items: readonly T[];
  readonly nextCursor: string | null;
}

export interface RowQuery {
  readonly limit: number;
  /** Go on behind this id. */
  readonly after: string | null;
}

/** Which devices may be seen: their uuids, or prefixes of them when they end in `*`; null = all. */
type DeviceNames = readonly string[] | null;

export class TokenStore {
  readonly #store: TableStore<TokenUnits>;
  readonly #db: Kysely<TokenTables>;
  /**
   * By token, as it comes with the requests; dropped as a whole with every change, before the change is answered. So a
   * token that was revoked is dead for every request that starts later.
   */
  readonly #inUse: BoundedCache<Installation> = createBoundedCache<Installation>(CACHE_BYTES)!;

  constructor(store: TableStore<TokenUnits>) {
    this.#store = store;
    this.#db = tablesOf<TokenTables>(store.tables);
  }

  /** The installation of a token, expired or not, or null. Without a promise when it is in use. */
  findByToken(token: string): Eventually<Installation | null> {
    return this.#inUse.get(token) ?? this.#readByToken(token);
  }

  /** Throws what the unit throws; see UnitRunner. */
  async change<Name extends keyof TokenUnits>(
    name: Name,
    args: Parameters<TokenUnits[Name]>[1],
  ): Promise<Awaited<ReturnType<TokenUnits[Name]>>> {
    try {
      return await this.#store.run(name, args);
    } finally {
      this.#inUse.clear();
    }
  }

  async listDevices({ limit, after }: RowQuery, names: DeviceNames): Promise<Rows<Device>> {
    let query = this.#db
      .selectFrom("token_device")
      .selectAll()
      .orderBy("uuid")
      .limit(limit + 1);
    if (after !== null) query = query.where("uuid", ">", after);
    if (names !== null) query = query.where(isNamed(sql.ref("uuid"), names));
    return rowsOf((await query.execute()).map(toDevice), limit, (device) => device.uuid);
  }

  /** @throws AppError device_not_found */
  async requireDevice(uuid: string): Promise<Device> {
    const row = await this.#db.selectFrom("token_device").selectAll().where("uuid", "=", uuid).executeTakeFirst();
    if (row === undefined) throw new AppError("device_not_found", "There is no such device.");
    return toDevice(row);
  }

  async listApps({ limit, after }: RowQuery): Promise<Rows<App>> {
    const query = this.#db
      .selectFrom("token_app")
      .selectAll()
      .orderBy("id")
      .limit(limit + 1);
    const rows = await (after === null ? query : query.where("id", ">", after)).execute();
    return rowsOf(rows.map(toApp), limit, (app) => app.id);
  }

  /** @throws AppError app_not_found */
  async requireApp(id: string): Promise<App> {
    const row = await this.#db.selectFrom("token_app").selectAll().where("id", "=", id).executeTakeFirst();
    if (row === undefined) throw new AppError("app_not_found", "There is no such app.");
    return toApp(row);
  }

  /** Null filters nothing. */
  async listInstallations(
    { limit, after }: RowQuery,
    filter: { readonly deviceUuid: string | null; readonly appId: string | null; readonly names: DeviceNames },
  ): Promise<Rows<Installation>> {
    let query = this.#db
      .selectFrom("token_installation")
      .selectAll()
      .orderBy("id")
      .limit(limit + 1);
    if (after !== null) query = query.where("id", ">", after);
    if (filter.deviceUuid !== null) query = query.where("device_uuid", "=", filter.deviceUuid);
    if (filter.appId !== null) query = query.where("app_id", "=", filter.appId);
    const { names } = filter;
    if (names !== null) query = query.where(isNamed(sql.ref("device_uuid"), names));
    return rowsOf((await query.execute()).map(toInstallation), limit, (installation) => installation.id);
  }

  /** @throws AppError installation_not_found */
  async requireInstallation(id: string): Promise<Installation> {
    const row = await this.#db.selectFrom("token_installation").selectAll().where("id", "=", id).executeTakeFirst();
    if (row === undefined) throw new AppError("installation_not_found", "There is no such installation.");
    return toInstallation(row);
  }

  async #readByToken(token: string): Promise<Installation | null> {
    const row = await this.#db
      .selectFrom("token_installation")
      .selectAll()
      .where("token_hash", "=", hashOpaque(token))
      .executeTakeFirst();
    if (row === undefined) return null;
    const installation = toInstallation(row);
    this.#inUse.set(token, installation, ENTRY_BYTES + 2 * token.length + 2 * row.permission_key.length);
    return installation;
  }
}

/** As a part of the query: neither a page nor its cursor shows what may not be seen. */
function isNamed(column: ReturnType<typeof sql.ref<string>>, names: readonly string[]) {
  const eb = expressionBuilder<TokenTables>();
  return eb.or(
    names.map((name) => {
      if (!name.endsWith("*")) return eb(column, "=", name);
      const upper = boundAfterPrefix(name.slice(0, -1));
      const isAbove = eb(column, ">=", name.slice(0, -1));
      return upper === null ? isAbove : eb.and([isAbove, eb(column, "<", upper)]);
    }),
  );
}

function rowsOf<T>(rows: readonly T[], limit: number, idOf: (row: T) => string): Rows<T> {
  const items = rows.slice(0, limit);
  return { items, nextCursor: rows.length > limit ? idOf(items.at(-1)!) : null };
}
