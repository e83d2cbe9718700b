// The reader thread: what is long (large values, counts, sorts) on a read-only connection of its own.

import type { Database, SQLQueryBindings } from "bun:sqlite";
import type { MessagePort } from "node:worker_threads";
import { systemClock } from "../shared/clock.ts";
import { messageOf } from "../shared/errors.ts";
import { KvReader } from "./kv-reader.ts";
import { tellStarted } from "./spare-descriptors.ts";
import { openForReading } from "./sqlite-connection.ts";
import { readFailure } from "./sqlite-errors.ts";
import type { ReaderReply, ReaderRequest, Started } from "./thread-messages.ts";

interface ReaderData {
  readonly path: string;
  readonly started?: Started;
}

export function runReaderThread(port: MessagePort, { path, started }: ReaderData): void {
  const database = openForReading(path);
  const reader = new KvReader(database);
  if (started !== undefined) tellStarted(started);
  port.on("message", (request: ReaderRequest) => {
    const { id } = request;
    try {
      const reply = answer(database, reader, request);
      port.postMessage(reply, buffersOf(reply));
    } catch (error) {
      const { code, message, cause } = readFailure(error);
      const failure = { code: code as "internal_error", message, cause: cause === undefined ? null : messageOf(cause) };
      port.postMessage({ id, type: "error", ...failure } satisfies ReaderReply);
    }
  });
}

function answer(database: Database, reader: KvReader, request: ReaderRequest): Exclude<ReaderReply, { type: "error" }> {
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
      return { id, type: "total", ...reader.countSlice(request.range, systemClock()) };
  }
}

/** Values change threads without a copy. */
function buffersOf(reply: ReaderReply): ArrayBuffer[] {
  if (reply.type === "value") return reply.value === null ? [] : [reply.value.buffer];
  if (reply.type !== "page") return [];
  return (reply.page.entries ?? []).flatMap(({ json }) => (json === null ? [] : [json.buffer]));
}
