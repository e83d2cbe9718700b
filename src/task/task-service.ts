// Opens the task service: its parts, its workers, its schedules; and closes them again.

import type { ByteBudget } from "../http/byte-budget.ts";
import type { Metrics } from "../http/metrics.ts";
import type { Admission, Handler } from "../http/surface.ts";
import { JobService } from "../jobs/job-service.ts";
import type { JobUnits } from "../jobs/job-units.ts";
import { perMinute } from "../limits/gcra-limiter.ts";
import type { Clock } from "../shared/clock.ts";
import type { Log } from "../shared/log.ts";
import type { Settings } from "../shared/settings.ts";
import type { TableStore } from "../storage/unit-of-work.ts";
import { resumeErasures } from "./account-erasure.ts";
import { requestWarming } from "./cache-warming.ts";
import { EventStreams } from "./event-streams.ts";
import { FeedStore } from "./feed-store.ts";
import { openAccounts } from "./open-accounts.ts";
import { StatsCache } from "./stats-cache.ts";
import { observeStreams } from "./stream-metrics.ts";
import { TaskCache } from "./task-cache.ts";
import { type Effects, together } from "./task-effects.ts";
import { TASK_JOBS } from "./task-jobs.ts";
import { TaskListStore } from "./task-list-store.ts";
import { TaskRates } from "./task-rates.ts";
import { createTaskHandler } from "./task-routes.ts";
import type { TaskServices } from "./task-services.ts";
import { TaskStatsStore } from "./task-stats-store.ts";
import type { TaskUnits } from "./task-units.ts";
import { createTaskHandlers, type HandlerTools, TASK_SCHEDULES } from "./task-workers.ts";
import { TaskWriter } from "./task-writer.ts";
import { openWebhookTransport } from "./webhook-outbound.ts";
import { WebhookStore } from "./webhook-store.ts";

/** Of the memory for bodies. */
const UNREAD_SHARE = 1 / 8;

interface TaskParts {
  readonly settings: Settings;
  readonly store: TableStore<TaskUnits & JobUnits>;
  readonly admission: Admission;
  readonly budget: ByteBudget;
  readonly strangers: ByteBudget;
  readonly metrics: Metrics;
  readonly clock: Clock;
  readonly log: Log;
}

export class TaskService implements AsyncDisposable {
  /** Everything below `/api/v1`. */
  readonly handle: Handler;
  readonly services: TaskServices;

  private constructor(services: TaskServices) {
    this.services = services;
    this.handle = createTaskHandler(services);
  }

  /** Throws what the store throws. */
  static async open(parts: TaskParts): Promise<TaskService> {
    const { settings, store, admission, budget, strangers, clock, log } = parts;
    const cache = new TaskCache(settings, clock);
    const reads = { lists: new TaskListStore(store), stats: new TaskStatsStore(store), statsCache: new StatsCache() };
    const writer = new TaskWriter(store, cache);
    const rates = new TaskRates(clock, ratesOf(settings));
    const { gate, accounts, accountMetrics } = openAccounts(parts, writer);
    const unread = budget.part(Math.floor(budget.limitBytes * UNREAD_SHARE));
    unread.limitEach(Math.floor(unread.limitBytes / 2));
    const streams = new EventStreams({
      feed: new FeedStore(store),
      clock,
      limit: settings.taskStreamsMax,
      budget: unread,
      log,
    });
    writer.onEffects(({ userIds }) => streams.wake(userIds));
    const webhooks = await WebhookStore.open(store, settings.sealingSecrets);
    const outbound = openWebhookTransport(settings, log);
    const tools = {
      settings,
      clock,
      log,
      admission,
      budget,
      strangers,
      unread,
      store,
      writer,
      cache,
      rates,
      gate,
      accounts,
      streams,
      webhooks,
      outbound,
      ...reads,
    };
    const jobs = await openJobs(parts, tools).catch(async (error: unknown) => {
      await outbound[Symbol.asyncDispose]();
      throw error;
    });
    // Registered for good, so behind all that may fail: the opening is tried again then.
    accountMetrics.registerIn(parts.metrics.registry);
    observeStreams(parts.metrics.registry, () => streams.count);
    void resumeErasures(tools);
    void requestWarming(tools);
    return new TaskService({ ...tools, jobs });
  }

  /** The server stops: live streams end, and no more are opened. */
  endStreams(): void {
    this.services.streams.close();
  }

  /** Claims no more jobs; those that run have `timeoutMs` to end. Enqueueing goes on. */
  stopJobs(timeoutMs: number): Promise<void> {
    return this.services.jobs.stop(timeoutMs);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stopJobs(0);
    await this.services.outbound[Symbol.asyncDispose]();
  }
}

function openJobs({ settings, store, metrics, clock, log }: TaskParts, tools: HandlerTools): Promise<JobService> {
  const { writer } = tools;
  const opening = JobService.open({
    settings,
    store,
    metrics,
    clock,
    log,
    kinds: Object.values(TASK_JOBS),
    schedules: TASK_SCHEDULES,
    handlers: createTaskHandlers(tools),
    // What the settlements of this service return: see TASK_SETTLEMENTS.
    onSettled: (results) => writer.tell(together(...(results as readonly Effects[]))),
  });
  return opening.then((jobs) => {
    writer.onEffects(({ hasJobs }) => hasJobs && jobs.pool.wake());
    return jobs;
  });
}

function ratesOf(settings: Settings) {
  const usual = perMinute(settings.taskRatePerMinute);
  return {
    ip: settings.taskRateIp ?? usual,
    user: settings.taskRateUser ?? usual,
    login: settings.taskRateLogin,
    register: settings.taskRateRegister,
  };
}
