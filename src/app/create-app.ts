// The whole server on one screen: which path leads where, what surrounds every request.

import { Hono } from "hono";
import { JwtGate } from "../auth/jwt-gate.ts";
import { ByteBudget } from "../http/byte-budget.ts";
import type { Metrics } from "../http/metrics.ts";
import { MountRouter } from "../http/mount-router.ts";
import {
  createBackupRoute,
  createDocumentRoute,
  createMetricsRoute,
  getRoute,
  showLiveness,
  showName,
  showReadiness,
} from "../http/ops-routes.ts";
import { logRequest } from "../http/request-log.ts";
import { createHostCheck, requestPath } from "../http/request-path.ts";
import { type HttpServer, RequestScope, type ServerState } from "../http/request-scope.ts";
import { respondError } from "../http/respond.ts";
import { Admission, type AppContext, type AppEnv } from "../http/surface.ts";
import { CachedKvEngine } from "../kv/cached-kv-engine.ts";
import { createKvHandler, createMetaHandler } from "../kv/kv-routes.ts";
import { createListHandler } from "../kv/list-routes.ts";
import { GcraLimiter } from "../limits/gcra-limiter.ts";
import { RelayError } from "../relay/relay-errors.ts";
import type { Relay } from "../relay/relay-service.ts";
import { MiB } from "../shared/bounds.ts";
import type { Clock } from "../shared/clock.ts";
import { AppError, internalError, messageOf } from "../shared/errors.ts";
import type { Eventually } from "../shared/eventual.ts";
import type { Log } from "../shared/log.ts";
import type { Settings } from "../shared/settings.ts";
import type { BackupClient } from "../storage/backup-client.ts";
import type { KvEntry } from "../storage/kv-engine.ts";
import type { SqliteStore } from "../storage/sqlite-store.ts";
import type { TaskService } from "../task/task-service.ts";
import { AppGate } from "../token/app-gate.ts";
import { LoopTurns } from "../token/loop-turns.ts";
import { createTokenHandler } from "../token/token-routes.ts";
import { TokenStore } from "../token/token-store.ts";
import { lazily, Opening, openUnasked } from "./opening.ts";
import { reservedBuckets } from "./reserved-buckets.ts";

/** Some fifty thousand clients at once; those seen least recently are forgiven. */
const LIMITER_BYTES = 16 * MiB;

/** Of the memory for bodies, on top of it. */
const STRANGERS_SHARE = 0.25;

/** How long after the start services are opened that nobody has asked for yet. */
const OPENING_DELAY_MS = 250;

/** In the log and the figures alone, as proxies write it: its client left before the answer. */
const CLIENT_GONE = 499;

export interface App extends AsyncDisposable {
  fetch(request: Request, server: HttpServer | null): Eventually<Response>;
  /** Opens what a service needs before its first request; to be called when requests are taken. */
  start(): void;
  /** Begins no more work of its own; what runs has `timeoutMs` to end. Requests are answered as ever. */
  stopJobs(timeoutMs: number): Promise<void>;
  /** Ends answers that would go on for ever; their clients come back to another server, and miss nothing. */
  endStreams(): void;
  /** Cuts off the answers that have not come to their end in time, and says so to their clients. */
  interruptStreams(): void;
}

export interface AppParts {
  readonly settings: Settings;
  readonly log: Log;
  /** Of gates, limits and backups. The storage thread dates writes by its own. */
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly store: SqliteStore;
  readonly backups: BackupClient;
  readonly state: ServerState;
}

