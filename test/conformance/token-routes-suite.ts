// The routes of the token API: what each answers, to the byte where no time is in it, and how each refuses.

import { describe, expect, test } from "bun:test";
import type { ErrorCode } from "../../src/shared/errors.ts";
import { alterStore } from "../support/alter-store.ts";
import { put, readJson } from "../support/kv-requests.ts";
import type { OpenTarget, Target, TargetInit } from "../support/targets.ts";
import {
  expectAppHeaders,
  expectRefusal,
  ISO_TIME,
  importBatch,
  keysOf,
  store,
  storedText,
  textOf,
  WITHOUT_RATES,
} from "../support/token-answers.ts";
import { administer, asApp, install } from "../support/token-client.ts";
import { useTarget } from "../support/use-target.ts";

export function tokenRoutesSuite(name: string, open: OpenTarget): void {
  describe(`token routes on ${name}: their answers`, () => answerTests(useTarget(open, WITHOUT_RATES)));
  describe(`token routes on ${name}: the published examples`, () => exampleTests(useTarget(open, WITHOUT_RATES)));
  describe(`token routes on ${name}: lists`, () => listTests(useTarget(open, WITHOUT_RATES)));
  describe(`token routes on ${name}: who they speak for`, () => selfTests(useTarget(open, WITHOUT_RATES)));
  describe(`token routes on ${name}: conditions`, () => conditionTests(useTarget(open, WITHOUT_RATES)));
  describe(`token routes on ${name}: methods`, () => methodTests(useTarget(open, WITHOUT_RATES)));
  describe(`token routes on ${name}: refusals`, () => refusalTests(useTarget(open, { TOKEN_RATE_READ: "20" })));
  // A sweep that meets the store as it is then would end the server.
  const withoutSweep = { ...WITHOUT_RATES, SWEEP_INTERVAL: "1h" };
  describe(`token routes on ${name}: a store that fails`, () => failureTests(useTarget(open, withoutSweep)));
  describe(`token routes on ${name}: the document`, () => documentTests(useTarget(open)));
  describe(`token routes on ${name}: the alias`, () => {
    aliasTests(useTarget(open, { ...WITHOUT_RATES, TOKEN_KV_ALIAS: "1" }));
  });
}

interface Metadata {
  readonly key: string;
  readonly createdAt: string;
  readonly updatedAt: string;
  readonly creatorIp: string | null;
}

async function metadataOf(target: Target, token: string, key: string): Promise<Metadata> {
  return JSON.parse(await textOf(await asApp(target, token, `/${key}/metadata`))) as Metadata;
}

