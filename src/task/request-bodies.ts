// Bodies read strictly: every member is known, and what is wrong with one is said in words of our own.

import type { z } from "zod";
import { issueWords } from "../http/invalid-bodies.ts";
import { AppError } from "../shared/errors.ts";
import { requireJson } from "../shared/json-text.ts";

const FIELDS_MAX = 20;
/** Of what a client has sent, in what it is answered. */
const NAME_MAX = 64;
const STEPS_MAX = 4;

/**
 * One JSON object as `schema` reads it; no body at all is an empty object.
 * @throws AppError invalid_json, json_too_deep, invalid_request with `fields`
 */
export function parseFields<Schema extends z.ZodType>(bytes: Uint8Array, schema: Schema): z.infer<Schema> {
  const value: unknown = bytes.length === 0 ? {} : JSON.parse(requireJson(bytes));
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new AppError("invalid_request", "The body must be a JSON object.");
  }
  requireStorableText(value);
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  throw fieldsError(fieldsOf(result.error.issues, value));
}

/** What is wrong with which members. */
export function fieldsError(fields: Readonly<Record<string, string>>): AppError {
  const [first] = Object.entries(fields);
  const message = first === undefined ? "The body is not valid." : `${first[0]}: ${first[1]}`;
  return new AppError("invalid_request", message, { details: { fields: JSON.stringify(fields) } });
}

/** What `read` finds wrong with parameters that are members of the member `name`. Throws what `read` throws. */
export function within<T>(name: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof AppError) || error.details.fields === undefined) throw error;
    const fields = Object.entries(JSON.parse(`${error.details.fields}`) as Record<string, string>);
    throw fieldsError(Object.fromEntries(fields.map(([member, words]) => [`${name}.${member}`, words])));
  }
}

/** NUL would end a text in some engines, half of a surrogate pair is no text in any. */
function requireStorableText(value: unknown, path: readonly PropertyKey[] = []): void {
  if (typeof value === "string") {
    if (value.includes("\0") || !value.isWellFormed()) throw fieldsError({ [nameOf(path)]: "not valid text" });
  } else if (typeof value === "object" && value !== null) {
    for (const [key, inner] of Object.entries(value)) {
      if (!key.isWellFormed() || key.includes("\0")) throw new AppError("invalid_request", "A name is not valid text.");
      requireStorableText(inner, [...path, Array.isArray(value) ? Number(key) : key]);
    }
  }
}

function fieldsOf(issues: readonly z.core.$ZodIssue[], body: object): Record<string, string> {
  const fields: Record<string, string> = Object.create(null);
  for (const issue of issues) {
    if (Object.keys(fields).length >= FIELDS_MAX) break;
    if (issue.code === "unrecognized_keys") {
      for (const key of issue.keys.slice(0, FIELDS_MAX)) fields[nameOf([...issue.path, key])] = "unknown";
      continue;
    }
    fields[nameOf(issue.path)] ??= isThere(body, issue.path) ? wordsFor(issue) : "required";
  }
  return { ...fields };
}

/** Where a member stands, as programs write it: `filter.overdue`, `labels[1]`. */
function nameOf(path: readonly PropertyKey[]): string {
  const steps = path.slice(0, STEPS_MAX).map((step, index) => {
    if (typeof step === "number") return `[${step}]`;
    return `${index === 0 ? "" : "."}${String(step).slice(0, NAME_MAX).toWellFormed()}`;
  });
  return steps.join("") || "body";
}

function isThere(body: object, path: readonly PropertyKey[]): boolean {
  let value: unknown = body;
  for (const step of path) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, step)) return false;
    value = (value as Record<PropertyKey, unknown>)[step];
  }
  return true;
}

function wordsFor(issue: z.core.$ZodIssue): string {
  return issueWords(issue) ?? (issue.code === "custom" ? issue.message : "malformed");
}
