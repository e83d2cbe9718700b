// The main thread's side of the storage thread: opens the store through it, hands it batches, hears how it fares.

import type { Worker } from "node:worker_threads";
import { AppError, ExitError, internalError, messageOf } from "../shared/errors.ts";
import type { KvWrite } from "./kv-engine.ts";
import type { StartThread } from "./start-thread.ts";
import type { StorageReply, StorageRequest, StorageState, StoreOptions, UnitOutcome } from "./thread-messages.ts";
import { type QueuedUnit, UnitQueue } from "./unit-queue.ts";
import { type ItemOutcome, packBatch, unpackOutcomes } from "./write-batch.ts";

interface StorageEvents {
  onOutcomes(outcomes: readonly ItemOutcome[], commitMs: number): void;
  onState(state: StorageState): void;
  /** Before whoever asked for it is answered. */
  onWiped(bucket: string): void;
  /** Called once. Nothing may be written to the store after it. */
  onFailed(reason: string): void;
}

/** Units, wipes and joint writes that may wait for the storage thread together. */
const WAITING_MAX = 1024;

export class StorageClient {
  readonly #thread: Worker;
  #opening = Promise.withResolvers<number | null>();
  readonly #closing = Promise.withResolvers<void>();
  readonly #waiting = new Map<number, { resolve(result: unknown): void; reject(error: AppError): void }>();
  readonly #units = new UnitQueue((units, lockDeadlineMs) => this.#postUnits(units, lockDeadlineMs));
  #events: StorageEvents | null = null;
  #lastId = 0;
  #refusal: AppError | null = null;
  #isOver = false;

  /** Starting a thread takes a while: construct early, `open` when the files were looked at. */
  constructor(startThread: StartThread) {
    this.#thread = startThread("storage");
    this.#thread.on("message", (reply: StorageReply) => this.#hear(reply));
    this.#thread.on("error", (error) => this.#fail(`the storage thread died: ${messageOf(error)}`));
    this.#thread.on("exit", () => this.#fail("the storage thread ended"));
  }

  /**
   * Returns the schema which a store had before it was upgraded, null if it was not. `beforeUpgrade` may throw.
   * @throws ExitError (1, 3, 4)
   */
  async open(
    options: Omit<StoreOptions, "upgrade">,
    events: StorageEvents,
    beforeUpgrade: (schema: number) => void | Promise<void>,
  ): Promise<number | null> {
    this.#events = events;
    this.#post({ type: "open", options: { ...options, upgrade: "ask" } });
    const schema = await this.#opening.promise;
    if (schema === null) return null;
    await beforeUpgrade(schema);
    this.#opening = Promise.withResolvers();
    this.#post({ type: "open", options: { ...options, upgrade: "now" } });
    await this.#opening.promise;
    return schema;
  }

  send(writes: readonly KvWrite[], lockDeadlineMs: number): void {
    const { batch, transfer } = packBatch(writes);
    this.#post({ type: "batch", lockDeadlineMs, ...batch }, transfer);
  }

  /** @throws AppError */
  runUnit(name: string, args: unknown, lockDeadlineMs: number): Promise<unknown> {
    return this.#waitFor((id) => this.#units.add({ id, name, args, lockDeadlineMs }));
  }

  /** All or none. @throws AppError draining, storage_failed */
  async writeTogether(writes: readonly KvWrite[], lockDeadlineMs: number): Promise<ItemOutcome[]> {
    const { batch, transfer } = packBatch(writes);
    const outcomes = await this.#ask((id) => ({ type: "together", id, lockDeadlineMs, ...batch }), transfer);
    return unpackOutcomes(outcomes as string);
  }

  /** @throws AppError draining, storage_failed */
  async wipe(bucket: string, lockDeadlineMs: number, installationId?: string): Promise<ItemOutcome> {
    const outcomes = await this.#ask((id) => ({ type: "wipe", id, bucket, installationId, lockDeadlineMs }));
    return unpackOutcomes(outcomes as string)[0]!;
  }

  /** From now on everything is refused with `error`: what waits, too, if the store has failed. */
  refuse(error: AppError, isFailure: boolean): void {
    this.#refusal = error;
    if (!isFailure) return;
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }

  /** Resolves when the log was copied into the database file and the connection is closed, or has failed before. */
  async close(): Promise<void> {
    // A store that fails meanwhile ends nothing any more.
    if (!this.#isOver) await Promise.race([this.#units.close(), this.#closing.promise]);
    if (!this.#isOver) {
      this.#post({ type: "close" });
      await this.#closing.promise;
    }
    this.#isOver = true;
    await this.#thread.terminate();
  }

  /** Ends the thread of a store that was never opened. */
  async abandon(): Promise<void> {
    this.#isOver = true;
    await this.#thread.terminate();
  }

  #ask(request: (id: number) => StorageRequest, transfer: ArrayBuffer[] = []): Promise<unknown> {
    return this.#waitFor((id) => this.#post(request(id), transfer));
  }

  #waitFor(begin: (id: number) => void): Promise<unknown> {
    if (this.#refusal !== null) return Promise.reject(this.#refusal);
    if (this.#waiting.size >= WAITING_MAX) {
      return Promise.reject(new AppError("overloaded", "Too many changes are waiting. Try again."));
    }
    const id = ++this.#lastId;
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    this.#waiting.set(id, { resolve, reject });
    begin(id);
    return promise;
  }

  #settle(id: number, result: unknown): void {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (result instanceof AppError) waiting?.reject(result);
    else waiting?.resolve(result);
  }

  #postUnits(units: readonly QueuedUnit[], lockDeadlineMs: number): void {
    try {
      this.#post({ type: "units", units, lockDeadlineMs });
    } catch (error) {
      // Arguments that cannot cross the border to the thread are a mistake of the program, and nothing has crossed.
      for (const { id } of units) this.#settle(id, internalError(error));
      setImmediate(() => this.#units.ended());
    }
  }

  #post(request: StorageRequest, transfer: ArrayBuffer[] = []): void {
    this.#thread.postMessage(request, transfer);
  }

  #hear(reply: StorageReply): void {
    switch (reply.type) {
      case "outcomes":
        this.#events?.onOutcomes(unpackOutcomes(reply.outcomes), reply.commitMs);
        break;
      case "state":
        this.#events?.onState(reply.state);
        break;
      case "failed":
        this.#fail(reply.reason);
        break;
      case "done":
        this.#settle(reply.id, reply.result);
        break;
      case "units":
        for (const outcome of reply.outcomes) {
          this.#settle(outcome.id, "code" in outcome ? refusalOf(outcome) : outcome.result);
        }
        this.#units.ended();
        break;
      case "wiped":
        this.#events?.onWiped(reply.bucket);
        break;
      case "opened":
        this.#opening.resolve(null);
        break;
      case "outdated":
        this.#opening.resolve(reply.schema);
        break;
      case "refused":
        this.#opening.reject(new ExitError(reply.exitCode, reply.message));
        break;
      case "closed":
        this.#isOver = true;
        this.#closing.resolve();
    }
  }

  #fail(reason: string): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#opening.reject(new Error(reason));
    this.#closing.resolve();
    this.#events?.onFailed(reason);
  }
}

function refusalOf({ code, message, details, cause }: Extract<UnitOutcome, { code: unknown }>): AppError {
  return new AppError(code, message, { details, ...(cause === null ? {} : { cause: new Error(cause) }) });
}
