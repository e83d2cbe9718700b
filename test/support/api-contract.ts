// Answers compared with the OpenAPI document of the server that gave them.

import { expect } from "bun:test";
import { Ajv2020 } from "ajv/dist/2020.js";

export type Schema = Readonly<Record<string, unknown>>;
export interface Operation {
  readonly operationId?: string;
  readonly security: readonly Readonly<Record<string, unknown>>[];
  readonly parameters?: readonly { readonly name: string; readonly in: string; readonly required: boolean }[];
  readonly requestBody?: { readonly content: Readonly<Record<string, { readonly schema?: Schema }>> };
  readonly responses: Readonly<Record<string, { content?: Readonly<Record<string, { schema?: Schema }>> }>>;
}
export interface ApiDocument {
  readonly openapi: string;
  readonly info: { readonly version: string };
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
  readonly components: Schema;
}

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const DATE_TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;
/** A schema that allows no members but those it names, so that none goes undocumented. */
function closed(schema: unknown): unknown {
  if (Array.isArray(schema)) return schema.map(closed);
  if (typeof schema !== "object" || schema === null) return schema;
  const members = Object.fromEntries(Object.entries(schema).map(([name, value]) => [name, closed(value)]));
  return "properties" in members && !("additionalProperties" in members)
    ? { ...members, additionalProperties: false }
    : members;
}

/** What the document of a server says, to compare answers with. */
export class ApiContract {
  readonly #document: ApiDocument;
  readonly #ajv = new Ajv2020({ strict: false, formats: { "date-time": DATE_TIME, uuid: UUID } });
  /** Operations with their statuses that were seen. */
  readonly seen = new Set<string>();

  readonly #validators = new Map<string, ReturnType<Ajv2020["compile"]>>();

  constructor(document: ApiDocument) {
    this.#document = document;
  }

  get operations(): string[] {
    return Object.entries(this.#document.paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => `${method} ${path}`),
    );
  }

  /** The answer's status must be documented for the operation, its body must be as the schema says. */
  async check(operation: string, status: number, response: Response): Promise<unknown> {
    const [method, path] = operation.split(" ") as [string, string];
    const text = await response.text();
    expect([operation, response.status, text]).toEqual([operation, status, text]);
    const documented = this.#document.paths[path]?.[method]?.responses[`${status}`];
    if (documented === undefined) throw new Error(`${operation} may answer ${status} but the document does not say so`);
    this.seen.add(operation).add(`${operation} ${status}`);
    if (documented.content === undefined) {
      expect([operation, text]).toEqual([operation, ""]);
      return null;
    }
    const schema = documented.content["application/json"]?.schema;
    if (schema === undefined) return null;
    const value: unknown = JSON.parse(text);
    const validate = this.#validatorOf(`${operation} ${status}`, schema);
    if (!validate(value)) throw new Error(`${operation} ${status}: ${text} ${JSON.stringify(validate.errors)}`);
    return value;
  }

  #validatorOf(name: string, schema: Schema): ReturnType<Ajv2020["compile"]> {
    const known = this.#validators.get(name);
    if (known !== undefined) return known;
    const root = { ...(closed(schema) as Schema), components: closed(this.#document.components) };
    const validate = this.#ajv.compile(root);
    this.#validators.set(name, validate);
    return validate;
  }
}
