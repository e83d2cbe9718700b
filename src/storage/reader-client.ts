// The main thread's side of the reader thread: starts it on first use, matches answers to questions.

import type { Worker } from "node:worker_threads";
import { AppError, internalError } from "../shared/errors.ts";
import type {
  BucketPageQuery,
  KeyPageQuery,
  KeyRange,
  NamePage,
  OffsetPage,
  OffsetPageQuery,
  PageTurn,
} from "./kv-engine.ts";
import type { StartThread } from "./start-thread.ts";
import type { ReaderReply, ReaderRequest } from "./thread-messages.ts";
import { TurnQueue } from "./turn-queue.ts";

type Waiting = { resolve(reply: ReaderReply): void; reject(error: AppError): void };
/** A request without its number, for each kind of request. */
type Question = ReaderRequest extends infer Request ? (Request extends unknown ? Omit<Request, "id"> : never) : never;
type Answer<Type extends ReaderReply["type"]> = Extract<ReaderReply, { readonly type: Type }>;

const PAGES_WAITING_MAX = 64;
/** Who waits for a list of buckets; no bucket has this name. */
const ALL_BUCKETS = "";

export class ReaderClient implements AsyncDisposable {
  readonly #path: string;
  readonly #startThread: StartThread;
  readonly #waiting = new Map<number, Waiting>();
  #thread: Worker | null = null;
  #isClosed = false;
  #lastId = 0;
  /** Of pages: the thread is given one at a time, so that whatever else is asked comes between two. */
  readonly #pages = new TurnQueue(PAGES_WAITING_MAX);
  /** Of counts, searches and sums, one at a time as well; who waits here is bounded as a request. */
  readonly #slices = new TurnQueue(Number.POSITIVE_INFINITY);

  constructor(databasePath: string, startThread: StartThread) {
    this.#path = databasePath;
    this.#startThread = startThread;
  }

  /** @throws AppError value_damaged, busy, internal_error, unavailable */
  async load(bucket: string, key: string, revision: number): Promise<Uint8Array<ArrayBuffer> | null> {
    const { value } = await this.#ask("value", { type: "load", bucket, key, revision });
    return value;
  }

  /** Slice by slice, until nobody waits any more. @throws AppError busy, internal_error, unavailable */
  async count(range: KeyRange, signal: AbortSignal): Promise<number> {
    let total = 0;
    for (let lower: string | null = range.lower; lower !== null; ) {
      const question: Question = { type: "count", range: { ...range, lower } };
      const ask = () => this.#ask("total", question);
      const slice: Answer<"total"> = await this.#slices.run(`bucket ${range.bucket}`, signal, ask);
      total += slice.total;
      lower = slice.next;
    }
    return total;
  }

  /**
   * Buckets take turns. Not read when nobody waits any more; what is being read is read to its end.
   * @throws AppError value_damaged, busy, overloaded, internal_error, unavailable; what `turn.begin` throws
   */
  page(query: OffsetPageQuery, turn: PageTurn | null): Promise<OffsetPage> {
    return this.#pages.run(query.bucket, turn?.signal ?? null, async () => {
      await turn?.begin();
      const { page } = await this.#ask("page", { type: "page", query });
      return page;
    });
  }

  /** Of a bucket that is being emptied. @throws AppError busy, overloaded, internal_error, unavailable */
  keys(query: KeyPageQuery, signal: AbortSignal | null): Promise<NamePage> {
    return this.#pages.run(query.range.bucket, signal, () => this.#names({ type: "keys", query }));
  }

  /** While some bucket is being emptied. @throws AppError busy, overloaded, internal_error, unavailable */
  buckets(query: BucketPageQuery, signal: AbortSignal | null): Promise<NamePage> {
    return this.#pages.run(ALL_BUCKETS, signal, () => this.#names({ type: "buckets", query }));
  }

  /**
   * What one statement reads, such as a slice of a search. Callers take turns; not read when nobody waits any more.
   * @throws AppError busy, internal_error, unavailable
   */
  async rows(
    sql: string,
    parameters: readonly unknown[],
    caller: string,
    signal: AbortSignal | null,
  ): Promise<unknown[]> {
    const { rows } = await this.#slices.run(caller, signal, () => this.#ask("rows", { type: "rows", sql, parameters }));
    return rows;
  }

  async #names(question: Question): Promise<NamePage> {
    const { page } = await this.#ask("names", question);
    return page;
  }

  /** @throws AppError internal_error as well for an answer of another type: it is to something else. */
  async #ask<Type extends ReaderReply["type"]>(type: Type, question: Question): Promise<Answer<Type>> {
    const reply = await this.#reply(question);
    if (reply.type === type) return reply as Answer<Type>;
    throw internalError(new Error(`the reader thread answered "${reply.type}" instead of "${type}"`));
  }

  #reply(question: Question): Promise<ReaderReply> {
    // Whose turn comes when the thread has been ended is not to begin another.
    if (this.#isClosed) return Promise.reject(stopped());
    this.#thread ??= this.#start();
    const id = ++this.#lastId;
    const { promise, resolve, reject } = Promise.withResolvers<ReaderReply>();
    this.#waiting.set(id, { resolve, reject });
    this.#thread.postMessage({ ...question, id });
    return promise;
  }

  #start(): Worker {
    const thread = this.#startThread("reader", { path: this.#path });
    thread.on("message", (reply: ReaderReply) => {
      const waiting = this.#waiting.get(reply.id);
      this.#waiting.delete(reply.id);
      if (reply.type === "error") waiting?.reject(errorOf(reply));
      else waiting?.resolve(reply);
    });
    // A reader can die without harm: those who wait are told, the next question starts another.
    thread.on("error", () => this.#abandon(thread));
    thread.on("exit", () => this.#abandon(thread));
    return thread;
  }

  /** After its error comes its exit, when the next thread may be at work already. */
  #abandon(thread: Worker): void {
    if (this.#thread !== thread) return;
    this.#thread = null;
    for (const { reject } of this.#waiting.values()) reject(stopped());
    this.#waiting.clear();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    await this.#thread?.terminate();
  }
}

function stopped(): AppError {
  return new AppError("unavailable", "The reader has stopped.");
}

function errorOf({ code, message, cause }: Extract<ReaderReply, { type: "error" }>): AppError {
  return new AppError(code, message, cause === null ? {} : { cause: new Error(cause) });
}
