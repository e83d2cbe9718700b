// The gate of the relay: from a request to the token it speaks for.

import type { RequestScope } from "../http/request-scope.ts";
import type { Clock } from "../shared/clock.ts";
import type { Eventually } from "../shared/eventual.ts";
import { Subnets } from "../shared/ip-addresses.ts";
import { RELAY_REFUSALS, RelayError, type RelayRefusal } from "./relay-errors.ts";
import type { RelayToken } from "./relay-tables.ts";
import type { RelayTokenStore } from "./relay-token-store.ts";

const BEARER = /^bearer +([\x21-\x7e]{8,256}) *$/i;
const INVALID_KEY = "the API key is not valid";
const CHALLENGE = { headers: { "WWW-Authenticate": "Bearer" } };

export class RelayGate {
  readonly #tokens: RelayTokenStore;
  readonly #clock: Clock;
  readonly #onFailure: (reason: RelayRefusal) => void;
  /** Made once for each token: its list of addresses does not change, it is replaced. */
  readonly #addresses = new WeakMap<RelayToken, Subnets>();

  /** `onFailure`: a key is refused, and why. */
  constructor(tokens: RelayTokenStore, clock: Clock, onFailure: (reason: RelayRefusal) => void) {
    this.#tokens = tokens;
    this.#clock = clock;
    this.#onFailure = onFailure;
  }

  /**
   * Without a promise for a token that is in use.
   * @throws RelayError missing_api_key, invalid_api_key, token_disabled, token_expired, ip_not_allowed
   */
  admit(scope: RequestScope): Eventually<RelayToken> {
    const header = scope.request.headers.get("authorization");
    if (header === null || header.trim() === "") {
      throw this.#refuse("missing_api_key", "an API key is missing: send Authorization: Bearer KEY");
    }
    const key = BEARER.exec(header)?.[1];
    if (key === undefined) throw this.#refuse("invalid_api_key", INVALID_KEY);
    const found = this.#tokens.findByKey(key);
    return found instanceof Promise ? found.then((token) => this.#judge(scope, token)) : this.#judge(scope, found);
  }

  #judge(scope: RequestScope, token: RelayToken | null): RelayToken {
    if (token === null) throw this.#refuse("invalid_api_key", INVALID_KEY);
    if (token.status !== 1) throw this.#refuse("token_disabled", "the API key is disabled");
    if (token.expiresAtMs !== null && token.expiresAtMs <= this.#clock()) {
      throw this.#refuse("token_expired", "the API key has expired");
    }
    scope.tokenId = `${token.id}`;
    if (token.allowIps.length > 0 && !this.#isAllowed(token, scope.clientIp)) {
      throw this.#refuse("ip_not_allowed", "the API key may not be used from this address");
    }
    return token;
  }

  #refuse(reason: RelayRefusal, message: string): RelayError {
    this.#onFailure(reason);
    return new RelayError(reason, message, RELAY_REFUSALS[reason].status === 401 ? CHALLENGE : {});
  }

  #isAllowed(token: RelayToken, address: string | null): boolean {
    if (address === null) return false;
    let allowed = this.#addresses.get(token);
    if (allowed === undefined) {
      allowed = new Subnets(token.allowIps);
      this.#addresses.set(token, allowed);
    }
    return allowed.has(address);
  }
}
