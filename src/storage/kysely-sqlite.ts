// Kysely over a bun:sqlite connection: the shim between the two statement interfaces.

import type { Database, SQLQueryBindings, Statement } from "bun:sqlite";
import { Kysely, SqliteDialect } from "kysely";

/** Runs a call of the driver; what it throws reaches whoever awaits the query. */
type Ask = <T>(call: () => T) => T;

/**
 * The same connection seen through Kysely's query builder. It is synchronous underneath: awaiting a query takes
 * microtasks only. Transactions stay with the owner of the connection, who also closes it (never `destroy()` this).
 */
export function kyselyOver<Tables>(database: Database, ask: Ask = (call) => call()): Kysely<Tables> {
  const statements = new Statements(database);
  return new Kysely<Tables>({
    dialect: new SqliteDialect({
      database: {
        close: () => undefined,
        prepare(sql) {
          const statement = ask(() => statements.prepare(sql));
          return {
            reader: statement.columnNames.length > 0,
            all: (parameters) => ask(() => statement.all(...(parameters as SQLQueryBindings[]))),
            run: (parameters) => ask(() => statement.run(...(parameters as SQLQueryBindings[]))),
            iterate: (parameters) => statement.iterate(...(parameters as SQLQueryBindings[])),
          };
        },
      },
    }),
  });
}

type AnyStatement = Statement<unknown, SQLQueryBindings[]>;

/** Preparing costs more than most queries, and a service has no more than a few hundred different ones. */
const STATEMENTS_MAX = 256;

/** Prepared once. Each call of one runs to its end before the next, so that they can be shared. */
class Statements {
  readonly #database: Database;
  readonly #known = new Map<string, AnyStatement>();

  constructor(database: Database) {
    this.#database = database;
  }

  prepare(sql: string): AnyStatement {
    const known = this.#known.get(sql);
    if (known !== undefined) return known;
    // Lists of values make statements that never come again.
    if (this.#known.size >= STATEMENTS_MAX) this.#known.clear();
    const statement = this.#database.prepare<unknown, SQLQueryBindings[]>(sql);
    this.#known.set(sql, statement);
    return statement;
  }
}
