// The write units of channels: what an operator or a failure changes in them, one transaction each.

import type { Kysely } from "kysely";
import type { Resealed } from "../auth/seal-units.ts";
import { type SealingKey, SecretSeal } from "../auth/secret-seal.ts";
import { AppError } from "../shared/errors.ts";
import { given } from "../shared/given.ts";
import type { UnitOfWork } from "../storage/unit-of-work.ts";
import { type ChannelType, lacksStreamOptions, PROVIDER_ADDRESSES } from "./channel-types.ts";
import { maskKey } from "./key-mask.ts";
import { bumpVersion, relayTables } from "./relay-base-units.ts";
import { type Channel, type ChannelFields, type ChannelStatus, type RelayTables, toChannel } from "./relay-tables.ts";
import { originOf } from "./upstream-url.ts";

export const CHANNELS_MAX = 1000;
/** What an operator can do about a key that no secret opens. */
export const UNREADABLE_ADVICE =
  "Start with the old secret in MASTER_KEY_PREVIOUS or JWT_SECRET_PREVIOUS, or set the key again.";

/** Fields that are left out stay as they are. */
export type ChannelChanges = { readonly [Name in keyof ChannelFields]?: ChannelFields[Name] | undefined };

/** What the sealing keys of channels are derived for. */
export const CHANNEL_KEY_INFO = "gokv relay channel key v1";

type ChannelRow = RelayTables["relay_channel"];

