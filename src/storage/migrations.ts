// The one list of schema migrations, forward only; the number of the last one applied is the store's user_version.

import { type Kysely, sql } from "kysely";
import { createTask } from "./create-task-tables.ts";

interface Migration {
  readonly name: string;
  /** Runs inside the transaction that also records it; changes no rows but those of stores that were there before. */
  up(db: Kysely<unknown>): Promise<void>;
}

/** Append only: a released entry never changes. */
export const MIGRATIONS: readonly Migration[] = [
  { name: "kv", up: createKv },
  { name: "token", up: createToken },
  { name: "relay", up: createRelay },
  { name: "task", up: createTask },
  { name: "task-webhook-priority", up: addWebhookPriority },
  { name: "task-message", up: addMessages },
];

/** To be imported as a macro: the migrations themselves are loaded only when there is one to run. */
export function latestSchemaVersion(): number {
  return MIGRATIONS.length;
}

/** The value stands last, so that no other column lies behind its overflow pages. */
async function createKv(db: Kysely<unknown>): Promise<void> {
  await sql`CREATE TABLE kv (
    id INTEGER PRIMARY KEY,
    bucket TEXT NOT NULL,
    key TEXT NOT NULL,
    revision INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    expires_at INTEGER,
    checksum INTEGER NOT NULL,
    content_type TEXT,
    metadata TEXT,
    creator_ip TEXT,
    value BLOB NOT NULL,
    UNIQUE (bucket, key)
  ) STRICT`.execute(db);
  // For the sweep.
  await sql`CREATE INDEX kv_expiry ON kv (expires_at) WHERE expires_at IS NOT NULL`.execute(db);
  // For lists and counts: tells which keys have expired without a look at the rows.
  await sql`CREATE INDEX kv_expiring ON kv (bucket, key, expires_at) WHERE expires_at IS NOT NULL`.execute(db);
  await sql`CREATE TABLE kv_bucket (
    name TEXT PRIMARY KEY,
    entries INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    wiped_revision INTEGER NOT NULL DEFAULT 0
  ) STRICT`.execute(db);
  await sql`CREATE TABLE store (name TEXT PRIMARY KEY, value ANY NOT NULL) STRICT`.execute(db);
}

async function createToken(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable("token_device")
    .addColumn("uuid", "text", (column) => column.primaryKey().notNull())
    .addColumn("name", "text")
    .addColumn("created_at", "integer", (column) => column.notNull())
    .addColumn("updated_at", "integer", (column) => column.notNull())
    .modifyEnd(sql`STRICT`)
    .execute();
  await db.schema
    .createTable("token_app")
    .addColumn("id", "text", (column) => column.primaryKey().notNull())
    .addColumn("name", "text", (column) => column.notNull())
    .addColumn("description", "text")
    .addColumn("homepage", "text")
    .addColumn("permission_prefix", "text")
    .addColumn("permission_key", "text", (column) => column.notNull())
    .addColumn("created_at", "integer", (column) => column.notNull())
    .addColumn("updated_at", "integer", (column) => column.notNull())
    .modifyEnd(sql`STRICT`)
    .execute();
  await db.schema
    .createTable("token_installation")
    .addColumn("id", "text", (column) => column.primaryKey().notNull())
    .addColumn("device_uuid", "text", (column) => column.notNull().references("token_device.uuid").onDelete("cascade"))
    .addColumn("app_id", "text", (column) => column.notNull().references("token_app.id").onDelete("restrict"))
    .addColumn("token_hash", "blob", (column) => column.notNull().unique())
    .addColumn("token_hint", "text", (column) => column.notNull())
    .addColumn("note", "text")
    .addColumn("device_type", "text")
    .addColumn("permission_prefix", "text")
    .addColumn("permission_key", "text", (column) => column.notNull())
    .addColumn("is_read_only", "integer", (column) => column.notNull())
    .addColumn("expires_at", "integer")
    .addColumn("installed_at", "integer", (column) => column.notNull())
    .addColumn("updated_at", "integer", (column) => column.notNull())
    .modifyEnd(sql`STRICT`)
    .execute();
  await db.schema.createIndex("token_installation_device").on("token_installation").column("device_uuid").execute();
  await db.schema.createIndex("token_installation_app").on("token_installation").column("app_id").execute();
}

