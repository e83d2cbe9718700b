// Management of channels: what is stored, how each one fares, and a try right now.

import type { z } from "zod";
import type { OperatorRoutes } from "../http/operator-routes.ts";
import { parseQuery } from "../http/query-parameters.ts";
import { respond, respondJson } from "../http/respond.ts";
import { AppError } from "../shared/errors.ts";
import {
  ChannelChangesBody,
  ChannelTestBody,
  channelChangesOf,
  channelFieldsOf,
  NewChannelBody,
  requireType,
} from "./channel-bodies.ts";
import type { ChannelHealth, TestReport } from "./channel-monitor.ts";
import type { ChannelStore } from "./channel-store.ts";
import { CHANNELS_MAX, UNREADABLE_ADVICE } from "./channel-units.ts";
import { parseBody } from "./management-bodies.ts";
import {
  idOf,
  type ManagementRequest,
  numberOf,
  pageOf,
  type RelayAdminServices,
  readBytes,
  secondsOf,
} from "./management-request.ts";
import type { Channel } from "./relay-tables.ts";

/** Paths below `/api/channel`, by method. */
export const CHANNEL_ROUTES: OperatorRoutes<RelayAdminServices> = {
  "": { GET: listChannels, POST: createChannel },
  "/:id": { GET: showChannel, PUT: updateChannel, PATCH: updateChannel, DELETE: deleteChannel },
  "/:id/test": { POST: testChannel },
  "/test/:id": { GET: testChannelByQuery },
  "/:id/enable": { POST: (request) => setStatus(request, 1) },
  "/:id/disable": { POST: (request) => setStatus(request, 0) },
  "/:id/reset": { POST: resetChannel },
  "/:id/health": { GET: showHealth },
  "/:id/models": { GET: showModels },
};

async function listChannels({ services, scope }: ManagementRequest): Promise<Response> {
  const query = parseQuery(scope.request.url, ["status", "type", "group", "model", "limit", "offset"]);
  const page = pageOf(query, { max: CHANNELS_MAX, fallback: CHANNELS_MAX });
  const status = numberOf(query.status, { name: "status", min: 0, max: 3 }, null);
  const found = await services.channels.find({
    status: status === 2 ? 0 : status,
    type: query.type ? requireType(/^\d+$/.test(query.type) ? Number(query.type) : query.type) : null,
    group: query.group || null,
    model: query.model || null,
  });
  const shown = found
    .slice(page.offset, page.offset + page.limit)
    .map((channel) => channelBody(services.channels, channel));
  return respondJson(scope, 200, shown, { "X-Total-Count": `${found.length}` });
}

async function createChannel(request: ManagementRequest): Promise<Response> {
  const { channels, monitor } = request.services;
  const body = await readBytes(request, (bytes) => parseBody(bytes, NewChannelBody, ["key", "name"]));
  const fields = channelFieldsOf(body);
  await checkAddress(request, fields.baseUrl);
  const { ring } = channels;
  const channel = await channels.change("relay.createChannel", { fields, key: body.key, ring, isFirst: false });
  await monitor.changed();
  return respondJson(request.scope, 201, channelBody(channels, channel!), { Location: `/api/channel/${channel!.id}` });
}

async function showChannel(request: ManagementRequest): Promise<Response> {
  const { services, scope } = request;
  const channel = await services.channels.require(idOf(request));
  return respondJson(scope, 200, channelBody(services.channels, channel));
}

async function updateChannel(request: ManagementRequest): Promise<Response> {
  const { services, scope } = request;
  const id = idOf(request);
  const { channels, monitor } = services;
  const body = await readBytes(request, (bytes) => parseBody(bytes, ChannelChangesBody));
  const stored = await channels.require(id);
  const changes = channelChangesOf(body, stored.type);
  if (changes.baseUrl !== undefined && changes.baseUrl !== stored.baseUrl) await checkAddress(request, changes.baseUrl);
  const { ring } = channels;
  const channel = await channels.change("relay.updateChannel", { id, changes, key: body.key ?? null, ring });
  await monitor.changed();
  return respondJson(scope, 200, channelBody(channels, channel));
}

async function deleteChannel(request: ManagementRequest): Promise<Response> {
  const { services, scope } = request;
  await services.channels.change("relay.deleteChannel", { id: idOf(request) });
  await services.monitor.changed();
  return respond(scope, 204, {});
}

async function setStatus(request: ManagementRequest, status: 0 | 1): Promise<Response> {
  const { services, scope } = request;
  const channel = await services.channels.change("relay.setChannelStatus", { id: idOf(request), status });
  await services.monitor.changed();
  return respondJson(scope, 200, channelBody(services.channels, channel));
}

async function resetChannel(request: ManagementRequest): Promise<Response> {
  const { services, scope } = request;
  const id = idOf(request);
  await services.channels.require(id);
  services.monitor.reset(id);
  const status = await services.channels.change("relay.liftBan", { id });
  if (status !== null) await services.monitor.changed();
  return respondJson(scope, 200, channelBody(services.channels, await services.channels.require(id)));
}