function answerTests(target: () => Target): void {
  test("a POST answers with namespace, key, created and the time, 200 for a new key and for an old one", async () => {
    const { uuid, token } = await install(target());
    for (const created of [true, false, false]) {
      const beforeMs = Date.now();
      const response = await asApp(target(), token, "/key1", { method: "POST", body: '{"data":"value1"}' });
      const text = await textOf(response);
      const { updatedAt } = JSON.parse(text) as { updatedAt: string };
      expect(text).toBe(JSON.stringify({ namespace: uuid, key: "key1", created, updatedAt }));
      expect(updatedAt).toMatch(ISO_TIME);
      expect(Date.parse(updatedAt)).toBeWithin(beforeMs, Date.now() + 1);
      expect(response.headers.get("content-type")).toBe("application/json");
      expect(response.headers.get("etag")).toMatch(/^"[1-9]\d*"$/);
    }
  });

  test("a GET answers with the bare value, its tag and what keeps it from running as a page", async () => {
    const { token } = await install(target());
    const { etag } = await store(target(), token, "key1", '{"data":"value1"}');
    for (const path of ["/key1", "/key1?other=1"]) {
      const response = await asApp(target(), token, path);
      expect(await textOf(response)).toBe('{"data":"value1"}');
      expect(response.headers.get("content-type")).toBe("application/json");
      expect(response.headers.get("etag")).toBe(etag);
      const policy = response.headers.get("content-security-policy")!.split("; ").toSorted();
      expect(policy).toEqual(["default-src 'none'", "sandbox"]);
    }
  });

  test("metadata has exactly key, both times and the address of the creator", async () => {
    const { token } = await install(target());
    const first = await store(target(), token, "key1", "1");
    const { createdAt, updatedAt } = await metadataOf(target(), token, "key1");
    expect([createdAt, updatedAt]).toEqual([first.updatedAt, first.updatedAt]);
    const expected = { key: "key1", createdAt, updatedAt, creatorIp: "127.0.0.1" };
    expect(await textOf(await asApp(target(), token, "/key1/metadata"))).toBe(JSON.stringify(expected));
  });

  test("an update moves one of the times, a delete and a new entry both", async () => {
    const { token } = await install(target());
    const first = await store(target(), token, "k", "1");
    await untilAfter(Date.parse(first.updatedAt));
    const second = await store(target(), token, "k", "2");
    expect(second.created).toBe(false);
    expect(await metadataOf(target(), token, "k")).toMatchObject({
      createdAt: first.updatedAt,
      updatedAt: second.updatedAt,
    });
    expect(second.updatedAt > first.updatedAt).toBe(true);
    expect((await asApp(target(), token, "/k", { method: "DELETE" })).status).toBe(204);
    const third = await store(target(), token, "k", "3");
    expect(third.created).toBe(true);
    const again = await metadataOf(target(), token, "k");
    expect([again.createdAt, again.updatedAt]).toEqual([third.updatedAt, third.updatedAt]);
  });

  test("deleting a key is 204 without a body, and the key is gone", async () => {
    const { token } = await install(target());
    await store(target(), token, "key1", "1");
    await store(target(), token, "key2", "2");
    const response = await asApp(target(), token, "/key1", { method: "DELETE" });
    expect([response.status, await response.text()]).toEqual([204, ""]);
    expectAppHeaders(response);
    expect(await storedText(target(), token, "key1")).toBeNull();
    expect(await keysOf(target(), token)).toEqual(["key2"]);
    await expectRefusal(await asApp(target(), token, "/key1", { method: "DELETE" }), "key_not_found");
  });

  test("deleting the namespace is 204, empty or not, with every key gone and no other namespace touched", async () => {
    const { uuid, token } = await install(target());
    const other = await install(target());
    for (const path of ["/", ""]) {
      for (const key of ["a", "b/c", "_x", "a%2Fmetadata"]) {
        await store(target(), token, key, "1");
        await store(target(), other.token, key, "1");
      }
      for (let times = 0; times < 2; times++) {
        const response = await asApp(target(), token, path, { method: "DELETE" });
        expect([response.status, await response.text()]).toEqual([204, ""]);
        expectAppHeaders(response);
        expect(await keysOf(target(), token)).toEqual([]);
        expect(await storedText(target(), token, "a")).toBeNull();
        expect(await readJson<string[]>(target(), `/_list?bucket=${uuid}`)).toEqual([]);
      }
      expect(await keysOf(target(), other.token)).toEqual(["_x", "a", "a/metadata", "b/c"]);
    }
    await target().restart();
    expect(await keysOf(target(), token)).toEqual([]);
  });

  test("a batch of two new keys has two results and no errors member", async () => {
    const { uuid, token } = await install(target());
    const body = '{"key1":{"data":"value1"},"key2":{"data":"value2"}}';
    const response = await asApp(target(), token, "/_batchimport", { method: "POST", body });
    const results = [
      { key: "key1", created: true },
      { key: "key2", created: true },
    ];
    expect(await textOf(response)).toBe(
      JSON.stringify({ namespace: uuid, total: 2, successful: 2, failed: 0, results }),
    );
    expect(response.headers.get("content-type")).toBe("application/json");
    expect((await importBatch(target(), token, '{"key2":1,"key3":2}')).results).toEqual([
      { key: "key2", created: false },
      { key: "key3", created: true },
    ]);
  });

  test("HEAD answers every GET with the same headers and no body", async () => {
    const { uuid, token } = await install(target());
    await store(target(), token, "k", '{"a":1}');
    await put(target(), `/${uuid}/large`, new Uint8Array(2 * 1024 * 1024));
    await put(target(), `/${uuid}/ends`, "x", { "X-TTL": "60" });
    for (const path of ["/", "/_keys", "/_info", "/_token", "/k", "/k/metadata", "/ends", "/none", "/none/metadata"]) {
      const get = await asApp(target(), token, path);
      const length = (await get.arrayBuffer()).byteLength;
      const head = await asApp(target(), token, path, { method: "HEAD" });
      expect([path, head.status, await head.text()]).toEqual([path, get.status, ""]);
      expect([path, head.headers.get("content-length")]).toEqual([path, `${length}`]);
      for (const header of ["content-type", "etag", "content-security-policy", "last-modified"]) {
        expect([path, header, head.headers.get(header)]).toEqual([path, header, get.headers.get(header)]);
      }
      expectAppHeaders(head);
    }
    const { headers } = await asApp(target(), token, "/large", { method: "HEAD" });
    expect(headers.get("content-length")).toBe(`${2 * 1024 * 1024}`);
  });
}

