// Tasks kept in memory as they are answered; exact on one node.

import { headerTemplate, type ResponseHeaders } from "../http/respond.ts";
import { type BoundedCache, createBoundedCache } from "../limits/bounded-cache.ts";
import { Holds } from "../limits/holds.ts";
import type { Clock } from "../shared/clock.ts";
import type { Settings } from "../shared/settings.ts";
import { etagOf, type TaskView } from "./task-view.ts";

/** Immutable: what a GET of the task answers, and who may see it. */
export interface CachedTask {
  readonly id: number;
  readonly ownerId: number;
  readonly assigneeId: number | null;
  readonly version: number;
  readonly etag: string;
  /** JSON text. */
  readonly body: Uint8Array<ArrayBuffer>;
  /** Headers of the answer but those of the request, and of the one that its reader has it already. */
  readonly template: Headers;
  readonly unchangedTemplate: Headers;
}

interface Kept {
  readonly task: CachedTask;
  readonly untilMs: number;
}

/** What an entry costs besides its body. */
const OVERHEAD_BYTES = 1024;

/** Only live tasks are loaded: whoever asks for one that is none gets nothing kept. */
type LoadTask = () => Promise<CachedTask | null>;

/**
 * Exact as long as every write of a task holds it from before the write is queued until it has ended: an entry is
 * dropped then, and nothing is served or kept that was read while a hold lay on it or came.
 */
export class TaskCache {
  readonly #kept: BoundedCache<Kept> | null;
  readonly #ttlMs: number;
  readonly #clock: Clock;
  /** Loads under way that others may join: none that began before a hold of its task. */
  readonly #loading = new Map<number, Promise<CachedTask | null>>();
  /** Tasks that are being changed, by their ids. */
  readonly #changing = new Holds<number | "all">();

  constructor(settings: Pick<Settings, "taskCache" | "taskCacheBytes" | "taskCacheTtlMs">, clock: Clock) {
    this.#kept = createBoundedCache<Kept>(settings.taskCache === "off" ? 0 : settings.taskCacheBytes);
    this.#ttlMs = settings.taskCacheTtlMs;
    this.#clock = clock;
  }

  get isOn(): boolean {
    return this.#kept !== null;
  }

  /** Who may see it is the caller's to judge, each time. Null: to be loaded. */
  find(id: number): CachedTask | null {
    const kept = this.#kept?.get(`${id}`);
    if (kept === undefined) return null;
    if (kept.untilMs > this.#clock()) return kept.task;
    this.#kept?.delete(`${id}`);
    return null;
  }

  /** Those who miss the same task at the same time wait for one load. */
  load(id: number, load: LoadTask): Promise<CachedTask | null> {
    if (this.#isHeld(id)) return load();
    const underWay = this.#loading.get(id);
    if (underWay !== undefined) return underWay;
    const { turns } = this.#changing;
    const loading = load().then((task) => {
      if (task !== null) this.#keep(task, turns);
      return task;
    });
    this.#loading.set(id, loading);
    const forget = () => this.#loading.get(id) === loading && this.#loading.delete(id);
    loading.then(forget, forget);
    return loading;
  }

  /** Keeps what `read` gives, unless a write came in between; how many were kept. */
  async fill(read: () => Promise<readonly CachedTask[]>): Promise<number> {
    const { turns } = this.#changing;
    const tasks = await read();
    return tasks.filter((task) => this.#keep(task, turns)).length;
  }

  /** The tasks are neither served from here nor filled until the function that is returned was called. */
  hold(ids: readonly number[] | "all"): () => void {
    if (ids === "all") {
      this.#kept?.clear();
      this.#loading.clear();
      return this.#changing.hold("all");
    }
    const releases = ids.map((id) => {
      this.#kept?.delete(`${id}`);
      this.#loading.delete(id);
      return this.#changing.hold(id);
    });
    return () => {
      for (const release of releases) release();
    };
  }

  #isHeld(id: number): boolean {
    return this.#changing.isHeld("all") || this.#changing.isHeld(id);
  }

  /** `turns` as they were when the task began to be read. */
  #keep(task: CachedTask, turns: number): boolean {
    if (this.#kept === null || turns !== this.#changing.turns || this.#isHeld(task.id)) return false;
    const untilMs = this.#clock() + this.#ttlMs;
    this.#kept.set(`${task.id}`, { task, untilMs }, task.body.length + OVERHEAD_BYTES);
    return true;
  }
}

/** The entry of a task: as it is answered. */
export function cachedTask(view: TaskView): CachedTask {
  const etag = etagOf(view.version);
  const headers = taskHeaders(etag);
  return {
    id: view.id,
    ownerId: view.user_id,
    assigneeId: view.assignee_id,
    version: view.version,
    etag,
    body: new TextEncoder().encode(JSON.stringify(view)),
    template: headerTemplate({ ...headers, "Content-Type": "application/json" }),
    unchangedTemplate: headerTemplate(headers),
  };
}

/** Of an answer that may be kept by its reader, and has to be asked about. */
export function taskHeaders(etag: string): ResponseHeaders {
  return { ETag: etag, "Cache-Control": "private, no-cache" };
}
