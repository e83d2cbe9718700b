// Cross-origin access: what a page of another origin may see of the token API, and that it sees nothing of the rest.

import { describe, expect, test } from "bun:test";
import type { OpenTarget, Target, TargetInit } from "../support/targets.ts";
import { asApp, install } from "../support/token-client.ts";
import { useTarget } from "../support/use-target.ts";

const EXPOSED = "RateLimit, RateLimit-Policy, Retry-After, ETag, X-Request-Id";
const PAGE = "https://app.example";
const ORIGINS = { TOKEN_CORS_ORIGINS: `${PAGE}, http://localhost:5173` };

export function tokenCorsSuite(name: string, open: OpenTarget): void {
  describe(`cross-origin access on ${name}`, () => everyOriginTests(useTarget(open, { TOKEN_RATE_DELETE: "1" })));
  describe(`cross-origin access from some origins on ${name}`, () => someOriginTests(useTarget(open, ORIGINS)));
  describe(`cross-origin access to the alias on ${name}`, () => aliasTests(useTarget(open, { TOKEN_KV_ALIAS: "1" })));
}

function preflight(target: Target, path: string, headers: Record<string, string> = {}): Promise<Response> {
  const all = { Authorization: null, Origin: PAGE, "Access-Control-Request-Method": "POST", ...headers };
  return target.fetch(path, { method: "OPTIONS", headers: all });
}

const corsOf = ({ headers }: Response) =>
  Object.fromEntries([...headers].filter(([name]) => name.startsWith("access-control") || name === "vary"));

const FOR_ALL = { "access-control-allow-origin": "*", "access-control-expose-headers": EXPOSED };

function everyOriginTests(target: () => Target): void {
  test("a preflight is answered without a token, with the methods and the headers asked for", async () => {
    for (const path of ["/", "", "/k", "/a/b", "/_keys", "/_batchimport", "/k/metadata", "/%FF", "/_info"]) {
      const asked = "authorization, content-type, if-match, x-anything";
      const response = await preflight(target(), `/kv/token${path}`, { "Access-Control-Request-Headers": asked });
      expect([path, response.status, await response.text()]).toEqual([path, 204, ""]);
      expect(corsOf(response)).toEqual({
        ...FOR_ALL,
        "access-control-allow-methods": "GET, HEAD, POST, DELETE",
        "access-control-allow-headers": asked,
        "access-control-max-age": "7200",
      });
    }
  });

  test("headers are reflected up to 1 KiB, and only when they are asked for", async () => {
    const fitting = "x".repeat(1024);
    const ask = async (headers: Record<string, string>) =>
      corsOf(await preflight(target(), "/kv/token/k", headers))["access-control-allow-headers"];
    expect(await ask({ "Access-Control-Request-Headers": fitting })).toBe(fitting);
    expect(await ask({ "Access-Control-Request-Headers": `${fitting}x` })).toBeUndefined();
    expect(await ask({})).toBeUndefined();
  });

  test("preflights are free: no rate counts them, a wrong token in them counts as no failure", async () => {
    const { token } = await install(target());
    for (let asked = 0; asked < 300; asked++) {
      const headers = { Authorization: "Bearer revoked-token-000" };
      expect((await preflight(target(), "/kv/token/k", headers)).status).toBe(204);
    }
    const response = await asApp(target(), token, "/_keys");
    expect(response.headers.get("ratelimit")).toStartWith("limit=1024, remaining=1023");
    expect((await asApp(target(), "revoked-token-000", "/k")).status).toBe(401);
  });

  test("every answer may be read by every page, refusals too, never with credentials", async () => {
    const { token } = await install(target(), { permissionPrefix: "p" });
    const asks: readonly (readonly [status: number, path: string, init: TargetInit])[] = [
      [200, "/p.k", { method: "POST", body: "1" }],
      [200, "/p.k", {}],
      [200, "/p.k", { method: "HEAD" }],
      [304, "/p.k", { headers: { "If-None-Match": "*" } }],
      [200, "/_keys", {}],
      [200, "/", {}],
      [200, "/_info", {}],
      [200, "/_token", {}],
      [200, "/_batchimport", { method: "POST", body: '{"p.a":1}' }],
      [400, "/%FF", {}],
      [400, "/_keys?limit=x", {}],
      [401, "/p.k", { headers: { Authorization: "Bearer revoked-token-000" } }],
      [403, "/other", {}],
      [404, "/p.none", {}],
      [405, "/p.k", { method: "PUT", body: "1" }],
      [412, "/p.k", { method: "POST", body: "1", headers: { "If-None-Match": "*" } }],
      [413, "/p.k", { method: "POST", body: `"${"x".repeat(1024 * 1024)}"` }],
      [204, "/p.k", { method: "DELETE" }],
      [429, "/p.k", { method: "DELETE" }],
    ];
    for (const [status, path, init] of asks) {
      const response = await asApp(target(), token, path, { ...init, headers: { ...init.headers, Origin: PAGE } });
      expect([path, response.status, corsOf(response)]).toEqual([path, status, FOR_ALL]);
      await response.arrayBuffer();
    }
  });

  test("no other route has a word for pages of other origins", async () => {
    const headers = { Origin: PAGE };
    for (const path of ["/", "/livez", "/metrics", "/openapi.json", "/b/k", "/_list", "/api/kv/devices", "/kv/k"]) {
      const answers = [await target().fetch(path, { headers }), await preflight(target(), path)];
      for (const response of answers) expect([path, corsOf(response)]).toEqual([path, {}]);
    }
  });
}

function someOriginTests(target: () => Target): void {
  test("a page of a listed origin is named, with Vary, on answers and preflights", async () => {
    const { token } = await install(target());
    for (const Origin of [PAGE, "http://localhost:5173"]) {
      const named = { vary: "Origin", "access-control-allow-origin": Origin, "access-control-expose-headers": EXPOSED };
      expect(corsOf(await asApp(target(), token, "/k", { headers: { Origin } }))).toEqual(named);
      expect(corsOf(await asApp(target(), "revoked-token-000", "/k", { headers: { Origin } }))).toEqual(named);
      expect(corsOf(await preflight(target(), "/kv/token/k", { Origin }))).toMatchObject(named);
    }
  });

  test("a page of any other origin gets no leave, and what is no page is served as ever", async () => {
    const { token } = await install(target());
    const others = ["https://evil.example", "http://app.example", `${PAGE}:8443`, `${PAGE}.evil.example`, "null", "*"];
    for (const Origin of [...others, PAGE.toUpperCase(), `${PAGE}/`]) {
      const response = await asApp(target(), token, "/_keys", { headers: { Origin } });
      expect([Origin, response.status, corsOf(response)]).toEqual([Origin, 200, { vary: "Origin" }]);
      const answer = corsOf(await preflight(target(), "/kv/token/k", { Origin }));
      expect([Origin, answer["access-control-allow-origin"]]).toEqual([Origin, undefined]);
    }
    const response = await asApp(target(), token, "/_keys");
    expect([response.status, corsOf(response)]).toEqual([200, { vary: "Origin" }]);
  });
}

function aliasTests(target: () => Target): void {
  test("pages may use the alias as well, and still nothing else", async () => {
    const { token } = await install(target());
    const headers = { Authorization: `Bearer ${token}`, Origin: PAGE };
    expect(corsOf(await target().fetch("/kv/_keys", { headers }))).toEqual(FOR_ALL);
    expect(corsOf(await preflight(target(), "/kv/_keys"))).toMatchObject(FOR_ALL);
    expect(corsOf(await preflight(target(), "/api/kv/devices"))).toEqual({});
  });
}
