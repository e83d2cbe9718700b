// Routes of the task service that lead to webhooks: their owner's, nobody else's.

import { parseQuery } from "../http/query-parameters.ts";
import { requestPath } from "../http/request-path.ts";
import { respondJson } from "../http/respond.ts";
import { ACCOUNT_BODY_BYTES_MAX } from "../shared/bounds.ts";
import { given } from "../shared/given.ts";
import { formatTime } from "../shared/iso-time.ts";
import { fieldsError, parseFields } from "./request-bodies.ts";
import { forUsers, readJsonBody, requireUuid, type TaskRoutes, type UserRequest } from "./task-request.ts";
import type { TaskServices } from "./task-services.ts";
import { NewWebhookBody, WebhookChangesBody } from "./webhook-bodies.ts";
import { respondDeliveries } from "./webhook-log.ts";
import { createWebhookSecret } from "./webhook-signature.ts";
import type { WebhookRow } from "./webhook-store.ts";

/** How long a secret goes on signing beside the one that has replaced it. */
const ROTATION_MS = 86_400_000;

export const WEBHOOK_ROUTES: TaskRoutes = {
  "/webhooks": { GET: forUsers(listWebhooks), POST: forUsers(createWebhook) },
  "/webhooks/:id": { GET: forUsers(showWebhook), PATCH: forUsers(changeWebhook), DELETE: forUsers(deleteWebhook) },
  "/webhooks/:id/ping": { POST: forUsers(ping) },
  "/webhooks/:id/rotate-secret": { POST: forUsers(rotateSecret) },
  "/webhooks/:id/deliveries": { GET: forUsers(listDeliveries) },
  "/webhooks/:id/deliveries/:did/redeliver": { POST: forUsers(redeliver) },
};

async function listWebhooks({ services, scope, who }: UserRequest): Promise<Response> {
  parseQuery(scope.request.url, []);
  return respondJson(scope, 200, (await services.webhooks.list(who.userId)).map(webhookView));
}

async function createWebhook(request: UserRequest): Promise<Response> {
  const { services, scope, who } = request;
  parseQuery(scope.request.url, []);
  const body = await readJsonBody(request, ACCOUNT_BODY_BYTES_MAX, (bytes) => parseFields(bytes, NewWebhookBody));
  // Who may have no more hooks has no names looked up either.
  await services.webhooks.requireRoom(who.userId);
  await requireAllowed(services, body.url);
  const [id, secret] = [Bun.randomUUIDv7(), createWebhookSecret()];
  const row = await services.writer.run("task.createWebhook", {
    id,
    userId: who.userId,
    url: body.url,
    events: body.events,
    secret: services.webhooks.sealSecret(secret, id),
  });
  const headers = { Location: `${requestPath(scope.request.url)}/${id}` };
  return respondJson(scope, 201, { ...webhookView(row), secret }, headers);
}

async function showWebhook(request: UserRequest): Promise<Response> {
  const { id, userId } = namedBy(request);
  return respondJson(request.scope, 200, webhookView(await request.services.webhooks.require(id, userId)));
}

async function changeWebhook(request: UserRequest): Promise<Response> {
  const { services, scope } = request;
  const named = namedBy(request);
  const { active, ...changes } = await readJsonBody(request, ACCOUNT_BODY_BYTES_MAX, (bytes) =>
    parseFields(bytes, WebhookChangesBody),
  );
  await services.webhooks.require(named.id, named.userId);
  if (changes.url !== undefined) await requireAllowed(services, changes.url);
  const change = { ...named, ...given({ ...changes, isActive: active }) };
  return respondJson(scope, 200, webhookView(await services.writer.run("task.changeWebhook", change)));
}

async function deleteWebhook(request: UserRequest): Promise<Response> {
  await request.services.writer.run("task.deleteWebhook", namedBy(request));
  return respondJson(request.scope, 200, { message: "Webhook deleted" });
}

async function ping(request: UserRequest): Promise<Response> {
  const id = await request.services.writer.run("task.pingWebhook", namedBy(request));
  return respondJson(request.scope, 202, { id });
}

/** A secret that nothing opens any more is replaced at once: it could sign nothing. */
async function rotateSecret(request: UserRequest): Promise<Response> {
  const { services, scope } = request;
  const { id, userId } = namedBy(request);
  const isOpened = services.webhooks.secretOf(await services.webhooks.require(id, userId)) !== null;
  const secret = createWebhookSecret();
  const row = await services.writer.run("task.rotateWebhookSecret", {
    id,
    userId,
    secret: services.webhooks.sealSecret(secret, id),
    previousUntilMs: isOpened ? services.clock() + ROTATION_MS : null,
    kids: services.webhooks.kids,
  });
  return respondJson(scope, 200, { ...webhookView(row), secret });
}

async function listDeliveries(request: UserRequest): Promise<Response> {
  const { services, who, params } = request;
  const { id } = await services.webhooks.require(requireUuid(params.id, "webhook"), who.userId);
  return respondDeliveries(request, id);
}

async function redeliver(request: UserRequest): Promise<Response> {
  const deliveryId = requireUuid(request.params.did, "delivery");
  await request.services.writer.run("task.redeliver", { ...namedBy(request), deliveryId });
  return respondJson(request.scope, 202, { id: deliveryId });
}

/** The hook of the path, and who asks for it; there are no parameters. @throws AppError not_found, query_invalid */
function namedBy({ scope, who, params }: UserRequest): { id: string; userId: number } {
  parseQuery(scope.request.url, []);
  return { id: requireUuid(params.id, "webhook"), userId: who.userId };
}

/** As the name resolves now; each attempt judges it again. @throws AppError invalid_request */
async function requireAllowed({ outbound }: TaskServices, url: string): Promise<void> {
  if ((await outbound.judge(url)) !== null) throw fieldsError({ url: "leads to an address that is not allowed" });
}

function webhookView(row: WebhookRow) {
  return {
    id: row.id,
    url: row.url,
    events: JSON.parse(row.events) as unknown,
    active: row.active === 1,
    disabled_reason: row.disabled_reason,
    failures: row.failures,
    pending: row.pending,
    created_at: formatTime(row.created_at_ms),
    updated_at: formatTime(row.updated_at_ms),
  };
}
