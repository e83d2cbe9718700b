// Looks into a store behind the back of the server that has it open.

import { storeFiles } from "../../src/storage/store-files.ts";

/** Rows of a query, from a process of its own: see alterStore. */
export async function queryStore<Row>(dbPath: string, sql: string): Promise<Row[]> {
  const script = `const database = new (require("bun:sqlite").Database)(process.argv[1]);
    database.run("PRAGMA busy_timeout = 5000");
    process.stdout.write(JSON.stringify(database.query(process.argv[2]).all()));`;
  const command = [process.execPath, "-e", script, storeFiles(dbPath).database, sql];
  const child = Bun.spawn(command, { stdout: "pipe", stderr: "inherit" });
  const rows = await new Response(child.stdout).text();
  if ((await child.exited) !== 0) throw new Error("the store could not be read");
  return JSON.parse(rows) as Row[];
}
