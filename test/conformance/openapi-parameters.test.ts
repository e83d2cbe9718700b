// Query parameters as the OpenAPI document has them: the server takes them within their bounds and refuses them beyond.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import type { ApiDocument, Schema } from "../support/api-contract.ts";
import { readJson } from "../support/kv-requests.ts";
import { managed, RELAY_ENV } from "../support/relay-client.ts";
import { openInProcess, type Target } from "../support/targets.ts";
import { send } from "../support/task-answers.ts";
import { createTask, signUp, UNLIMITED } from "../support/task-client.ts";
import { install } from "../support/token-client.ts";

setDefaultTimeout(60_000);

interface Parameter {
  readonly name: string;
  readonly in: string;
  readonly required: boolean;
  readonly schema: Schema;
}

/** One operation that takes query parameters, with a path of which everything exists. */
interface Operation {
  readonly method: string;
  readonly path: string;
  readonly url: string;
  /** Of a user or an app; none: the target sends the operator's. */
  readonly credential: Readonly<Record<string, string>>;
  readonly parameters: readonly Parameter[];
}

/** Values of parameters that have to be there. */
const REQUIRED: Readonly<Record<string, string>> = { username: "somebody", kind: "export.build" };
/** Nobody listens there. */
const NOBODY_URL = "http://127.0.0.1:1";
/** Some parameters of these say more of what another one names. */
const BESIDE: Readonly<Record<string, Record<string, string>>> = { "/_list": { bucket: "some-bucket" } };

let target: Target;
let operations: readonly Operation[];
beforeAll(async () => {
  target = await openInProcess({ ...UNLIMITED, ...RELAY_ENV, WEBHOOK_ALLOW_CIDRS: "127.0.0.1/32" });
  const ann = await signUp(target);
  const task = await createTask(target, ann);
  const hook = await send<{ id: string }>(target, ann, "POST", "/webhooks", {
    url: NOBODY_URL,
    events: ["task.created"],
  });
  const { token } = await install(target);
  const channel = {
    type: "Custom",
    name: "first",
    key: "sk-mock-0123456789abcdef",
    base_url: NOBODY_URL,
    models: ["m"],
  };
  const { id: channelId } = await managed<{ id: number }>(target, "POST", "/api/channel", channel);
  const credentials = new Map([
    ["user", { Authorization: `Bearer ${ann.token}` }],
    ["app", { Authorization: `Bearer ${token}` }],
  ]);
  const ids: readonly (readonly [RegExp, string])[] = [
    [/^\/api\/v1\/tasks\//, `${task.id}`],
    [/^\/api\/v1\/webhooks\//, hook.body.id],
    [/^\/api\/channel\//, `${channelId}`],
  ];
  const { paths } = await readJson<ApiDocument>(target, "/openapi.json", { headers: { Authorization: null } });
  operations = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).flatMap(([method, { parameters = [], security }]) => {
      const asked = (parameters as readonly Parameter[]).filter((parameter) => parameter.in === "query");
      if (asked.length === 0) return [];
      const id = ids.find(([pattern]) => pattern.test(path))?.[1] ?? "nobody";
      const scheme = security.flatMap((requirement) => Object.keys(requirement))[0] ?? "";
      const credential = credentials.get(scheme) ?? {};
      return [{ method, path, url: path.replaceAll(/\{\w+\}/g, id), credential, parameters: asked }];
    }),
  );
});
afterAll(() => target[Symbol.asyncDispose]());

/** Whether the server refuses the query itself; whatever else it says of the request does not matter here. */
async function isRefused(operation: Operation, query: Readonly<Record<string, string>>): Promise<boolean> {
  const { method, url, credential } = operation;
  const path = `${url}?${new URLSearchParams(query)}`;
  const { status } = await target.fetch(path, { method, headers: { ...credential } });
  // Anything else would have come before the query was looked at.
  expect([200, 204, 400, 404], `${method} ${path}`).toContain(status);
  return status === 400;
}

/** The parameters that have to be there, but `left`. */
function requiredOf({ parameters }: Operation, left?: string): Record<string, string> {
  const names = parameters.filter(({ name, required }) => required && name !== left).map(({ name }) => name);
  return Object.fromEntries(names.map((name) => [name, REQUIRED[name] ?? "1"]));
}

/** What the server does otherwise than the document says, of each parameter with the values that `probe` has for it. */
async function mistakes(
  probe: (parameter: Parameter) => { readonly taken: readonly unknown[]; readonly refused: readonly unknown[] },
): Promise<{ readonly wrong: string[]; readonly probed: number }> {
  const wrong: string[] = [];
  let probed = 0;
  for (const operation of operations) {
    const beside = { ...BESIDE[operation.path], ...requiredOf(operation) };
    for (const parameter of operation.parameters) {
      const { taken, refused } = probe(parameter);
      for (const [values, isExpected] of [
        [taken, false],
        [refused, true],
      ] as const) {
        for (const value of values) {
          probed++;
          const { method, path } = operation;
          const isSo = await isRefused(operation, { ...beside, [parameter.name]: `${value}` });
          const verdict = isSo ? "refused" : "taken";
          if (isSo !== isExpected) wrong.push(`${method} ${path}: ${parameter.name}=${value} is ${verdict}`);
        }
      }
    }
  }
  return { wrong, probed };
}

test("a number is taken at each bound that is documented, and refused beyond it", async () => {
  const { wrong, probed } = await mistakes(({ schema: { type, minimum: least, maximum: most } }) => {
    const [atLeast, atMost] = [least, most].map((bound) => (typeof bound === "number" ? [bound] : []));
    const beyond = [...atLeast!.map((bound) => bound - 1), ...atMost!.map((bound) => bound + 1)];
    return { taken: [...atLeast!, ...atMost!], refused: type === "integer" ? [...beyond, "x", "1.5"] : [] };
  });
  expect(wrong).toEqual([]);
  expect(probed).toBeGreaterThan(80);
});

test("a word is taken when it is documented, and no other one is", async () => {
  const { wrong, probed } = await mistakes(({ schema }) => {
    const words = schema.type === "boolean" ? ["true", "false"] : (schema.enum ?? [schema.const ?? []].flat());
    const taken = words as readonly unknown[];
    return { taken, refused: taken.length === 0 ? [] : ["nonsense"] };
  });
  expect(wrong).toEqual([]);
  expect(probed).toBeGreaterThan(40);
});

test("what is required is refused when it is left out, and nothing else is", async () => {
  const wrong: string[] = [];
  for (const operation of operations) {
    const { method, path, parameters } = operation;
    if (await isRefused(operation, requiredOf(operation))) wrong.push(`${method} ${path} wants more`);
    for (const { name } of parameters.filter(({ required }) => required)) {
      if (!(await isRefused(operation, requiredOf(operation, name)))) wrong.push(`${method} ${path} wants no ${name}`);
    }
  }
  expect(wrong).toEqual([]);
});

test("how much a page may have is documented as a number with its bounds", () => {
  const limits = operations.flatMap(({ method, path, parameters }) =>
    parameters.filter(({ name }) => name === "limit").map(({ schema }) => ({ name: `${method} ${path}`, schema })),
  );
  const vague = limits.filter(({ schema }) => schema.type !== "integer" || typeof schema.minimum !== "number");
  expect(vague.map(({ name }) => name)).toEqual([]);
  expect(limits.length).toBeGreaterThan(10);
});
