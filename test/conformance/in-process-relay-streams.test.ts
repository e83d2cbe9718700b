// What the relay streams, and who leaves meanwhile: on a server in this process.

import { openInProcess } from "../support/targets.ts";
import { SUITES } from "./suites.ts";

for (const suite of SUITES.relayStreams) suite("a server in this process", openInProcess);