/** Nothing but the clock tells that a millisecond has passed. */
async function untilAfter(timeMs: number): Promise<void> {
  while (Date.now() <= timeMs) await Bun.sleep(1);
}

function exampleTests(target: () => Target): void {
  test("the seven published answers come in the published form", async () => {
    const { token } = await install(target(), {}, "device-uuid");
    const time = "2024-01-01T00:00:00Z";
    const shown = async (path: string, init?: TargetInit) =>
      (await textOf(await asApp(target(), token, path, init))).replaceAll(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, time);
    expect(JSON.parse(await shown("/key1", { method: "POST", body: '{\n  "data": "value1"\n}' }))).toEqual({
      namespace: "device-uuid",
      key: "key1",
      created: true,
      updatedAt: time,
    });
    expect(JSON.parse(await shown("/"))).toEqual({
      items: [{ key: "key1", value: { data: "value1" }, createdAt: time, updatedAt: time }],
      total_rows: 1,
    });
    expect(JSON.parse(await shown("/key1"))).toEqual({ data: "value1" });
    expect(JSON.parse(await shown("/key1/metadata"))).toEqual({
      key: "key1",
      createdAt: time,
      updatedAt: time,
      creatorIp: "127.0.0.1",
    });
    expect((await asApp(target(), token, "/key1", { method: "DELETE" })).status).toBe(204);
    const body = '{\n  "key1": { "data": "value1" },\n  "key2": { "data": "value2" }\n}';
    expect(JSON.parse(await shown("/_batchimport", { method: "POST", body }))).toEqual({
      namespace: "device-uuid",
      total: 2,
      successful: 2,
      failed: 0,
      results: [
        { key: "key1", created: true },
        { key: "key2", created: true },
      ],
    });
    await store(target(), token, "key3", "3");
    expect(JSON.parse(await shown("/_keys"))).toEqual({
      keys: ["key1", "key2", "key3"],
      total_rows: 3,
      current_page: { limit: 100, skip: 0, count: 3 },
    });
    expect((await asApp(target(), token, "/", { method: "DELETE" })).status).toBe(204);
    expect(await keysOf(target(), token)).toEqual([]);
  });

  test("the walk through a room's board answers as it is described", async () => {
    const { token } = await install(target(), {}, "room-301");
    const url = `${target().url}/kv/token`;
    const bearer = { Authorization: `Bearer ${token}` };
    const json = { "Content-Type": "application/json" };
    const posted = await fetch(`${url}/key1`, {
      method: "POST",
      headers: { ...bearer, ...json },
      body: '{"data":"value1"}',
    });
    const { updatedAt } = (await posted.json()) as { updatedAt: string };
    expect(await (await fetch(`${url}/key1?token=${token}`)).text()).toBe('{"data":"value1"}');
    const metadata = await fetch(`${url}/key1/metadata`, { headers: { "X-App-Token": token } });
    expect(await metadata.text()).toBe(
      `{"key":"key1","createdAt":"${updatedAt}","updatedAt":"${updatedAt}","creatorIp":"127.0.0.1"}`,
    );
    const body = `{"token":"${token}","key2":[1.0],"_keys":1}`;
    expect(await (await fetch(`${url}/_batchimport`, { method: "POST", headers: json, body })).text()).toBe(
      '{"namespace":"room-301","total":2,"successful":1,"failed":1,"results":[{"key":"key2","created":true}],' +
        '"errors":[{"key":"_keys","error":"this key name is reserved","code":"key_reserved"}]}',
    );
    expect(await (await fetch(`${url}/_keys?limit=1`, { headers: bearer })).text()).toBe(
      '{"keys":["key1"],"total_rows":2,"current_page":{"limit":1,"skip":0,"count":1},' +
        '"load_more":"/kv/token/_keys?sortBy=key&sortDir=asc&limit=1&skip=1"}',
    );
    expect(await (await target().fetch("/room-301/key2")).text()).toBe("[1.0]");
    const revoked = await fetch(`${url}/key1`, { headers: { Authorization: "Bearer revoked-token-000" } });
    expect([revoked.status, revoked.headers.get("www-authenticate")]).toEqual([401, "Bearer"]);
    expect(await revoked.text()).toBe('{"statusCode":401,"message":"missing or invalid token","code":"token_invalid"}');
  });
}

