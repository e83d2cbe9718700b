// The OpenAPI 3.1 document, put together from what each service says of its routes.

import { z } from "zod";
import { STATUS_BY_CODE } from "../shared/errors.ts";
import { VERSION } from "../shared/version.ts";

export type JsonSchema = Readonly<Record<string, unknown>>;
type Security = "operator" | "app" | "relay" | "user" | "none";

export interface ParameterDoc {
  readonly name: string;
  readonly in: "path" | "query" | "header";
  readonly description: string;
  readonly schema: JsonSchema;
  /** What stands in the path always is. */
  readonly required?: boolean;
}

/** One method of one path. HEAD goes with GET, OPTIONS with every path; they are not listed. */
export interface RouteDoc {
  /** With `{name}` for parameters. */
  readonly path: string;
  readonly method: "get" | "post" | "put" | "patch" | "delete";
  readonly summary: string;
  readonly tag: string;
  readonly security: Security;
  readonly parameters?: readonly ParameterDoc[];
  /** A schema, or "bytes" for a raw body. */
  readonly body?: JsonSchema | "bytes";
  /** The body says who asks, where no credential does: either will do. */
  readonly isBodyCredential?: boolean;
  /** Successful answers, and others with a shape of their own: a schema, "bytes", or null for no body. */
  readonly answers: Readonly<Record<number, JsonSchema | "bytes" | null>>;
  /** Statuses of refusals, besides those that every route can have. */
  readonly refusals: readonly number[];
  /** The shape of refusals, when it is not the one of operators. */
  readonly errors?: "relay" | "task";
}

/** The definition that validates, as the schema that documents. */
export function schemaOf(definition: z.ZodType): JsonSchema {
  const { $schema: _, ...schema } = z.toJSONSchema(definition, { io: "input" });
  return schema;
}

export function object(properties: Record<string, JsonSchema>, required = Object.keys(properties)): JsonSchema {
  return { type: "object", properties, required };
}

export function parameter(
  name: string,
  place: ParameterDoc["in"],
  description: string,
  schema: JsonSchema = text,
): ParameterDoc {
  return { name, in: place, description, schema };
}

/** How long a page may be. */
export function pageSize(maximum: number, fallback: number): ParameterDoc {
  return parameter("limit", "query", "At most so many", { type: "integer", minimum: 1, maximum, default: fallback });
}

export const text: JsonSchema = { type: "string" };
export const textOrNull: JsonSchema = { type: ["string", "null"] };
export const count: JsonSchema = { type: "integer", minimum: 0 };
export const time: JsonSchema = { type: "string", format: "date-time" };

const ERROR = object({
  statusCode: { type: "integer" },
  message: text,
  code: { type: "string", enum: Object.keys(STATUS_BY_CODE) },
});

/** Of the relay, whose clients expect it like this. */
const RELAY_ERROR = object({ error: object({ message: text, type: text, param: textOrNull, code: textOrNull }) });

/** Of the task service; `fields` says what is wrong with which member of a body. */
const TASK_ERROR = object(
  {
    error: text,
    code: { type: "string", enum: Object.keys(STATUS_BY_CODE) },
    fields: { type: "object", additionalProperties: text },
  },
  ["error", "code"],
);

const ERROR_NAMES = { operator: "Error", relay: "RelayError", task: "TaskError" } as const;

const SECURITY_SCHEMES = {
  operator: { type: "http", scheme: "bearer", bearerFormat: "JWT", description: "HS256 with JWT_SECRET; see jwt-gen" },
  app: { type: "http", scheme: "bearer", description: "The token of an installation; also X-App-Token or ?token=" },
  relay: { type: "http", scheme: "bearer", description: "The key of a relay token" },
  user: { type: "http", scheme: "bearer", bearerFormat: "JWT", description: "From POST /api/v1/auth/login" },
};

const REASONS: Readonly<Record<number, string>> = {
  400: "The request is malformed",
  401: "No valid credential",
  403: "The credential does not cover this",
  404: "Not there",
  409: "In the way of something that exists",
  410: "No longer there",
  412: "A precondition does not hold",
  413: "Too large",
  415: "Must not be compressed, or of another type",
  422: "Not the request that the idempotency key was used for",
  428: "Needs If-Match",
  416: "Outside the value",
  429: "Too many requests",
  500: "Something failed on the server",
  502: "An upstream failed",
  503: "Not now; surely not applied",
  504: "An upstream took too long",
  507: "No space; surely not applied",
};

export function openApiDocument(routes: readonly RouteDoc[]): JsonSchema {
  const paths: Record<string, Record<string, unknown>> = {};
  for (const route of routes) {
    const path = paths[route.path] ?? {};
    paths[route.path] = path;
    path[route.method] = operation(route);
  }
  return {
    openapi: "3.1.0",
    info: {
      title: "gokv",
      version: VERSION,
      description: "A durable key-value server.",
      license: { name: "MIT", identifier: "MIT" },
    },
    paths,
    components: {
      schemas: { Error: ERROR, RelayError: RELAY_ERROR, TaskError: TASK_ERROR },
      securitySchemes: SECURITY_SCHEMES,
    },
  };
}

/** What generators of clients call it: `getApiV1TasksById` for GET /api/v1/tasks/{id}. */
function operationId({ method, path }: RouteDoc): string {
  const words = path.split("/").map((segment) => segment.replace(/^\{(.*)\}$/, "by-$1"));
  const names = path === "/" ? ["root"] : words.flatMap((word) => word.split(/[^A-Za-z0-9]+/)).filter(Boolean);
  return method + names.map((name) => name[0]!.toUpperCase() + name.slice(1)).join("");
}

function operation(route: RouteDoc): JsonSchema {
  const { summary, tag, security, parameters = [], body, isBodyCredential = false, answers, refusals } = route;
  const always = security === "none" ? [503] : [401, 403, 503];
  const errorName = ERROR_NAMES[route.errors ?? (security === "relay" ? "relay" : "operator")];
  const statuses = [...new Set([...refusals, ...always])].filter((status) => !(status in answers)).sort();
  const refused = statuses.map((status) => [
    status,
    {
      description: REASONS[status],
      content: { "application/json": { schema: { $ref: `#/components/schemas/${errorName}` } } },
    },
  ]);
  const answered = Object.entries(answers).map(([status, schema]) => [
    status,
    schema === null
      ? { description: "Done" }
      : { description: REASONS[Number(status)] ?? "The answer", content: content(schema) },
  ]);
  return {
    operationId: operationId(route),
    summary,
    tags: [tag],
    security: security === "none" ? [] : [{ [security]: [] }, ...(isBodyCredential ? [{}] : [])],
    ...(parameters.length === 0
      ? {}
      : { parameters: parameters.map((item) => ({ ...item, required: item.required ?? item.in === "path" })) }),
    ...(body === undefined
      ? {}
      : { requestBody: { required: body !== "bytes" && !isBodyCredential, content: content(body) } }),
    responses: Object.fromEntries([...answered, ...refused]),
  };
}

function content(schema: JsonSchema | "bytes"): JsonSchema {
  return schema === "bytes" ? { "*/*": {} } : { "application/json": { schema } };
}
