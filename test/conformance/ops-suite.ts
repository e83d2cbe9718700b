// What surrounds every route: probes, metrics, request ids, OPTIONS and 405, the order of the checks, the headers that
// every answer has.

import { describe, expect, test } from "bun:test";
import { VERSION } from "../../src/shared/version.ts";
import { expectError, keyPath, put, read, readJson } from "../support/kv-requests.ts";
import { sendRaw } from "../support/raw-request.ts";
import { mint, type OpenTarget, type Target } from "../support/targets.ts";
import { useTarget } from "../support/use-target.ts";

const GET_ALLOW = "GET, HEAD, OPTIONS";
const KV_ALLOW = "GET, HEAD, POST, PUT, DELETE, OPTIONS";
/** Every route and the methods it takes. */
const ROUTES: readonly (readonly [path: string, allow: string])[] = [
  ["/", GET_ALLOW],
  ["/livez", GET_ALLOW],
  ["/readyz", GET_ALLOW],
  ["/metrics", GET_ALLOW],
  ["/_list", GET_ALLOW],
  ["/_meta/b/k", GET_ALLOW],
  ["/b/k", KV_ALLOW],
  ["/b/k/with/slashes", KV_ALLOW],
  ["/_admin/backup", "POST, OPTIONS"],
];
const WITHOUT_TOKEN = { Authorization: null };

export function opsSuite(name: string, open: OpenTarget): void {
  describe(`probes and the root on ${name}`, () => probeTests(useTarget(open)));
  describe(`methods on ${name}`, () => methodTests(useTarget(open)));
  describe(`the order of checks on ${name}`, () => orderTests(useTarget(open)));
  describe(`request ids on ${name}`, () => requestIdTests(useTarget(open)));
  describe(`headers on ${name}`, () => headerTests(useTarget(open)));
  describe(`metrics on ${name}`, () => metricsTests(useTarget(open)));
  describe(`series of metrics on ${name}`, () => seriesTests(useTarget(open)));
  describe(`modes on ${name}`, () => {
    modeTests(useTarget(open, { METRICS: "open" }), useTarget(open, { METRICS: "off" }));
    withoutKvTests(useTarget(open, { SERVICES: "task" }));
  });
}

function probeTests(target: () => Target): void {
  const open = { headers: WITHOUT_TOKEN };

  test("the root names the program and its version, without a token", async () => {
    const response = await target().fetch("/", open);
    expect(await response.text()).toBe(`{"name":"gokv","version":"${VERSION}","docs":"/openapi.json"}`);
    expect(response.headers.get("content-type")).toBe("application/json");
  });

  test("livez and readyz answer without a token, HEAD without a body", async () => {
    for (const [path, text] of [
      ["/livez", '{"status":"ok"}'],
      ["/readyz", '{"status":"ready"}'],
    ] as const) {
      const response = await target().fetch(path, open);
      expect([response.status, await response.text()]).toEqual([200, text]);
      const head = await target().fetch(path, { method: "HEAD", ...open });
      expect([head.status, await head.text(), head.headers.get("content-length")]).toEqual([200, "", `${text.length}`]);
    }
  });

  test("a query on them is ignored, a wrong token too", async () => {
    const headers = { Authorization: "Bearer nonsense" };
    for (const path of ["/", "/livez", "/readyz"])
      expect((await target().fetch(`${path}?x=1`, { headers })).status).toBe(200);
  });

  test("one-segment paths that are no mount are keyless KV paths", async () => {
    for (const path of ["/livezz", "/live", "/readyz2", "/metric", "/users", "/Livez"]) {
      await expectError(await target().fetch(path), "key_empty");
      await expectError(await target().fetch(path, open), "unauthorized");
    }
  });
}

