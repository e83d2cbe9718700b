// The write units of all services, for the storage thread.

import { RELAY_UNITS } from "../relay/relay-units.ts";
import type { WriteUnits } from "../storage/unit-of-work.ts";
import { TOKEN_UNITS } from "../token/token-units.ts";

export const WRITE_UNITS = { ...TOKEN_UNITS, ...RELAY_UNITS } satisfies WriteUnits;
