// What the relay and its management look like to a client.

import {
  count,
  type JsonSchema,
  object,
  parameter,
  type RouteDoc,
  schemaOf,
  text,
  textOrNull,
} from "../http/openapi.ts";
import { ChannelChangesBody, ChannelTestBody, NewChannelBody } from "./channel-bodies.ts";
import { NewRelayTokenBody, RelayTokenChangesBody } from "./relay-token-bodies.ts";

const flag: JsonSchema = { type: "boolean" };
const names: JsonSchema = { type: "array", items: text };
const integer: JsonSchema = { type: "integer" };
const integerOrNull: JsonSchema = { type: ["integer", "null"] };
const number: JsonSchema = { type: "number" };
const numberOrNull: JsonSchema = { type: ["number", "null"] };
const anything: JsonSchema = { type: "object", additionalProperties: true };

const channel = object({
  id: count,
  type: text,
  name: text,
  key: text,
  base_url: text,
  models: names,
  discovered_models: names,
  group: text,
  weight: count,
  priority: integer,
  status: { enum: [0, 1, 3] },
  status_reason: textOrNull,
  model_mapping: { type: "object", additionalProperties: text },
  auto_ban: flag,
  no_stream_options: flag,
  ttft_ms: integerOrNull,
  total_ms: integerOrNull,
  created_time: count,
  updated_time: count,
  test_time: count,
  response_time: count,
  used_quota: count,
});

const health = object({
  id: count,
  status: { enum: [0, 1, 3] },
  state: { enum: ["closed", "open", "half_open", "cooling", "locked"] },
  until: integerOrNull,
  requests: count,
  failures: count,
  success_rate: numberOrNull,
  cooling: { type: "array", items: object({ model: text, until: count }) },
  models_off: names,
  last_error: { anyOf: [{ type: "null" }, object({ code: text, at: count })] },
});

const testReport = object(
  { success: flag, status: integerOrNull, time_ms: count, ttft_ms: integerOrNull, model: text, error: text },
  ["success", "status", "time_ms", "ttft_ms", "model"],
);

const tokenFields = {
  id: count,
  user_id: count,
  key: text,
  status: { enum: [0, 1] },
  name: text,
  created_time: count,
  accessed_time: count,
  expired_time: integer,
  unlimited_quota: flag,
  remain_quota: count,
  used_quota: count,
  models: names,
  allow_ips: names,
  group: text,
  rpm: count,
  tpm: count,
  max_parallel: count,
  cache_ttl: count,
};
const token = object(tokenFields);
const newToken = object({ ...tokenFields, warning: text }, Object.keys(tokenFields));

const bit: JsonSchema = { enum: [0, 1] };
const logRow = object({
  id: count,
  request_id: text,
  ts: count,
  token_id: count,
  token_name: text,
  channel_id: integerOrNull,
  route: text,
  model: text,
  upstream_model: textOrNull,
  status: count,
  stream: bit,
  ttft_ms: integerOrNull,
  duration_ms: count,
  overhead_ms: number,
  prompt_tokens: count,
  completion_tokens: count,
  cached_tokens: count,
  estimated: bit,
  quota: count,
  attempts: count,
  error_code: textOrNull,
  client_ip: textOrNull,
});
const logSum = object({
  key: { type: ["integer", "string", "null"] },
  requests: count,
  errors: count,
  prompt_tokens: count,
  completion_tokens: count,
  quota: count,
  duration_ms_avg: number,
  ttft_ms_avg: numberOrNull,
});

const id = parameter("id", "path", "The id", count);
const limitOf = (rest: JsonSchema) =>
  parameter("limit", "query", "At most so many", { type: "integer", minimum: 1, maximum: 1000, ...rest });
const offset = parameter("offset", "query", "Leave out so many", count);
const from = parameter("from", "query", "From this time on, in seconds or milliseconds since 1970", count);
const to = parameter("to", "query", "Before this time", count);

