// A real store in a folder of its own, with its own storage thread, for tests of what services keep in it.

import { type Log, openLog } from "../../src/shared/log.ts";
import { readSettings } from "../../src/shared/settings.ts";
import { SqliteStore } from "../../src/storage/sqlite-store.ts";
import { threadStarter } from "../../src/storage/start-thread.ts";
import type { Environment } from "./executable.ts";
import { tempDir } from "./temp-dir.ts";
import { threadEntry } from "./thread-entries.ts";

/** Where the server's own threads begin. */
export const THREAD_ENTRY = threadEntry("app");

export interface OwnStore extends AsyncDisposable {
  readonly sqlite: SqliteStore;
  readonly dbPath: string;
}

/** `env` goes over what a store needs; `threadEntry` is for threads that know other write units. */
export async function openOwnStore(env: Environment = {}, threadEntry: URL = THREAD_ENTRY): Promise<OwnStore> {
  const dir = tempDir();
  const dbPath = dir.file("data");
  const sqlite = await openStoreAt(dbPath, env, threadEntry);
  return {
    sqlite,
    dbPath,
    async [Symbol.asyncDispose]() {
      await sqlite[Symbol.asyncDispose]();
      dir[Symbol.dispose]();
    },
  };
}

/** The store in a folder that others own; what it has to say goes to `log`, or standard error. */
export function openStoreAt(
  dbPath: string,
  env: Environment = {},
  threadEntry: URL = THREAD_ENTRY,
  log?: Log,
): Promise<SqliteStore> {
  const settings = readSettings({
    JWT_SECRET: "0123456789abcdef0123456789abcdef",
    DB_PATH: dbPath,
    GIN_MODE: "test",
    ...env,
  });
  return SqliteStore.open(settings, log ?? openLog(settings), threadStarter(threadEntry), {
    onCommit: () => undefined,
    onFailed: (reason) => process.stderr.write(`the store of this test has failed: ${reason}\n`),
  });
}
