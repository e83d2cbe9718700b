// Which channel the relay asks, and asks next: on a server in this process.

import { openInProcess } from "../support/targets.ts";
import { SUITES } from "./suites.ts";

for (const suite of SUITES.relayChoice) suite("a server in this process", openInProcess);
