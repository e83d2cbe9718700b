// A real store for tests of what the relay keeps in it, with its own storage thread.

import type { ChannelFields, NewLogRow, RelayTables, RelayTokenFields } from "../../src/relay/relay-tables.ts";
import type { RelayUnits } from "../../src/relay/relay-units.ts";
import type { TableStore } from "../../src/storage/unit-of-work.ts";
import { openOwnStore } from "./own-store.ts";

export interface RelayStore extends AsyncDisposable {
  readonly store: TableStore<RelayUnits>;
  readonly dbPath: string;
  /** Rows of a table, all of them. */
  rows<Name extends keyof RelayTables>(table: Name): Promise<RelayTables[Name][]>;
}

export async function openRelayStore(): Promise<RelayStore> {
  const own = await openOwnStore();
  const store = own.sqlite;
  const db = store.tables.withTables<RelayTables>();
  return {
    store,
    dbPath: own.dbPath,
    rows: async (table) =>
      (await db
        .selectFrom(table as "relay_log")
        .selectAll()
        .execute()) as never,
    [Symbol.asyncDispose]: () => own[Symbol.asyncDispose](),
  };
}

/** Goes up with every change of a channel or token. */
export async function versionOf({ rows }: RelayStore): Promise<number> {
  return (await rows("relay_meta"))[0]?.value ?? 0;
}

export const CHANNEL_FIELDS: ChannelFields = {
  type: "OpenAI",
  name: "first",
  baseUrl: "https://api.openai.com/v1",
  models: [],
  modelMapping: {},
  groups: ["default"],
  weight: 1,
  priority: 0,
  status: 1,
  autoBan: true,
  noStreamOptions: false,
  ttftMs: null,
  totalMs: null,
};

export const TOKEN_FIELDS: RelayTokenFields = {
  userId: 0,
  status: 1,
  name: "first",
  expiresAtMs: null,
  isUnlimited: false,
  remainQuota: 1000,
  models: [],
  allowIps: [],
  groups: ["default"],
  rpm: 0,
  tpm: 0,
  maxParallel: 0,
  cacheTtlSeconds: 0,
};

/** A row of the log as a request would write it. */
export function logRow(fields: Partial<NewLogRow> = {}): NewLogRow {
  return {
    request_id: crypto.randomUUID(),
    ts: Date.now(),
    token_id: 1,
    token_name: "first",
    channel_id: null,
    route: "/v1/chat/completions",
    model: "m",
    upstream_model: "m",
    status: 200,
    stream: 0,
    ttft_ms: null,
    duration_ms: 12,
    overhead_ms: 0.4,
    prompt_tokens: 3,
    completion_tokens: 4,
    cached_tokens: 0,
    estimated: 0,
    quota: 7,
    attempts: 1,
    error_code: null,
    client_ip: null,
    ...fields,
  };
}