function listTests(target: () => Target): void {
  test("an empty namespace has the default limit and skip, and no keys", async () => {
    const { token } = await install(target());
    for (const path of ["/_keys", "/_keys?sortBy=key&sortDir=asc&limit=100&skip=0"]) {
      expect(await textOf(await asApp(target(), token, path))).toBe(
        '{"keys":[],"total_rows":0,"current_page":{"limit":100,"skip":0,"count":0}}',
      );
    }
    for (const path of ["/", "", "?limit=100"]) {
      expect(await textOf(await asApp(target(), token, path))).toBe('{"items":[],"total_rows":0}');
    }
  });

  test("the defaults are by key, ascending, a hundred at a time from the first", async () => {
    const { token } = await install(target());
    const keys = Array.from({ length: 101 }, (_, index) => `k${1000 + index}`);
    await importBatch(target(), token, JSON.stringify(Object.fromEntries(keys.toReversed().map((key) => [key, key]))));
    const next = "sortBy=key&sortDir=asc&limit=100&skip=100";
    expect(await textOf(await asApp(target(), token, "/_keys"))).toBe(
      JSON.stringify({
        keys: keys.slice(0, 100),
        total_rows: 101,
        current_page: { limit: 100, skip: 0, count: 100 },
        load_more: `/kv/token/_keys?${next}`,
      }),
    );
    const values = JSON.parse(await textOf(await asApp(target(), token, "/"))) as {
      items: { key: string }[];
      total_rows: number;
      load_more: string;
    };
    expect(Object.keys(values)).toEqual(["items", "total_rows", "load_more"]);
    expect(values.items.map(({ key }) => key)).toEqual(keys.slice(0, 100));
    expect([values.total_rows, values.load_more]).toEqual([101, `/kv/token/?${next}`]);
    expect(await textOf(await asApp(target(), token, `/_keys?${next}`))).toBe(
      JSON.stringify({ keys: keys.slice(100), total_rows: 101, current_page: { limit: 100, skip: 100, count: 1 } }),
    );
  });

  test("keys come without values, values with their text as stored and both times", async () => {
    const { token } = await install(target());
    const texts = { a: '{ "x" : 1.0 }', b: "null", c: "[\n]", d: '"\\u0041"', e: "12345678901234567890" };
    const times: Record<string, string> = {};
    for (const [key, text] of Object.entries(texts)) {
      times[key] = (await store(target(), token, key, text)).updatedAt;
    }
    expect(await textOf(await asApp(target(), token, "/_keys"))).toBe(
      '{"keys":["a","b","c","d","e"],"total_rows":5,"current_page":{"limit":100,"skip":0,"count":5}}',
    );
    const items = Object.entries(texts).map(
      ([key, text]) => `{"key":"${key}","value":${text},"createdAt":"${times[key]}","updatedAt":"${times[key]}"}`,
    );
    const response = await asApp(target(), token, "/");
    expect(response.headers.get("content-type")).toBe("application/json");
    expect(await textOf(response)).toBe(`{"items":[${items.join(",")}],"total_rows":5}`);
  });

  test("the main mount with and without its last slash is one route", async () => {
    const { token } = await install(target());
    await store(target(), token, "k", "1");
    const [bare, slashed] = [await asApp(target(), token, ""), await asApp(target(), token, "/")];
    expect(await textOf(bare)).toBe(await textOf(slashed));
  });
}

