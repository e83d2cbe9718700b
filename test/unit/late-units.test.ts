// Write units are loaded with the first of them: until they are, the store does its other work.

import { expect, test } from "bun:test";
import { MessageChannel, type MessagePort } from "node:worker_threads";
import { type KnownUnits, runStorageThread } from "../../src/storage/storage-thread.ts";
import type { StorageReply, StorageRequest } from "../../src/storage/thread-messages.ts";
import { packBatch } from "../../src/storage/write-batch.ts";
import { tempDir } from "../support/temp-dir.ts";

type Kind = StorageReply["type"];

/** A storage thread in this one, and what it says, by kind. */
class Storage {
  readonly #port: MessagePort;
  readonly #said: StorageReply[] = [];
  #wake = Promise.withResolvers<void>();

  constructor(loadUnits: () => Promise<KnownUnits>) {
    const { port1, port2 } = new MessageChannel();
    this.#port = port2;
    port2.on("message", (reply: StorageReply) => {
      this.#said.push(reply);
      this.#wake.resolve();
      this.#wake = Promise.withResolvers<void>();
    });
    runStorageThread(port1, loadUnits);
  }

  async ask<K extends Kind>(request: StorageRequest, kind: K): Promise<Extract<StorageReply, { type: K }>> {
    this.#port.postMessage(request);
    return this.next(kind);
  }

  async next<K extends Kind>(kind: K): Promise<Extract<StorageReply, { type: K }>> {
    for (;;) {
      const at = this.#said.findIndex(({ type }) => type === kind);
      if (at >= 0) return this.#said.splice(at, 1)[0] as Extract<StorageReply, { type: K }>;
      await this.#wake.promise;
    }
  }

  tell(request: StorageRequest): void {
    this.#port.postMessage(request);
  }

  heard(kind: Kind): boolean {
    return this.#said.some(({ type }) => type === kind);
  }

  async close(): Promise<void> {
    await this.ask({ type: "close" }, "closed");
    this.leave();
  }

  leave(): void {
    this.#port.close();
  }
}

/** A result code of SQLite. */
const SQLITE_IOERR = 10;
const LOCK_DEADLINE_MS = Number.MAX_SAFE_INTEGER;
const OPTIONS = {
  walLimitBytes: 1_000_000,
  databaseBytesMax: 0,
  reserveBytes: 0,
  givenUpBytes: 0,
  sweepIntervalMs: 60_000,
  isChecked: false,
};
const UNITS: StorageRequest = {
  type: "units",
  units: [{ id: 1, name: "test.double", args: 21 }],
  lockDeadlineMs: LOCK_DEADLINE_MS,
};
const KNOWN: KnownUnits = {
  units: { "test.double": async (_work: unknown, args: never) => 2 * args } as unknown as KnownUnits["units"],
  growing: new Set(),
};

async function open(loadUnits: () => Promise<KnownUnits>): Promise<Storage> {
  const dir = tempDir();
  const storage = new Storage(loadUnits);
  const options = { ...OPTIONS, path: dir.file("gokv.db"), reservePath: dir.file("reserve") };
  await storage.ask({ type: "open", options }, "opened");
  return storage;
}

function batch(): StorageRequest {
  const rest = { contentType: null, metadata: null, ttlMs: null, condition: null, creatorIp: null };
  const write = { kind: "put", bucket: "b", key: "k", value: new Uint8Array([1]), ...rest } as const;
  return { type: "batch", lockDeadlineMs: LOCK_DEADLINE_MS, ...packBatch([write]).batch };
}

test("units that cannot be loaded are refused, the store goes on, and the next ones are loaded anew", async () => {
  let loads = 0;
  const storage = await open(async () => {
    if (++loads === 1) throw new Error("no such file");
    return KNOWN;
  });
  const refused = await storage.ask(UNITS, "units");
  expect(refused.outcomes).toMatchObject([{ id: 1, code: "internal_error", cause: "no such file" }]);
  expect((await storage.ask(batch(), "outcomes")).outcomes).toStartWith("created 1 ");
  expect((await storage.ask(UNITS, "units")).outcomes).toEqual([{ id: 1, result: 42 }]);
  expect(storage.heard("failed")).toBe(false);
  await storage.close();
});

test("while they are being loaded, writes are committed", async () => {
  const loading = Promise.withResolvers<KnownUnits>();
  const storage = await open(() => loading.promise);
  const answer = storage.ask(UNITS, "units");
  await storage.ask(batch(), "outcomes");
  expect(storage.heard("units")).toBe(false);
  loading.resolve(KNOWN);
  expect((await answer).outcomes).toEqual([{ id: 1, result: 42 }]);
  await storage.close();
});

test("units that come when the store has just failed are neither run nor answered", async () => {
  const runs: number[] = [];
  const broken = async (_work: unknown, args: number) => {
    runs.push(args);
    throw Object.assign(new Error("disk I/O error"), { name: "SQLiteError", errno: SQLITE_IOERR });
  };
  const units = { ...KNOWN.units, "test.broken": broken } as unknown as KnownUnits["units"];
  const storage = await open(async () => ({ units, growing: new Set() }));
  await storage.ask(UNITS, "units");
  for (const id of [1, 2]) storage.tell({ ...UNITS, units: [{ id, name: "test.broken", args: id }] });
  storage.tell(UNITS);
  expect((await storage.next("failed")).reason).toStartWith("disk I/O error");
  await Bun.sleep(10);
  expect([runs, storage.heard("failed"), storage.heard("units")]).toEqual([[1], false, false]);
  storage.leave();
});
