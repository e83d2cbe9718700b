// Routes of the task service that lead to jobs: users see their own.

import { nextPageHeaders, pageLimit } from "../http/pagination.ts";
import { parseQuery } from "../http/query-parameters.ts";
import { respondJson } from "../http/respond.ts";
import { jobBody } from "../jobs/job-body.ts";
import { JOB_STATES } from "../jobs/job-tables.ts";
import { AppError } from "../shared/errors.ts";
import { isUuidV7 } from "../shared/uuids.ts";
import { PAGE_DEFAULT } from "./page-sizes.ts";
import { TASK_JOBS } from "./task-jobs.ts";
import { requireOneOf } from "./task-query.ts";
import { forUsers, requireUuid, type TaskRoutes, type UserRequest } from "./task-request.ts";

const KINDS = Object.values(TASK_JOBS).map(({ kind }) => kind);

export const JOB_ROUTES: TaskRoutes = {
  "/jobs": { GET: forUsers(listJobs) },
  "/jobs/:id": { GET: forUsers(showJob) },
  "/jobs/:id/retry": { POST: forUsers(retryJob) },
  "/jobs/:id/cancel": { POST: forUsers(cancelJob) },
};

/** Newest first. */
async function listJobs({ services, scope, who }: UserRequest): Promise<Response> {
  const { url } = scope.request;
  const query = parseQuery(url, ["state", "kind", "limit", "cursor"]);
  const [state, kind] = [oneOf("state", query.state, JOB_STATES), oneOf("kind", query.kind, KINDS)];
  const before = query.cursor ?? null;
  if (before !== null && !isUuidV7(before))
    throw new AppError("invalid_cursor", "The cursor does not belong to this list.");
  const filter = { ownerId: who.userId, queue: null, state, kind };
  const page = { limit: pageLimit(query.limit, { fallback: PAGE_DEFAULT }), before };
  const { rows, next } = await scope.whileReading((signal) => services.jobs.rows.list(filter, page, signal));
  return respondJson(scope, 200, rows.map(jobBody), nextPageHeaders(url, query, next));
}

async function showJob(request: UserRequest): Promise<Response> {
  const { services, scope, who } = request;
  const job = await services.jobs.rows.find(jobId(request), who.userId);
  if (job === null) throw new AppError("not_found", "job not found");
  return respondJson(scope, 200, jobBody(job));
}

async function retryJob(request: UserRequest): Promise<Response> {
  const { services, scope, who } = request;
  return respondJson(scope, 200, jobBody(await services.jobs.retry(jobId(request), who.userId)));
}

async function cancelJob(request: UserRequest): Promise<Response> {
  const { services, scope, who } = request;
  return respondJson(scope, 200, jobBody(await services.jobs.cancel(jobId(request), who.userId)));
}

function jobId({ scope, params }: UserRequest): string {
  parseQuery(scope.request.url, []);
  return requireUuid(params.id, "job");
}

/** Empty = no filter. @throws AppError invalid_request */
function oneOf<Value extends string>(name: string, text: string | undefined, values: readonly Value[]): Value | null {
  return text === undefined || text === "" ? null : requireOneOf(name, text, values);
}