type Route = Omit<RouteDoc, "tag" | "security">;

function list(items: JsonSchema): JsonSchema {
  return { type: "array", items };
}

const CHANNEL_DOCS: readonly Route[] = [
  {
    path: "/api/channel",
    method: "get",
    summary: "Channels, their keys masked",
    parameters: [
      parameter("status", "query", "Only of this status", { enum: [0, 1, 3] }),
      parameter("type", "query", "Only of this type"),
      parameter("group", "query", "Only in this group"),
      parameter("model", "query", "Only what serves this model"),
      limitOf({}),
      offset,
    ],
    answers: { 200: list(channel) },
    refusals: [400],
  },
  {
    path: "/api/channel",
    method: "post",
    summary: "Makes a channel",
    body: schemaOf(NewChannelBody),
    answers: { 201: channel },
    refusals: [400, 409, 413, 507],
  },
  {
    path: "/api/channel/{id}",
    method: "get",
    summary: "A channel",
    parameters: [id],
    answers: { 200: channel },
    refusals: [404],
  },
  ...(["put", "patch"] as const).map((method) => ({
    path: "/api/channel/{id}",
    method,
    summary: "Changes what is given",
    parameters: [id],
    body: schemaOf(ChannelChangesBody),
    answers: { 200: channel },
    refusals: [400, 404, 413, 507],
  })),
  {
    path: "/api/channel/{id}",
    method: "delete",
    summary: "Deletes a channel",
    parameters: [id],
    answers: { 204: null },
    refusals: [404],
  },
  {
    path: "/api/channel/{id}/test",
    method: "post",
    summary: "Sends one small request",
    parameters: [id],
    body: schemaOf(ChannelTestBody),
    answers: { 200: testReport },
    refusals: [400, 404],
  },
  {
    path: "/api/channel/test/{id}",
    method: "get",
    summary: "Sends one small request",
    parameters: [id, parameter("model", "query", "Which model to ask for")],
    answers: { 200: testReport },
    refusals: [400, 404],
  },
  ...(["enable", "disable", "reset"] as const).map((verb) => ({
    path: `/api/channel/{id}/${verb}`,
    method: "post" as const,
    parameters: [id],
    summary: { enable: "Enables it", disable: "Disables it", reset: "Forgets its failures and lifts a ban" }[verb],
    answers: { 200: channel },
    refusals: [404],
  })),
  {
    path: "/api/channel/{id}/health",
    method: "get",
    summary: "How it fares",
    parameters: [id],
    answers: { 200: health },
    refusals: [404],
  },
  {
    path: "/api/channel/{id}/models",
    method: "get",
    summary: "What its upstream serves",
    parameters: [id],
    answers: { 200: object({ data: names }) },
    refusals: [404, 502],
  },
];

const TOKEN_DOCS: readonly Route[] = [
  {
    path: "/api/token",
    method: "get",
    summary: "Relay tokens, their keys masked",
    parameters: [
      parameter("status", "query", "Only of this status", { enum: [0, 1] }),
      parameter("user_id", "query", "Only of this user", count),
      limitOf({ default: 100 }),
      offset,
    ],
    answers: { 200: list(token) },
    refusals: [400],
  },
  {
    path: "/api/token",
    method: "post",
    summary: "Makes a relay token; shows its key this once",
    body: schemaOf(NewRelayTokenBody),
    answers: { 201: newToken },
    refusals: [400, 409, 413, 507],
  },
  {
    path: "/api/token/{id}",
    method: "get",
    summary: "A relay token",
    parameters: [id],
    answers: { 200: token },
    refusals: [404],
  },
  ...(["put", "patch"] as const).map((method) => ({
    path: "/api/token/{id}",
    method,
    summary: "Changes what is given",
    parameters: [id],
    body: schemaOf(RelayTokenChangesBody),
    answers: { 200: token },
    refusals: [400, 404, 413, 507],
  })),
  {
    path: "/api/token/{id}",
    method: "delete",
    summary: "Deletes a relay token",
    parameters: [id],
    answers: { 204: null },
    refusals: [404],
  },
];

