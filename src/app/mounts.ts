// Which path leads where: the mounts of every service, and how each is opened.

import { getRoute } from "../http/methods.ts";
import {
  createBackupRoute,
  createDocumentRoute,
  createMetricsRoute,
  showLiveness,
  showName,
  showReadiness,
} from "../http/ops-routes.ts";
import type { Handler } from "../http/surface.ts";
import { createKvHandler, createMetaHandler } from "../kv/kv-routes.ts";
import { createListHandler } from "../kv/list-routes.ts";
import type { Relay } from "../relay/relay-service.ts";
import { LoopTurns } from "../shared/loop-turns.ts";
import type { TaskService } from "../task/task-service.ts";
import { AppGate } from "../token/app-gate.ts";
import { createTokenHandler } from "../token/token-routes.ts";
import { TokenStore } from "../token/token-store.ts";
import type { AppParts, SharedParts } from "./app-parts.ts";
import { lazily, Opening, whenOpen } from "./opening.ts";

/** Paths, each alone or with all below it, and what answers there; the first that matches does. */
export type Mounts = Readonly<Record<string, Handler>>;

export function operationMounts({ settings, clock, metrics, backups }: AppParts, { surface }: SharedParts): Mounts {
  return {
    "/": getRoute("/", showName),
    "/livez": getRoute("/livez", showLiveness),
    "/readyz": getRoute("/readyz", showReadiness),
    "/metrics": getRoute("/metrics", createMetricsRoute(surface, metrics, settings.metrics)),
    "/openapi.json": lazily(async () => {
      const { apiDocument } = await import("./api-document.ts");
      return getRoute("/openapi.json", createDocumentRoute(apiDocument(settings.services)));
    }),
    "/_admin/backup": createBackupRoute(surface, async () => {
      const report = await backups.run(clock());
      metrics.noteBackup(clock());
      return report;
    }),
  };
}

export function tokenMounts({ settings, clock, metrics, store }: AppParts, shared: SharedParts): Mounts {
  const { surface, limiter, budget } = shared;
  const tokens = new TokenStore(store);
  const onFailure = (reason: string) => metrics.countAuthFailure(reason);
  const appGate = new AppGate({ tokens, limiter, clock, settings, onFailure });
  const services = { ...shared, budget: shared.usersBudget, settings, tokens, appGate, searchTurns: new LoopTurns() };
  return {
    "/kv/token/*": createTokenHandler(services, "/kv/token"),
    ...(settings.tokenKvAlias ? { "/kv/*": createTokenHandler(services, "/kv") } : {}),
    "/api/kv/*": lazily(async () => {
      const { createTokenAdminHandler } = await import("../token/token-admin-routes.ts");
      return createTokenAdminHandler({ ...surface, tokens, budget, reservedBuckets: shared.reservedBuckets });
    }),
  };
}

export function relayOpening({ settings, clock, metrics, store, log }: AppParts, shared: SharedParts): Opening<Relay> {
  const { surface, budget, relayBudget, relayBodyBudget, limiter } = shared;
  return new Opening(async () => {
    const { Relay } = await import("../relay/relay-service.ts");
    const budgets = { budget, relayBudget, relayBodyBudget };
    return Relay.open({ settings, store, surface, ...budgets, limiter, metrics, clock, log });
  });
}

export function relayMounts(relay: Opening<Relay>): Mounts {
  const admin = lazily(async () => {
    const { adminServices } = await relay.open();
    const { createRelayAdminHandler } = await import("../relay/relay-admin-routes.ts");
    return createRelayAdminHandler(adminServices);
  });
  return {
    "/v1/*": whenOpen(relay, async (scope, error) => {
      const { respondUnopened } = await import("../relay/relay-routes.ts");
      return respondUnopened(scope, error);
    }),
    "/api/channel/*": admin,
    "/api/token/*": admin,
    "/api/log/*": admin,
  };
}

export function taskOpening(
  { settings, clock, metrics, store, log }: AppParts,
  { admission, usersBudget: budget, strangers }: SharedParts,
): Opening<TaskService> {
  return new Opening(async () => {
    const { TaskService } = await import("../task/task-service.ts");
    return TaskService.open({ settings, store, admission, budget, strangers, metrics, clock, log });
  });
}

export function taskMounts(tasks: Opening<TaskService>, { surface, budget }: SharedParts): Mounts {
  const jobAdmin = lazily(async () => {
    const { services } = await tasks.open();
    const { createJobAdminHandler } = await import("../jobs/job-admin-routes.ts");
    return createJobAdminHandler({ ...surface, jobs: services.jobs });
  });
  return {
    "/api/v1/*": whenOpen(tasks, async (scope, error) => {
      const { respondUnopened } = await import("../task/task-routes.ts");
      return respondUnopened(scope, error);
    }),
    "/_admin/jobs/*": jobAdmin,
    "/_admin/queues/*": jobAdmin,
    "/_admin/schedules/*": jobAdmin,
    "/_admin/task/*": lazily(async () => {
      const { services } = await tasks.open();
      const { createTaskAdminHandler } = await import("../task/task-admin-routes.ts");
      return createTaskAdminHandler({ ...surface, tasks: services, budget });
    }),
  };
}

/** The secret behind the seals is one for all services that seal. */
export function rekeyMounts(
  { settings, store }: AppParts,
  { surface }: SharedParts,
  relay: Opening<Relay> | null,
): Mounts {
  return {
    "/_admin/rekey": lazily(async () => {
      const { createRekeyHandler } = await import("./rekey-routes.ts");
      const onResealed = async () => (await relay?.open())?.adminServices.monitor.changed();
      return createRekeyHandler({ ...surface, store, secrets: settings.sealingSecrets, onResealed });
    }),
  };
}

/** Whatever no other mount takes is a bucket and a key. */
export function kvMounts({ settings: { maxValueBytes } }: AppParts, shared: SharedParts): Mounts {
  const { surface, engine, budget, templates } = shared;
  const services = { ...surface, engine, budget, templates, maxValueBytes, reservedBuckets: shared.reservedBuckets };
  return {
    "/_list": createListHandler({ ...services, listTurns: new LoopTurns() }),
    "/_meta/*": createMetaHandler(services),
    "*": createKvHandler(services),
  };
}
