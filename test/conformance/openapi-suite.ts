// The OpenAPI document: valid, complete, and true of what the server really answers.

import { describe, expect, test } from "bun:test";
import { Validator } from "@seriousme/openapi-schema-validator";
import { VERSION } from "../../src/shared/version.ts";
import { ApiContract, type ApiDocument } from "../support/api-contract.ts";
import { readJson } from "../support/kv-requests.ts";
import { makeToken } from "../support/relay-client.ts";
import type { OpenTarget, Target, TargetInit } from "../support/targets.ts";
import { asApp, install } from "../support/token-client.ts";
import { useTarget } from "../support/use-target.ts";

/** What each path of the document stands for in the tests that only want to know which methods it takes. */
const PLACEHOLDERS: Readonly<Record<string, string>> = {
  bucket: "some-bucket",
  key: "k",
  uuid: "nobody",
  id: "nobody",
  cid: "1",
  did: "nobody",
  name: "nobody",
};
const NUMBERED = /^\/api\/(channel|token)\//;

function urlOf(path: string): string {
  return path.replaceAll(/\{([^}]+)\}/g, (_, name: string) => (NUMBERED.test(path) ? "1" : PLACEHOLDERS[name]!));
}

export function openApiSuite(name: string, open: OpenTarget): void {
  describe(`the OpenAPI document on ${name}`, () => {
    documentTests(useTarget(open, { TASK_RATE_PER_MINUTE: "0" }));
    serviceTests(useTarget(open, { SERVICES: "kv" }), useTarget(open, { SERVICES: "token" }));
  });
  describe(`answers as the OpenAPI document has them on ${name}`, () => {
    answerTests(useTarget(open, { TOKEN_RATE_BATCH: "2" }));
  });
}

const documentOf = (target: Target) =>
  readJson<ApiDocument>(target, "/openapi.json", { headers: { Authorization: null } });

