// A webhook with a real store, a real receiver and the real sender; its jobs run when a test says so, at its time.

import { statSync } from "node:fs";
import type { ClaimedJob } from "../../src/jobs/job-claim-units.ts";
import { JobFailure as Failure, type JobFailure } from "../../src/jobs/job-kinds.ts";
import type { JobUnits } from "../../src/jobs/job-units.ts";
import { openLog } from "../../src/shared/log.ts";
import { readSettings } from "../../src/shared/settings.ts";
import { storeFiles } from "../../src/storage/store-files.ts";
import type { UnitRunner } from "../../src/storage/unit-of-work.ts";
import { openWebhookTransport } from "../../src/task/webhook-outbound.ts";
import { WebhookSender } from "../../src/task/webhook-sender.ts";
import type { AttemptReport } from "../../src/task/webhook-settlement-units.ts";
import { createWebhookSecret } from "../../src/task/webhook-signature.ts";
import { type DeliveryRow, type WebhookRow, WebhookStore } from "../../src/task/webhook-store.ts";
import { alterStore } from "./alter-store.ts";
import { ITEM_FIELDS, openTaskStore, type TaskStore } from "./task-store.ts";
import { WebhookReceiver } from "./webhook-receiver.ts";

const SECRET = new TextEncoder().encode("0123456789abcdef0123456789abcdef");
const USER_ID = 1;
const TIMEOUT_MS = 2_000;
const LEASE_MS = 60_000;

export class WebhookRig implements AsyncDisposable {
  readonly id = Bun.randomUUIDv7();
  readonly secret = createWebhookSecret();
  readonly receiver = new WebhookReceiver();
  /** Addresses by name; they may change. */
  readonly names: Record<string, readonly string[]> = {};
  /** How far tests have moved the clock of claims, tries and secrets. */
  skewMs = 0;
  readonly #tasks: TaskStore;
  readonly #webhooks: WebhookStore;
  readonly #sender: WebhookSender;
  readonly #outbound: ReturnType<typeof openWebhookTransport>;

