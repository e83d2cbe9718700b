// Kysely over a bun:sqlite connection: the shim between the two statement interfaces.

import type { Database, SQLQueryBindings } from "bun:sqlite";
import { Kysely, SqliteDialect } from "kysely";

/** Runs a call of the driver; what it throws reaches whoever awaits the query. */
type Ask = <T>(call: () => T) => T;

/**
 * The same connection seen through Kysely's query builder. It is synchronous underneath: awaiting a query takes
 * microtasks only. Transactions stay with the owner of the connection, who also closes it (never `destroy()` this).
 */
export function kyselyOver<Tables>(database: Database, ask: Ask = (call) => call()): Kysely<Tables> {
  return new Kysely<Tables>({
    dialect: new SqliteDialect({
      database: {
        close: () => undefined,
        prepare(sql) {
          const statement = ask(() => database.prepare<unknown, SQLQueryBindings[]>(sql));
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