function selfTests(target: () => Target): void {
  test("_info shows the device and nothing of the token", async () => {
    const uuid = crypto.randomUUID();
    const device = await administer(target(), "POST", "/devices", { uuid, name: "Room 301 ☀" });
    const { createdAt, updatedAt } = (await device.json()) as { createdAt: string; updatedAt: string };
    const { token } = await install(target(), {}, uuid);
    const shown = { id: uuid, uuid, name: "Room 301 ☀", createdAt, updatedAt };
    expect(await textOf(await asApp(target(), token, "/_info"))).toBe(
      JSON.stringify({ device: shown, hasAccount: false }),
    );
  });

  test("_token shows what the token may do, but not the token", async () => {
    const uuid = crypto.randomUUID();
    const expiresAt = new Date(Date.now() + 3_600_000).toISOString();
    const rights = { permissionPrefix: "p", permissionKey: ["a", "read:b"], isReadOnly: true, expiresAt };
    const { id, token } = await install(target(), rights, uuid);
    const { installedAt } = JSON.parse(await textOf(await asApp(target(), token, "/_token"))) as {
      installedAt: string;
    };
    expect(installedAt).toMatch(ISO_TIME);
    const text = await textOf(await asApp(target(), token, "/_token"));
    expect(text).toBe(
      JSON.stringify({
        success: true,
        id,
        appId: "suite",
        deviceType: null,
        isReadOnly: true,
        note: null,
        tokenHint: token.slice(-4),
        permissionPrefix: "p",
        permissionKey: ["a", "read:b"],
        expiresAt,
        installedAt,
        updatedAt: installedAt,
        device: { id: uuid, uuid, name: null, namespace: uuid },
      }),
    );
    expect(text).not.toContain(token);
  });

  test("_token of a plain token has the fields that were not given as null, empty or false", async () => {
    const { id, uuid, token } = await install(target());
    const change = { note: "Wall", deviceType: "kiosk" };
    expect((await administer(target(), "PATCH", `/installations/${id}`, change)).status).toBe(200);
    const shown = JSON.parse(await textOf(await asApp(target(), token, "/_token"))) as Record<string, unknown>;
    expect(shown).toEqual({
      success: true,
      id,
      appId: "suite",
      deviceType: "kiosk",
      isReadOnly: false,
      note: "Wall",
      tokenHint: token.slice(-4),
      permissionPrefix: null,
      permissionKey: [],
      expiresAt: null,
      installedAt: shown.installedAt,
      updatedAt: shown.updatedAt,
      device: { id: uuid, uuid, name: null, namespace: uuid },
    });
  });
}

function conditionTests(target: () => Target): void {
  test("If-None-Match of a read is 304 while the entry is the same, and the value once it is not", async () => {
    const { token } = await install(target());
    const { etag } = await store(target(), token, "k", "1");
    const read = (tags: string, method = "GET") =>
      asApp(target(), token, "/k", { method, headers: { "If-None-Match": tags } });
    for (const tags of [etag, `W/${etag}`, `"0", ${etag}`, "*"]) {
      for (const method of ["GET", "HEAD"]) {
        const response = await read(tags, method);
        expect([tags, response.status, await response.text()]).toEqual([tags, 304, ""]);
        expect(response.headers.get("etag")).toBe(etag);
        expectAppHeaders(response);
      }
    }
    expect(await textOf(await read('"0"'))).toBe("1");
    await store(target(), token, "k", "2");
    expect(await textOf(await read(etag))).toBe("2");
  });

  test("a write with a stale If-Match is 412 with the tag that holds, and changes nothing", async () => {
    const { token } = await install(target());
    const stale = (await store(target(), token, "k", "1")).etag;
    const { etag } = await store(target(), token, "k", "2");
    for (const init of [{ method: "POST", body: "3" }, { method: "DELETE" }]) {
      const response = await asApp(target(), token, "/k", { ...init, headers: { "If-Match": stale } });
      expect(response.headers.get("etag")).toBe(etag);
      await expectRefusal(response, "precondition_failed");
      expect(await storedText(target(), token, "k")).toBe("2");
    }
    const next = await store(target(), token, "k", "3", { headers: { "If-Match": etag } });
    expect(await storedText(target(), token, "k")).toBe("3");
    const gone = await asApp(target(), token, "/k", { method: "DELETE", headers: { "If-Match": next.etag } });
    expect(gone.status).toBe(204);
    expect(await storedText(target(), token, "k")).toBeNull();
  });

  test("If-Match of an absent key is 412 and creates nothing", async () => {
    const { token } = await install(target());
    for (const tags of ["*", '"1"']) {
      const init = { method: "POST", body: "1", headers: { "If-Match": tags } };
      await expectRefusal(await asApp(target(), token, "/k", init), "precondition_failed");
    }
    expect(await storedText(target(), token, "k")).toBeNull();
  });

  test("If-None-Match: * creates, and on an existing key is 412", async () => {
    const { token } = await install(target());
    const headers = { "If-None-Match": "*" };
    expect((await store(target(), token, "k", "1", { headers })).created).toBe(true);
    const init = { method: "POST", body: "2", headers };
    await expectRefusal(await asApp(target(), token, "/k", init), "precondition_failed");
    expect(await storedText(target(), token, "k")).toBe("1");
  });

  test("a condition on many keys at once is refused, and nothing is stored or deleted", async () => {
    const { token } = await install(target());
    const { etag } = await store(target(), token, "k", "1");
    const requests: readonly (readonly [path: string, init: TargetInit])[] = [
      ["/_batchimport", { method: "POST", body: '{"k":2,"new":2}' }],
      ["/", { method: "DELETE" }],
    ];
    for (const [path, init] of requests) {
      for (const [name, value] of [
        ["If-Match", '"0"'],
        ["If-Match", etag],
        ["If-Match", "*"],
        ["If-None-Match", "*"],
        ["If-None-Match", "unquoted"],
        ["If-Unmodified-Since", new Date(0).toUTCString()],
      ] as const) {
        const response = await asApp(target(), token, path, { ...init, headers: { [name]: value } });
        expect([path, name, value, response.status]).toEqual([path, name, value, 400]);
        await expectRefusal(response, "precondition_unsupported");
      }
    }
    expect(await keysOf(target(), token)).toEqual(["k"]);
    expect(await storedText(target(), token, "k")).toBe("1");
    const readOnly = await install(target(), { isReadOnly: true });
    for (const [path, init] of requests) {
      const denied = await asApp(target(), readOnly.token, path, { ...init, headers: { "If-Match": "*" } });
      expect(denied.status).toBe(403);
    }
  });

  test("a part of a value is refused, it would be stored as the whole", async () => {
    const { token } = await install(target());
    await store(target(), token, "k", "123456");
    for (const [path, body] of [
      ["/k", "34"],
      ["/_batchimport", '{"k":34}'],
    ] as const) {
      const response = await asApp(target(), token, path, {
        method: "POST",
        body,
        headers: { "Content-Range": "bytes 2-3/6" },
      });
      expect([path, response.status]).toEqual([path, 400]);
      await expectRefusal(response, "content_range_unsupported");
    }
    expect(await storedText(target(), token, "k")).toBe("123456");
  });

  test("a time to live is refused, since what an app stores has none", async () => {
    const { token } = await install(target());
    for (const [path, body] of [
      ["/k", "1"],
      ["/_batchimport", '{"k":1}'],
    ] as const) {
      for (const [query, headers] of [
        ["?ttl=60", {}],
        ["?x=1&%74tl=60", {}],
        ["?ttl", {}],
        ["", { "X-TTL": "60" }],
      ] as const) {
        const response = await asApp(target(), token, `${path}${query}`, { method: "POST", body, headers });
        expect([path, query, response.status]).toEqual([path, query, 400]);
        await expectRefusal(response, "invalid_parameter");
      }
    }
    expect(await keysOf(target(), token)).toEqual([]);
    const other = await asApp(target(), token, "/k?x=1", { method: "POST", body: "1" });
    expect(other.status).toBe(200);
  });
}

