// The reader thread: what is long (large values, counts, sorts) on a read-only connection of its own.

import type { Database, SQLQueryBindings } from "bun:sqlite";
import type { MessagePort } from "node:worker_threads";
import { systemClock } from "../shared/clock.ts";
import { messageOf } from "../shared/errors.ts";
import type { Eventually } from "../shared/eventual.ts";
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
    try {
      const reply = await answer(database, reader, request);
      port.postMessage(reply, buffersOf(reply));
    } catch (error) {
      const { code, message, cause } = readFailure(error);
      const failure = { code: code as "internal_error", message, cause: cause === undefined ? null : messageOf(cause) };
      port.postMessage({ id, type: "error", ...failure } satisfies ReaderReply);
    }
  });
}

function answer(
  database: Database,
  reader: KvReader,
  request: ReaderRequest,
): Eventually<Exclude<ReaderReply, { type: "error" }>> {
  const { id } = request;
  switch (request.type) {
    case "load":
      return { id, type: "value", value: reader.load(request.bucket, request.key, request.revision) };
    case "page":
      return { id, type: "page", page: reader.pageByOffset(request.query, systemClock()) };
    case "keys":
      return { id, type: "names", page: reader.listKeys(request.query, systemClock()) };
    case "buckets":
      return { id, type: "names", page: reader.listBuckets(request.query, systemClock()) };
    case "rows":
      return { id, type: "rows", rows: database.query(request.sql).all(...(request.parameters as SQLQueryBindings[])) };
    case "count":
      return count(request.range, (slice) => reader.countSlice(slice, systemClock())).then((total) => ({
        id,
        type: "total",
        total,
      }));
  }
}

/** Values change threads without a copy. */
function buffersOf(reply: ReaderReply): ArrayBuffer[] {
  if (reply.type === "value") return reply.value === null ? [] : [reply.value.buffer];
  if (reply.type !== "page") return [];
  return (reply.page.entries ?? []).flatMap(({ json }) => (json === null ? [] : [json.buffer]));
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
