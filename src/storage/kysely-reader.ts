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
import type { ReaderClient } from "./reader-client.ts";

type Rows = Pick<ReaderClient, "rows">;

/** For statements that read; there are no transactions, so two statements may see different commits. */
export function kyselyOverReader(reader: Rows): Kysely<unknown> {
  const connection = new ReaderConnection(reader);
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
  readonly #reader: Rows;

  constructor(reader: Rows) {
    this.#reader = reader;
  }

  async executeQuery<R>({ sql, parameters }: CompiledQuery): Promise<QueryResult<R>> {
    return { rows: (await this.#reader.rows(sql, parameters)) as R[] };
  }

  // biome-ignore lint/correctness/useYield: the interface asks for it, and nobody streams
  async *streamQuery<R>(): AsyncIterableIterator<QueryResult<R>> {
    throw new Error("Statements of the reader thread are not streamed.");
  }
}
