// Which channel the relay asks, and asks next: on the executable, where a restart is SIGKILL and a start.

import { openBinary } from "../support/targets.ts";
import { SUITES } from "./suites.ts";

for (const suite of SUITES.relayChoice) suite("the executable", openBinary);