const LOG_DOCS: readonly Route[] = [
  {
    path: "/api/log",
    method: "get",
    summary: "What was used, request by request, newest first",
    parameters: [
      parameter("token_id", "query", "Only of this token", count),
      parameter("channel_id", "query", "Only of this channel", count),
      parameter("model", "query", "Only of this model"),
      parameter("status", "query", "Only with this status", { ...count, maximum: 999 }),
      parameter("request_id", "query", "Only this request"),
      from,
      to,
      limitOf({ default: 100 }),
      parameter("before", "query", "next of the page before"),
    ],
    answers: { 200: object({ data: list(logRow), next: textOrNull }) },
    refusals: [400],
  },
  {
    path: "/api/log/stat",
    method: "get",
    summary: "Sums of it; without a time those of the last 24 hours",
    parameters: [
      parameter("group_by", "query", "What to add up by", {
        enum: ["token", "channel", "model", "day"],
        default: "day",
      }),
      from,
      to,
    ],
    answers: { 200: object({ data: list(logSum) }) },
    refusals: [400],
  },
];

const MODEL_FIELDS = { id: text, object: { const: "model" }, created: count, owned_by: { const: "gokv" } };

function generation(path: string, summary: string, input: string): Route {
  const body = { ...object({ model: text }, ["model", input]), additionalProperties: true };
  return {
    path,
    method: "post",
    summary,
    body,
    answers: { 200: anything },
    refusals: [400, 404, 413, 415, 429, 502, 504],
  };
}

const RELAY_DOCS: readonly Route[] = [
  generation("/v1/chat/completions", "An answer to messages, as JSON or as a stream of events", "messages"),
  generation("/v1/completions", "A continuation of a prompt, as JSON or as a stream of events", "prompt"),
  generation("/v1/embeddings", "Vectors of texts", "input"),
  generation("/v1/responses", "A response, as JSON or as a stream of events", "input"),
  {
    path: "/v1/moderations",
    method: "post",
    summary: "Whether a text is harmful",
    body: { ...object({ model: text }, ["input"]), additionalProperties: true },
    answers: { 200: anything },
    refusals: [400, 404, 413, 415, 429, 502, 504],
  },
  ...(["get", "delete"] as const).map((method) => ({
    path: "/v1/responses/{id}",
    method,
    summary: "A response that this token has made",
    parameters: [parameter("id", "path", "Its id")],
    answers: { 200: anything },
    refusals: [404, 429, 502, 504],
  })),
  {
    path: "/v1/models",
    method: "get",
    summary: "What this token may ask for",
    answers: { 200: object({ object: { const: "list" }, data: list(object(MODEL_FIELDS)) }) },
    refusals: [],
  },
  {
    path: "/v1/models/{id}",
    method: "get",
    summary: "One model",
    answers: { 200: object(MODEL_FIELDS) },
    parameters: [parameter("id", "path", "Its name; slashes belong to it")],
    refusals: [404],
  },
  {
    path: "/v1/usage",
    method: "get",
    summary: "What this token has used and has left",
    answers: {
      200: object({
        name: text,
        remain_quota: count,
        used_quota: count,
        unlimited_quota: flag,
        expired_time: integer,
        rpm: count,
        tpm: count,
        max_parallel: count,
      }),
    },
    refusals: [],
  },
];

export const RELAY_ROUTES: readonly RouteDoc[] = [
  ...RELAY_DOCS.map((route) => ({
    ...route,
    tag: "relay",
    security: "relay" as const,
    refusals: [...route.refusals, 500],
  })),
  ...[...CHANNEL_DOCS, ...TOKEN_DOCS, ...LOG_DOCS].map((route) => ({
    ...route,
    tag: "relay administration",
    security: "operator" as const,
  })),
];