export const CHANNEL_UNITS = {
  /**
   * Seals the key with the first of `ring`. With `isFirst` nothing is made when there is a channel already: null.
   * @throws AppError too_many
   */
  async "relay.createChannel"(
    work: UnitOfWork,
    {
      fields,
      key,
      ring,
      isFirst,
    }: { fields: ChannelFields; key: string; ring: readonly SealingKey[]; isFirst: boolean },
  ): Promise<Channel | null> {
    const db = relayTables(work);
    const { channels } = await db
      .selectFrom("relay_channel")
      .select((build) => build.fn.countAll<number>().as("channels"))
      .executeTakeFirstOrThrow();
    if (isFirst && channels > 0) return null;
    if (channels >= CHANNELS_MAX) throw new AppError("too_many", `There are at most ${CHANNELS_MAX} channels.`);
    const { id } = await db
      .insertInto("relay_channel")
      .values(newRow(fields, key, work.nowMs))
      .returning("id")
      .executeTakeFirstOrThrow();
    // The seal is bound to the id, which nobody knew before.
    const sealed_key = new SecretSeal(ring).seal(key, keyContext(id, fields.baseUrl));
    await db.updateTable("relay_channel").set({ sealed_key }).where("id", "=", id).execute();
    await bumpVersion(db);
    return toChannel(await requireChannel(db, id));
  },

  /**
   * `key` null, or equal to the mask, keeps the key. A new key lifts a ban.
   * @throws AppError channel_not_found; key_required when the origin changes and the key does not
   */
  async "relay.updateChannel"(
    work: UnitOfWork,
    args: { id: number; changes: ChannelChanges; key: string | null; ring: readonly SealingKey[] },
  ): Promise<Channel> {
    const db = relayTables(work);
    const row = await requireChannel(db, args.id);
    const { changes } = args;
    const key = args.key === row.key_mask ? null : args.key;
    const baseUrl = changes.baseUrl ?? followedAddress(row, changes.type) ?? row.base_url;
    if (key === null && originOf(baseUrl) !== originOf(row.base_url)) {
      throw new AppError("key_required", "The address leads to another host: send the key along.");
    }
    const status = changes.status ?? (key !== null && row.status === 3 ? 1 : undefined);
    const set = given({
      ...columnsOf({
        ...changes,
        baseUrl,
        noStreamOptions: changes.noStreamOptions ?? followedOptions(row, changes.type),
      }),
      ...(key === null
        ? {}
        : { sealed_key: new SecretSeal(args.ring).seal(key, keyContext(row.id, baseUrl)), key_mask: maskKey(key) }),
      ...(status === undefined ? {} : { status, status_reason: null, status_time: work.nowMs }),
      ...(key === null ? {} : { status_reason: null }),
      updated_time: work.nowMs,
    });
    await db.updateTable("relay_channel").set(set).where("id", "=", row.id).execute();
    await bumpVersion(db);
    return toChannel(await requireChannel(db, row.id));
  },

  /** Its usage stays in the log. @throws AppError channel_not_found */
  async "relay.deleteChannel"(work: UnitOfWork, { id }: { id: number }): Promise<null> {
    const db = relayTables(work);
    await requireChannel(db, id);
    await db.deleteFrom("relay_channel").where("id", "=", id).execute();
    await bumpVersion(db);
    return null;
  },

  /** By an operator: whatever was the reason of the last status is over. @throws AppError channel_not_found */
  async "relay.setChannelStatus"(work: UnitOfWork, { id, status }: { id: number; status: 0 | 1 }): Promise<Channel> {
    const db = relayTables(work);
    await requireChannel(db, id);
    await setStatus(work, db, id, status, null);
    await db.updateTable("relay_channel").set({ updated_time: work.nowMs }).where("id", "=", id).execute();
    return toChannel(await requireChannel(db, id));
  },

  /**
   * By a failure of its key: status 3, unless a group would be left without an enabled channel. Then only the reason is
   * noted. Nothing happens when the channel is gone, not enabled, not to be banned, or has another key than the one
   * that failed. `unusable` are channels that are enabled but locked. Returns whether this has disabled it.
   */
  async "relay.banChannel"(
    work: UnitOfWork,
    args: { id: number; sealedKey: string; reason: string; unusable: readonly number[] },
  ): Promise<boolean> {
    const db = relayTables(work);
    const row = await findChannel(db, args.id);
    if (row?.status !== 1 || row.auto_ban === 0 || row.sealed_key !== args.sealedKey) return false;
    const others = await db
      .selectFrom("relay_channel")
      .select(["id", "group_names"])
      .where("status", "=", 1)
      .where("id", "!=", args.id)
      .execute();
    const served = new Set(
      others.filter(({ id }) => !args.unusable.includes(id)).flatMap(({ group_names }) => namesOf(group_names)),
    );
    const status = namesOf(row.group_names).every((group) => served.has(group)) ? 3 : 1;
    if (status === row.status && args.reason === row.status_reason) return false;
    await setStatus(work, db, args.id, status, args.reason);
    return status === 3;
  },

  /** Its key works again, as a test or a probe has shown; no effect when it was not banned. Returns its status. */
  async "relay.liftBan"(work: UnitOfWork, { id }: { id: number }): Promise<ChannelStatus | null> {
    const db = relayTables(work);
    const row = await findChannel(db, id);
    if (row === null || row.status === 0 || (row.status === 1 && row.status_reason === null))
      return row?.status ?? null;
    await setStatus(work, db, id, 1, null);
    return 1;
  },

  /**
   * An enabled channel works with a key that was refused before, as the last of a group: what was noted then is over.
   * No effect when another key or another reason is noted by now, or it was banned after all.
   */
  async "relay.forgetReason"(
    work: UnitOfWork,
    { id, sealedKey, reason }: { id: number; sealedKey: string; reason: string },
  ): Promise<null> {
    const db = relayTables(work);
    const row = await findChannel(db, id);
    if (row?.status === 1 && row.status_reason === reason && row.sealed_key === sealedKey) {
      await setStatus(work, db, id, 1, null);
    }
    return null;
  },

  /** The outcome of a test, in ms. A success lifts a ban. Null when the channel is gone. */
  async "relay.noteTest"(
    work: UnitOfWork,
    { id, responseMs, isSuccess }: { id: number; responseMs: number; isSuccess: boolean },
  ): Promise<Channel | null> {
    const db = relayTables(work);
    const row = await findChannel(db, id);
    if (row === null) return null;
    const set = { test_time: work.nowMs, response_time: Math.round(responseMs) };
    await db.updateTable("relay_channel").set(set).where("id", "=", id).execute();
    if (isSuccess && row.status !== 0 && row.status_reason !== null) await setStatus(work, db, id, 1, null);
    return toChannel((await findChannel(db, id))!);
  },

  /** What its upstream says it serves. Null when the channel is gone. */
  async "relay.noteDiscovered"(
    work: UnitOfWork,
    { id, models }: { id: number; models: readonly string[] },
  ): Promise<Channel | null> {
    const db = relayTables(work);
    const set = { discovered_models: JSON.stringify(models) };
    await db.updateTable("relay_channel").set(set).where("id", "=", id).execute();
    await bumpVersion(db);
    const row = await findChannel(db, id);
    return row === null ? null : toChannel(row);
  },
} as const;