export function createApp(parts: AppParts): App {
  const { settings, log, metrics, store, state } = parts;
  const tools = createTools(parts);
  metrics.observe(
    () => store.figures,
    () => tools.budget.usedBytes + tools.strangers.usedBytes,
  );
  const app = new Hono<AppEnv>({ router: new MountRouter(), getPath: (request) => requestPath(request.url) });
  mountOperations(app, parts, tools);
  if (settings.services.has("token")) mountToken(app, parts, tools);
  const relay = settings.services.has("relay") ? mountRelay(app, parts, tools) : null;
  const tasks = settings.services.has("task") ? mountTasks(app, parts, tools) : null;
  if (relay !== null || tasks !== null) mountRekey(app, parts, tools, relay);
  if (settings.services.has("kv")) mountKv(app, parts, tools);
  app.notFound(() => {
    throw new AppError("route_not_found", "There is nothing at this path.");
  });
  app.onError((error, context) => respondError(context.env.scope, asAppError(error)));

  function finish(scope: RequestScope, response: Response): Response {
    tools.admission.leave(scope);
    const status = statusOf(scope, response);
    metrics.countRequest(scope.route, scope.request.method, status, (performance.now() - scope.startedMs) / 1000);
    const { failure } = scope;
    const hasFailed = failure instanceof AppError || failure instanceof RelayError;
    if (hasFailed && status !== CLIENT_GONE) metrics.countFailure(failure);
    logRequest(log, settings.accessLog, scope, status);
    return response;
  }

  const hasHost = createHostCheck();
  const stopping = new AbortController();
  return {
    fetch(request, server) {
      const scope = new RequestScope(request, server, state);
      const answer = hasHost(request.url)
        ? app.fetch(request, { scope })
        : respondError(scope, new AppError("host_invalid", "The request needs a Host header that a URL can hold."));
      return answer instanceof Promise ? answer.then((response) => finish(scope, response)) : finish(scope, answer);
    },
    start() {
      // The first requests are not to wait for it, unless it is what they want.
      for (const [name, service] of Object.entries({ relay, "task service": tasks })) {
        if (service === null) continue;
        void openUnasked(service, {
          delayMs: OPENING_DELAY_MS,
          signal: stopping.signal,
          onFailure: (error) =>
            log.error(`the ${name} could not start; it is tried again`, { cause: messageOf(error) }),
        });
      }
    },
    async stopJobs(timeoutMs) {
      // Nothing is opened for its own sake any more.
      stopping.abort();
      await (await tasks?.settled())?.stopJobs(timeoutMs);
    },
    endStreams: () => tasks?.opened?.endStreams(),
    interruptStreams: () => relay?.opened?.interruptStreams(),
    async [Symbol.asyncDispose]() {
      stopping.abort();
      await (await relay?.settled())?.[Symbol.asyncDispose]();
      await (await tasks?.settled())?.[Symbol.asyncDispose]();
    },
  };
}

/** What the services share: one engine, one gate, one budget, one limiter of those that have none of their own. */
function createTools({ settings, clock, metrics, store }: AppParts) {
  const gate = new JwtGate({
    secrets: settings.secrets,
    clock,
    onFailure: (reason) => metrics.countAuthFailure(reason),
  });
  const admission = new Admission(settings.maxInflight);
  return {
    gate,
    admission,
    surface: { gate, admission },
    engine: CachedKvEngine.over(store, settings.readCacheBytes),
    budget: new ByteBudget(settings.bodyBudgetBytes),
    strangers: new ByteBudget(strangersBytes(settings)),
    limiter: new GcraLimiter(clock, LIMITER_BYTES),
    templates: new WeakMap<KvEntry, Headers>(),
    reservedBuckets: reservedBuckets(settings.services),
  };
}

/** At least what one of them may send. */
function strangersBytes({ bodyBudgetBytes, tokenBodyAuthBytes }: Settings): number {
  return Math.max(Math.floor(bodyBudgetBytes * STRANGERS_SHARE), tokenBodyAuthBytes);
}

type Tools = ReturnType<typeof createTools>;

function mountOperations(app: Hono<AppEnv>, parts: AppParts, { surface }: Tools): void {
  const { settings, clock, metrics, backups } = parts;
  app.all("/", getRoute("/", showName));
  app.all("/livez", getRoute("/livez", showLiveness));
  app.all("/readyz", getRoute("/readyz", showReadiness));
  app.all("/metrics", getRoute("/metrics", createMetricsRoute(surface, metrics, settings.metrics)));
  app.all(
    "/openapi.json",
    lazily(async () => {
      const { apiDocument } = await import("./api-document.ts");
      return getRoute("/openapi.json", createDocumentRoute(apiDocument(settings.services)));
    }),
  );
  app.all(
    "/_admin/backup",
    createBackupRoute(surface, async () => {
      const report = await backups.run(clock());
      metrics.noteBackup(clock());
      return report;
    }),
  );
}

function mountToken(app: Hono<AppEnv>, { settings, clock, metrics, store }: AppParts, tools: Tools): void {
  const { surface, engine, budget, templates, admission, limiter } = tools;
  const tokens = new TokenStore(store);
  const onFailure = (reason: string) => metrics.countAuthFailure(reason);
  const appGate = new AppGate({ tokens, limiter, clock, settings, onFailure });
  const services = {
    engine,
    budget,
    strangers: tools.strangers,
    templates,
    admission,
    settings,
    tokens,
    appGate,
    searchTurns: new LoopTurns(),
  };
  app.all("/kv/token/*", createTokenHandler(services, "/kv/token"));
  if (settings.tokenKvAlias) app.all("/kv/*", createTokenHandler(services, "/kv"));
  app.all(
    "/api/kv/*",
    lazily(async () => {
      const { createTokenAdminHandler } = await import("../token/token-admin-routes.ts");
      return createTokenAdminHandler({ ...surface, tokens, budget, reservedBuckets: tools.reservedBuckets });
    }),
  );
}