  private constructor(tasks: TaskStore, webhooks: WebhookStore) {
    this.#tasks = tasks;
    this.#webhooks = webhooks;
    const settings = readSettings({ JWT_SECRET: "x".repeat(32), WEBHOOK_ALLOW_CIDRS: "127.0.0.1/32" });
    this.#outbound = openWebhookTransport(settings, openLog({ mode: "test", logLevel: "error" }), {
      lookup: async (name) => this.names[name] ?? [],
      // Names are asked for again as often as the time has moved.
      now: () => this.nowMs,
    });
    this.#sender = new WebhookSender({
      webhooks,
      outbound: this.#outbound,
      timeoutMs: TIMEOUT_MS,
      clock: () => this.nowMs,
    });
  }

  /** `url` stands for the receiver's own; `{port}` in it is the receiver's. */
  static async open(url?: string): Promise<WebhookRig> {
    const tasks = await openTaskStore();
    const rig = new WebhookRig(tasks, await WebhookStore.open(tasks.store, [SECRET]));
    await tasks.addUsers("ann");
    const own = rig.receiver.url("/hook");
    await rig.store.run("task.createWebhook", {
      id: rig.id,
      userId: USER_ID,
      events: ["task.created"],
      url: url === undefined ? own : url.replace("{port}", new URL(own).port),
      secret: rig.#webhooks.sealSecret(rig.secret, rig.id),
    });
    return rig;
  }

  get nowMs(): number {
    return Date.now() + this.skewMs;
  }

  get store() {
    return this.#tasks.store;
  }

  get named() {
    return { id: this.id, userId: USER_ID };
  }

  /** As many more hooks of the same user, for the same events. */
  async addHooks(count: number): Promise<void> {
    for (let added = 0; added < count; added++) {
      const id = Bun.randomUUIDv7();
      const args = { id, userId: USER_ID, events: ["task.created"] as const, url: this.receiver.url("/hook") };
      await this.store.run("task.createWebhook", { ...args, secret: this.#webhooks.sealSecret(this.secret, id) });
    }
  }

  /** All hooks are told of it. */
  async createTask(description: string): Promise<void> {
    await this.store.run("task.createItem", {
      userId: USER_ID,
      requestId: "r",
      fields: { ...ITEM_FIELDS, description },
      itemsMax: 1000,
      keyed: null,
      nowMs: this.nowMs,
    });
  }

  async ping(): Promise<void> {
    await this.store.run("task.pingWebhook", this.named);
  }

  /** As if so many deliveries waited, or had failed: each of them would take a commit, or eight. */
  setCount(column: "pending" | "failures", count: number): Promise<void> {
    return alterStore(this.#tasks.dbPath, `UPDATE task_webhook SET ${column} = ${count}`);
  }

  /** As an operator does it, and undoes it. */
  setDisabled(isDisabled: boolean): Promise<void> {
    return alterStore(this.#tasks.dbPath, `UPDATE task_user SET disabled_at_ms = ${isDisabled ? 1 : "NULL"}`);
  }

  /** As a store of before messages has them. */
  keepBodiesInRows(): Promise<void> {
    const body = "(SELECT body FROM task_message WHERE id = message_id)";
    return alterStore(
      this.#tasks.dbPath,
      `UPDATE task_delivery SET body = ${body}, message_id = NULL; DELETE FROM task_message`,
    );
  }

  /** A secret that replaces the first one; the first signs for a day. */
  async rotate(): Promise<string> {
    const secret = createWebhookSecret();
    await this.store.run("task.rotateWebhookSecret", {
      ...this.named,
      secret: this.#webhooks.sealSecret(secret, this.id),
      previousUntilMs: this.nowMs + 86_400_000,
      kids: this.#webhooks.kids,
    });
    return secret;
  }

  /** Claims what is due, as a node would. */
  claim(slots = 8): Promise<ClaimedJob[]> {
    const queues = [{ queue: "webhook", slots }];
    return this.#jobs.run("jobs.claim", { node: "n", leaseMs: LEASE_MS, nowMs: this.nowMs, queues, busyGroups: {} });
  }

  /** Sends, and ends the run. */
  async work({ id, fence, payload }: ClaimedJob): Promise<void> {
    const run = await this.#sender.send({ payload: JSON.parse(payload), signal: new AbortController().signal }).then(
      (report) => ({ id, fence, end: "done" as const, report }),
      (failure: JobFailure) => {
        if (!(failure instanceof Failure)) throw failure;
        const { message, report, isFatal } = failure;
        return { id, fence, end: "failed" as const, error: message, report, isFatal };
      },
    );
    await this.#jobs.run("jobs.finish", { runs: [run], nowMs: this.nowMs });
  }

  /** As if the receiver had taken it so. */
  async taken({ id, fence }: ClaimedJob, report: AttemptReport): Promise<void> {
    await this.#jobs.run("jobs.finish", { runs: [{ id, fence, end: "done", report }], nowMs: this.nowMs });
  }

  /** As when its node was killed in mid-run: its lease runs out, and nobody knows how far it came. */
  async expire({ id, fence }: ClaimedJob): Promise<void> {
    this.skewMs += LEASE_MS + 1;
    await this.#jobs.run("jobs.finish", { runs: [{ id, fence, end: "expired" }], nowMs: this.nowMs });
  }

  /** Until nothing is due at this time. */
  async workAll(): Promise<void> {
    for (;;) {
      const jobs = await this.claim();
      if (jobs.length === 0) return;
      await Promise.all(jobs.map((job) => this.work(job)));
    }
  }

  async cancelJob(id: string): Promise<void> {
    await this.#jobs.run("jobs.cancel", { id, ownerId: USER_ID, nowMs: this.nowMs });
  }

  async retryJob(id: string): Promise<void> {
    await this.#jobs.run("jobs.retry", { id, ownerId: USER_ID, nowMs: this.nowMs });
  }

  /** As operators do it; how many. There are few. */
  async retryDead(): Promise<number> {
    const dead = { kind: "webhook.deliver", nowMs: this.nowMs, after: null };
    return (await this.#jobs.run("jobs.retryDead", dead)).retried;
  }

  async hook(): Promise<WebhookRow | undefined> {
    return (await this.#tasks.rows("task_webhook"))[0] as WebhookRow | undefined;
  }

  async deliveries(): Promise<DeliveryRow[]> {
    return (await this.#tasks.rows("task_delivery")) as DeliveryRow[];
  }

  messages() {
    return this.#tasks.rows("task_message");
  }

  /** Bytes that were appended to the log of the store while `act` ran, unless it has begun anew. */
  async loggedBytes(act: () => Promise<unknown>): Promise<number> {
    const bytes = () => statSync(storeFiles(this.#tasks.dbPath).wal).size;
    const before = bytes();
    await act();
    return bytes() - before;
  }

  jobs() {
    return this.#tasks.rows("job");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#outbound[Symbol.asyncDispose]();
    await this.receiver[Symbol.asyncDispose]();
    await this.#tasks[Symbol.asyncDispose]();
  }

  get #jobs(): UnitRunner<JobUnits> {
    return this.#tasks.store as unknown as UnitRunner<JobUnits>;
  }
}