function methodTests(target: () => Target): void {
  test("OPTIONS is 204 with the methods of the route, without a token and without CORS headers", async () => {
    for (const [path, allow] of ROUTES) {
      const headers = { ...WITHOUT_TOKEN, Origin: "http://evil.example", "Access-Control-Request-Method": "PUT" };
      const response = await target().fetch(path, { method: "OPTIONS", headers });
      expect([path, response.status, await response.text()]).toEqual([path, 204, ""]);
      expect([path, response.headers.get("allow")]).toEqual([path, allow]);
      expect([...response.headers.keys()].filter((header) => header.startsWith("access-control"))).toEqual([]);
    }
  });

  test("a method that a route does not take is 405 with those it takes, before the token is looked at", async () => {
    for (const [path, allow] of ROUTES) {
      for (const method of ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"]) {
        if (allow.split(", ").includes(method)) continue;
        const response = await target().fetch(path, { method, headers: WITHOUT_TOKEN });
        expect([path, method, response.status]).toEqual([path, method, 405]);
        expect(response.headers.get("allow")).toBe(allow);
        if (method !== "HEAD") await expectError(response, "method_not_allowed");
      }
    }
  });

  test("methods of other protocols are 405 too, and do nothing", async () => {
    await put(target(), "/b/k", "x");
    for (const method of ["TRACE", "PROPFIND", "PURGE", "LOCK", "COPY", "MKCOL", "QUERY", "PATCH"]) {
      const authorization = `Authorization: Bearer ${await mint()}\r\n`;
      const { text, statuses } = await sendRaw(
        target().url,
        `${method} /b/k HTTP/1.1\r\nHost: h\r\n${authorization}\r\n`,
      );
      expect([method, statuses, text.includes(`Allow: ${KV_ALLOW}\r\n`)]).toEqual([method, [405], true]);
      expect(text).not.toContain("Bearer");
    }
    expect(await read(target(), "/b/k")).toBe("x");
  });
}

function orderTests(target: () => Target): void {
  const rights = () => mint({ buckets: ["mine"], scope: "kv:read" });

  test("method, token, path, right, query and headers, size: the first that fails is told", async () => {
    const headers = { Authorization: `Bearer ${await rights()}` };
    const tooLarge = new Uint8Array(26 * 1024 * 1024);
    const put = { method: "PUT", body: "x" };
    const steps: readonly (readonly [path: string, init: object, code: Parameters<typeof expectError>[1]])[] = [
      ["/_x/k?tll=5", { method: "PATCH", headers: WITHOUT_TOKEN }, "method_not_allowed"],
      ["/_x/k?tll=5", { ...put, headers: WITHOUT_TOKEN }, "unauthorized"],
      ["/b/%ff", { headers: WITHOUT_TOKEN }, "unauthorized"],
      ["/b", { headers: WITHOUT_TOKEN }, "unauthorized"],
      ["/_list?x=1", { headers: WITHOUT_TOKEN }, "unauthorized"],
      ["/_x/k?tll=5", { ...put, headers }, "bucket_reserved"],
      ["/theirs/%ff?tll=5", { ...put, headers }, "path_invalid"],
      ["/theirs/k?tll=5", { ...put, headers }, "forbidden"],
      ["/mine/k?tll=5", { ...put, headers }, "forbidden"],
      ["/_list?x=1", { headers }, "forbidden"],
      ["/theirs/none", { headers }, "forbidden"],
      ["/mine/none", { headers }, "key_not_found"],
      ["/b/k?tll=5", { method: "PUT", body: tooLarge }, "query_invalid"],
      ["/b/k", { method: "PUT", body: tooLarge, headers: { "If-Match": "x" } }, "precondition_invalid"],
      ["/b/k", { method: "PUT", body: tooLarge, headers: { "If-Match": '"1"' } }, "body_too_large"],
    ];
    for (const [path, init, code] of steps) {
      const response = await target().fetch(path, init);
      expect([path, code, ((await response.clone().json()) as { code: string }).code]).toEqual([path, code, code]);
      await expectError(response, code);
    }
    expect(await read(target(), "/b/k")).toBeNull();
  });
}

const OWN_ID = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}$/;

