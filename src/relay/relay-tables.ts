// The rows of the relay, as Kysely sees them and as the program does.

import type { ChannelType } from "./channel-types.ts";

/** Columns are named like the fields of the wire; times in ms since 1970. */
export type RelayTables = {
  relay_channel: {
    id: number;
    type: ChannelType;
    name: string;
    sealed_key: string;
    key_mask: string;
    base_url: string;
    /** JSON arrays of strings. */
    models: string;
    discovered_models: string;
    /** JSON object of strings. */
    model_mapping: string;
    /** JSON array of group names. */
    group_names: string;
    weight: number;
    priority: number;
    status: ChannelStatus;
    status_reason: string | null;
    status_time: number;
    auto_ban: number;
    no_stream_options: number;
    ttft_ms: number | null;
    total_ms: number | null;
    created_time: number;
    updated_time: number;
    test_time: number | null;
    response_time: number | null;
    used_quota: number;
  };
  relay_token: {
    id: number;
    user_id: number;
    /** SHA-256 of the key, 32 bytes. The key itself is never stored. */
    key_hash: Uint8Array;
    key_mask: string;
    status: TokenStatus;
    name: string;
    created_time: number;
    accessed_time: number;
    /** Null = never. */
    expired_time: number | null;
    unlimited_quota: number;
    remain_quota: number;
    used_quota: number;
    models: string;
    allow_ips: string;
    group_names: string;
    rpm: number;
    tpm: number;
    max_parallel: number;
    cache_ttl: number;
  };
  relay_reservation: { request_id: string; token_id: number; amount: number; node: string; expires_at: number };
  relay_log: {
    id: number;
    request_id: string;
    ts: number;
    token_id: number;
    token_name: string;
    /** Null when no channel was asked. */
    channel_id: number | null;
    route: string;
    model: string;
    upstream_model: string | null;
    status: number;
    stream: number;
    ttft_ms: number | null;
    duration_ms: number;
    overhead_ms: number;
    prompt_tokens: number;
    completion_tokens: number;
    cached_tokens: number;
    estimated: number;
    quota: number;
    attempts: number;
    error_code: string | null;
    client_ip: string | null;
  };
  relay_response: { response_id: string; token_id: number; channel_id: number; expires_at: number };
  relay_meta: { name: string; value: number };
};

export type LogRow = RelayTables["relay_log"];

/** A log row as its request knows it; `quota` is what it used, before that is held against the token. */
export type NewLogRow = Omit<LogRow, "id">;

/** Quota to be set aside for a request. */
export interface Reservation {
  readonly requestId: string;
  readonly tokenId: number;
  readonly amount: number;
  /** When another node may take it for lost. */
  readonly expiresAtMs: number;
  /** Whose request it is. */
  readonly node: string;
}

/** 0 disabled by an operator, 1 enabled, 3 disabled by itself after a failure of its key. */
export type ChannelStatus = 0 | 1 | 3;
type TokenStatus = 0 | 1;

/** What an operator says of a channel, besides its key. */
export interface ChannelFields {
  readonly type: ChannelType;
  readonly name: string;
  /** As the operator gave it; see upstream-url.ts. */
  readonly baseUrl: string;
  /** Empty = serves every model. */
  readonly models: readonly string[];
  /** Name of the request → name for the upstream. */
  readonly modelMapping: Readonly<Record<string, string>>;
  readonly groups: readonly string[];
  readonly weight: number;
  readonly priority: number;
  readonly status: 0 | 1;
  readonly autoBan: boolean;
  readonly noStreamOptions: boolean;
  /** Null = as the settings say. */
  readonly ttftMs: number | null;
  readonly totalMs: number | null;
}

/** An upstream: a provider, an address, a key. Times in ms since 1970. */
export interface Channel extends Omit<ChannelFields, "status"> {
  /** Never used again after a delete. */
  readonly id: number;
  readonly sealedKey: string;
  readonly keyMask: string;
  /** What its upstream said when it was last asked. */
  readonly discoveredModels: readonly string[];
  readonly status: ChannelStatus;
  readonly statusReason: string | null;
  readonly createdMs: number;
  readonly updatedMs: number;
  readonly testedMs: number | null;
  /** How long the last test took. */
  readonly responseMs: number | null;
  readonly usedQuota: number;
}

/** What an operator says of a token, besides its key. Quota in tokens of a model. */
export interface RelayTokenFields {
  readonly userId: number;
  readonly status: TokenStatus;
  readonly name: string;
  /** Null = never. */
  readonly expiresAtMs: number | null;
  readonly isUnlimited: boolean;
  readonly remainQuota: number;
  /** Empty = every model. */
  readonly models: readonly string[];
  /** Addresses and CIDR ranges; empty = from everywhere. */
  readonly allowIps: readonly string[];
  readonly groups: readonly string[];
  /** Per minute; 0 = no limit. */
  readonly rpm: number;
  readonly tpm: number;
  readonly maxParallel: number;
  /** Seconds that its answers are kept for equal requests; 0 = not at all. */
  readonly cacheTtlSeconds: number;
}

/** What a client shows. */
export interface RelayToken extends RelayTokenFields {
  readonly id: number;
  readonly keyMask: string;
  readonly createdMs: number;
  /** 0 = never. */
  readonly accessedMs: number;
  readonly usedQuota: number;
}

export function toChannel(row: RelayTables["relay_channel"]): Channel {
  return {
    id: row.id,
    type: row.type,
    name: row.name,
    sealedKey: row.sealed_key,
    keyMask: row.key_mask,
    baseUrl: row.base_url,
    models: JSON.parse(row.models) as string[],
    discoveredModels: JSON.parse(row.discovered_models) as string[],
    modelMapping: JSON.parse(row.model_mapping) as Record<string, string>,
    groups: JSON.parse(row.group_names) as string[],
    weight: row.weight,
    priority: row.priority,
    status: row.status,
    statusReason: row.status_reason,
    autoBan: row.auto_ban === 1,
    noStreamOptions: row.no_stream_options === 1,
    ttftMs: row.ttft_ms,
    totalMs: row.total_ms,
    createdMs: row.created_time,
    updatedMs: row.updated_time,
    testedMs: row.test_time,
    responseMs: row.response_time,
    usedQuota: row.used_quota,
  };
}

export function toRelayToken(row: RelayTables["relay_token"]): RelayToken {
  return {
    id: row.id,
    userId: row.user_id,
    keyMask: row.key_mask,
    status: row.status,
    name: row.name,
    createdMs: row.created_time,
    accessedMs: row.accessed_time,
    expiresAtMs: row.expired_time,
    isUnlimited: row.unlimited_quota === 1,
    remainQuota: row.remain_quota,
    usedQuota: row.used_quota,
    models: JSON.parse(row.models) as string[],
    allowIps: JSON.parse(row.allow_ips) as string[],
    groups: JSON.parse(row.group_names) as string[],
    rpm: row.rpm,
    tpm: row.tpm,
    maxParallel: row.max_parallel,
    cacheTtlSeconds: row.cache_ttl,
  };
}
