// What the relay streams, and who leaves meanwhile: on the executable, where a restart is SIGKILL and a start.

import { openBinary } from "../support/targets.ts";
import { SUITES } from "./suites.ts";

for (const suite of SUITES.relayStreams) suite("the executable", openBinary);
