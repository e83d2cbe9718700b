// Another process that has the database of a running server open and holds its write lock.

/** The lock is held until disposed of. */
export interface ForeignLock extends AsyncDisposable {}

const PROGRAM = `
  import { Database } from "bun:sqlite";
  const database = new Database(process.argv[1], { readwrite: true });
  database.run("PRAGMA busy_timeout = 2000");
  database.run("BEGIN IMMEDIATE");
  process.stdout.write("locked");
  for await (const _ of process.stdin) {}
  database.run("ROLLBACK");
  database.close();
`;

/** @throws Error when the lock cannot be had */
export async function holdWriteLock(database: string): Promise<ForeignLock> {
  const child = Bun.spawn([process.execPath, "--eval", PROGRAM, database], {
    stdin: "pipe",
    stdout: "pipe",
    stderr: "inherit",
  });
  const { value } = await child.stdout.getReader().read();
  if (new TextDecoder().decode(value) !== "locked") throw new Error(`no lock, exit code ${await child.exited}`);
  return {
    async [Symbol.asyncDispose]() {
      child.stdin.end();
      await child.exited;
    },
  };
}