function documentTests(target: () => Target): void {
  test("is a valid OpenAPI 3.1 document of this version, for everybody", async () => {
    const document = await documentOf(target());
    expect([document.openapi, document.info.version]).toEqual(["3.1.0", VERSION]);
    const { valid, errors } = await new Validator().validate(structuredClone(document) as never);
    expect([valid, errors]).toEqual([true, undefined]);
  });

  test("shows refusals as they come: probes with a state, and 428 only where If-Match can be demanded", async () => {
    const { paths } = await documentOf(target());
    for (const path of ["/livez", "/readyz"]) {
      const { responses } = paths[path]!.get!;
      const [up, away] = [responses["200"], responses["503"]].map((answer) => answer!.content!["application/json"]);
      expect(away).toEqual(up!);
    }
    const demanding = Object.entries(paths["/api/v1/tasks/{id}"]!).filter(([, { responses }]) => "428" in responses);
    expect(demanding.map(([method]) => method).toSorted()).toEqual(["delete", "patch", "put"]);
  });

  test("has no two paths that differ only in the names of their parameters, and declares every parameter", async () => {
    const { paths } = await documentOf(target());
    const shapes = Object.keys(paths).map((path) => path.replaceAll(/\{[^}]+\}/g, "{}"));
    expect(new Set(shapes).size).toBe(shapes.length);
    for (const [path, methods] of Object.entries(paths)) {
      const named = [...path.matchAll(/\{([^}]+)\}/g)].map((match) => match[1]!).toSorted();
      for (const { parameters = [] } of Object.values(methods)) {
        const declared = parameters.filter((parameter) => parameter.in === "path").map((parameter) => parameter.name);
        expect([path, declared.toSorted()]).toEqual([path, named]);
        expect(parameters.every(({ in: place, required }) => required || place !== "path")).toBe(true);
      }
    }
  });

  test("gives each operation a name of its own, which programs can call it by", async () => {
    const { paths } = await documentOf(target());
    const names = Object.values(paths).flatMap((methods) => Object.values(methods).map((each) => each.operationId));
    expect(names.filter((each) => !/^[a-z]+[A-Z][A-Za-z0-9]*$/.test(each ?? ""))).toEqual([]);
    expect(new Set(names).size).toBe(names.length);
    expect(names).toContain("getApiV1TasksById");
  });

  test("shows that a logout takes the refresh token in its body, the access token, or both", async () => {
    const { paths } = await documentOf(target());
    const { security, requestBody } = paths["/api/v1/auth/logout"]!.post!;
    expect(security).toEqual([{ user: [] }, {}]);
    expect(requestBody).toMatchObject({ required: false });
  });

  test("shows how long texts of a task may be", async () => {
    const { paths } = await documentOf(target());
    const { schema } = paths["/api/v1/tasks"]!.post!.requestBody!.content["application/json"]!;
    const { description, labels } = (schema as { properties: Record<string, unknown> }).properties;
    expect(JSON.stringify(description)).toContain('"maxLength":20000');
    expect(JSON.stringify(labels)).toContain('"maxLength":40');
  });

  test("names for each path the methods that the server takes, neither more nor fewer", async () => {
    const { paths } = await documentOf(target());
    const { key } = await makeToken(target());
    for (const [path, methods] of Object.entries(paths)) {
      const url = urlOf(path);
      // The relay looks at nothing before the token.
      const Authorization = path.startsWith("/v1/") ? `Bearer ${key}` : null;
      const { headers, status } = await target().fetch(url, { method: "OPTIONS", headers: { Authorization } });
      const allowed = headers.get("allow")?.toLowerCase().split(", ") ?? [];
      // A name that is reserved for a route is a key as well: its other methods say so.
      const asKey = path.startsWith("/kv/token/_") ? Object.keys(paths["/kv/token/{key}"]!) : [];
      const documented = [...new Set([...Object.keys(methods), ...asKey, "options"])];
      if (documented.includes("get")) documented.push("head");
      expect([path, status, allowed.toSorted()]).toEqual([path, 204, documented.toSorted()]);
    }
  });

  test("has every route that the server counts requests of, once each was asked", async () => {
    const { paths } = await documentOf(target());
    for (const [path, methods] of Object.entries(paths)) {
      const url = urlOf(path);
      for (const method of Object.keys(methods)) {
        const { status } = await target().fetch(url, { method, headers: { Authorization: null } });
        expect([path, method, [404, 405].includes(status)]).toEqual([path, method, false]);
      }
    }
    const metrics = await (await target().fetch("/metrics")).text();
    const counted = new Set([...metrics.matchAll(/_requests_total\{[^}]*?route="([^"]*)"/g)].map((match) => match[1]!));
    const shapes = new Set(Object.keys(paths).map((path) => path.replaceAll(/\{[^}]+\}/g, ":")));
    const unknown = [...counted].filter((route) => !shapes.has(route.replaceAll(/:\w+/g, ":")));
    expect(unknown).toEqual([]);
    expect(counted.size).toBe(shapes.size);
  });

  test("says of each operation whose credential it wants, as the server does", async () => {
    const { paths } = await documentOf(target());
    const { token } = await install(target());
    for (const [path, methods] of Object.entries(paths)) {
      const url = urlOf(path);
      for (const [method, { security, responses }] of Object.entries(methods)) {
        const ask = async (Authorization: string | null) =>
          (await target().fetch(url, { method, headers: { Authorization } })).status;
        const [scheme] = security.flatMap((requirement) => Object.keys(requirement));
        const isOpen = scheme === undefined;
        expect([path, method, (await ask(null)) === 401]).toEqual([path, method, !isOpen]);
        // What takes credentials in its body refuses them with the same status.
        if (!path.startsWith("/api/v1/auth/")) expect([path, "401" in responses]).toEqual([path, !isOpen]);
        if (scheme === "operator" || scheme === "user")
          expect([path, await ask(`Bearer ${token}`)]).toEqual([path, 401]);
        if (scheme === "app") expect([path, await ask(`Bearer ${token}`)]).not.toEqual([path, 401]);
      }
    }
  });
}

function serviceTests(kvOnly: () => Target, tokenOnly: () => Target): void {
  test("speaks of the services that are on and of no others", async () => {
    const kv = Object.keys((await documentOf(kvOnly())).paths);
    const token = Object.keys((await documentOf(tokenOnly())).paths);
    expect(kv.filter((path) => path.startsWith("/kv/") || path.startsWith("/api/"))).toEqual([]);
    expect(kv).toContain("/{bucket}/{key}");
    expect(token).toContain("/kv/token/{key}");
    expect(token).not.toContain("/{bucket}/{key}");
    expect((await tokenOnly().fetch("/some-bucket/k")).status).toBe(404);
    expect((await kvOnly().fetch("/api/kv/devices", { headers: { Authorization: null } })).status).not.toBe(200);
  });
}

function answerTests(target: () => Target): void {
  test("every operation of the token API answers with a documented status and the documented body", async () => {
    const contract = new ApiContract(await documentOf(target()));
    await checkAdministration(target(), contract);
    await checkApp(target(), contract);
    const untouched = contract.operations.filter(
      (name) => / \/(kv\/token|api\/kv)/.test(name) && !contract.seen.has(name),
    );
    expect(untouched).toEqual([]);
    expect(contract.seen.size).toBeGreaterThan(100);
  }, 120_000);
}

