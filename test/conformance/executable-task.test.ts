// Every suite of the task service against the executable, where a restart is SIGKILL and a start on the same data.

import { openBinary } from "../support/targets.ts";
import { SUITES } from "./suites.ts";

for (const suite of SUITES.task) suite("the executable", openBinary);
