// Channels: read here, changed by write units; their keys opened for whoever calls upstream.

import type { Kysely } from "kysely";
import { openRing } from "../auth/seal-units.ts";
import { type SealingKey, SecretSeal } from "../auth/secret-seal.ts";
import { AppError } from "../shared/errors.ts";
import type { TableStore } from "../storage/unit-of-work.ts";
import { CHANNEL_KEY_INFO, keyContext } from "./channel-units.ts";
import { relayTables } from "./relay-base-units.ts";
import { type Channel, type RelayTables, toChannel } from "./relay-tables.ts";
import type { RelayUnits } from "./relay-units.ts";

/** Null filters nothing. */
interface ChannelFilter {
  readonly status: number | null;
  readonly type: string | null;
  readonly group: string | null;
  /** Channels that serve this model. */
  readonly model: string | null;
}

export class ChannelStore {
  readonly #store: TableStore<RelayUnits>;
  readonly #db: Kysely<RelayTables>;
  readonly #seal: SecretSeal;

  private constructor(store: TableStore<RelayUnits>, seal: SecretSeal) {
    this.#store = store;
    this.#db = relayTables(store);
    this.#seal = seal;
  }

  /** `secrets` open what is sealed, the first one seals. Makes the salt of the store when there is none. */
  static async open(store: TableStore<RelayUnits>, secrets: readonly Uint8Array[]): Promise<ChannelStore> {
    return new ChannelStore(store, new SecretSeal(await openRing(store, secrets, CHANNEL_KEY_INFO)));
  }

  /** For the units that seal: see channel-units.ts. */
  get ring(): readonly SealingKey[] {
    return this.#seal.ring;
  }

  /** The provider's key; null = locked: no secret that we have opens it. */
  keyOf({ id, baseUrl, sealedKey }: Channel): string | null {
    return this.#seal.open(sealedKey, keyContext(id, baseUrl));
  }

  /** Throws what the unit throws; see UnitRunner. */
  change<Name extends keyof RelayUnits>(
    name: Name,
    args: Parameters<RelayUnits[Name]>[1],
  ): Promise<Awaited<ReturnType<RelayUnits[Name]>>> {
    return this.#store.run(name, args);
  }

  /** All channels by id. */
  async list(): Promise<Channel[]> {
    const rows = await this.#db.selectFrom("relay_channel").selectAll().orderBy("id").execute();
    return rows.map(toChannel);
  }

  /** Those that match, by id. There are few enough to look at all of them. */
  async find(filter: ChannelFilter): Promise<Channel[]> {
    return (await this.list()).filter(
      (channel) =>
        (filter.status === null || channel.status === filter.status) &&
        (filter.type === null || channel.type === filter.type) &&
        (filter.group === null || channel.groups.includes(filter.group)) &&
        (filter.model === null || serves(channel, filter.model)),
    );
  }

  /** @throws AppError channel_not_found */
  async require(id: number): Promise<Channel> {
    const row = await this.#db.selectFrom("relay_channel").selectAll().where("id", "=", id).executeTakeFirst();
    if (row === undefined) throw new AppError("channel_not_found", "There is no such channel.");
    return toChannel(row);
  }
}

function serves({ models, modelMapping }: Channel, model: string): boolean {
  return models.length === 0 || models.includes(model) || Object.hasOwn(modelMapping, model);
}
