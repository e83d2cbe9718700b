// gokv rekey: seals every stored key with the secret of today, in the store itself or through a running server.

import { startAppThread } from "../app/app-threads.ts";
import { type Rekeyed, rekeyStore } from "../app/rekey-units.ts";
import { AppError, EXIT, ExitError } from "../shared/errors.ts";
import { openLog } from "../shared/log.ts";
import { environmentOf, readDbPath, readSettings } from "../shared/settings.ts";
import { SqliteStore } from "../storage/sqlite-store.ts";
import { storeFiles } from "../storage/store-files.ts";
import { requireStore } from "../storage/store-snapshot.ts";
import { AdminClient, CLIENT_ENVIRONMENT } from "./admin-client.ts";
import type { StrictCommand } from "./run-cli.ts";
import { writeOut } from "./write-out.ts";

export const rekeyCommand: StrictCommand = {
  meta: {
    name: "rekey",
    description: "Seals stored provider keys and webhook secrets with the secret of today: all or none",
  },
  args: { url: { type: "string", description: "A running server; without it and GOKV_URL the store itself" } },
  environment: {
    ...environmentOf("dbPath", "jwtSecret", "jwtSecretPrevious", "masterKey", "masterKeyPrevious"),
    GOKV_URL: "a running server that shall do it",
    GOKV_JWT: CLIENT_ENVIRONMENT.GOKV_JWT,
  },
  async run({ url }) {
    const isRemote = url !== undefined || Boolean(process.env.GOKV_URL);
    const { resealed, kid, webhooks } = isRemote ? await rekeyThrough(url as string | undefined) : await rekeyHere();
    writeOut(`resealed ${resealed} (kid ${kid})\n`);
    writeOut(`webhook secrets resealed ${webhooks.resealed} (kid ${webhooks.kid})\n`);
    return EXIT.done;
  },
};

async function rekeyThrough(url: string | undefined): Promise<Rekeyed> {
  const client = await AdminClient.open(url, process.env, "rekey");
  return (await client.ask("POST", "/_admin/rekey")) as unknown as Rekeyed;
}

/** A store that a server has open is that server's to change. @throws ExitError (1, 2, 4) */
async function rekeyHere(): Promise<Rekeyed> {
  requireStore(readDbPath(process.env));
  // Secrets are read whatever services are on; the settings of the relay are of no concern here.
  const settings = readSettings({ ...process.env, SERVICES: "task" });
  const log = openLog({ mode: "test", logLevel: "error" });
  let store: SqliteStore;
  try {
    store = await SqliteStore.open(settings, log, startAppThread, {
      onCommit: () => undefined,
      onFailed: (reason) => log.fatal("the store has failed", { reason }),
      beforeUpgrade: refuseOutdated,
    });
  } catch (error) {
    if (error instanceof ExitError && error.exitCode === EXIT.storeInUse) return rekeyThrough(undefined);
    throw error;
  }
  await using _ = store;
  try {
    return await rekeyStore(store, settings.sealingSecrets);
  } catch (error) {
    throw error instanceof AppError ? new ExitError(EXIT.failed, error.message) : error;
  }
}

/** An upgrade cannot be taken back when no secret opens what is sealed. @throws ExitError (1) */
function refuseOutdated(schema: number): never {
  const { database } = storeFiles(readDbPath(process.env));
  throw new ExitError(
    EXIT.failed,
    `${database} has schema ${schema}, written by an earlier gokv. Nothing was changed. Start the server once, which ` +
      "upgrades the store; then run gokv rekey again.",
  );
}
