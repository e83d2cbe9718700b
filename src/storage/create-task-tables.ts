// The tables of the task service and of the job queue, as the migrations list makes them.

import { type CreateTableBuilder, type Kysely, type RawBuilder, type SqlBool, sql } from "kysely";

type Table = CreateTableBuilder<string, never>;
type Column = readonly [name: string, type: "integer" | "text" | "blob", rule?: "null" | "unique" | "key"];

export async function createTask(db: Kysely<unknown>): Promise<void> {
  await createAccounts(db);
  await createItems(db);
  await createFeeds(db);
  await createOutlets(db);
  await createJobs(db);
}

/** Times in ms since 1970. */
async function createAccounts(db: Kysely<unknown>): Promise<void> {
  await create(db, "task_user", ["id"], (table) =>
    columns(table, [
      ["username", "text"],
      ["email", "text"],
      // Null once the account is deleted: the names are free at once.
      ["username_key", "text", "unique"],
      ["email_key", "text", "unique"],
      ["password_hash", "text"],
      ["token_version", "integer"],
      ["disabled_at_ms", "integer", "null"],
      ["created_at_ms", "integer"],
      ["updated_at_ms", "integer"],
      ["deleted_at_ms", "integer", "null"],
    ]),
  );
  await create(db, "task_session", [], (table) =>
    columns(table, [
      ["id", "text", "key"],
      ["user_id", "integer"],
      ["ip", "text", "null"],
      ["user_agent", "text", "null"],
      ["created_at_ms", "integer"],
      ["last_used_at_ms", "integer"],
      ["idle_until_ms", "integer"],
      ["expires_at_ms", "integer"],
      ["revoked_at_ms", "integer", "null"],
      ["revoked_reason", "text", "null"],
    ]),
  );
  await index(db, "task_session", ["user_id"]);
  await create(db, "task_refresh", [], (table) =>
    columns(table, [
      ["hash", "text", "key"],
      ["session_id", "text"],
      ["created_at_ms", "integer"],
      ["used_at_ms", "integer", "null"],
    ]),
  );
  await index(db, "task_refresh", ["session_id"]);
}

async function createItems(db: Kysely<unknown>): Promise<void> {
  await create(db, "task_item", ["id"], (table) =>
    columns(table, [
      ["user_id", "integer"],
      ["assignee_id", "integer", "null"],
      ["title", "text"],
      ["description", "text"],
      ["search_text", "text"],
      ["status", "text"],
      ["priority", "integer"],
      ["due_at_ms", "integer"],
      ["remind_at_ms", "integer", "null"],
      ["completed_at_ms", "integer", "null"],
      ["created_at_ms", "integer"],
      ["updated_at_ms", "integer"],
      // 0 = live: an index takes it as a number like any other.
      ["deleted_at_ms", "integer"],
      ["version", "integer"],
    ])
      .addCheckConstraint("task_item_status", sql`status IN ('pending', 'in_progress', 'completed')`)
      .addCheckConstraint("task_item_priority", sql`priority BETWEEN 1 AND 3`),
  );
  // Each order tells what filters ask for, so that only matches are looked up.
  for (const order of [
    ["created_at_ms", "id", "status", "priority", "due_at_ms"],
    ["status", "created_at_ms", "id", "priority", "due_at_ms"],
    ["due_at_ms", "id", "status", "priority"],
    ["updated_at_ms", "id", "status", "priority", "due_at_ms"],
    // Statistics need no more than this.
    ["priority", "id", "due_at_ms", "status", "completed_at_ms"],
  ]) {
    await index(db, "task_item", ["user_id", "deleted_at_ms", ...order]);
    // The owner stands in it to leave out what users have assigned to themselves.
    await index(db, "task_item", ["assignee_id", "deleted_at_ms", ...order, "user_id"], sql`assignee_id IS NOT NULL`);
    // Deleted tasks come in the same orders, whenever they were deleted. The planner would take an index that begins
    // with the bare column instead, and sort.
    await index(db, "task_item", ["user_id", ...order, "deleted_at_ms"], sql`coalesce(deleted_at_ms, 0) > 0`);
  }
  await db.schema.createIndex("task_item_deleted").on("task_item").columns(["deleted_at_ms", "id"]).execute();
  await create(db, "task_label", [], (table) =>
    columns(table, [
      ["task_id", "integer"],
      ["label_key", "text"],
      ["label", "text"],
      ["user_id", "integer"],
    ]).addPrimaryKeyConstraint("task_label_pk", ["task_id", "label_key"] as never),
  );
  await index(db, "task_label", ["user_id", "label_key", "task_id"]);
  await create(db, "task_comment", ["id"], (table) =>
    columns(table, [
      ["task_id", "integer"],
      ["user_id", "integer"],
      ["body", "text"],
      ["created_at_ms", "integer"],
      ["deleted_at_ms", "integer", "null"],
    ]),
  );
  await index(db, "task_comment", ["task_id", "id"]);
  // Tasks that are gone, while what hangs on them is being removed.
  await create(db, "task_remains", [], (table) => columns(table, [["task_id", "integer", "key"]]));
}

