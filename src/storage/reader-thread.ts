// The reader thread: what is long (large values, counts, sorts) on a read-only connection of its own.

import type { SQLQueryBindings } from "bun:sqlite";
import type { MessagePort } from "node:worker_threads";
import { systemClock } from "../shared/clock.ts";
import { messageOf } from "../shared/errors.ts";
import type { KeyRange } from "./kv-engine.ts";
import { KvReader } from "./kv-reader.ts";
import { openForReading } from "./sqlite-connection.ts";
import { readFailure } from "./sqlite-errors.ts";
import type { ReaderReply, ReaderRequest } from "./thread-messages.ts";

export function runReaderThread(port: MessagePort, { path }: { path: string }): void {
  const database = openForReading(path);
  const reader = new KvReader(database);
  port.on("message", async (request: ReaderRequest) => {
    const { id } = request;
    const reply = (message: ReaderReply, transfer: ArrayBuffer[] = []) => port.postMessage(message, transfer);
    try {
      if (request.type === "load") {
        const value = reader.load(request.bucket, request.key, request.revision);
        reply({ id, type: "value", value }, value === null ? [] : [value.buffer]);
      } else if (request.type === "page") {
        const page = reader.pageByOffset(request.query, systemClock());
        const values = (page.entries ?? []).flatMap(({ json }) => (json === null ? [] : [json.buffer]));
        reply({ id, type: "page", page }, values);
      } else if (request.type === "rows") {
        const parameters = request.parameters as SQLQueryBindings[];
        reply({ id, type: "rows", rows: database.query(request.sql).all(...parameters) });
      } else {
        const total = await count(request.range, (slice) => reader.countSlice(slice, systemClock()));
        reply({ id, type: "total", total });
      }
    } catch (error) {
      const { code, message, cause } = readFailure(error);
      const failure = { code: code as "internal_error", message, cause: cause === undefined ? null : messageOf(cause) };
      reply({ id, type: "error", ...failure });
    }
  });
}

/** In slices: other requests run between two of them. */
async function count(
  range: KeyRange,
  countSlice: (slice: KeyRange) => { total: number; next: string | null },
): Promise<number> {
  let total = 0;
  for (let lower: string | null = range.lower; lower !== null; ) {
    const slice = countSlice({ ...range, lower });
    total += slice.total;
    lower = slice.next;
    if (lower !== null) await new Promise(setImmediate);
  }
  return total;
}
