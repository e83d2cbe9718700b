// Answers kept for equal requests of the same token: off unless a token or a request asks for it.

import { type BoundedCache, createBoundedCache } from "../limits/bounded-cache.ts";
import type { Clock } from "../shared/clock.ts";

export const CACHE_TTL_SECONDS_MAX = 86_400;

/** A complete answer: one body, or the events of a stream. */
export interface KeptAnswer {
  readonly contentType: string;
  readonly chunks: readonly Uint8Array[];
  readonly isStream: boolean;
  readonly model: string;
}

/** What an entry costs besides its bytes. */
const ENTRY_BYTES = 300;

interface Kept {
  readonly answer: KeptAnswer;
  readonly untilMs: number;
}

export class AnswerCache {
  readonly #clock: Clock;
  /** Null = switched off. */
  readonly #answers: BoundedCache<Kept> | null;
  /** A stream longer than this is not collected. */
  readonly answerBytesMax: number;

  constructor(clock: Clock, bytesMax: number) {
    this.#clock = clock;
    this.#answers = createBoundedCache<Kept>(bytesMax);
    this.answerBytesMax = Math.floor(bytesMax / 8);
  }

  find(key: string): KeptAnswer | null {
    const kept = this.#answers?.get(key);
    if (kept === undefined) return null;
    if (kept.untilMs > this.#clock()) return kept.answer;
    this.#answers?.delete(key);
    return null;
  }

  keep(key: string, answer: KeptAnswer, ttlSeconds: number): void {
    const size = answer.chunks.reduce((sum, { length }) => sum + length, ENTRY_BYTES);
    if (size > this.answerBytesMax) return;
    this.#answers?.set(key, { answer, untilMs: this.#clock() + ttlSeconds * 1000 }, size);
  }
}

/** Equal for requests that differ in nothing but the order of members. */
export function cacheKey(tokenId: number, path: string, isStream: boolean, body: unknown): string {
  const text = `${tokenId}\n${path}\n${isStream}\n${JSON.stringify(sorted(body))}`;
  return new Bun.CryptoHasher("sha256").update(text).digest("base64");
}

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== "object" || value === null) return value;
  const members = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  // As pairs: numbers as names would come first in any object.
  return { pairs: members.map(([name, member]) => [name, sorted(member)]) };
}

/** Seconds to keep an answer: 0 = not asked for. Null when the header is malformed. */
export function cacheSecondsOf(header: string | null, tokenSeconds: number): number | null {
  if (header === null) return tokenSeconds;
  if (/^\s*(no-store|off)\s*$/i.test(header)) return 0;
  const seconds = /^\s*ttl=(\d{1,6})\s*$/i.exec(header)?.[1];
  if (seconds === undefined || Number(seconds) > CACHE_TTL_SECONDS_MAX) return null;
  return Number(seconds);
}