function requestIdTests(target: () => Target): void {
  const idOf = async (path: string, headers: Record<string, string | null>) =>
    (await target().fetch(path, { headers })).headers.get("x-request-id");

  test("an incoming id of the allowed form is echoed, on answers and errors alike", async () => {
    await put(target(), "/ids/k", "x");
    for (const id of ["a", "0", "abc-DEF_1.2", "z".repeat(64), "...", "-"]) {
      for (const path of ["/ids/k", "/ids/none", "/b", "/_list", "/livez", "/"]) {
        expect(await idOf(path, { "X-Request-Id": id })).toBe(id);
      }
      expect(await idOf("/ids/k", { "X-Request-Id": id, Authorization: null })).toBe(id);
    }
  });

  test("any other id is replaced by a fresh one", async () => {
    for (const id of ["", "z".repeat(65), "a b", "a/b", "a,b", "\u00e9", "<b>", "a;b", '"a"', "a=b", "a:b", "%0d%0a"]) {
      expect(await idOf("/ids/k", { "X-Request-Id": id })).toMatch(OWN_ID);
    }
    const head = "GET /livez HTTP/1.1\r\nHost: h\r\nX-Request-Id: one\r\nX-Request-Id: two\r\n\r\n";
    const { text } = await sendRaw(target().url, head);
    expect(/X-Request-Id: (.*)\r\n/i.exec(text)?.[1]).toMatch(OWN_ID);
  });

  test("fresh ids are all different and ordered by time", async () => {
    const ids: string[] = [];
    for (let times = 0; times < 50; times++) ids.push((await idOf("/livez", {}))!);
    expect(new Set(ids).size).toBe(ids.length);
    expect(ids.toSorted()).toEqual(ids);
  });
}

function headerTests(target: () => Target): void {
  test("every answer has nosniff and a request id, and nothing but values may be stored by caches", async () => {
    const etag = await put(target(), "/headers/k", "x", { "X-TTL": "60" });
    await put(target(), "/headers/large", new Uint8Array(2 * 1024 * 1024));
    const value = "private, no-cache";
    const requests: readonly (readonly [path: string, init: object, status: number, cacheControl: string])[] = [
      ["/headers/k", {}, 200, value],
      ["/headers/k", { method: "HEAD" }, 200, value],
      ["/headers/k", { headers: { Range: "bytes=0-0" } }, 206, value],
      ["/headers/k", { headers: { "If-None-Match": etag } }, 304, value],
      ["/headers/large", {}, 200, value],
      ["/headers/large", { headers: { Range: "bytes=0-1999999" } }, 206, value],
      ["/headers/k", { headers: { Range: "bytes=9-" } }, 416, "no-store"],
      ["/headers/k", { headers: { "If-Match": '"0"' } }, 412, "no-store"],
      ["/headers/none", {}, 404, "no-store"],
      ["/headers/none", { method: "HEAD" }, 404, "no-store"],
      ["/headers/%ff", {}, 400, "no-store"],
      ["/headers/k", { headers: WITHOUT_TOKEN }, 401, "no-store"],
      ["/headers/k", { method: "PATCH" }, 405, "no-store"],
      ["/headers/k", { method: "OPTIONS" }, 204, "no-store"],
      ["/headers/put", { method: "PUT", body: "x" }, 200, "no-store"],
      ["/headers/put", { method: "DELETE" }, 200, "no-store"],
      ["/_list", {}, 200, "no-store"],
      ["/_list?bucket=headers", {}, 200, "no-store"],
      ["/_meta/headers/k", {}, 200, "no-store"],
      ...["/", "/livez", "/readyz", "/metrics"].map((path) => [path, {}, 200, "no-store"] as const),
    ];
    for (const [path, init, status, cacheControl] of requests) {
      const { headers, status: actual } = await target().fetch(path, init);
      expect([path, init, actual]).toEqual([path, init, status]);
      expect([path, init, headers.get("cache-control")]).toEqual([path, init, cacheControl]);
      expect([path, headers.get("x-content-type-options")]).toEqual([path, "nosniff"]);
      expect(headers.get("x-request-id")).toMatch(OWN_ID);
      expect(headers.get("server")).toBeNull();
    }
  });

  test("a value answer has the sandbox, ETag, Last-Modified and Accept-Ranges; no other has the sandbox", async () => {
    await put(target(), "/headers/full", "x");
    for (const [method, more] of [
      ["GET", {}],
      ["HEAD", {}],
      ["GET", { Range: "bytes=0-0" }],
    ] as const) {
      const { headers } = await target().fetch("/headers/full", { method, headers: more });
      expect(headers.get("content-security-policy")).toBe("default-src 'none'; sandbox");
      expect(headers.get("etag")).toMatch(/^"\d+"$/);
      expect(headers.get("last-modified")).toMatch(/^\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT$/);
      expect(headers.get("accept-ranges")).toBe("bytes");
    }
    for (const path of ["/headers/none", "/_list", "/"]) {
      expect((await target().fetch(path)).headers.get("content-security-policy")).toBeNull();
    }
  });
}

