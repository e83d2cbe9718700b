// One request while it is relayed: what was asked, who asks, what it costs.

import type { RequestScope } from "../http/request-scope.ts";
import type { CallAccount } from "./call-account.ts";
import type { Endpoint } from "./relay-endpoints.ts";
import type { RelayRequest } from "./relay-request.ts";
import type { RelayToken } from "./relay-tables.ts";

/** A request that was read and is allowed to its token. */
export interface IncomingRequest {
  /** Its id was made here, not by the client: reservations and log rows are kept by it. */
  readonly scope: RequestScope;
  readonly token: RelayToken;
  readonly endpoint: Endpoint;
  readonly request: RelayRequest;
  /**
   * For a stream, whose request is let go as soon as its answer begins: it takes over the share of the byte budget of
   * what is kept of the body all the same, and gives it back at its end by calling what this returns.
   */
  readonly holdBody: () => () => void;
  /** Whether a failure says something of its channel. What a query asks for is the doing of its client. */
  readonly blamesChannel: boolean;
}

/** Under which key, for how long an answer is kept. */
export interface KeepPlan {
  readonly key: string;
  readonly seconds: number;
}

export interface RelayCall extends IncomingRequest {
  readonly account: CallAccount;
  /** Null = the answer is not kept. */
  readonly keep: KeepPlan | null;
}
