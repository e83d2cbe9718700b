// Which channel made a response, so that whatever follows it goes there: kept by upstream, bound to its token here.

import type { Kysely } from "kysely";
import type { Clock } from "../shared/clock.ts";
import type { TableStore } from "../storage/unit-of-work.ts";
import { relayTables } from "./relay-base-units.ts";
import type { RelayTables } from "./relay-tables.ts";
import type { RelayUnits } from "./relay-units.ts";

/** As long as OpenAI keeps responses. */
const BOUND_MS = 30 * 86_400_000;

export class ResponseStore {
  readonly #store: TableStore<RelayUnits>;
  readonly #db: Kysely<RelayTables>;
  readonly #clock: Clock;

  constructor(store: TableStore<RelayUnits>, clock: Clock) {
    this.#store = store;
    this.#db = relayTables(store);
    this.#clock = clock;
  }

  /** The channel of a response that was made with this token; null = there is none. */
  async findChannel(responseId: string, tokenId: number): Promise<number | null> {
    const row = await this.#db
      .selectFrom("relay_response")
      .select("channel_id")
      .where("response_id", "=", responseId)
      .where("token_id", "=", tokenId)
      .where("expires_at", ">", this.#clock())
      .executeTakeFirst();
    return row?.channel_id ?? null;
  }

  /** Durable when it resolves. */
  async bind(responseId: string, tokenId: number, channelId: number): Promise<void> {
    const expiresAtMs = this.#clock() + BOUND_MS;
    await this.#store.run("relay.bindResponse", { responseId, tokenId, channelId, expiresAtMs });
  }

  async unbind(responseId: string, tokenId: number): Promise<void> {
    await this.#store.run("relay.unbindResponse", { responseId, tokenId });
  }
}
