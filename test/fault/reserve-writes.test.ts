// How the reserve gets onto the volume: synced before it has its name, and never written by two at once.

import { expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { eventually } from "../support/eventually.ts";
import { startServer } from "../support/executable.ts";
import { has, hasProgram } from "../support/needs.ts";
import { strace } from "../support/strace.ts";
import { readTrace } from "../support/system-call-trace.ts";
import { SECRET } from "../support/targets.ts";
import { tempDir } from "../support/temp-dir.ts";

/** Longer than the five seconds after which the reserve is looked after again. */
const SYNC = "fdatasync:delay_enter=7s:when=1";
const TIMEOUT_MS = 60_000;

if (has("strace", hasProgram("strace"))) {
  test(
    "a reserve that takes long to write is written once, and is synced before it gets its name",
    async () => {
      using dir = tempDir();
      const data = dir.file("data");
      const reserve = join(data, "reserve");
      const output = dir.file("trace");
      const calls = ["openat", "fdatasync", "rename", "unlink"];
      const wrapper = strace({ output, calls, inject: [SYNC], paths: [`${reserve}.new`] });
      const env = { JWT_SECRET: SECRET, DB_PATH: data, ACCESS_LOG: "off", RESERVE_BYTES: "1MiB" };
      const server = await startServer(env, wrapper);
      await eventually("the reserve is written", TIMEOUT_MS, () => existsSync(reserve));
      server.kill("SIGTERM");
      await server.exited;
      const names = readTrace(output).calls.map(({ name }) => name);
      expect(names.filter((name) => name !== "unlink")).toEqual(["openat", "fdatasync", "rename"]);
    },
    TIMEOUT_MS,
  );
}