const KEY_ALLOW = "GET, HEAD, POST, DELETE, OPTIONS";
/** Paths below the mount and the methods they take. */
const ALLOWED: readonly (readonly [path: string, allow: string])[] = [
  ["", "GET, HEAD, DELETE, OPTIONS"],
  ["/", "GET, HEAD, DELETE, OPTIONS"],
  ["/k", KEY_ALLOW],
  ["/a/b", KEY_ALLOW],
  ["/metadata", KEY_ALLOW],
  ["/a%2Fmetadata", KEY_ALLOW],
  ["/k/metadata", "GET, HEAD, OPTIONS"],
  ["/a/b/metadata", "GET, HEAD, OPTIONS"],
  ["/_keys/metadata", "GET, HEAD, OPTIONS"],
  ["/_keys", KEY_ALLOW],
  ["/_batchimport", KEY_ALLOW],
  ["/_info", KEY_ALLOW],
  ["/_token", KEY_ALLOW],
];

function methodTests(target: () => Target): void {
  test("OPTIONS is 204 without a token", async () => {
    for (const [path, allow] of ALLOWED) {
      const response = await target().fetch(`/kv/token${path}`, {
        method: "OPTIONS",
        headers: { Authorization: null },
      });
      expect([path, response.status, await response.text()]).toEqual([path, 204, ""]);
      expect([path, response.headers.get("allow")]).toEqual([path, allow]);
      expectAppHeaders(response);
    }
  });

  test("a method that a path does not take is 405 with those it takes, before the token is looked at", async () => {
    const { token } = await install(target());
    for (const [path, allow] of ALLOWED) {
      for (const method of ["PUT", "PATCH", "POST", "DELETE"]) {
        // A POST without a key has its own answer.
        if (allow.includes(method) || (method === "POST" && path.length < 2)) continue;
        for (const Authorization of [`Bearer ${token}`, null]) {
          const response = await target().fetch(`/kv/token${path}`, { method, headers: { Authorization } });
          expect([method, path, response.status]).toEqual([method, path, 405]);
          expect(response.headers.get("allow")).toBe(allow);
          await expectRefusal(response, "method_not_allowed");
        }
      }
    }
    expect(await keysOf(target(), token)).toEqual([]);
  });
}

