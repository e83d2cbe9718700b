// The addresses of the names of other servers: looked up once for many requests, and by us, so that each can be judged.

import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import type { Clock } from "../shared/clock.ts";
import type { Eventually } from "../shared/eventual.ts";

const KEPT_MS = 30_000;
/** Beyond, those that are out of date are dropped. */
const NAMES_MAX = 2_000;
const LOOPBACK: readonly string[] = ["127.0.0.1", "::1"];

/** All addresses of a name, in the order in which they should be tried. @throws when there is none */
export type Lookup = (name: string) => Promise<readonly string[]>;

export const systemLookup: Lookup = async (name) => {
  const found = await lookup(name, { all: true, verbatim: true });
  return found.map(({ address }) => address);
};

interface Entry {
  readonly untilMs: number;
  readonly addresses: readonly string[];
}

export class OutboundResolver {
  readonly #lookup: Lookup;
  readonly #now: Clock;
  readonly #known = new Map<string, Entry>();
  /** Look-ups under way, so that a burst of requests asks once. */
  readonly #asked = new Map<string, Promise<readonly string[]>>();

  constructor(lookup: Lookup, now: Clock) {
    this.#lookup = lookup;
    this.#now = now;
  }

  /**
   * The addresses of `hostname`, a URL's: itself when it is an address. Without a promise when they are known.
   * @throws what the look-up throws
   */
  addressesOf(hostname: string): Eventually<readonly string[]> {
    if (hostname.startsWith("[")) return [hostname.slice(1, -1)];
    // Whatever form an IPv4 address was written in, a URL has it in the one that is recognised here.
    if (isIP(hostname) !== 0) return [hostname];
    // Never asked of a name server: what it says might lead elsewhere, or nowhere.
    if (/^(.+\.)?localhost\.?$/.test(hostname)) return LOOPBACK;
    const known = this.#known.get(hostname);
    if (known !== undefined && known.untilMs > this.#now()) return known.addresses;
    return this.#asked.get(hostname) ?? this.#ask(hostname);
  }

  /** The next question about `hostname` goes to the name server. */
  forget(hostname: string): void {
    this.#known.delete(hostname);
  }

  #ask(hostname: string): Promise<readonly string[]> {
    const answer = this.#lookup(hostname)
      .then((addresses) => {
        this.#makeRoom();
        this.#known.set(hostname, { addresses, untilMs: this.#now() + KEPT_MS });
        return addresses;
      })
      .finally(() => this.#asked.delete(hostname));
    this.#asked.set(hostname, answer);
    return answer;
  }

  #makeRoom(): void {
    if (this.#known.size < NAMES_MAX) return;
    const nowMs = this.#now();
    for (const [name, { untilMs }] of this.#known) if (untilMs <= nowMs) this.#known.delete(name);
    if (this.#known.size >= NAMES_MAX) this.#known.clear();
  }
}
