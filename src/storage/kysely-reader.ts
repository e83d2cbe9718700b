// Kysely over the reader thread: statements travel there, rows come back.

import {
  type CompiledQuery,
  type DatabaseConnection,
  type Dialect,
  Kysely,
  type QueryResult,
  SqliteAdapter,
  SqliteIntrospector,
  SqliteQueryCompiler,
} from "kysely";

/** What one statement reads. */
export type ReadRows = (sql: string, parameters: readonly unknown[]) => Promise<unknown[]>;

/** For statements that read; there are no transactions, so two statements may see different commits. */
export function kyselyOverReader(rows: ReadRows): Kysely<unknown> {
  const connection = new ReaderConnection(rows);
  const none = async () => undefined;
  const dialect: Dialect = {
    createAdapter: () => new SqliteAdapter(),
    createQueryCompiler: () => new SqliteQueryCompiler(),
    createIntrospector: (db) => new SqliteIntrospector(db),
    createDriver: () => ({
      init: none,
      acquireConnection: async () => connection,
      beginTransaction: none,
      commitTransaction: none,
      rollbackTransaction: none,
      releaseConnection: none,
      destroy: none,
    }),
  };
  return new Kysely<unknown>({ dialect });
}

class ReaderConnection implements DatabaseConnection {
  readonly #rows: ReadRows;

  constructor(rows: ReadRows) {
    this.#rows = rows;
  }

  async executeQuery<R>({ sql, parameters }: CompiledQuery): Promise<QueryResult<R>> {
    return { rows: (await this.#rows(sql, parameters)) as R[] };
  }

  // biome-ignore lint/correctness/useYield: the interface asks for it, and nobody streams
  async *streamQuery<R>(): AsyncIterableIterator<QueryResult<R>> {
    throw new Error("Statements of the reader thread are not streamed.");
  }
}