/** What happened to a task, and who is to be told of it in which order. */
async function createFeeds(db: Kysely<unknown>): Promise<void> {
  await create(db, "task_event", ["id"], (table) =>
    columns(table, [
      ["task_id", "integer"],
      ["type", "text"],
      ["actor_id", "integer", "null"],
      ["version", "integer"],
      ["changes", "text"],
      ["at_ms", "integer"],
    ]),
  );
  await index(db, "task_event", ["task_id", "id"]);
  await create(db, "task_head", [], (table) =>
    columns(table, [
      ["user_id", "integer", "key"],
      ["rev", "integer"],
      ["item_count", "integer"],
    ]),
  );
  await create(db, "task_feed", [], (table) =>
    columns(table, [
      ["user_id", "integer"],
      ["rev", "integer"],
      ["event_id", "integer"],
      ["at_ms", "integer"],
    ]).addPrimaryKeyConstraint("task_feed_pk", ["user_id", "rev"] as never),
  );
  await index(db, "task_feed", ["at_ms"]);
  await create(db, "task_idempotency", [], (table) =>
    columns(table, [
      ["user_id", "integer"],
      ["key_hash", "text"],
      ["route", "text"],
      ["body_hash", "text"],
      ["status", "integer"],
      ["response", "text"],
      ["created_at_ms", "integer"],
    ]).addPrimaryKeyConstraint("task_idempotency_pk", ["user_id", "key_hash"] as never),
  );
  await index(db, "task_idempotency", ["created_at_ms"]);
}

/** Webhooks and exports. */
async function createOutlets(db: Kysely<unknown>): Promise<void> {
  await create(db, "task_webhook", [], (table) =>
    columns(table, [
      ["id", "text", "key"],
      ["user_id", "integer"],
      ["url", "text"],
      ["events", "text"],
      ["secret", "text"],
      ["previous_secret", "text", "null"],
      ["previous_until_ms", "integer", "null"],
      ["active", "integer"],
      ["disabled_reason", "text", "null"],
      ["failures", "integer"],
      ["pending", "integer"],
      ["created_at_ms", "integer"],
      ["updated_at_ms", "integer"],
    ]),
  );
  await index(db, "task_webhook", ["user_id", "id"]);
  await create(db, "task_delivery", [], (table) =>
    columns(table, [
      ["id", "text", "key"],
      ["webhook_id", "text"],
      ["job_id", "text"],
      ["event_type", "text"],
      ["body", "text"],
      ["state", "text"],
      ["attempts", "integer"],
      ["last_status", "integer", "null"],
      ["last_ms", "integer", "null"],
      ["last_error", "text", "null"],
      ["response_excerpt", "text", "null"],
      ["created_at_ms", "integer"],
      ["finished_at_ms", "integer", "null"],
    ]),
  );
  await index(db, "task_delivery", ["webhook_id", "id"]);
  await index(db, "task_delivery", ["webhook_id", "state"]);
  await index(db, "task_delivery", ["state", "finished_at_ms"]);
  await create(db, "task_export", [], (table) =>
    columns(table, [
      ["id", "text", "key"],
      ["user_id", "integer"],
      ["job_id", "text"],
      ["format", "text"],
      ["filter", "text"],
      ["state", "text"],
      ["row_count", "integer", "null"],
      ["byte_count", "integer", "null"],
      ["sha256", "text", "null"],
      ["created_at_ms", "integer"],
      ["expires_at_ms", "integer"],
    ]),
  );
  await index(db, "task_export", ["user_id", "id"]);
  await index(db, "task_export", ["expires_at_ms"]);
  await create(db, "task_export_part", [], (table) =>
    columns(table, [
      ["export_id", "text"],
      ["seq", "integer"],
      ["data", "blob"],
    ]).addPrimaryKeyConstraint("task_export_part_pk", ["export_id", "seq"] as never),
  );
}

