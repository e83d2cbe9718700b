// All write units of the relay, by name.

import { SEAL_UNITS } from "../auth/seal-units.ts";
import { CHANNEL_UNITS } from "./channel-units.ts";
import { LEDGER_UNITS } from "./ledger-units.ts";
import { RELAY_TOKEN_UNITS } from "./relay-token-units.ts";

export const RELAY_UNITS = { ...SEAL_UNITS, ...CHANNEL_UNITS, ...RELAY_TOKEN_UNITS, ...LEDGER_UNITS } as const;

/** Those that only add to the store: refused while it is full. */
export const RELAY_GROWING: readonly (keyof typeof RELAY_UNITS)[] = [
  "relay.createChannel",
  "relay.createToken",
  "relay.bindResponse",
];

export type RelayUnits = typeof RELAY_UNITS;