async function checkAdministration(target: Target, contract: ApiContract): Promise<void> {
  const ask = async (operation: string, status: number, url: string, body?: unknown, init: TargetInit = {}) => {
    const sent = body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) };
    const method = operation.split(" ")[0]!.toUpperCase();
    const [verb, path] = operation.split(" ");
    const response = await target.fetch(`/api/kv${url}`, { method, ...sent, ...init });
    return contract.check(`${verb} /api/kv${path}`, status, response);
  };
  await ask("post /devices", 201, "/devices", { uuid: "d", name: "D" });
  await ask("post /devices", 201, "/devices", { uuid: "e" });
  await ask("post /devices", 409, "/devices", { uuid: "d" });
  await ask("post /devices", 400, "/devices", { uuid: "kv" });
  await ask("get /devices", 200, "/devices?limit=1");
  await ask("get /devices", 400, "/devices?limit=0");
  await ask("get /devices/{uuid}", 200, "/devices/d");
  await ask("get /devices/{uuid}", 404, "/devices/nobody");
  await ask("get /devices/{uuid}", 400, "/devices/%FF");
  await ask("patch /devices/{uuid}", 200, "/devices/d", { name: null });
  await ask("patch /devices/{uuid}", 400, "/devices/d", { name: 1 });
  await ask("patch /devices/{uuid}", 404, "/devices/nobody", { name: null });
  await ask("delete /devices/{uuid}", 400, "/devices/e?purge=x");
  await ask("delete /devices/{uuid}", 204, "/devices/e");
  await ask("delete /devices/{uuid}", 404, "/devices/e");
  await ask("post /apps", 201, "/apps", { id: "a", name: "A", permissionKey: ["x"], permissionPrefix: "p" });
  await ask("post /apps", 409, "/apps", { id: "a", name: "A" });
  await ask("post /apps", 400, "/apps", {});
  await ask("get /apps", 200, "/apps");
  await ask("get /apps", 400, "/apps?limit=0");
  await ask("get /apps/{id}", 200, "/apps/a");
  await ask("get /apps/{id}", 404, "/apps/nobody");
  await ask("get /apps/{id}", 400, "/apps/%ZZ");
  await ask("patch /apps/{id}", 200, "/apps/a", { description: "x" });
  await ask("patch /apps/{id}", 400, "/apps/a", { name: "" });
  await ask("patch /apps/{id}", 404, "/apps/nobody", {});
  const issue = { deviceUuid: "d", appId: "a", expiresAt: "2126-01-01T00:00:00Z", note: "n" };
  const { id } = (await ask("post /installations", 201, "/installations", issue)) as { id: string };
  await ask("post /installations", 404, "/installations", { ...issue, appId: "nobody" });
  await ask("post /installations", 400, "/installations", { ...issue, extra: 1 });
  await ask("get /installations", 200, "/installations");
  await ask("get /installations", 400, "/installations?limit=0");
  await ask("get /installations/{id}", 200, `/installations/${id}`);
  await ask("get /installations/{id}", 404, "/installations/nobody");
  await ask("get /installations/{id}", 400, "/installations/%FF");
  await ask("patch /installations/{id}", 200, `/installations/${id}`, { expiresAt: null, note: null });
  await ask("patch /installations/{id}", 400, `/installations/${id}`, { note: 1 });
  await ask("patch /installations/{id}", 404, "/installations/nobody", {});
  await ask("post /installations/{id}/rotate", 200, `/installations/${id}/rotate`);
  await ask("post /installations/{id}/rotate", 404, "/installations/nobody/rotate");
  await ask("post /installations/{id}/rotate", 400, "/installations/%FF/rotate");
  await ask("delete /apps/{id}", 409, "/apps/a");
  await ask("delete /apps/{id}", 400, "/apps/a?revoke=x");
  await ask("delete /installations/{id}", 204, `/installations/${id}`);
  await ask("delete /installations/{id}", 404, `/installations/${id}`);
  await ask("delete /installations/{id}", 400, "/installations/%FF");
  await ask("delete /apps/{id}", 204, "/apps/a");
  await ask("delete /apps/{id}", 404, "/apps/a");
  const { uuid, token } = await install(target);
  await asApp(target, token, "/k", { method: "POST", body: "1" });
  await ask("delete /devices/{uuid}", 409, `/devices/${uuid}`);
  // Together, because the server lingers for a second over a body that it does not want.
  const tooLarge = " ".repeat(70_000);
  await Promise.all([
    ask("post /devices", 413, "/devices", tooLarge),
    ask("post /apps", 413, "/apps", tooLarge),
    ask("post /installations", 413, "/installations", tooLarge),
    ask("patch /devices/{uuid}", 413, "/devices/d", tooLarge),
    ask("patch /apps/{id}", 413, "/apps/suite", tooLarge),
    ask("patch /installations/{id}", 413, "/installations/x", tooLarge),
  ]);
  for (const operation of contract.operations.filter((name) => name.includes("/api/kv"))) {
    const [method, path] = operation.split(" ") as [string, string];
    const headers = { Authorization: null };
    const url = path.slice("/api/kv".length).replaceAll(/\{\w+\}/g, "nobody");
    await ask(`${method} ${path.slice("/api/kv".length)}`, 401, url, undefined, { headers });
  }
}

