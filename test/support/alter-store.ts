// Changes a store behind the back of the server that has it open.

import { expect } from "bun:test";
import { storeFiles } from "../../src/storage/store-files.ts";

/** Runs SQL from a process of its own: opening the file in the test's process would drop the locks of its threads. */
export async function alterStore(dbPath: string, sql: string): Promise<void> {
  // The server may be in the middle of a write of its own.
  const script = `const database = new (require("bun:sqlite").Database)(process.argv[1]);
    database.run("PRAGMA busy_timeout = 60000");
    database.run(process.argv[2]);`;
  const command = [process.execPath, "-e", script, storeFiles(dbPath).database, sql];
  const child = Bun.spawn(command, { stderr: "pipe" });
  expect([await child.exited, await new Response(child.stderr).text()]).toEqual([0, ""]);
}
