// Builds exports: the list is read in slices and written in parts, so that no export has to fit into memory.

import { createHash } from "node:crypto";
import { JobFailure, type JobHandler, type RunningJob } from "../jobs/job-kinds.ts";
import { KiB, MiB } from "../shared/bounds.ts";
import { AppError } from "../shared/errors.ts";
import { type ExportRow, ExportStore } from "./export-store.ts";
import { fileTextOf } from "./export-text.ts";
import type { ExportPayload, ExportReport, ExportRun } from "./export-units.ts";
import { goneUntilMs } from "./item-rules.ts";
import { parseListQuery } from "./task-query.ts";
import type { TaskServices } from "./task-services.ts";
import type { TaskWriter } from "./task-writer.ts";

export const PART_BYTES = 256 * KiB;
const BYTES_MAX = 64 * MiB;
/** The rest is for the end of the job. */
const PERCENT_BUILT = 99;

type Parts = Pick<TaskServices, "writer" | "store" | "lists" | "clock" | "settings">;

export function createExportBuild(parts: Parts): JobHandler {
  const exports = new ExportStore(parts.store);
  return async function buildExport(job: RunningJob): Promise<ExportReport> {
    const { exportId } = job.payload as ExportPayload;
    const row = await exports.find(exportId);
    if (row === null || row.user_id !== job.ownerId) throw new JobFailure("the export was deleted", { isFatal: true });
    const run = { exportId, jobId: job.id, fence: job.fence };
    await begin(parts, run, job.signal);
    try {
      const file = new ExportFile(parts.writer, run);
      const rows = await writeRows(parts, row, await exports.storeId(), file, job);
      return { rows, ...(await file.end()), nowMs: parts.clock() };
    } catch (error) {
      await dropParts(parts.writer, run);
      throw error;
    }
  };
}

/** @throws JobFailure when its user has no place for it any more; what the store throws */
async function begin({ writer, clock }: Parts, run: ExportRun, signal: AbortSignal): Promise<void> {
  try {
    while ((await writer.run("task.beginExport", { ...run, nowMs: clock() })) > 0) signal.throwIfAborted();
  } catch (error) {
    if (!(error instanceof AppError) || error.code !== "quota_exceeded") throw error;
    throw new JobFailure(error.message, { isFatal: true, cause: error });
  }
}

/** What the store does not take away now it removes with the next cleanup; until then it takes the user a place. */
async function dropParts(writer: TaskWriter, run: ExportRun): Promise<void> {
  try {
    while ((await writer.run("task.dropExportParts", run)) > 0) {}
  } catch {
    // The reason for which the run has failed is what counts.
  }
}

/** Returns how many. */
async function writeRows(
  parts: Parts,
  row: ExportRow,
  storeId: string,
  file: ExportFile,
  { signal, progress }: RunningJob,
): Promise<number> {
  const { filter, sort } = parseListQuery(JSON.parse(row.filter));
  const view = { userId: row.user_id, filter, nowMs: parts.clock(), goneUntilMs: goneUntilMs(parts) };
  const { lists } = parts;
  const text = fileTextOf(row.format, storeId);
  const total = await lists.count(view, signal);
  await file.write(text.head);
  let rows = 0;
  for await (const items of lists.items(view, sort, signal)) {
    for (const item of items) await file.write(text.entry(item));
    rows += items.length;
    progress((PERCENT_BUILT * rows) / Math.max(total, rows));
  }
  await file.write(text.tail);
  return rows;
}

/** The parts of one run on their way to the store. One buffer serves them all: there is less to be collected. */
class ExportFile {
  readonly #writer: TaskWriter;
  readonly #run: ExportRun;
  readonly #hash = createHash("sha256");
  readonly #encoder = new TextEncoder();
  readonly #part = new Uint8Array(PART_BYTES);
  #filled = 0;
  #bytes = 0;
  #seq = 0;

  constructor(writer: TaskWriter, run: ExportRun) {
    this.#writer = writer;
    this.#run = run;
  }

  /** @throws JobFailure when it grows too large; what the store throws */
  async write(text: string): Promise<void> {
    for (let rest = text; rest !== ""; ) {
      const { read, written } = this.#encoder.encodeInto(rest, this.#part.subarray(this.#filled));
      this.#filled += written;
      rest = rest.slice(read);
      // A character that does not fit any more begins the next part.
      if (rest !== "") await this.#send();
    }
  }

  async end(): Promise<Pick<ExportReport, "bytes" | "sha256">> {
    if (this.#filled > 0) await this.#send();
    return { bytes: this.#bytes, sha256: this.#hash.digest("hex") };
  }

  async #send(): Promise<void> {
    this.#bytes += this.#filled;
    if (this.#bytes > BYTES_MAX) {
      throw new JobFailure(`an export has at most ${BYTES_MAX / MiB} MiB; filter more`, { isFatal: true });
    }
    const data = this.#part.slice(0, this.#filled);
    this.#hash.update(data);
    await this.#writer.run("task.writeExportPart", { ...this.#run, seq: this.#seq++, data });
    this.#filled = 0;
  }
}
