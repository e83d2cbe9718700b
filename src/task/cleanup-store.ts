// Finds the sessions that the cleanup has something to do with: slice by slice, since no index tells when they end.

import type { Kysely } from "kysely";
import { SCANS_OF, type TableStore } from "../storage/unit-of-work.ts";
import { endOf } from "./cleanup-units.ts";
import { taskTables } from "./task-base-units.ts";
import type { TaskTables } from "./task-tables.ts";
import type { TaskUnits } from "./task-units.ts";

/** Rows that one statement looks at. */
const SLICE_ROWS = 2000;
/** Sessions that are handed on together. */
const GROUP = 500;

/** Before the first id. */
const START = "";

/** Groups of sessions that ended by `nowMs` and have refresh tokens left, or ended before `beforeMs`. */
export async function* endedSessions(
  store: Pick<TableStore<TaskUnits>, "scansFor">,
  { nowMs, beforeMs }: { readonly nowMs: number; readonly beforeMs: number },
): AsyncGenerator<readonly string[]> {
  const db = taskTables({ tables: store.scansFor(SCANS_OF.server, null) });
  for (let after = START; ; ) {
    const rows = await sessionsAfter(db, after);
    const ended = rows.filter((row) => endOf(row) < beforeMs || (endOf(row) < nowMs && row.has_tokens > 0));
    const ids = ended.map(({ id }) => id);
    for (let first = 0; first < ids.length; first += GROUP) yield ids.slice(first, first + GROUP);
    if (rows.length < SLICE_ROWS) return;
    after = rows.at(-1)!.id;
  }
}

function sessionsAfter(db: Kysely<TaskTables>, after: string) {
  return db
    .selectFrom("task_session as session")
    .select(["session.id", "session.revoked_at_ms", "session.idle_until_ms", "session.expires_at_ms"])
    .select(({ exists, selectFrom }) =>
      exists(selectFrom("task_refresh as token").select("token.hash").whereRef("token.session_id", "=", "session.id"))
        .$castTo<number>()
        .as("has_tokens"),
    )
    .where("session.id", ">", after)
    .orderBy("session.id")
    .limit(SLICE_ROWS)
    .execute();
}
