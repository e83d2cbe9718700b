// The gate of the relay: from a request to the token it speaks for.

import { BlockList, isIPv6 } from "node:net";
import type { RequestScope } from "../http/request-scope.ts";
import type { Clock } from "../shared/clock.ts";
import type { Eventually } from "../storage/kv-engine.ts";
import { RelayError } from "./relay-errors.ts";
import type { RelayToken } from "./relay-tables.ts";
import type { RelayTokenStore } from "./relay-token-store.ts";

const BEARER = /^bearer +([\x21-\x7e]{8,256}) *$/i;
const CHALLENGE = { headers: { "WWW-Authenticate": "Bearer" } };

export class RelayGate {
  readonly #tokens: RelayTokenStore;
  readonly #clock: Clock;
  /** Made once for each token: its list of addresses does not change, it is replaced. */
  readonly #addresses = new WeakMap<RelayToken, BlockList>();

  constructor(tokens: RelayTokenStore, clock: Clock) {
    this.#tokens = tokens;
    this.#clock = clock;
  }

  /**
   * Without a promise for a token that is in use.
   * @throws RelayError missing_api_key, invalid_api_key, token_disabled, token_expired, ip_not_allowed
   */
  admit(scope: RequestScope): Eventually<RelayToken> {
    const header = scope.request.headers.get("authorization");
    if (header === null || header.trim() === "") {
      throw new RelayError("missing_api_key", "an API key is missing: send Authorization: Bearer KEY", CHALLENGE);
    }
    const key = BEARER.exec(header)?.[1];
    if (key === undefined) throw invalidKey();
    const found = this.#tokens.findByKey(key);
    return found instanceof Promise ? found.then((token) => this.#judge(scope, token)) : this.#judge(scope, found);
  }

  #judge(scope: RequestScope, token: RelayToken | null): RelayToken {
    if (token === null) throw invalidKey();
    if (token.status !== 1) throw new RelayError("token_disabled", "the API key is disabled", CHALLENGE);
    if (token.expiresAtMs !== null && token.expiresAtMs <= this.#clock()) {
      throw new RelayError("token_expired", "the API key has expired", CHALLENGE);
    }
    scope.tokenId = `${token.id}`;
    if (token.allowIps.length > 0 && !this.#isAllowed(token, scope.clientIp)) {
      throw new RelayError("ip_not_allowed", "the API key may not be used from this address");
    }
    return token;
  }

  #isAllowed(token: RelayToken, address: string | null): boolean {
    if (address === null) return false;
    let allowed = this.#addresses.get(token);
    if (allowed === undefined) {
      allowed = listOf(token.allowIps);
      this.#addresses.set(token, allowed);
    }
    return allowed.check(address, isIPv6(address) ? "ipv6" : "ipv4");
  }
}

/** `ranges` were judged when they were stored. */
function listOf(ranges: readonly string[]): BlockList {
  const list = new BlockList();
  for (const range of ranges) {
    const [address = "", bits] = range.split("/");
    const version = isIPv6(address) ? "ipv6" : "ipv4";
    if (bits === undefined) list.addAddress(address, version);
    else list.addSubnet(address, Number(bits), version);
  }
  return list;
}

function invalidKey(): RelayError {
  return new RelayError("invalid_api_key", "the API key is not valid", CHALLENGE);
}
