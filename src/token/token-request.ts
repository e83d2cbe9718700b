// A request to the token API, as its actions are given it, and what they work with.

import type { ByteBudget } from "../http/byte-budget.ts";
import type { HeldBody } from "../http/read-body.ts";
import type { RequestScope } from "../http/request-scope.ts";
import type { Admission } from "../http/surface.ts";
import type { ValueServices } from "../kv/read-value.ts";
import { KiB } from "../shared/bounds.ts";
import type { LoopTurns } from "../shared/loop-turns.ts";
import type { Settings } from "../shared/settings.ts";
import type { Admitted, AppGate } from "./app-gate.ts";
import type { TokenStore } from "./token-store.ts";

export interface TokenServices extends ValueServices {
  readonly tokens: TokenStore;
  readonly appGate: AppGate;
  readonly admission: Admission;
  readonly settings: Settings;
  /** Of those of whom only a body may say who they are: a part of the memory, so that they cannot take all of it. */
  readonly strangers: ByteBudget;
  readonly searchTurns: LoopTurns;
}

/** A larger body waits for a turn of the event loop before it is looked through. */
export const LARGE_BODY_BYTES = 64 * KiB;

/** What an action is given: who asks, for which key, with which body, if it was read for its token already. */
export interface AppRequest extends Admitted {
  readonly scope: RequestScope;
  /** Where this API is mounted, for links. */
  readonly mount: string;
  readonly key: string;
  readonly body: HeldBody | null;
}
