// The commands that work on a store: backup, restore, check, export, import.

import { createReadStream, createWriteStream, rmSync, statSync, writeSync } from "node:fs";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { requireEntry } from "../kv/require-entry.ts";
import { parseByteSize } from "../shared/byte-sizes.ts";
import { systemClock } from "../shared/clock.ts";
import { EXIT, ExitError, messageOf } from "../shared/errors.ts";
import { environmentOf, readDbPath, readMaxValueBytes, SETTINGS } from "../shared/settings.ts";
import { backupStore } from "../storage/backup-store.ts";
import { exportLines } from "../storage/export-entries.ts";
import { requireFile, storeAround, verifyGiven } from "../storage/given-file.ts";
import { type ImportMode, type ImportReport, importEntries } from "../storage/import-entries.ts";
import { restoreStore } from "../storage/restore-store.ts";
import { classifySqliteError } from "../storage/sqlite-errors.ts";
import { prepareDirectory, type StoreFiles, storeFiles } from "../storage/store-files.ts";
import { StoreLock } from "../storage/store-lock.ts";
import { inspectBeforeCopy, requireStore, StoreSnapshot } from "../storage/store-snapshot.ts";
import { type Verification, verifyStore } from "../storage/verify-store.ts";
import { showProgress } from "./progress.ts";
import type { StrictCommand } from "./run-cli.ts";

const ENVIRONMENT = environmentOf("dbPath");

export const backupCommand: StrictCommand = {
  meta: { name: "backup", description: "Writes a consistent copy, beside a running server too; never overwrites" },
  environment: ENVIRONMENT,
  args: { file: { type: "positional", required: true, description: "Where to" } },
  async run({ file }) {
    const files = requireStore(readDbPath(process.env));
    // Before SQLite has it open in this process.
    inspectBeforeCopy(files);
    const progress = showProgress("pages");
    const onStep = (copied: number, total: number) => progress.update(copied, total);
    const report = await namingDamage(() => backupStore({ source: files.database, target: file as string, onStep }));
    progress.end();
    process.stdout.write(
      `${report.file}: ${report.entries} entries, ${report.bytes} bytes, ${report.ms} ms, verified\n`,
    );
    return EXIT.done;
  },
};

export const restoreCommand: StrictCommand = {
  meta: { name: "restore", description: "Puts a backup in the place of the store; the old one is kept beside it" },
  environment: ENVIRONMENT,
  args: { file: { type: "positional", required: true, description: "A file that gokv backup wrote" } },
  async run({ file }) {
    const { files, lock } = openDirectory();
    using _ = lock;
    const report = restoreStore(file as string, files, systemClock());
    const before = report.before === null ? "" : `; the old store is ${report.before}`;
    process.stdout.write(`${files.database}: ${report.entries} entries, revision ${report.revision}${before}\n`);
    return EXIT.done;
  },
};

export const checkCommand: StrictCommand = {
  meta: { name: "check", description: "Checks every page, every value and every counter: exit 0 or 4" },
  environment: ENVIRONMENT,
  args: { file: { type: "positional", required: false, description: "A backup; without it the store itself" } },
  async run({ file }) {
    const verification = await (file === undefined
      ? verifyStoreIn(readDbPath(process.env))
      : verifyFile(file as string));
    const { entries, buckets, valueBytes, revision, problems } = verification;
    if (problems.length > 0) {
      throw new ExitError(
        EXIT.storeDamaged,
        `the store is damaged:\n${problems.map((text) => `  - ${text}`).join("\n")}`,
      );
    }
    process.stdout.write(
      `sound: ${entries} entries in ${buckets} buckets, ${valueBytes} bytes, revision ${revision}\n`,
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
    const filter = { bucket: (bucket as string | undefined) ?? null, prefix: (prefix as string | undefined) ?? "" };
    await namingDamage(async () => {
      using snapshot = await StoreSnapshot.open(readDbPath(process.env));
      for (const lines of exportLines(snapshot.database, filter, systemClock())) writeOut(lines);
    });
    return EXIT.done;
  },
};

export const importCommand: StrictCommand = {
  meta: { name: "import", description: "Reads an export into the store; only while no server runs" },
  environment: environmentOf("dbPath", "maxValueBytes"),
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
    const { files, lock } = openDirectory();
    using _ = lock;
    const source = flags.file as string;
    // An export is read twice, first to check it: so standard input, or a pipe, is put aside.
    const isStream = source === "-" || statSync(source, { throwIfNoEntry: false })?.isFile() === false;
    const file = isStream ? join(files.directory, `import-${crypto.randomUUID()}.ndjson`) : source;
    try {
      if (isStream) await putAside(source, file);
      const isDryRun = flags["dry-run"] === true;
      const options = {
        mode: ((flags.mode as string | undefined) ?? "fail") as ImportMode,
        isDryRun,
        nowMs: systemClock(),
        maxValueBytes: readMaxValueBytes(process.env),
        walLimitBytes: parseByteSize(SETTINGS.walLimitBytes.fallback!)!,
        requireEntry,
        onBadLine: (lineNumber: number, problem: string) => process.stderr.write(`line ${lineNumber}: ${problem}\n`),
      };
      const report = await namingDamage(() => importEntries(files, file, options));
      process.stdout.write(describeImport(report, isDryRun));
      return EXIT.done;
    } finally {
      if (isStream) rmSync(file, { force: true });
    }
  },
};

async function putAside(source: string, file: string): Promise<void> {
  const input = source === "-" ? process.stdin : createReadStream(source);
  try {
    await pipeline(input, createWriteStream(file, { mode: 0o600 }));
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    throw new ExitError(EXIT.failed, `${source} cannot be read: ${code}.`, { cause });
  }
}

/** Waits for a slow reader; a reader that has left ends the command. */
function writeOut(text: string): void {
  const bytes = Buffer.from(text);
  for (let written = 0; written < bytes.length; ) {
    try {
      written += writeSync(1, bytes, written);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== "EAGAIN") throw new ExitError(EXIT.failed, `cannot write the export: ${code}`);
      Bun.sleepSync(1);
    }
  }
}

function describeImport({ stored, skipped, expired }: ImportReport, isDryRun: boolean): string {
  return `${isDryRun ? "would store" : "stored"} ${stored}, skipped ${skipped}, left out ${expired} expired\n`;
}

/** The data directory, made when it is missing, and its lock. */
function openDirectory(): { files: StoreFiles; lock: StoreLock } {
  const files = storeFiles(readDbPath(process.env));
  prepareDirectory(files.directory);
  return { files, lock: StoreLock.acquire(files) };
}

/** The file of a whole store is checked as that store is: its lock tells whether a server has it open. */
async function verifyFile(file: string): Promise<Verification> {
  requireFile(file);
  const directory = storeAround(file);
  return directory === null ? verifyGiven(file) : verifyStoreIn(directory);
}

function verifyStoreIn(directory: string): Promise<Verification> {
  return namingDamage(async () => {
    using snapshot = await StoreSnapshot.open(directory);
    return verifyStore(snapshot.database);
  });
}

/** Damage that SQLite itself stumbles over ends a command like damage that a checksum shows. */
async function namingDamage<T>(act: () => Promise<T>): Promise<T> {
  try {
    return await act();
  } catch (error) {
    if (classifySqliteError(error) !== "damaged") throw error;
    throw new ExitError(EXIT.storeDamaged, `the store is damaged: ${messageOf(error)}. See gokv restore --help.`);
  }
}