/** One request for each status that a client can cause, and the code it is told. */
const REFUSED: readonly (readonly [path: string, init: TargetInit, code: ErrorCode])[] = [
  ["/%FF", {}, "path_invalid"],
  ["/mine.k", { method: "POST", body: "{" }, "invalid_json"],
  ["/_keys?limit=-1", {}, "invalid_parameter"],
  ["/k", { headers: { Authorization: null } }, "token_missing"],
  ["/k", { headers: { Authorization: "Bearer revoked-token-000" } }, "token_invalid"],
  ["/theirs", {}, "read_denied"],
  ["/theirs", { method: "POST", body: "1" }, "write_denied"],
  ["/", { method: "DELETE" }, "namespace_denied"],
  ["/mine.none", {}, "key_not_found"],
  ["/mine", { method: "PUT", body: "1" }, "method_not_allowed"],
  ["/mine.k", { method: "POST", body: "1", headers: { "If-Match": "*" } }, "precondition_failed"],
  ["/mine.k", { method: "POST", body: "1".repeat(1_048_577) }, "body_too_large"],
];

function refusalTests(target: () => Target): void {
  test("every status has its body: statusCode, a message and a code", async () => {
    const { token } = await install(target(), { permissionPrefix: "mine" });
    for (const [path, init, code] of REFUSED) await expectRefusal(await asApp(target(), token, path, init), code);
  });

  test("too many requests are 429 with the time to wait", async () => {
    const { token } = await install(target());
    for (let times = 0; times < 20; times++) await textOf(await asApp(target(), token, "/_info"));
    const response = await asApp(target(), token, "/_info");
    expect(Number(response.headers.get("retry-after"))).toBeWithin(1, 61);
    await expectRefusal(response, "rate_limited");
  });
}

function failureTests(target: () => Target): void {
  test("a read that fails in the store is 500 without a word of the store", async () => {
    const { token } = await install(target());
    await store(target(), token, "kept", "1");
    // Starts the thread for what takes long, which must fail in the middle of its life as well.
    await textOf(await asApp(target(), token, "/"));
    await alterStore(target().dbPath, "ALTER TABLE kv RENAME TO kv_elsewhere");
    for (const path of ["/k", "/k/metadata", "/_keys", "/_keys?sortBy=createdAt", "/"]) {
      const response = await asApp(target(), token, path);
      expect([path, await response.clone().text()]).not.toEqual([path, expect.stringMatching(/sql|table|kv_|\/tmp/i)]);
      await expectRefusal(response, "internal_error");
    }
    await alterStore(target().dbPath, "ALTER TABLE kv_elsewhere RENAME TO kv");
    expect(await keysOf(target(), token)).toEqual(["kept"]);
    expect(await storedText(target(), token, "kept")).toBe("1");
  });
}

/** Every route, its method and what it answers when all is well. */
const DOCUMENTED: readonly (readonly [path: string, method: string, answers: readonly number[]])[] = [
  ["/kv/token/_keys", "get", [200]],
  ["/kv/token/", "get", [200]],
  ["/kv/token/", "delete", [204]],
  ["/kv/token/{key}", "get", [200, 304]],
  ["/kv/token/{key}", "post", [200]],
  ["/kv/token/{key}", "delete", [204]],
  ["/kv/token/{key}/metadata", "get", [200]],
  ["/kv/token/_batchimport", "post", [200]],
  ["/kv/token/_info", "get", [200]],
  ["/kv/token/_token", "get", [200]],
];
/** Refusals of a route besides 401, 429, 500 and 503, which all of them have. */
const REFUSALS: Readonly<Record<string, readonly number[]>> = {
  "/kv/token/_keys get": [400],
  "/kv/token/ get": [400],
  "/kv/token/ delete": [403],
  "/kv/token/{key} get": [400, 403, 404],
  "/kv/token/{key} post": [400, 403, 412, 413, 507],
  "/kv/token/{key} delete": [400, 403, 404, 412],
  "/kv/token/{key}/metadata get": [400, 403, 404],
  "/kv/token/_batchimport post": [400, 403, 413, 507],
};

