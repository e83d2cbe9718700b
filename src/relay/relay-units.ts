// All write units of the relay, by name.

import { SEAL_UNITS } from "../auth/seal-units.ts";
import { CHANNEL_UNITS } from "./channel-units.ts";
import { LEDGER_UNITS } from "./ledger-units.ts";
import { RELAY_TOKEN_UNITS } from "./relay-token-units.ts";

export const RELAY_UNITS = { ...SEAL_UNITS, ...CHANNEL_UNITS, ...RELAY_TOKEN_UNITS, ...LEDGER_UNITS } as const;

export type RelayUnits = typeof RELAY_UNITS;