async function createRelay(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable("relay_channel")
    .addColumn("id", "integer", (column) => column.primaryKey().autoIncrement())
    .addColumn("type", "text", (column) => column.notNull())
    .addColumn("name", "text", (column) => column.notNull())
    .addColumn("sealed_key", "text", (column) => column.notNull())
    .addColumn("key_mask", "text", (column) => column.notNull())
    .addColumn("base_url", "text", (column) => column.notNull())
    .addColumn("models", "text", (column) => column.notNull())
    .addColumn("discovered_models", "text", (column) => column.notNull())
    .addColumn("model_mapping", "text", (column) => column.notNull())
    .addColumn("group_names", "text", (column) => column.notNull())
    .addColumn("weight", "integer", (column) => column.notNull())
    .addColumn("priority", "integer", (column) => column.notNull())
    .addColumn("status", "integer", (column) => column.notNull())
    .addColumn("status_reason", "text")
    .addColumn("status_time", "integer", (column) => column.notNull())
    .addColumn("auto_ban", "integer", (column) => column.notNull())
    .addColumn("no_stream_options", "integer", (column) => column.notNull())
    .addColumn("ttft_ms", "integer")
    .addColumn("total_ms", "integer")
    .addColumn("created_time", "integer", (column) => column.notNull())
    .addColumn("updated_time", "integer", (column) => column.notNull())
    .addColumn("test_time", "integer")
    .addColumn("response_time", "integer")
    .addColumn("used_quota", "integer", (column) => column.notNull())
    .modifyEnd(sql`STRICT`)
    .execute();
  await db.schema
    .createTable("relay_token")
    .addColumn("id", "integer", (column) => column.primaryKey().autoIncrement())
    .addColumn("user_id", "integer", (column) => column.notNull())
    .addColumn("key_hash", "blob", (column) => column.notNull().unique())
    .addColumn("key_mask", "text", (column) => column.notNull())
    .addColumn("status", "integer", (column) => column.notNull())
    .addColumn("name", "text", (column) => column.notNull())
    .addColumn("created_time", "integer", (column) => column.notNull())
    .addColumn("accessed_time", "integer", (column) => column.notNull())
    .addColumn("expired_time", "integer")
    .addColumn("unlimited_quota", "integer", (column) => column.notNull())
    .addColumn("remain_quota", "integer", (column) => column.notNull())
    .addColumn("used_quota", "integer", (column) => column.notNull())
    .addColumn("models", "text", (column) => column.notNull())
    .addColumn("allow_ips", "text", (column) => column.notNull())
    .addColumn("group_names", "text", (column) => column.notNull())
    .addColumn("rpm", "integer", (column) => column.notNull())
    .addColumn("tpm", "integer", (column) => column.notNull())
    .addColumn("max_parallel", "integer", (column) => column.notNull())
    .addColumn("cache_ttl", "integer", (column) => column.notNull())
    .modifyEnd(sql`STRICT`)
    .execute();
  await createRelayLedger(db);
}

/** What requests leave behind; amounts that are set aside until their answers have ended. */
async function createRelayLedger(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable("relay_reservation")
    .addColumn("request_id", "text", (column) => column.primaryKey().notNull())
    .addColumn("token_id", "integer", (column) => column.notNull())
    .addColumn("amount", "integer", (column) => column.notNull())
    .addColumn("node", "text", (column) => column.notNull())
    .addColumn("expires_at", "integer", (column) => column.notNull())
    .modifyEnd(sql`STRICT`)
    .execute();
  await db.schema
    .createTable("relay_log")
    .addColumn("id", "integer", (column) => column.primaryKey())
    .addColumn("request_id", "text", (column) => column.notNull().unique())
    .addColumn("ts", "integer", (column) => column.notNull())
    .addColumn("token_id", "integer", (column) => column.notNull())
    .addColumn("token_name", "text", (column) => column.notNull())
    .addColumn("channel_id", "integer")
    .addColumn("route", "text", (column) => column.notNull())
    .addColumn("model", "text", (column) => column.notNull())
    .addColumn("upstream_model", "text")
    .addColumn("status", "integer", (column) => column.notNull())
    .addColumn("stream", "integer", (column) => column.notNull())
    .addColumn("ttft_ms", "integer")
    .addColumn("duration_ms", "integer", (column) => column.notNull())
    .addColumn("overhead_ms", "real", (column) => column.notNull())
    .addColumn("prompt_tokens", "integer", (column) => column.notNull())
    .addColumn("completion_tokens", "integer", (column) => column.notNull())
    .addColumn("cached_tokens", "integer", (column) => column.notNull())
    .addColumn("estimated", "integer", (column) => column.notNull())
    .addColumn("quota", "integer", (column) => column.notNull())
    .addColumn("attempts", "integer", (column) => column.notNull())
    .addColumn("error_code", "text")
    .addColumn("client_ip", "text")
    .modifyEnd(sql`STRICT`)
    .execute();
  await db.schema.createIndex("relay_log_time").on("relay_log").column("ts").execute();
  await db.schema.createIndex("relay_log_token").on("relay_log").columns(["token_id", "ts"]).execute();
  await db.schema.createIndex("relay_log_channel").on("relay_log").columns(["channel_id", "ts"]).execute();
  await db.schema
    .createTable("relay_response")
    .addColumn("response_id", "text", (column) => column.primaryKey().notNull())
    .addColumn("token_id", "integer", (column) => column.notNull())
    .addColumn("channel_id", "integer", (column) => column.notNull())
    .addColumn("expires_at", "integer", (column) => column.notNull())
    .modifyEnd(sql`STRICT`)
    .execute();
  await db.schema.createIndex("relay_response_expiry").on("relay_response").column("expires_at").execute();
  await db.schema
    .createTable("relay_meta")
    .addColumn("name", "text", (column) => column.primaryKey().notNull())
    .addColumn("value", "integer", (column) => column.notNull())
    .modifyEnd(sql`STRICT`)
    .execute();
}

/** To the hooks that are there a new one's: each has to show what it is worth. */
async function addWebhookPriority(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .alterTable("task_webhook")
    .addColumn("job_priority", "integer", (column) => column.notNull().defaultTo(1))
    .execute();
}

/**
 * What webhooks are told, once for all that are told the same, and not in the row of a delivery: SQLite writes a row
 * anew, with all its text, when its state changes. A delivery without a message has its body in its own row.
 */
async function addMessages(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable("task_message")
    .addColumn("id", "text", (column) => column.primaryKey().notNull())
    .addColumn("body", "text", (column) => column.notNull())
    .modifyEnd(sql`STRICT`)
    .execute();
  await db.schema.alterTable("task_delivery").addColumn("message_id", "text").execute();
  await db.schema.createIndex("task_delivery_by_message").on("task_delivery").column("message_id").execute();
}