interface OpenApi {
  readonly openapi: string;
  readonly paths: Readonly<Record<string, Readonly<Record<string, { readonly responses: object }>>>>;
}

function documentTests(target: () => Target): void {
  test("every route stands in the served document with its answers and refusals, and no other", async () => {
    const document = (await (await fetch(`${target().url}/openapi.json`)).json()) as OpenApi;
    expect(document.openapi).toStartWith("3.1");
    const routes = Object.entries(document.paths)
      .filter(([path]) => path.startsWith("/kv/token"))
      .flatMap(([path, methods]) => Object.keys(methods).map((method) => `${path} ${method}`));
    expect(routes.toSorted()).toEqual(DOCUMENTED.map(([path, method]) => `${path} ${method}`).toSorted());
    for (const [path, method, answers] of DOCUMENTED) {
      const statuses = Object.keys(document.paths[path]![method]!.responses).map(Number);
      const expected = [...answers, ...(REFUSALS[`${path} ${method}`] ?? []), 401, 429, 500, 503];
      expect([path, method, expected.filter((status) => !statuses.includes(status))]).toEqual([path, method, []]);
    }
  });
}

function aliasTests(target: () => Target): void {
  test("a client with the shorter path built in works unchanged: board, settings, one key a day", async () => {
    const { uuid, token } = await install(target());
    const ask = (path: string, init: RequestInit = {}) =>
      fetch(`${target().url}/kv/${path}`, {
        ...init,
        headers: { Accept: "application/json", "Content-Type": "application/json", "X-App-Token": token },
      });
    const info = (await (await ask("_info")).json()) as { device: { uuid: string } };
    expect(info.device.uuid).toBe(uuid);
    // No data yet is an answer, not a failure.
    await expectRefusal(await ask("classworks-data-20240101"), "key_not_found");
    const posted = await ask("classworks-data-20240101", { method: "POST", body: '{"homework":{"数学":"p. 5"}}' });
    expect(Object.keys((await posted.json()) as object)).toEqual(["namespace", "key", "created", "updatedAt"]);
    expect(await (await ask("classworks-data-20240101")).text()).toBe('{"homework":{"数学":"p. 5"}}');
    await ask("classworks-config:班级 1", { method: "POST", body: "{}" });
    expect(await (await ask("_keys?sortBy=key&sortDir=asc&limit=1&skip=0")).json()).toEqual({
      keys: ["classworks-config:班级 1"],
      total_rows: 2,
      current_page: { limit: 1, skip: 0, count: 1 },
      load_more: "/kv/_keys?sortBy=key&sortDir=asc&limit=1&skip=1",
    });
    const more = await ask("_keys?sortBy=key&sortDir=asc&limit=1&skip=1");
    expect(((await more.json()) as { keys: string[] }).keys).toEqual(["classworks-data-20240101"]);
    const batch = await ask("_batchimport", { method: "POST", body: '{"a":1,"b":2}' });
    const results = [
      { key: "a", created: true },
      { key: "b", created: true },
    ];
    expect(await batch.json()).toEqual({ namespace: uuid, total: 2, successful: 2, failed: 0, results });
    expect((await ask("a", { method: "DELETE" })).status).toBe(204);
    const self = (await (await ask("_token")).json()) as { success: boolean };
    expect(self.success).toBe(true);
  });

  test("both mounts serve the same entries, and below the longer path it is always the main one", async () => {
    const { token } = await install(target());
    const headers = { Authorization: null, "X-App-Token": token };
    const at = async (path: string) => textOf(await target().fetch(path, { headers }));
    await store(target(), token, "k", "1");
    await store(target(), token, "k2", "1");
    expect([await at("/kv/k"), await at("/kv/token/k")]).toEqual(["1", "1"]);
    expect(await at("/kv/k/metadata")).toBe(await at("/kv/token/k/metadata"));
    expect(await at("/kv/")).toBe(await at("/kv/token/"));
    expect(await at("/kv")).toBe(await at("/kv/token"));
    expect(await at("/kv/?limit=1")).toContain('"load_more":"/kv/?sortBy=key');
    expect(await at("/kv/token/?limit=1")).toContain('"load_more":"/kv/token/?sortBy=key');
    const key = await target().fetch("/kv/token%2Fk", { method: "POST", body: "2", headers });
    expect(await key.json()).toMatchObject({ key: "token/k" });
    expect(await keysOf(target(), token)).toEqual(["k", "k2", "token/k"]);
  });
}
