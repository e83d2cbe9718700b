// The write units of the token service: devices, apps and installations change in one transaction each.

import type { Kysely } from "kysely";
import { AppError } from "../shared/errors.ts";
import { given } from "../shared/given.ts";
import { tablesOf, type UnitOfWork } from "../storage/unit-of-work.ts";
import {
  type App,
  type Device,
  type Installation,
  type TokenTables,
  toApp,
  toDevice,
  toInstallation,
} from "./token-tables.ts";

/** Fields that a change may leave alone by leaving them out. */
type Changes<T> = { readonly [Name in keyof T]?: T[Name] | undefined };

type NewApp = Omit<App, "createdAtMs" | "updatedAtMs">;
type AppChanges = Changes<Omit<NewApp, "id">>;
type InstallationFields = Pick<
  Installation,
  "note" | "deviceType" | "permissionPrefix" | "permissionKey" | "isReadOnly" | "expiresAtMs"
>;
/** What is not given is taken from the app. */
type NewInstallation = Changes<InstallationFields> & {
  readonly id: string;
  readonly deviceUuid: string;
  readonly appId: string;
  readonly tokenHash: Uint8Array;
  readonly tokenHint: string;
};

export const TOKEN_UNITS = {
  async "token.createDevice"(work: UnitOfWork, { uuid, name }: { uuid: string; name: string | null }): Promise<Device> {
    const db = tablesOf<TokenTables>(work.tables);
    if ((await findDevice(db, uuid)) !== null) throw new AppError("already_exists", "This device exists already.");
    const row = { uuid, name, created_at: work.nowMs, updated_at: work.nowMs };
    await db.insertInto("token_device").values(row).execute();
    return toDevice(row);
  },

  async "token.updateDevice"(work: UnitOfWork, { uuid, name }: { uuid: string; name: string | null }): Promise<Device> {
    const db = tablesOf<TokenTables>(work.tables);
    await requireDevice(db, uuid);
    await db.updateTable("token_device").set({ name, updated_at: work.nowMs }).where("uuid", "=", uuid).execute();
    return toDevice(await requireDevice(db, uuid));
  },

  /** Its installations go with it; its entries only when asked. */
  async "token.deleteDevice"(work: UnitOfWork, { uuid, isPurge }: { uuid: string; isPurge: boolean }): Promise<null> {
    const db = tablesOf<TokenTables>(work.tables);
    await requireDevice(db, uuid);
    if (isPurge) work.wipeBucket(uuid);
    else if (work.countEntries(uuid) > 0) {
      throw new AppError("namespace_not_empty", "The device still holds entries. Use ?purge=true to delete them too.");
    }
    await db.deleteFrom("token_installation").where("device_uuid", "=", uuid).execute();
    await db.deleteFrom("token_device").where("uuid", "=", uuid).execute();
    return null;
  },

  async "token.createApp"(work: UnitOfWork, app: NewApp): Promise<App> {
    const db = tablesOf<TokenTables>(work.tables);
    if ((await findApp(db, app.id)) !== null) throw new AppError("already_exists", "This app exists already.");
    const row = {
      id: app.id,
      name: app.name,
      description: app.description,
      homepage: app.homepage,
      permission_prefix: app.permissionPrefix,
      permission_key: JSON.stringify(app.permissionKey),
      created_at: work.nowMs,
      updated_at: work.nowMs,
    };
    await db.insertInto("token_app").values(row).execute();
    return toApp(row);
  },

  /** Installations keep what they were given. */
  async "token.updateApp"(work: UnitOfWork, { id, changes }: { id: string; changes: AppChanges }): Promise<App> {
    const db = tablesOf<TokenTables>(work.tables);
    await requireApp(db, id);
    const { name, description, homepage, permissionPrefix, permissionKey } = changes;
    const set = given({
      name,
      description,
      homepage,
      permission_prefix: permissionPrefix,
      permission_key: permissionKey && JSON.stringify(permissionKey),
    });
    await db
      .updateTable("token_app")
      .set({ ...set, updated_at: work.nowMs })
      .where("id", "=", id)
      .execute();
    return toApp(await requireApp(db, id));
  },

  async "token.deleteApp"(work: UnitOfWork, { id, isRevoke }: { id: string; isRevoke: boolean }): Promise<null> {
    const db = tablesOf<TokenTables>(work.tables);
    await requireApp(db, id);
    const installed = await db
      .selectFrom("token_installation")
      .select("id")
      .where("app_id", "=", id)
      .executeTakeFirst();
    if (installed !== undefined && !isRevoke) {
      throw new AppError("app_in_use", "The app has installations. Use ?revoke=true to revoke them too.");
    }
    await db.deleteFrom("token_installation").where("app_id", "=", id).execute();
    await db.deleteFrom("token_app").where("id", "=", id).execute();
    return null;
  },

  async "token.createInstallation"(work: UnitOfWork, installation: NewInstallation): Promise<Installation> {
    const db = tablesOf<TokenTables>(work.tables);
    await requireDevice(db, installation.deviceUuid);
    const app = toApp(await requireApp(db, installation.appId));
    const row = {
      id: installation.id,
      device_uuid: installation.deviceUuid,
      app_id: installation.appId,
      token_hash: installation.tokenHash,
      token_hint: installation.tokenHint,
      note: installation.note ?? null,
      device_type: installation.deviceType ?? null,
      permission_prefix:
        installation.permissionPrefix === undefined ? app.permissionPrefix : installation.permissionPrefix,
      permission_key: JSON.stringify(installation.permissionKey ?? app.permissionKey),
      is_read_only: installation.isReadOnly === true ? 1 : 0,
      expires_at: installation.expiresAtMs ?? null,
      installed_at: work.nowMs,
      updated_at: work.nowMs,
    };
    await db.insertInto("token_installation").values(row).execute();
    return toInstallation(row);
  },

  async "token.updateInstallation"(
    work: UnitOfWork,
    { id, changes }: { id: string; changes: Changes<InstallationFields> },
  ): Promise<Installation> {
    const db = tablesOf<TokenTables>(work.tables);
    await requireInstallation(db, id);
    const { note, deviceType, permissionPrefix, permissionKey, isReadOnly, expiresAtMs } = changes;
    const set = given({
      note,
      device_type: deviceType,
      permission_prefix: permissionPrefix,
      permission_key: permissionKey && JSON.stringify(permissionKey),
      is_read_only: isReadOnly === undefined ? undefined : isReadOnly ? 1 : 0,
      expires_at: expiresAtMs,
    });
    await db
      .updateTable("token_installation")
      .set({ ...set, updated_at: work.nowMs })
      .where("id", "=", id)
      .execute();
    return toInstallation(await requireInstallation(db, id));
  },

  /** The old token is dead when the commit is. */
  async "token.rotateInstallation"(
    work: UnitOfWork,
    { id, tokenHash, tokenHint }: { id: string; tokenHash: Uint8Array; tokenHint: string },
  ): Promise<Installation> {
    const db = tablesOf<TokenTables>(work.tables);
    await requireInstallation(db, id);
    const set = { token_hash: tokenHash, token_hint: tokenHint, updated_at: work.nowMs };
    await db.updateTable("token_installation").set(set).where("id", "=", id).execute();
    return toInstallation(await requireInstallation(db, id));
  },

  async "token.deleteInstallation"(work: UnitOfWork, { id }: { id: string }): Promise<null> {
    const db = tablesOf<TokenTables>(work.tables);
    await requireInstallation(db, id);
    await db.deleteFrom("token_installation").where("id", "=", id).execute();
    return null;
  },
} as const;