const METRICS = [
  "gokv_http_requests_total",
  "gokv_http_request_duration_seconds",
  "gokv_commit_duration_seconds",
  "gokv_commit_batch_items",
  "gokv_write_queue_length",
  "gokv_body_budget_used_bytes",
  "gokv_wal_bytes",
  "gokv_db_bytes",
  "gokv_checksum_failures_total",
  "gokv_swept_total",
  "gokv_auth_failures_total",
  "gokv_rejected_total",
  "gokv_storage_full",
  "gokv_last_backup_timestamp_seconds",
  "gokv_build_info",
];
const ROUTE_LABELS = [
  "/",
  "/livez",
  "/readyz",
  "/metrics",
  "/_list",
  "/_meta/:bucket/:key",
  "/:bucket/:key",
  "unmatched",
];
const LABELS = [
  "route",
  "method",
  "status",
  "le",
  "reason",
  "version",
  "bun",
  "sqlite",
  "stream",
  "channel",
  "outcome",
  "kind",
  "state",
  "result",
  "phase",
  "queue",
];

async function scrape(target: Target): Promise<string> {
  const response = await target.fetch("/metrics");
  expect(response.status).toBe(200);
  expect(response.headers.get("content-type")).toStartWith("text/plain; version=0.0.4");
  return response.text();
}

function requestsOf(text: string, route: string, method: string, status: number): number {
  const line = `gokv_http_requests_total{route="${route}",method="${method}",status="${status}"} `;
  const start = text.indexOf(line);
  return start < 0 ? 0 : Number.parseInt(text.slice(start + line.length), 10);
}

const METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
/** The HTTP parser takes them, no route does. */
const FOREIGN_METHODS = ["PROPFIND", "MKCOL", "LOCK", "PURGE", "REPORT", "M-SEARCH", "NOTIFY", "SOURCE", "QUERY"];

interface Series {
  readonly route: string;
  readonly method: string;
  readonly status: string;
}

function seriesIn(text: string): Series[] {
  const lines = text.matchAll(/^gokv_http_requests_total\{route="(.*?)",method="(.*?)",status="(.*?)"\} /gm);
  return [...lines].map(([, route, method, status]) => ({ route: route!, method: method!, status: status! }));
}

function metricsTests(target: () => Target): void {
  test("they are for the admin right: 401 without a token, 403 without the right", async () => {
    await expectError(await target().fetch("/metrics", { headers: WITHOUT_TOKEN }), "unauthorized");
    for (const claims of [{ scope: "kv" }, { buckets: ["b"] }, { prefix: "p" }, { scope: "" }]) {
      const headers = { Authorization: `Bearer ${await mint(claims)}` };
      await expectError(await target().fetch("/metrics", { headers }), "forbidden");
    }
    const headers = { Authorization: `Bearer ${await mint({ scope: "admin" })}` };
    expect((await target().fetch("/metrics", { headers })).status).toBe(200);
    const head = await target().fetch("/metrics", { method: "HEAD" });
    expect([head.status, await head.text()]).toEqual([200, ""]);
  });

  test("all figures are there, with their kind", async () => {
    const text = await scrape(target());
    for (const name of METRICS) expect(text).toMatch(new RegExp(`^# TYPE ${name} (counter|gauge|histogram)$`, "m"));
    expect(text).toContain(`gokv_build_info{version="${VERSION}",bun="${Bun.version}"`);
    expect(text).toMatch(/^gokv_db_bytes [1-9]\d*$/m);
  });

  test("requests are counted by route, method and status, refused tokens by reason, commits by size", async () => {
    const before = await scrape(target());
    for (let times = 0; times < 3; times++) await put(target(), `/counted/${times}`, "x");
    await read(target(), "/counted/0");
    await read(target(), "/counted/none");
    await target().fetch("/counted/0", { headers: WITHOUT_TOKEN });
    const after = await scrape(target());
    const grown = (method: string, status: number) =>
      requestsOf(after, "/:bucket/:key", method, status) - requestsOf(before, "/:bucket/:key", method, status);
    expect([grown("PUT", 200), grown("GET", 200), grown("GET", 404), grown("GET", 401)]).toEqual([3, 1, 1, 1]);
    const figure = (text: string, name: string) => Number(new RegExp(`^${name} (\\d+)$`, "m").exec(text)?.[1] ?? 0);
    for (const [name, by] of [
      ['gokv_auth_failures_total\\{reason="missing"\\}', 1],
      ["gokv_commit_batch_items_sum", 3],
      ['gokv_http_request_duration_seconds_count\\{route="/:bucket/:key",method="PUT"\\}', 3],
    ] as const) {
      expect([name, figure(after, name) - figure(before, name)]).toEqual([name, by]);
    }
  });

  test("no bucket, key, token, id or query appears in them", async () => {
    const canary = "canary-7f3a";
    const token = await mint({ subject: `${canary}-sub`, tokenId: `${canary}-jti` });
    const headers = { Authorization: `Bearer ${token}`, "X-Request-Id": `${canary}-id`, "X-Meta-c": canary };
    const path = keyPath(`${canary}-bucket`, `${canary}-key`);
    for (const method of ["PUT", "GET", "HEAD", "PATCH", "OPTIONS", "DELETE"]) {
      await target().fetch(path, { method, headers, ...(method === "PUT" ? { body: canary } : {}) });
    }
    await target().fetch(`/${canary}`, { headers });
    await target().fetch(`/_meta${path}`, { headers });
    await target().fetch(`/_list?bucket=${canary}&x=1`, { headers });
    await target().fetch(path, { headers: { Authorization: `Bearer ${canary}.${canary}.${canary}` } });
    const text = await scrape(target());
    expect(text).not.toContain(canary);
    expect(text).not.toContain(token.split(".")[2]!);
    for (const [, labels] of text.matchAll(/^gokv_\w+\{(.*)\} /gm)) {
      for (const [, name, value] of labels!.matchAll(/(\w+)="([^"]*)"/g)) {
        expect(LABELS).toContain(name!);
        if (name === "route") expect(ROUTE_LABELS).toContain(value!);
      }
    }
  });
}

