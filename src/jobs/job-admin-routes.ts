// Administration of the job queue, for operators: jobs, queues, schedules.

import { requireRight } from "../auth/principal.ts";
import { below, createOperatorHandler, type OperatorRequest, type OperatorRoutes } from "../http/operator-routes.ts";
import { nextPageHeaders, pageLimit } from "../http/pagination.ts";
import { parseQuery } from "../http/query-parameters.ts";
import { respondJson } from "../http/respond.ts";
import type { Handler, OperatorSurface } from "../http/surface.ts";
import { AppError } from "../shared/errors.ts";
import { formatTimeOrNull } from "../shared/iso-time.ts";
import type { QueueName } from "../shared/setting-parsers.ts";
import { isUuidV7 } from "../shared/uuids.ts";
import { operatorJobBody } from "./job-body.ts";
import type { JobService } from "./job-service.ts";
import { JOB_STATES, type JobState } from "./job-tables.ts";

interface JobAdminServices extends OperatorSurface {
  readonly jobs: JobService;
}

type AdminRequest = OperatorRequest<JobAdminServices>;

const ROUTES: OperatorRoutes<JobAdminServices> = below("/_admin", {
  "/jobs": { GET: listJobs },
  "/jobs/retry": { POST: retryDead },
  "/jobs/:id": { GET: showJob },
  "/jobs/:id/retry": { POST: retryJob },
  "/jobs/:id/cancel": { POST: cancelJob },
  "/queues": { GET: listQueues },
  "/queues/:name/pause": { POST: (request: AdminRequest) => setPaused(request, true) },
  "/queues/:name/resume": { POST: (request: AdminRequest) => setPaused(request, false) },
  "/schedules": { GET: listSchedules },
  "/schedules/:name/run": { POST: runSchedule },
});

export function createJobAdminHandler(services: JobAdminServices): Handler {
  return createOperatorHandler(services, ROUTES, (principal) => requireRight(principal, "admin"));
}

async function listJobs({ services, scope }: AdminRequest): Promise<Response> {
  const { url } = scope.request;
  const query = parseQuery(url, ["state", "kind", "queue", "limit", "cursor"]);
  const filter = {
    ownerId: null,
    state: stateOf(query.state),
    kind: query.kind ? await kindOf(services.jobs, scope, query.kind) : null,
    queue: query.queue ? queueOf(services.jobs, query.queue, "invalid_parameter") : null,
  };
  const page = { limit: pageLimit(query.limit || undefined), before: cursorOf(query.cursor) };
  const { rows, next } = await scope.whileReading((signal) => services.jobs.rows.list(filter, page, signal));
  return respondJson(scope, 200, rows.map(operatorJobBody), nextPageHeaders(url, query, next));
}

async function showJob({ services, scope, params }: AdminRequest): Promise<Response> {
  parseQuery(scope.request.url, []);
  const row = await services.jobs.rows.find(idOf(params));
  if (row === null) throw new AppError("not_found", "job not found");
  return respondJson(scope, 200, operatorJobBody(row));
}

async function retryJob({ services, scope, params }: AdminRequest): Promise<Response> {
  parseQuery(scope.request.url, []);
  return respondJson(scope, 200, operatorJobBody(await services.jobs.retry(idOf(params), null)));
}

async function cancelJob({ services, scope, params }: AdminRequest): Promise<Response> {
  parseQuery(scope.request.url, []);
  return respondJson(scope, 200, operatorJobBody(await services.jobs.cancel(idOf(params), null)));
}

async function retryDead({ services, scope }: AdminRequest): Promise<Response> {
  const { kind } = parseQuery(scope.request.url, ["kind"]);
  if (!kind) throw new AppError("invalid_parameter", "kind is missing.");
  const known = await kindOf(services.jobs, scope, kind);
  // Done to its end, also when its client leaves.
  const retried = await scope.whileSilent(() => services.jobs.retryDead(known));
  return respondJson(scope, 200, { retried });
}

async function listQueues({ services, scope }: AdminRequest): Promise<Response> {
  parseQuery(scope.request.url, []);
  const figures = await scope.whileReading((signal) => services.jobs.figures(signal));
  const bodies = [...figures].map(([name, { depth, oldestMs, running, isPaused }]) => ({
    name,
    depth,
    oldest: formatTimeOrNull(oldestMs),
    running,
    paused: isPaused,
  }));
  return respondJson(scope, 200, bodies);
}

async function setPaused({ services, scope, params }: AdminRequest, paused: boolean): Promise<Response> {
  parseQuery(scope.request.url, []);
  const name = queueOf(services.jobs, params.name!, "not_found");
  await services.jobs.pauseQueue(name, paused);
  return respondJson(scope, 200, { name, paused });
}

async function listSchedules({ services, scope }: AdminRequest): Promise<Response> {
  parseQuery(scope.request.url, []);
  const schedules = await services.jobs.scheduler.list();
  const bodies = schedules.map(({ name, expression, lastFireMs, nextFireMs }) => ({
    name,
    expression,
    last_fire: formatTimeOrNull(lastFireMs),
    next_fire: formatTimeOrNull(nextFireMs),
  }));
  return respondJson(scope, 200, bodies);
}

async function runSchedule({ services, scope, params }: AdminRequest): Promise<Response> {
  parseQuery(scope.request.url, []);
  return respondJson(scope, 202, { job_id: await services.jobs.scheduler.fireNow(params.name!) });
}

/** @throws AppError not_found: nothing else can be there */
function idOf({ id }: AdminRequest["params"]): string {
  if (id !== undefined && isUuidV7(id)) return id;
  throw new AppError("not_found", "job not found");
}

function cursorOf(text: string | undefined): string | null {
  if (text === undefined || text === "") return null;
  if (isUuidV7(text)) return text;
  throw new AppError("cursor_invalid", "cursor is what a page gave as X-Next-Cursor.");
}

function stateOf(text: string | undefined): JobState | null {
  if (text === undefined || text === "") return null;
  const state = JOB_STATES.find((one) => one === text);
  if (state === undefined) throw new AppError("invalid_parameter", `state is one of ${JOB_STATES.join(", ")}.`);
  return state;
}

/** One that there is, or that another version of the server has left jobs of. @throws AppError invalid_parameter */
async function kindOf(jobs: JobService, scope: AdminRequest["scope"], text: string): Promise<string> {
  if (jobs.kinds.includes(text)) return text;
  const any = { ownerId: null, state: null, kind: text, queue: null };
  const { rows } = await scope.whileReading((signal) => jobs.rows.list(any, { limit: 1, before: null }, signal));
  if (rows.length > 0) return text;
  throw new AppError("invalid_parameter", `kind is one of ${jobs.kinds.join(", ")}.`);
}

function queueOf(jobs: JobService, text: string, code: "not_found" | "invalid_parameter"): QueueName {
  const name = jobs.queues.find((queue) => queue === text);
  if (name === undefined) throw new AppError(code, `there is no queue of this name but ${jobs.queues.join(", ")}`);
  return name;
}
