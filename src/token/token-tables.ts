// The rows of the token service, as Kysely sees them and as the program does.

import type { Permissions } from "./permissions.ts";

export type TokenTables = {
  token_device: { uuid: string; name: string | null; created_at: number; updated_at: number };
  token_app: {
    id: string;
    name: string;
    description: string | null;
    homepage: string | null;
    permission_prefix: string | null;
    /** JSON array of grants. */
    permission_key: string;
    created_at: number;
    updated_at: number;
  };
  token_installation: {
    id: string;
    device_uuid: string;
    app_id: string;
    /** SHA-256 of the token, 32 bytes. The token itself is never stored. */
    token_hash: Uint8Array;
    token_hint: string;
    note: string | null;
    device_type: string | null;
    permission_prefix: string | null;
    permission_key: string;
    is_read_only: number;
    expires_at: number | null;
    installed_at: number;
    updated_at: number;
  };
};

/** A namespace: a KV bucket of this name holds its entries. Times in ms since 1970. */
export interface Device {
  readonly uuid: string;
  readonly name: string | null;
  readonly createdAtMs: number;
  readonly updatedAtMs: number;
}

export interface App extends Omit<Permissions, "isReadOnly"> {
  readonly id: string;
  readonly name: string;
  readonly description: string | null;
  readonly homepage: string | null;
  readonly createdAtMs: number;
  readonly updatedAtMs: number;
}

export interface Installation extends Permissions {
  readonly id: string;
  readonly deviceUuid: string;
  readonly appId: string;
  /** The last four characters of the token. */
  readonly tokenHint: string;
  readonly note: string | null;
  readonly deviceType: string | null;
  readonly expiresAtMs: number | null;
  readonly installedAtMs: number;
  readonly updatedAtMs: number;
}

export function toDevice(row: TokenTables["token_device"]): Device {
  return { uuid: row.uuid, name: row.name, createdAtMs: row.created_at, updatedAtMs: row.updated_at };
}

export function toApp(row: TokenTables["token_app"]): App {
  return {
    id: row.id,
    name: row.name,
    description: row.description,
    homepage: row.homepage,
    permissionPrefix: row.permission_prefix,
    permissionKey: JSON.parse(row.permission_key) as string[],
    createdAtMs: row.created_at,
    updatedAtMs: row.updated_at,
  };
}

export function toInstallation(row: TokenTables["token_installation"]): Installation {
  return {
    id: row.id,
    deviceUuid: row.device_uuid,
    appId: row.app_id,
    tokenHint: row.token_hint,
    note: row.note,
    deviceType: row.device_type,
    permissionPrefix: row.permission_prefix,
    permissionKey: JSON.parse(row.permission_key) as string[],
    isReadOnly: row.is_read_only === 1,
    expiresAtMs: row.expires_at,
    installedAtMs: row.installed_at,
    updatedAtMs: row.updated_at,
  };
}
