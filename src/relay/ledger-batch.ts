// The reservations and settlements that share a commit: read at once, reckoned here, written at once.

import type { NewLogRow, Reservation } from "./relay-tables.ts";

/** What a token has, in the transaction. */
interface TokenQuota {
  readonly isUnlimited: boolean;
  readonly remain: number;
}

/** To be added to what is stored. */
interface QuotaChange {
  remain: number;
  used: number;
}

export interface StoredLedger {
  /** By token; one that is gone is missing. */
  readonly tokens: ReadonlyMap<number, TokenQuota>;
  /** Amounts of the open reservations, by request. */
  readonly open: ReadonlyMap<string, number>;
  /** Requests that have their row. */
  readonly logged: ReadonlySet<string>;
}

export class LedgerBatch {
  readonly #stored: StoredLedger;
  readonly #logged: Set<string>;
  /** What is to be written. */
  readonly quotas = new Map<number, QuotaChange>();
  readonly reservations = new Map<string, Reservation>();
  readonly settled: string[] = [];
  readonly rows: NewLogRow[] = [];
  readonly channels = new Map<number, number>();

  constructor(stored: StoredLedger) {
    this.#stored = stored;
    this.#logged = new Set(stored.logged);
  }

  /**
   * Takes `amount` out of what the token has left, to be settled or returned. False = it has less, or is gone. Nothing
   * is set aside, nor needs to be, for a token that has become unlimited.
   */
  reserve(reservation: Reservation): boolean {
    const { requestId, tokenId, amount } = reservation;
    const token = this.#stored.tokens.get(tokenId);
    if (token === undefined) return false;
    if (token.isUnlimited) return true;
    if (this.#remainOf(tokenId, token) < amount) return false;
    this.#change(tokenId, -amount, 0);
    this.reservations.set(requestId, reservation);
    return true;
  }

  /**
   * Charges the request of `row` once: a second call does nothing. What was set aside for it, if that was not returned
   * in the meantime, goes back and `row.quota` is taken, at most what there is. Where an operator has left less of it
   * than the `reserved` that it was, the request still counts as used up to that, and takes what there is.
   */
  settle(row: NewLogRow, reserved = 0): void {
    const { request_id, token_id, channel_id } = row;
    if (this.#logged.has(request_id)) return;
    this.#logged.add(request_id);
    const open = this.#close(request_id);
    const amount = open ?? 0;
    const token = this.#stored.tokens.get(token_id);
    let quota = row.quota;
    if (token !== undefined) {
      const there = amount + this.#remainOf(token_id, token);
      if (!token.isUnlimited) quota = Math.min(quota, Math.max(there, open === null ? 0 : reserved));
      this.#change(token_id, amount - (token.isUnlimited ? 0 : Math.min(quota, there)), quota);
    }
    this.rows.push({ ...row, quota });
    if (channel_id !== null) this.channels.set(channel_id, (this.channels.get(channel_id) ?? 0) + quota);
  }

  /** Returns what is left of what was set aside for a request; null = nothing was, or it was returned. */
  #close(requestId: string): number | null {
    const fresh = this.reservations.get(requestId);
    if (fresh !== undefined) {
      this.reservations.delete(requestId);
      return fresh.amount;
    }
    const amount = this.#stored.open.get(requestId);
    if (amount === undefined) return null;
    this.settled.push(requestId);
    return amount;
  }

  #remainOf(tokenId: number, { remain }: TokenQuota): number {
    return remain + (this.quotas.get(tokenId)?.remain ?? 0);
  }

  #change(tokenId: number, remain: number, used: number): void {
    const known = this.quotas.get(tokenId);
    if (known === undefined) {
      this.quotas.set(tokenId, { remain, used });
      return;
    }
    known.remain += remain;
    known.used += used;
  }
}