async function testChannel(request: ManagementRequest): Promise<Response> {
  const id = idOf(request);
  return runTest(request, id, await readBytes(request, (bytes) => parseBody(bytes, ChannelTestBody)));
}

async function testChannelByQuery(request: ManagementRequest): Promise<Response> {
  const id = idOf(request);
  return runTest(request, id, { model: parseQuery(request.scope.request.url, ["model"]).model || undefined });
}

async function runTest(
  { services, scope }: ManagementRequest,
  id: number,
  asked: z.infer<typeof ChannelTestBody>,
): Promise<Response> {
  const { channels, monitor } = services;
  const channel = await channels.require(id);
  const model = asked.model ?? channel.models[0] ?? channel.discoveredModels[0];
  if (model === undefined) {
    const way = "with model in the body or query, or with --model on the command line";
    throw new AppError("model_required", `The channel names no models: say which one to test, ${way}.`);
  }
  if (channels.keyOf(channel) === null) return respondJson(scope, 200, testBody(lockedReport(model)));
  const isStream = asked.stream ?? false;
  const report = await scope.whileSilent(() => monitor.test(channel, { model, isStream }));
  const { isSuccess, timeMs: responseMs } = report;
  await channels.change("relay.noteTest", { id, responseMs, isSuccess });
  await monitor.changed();
  return respondJson(scope, 200, testBody(report));
}

async function showHealth(request: ManagementRequest): Promise<Response> {
  const { services, scope } = request;
  const id = idOf(request);
  const channel = await services.channels.require(id);
  const isLocked = services.channels.keyOf(channel) === null;
  const health = services.monitor.health(id) ?? unknownHealth(isLocked);
  return respondJson(scope, 200, healthBody(channel, health));
}

async function showModels(request: ManagementRequest): Promise<Response> {
  const { services, scope } = request;
  const id = idOf(request);
  const { channels, monitor } = services;
  const channel = await channels.require(id);
  if (channels.keyOf(channel) === null) throw new AppError("upstream_failed", LOCKED);
  const models = await scope.whileSilent(() => monitor.readModels(channel));
  await channels.change("relay.noteDiscovered", { id, models });
  await monitor.changed();
  return respondJson(scope, 200, { data: models });
}

const LOCKED = `No secret opens the key of this channel. ${UNREADABLE_ADVICE}`;

/** Names are looked up, which may take a while. @throws AppError base_url_refused */
function checkAddress({ services, scope }: ManagementRequest, baseUrl: string): Promise<void> {
  return scope.whileSilent(() => services.monitor.check(baseUrl));
}

function lockedReport(model: string): TestReport {
  return { isSuccess: false, status: null, timeMs: 0, ttftMs: null, model, error: LOCKED };
}

function unknownHealth(isLocked: boolean): ChannelHealth {
  return {
    state: isLocked ? "locked" : "closed",
    untilMs: null,
    requests: 0,
    failures: 0,
    cooling: [],
    modelsOff: [],
    lastError: null,
  };
}

/** Times in whole seconds since 1970; 0 = never. Of a locked channel the reason says so, whatever is stored. */
function channelBody(channels: ChannelStore, channel: Channel): Record<string, unknown> {
  const isLocked = channels.keyOf(channel) === null;
  return {
    id: channel.id,
    type: channel.type,
    name: channel.name,
    key: channel.keyMask,
    base_url: channel.baseUrl,
    models: channel.models,
    discovered_models: channel.discoveredModels,
    group: channel.groups.join(","),
    weight: channel.weight,
    priority: channel.priority,
    status: channel.status,
    status_reason: isLocked ? "key_unreadable" : channel.statusReason,
    model_mapping: channel.modelMapping,
    auto_ban: channel.autoBan,
    no_stream_options: channel.noStreamOptions,
    ttft_ms: channel.ttftMs,
    total_ms: channel.totalMs,
    created_time: secondsOf(channel.createdMs),
    updated_time: secondsOf(channel.updatedMs),
    test_time: secondsOf(channel.testedMs ?? 0),
    response_time: channel.responseMs ?? 0,
    used_quota: channel.usedQuota,
  };
}

function testBody({ isSuccess, status, timeMs, ttftMs, model, error }: TestReport): Record<string, unknown> {
  const body = {
    success: isSuccess,
    status,
    time_ms: Math.round(timeMs),
    ttft_ms: ttftMs === null ? null : Math.round(ttftMs),
    model,
  };
  return error === null ? body : { ...body, error };
}

function healthBody({ id, status }: Channel, health: ChannelHealth): Record<string, unknown> {
  const { state, untilMs, requests, failures, cooling, modelsOff, lastError } = health;
  return {
    id,
    status,
    state,
    until: untilMs === null ? null : secondsUp(untilMs),
    requests,
    failures,
    success_rate: requests === 0 ? null : (requests - failures) / requests,
    cooling: cooling.map(({ model, untilMs: until }) => ({ model, until: secondsUp(until) })),
    models_off: modelsOff,
    last_error: lastError === null ? null : { code: lastError.code, at: secondsOf(lastError.atMs) },
  };
}

/** The first whole second when it is over. */
function secondsUp(ms: number): number {
  return Math.ceil(ms / 1000);
}
