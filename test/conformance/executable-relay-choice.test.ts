// Which channel the relay asks, and asks next: against the executable, where a restart is SIGKILL and a start on the same data.

import { openBinary } from "../support/targets.ts";
import { SUITES } from "./suites.ts";

for (const suite of SUITES.relayChoice) suite("the executable", openBinary);