function mountRelay(
  app: Hono<AppEnv>,
  { settings, clock, metrics, store, log }: AppParts,
  tools: Tools,
): Opening<Relay> {
  const { surface, budget, limiter } = tools;
  const relay = new Opening(async () => {
    const { Relay } = await import("../relay/relay-service.ts");
    const units = store;
    return Relay.open({ settings, store: units, surface, budget, limiter, metrics, clock, log });
  });
  const admin = lazily(async () => {
    const [{ createRelayAdminHandler }, { adminServices }] = await Promise.all([
      import("../relay/relay-admin-routes.ts"),
      relay.open(),
    ]);
    return createRelayAdminHandler(adminServices);
  });
  const whenOpen = (context: AppContext) =>
    relay.open().then(
      (opened) => opened.handle(context),
      async (error: unknown) => {
        const { respondUnopened } = await import("../relay/relay-routes.ts");
        return respondUnopened(context.env.scope, error);
      },
    );
  app.all("/v1/*", (context) => (relay.opened === null ? whenOpen(context) : relay.opened.handle(context)));
  for (const path of ["/api/channel", "/api/token", "/api/log"]) app.all(`${path}/*`, admin);
  return relay;
}

function mountTasks(
  app: Hono<AppEnv>,
  { settings, clock, metrics, store, log }: AppParts,
  tools: Tools,
): Opening<TaskService> {
  const { admission, budget, surface } = tools;
  const tasks = new Opening(async () => {
    const { TaskService } = await import("../task/task-service.ts");
    return TaskService.open({ settings, store, admission, budget, metrics, clock, log });
  });
  const whenOpen = (context: AppContext) =>
    tasks.open().then(
      (opened) => opened.handle(context),
      (error: unknown) => respondUnopened(context.env.scope, error),
    );
  // Without a promise once it is open: a read of a task is answered at once.
  app.all("/api/v1/*", (context) => (tasks.opened === null ? whenOpen(context) : tasks.opened.handle(context)));
  const jobAdmin = lazily(async () => {
    const [{ createJobAdminHandler }, { services }] = await Promise.all([
      import("../jobs/job-admin-routes.ts"),
      tasks.open(),
    ]);
    return createJobAdminHandler({ ...surface, jobs: services.jobs });
  });
  for (const name of ["jobs", "queues", "schedules"]) app.all(`/_admin/${name}/*`, jobAdmin);
  app.all(
    "/_admin/task/*",
    lazily(async () => {
      const [{ createTaskAdminHandler }, { services }] = await Promise.all([
        import("../task/task-admin-routes.ts"),
        tasks.open(),
      ]);
      return createTaskAdminHandler({ ...surface, tasks: services });
    }),
  );
  return tasks;
}

/** In the shape that clients of the task API know. */
async function respondUnopened(scope: RequestScope, error: unknown): Promise<Response> {
  const { respondTaskError } = await import("../task/task-errors.ts");
  scope.route = "/api/v1/*";
  return respondTaskError(scope, error);
}

/** The secret behind the seals is one for all services that seal. */
function mountRekey(
  app: Hono<AppEnv>,
  { settings, store }: AppParts,
  { surface }: Tools,
  relay: Opening<Relay> | null,
): void {
  const handler = lazily(async () => {
    const { createRekeyHandler } = await import("./rekey-routes.ts");
    const onResealed = async () => (await relay?.open())?.adminServices.monitor.changed();
    return createRekeyHandler({ ...surface, store, secrets: settings.sealingSecrets, onResealed });
  });
  app.all("/_admin/rekey", handler);
}

/** Comes last: whatever no other mount took is a bucket and a key. */
function mountKv(app: Hono<AppEnv>, { settings }: AppParts, tools: Tools): void {
  const { surface, engine, budget, templates } = tools;
  const { maxValueBytes } = settings;
  const services = { ...surface, engine, budget, templates, maxValueBytes, reservedBuckets: tools.reservedBuckets };
  app.all("/_list", createListHandler(services));
  app.all("/_meta/*", createMetaHandler(services));
  app.all("*", createKvHandler(services));
}

/** What could not be done because nobody waited for it any more is no failure of the server. */
function statusOf({ request }: RequestScope, { status }: Response): number {
  return status === 503 && request.signal.aborted ? CLIENT_GONE : status;
}

/** Whatever is no AppError is a defect: the client is told nothing, the log everything. */
function asAppError(error: Error): AppError {
  return error instanceof AppError ? error : internalError(error);
}
