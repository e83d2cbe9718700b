// The figures that /metrics shows. Labels hold routes, methods, statuses and fixed reasons, never a bucket or a key.

import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";
import { SharedRuns } from "../shared/shared-runs.ts";
import { VERSION } from "../shared/version.ts";
import type { StoreFigures } from "../storage/sqlite-store.ts";
import { RequestTally, SECONDS } from "./request-tally.ts";

const LAG_SAMPLE_MS = 10;
const ITEMS = [1, 2, 4, 8, 16, 32, 64, 128];

interface Rendered {
  readonly contentType: string;
  readonly text: string;
}

export class Metrics {
  readonly #registry = new Registry();
  readonly #requests = new RequestTally();
  readonly #commitSeconds: Histogram;
  readonly #batchItems: Histogram;
  readonly #checksumFailures: Counter;
  readonly #authFailures: Counter<"reason">;
  readonly #rejected: Counter<"reason">;
  readonly #lastBackup: Gauge;
  readonly #renders = new SharedRuns(() => this.#render());
  #processObserved: Promise<void> | null = null;

  constructor(sqliteVersion: string) {
    const registers = [this.#registry];
    this.#requests.register(this.#registry);
    this.#commitSeconds = new Histogram({
      name: "gokv_commit_duration_seconds",
      help: "Time of a transaction of the storage thread, its sync included.",
      buckets: SECONDS,
      registers,
    });
    this.#batchItems = new Histogram({
      name: "gokv_commit_batch_items",
      help: "Writes in one transaction.",
      buckets: ITEMS,
      registers,
    });
    this.#checksumFailures = new Counter({
      name: "gokv_checksum_failures_total",
      help: "Reads that met a damaged value.",
      registers,
    });
    this.#authFailures = new Counter({
      name: "gokv_auth_failures_total",
      help: "Requests whose credential was refused.",
      labelNames: ["reason"],
      registers,
    });
    this.#rejected = new Counter({
      name: "gokv_rejected_total",
      help: "Requests refused because of load, a lock, a full volume or shutdown.",
      labelNames: ["reason"],
      registers,
    });
    this.#lastBackup = new Gauge({
      name: "gokv_last_backup_timestamp_seconds",
      help: "When the last backup was finished; 0 = none since the start.",
      registers,
    });
    const build = { version: VERSION, bun: Bun.version, sqlite: sqliteVersion };
    new Gauge({
      name: "gokv_build_info",
      help: "Always 1.",
      labelNames: Object.keys(build),
      registers,
    }).set(build, 1);
  }

  /** For the figures of a service. */
  get registry(): Registry {
    return this.#registry;
  }

  /** Figures that are read when somebody asks. */
  observe(figures: () => StoreFigures, bodyBudgetUsedBytes: () => number): void {
    const gauge = (name: string, help: string, read: () => number) =>
      new Gauge({
        name,
        help,
        registers: [this.#registry],
        collect() {
          this.set(read());
        },
      });
    gauge("gokv_write_queue_length", "KV writes waiting for the storage thread.", () => figures().queueLength);
    gauge("gokv_body_budget_used_bytes", "Memory in use for bodies and streamed values.", bodyBudgetUsedBytes);
    gauge("gokv_wal_bytes", "Bytes of the write-ahead log in use.", () => figures().walBytes);
    gauge("gokv_db_bytes", "Size of the database file.", () => figures().databaseBytes);
    gauge("gokv_storage_full", "1 while puts, or large ones, are refused for lack of space.", () =>
      figures().isFull ? 1 : 0,
    );
    new Counter({
      name: "gokv_swept_total",
      help: "Expired entries removed.",
      registers: [this.#registry],
      collect() {
        this.reset();
        this.inc(figures().sweptTotal);
      },
    });
  }

  countRequest(route: string, method: string, status: number, seconds: number): void {
    this.#requests.count(route, method, status, seconds);
  }

  countCommit(items: number, seconds: number): void {
    this.#commitSeconds.observe(seconds);
    this.#batchItems.observe(items);
  }

  /** `reason` is one of a closed list. */
  countAuthFailure(reason: string): void {
    this.#authFailures.inc({ reason });
  }

  /** Of whatever surface: `code` is one of a closed list. */
  countFailure({ code, status }: { readonly code: string; readonly status: number }): void {
    if (code === "value_damaged") this.#checksumFailures.inc();
    if (status === 503 || status === 507) this.#rejected.inc({ reason: code });
  }

  noteBackup(nowMs: number): void {
    this.#lastBackup.set(nowMs / 1000);
  }

  /** With the first scrape: at the start it would take a tenth of that. */
  async #observeProcess(): Promise<void> {
    const { user, system } = process.cpuUsage();
    collectDefaultMetrics({ register: this.#registry, eventLoopMonitoringPrecision: LAG_SAMPLE_MS });
    // They count from here on; what was used before belongs to them too.
    this.#addSeconds("process_cpu_user_seconds_total", user);
    this.#addSeconds("process_cpu_system_seconds_total", system);
    this.#addSeconds("process_cpu_seconds_total", user + system);
    // Without a sample the lag would be shown as no number.
    await Bun.sleep(3 * LAG_SAMPLE_MS);
  }

  #addSeconds(name: string, microseconds: number): void {
    (this.#registry.getSingleMetric(name) as Counter).inc(microseconds / 1e6);
  }

  /** Prometheus text format 0.0.4. What it shows is no older than the call; scrapes that wait share one. */
  render(): Promise<Rendered> {
    return this.#renders.next();
  }

  async #render(): Promise<Rendered> {
    this.#processObserved ??= this.#observeProcess();
    await this.#processObserved;
    return { contentType: this.#registry.contentType, text: await this.#registry.metrics() };
  }
}
