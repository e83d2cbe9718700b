// Every suite of the task service against a server in this process.

import { openInProcess } from "../support/targets.ts";
import { SUITES } from "./suites.ts";

for (const suite of SUITES.task) suite("a server in this process", openInProcess);