/** Those that only add to the store: refused while it is full. */
export const TOKEN_GROWING: readonly (keyof typeof TOKEN_UNITS)[] = [
  "token.createDevice",
  "token.createApp",
  "token.createInstallation",
];

export type TokenUnits = typeof TOKEN_UNITS;

async function findDevice(db: Kysely<TokenTables>, uuid: string): Promise<TokenTables["token_device"] | null> {
  return (await db.selectFrom("token_device").selectAll().where("uuid", "=", uuid).executeTakeFirst()) ?? null;
}

async function requireDevice(db: Kysely<TokenTables>, uuid: string): Promise<TokenTables["token_device"]> {
  const row = await findDevice(db, uuid);
  if (row === null) throw new AppError("device_not_found", "There is no such device.");
  return row;
}

async function findApp(db: Kysely<TokenTables>, id: string): Promise<TokenTables["token_app"] | null> {
  return (await db.selectFrom("token_app").selectAll().where("id", "=", id).executeTakeFirst()) ?? null;
}

async function requireApp(db: Kysely<TokenTables>, id: string): Promise<TokenTables["token_app"]> {
  const row = await findApp(db, id);
  if (row === null) throw new AppError("app_not_found", "There is no such app.");
  return row;
}

async function requireInstallation(db: Kysely<TokenTables>, id: string): Promise<TokenTables["token_installation"]> {
  const row = await db.selectFrom("token_installation").selectAll().where("id", "=", id).executeTakeFirst();
  if (row === undefined) throw new AppError("installation_not_found", "There is no such installation.");
  return row;
}
