// What the routes of the task service work with; put together in task-service.ts.

import type { ByteBudget } from "../http/byte-budget.ts";
import type { OutboundTransport } from "../http/outbound-transport.ts";
import type { Admission } from "../http/surface.ts";
import type { JobService } from "../jobs/job-service.ts";
import type { Clock } from "../shared/clock.ts";
import type { Log } from "../shared/log.ts";
import type { Settings } from "../shared/settings.ts";
import type { TableStore } from "../storage/unit-of-work.ts";
import type { Accounts } from "./accounts.ts";
import type { EventStreams } from "./event-streams.ts";
import type { StatsCache } from "./stats-cache.ts";
import type { TaskCache } from "./task-cache.ts";
import type { TaskListStore } from "./task-list-store.ts";
import type { TaskRates } from "./task-rates.ts";
import type { TaskStatsStore } from "./task-stats-store.ts";
import type { TaskUnits } from "./task-units.ts";
import type { TaskWriter } from "./task-writer.ts";
import type { UserGate } from "./user-gate.ts";
import type { WebhookStore } from "./webhook-store.ts";

export interface TaskServices {
  readonly settings: Settings;
  readonly clock: Clock;
  readonly log: Log;
  readonly admission: Admission;
  readonly budget: ByteBudget;
  /** Of bodies of those who are not signed in. */
  readonly strangers: ByteBudget;
  /** A part of it, for what is sent while it is made: long events and files that wait for their clients. */
  readonly unread: ByteBudget;
  readonly store: TableStore<TaskUnits>;
  readonly writer: TaskWriter;
  readonly cache: TaskCache;
  readonly lists: TaskListStore;
  readonly stats: TaskStatsStore;
  readonly statsCache: StatsCache;
  readonly rates: TaskRates;
  readonly gate: UserGate;
  readonly accounts: Accounts;
  readonly streams: EventStreams;
  readonly webhooks: WebhookStore;
  /** The way to the receivers of webhooks. */
  readonly outbound: OutboundTransport;
  readonly jobs: JobService;
}