async function checkApp(target: Target, contract: ApiContract): Promise<void> {
  const { token } = await install(target, {}, "app-device");
  const narrow = await install(target, { permissionPrefix: "p", isReadOnly: true }, "app-device");
  const ask = async (operation: string, status: number, url: string, init: TargetInit = {}, credential = token) => {
    const [verb, path] = operation.split(" ");
    const response = await asApp(target, credential, url, { method: verb!.toUpperCase(), ...init });
    return contract.check(`${verb} /kv/token${path}`, status, response);
  };
  const body = (json: string): TargetInit => ({ body: json });
  await ask("post /{key}", 200, "/p.k", body('{"a":1}'));
  await ask("post /{key}", 400, "/p.k", body("{"));
  await ask("post /{key}", 403, "/p.k", body("1"), narrow.token);
  await ask("post /{key}", 412, "/p.k", { body: "1", headers: { "If-None-Match": "*" } });
  await ask("post /{key}", 413, "/p.k", body(`"${"x".repeat(1_100_000)}"`));
  await target.fetch("/app-device/png", { method: "PUT", body: "\u0089PNG", headers: { "Content-Type": "image/png" } });
  await target.fetch("/app-device/untyped", { method: "PUT", body: new Uint8Array([255]) });
  await ask("get /{key}", 200, "/p.k");
  await ask("get /{key}", 304, "/p.k", { headers: { "If-None-Match": "*" } });
  await ask("get /{key}", 400, "/a%2F..%2Fb");
  await ask("get /{key}", 403, "/other", {}, narrow.token);
  await ask("get /{key}", 404, "/none");
  await ask("get /{key}/metadata", 200, "/p.k/metadata");
  await ask("get /{key}/metadata", 400, "/%FF/metadata");
  await ask("get /{key}/metadata", 403, "/x/metadata", {}, narrow.token);
  await ask("get /{key}/metadata", 404, "/none/metadata");
  await ask("get /_keys", 200, "/_keys?limit=1");
  await ask("get /_keys", 400, "/_keys?limit=x");
  await ask("get /", 200, "/?limit=2");
  await ask("get /", 200, "/");
  await ask("get /", 400, "/?sortBy=value");
  await ask("get /_info", 200, "/_info");
  await ask("get /_token", 200, "/_token");
  await ask("get /_token", 200, "/_token", {}, narrow.token);
  await ask("post /_batchimport", 403, "/_batchimport", body("{}"), narrow.token);
  await ask("post /_batchimport", 200, "/_batchimport", body('{"x":1,"_keys":2}'));
  await ask("post /_batchimport", 400, "/_batchimport", body("{}"));
  await ask("post /_batchimport", 429, "/_batchimport", body("{}"));
  const other = await install(target, {}, "app-device");
  await ask("post /_batchimport", 413, "/_batchimport", body(`{"x":"${"x".repeat(9_000_000)}"}`), other.token);
  await ask("delete /{key}", 403, "/p.k", {}, narrow.token);
  await ask("delete /{key}", 412, "/p.k", { headers: { "If-Match": '"9999"' } });
  await ask("delete /{key}", 400, "/_keys");
  await ask("delete /{key}", 204, "/p.k");
  await ask("delete /{key}", 404, "/p.k");
  await ask("delete /", 403, "/", {}, narrow.token);
  await ask("delete /", 204, "/");
  for (const operation of contract.operations.filter((name) => name.includes("/kv/token"))) {
    const [method, path] = operation.split(" ") as [string, string];
    const url = path.slice("/kv/token".length);
    await ask(`${method} ${url}`, 401, url.replace("{key}", "k"), {}, "revoked-token-000");
  }
}
