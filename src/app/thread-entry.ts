// Where a thread of the process begins: its role comes with it, and only its own code is loaded.

import { isMainThread, parentPort, workerData } from "node:worker_threads";
import type { ThreadRole } from "../storage/thread-messages.ts";

if (!isMainThread && parentPort !== null) {
  const { role } = workerData as { role: ThreadRole };
  if (role === "storage") {
    const { runStorageThread } = await import("../storage/storage-thread.ts");
    runStorageThread(parentPort, async () => {
      const { GROWING_UNITS, WRITE_UNITS } = await import("./write-units.ts");
      return { units: WRITE_UNITS, growing: GROWING_UNITS };
    });
  } else if (role === "reader") {
    (await import("../storage/reader-thread.ts")).runReaderThread(parentPort, workerData);
  } else await (await import("../storage/backup-thread.ts")).runBackupThread(parentPort, workerData);
}
