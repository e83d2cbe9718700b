// What the KV routes look like to a client.

import {
  count,
  type JsonSchema,
  object,
  type ParameterDoc,
  type RouteDoc,
  text,
  textOrNull,
  time,
} from "../http/openapi.ts";
import { BUCKET_BYTES_MAX, KEY_BYTES_MAX } from "../shared/bounds.ts";
import { LIST_PARAMETERS } from "./list-query.ts";

const bucket: ParameterDoc = {
  name: "bucket",
  in: "path",
  description: `1 to ${BUCKET_BYTES_MAX} bytes of UTF-8`,
  schema: { type: "string", minLength: 1 },
};
const key: ParameterDoc = {
  name: "key",
  in: "path",
  description: `1 to ${KEY_BYTES_MAX} bytes of UTF-8; slashes belong to it`,
  schema: { type: "string", minLength: 1 },
};

function header(name: string, description: string): ParameterDoc {
  return { name, in: "header", description, schema: text };
}

const ifMatch = header("If-Match", "Only if the entry has one of these ETags, or exists (*)");
const ifNoneMatch = header("If-None-Match", "Only if the entry has none of these ETags, or does not exist (*)");
const ttl: ParameterDoc = {
  name: "ttl",
  in: "query",
  description: "Seconds, or a duration such as 90s, 1h30m, 7d",
  schema: text,
};
const putParameters = [
  bucket,
  key,
  ttl,
  header("X-TTL", "As ttl"),
  ifMatch,
  ifNoneMatch,
  header("X-Meta-*", "Metadata: a-z 0-9 . _ - as names, printable ASCII as values"),
];

const entryFields: Record<string, JsonSchema> = {
  size: count,
  revision: count,
  content_type: text,
  created_at: time,
  updated_at: time,
  expires_at: { ...textOrNull, format: "date-time" },
  metadata: { type: "object", additionalProperties: text },
};

const put: Omit<RouteDoc, "method"> = {
  path: "/{bucket}/{key}",
  tag: "kv",
  security: "operator",
  parameters: putParameters,
  body: "bytes",
  answers: { 200: null },
  summary: "Stores the raw body, creating or replacing",
  refusals: [400, 412, 413, 500, 507],
};

export const KV_ROUTES: readonly RouteDoc[] = [
  { ...put, method: "post" },
  { ...put, method: "put" },
  {
    path: "/{bucket}/{key}",
    method: "get",
    tag: "kv",
    security: "operator",
    summary: "The stored bytes",
    parameters: [
      bucket,
      key,
      ifMatch,
      ifNoneMatch,
      header("Range", "One range of bytes"),
      header("If-Range", "An ETag"),
    ],
    answers: { 200: "bytes", 206: "bytes", 304: null },
    refusals: [400, 404, 412, 416, 500],
  },
  {
    path: "/{bucket}/{key}",
    method: "delete",
    tag: "kv",
    security: "operator",
    summary: "Removes the entry; 200 when it was missing, too",
    parameters: [bucket, key, ifMatch, ifNoneMatch],
    answers: { 200: null },
    refusals: [400, 412, 500, 507],
  },
  {
    path: "/_list",
    method: "get",
    tag: "kv",
    security: "operator",
    summary: "Buckets, or the keys of one",
    parameters: Object.entries(LIST_PARAMETERS).map(([name, { description, schema }]) => ({
      name,
      in: "query" as const,
      description,
      schema,
    })),
    answers: {
      200: {
        oneOf: [
          { type: "array", items: text },
          object({
            keys: { type: "array", items: object({ name: text, ...entryFields }) },
            prefixes: { type: "array", items: text },
            list_complete: { type: "boolean" },
            cursor: textOrNull,
          }),
          object({ count }),
        ],
      },
    },
    refusals: [400],
  },
  {
    path: "/_meta/{bucket}/{key}",
    method: "get",
    tag: "kv",
    security: "operator",
    summary: "What is known of an entry besides its value",
    parameters: [bucket, key],
    answers: { 200: object({ bucket: text, key: text, ...entryFields }) },
    refusals: [400, 404],
  },
];