/** Every key that another secret has sealed, sealed with the first of `ring`; inside the transaction of the caller. */
export async function resealChannels(work: UnitOfWork, ring: readonly SealingKey[]): Promise<Resealed<number>> {
  const db = relayTables(work);
  const seal = new SecretSeal(ring);
  const rows = await db.selectFrom("relay_channel").select(["id", "base_url", "sealed_key"]).orderBy("id").execute();
  const unreadable: number[] = [];
  let resealed = 0;
  for (const { id, base_url, sealed_key } of rows) {
    const context = keyContext(id, base_url);
    const key = seal.open(sealed_key, context);
    if (key === null) unreadable.push(id);
    else if (seal.needsReseal(sealed_key)) {
      const set = { sealed_key: seal.seal(key, context) };
      await db.updateTable("relay_channel").set(set).where("id", "=", id).execute();
      resealed++;
    }
  }
  if (resealed > 0) await bumpVersion(db);
  return { resealed, kid: seal.kid, unreadable };
}

/** What a sealed key is bound to: it opens in no other row and for no other host. */
export function keyContext(id: number, baseUrl: string): string {
  return `${id} ${originOf(baseUrl)}`;
}

async function findChannel(db: Kysely<RelayTables>, id: number): Promise<ChannelRow | null> {
  return (await db.selectFrom("relay_channel").selectAll().where("id", "=", id).executeTakeFirst()) ?? null;
}

async function requireChannel(db: Kysely<RelayTables>, id: number): Promise<ChannelRow> {
  const row = await findChannel(db, id);
  if (row === null) throw new AppError("channel_not_found", "There is no such channel.");
  return row;
}

async function setStatus(
  work: UnitOfWork,
  db: Kysely<RelayTables>,
  id: number,
  status: ChannelStatus,
  reason: string | null,
): Promise<void> {
  const set = { status, status_reason: reason, status_time: work.nowMs };
  await db.updateTable("relay_channel").set(set).where("id", "=", id).execute();
  await bumpVersion(db);
}

/** A channel at the usual address of its old type moves to that of its new one. */
function followedAddress(row: ChannelRow, type: ChannelType | undefined): string | null {
  return type !== undefined && row.base_url === PROVIDER_ADDRESSES[row.type] ? PROVIDER_ADDRESSES[type] : null;
}

/** So does one that is asked for the usage of streams, or not, as is usual for its type. */
function followedOptions(row: ChannelRow, type: ChannelType | undefined): boolean | undefined {
  const isUsual = (row.no_stream_options === 1) === lacksStreamOptions(row.type);
  return type !== undefined && isUsual ? lacksStreamOptions(type) : undefined;
}

/** All columns but the id, which is the engine's to give; the type of the table cannot say so. */
function newRow(fields: ChannelFields, key: string, nowMs: number): ChannelRow {
  return {
    ...columnsOf(fields),
    status: fields.status,
    sealed_key: "",
    key_mask: maskKey(key),
    discovered_models: "[]",
    status_reason: null,
    status_time: nowMs,
    created_time: nowMs,
    updated_time: nowMs,
    test_time: null,
    response_time: null,
    used_quota: 0,
  } as ChannelRow;
}

/** Status aside, which has columns that go with it. */
function columnsOf(fields: ChannelChanges) {
  const { type, name, baseUrl, models, modelMapping, groups, weight, priority, ttftMs, totalMs } = fields;
  return {
    type,
    name,
    weight,
    priority,
    base_url: baseUrl,
    models: models && JSON.stringify(models),
    model_mapping: modelMapping && JSON.stringify(modelMapping),
    group_names: groups && JSON.stringify(groups),
    auto_ban: flag(fields.autoBan),
    no_stream_options: flag(fields.noStreamOptions),
    ttft_ms: ttftMs,
    total_ms: totalMs,
  };
}

function flag(isSet: boolean | undefined): number | undefined {
  return isSet === undefined ? undefined : isSet ? 1 : 0;
}

function namesOf(json: string): string[] {
  return JSON.parse(json) as string[];
}
