// Every suite of the KV service against a server in this process.

import { openInProcess } from "../support/targets.ts";
import { SUITES } from "./suites.ts";

for (const suite of SUITES.kv) suite("a server in this process", openInProcess);
