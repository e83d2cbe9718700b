// The whole server on one screen: which services answer, what surrounds every request, and how it all ends.

import { Hono } from "hono";
import { MountRouter } from "../http/mount-router.ts";
import { logRequest } from "../http/request-log.ts";
import { createHostCheck, requestPath } from "../http/request-path.ts";
import { type HttpServer, RequestScope, UNMATCHED_ROUTE } from "../http/request-scope.ts";
import { respondError } from "../http/respond.ts";
import type { AppEnv } from "../http/surface.ts";
import { RelayError } from "../relay/relay-errors.ts";
import { AppError, internalError, messageOf } from "../shared/errors.ts";
import type { Eventually } from "../shared/eventual.ts";
import { type AppParts, createSharedParts } from "./app-parts.ts";
import {
  kvMounts,
  type Mounts,
  operationMounts,
  rekeyMounts,
  relayMounts,
  relayOpening,
  taskMounts,
  taskOpening,
  tokenMounts,
} from "./mounts.ts";
import { openUnasked } from "./opening.ts";

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
  interruptCalls(): void;
}

export function createApp(parts: AppParts): App {
  const { settings, log, metrics, store, state } = parts;
  const { services } = settings;
  const shared = createSharedParts(parts);
  const relay = services.has("relay") ? relayOpening(parts, shared) : null;
  const tasks = services.has("task") ? taskOpening(parts, shared) : null;
  const app = appOf({
    ...operationMounts(parts, shared),
    ...(services.has("token") ? tokenMounts(parts, shared) : {}),
    ...(relay === null ? {} : relayMounts(relay)),
    ...(tasks === null ? {} : taskMounts(tasks, shared)),
    ...(relay === null && tasks === null ? {} : rekeyMounts(parts, shared, relay)),
    ...(services.has("kv") ? kvMounts(parts, shared) : {}),
  });
  metrics.observe(
    () => store.figures,
    () => shared.budget.usedBytes + shared.strangers.usedBytes,
  );

  function finish(scope: RequestScope, response: Response): Response {
    shared.admission.leave(scope);
    const status = statusOf(scope, response);
    const { failure } = scope;
    const hasFailed = failure instanceof AppError || failure instanceof RelayError;
    // A method that a route does not take is no route of its own: it would be a series for each of them.
    const route = hasFailed && failure.code === "method_not_allowed" ? UNMATCHED_ROUTE : scope.route;
    metrics.countRequest(route, scope.request.method, status, (performance.now() - scope.startedMs) / 1000);
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
    interruptCalls: () => relay?.opened?.interruptCalls(),
    async [Symbol.asyncDispose]() {
      stopping.abort();
      await (await relay?.settled())?.[Symbol.asyncDispose]();
      await (await tasks?.settled())?.[Symbol.asyncDispose]();
    },
  };
}

function appOf(mounts: Mounts): Hono<AppEnv> {
  const app = new Hono<AppEnv>({ router: new MountRouter(), getPath: (request) => requestPath(request.url) });
  for (const [path, handler] of Object.entries(mounts)) app.all(path, handler);
  app.notFound(() => {
    throw new AppError("route_not_found", "There is nothing at this path.");
  });
  app.onError((error, context) => respondError(context.env.scope, asAppError(error)));
  return app;
}

/** What could not be done because nobody waited for it any more is no failure of the server. */
function statusOf({ request }: RequestScope, { status }: Response): number {
  return status === 503 && request.signal.aborted ? CLIENT_GONE : status;
}

/** Whatever is no AppError is a defect: the client is told nothing, the log everything. */
function asAppError(error: Error): AppError {
  return error instanceof AppError ? error : internalError(error);
}