async function createJobs(db: Kysely<unknown>): Promise<void> {
  await create(db, "job", [], (table) =>
    columns(table, [
      ["id", "text", "key"],
      ["queue", "text"],
      ["kind", "text"],
      ["owner_id", "integer", "null"],
      ["group_key", "text", "null"],
      ["payload", "text"],
      ["priority", "integer"],
      ["state", "text"],
      ["run_at_ms", "integer"],
      ["attempts", "integer"],
      ["max_attempts", "integer"],
      ["fence", "integer"],
      ["locked_by", "text", "null"],
      ["locked_until_ms", "integer", "null"],
      ["cancel_requested", "integer"],
      ["dedup_key", "text", "unique"],
      ["progress", "integer"],
      ["last_error", "text", "null"],
      ["request_id", "text", "null"],
      ["created_at_ms", "integer"],
      ["started_at_ms", "integer", "null"],
      ["finished_at_ms", "integer", "null"],
    ]).addCheckConstraint("job_state", sql`state IN ('ready', 'running', 'done', 'dead', 'cancelled')`),
  );
  // Group and owner stand in it so that jobs of a busy one are passed over without a look at their rows.
  await index(db, "job", ["queue", "state", "priority", "run_at_ms", "id", "group_key", "owner_id"]);
  await index(db, "job", ["owner_id", "id"]);
  // What waits or runs stands in neither: no search for a state is to end up in them.
  await index(db, "job", ["state", "finished_at_ms"], sql`finished_at_ms IS NOT NULL`);
  await index(db, "job", ["locked_until_ms"], sql`locked_until_ms IS NOT NULL`);
  await create(db, "job_schedule", [], (table) =>
    columns(table, [
      ["name", "text", "key"],
      ["expression", "text"],
      ["last_fire_ms", "integer"],
    ]),
  );
  await create(db, "job_queue", [], (table) =>
    columns(table, [
      ["name", "text", "key"],
      ["paused", "integer"],
    ]),
  );
}

/** With `["id"]` the rows are numbered; a number is never used again. */
async function create(
  db: Kysely<unknown>,
  name: string,
  numbered: readonly "id"[],
  build: (table: Table) => Table,
): Promise<void> {
  let table = db.schema.createTable(name) as Table;
  if (numbered.length > 0) {
    table = table.addColumn("id", "integer", (column) => column.primaryKey().autoIncrement()) as Table;
  }
  await build(table).modifyEnd(sql`STRICT`).execute();
}

function columns(table: Table, list: readonly Column[]): Table {
  return list.reduce<Table>((built, [name, type, rule]) => {
    return built.addColumn(name, type, (column) => {
      if (rule === "null") return column;
      if (rule === "unique") return column.unique();
      return rule === "key" ? column.primaryKey().notNull() : column.notNull();
    }) as Table;
  }, table);
}

/** Of the rows `only` is true for, or of all. */
async function index(
  db: Kysely<unknown>,
  table: string,
  names: readonly string[],
  only?: RawBuilder<SqlBool>,
): Promise<void> {
  const short = names.map((name) => name.replace(/_(at|id)?(_ms)?$/, ""));
  const created = db.schema
    .createIndex(`${table}_by_${short.join("_")}`)
    .on(table)
    .columns([...names]);
  await (only === undefined ? created : created.where(only)).execute();
}
