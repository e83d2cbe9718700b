// Lists in bodies: their length is judged before their elements, and the document shows both.

import { describe, expect, test } from "bun:test";
import { ByteBudget } from "../../src/http/byte-budget.ts";
import { schemaOf } from "../../src/http/openapi.ts";
import { RequestScope } from "../../src/http/request-scope.ts";
import { AppError } from "../../src/shared/errors.ts";
import { NewExportBody } from "../../src/task/export-bodies.ts";
import { TaskPatchBody } from "../../src/task/item-bodies.ts";
import { parseFields } from "../../src/task/request-bodies.ts";
import { readJsonBody } from "../../src/task/task-request.ts";
import { WebhookChangesBody } from "../../src/task/webhook-bodies.ts";

describe("a list in a body", () => {
  test.each([
    ["events", 100, WebhookChangesBody],
    ["labels", 1000, TaskPatchBody],
  ] as const)("of too many %s is refused as that alone, whatever they are", (name, max, schema) => {
    const issuesOf = (length: number) => schema.safeParse({ [name]: new Array(length).fill(1) }).error?.issues ?? [];
    expect(issuesOf(max + 1)).toMatchObject([{ code: "too_big", path: [name], maximum: max }]);
    expect(issuesOf(max).length).toBe(max);
  });

  test("is documented with its elements and its length", () => {
    const { properties } = schemaOf(WebhookChangesBody) as { properties: Record<string, unknown> };
    const events = {
      type: "array",
      minItems: 1,
      maxItems: 100,
      items: { enum: expect.arrayContaining(["task.gone"]) },
    };
    expect(properties.events).toMatchObject(events);
  });
});

test("what is wrong inside a member is told of the place where it stands, and of no other", () => {
  const fieldsOf = (body: object, schema: Parameters<typeof parseFields>[1]) => {
    try {
      parseFields(new TextEncoder().encode(JSON.stringify(body)), schema);
    } catch (error) {
      return error instanceof AppError ? JSON.parse(`${error.details.fields}`) : error;
    }
    return null;
  };
  const filter = { overdue: true, nope: "1" };
  expect(fieldsOf({ format: "csv", filter }, NewExportBody)).toEqual({
    "filter.overdue": "must be a string",
    "filter.nope": "unknown",
  });
  expect(fieldsOf({ format: "csv", filter: "overdue" }, NewExportBody)).toEqual({ filter: "must be an object" });
  expect(fieldsOf({ filter: {} }, NewExportBody)).toEqual({ format: "required" });
  expect(fieldsOf({ labels: ["a", 5, ""] }, TaskPatchBody)).toEqual({
    "labels[1]": "must be a string",
    "labels[2]": "must have 1 to 40 characters",
  });
  expect(fieldsOf({ labels: ["a", "\0"] }, TaskPatchBody)).toEqual({ "labels[1]": "not valid text" });
  expect(fieldsOf({ user: { id: ["\ud800"] } }, TaskPatchBody)).toEqual({ "user.id[0]": "not valid text" });
  expect(fieldsOf({ url: "https://example.com", events: ["x"] }, WebhookChangesBody)).toEqual({
    "events[0]": expect.stringMatching(/^must be one of task\.created/),
  });
});

test("bounds are told in what they count: characters of texts, elements of lists, nothing of numbers", () => {
  const problemOf = (body: object) => {
    try {
      parseFields(new TextEncoder().encode(JSON.stringify(body)), TaskPatchBody);
    } catch (error) {
      return error instanceof AppError ? error.message : String(error);
    }
    return null;
  };
  expect(problemOf({ assignee_id: 0 })).toBe("assignee_id: must be at least 1");
  expect(problemOf({ assignee_id: 2 ** 53 })).toBe(`assignee_id: must be at most ${2 ** 53 - 1}`);
  expect(problemOf({ labels: new Array(1001).fill("a") })).toBe("labels: must have at most 1000 elements");
});

test("a body that is compressed, or says to be no JSON, is refused before anything of it is read", async () => {
  const read = async (headers: Record<string, string>) => {
    const request = new Request("http://h/", {
      method: "POST",
      headers: { "Content-Length": "2", ...headers },
      body: "{}",
    });
    const scope = new RequestScope(request, null, { isDraining: false, hasFailed: false, trustedProxies: null });
    const budget = new ByteBudget(1000);
    const services = { budget, strangers: budget, gate: { isLive: () => true } };
    const parsed = await readJsonBody({ services, scope, who: null }, 100, ({ length }) => length).catch(
      ({ code, status }) => [code, status],
    );
    return [parsed, request.bodyUsed];
  };
  const refused = [["unsupported_media_type", 415], false];
  expect(await read({ "Content-Type": "application/json" })).toEqual([2, true]);
  expect(await read({ "Content-Type": "application/json", "Content-Encoding": "gzip" })).toEqual(refused);
  expect(await read({ "Content-Type": "application/json", "Content-Encoding": "identity" })).toEqual(refused);
  expect(await read({ "Content-Type": "text/xml" })).toEqual(refused);
});
