// The commands that work on a store: backup, restore, check, export, import.

import { createReadStream, createWriteStream, existsSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { pipeline } from "node:stream/promises";
import { startAppThread } from "../app/app-threads.ts";
import { requireEntry } from "../kv/require-entry.ts";
import { systemClock } from "../shared/clock.ts";
import { EXIT, type ExitCode, ExitError, messageOf } from "../shared/errors.ts";
import {
  environmentOf,
  readDatabaseBytesMax,
  readDbPath,
  readMaxValueBytes,
  readReserveBytes,
  readWalLimitBytes,
} from "../shared/settings.ts";
import { fileReason } from "../shared/system-reasons.ts";
import { accessFailure } from "../storage/access-failure.ts";
import { backUpInThread } from "../storage/backup-client.ts";
import type { BackupReport } from "../storage/backup-store.ts";
import { exportLines } from "../storage/export-entries.ts";
import { copyGiven, copyOf, hasLog, requireFile, storeAround, verifyCopy, verifyGiven } from "../storage/given-file.ts";
import { type ImportMode, type ImportReport, importEntries } from "../storage/import-entries.ts";
import { partialOf, putAsideIn, removeAbandoned, removePartial, removePutAside } from "../storage/partial-files.ts";
import { removeFile } from "../storage/remove-file.ts";
import { restoreStore } from "../storage/restore-store.ts";
import { classifySqliteError, isUnfitForTables } from "../storage/sqlite-errors.ts";
import { isWorkedWith, prepareDirectory, type StoreFiles, storeFiles } from "../storage/store-files.ts";
import { StoreLock } from "../storage/store-lock.ts";
import { inspectBeforeCopy, requireStore, StoreSnapshot } from "../storage/store-snapshot.ts";
import { type Verification, verifyStore } from "../storage/verify-store.ts";
import { cleaningUpOnSignal } from "./clean-up-on-signal.ts";
import { showProgress } from "./progress.ts";
import { type FlagValues, Misuse, type StrictCommand } from "./run-cli.ts";
import { writeOut } from "./write-out.ts";

const PROGRESS_MS = 100;

const ENVIRONMENT = environmentOf("dbPath", "walLimitBytes");

export const backupCommand: StrictCommand = {
  meta: { name: "backup", description: "Writes a consistent copy, beside a running server too; never overwrites" },
  environment: ENVIRONMENT,
  args: { file: { type: "positional", required: true, description: "Where to" } },
  async run({ file }) {
    const target = nameOf(file);
    // Elsewhere, in import too, it is standard input or output: a copy that is proven is a file.
    if (target === "-") throw new Misuse("a backup is a file; for one of that name give ./-");
    const files = requireStore(readDbPath(process.env));
    if (isWorkedWith(files, target)) {
      const problem = `${target} is the name of a file that the store works with. Choose another one.`;
      throw new ExitError(EXIT.failed, problem);
    }
    // Before SQLite has it open in this process.
    inspectBeforeCopy(files);
    const report = await backUp(files.database, target);
    writeOut(`${report.file}: ${contentsOf(report)}, ${report.bytes} bytes, ${report.ms} ms, verified\n`);
    return EXIT.done;
  },
};

/** @throws ExitError (1) it cannot be written, (4) the store is damaged */
async function backUp(source: string, target: string): Promise<BackupReport> {
  removeAbandoned(dirname(target), systemClock());
  const draft = partialOf(target);
  const job = {
    source,
    target,
    draft,
    walLimitBytes: readWalLimitBytes(process.env),
    cancelled: new SharedArrayBuffer(4),
    pages: new SharedArrayBuffer(8),
  };
  const progress = showProgress("pages");
  const [copied, total] = [new Int32Array(job.pages, 0, 1), new Int32Array(job.pages, 4, 1)];
  const timer = setInterval(() => progress.update(copied[0]!, total[0]!), PROGRESS_MS);
  try {
    return await cleaningUpOnSignal(
      () => removePartial(draft),
      () => backUpInThread(startAppThread, job),
    );
  } finally {
    clearInterval(timer);
    progress.end();
  }
}

export const restoreCommand: StrictCommand = {
  meta: { name: "restore", description: "Puts a backup in the place of the store; the old one is kept beside it" },
  environment: environmentOf("dbPath"),
  args: { file: { type: "positional", required: true, description: "A file that gokv backup wrote" } },
  async run({ file }) {
    const source = nameOf(file);
    const files = storeFiles(readDbPath(process.env));
    using _ = openDirectory(files);
    const report = await cleaningUpOnSignal(
      () => removePartial(files.restoring),
      () => restoreStore(source, files, systemClock()),
    );
    const { revision, before } = report;
    const what = before?.isWhole ? "the old store is" : "what was left of the old store is";
    const kept = before === null ? "" : `; ${what} ${before.path}`;
    writeOut(`${files.database}: ${contentsOf(report)}, revision ${revision}${kept}\n`);
    return EXIT.done;
  },
};

export const checkCommand: StrictCommand = {
  meta: { name: "check", description: "Checks every page, every value and every counter: exit 0 or 4" },
  environment: ENVIRONMENT,
  args: { file: { type: "positional", required: false, description: "A backup; without it the store itself" } },
  async run({ file }) {
    const verification = await (file === undefined ? verifyStoreIn(readDbPath(process.env)) : verifyFile(nameOf(file)));
    const { entries, buckets, valueBytes, revision, serviceRows, problems } = verification;
    if (problems.length > 0) {
      throw new ExitError(
        EXIT.storeDamaged,
        `${file === undefined ? "the store" : file} is damaged:\n${problems.map((text) => `  - ${text}`).join("\n")}`,
      );
    }
    writeOut(
      `sound: ${entries} entries in ${buckets} buckets, ${valueBytes} bytes, revision ${revision}, ` +
        `${serviceRows} rows of services\n`,
    );
    return EXIT.done;
  },
};

export const verifyCommand: StrictCommand = {
  ...checkCommand,
  meta: { name: "verify", description: "Same as check" },
};

export const exportCommand: StrictCommand = {
  meta: { name: "export", description: "Writes the entries to standard output, one JSON text per line" },
  environment: ENVIRONMENT,
  args: {
    bucket: { type: "string", valueHint: "name", description: "Only this bucket" },
    prefix: { type: "string", valueHint: "text", description: "Only keys that start with it" },
  },
  async run({ bucket, prefix }) {
    // No bucket has it: all entries would be missing from a backup that looks whole.
    if (bucket === "") throw new Misuse("the name of the bucket is empty");
    const filter = { bucket: (bucket as string | undefined) ?? null, prefix: (prefix as string | undefined) ?? "" };
    await namingFailure(async () => {
      using snapshot = await openSnapshot(readDbPath(process.env));
      for (const lines of exportLines(snapshot.database, filter, systemClock())) writeOut(lines);
    });
    return EXIT.done;
  },
};

export const importCommand: StrictCommand = {
  meta: { name: "import", description: "Reads an export into the store; only while no server runs" },
  environment: environmentOf("dbPath", "maxValueBytes", "dbMaxBytes", "walLimitBytes", "reserveBytes"),
  args: {
    file: { type: "positional", required: true, description: "What gokv export wrote; - is standard input" },
    mode: {
      type: "enum",
      options: ["fail", "skip", "overwrite"],
      default: "fail",
      description: "What to do with a key that exists",
    },
    "dry-run": { type: "boolean", description: "Check everything, store nothing" },
  },
  async run(flags) {
    const source = nameOf(flags.file);
    const files = storeFiles(readDbPath(process.env));
    // It has nothing to look at and nothing to store: so it makes nothing either.
    const isWithoutStore = flags["dry-run"] === true && !existsSync(files.database);
    using _ = isWithoutStore ? null : openDirectory(files);
    if (!isWithoutStore) removePutAside(files.directory);
    // An export is read twice, first to check it: so standard input, or a pipe, is put aside.
    const isStream = source === "-" || isNoPlainFile(source);
    const file = isStream ? putAsideIn(isWithoutStore ? tmpdir() : files.directory) : source;
    const remove = () => {
      if (isStream) removeFile(file);
    };
    try {
      return await cleaningUpOnSignal(remove, async () => {
        if (isStream) await putAside(source, file);
        return await importFrom(files, file, flags);
      });
    } finally {
      remove();
    }
  },
};

async function importFrom(files: StoreFiles, file: string, flags: FlagValues): Promise<ExitCode> {
  const isDryRun = flags["dry-run"] === true;
  const report = await namingFailure(() =>
    importEntries(files, file, {
      mode: ((flags.mode as string | undefined) ?? "fail") as ImportMode,
      isDryRun,
      nowMs: systemClock(),
      maxValueBytes: readMaxValueBytes(process.env),
      databaseBytesMax: readDatabaseBytesMax(process.env),
      walLimitBytes: readWalLimitBytes(process.env),
      reserveBytes: readReserveBytes(process.env),
      requireEntry,
      onBadLine: (lineNumber, problem) => process.stderr.write(`line ${lineNumber}: ${problem}\n`),
    }),
  );
  writeOut(describeImport(report, isDryRun));
  return EXIT.done;
}

function contentsOf({ entries, serviceRows }: { entries: number; serviceRows: number }): string {
  return `${entries} entries, ${serviceRows} rows of services`;
}

function isNoPlainFile(path: string): boolean {
  try {
    return statSync(path, { throwIfNoEntry: false })?.isFile() === false;
  } catch {
    // Reading it says why.
    return false;
  }
}

async function putAside(source: string, file: string): Promise<void> {
  const input = source === "-" ? process.stdin : createReadStream(source);
  try {
    await pipeline(input, createWriteStream(file, { mode: 0o600 }));
  } catch (cause) {
    const { code, path } = cause as NodeJS.ErrnoException;
    if (code === "ENOSPC" || path === file) throw accessFailure(file, cause) ?? cause;
    throw new ExitError(EXIT.failed, `${source} cannot be read: ${fileReason(cause)}.`, { cause });
  }
}

function describeImport({ stored, skipped, expired }: ImportReport, isDryRun: boolean): string {
  return `${isDryRun ? "would store" : "stored"} ${stored}, skipped ${skipped}, left out ${expired} expired\n`;
}

/** Of an argument; a variable of a shell that was never set leaves an empty one. */
function nameOf(file: FlagValues[string]): string {
  if (typeof file === "string" && file !== "") return file;
  throw new Misuse("the name of the file is empty");
}

/** Makes the data directory when it is missing. Returns its lock. */
function openDirectory(files: StoreFiles): StoreLock {
  prepareDirectory(files);
  return StoreLock.acquire(files);
}

function openSnapshot(directory: string): Promise<StoreSnapshot> {
  removeAbandoned(directory, systemClock());
  const copy = partialOf(join(directory, "snapshot.db"));
  const draft = partialOf(copy);
  const walLimitBytes = readWalLimitBytes(process.env);
  return cleaningUpOnSignal(
    () => [copy, draft].forEach(removePartial),
    () => StoreSnapshot.open(directory, { copy, draft, walLimitBytes, startThread: startAppThread }),
  );
}

/** The file of a whole store is checked as that store is: its lock tells whether a server has it open. */
async function verifyFile(file: string): Promise<Verification> {
  requireFile(file);
  const directory = storeAround(file);
  if (directory !== null) return verifyStoreIn(directory);
  removeAbandoned(dirname(file), systemClock());
  if (!hasLog(file)) return verifyGiven(file);
  const copy = copyOf(file);
  const remove = () => removePartial(copy);
  try {
    await cleaningUpOnSignal(remove, () => copyGiven(file, copy));
    return verifyCopy(file, copy);
  } finally {
    remove();
  }
}

function verifyStoreIn(directory: string): Promise<Verification> {
  return namingFailure(async () => {
    using snapshot = await openSnapshot(directory);
    return verifyStore(snapshot.database);
  });
}

/** What SQLite itself stumbles over, damage or a refusal of the system, ends a command with what to do about it. */
async function namingFailure<T>(act: () => Promise<T>): Promise<T> {
  try {
    return await act();
  } catch (error) {
    const refusal = accessFailure(readDbPath(process.env), error);
    if (refusal !== null) throw refusal;
    if (classifySqliteError(error) !== "damaged" && !isUnfitForTables(error)) throw error;
    throw new ExitError(EXIT.storeDamaged, `the store is damaged: ${messageOf(error)}. See gokv restore --help.`);
  }
}