function seriesTests(target: () => Target): void {
  test("whatever methods strangers send to any route, each has a series for those that it takes, no more", async () => {
    const { paths } = await readJson<{ paths: Record<string, Record<string, unknown>> }>(target(), "/openapi.json");
    const taken = Object.entries(paths).map(([path, methods]) => [path.replaceAll(/\{\w+\}/g, "1"), methods] as const);
    for (const [path] of taken) {
      for (const method of [...METHODS, ...FOREIGN_METHODS]) {
        await (await target().fetch(path, { method, headers: WITHOUT_TOKEN })).arrayBuffer();
      }
    }
    const series = seriesIn(await scrape(target()));
    expect(series.filter(({ route, status }) => status === "405" && route !== "unmatched")).toEqual([]);
    expect(series.map(({ method }) => method).filter((method) => ![...METHODS, "OTHER"].includes(method))).toEqual([]);
    expect(series).toContainEqual({ route: "unmatched", method: "OTHER", status: "405" });
    // The document does not name itself. Who takes GET takes HEAD, and all take OPTIONS.
    const most = taken.reduce((sum, [, own]) => sum + Object.keys(own).length + ("get" in own ? 2 : 1), 1);
    const pairs = new Set(series.map(({ route, method }) => `${method} ${route}`));
    const catchAlls = ["unmatched", "/v1/*", "/api/v1/*"];
    expect(pairs.size).toBeLessThanOrEqual(most + catchAlls.length * (METHODS.length + 1));
  });
}

function modeTests(open: () => Target, off: () => Target): void {
  test("open: everybody may read the metrics", async () => {
    const response = await open().fetch("/metrics", { headers: WITHOUT_TOKEN });
    expect([response.status, (await response.text()).includes("gokv_build_info{")]).toEqual([200, true]);
  });

  test("off: there are no metrics, whoever asks", async () => {
    await expectError(await off().fetch("/metrics"), "route_not_found");
    await expectError(await off().fetch("/metrics", { headers: WITHOUT_TOKEN }), "route_not_found");
  });
}

function withoutKvTests(target: () => Target): void {
  test("without the KV service its routes are 404, and the probes answer", async () => {
    for (const path of ["/b/k", "/_list", "/_meta/b/k", "/b"]) {
      await expectError(await target().fetch(path), "route_not_found");
    }
    await expectError(await target().fetch("/b/k", { method: "PUT", body: "x" }), "route_not_found");
    expect(await readJson(target(), "/readyz")).toEqual({ status: "ready" });
  });
}
