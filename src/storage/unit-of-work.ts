// Write units: named functions over one transaction, the same on every engine. The rows of a service and the KV entries
// that belong to them change together or not at all.

import type { Kysely } from "kysely";

/** The tables of one service, of those that a store has. */
export function tablesOf<Tables extends Record<string, Record<string, unknown>>>(
  tables: Kysely<unknown>,
): Kysely<Tables> {
  return tables.withTables<Tables>() as unknown as Kysely<Tables>;
}

/** What a write unit works with. It may await queries of `tables` and nothing else: nothing may get between. */
export interface UnitOfWork {
  /** Inside the transaction; see `tablesOf` for those of a service. */
  readonly tables: Kysely<unknown>;
  /** The time of the commit, ms since 1970. */
  readonly nowMs: number;
  /** Every entry of the bucket is missing from the commit on. */
  wipeBucket(bucket: string): void;
  /** Live entries of the bucket. */
  countEntries(bucket: string): number;
}

/** Arguments and results cross a thread border: plain data only. It may throw AppError; nothing is stored then. */
type WriteUnit<Arguments, Result> = (work: UnitOfWork, args: Arguments) => Promise<Result>;

/** Units by name: `service.verb`. */
export type WriteUnits = Readonly<Record<string, WriteUnit<never, unknown>>>;

/** Runs units by name. */
export interface UnitRunner<Units extends WriteUnits> {
  /**
   * Resolves after the commit was synced.
   * @throws AppError of the unit; busy, overloaded, draining, storage_full: surely not applied; storage_failed: unknown
   */
  run<Name extends keyof Units & string>(
    name: Name,
    args: Parameters<Units[Name]>[1],
  ): Promise<Awaited<ReturnType<Units[Name]>>>;
}

/** Callers of scans that are no single user. */
export const SCANS_OF = { operators: "operators", server: "server" } as const;

/** Rows of services, read on read-only connections. */
export interface TableStore<Units extends WriteUnits> extends UnitRunner<Units> {
  /** For points and short pages: it reads at once, and nothing else happens meanwhile. */
  readonly tables: Kysely<unknown>;
  /**
   * For scans: callers take turns with their statements, so a long one should come in slices. A statement whose turn
   * has not come when `signal` says that nobody waits any more is not run, and throws AppError unavailable.
   */
  scansFor(caller: string, signal: AbortSignal | null): Kysely<unknown>;
}
