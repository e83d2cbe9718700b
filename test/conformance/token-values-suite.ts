// Values of the token API: JSON that is kept byte for byte, and entries that the operator's routes made or see.

import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expectTime } from "../support/figures-in-bounds.ts";
import { put, read, readJson } from "../support/kv-requests.ts";
import { sendRaw } from "../support/raw-request.ts";
import type { OpenTarget, Target, TargetInit } from "../support/targets.ts";
import {
  expectAppHeaders,
  expectRefusal,
  importBatch,
  keysOf,
  store,
  storedText,
  textOf,
  unannounced,
  WITHOUT_RATES,
} from "../support/token-answers.ts";
import { asApp, install } from "../support/token-client.ts";
import { useTarget } from "../support/use-target.ts";

const KiB = 1024;
const MiB = 1024 * KiB;

export function tokenValuesSuite(name: string, open: OpenTarget): void {
  describe(`token values on ${name}: as they are sent`, () => textTests(useTarget(open, WITHOUT_RATES)));
  describe(`token values on ${name}: refused ones`, () => refusedTests(useTarget(open, WITHOUT_RATES)));
  describe(`token values on ${name}: size and depth`, () => {
    sizeTests(useTarget(open, WITHOUT_RATES), useTarget(open, { ...WITHOUT_RATES, TOKEN_MAX_VALUE_BYTES: "100KiB" }));
  });
  describe(`token values on ${name}: the public vectors`, () => vectorTests(useTarget(open, WITHOUT_RATES)));
  describe(`token values on ${name}: beside the operator's`, () => operatorTests(useTarget(open, WITHOUT_RATES)));
  describe(`token values on ${name}: expiry`, () => {
    expiryTests(useTarget(open, { ...WITHOUT_RATES, SWEEP_INTERVAL: "1h" }));
  });
}

/** Texts that a parser would write differently, or take for nothing. */
const TEXTS: readonly string[] = [
  '{ "b": 1.0,  "a":\t12345678901234567890 }',
  "\r\n { } \n",
  '{"a":1,"a":2}',
  '{"b":1,"a":2,"1":3,"0":4}',
  '{"__proto__":{"x":1},"constructor":1}',
  '["\\u0041\\/\\ud83d\\ude00", "😀", "\\ud800"]',
  "[1E400, -0, 0.1e-7, 1e0]",
  '"\\u2028\u2028\u2029"',
  "null",
  "false",
  "true",
  "0",
  "-0.0",
  '""',
  "[]",
  "{}",
  " null ",
];

function textTests(target: () => Target): void {
  test("every text reads back as it was sent: by token, on the operator's route, and in the list", async () => {
    const { uuid, token } = await install(target());
    for (const [index, text] of TEXTS.entries()) {
      await store(target(), token, `k${100 + index}`, text);
      const response = await asApp(target(), token, `/k${100 + index}`);
      expect([text, await textOf(response)]).toEqual([text, text]);
      expect(response.headers.get("content-type")).toBe("application/json");
      const operators = await target().fetch(`/${uuid}/k${100 + index}`);
      expect([operators.status, await operators.text()]).toEqual([200, text]);
      expect(operators.headers.get("content-type")).toBe("application/json");
    }
    const list = await textOf(await asApp(target(), token, "/"));
    const { items } = JSON.parse(list) as { items: { value: unknown }[] };
    expect(items.map(({ value }) => value)).toEqual(TEXTS.map((text) => JSON.parse(text)));
    for (const text of TEXTS) expect(list).toContain(`"value":${text},`);
  });

  test("a value is read in part and under conditions, as those of the operator are", async () => {
    const { token } = await install(target());
    await store(target(), token, "k", '{"a":1}');
    const read = async (headers: Record<string, string>) => {
      const response = await asApp(target(), token, "/k", { headers });
      return [response.status, await response.text()];
    };
    expect(await read({ Range: "bytes=0-0" })).toEqual([206, "{"]);
    expect((await read({ Range: "bytes=99-" }))[0]).toBe(416);
    expect((await read({ "If-Match": '"999"' }))[0]).toBe(412);
  });

  test("every text comes through a batch as it was sent, without the space around it", async () => {
    const { token } = await install(target());
    const members = TEXTS.map((text, index) => ` "k${index}" :\t${text} `);
    expect((await importBatch(target(), token, `{${members.join(",")}}`)).successful).toBe(TEXTS.length);
    for (const [index, text] of TEXTS.entries()) {
      expect(await storedText(target(), token, `k${index}`)).toBe(text.trim());
    }
  });

  test("values are still there after a restart", async () => {
    const { token } = await install(target());
    for (const [index, text] of TEXTS.entries()) await store(target(), token, `k${index}`, text);
    await target().restart();
    for (const [index, text] of TEXTS.entries()) expect(await storedText(target(), token, `k${index}`)).toBe(text);
  });

  test("an object that names prototypes changes none", async () => {
    const { token } = await install(target());
    await store(target(), token, "k", '{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}}}');
    await importBatch(target(), token, '{"__proto__":{"polluted":1}}');
    const shown = JSON.parse(await textOf(await asApp(target(), token, "/_token"))) as Record<string, unknown>;
    expect([shown.polluted, ({} as Record<string, unknown>).polluted]).toEqual([undefined, undefined]);
  });
}

/** Bodies and headers that are refused; the rest of each request is right. */
const REFUSED: readonly (readonly [what: string, init: TargetInit, code: "invalid_json" | "invalid_content_type"])[] = [
  ["an empty body", { body: "" }, "invalid_json"],
  ["spaces only", { body: " \n" }, "invalid_json"],
  ["text that is no JSON", { body: "data=value" }, "invalid_json"],
  ["two texts", { body: "1 2" }, "invalid_json"],
  ["a byte order mark", { body: "\ufeff{}" }, "invalid_json"],
  ["invalid UTF-8", { body: new Uint8Array([0x22, 0xff, 0x22]) }, "invalid_json"],
  ["an overlong form", { body: new Uint8Array([0x22, 0xc0, 0xaf, 0x22]) }, "invalid_json"],
  ["a lone surrogate", { body: new Uint8Array([0x22, 0xed, 0xa0, 0x80, 0x22]) }, "invalid_json"],
  ["UTF-16", { body: new Uint8Array([0x7b, 0, 0x7d, 0]) }, "invalid_json"],
  ["a NUL behind it", { body: "1\0" }, "invalid_json"],
  ["NaN", { body: "NaN" }, "invalid_json"],
  ["a comment", { body: "1 // one" }, "invalid_json"],
  ...[
    "text/plain",
    "text/plain;charset=utf-8",
    "text/json",
    "application/x-www-form-urlencoded",
    "application/jsonp",
    "multipart/form-data; boundary=x",
    "application/octet-stream",
    "application/json; charset=gbk",
    "json",
    "application/json; charset=utf-16",
    "application/json, text/plain",
    "application/json+x",
    "application/json; charset",
    "application/json; charset=",
    'application/json; charset="utf-8',
    'application/json; foo="bar',
    "application/json; foo=a b",
    "application/json; foo=bar; charset=gbk",
    "application/json; charset=utf-8; charset=gbk",
    `application/json; foo=${"x".repeat(255)}`,
    "application/+json",
  ].map((type) => [type, { body: "{}", headers: { "Content-Type": type } }, "invalid_content_type"] as const),
  ...["gzip", "br", "identity"].map(
    (encoding) =>
      [
        encoding,
        { body: Bun.gzipSync("{}"), headers: { "Content-Encoding": encoding } },
        "invalid_content_type",
      ] as const,
  ),
];

function refusedTests(target: () => Target): void {
  test("what is no JSON, or not said to be, is 400, and the old value stays", async () => {
    const { token } = await install(target());
    const { etag } = await store(target(), token, "k", '{"old":1}');
    for (const [what, init, code] of REFUSED) {
      for (const path of ["/k", "/_batchimport"]) {
        const response = await asApp(target(), token, path, { method: "POST", ...init });
        expect([what, path, response.status]).toEqual([what, path, 400]);
        await expectRefusal(response, code);
      }
    }
    const response = await asApp(target(), token, "/k");
    expect([response.headers.get("etag"), await textOf(response)]).toEqual([etag, '{"old":1}']);
    expect(await keysOf(target(), token)).toEqual(["k"]);
  });

  test("a body without a length, and none at all, is an empty one", async () => {
    const { token } = await install(target());
    const init = { method: "POST", headers: { "Content-Type": "application/json" } };
    await expectRefusal(await asApp(target(), token, "/k", init), "invalid_json");
    expect(await keysOf(target(), token)).toEqual([]);
  });

  test("JSON may be said in several ways, and not at all", async () => {
    const { token } = await install(target());
    for (const type of [
      "application/json",
      "Application/JSON",
      "application/json;charset=utf-8",
      "application/json; charset=UTF-8",
      'application/json; charset="utf-8"',
      "application/ld+json",
      "application/vnd.api+json",
      "model/gltf+json",
      "application/problem+json; charset=utf-8",
      'application/ld+json; profile="http://www.w3.org/ns/json-ld#compacted"',
      "application/json; foo=bar",
      'application/json;foo="a;charset=gbk \\" b" ; Charset=UTF-8;version=1',
      "application/json;",
      "",
    ]) {
      await store(target(), token, "k", "{}", { headers: { "Content-Type": type } });
    }
    const bytes = new TextEncoder().encode('{"a":1}');
    await store(target(), token, "k", bytes, { headers: { "Content-Type": null } });
    const response = await asApp(target(), token, "/k");
    expect(response.headers.get("content-type")).toBe("application/json");
    expect(await textOf(response)).toBe('{"a":1}');
  });
}

function nested(depth: number): string {
  return "[".repeat(depth) + "]".repeat(depth);
}

function sizeTests(target: () => Target, small: () => Target): void {
  test("512 levels are stored, 513 are refused, brackets in strings do not count", async () => {
    const { token } = await install(target());
    const objects = (depth: number) => `${'{"a":'.repeat(depth)}1${"}".repeat(depth)}`;
    for (const text of [nested(512), objects(512), `["${"[".repeat(600)}","\\"${"{".repeat(600)}"]`]) {
      await store(target(), token, "k", text);
      expect(await storedText(target(), token, "k")).toBe(text);
      expect(JSON.parse(await textOf(await asApp(target(), token, "/")))).toMatchObject({ total_rows: 1 });
    }
    for (const text of [nested(513), objects(513), `{"a":${nested(512)}}`]) {
      await expectRefusal(await asApp(target(), token, "/deep", { method: "POST", body: text }), "json_too_deep");
    }
    // The object of a batch is a level as well.
    await importBatch(target(), token, `{"k":${nested(511)}}`);
    const batch = await asApp(target(), token, "/_batchimport", { method: "POST", body: `{"k":${nested(512)}}` });
    await expectRefusal(batch, "json_too_deep");
    expect(await keysOf(target(), token)).toEqual(["k"]);
  });

  test("400 000 levels are refused at once, closed or not, and the server goes on", async () => {
    const { token } = await install(target());
    for (const body of [nested(400_000), "[".repeat(400_000), '{"a":'.repeat(150_000), `"${"[".repeat(400_000)}`]) {
      const times: number[] = [];
      for (let tries = 0; tries < 3; tries++) {
        const startMs = performance.now();
        const response = await asApp(target(), token, "/deep", { method: "POST", body });
        times.push(performance.now() - startMs);
        expect(response.status).toBe(400);
        await expectRefusal(response, body.startsWith('"') ? "invalid_json" : "json_too_deep");
      }
      expectTime("refusing what is nested too deeply", Math.min(...times), 50);
    }
    expect(await storedText(target(), token, "deep")).toBeNull();
  });

  test("a value of the largest size is stored, one byte more is 413, announced or not", async () => {
    const { token } = await install(target());
    const textOfBytes = (bytes: number) => `"${"x".repeat(bytes - 2)}"`;
    await store(target(), token, "k", textOfBytes(MiB));
    expect((await storedText(target(), token, "k"))!.length).toBe(MiB);
    const over = textOfBytes(MiB + 1);
    for (const body of [over, unannounced(over)]) {
      await expectRefusal(await asApp(target(), token, "/k", { method: "POST", body }), "body_too_large");
    }
    expect((await storedText(target(), token, "k"))!.length).toBe(MiB);
  });

  test("a body far above the largest size is 413 before it is read", async () => {
    const { token } = await install(small());
    const head = `POST /kv/token/k HTTP/1.1\r\nHost: h\r\nX-App-Token: ${token}\r\nContent-Type: application/json\r\n`;
    const { statuses, text } = await sendRaw(small().url, `${head}Content-Length: 999999999999\r\n\r\n`);
    expect([statuses, text.includes('"code":"body_too_large"')]).toEqual([[413], true]);
    const body = unannounced(`"${"x".repeat(104 * KiB)}"`);
    await expectRefusal(await asApp(small(), token, "/k", { method: "POST", body }), "body_too_large");
    expect(await storedText(small(), token, "k")).toBeNull();
  });

  test("the token in the body does not count for the size of the value", async () => {
    const { token } = await install(target());
    const value = (bytes: number) => `{"a":"${"x".repeat(bytes - 8)}"}`;
    const carrier = `"token":"${token}",`;
    const withToken = (bytes: number) => value(bytes).replace("{", `{${carrier}`);
    const send = (bytes: number) => asApp(target(), token, "/k", { method: "POST", body: withToken(bytes) });
    await textOf(await send(MiB));
    expect(await storedText(target(), token, "k")).toBe(value(MiB));
    await expectRefusal(await send(MiB + 1), "body_too_large");
    expect(await storedText(target(), token, "k")).toBe(value(MiB));
  });
}

/** Names that begin with y must be accepted, with n refused, with i may be either. Text is one byte per character. */
function readVectors(): (readonly [name: string, bytes: Uint8Array<ArrayBuffer>])[] {
  const path = join(import.meta.dir, "../data/json_test_suite_parsing.json");
  const vectors = JSON.parse(readFileSync(path, "utf8")) as Record<string, string | [part: string, times: number][]>;
  return Object.entries(vectors).map(([name, parts]) => {
    const text = typeof parts === "string" ? parts : parts.map(([part, times]) => part.repeat(times)).join("");
    return [name, new Uint8Array(Buffer.from(text, "latin1"))] as const;
  });
}

const ALLOWED = { y: [200], n: [400], i: [200, 400] };

function vectorTests(target: () => Target): void {
  test("the acceptable ones are stored as they are, the unacceptable ones are 400, the rest either", async () => {
    const { token } = await install(target());
    const counts = { y: 0, n: 0, i: 0 };
    for (const [name, bytes] of readVectors()) {
      const kind = name[0] as keyof typeof counts;
      counts[kind]++;
      const key = encodeURIComponent(name);
      const init = { method: "POST", body: bytes, headers: { "Content-Type": "application/json" } };
      const { status } = await asApp(target(), token, `/${key}`, init);
      expect([name, status, ALLOWED[kind].includes(status)]).toEqual([name, status, true]);
      const stored = await asApp(target(), token, `/${key}`);
      expect([name, stored.status]).toEqual([name, status === 200 ? 200 : 404]);
      if (status === 200) expect([name, new Uint8Array(await stored.arrayBuffer())]).toEqual([name, bytes]);
    }
    expect(counts).toEqual({ y: 95, n: 188, i: 35 });
    const { items } = JSON.parse(await textOf(await asApp(target(), token, "/?limit=1000"))) as { items: object[] };
    expect(items.length).toBe((await keysOf(target(), token)).length);
  }, 120_000);
}

const PNG = new Uint8Array(
  Buffer.from(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==",
    "base64",
  ),
);

interface Item {
  readonly key: string;
  readonly value: unknown;
  readonly contentType?: string | null;
  readonly size?: number;
  readonly createdAt: string;
  readonly updatedAt: string;
}

async function itemsOf(target: Target, token: string): Promise<Item[]> {
  return (JSON.parse(await textOf(await asApp(target, token, "/"))) as { items: Item[] }).items;
}

function operatorTests(target: () => Target): void {
  test("JSON that the operator stores reads as the same bytes by token, and shows in the list", async () => {
    const { uuid, token } = await install(target());
    const text = '{ "b": 1.0, "a": 12345678901234567890 }\n';
    for (const [index, type] of [
      "application/json",
      "application/json; charset=utf-8",
      "application/ld+json",
    ].entries()) {
      await put(target(), `/${uuid}/k${index}`, text, { "Content-Type": type });
      const response = await asApp(target(), token, `/k${index}`);
      expect(response.headers.get("content-type")).toBe(type);
      expect(await textOf(response)).toBe(text);
    }
    const items = await itemsOf(target(), token);
    for (const item of items) expect(Object.keys(item)).toEqual(["key", "value", "createdAt", "updatedAt"]);
    expect(await textOf(await asApp(target(), token, "/"))).toContain(`"value":${text},"createdAt"`);
  });

  test("a picture reads as its bytes and type, and in the list it is null with type and size", async () => {
    const { uuid, token } = await install(target());
    await put(target(), `/${uuid}/logo.png`, PNG, { "Content-Type": "image/png" });
    await put(target(), `/${uuid}/plain`, "text");
    const response = await asApp(target(), token, "/logo.png");
    expect(new Uint8Array(await response.arrayBuffer())).toEqual(PNG);
    expect(response.headers.get("content-type")).toBe("image/png");
    expect(response.headers.get("content-security-policy")!.split("; ").toSorted()).toEqual([
      "default-src 'none'",
      "sandbox",
    ]);
    expectAppHeaders(response);
    const [first, second] = await itemsOf(target(), token);
    const { createdAt, updatedAt } = first!;
    const expected = { key: "logo.png", value: null, contentType: "image/png", size: PNG.length, createdAt, updatedAt };
    expect(JSON.stringify(first)).toBe(JSON.stringify(expected));
    const plain = await asApp(target(), token, "/plain");
    expect(plain.headers.get("content-type")).toBe("application/octet-stream");
    expect(second).toMatchObject({ key: "plain", value: null, contentType: "application/octet-stream", size: 4 });
    expect(Object.keys(second!)).toEqual(Object.keys(expected));
    expect(await keysOf(target(), token)).toEqual(["logo.png", "plain"]);
    const metadata = JSON.parse(await textOf(await asApp(target(), token, "/logo.png/metadata"))) as object;
    expect(metadata).toEqual({ key: "logo.png", createdAt, updatedAt, creatorIp: "127.0.0.1" });
  });

  test("what is said to be JSON and is not leaves the list valid, and reads as it is stored", async () => {
    const { uuid, token } = await install(target());
    const broken = ["{bad", "", "\ufeff{}", "1 2", nested(513)].map((text) => new TextEncoder().encode(text));
    broken.push(new Uint8Array([0x22, 0xff, 0x22]), new TextEncoder().encode('],"x":['));
    for (const [index, bytes] of broken.entries()) {
      await put(target(), `/${uuid}/k${index}`, bytes, { "Content-Type": "application/json" });
      const response = await asApp(target(), token, `/k${index}`);
      expect(response.headers.get("content-type")).toBe("application/json");
      expect(new Uint8Array(await response.arrayBuffer())).toEqual(bytes);
    }
    await store(target(), token, "good", "1");
    const items = await itemsOf(target(), token);
    expect(items.map(({ key, value, contentType, size }) => [key, value, contentType, size])).toEqual([
      ["good", 1, undefined, undefined],
      ...broken.map((bytes, index) => [`k${index}`, null, "application/json", bytes.length]),
    ]);
  });

  test("HEAD of the operator's large values, however often, holds nothing that a later read needs", async () => {
    const { uuid, token } = await install(target());
    await put(target(), `/${uuid}/large`, new Uint8Array(20 * MiB));
    for (let times = 0; times < 60; times++) {
      const response = await asApp(target(), token, "/large", { method: "HEAD" });
      expect([response.status, response.headers.get("content-length")]).toEqual([200, `${20 * MiB}`]);
    }
    expect((await (await asApp(target(), token, "/large")).arrayBuffer()).byteLength).toBe(20 * MiB);
  });

  test("a write by token replaces all of the operator's entry: value, type and metadata", async () => {
    const { uuid, token } = await install(target());
    await put(target(), `/${uuid}/k`, PNG, { "Content-Type": "image/png", "X-Meta-Owner": "me", "X-TTL": "3600" });
    expect((await store(target(), token, "k", "[1.0]")).created).toBe(false);
    const response = await target().fetch(`/${uuid}/k`);
    expect(await response.text()).toBe("[1.0]");
    const { headers } = response;
    expect([headers.get("content-type"), headers.get("x-meta-owner"), headers.get("x-ttl")]).toEqual([
      "application/json",
      null,
      null,
    ]);
    const meta = await readJson<Record<string, unknown>>(target(), `/_meta/${uuid}/k`);
    expect([meta.metadata, meta.expires_at, meta.content_type]).toEqual([{}, null, "application/json"]);
  });

  test("what either side deletes or replaces, the other sees", async () => {
    const { uuid, token } = await install(target());
    await store(target(), token, "a/b", "1");
    expect(await read(target(), `/${uuid}/a/b`)).toBe("1");
    const etag = await put(target(), `/${uuid}/a/b`, "2", { "Content-Type": "application/json" });
    const response = await asApp(target(), token, "/a/b");
    expect([response.headers.get("etag"), await textOf(response)]).toEqual([etag, "2"]);
    await target().fetch(`/${uuid}/a/b`, { method: "DELETE" });
    expect(await storedText(target(), token, "a/b")).toBeNull();
    await store(target(), token, "a/b", "3");
    await asApp(target(), token, "/a/b", { method: "DELETE" });
    expect(await read(target(), `/${uuid}/a/b`)).toBeNull();
  });
}

async function untilExpired(target: Target, uuid: string, key: string): Promise<void> {
  const meta = await readJson<{ expires_at: string }>(target, `/_meta/${uuid}/${key}`);
  // Nothing but the clock tells that an entry has expired.
  while (Date.now() <= Date.parse(meta.expires_at)) await Bun.sleep(5);
}

function expiryTests(target: () => Target): void {
  test("an expired entry is nowhere, and a POST to it creates", async () => {
    const { uuid, token } = await install(target());
    const keys = ["a", "b", "c", "d"];
    for (const key of keys) {
      await put(target(), `/${uuid}/${key}`, "1", { "Content-Type": "application/json", "X-TTL": "3" });
    }
    await store(target(), token, "e", "1");
    const { createdAt: before } = JSON.parse(await textOf(await asApp(target(), token, "/a/metadata"))) as Item;
    await untilExpired(target(), uuid, "d");
    await expectRefusal(await asApp(target(), token, "/a"), "key_not_found");
    await expectRefusal(await asApp(target(), token, "/a/metadata"), "key_not_found");
    await expectRefusal(await asApp(target(), token, "/b", { method: "DELETE" }), "key_not_found");
    expect(await textOf(await asApp(target(), token, "/_keys"))).toBe(
      '{"keys":["e"],"total_rows":1,"current_page":{"limit":100,"skip":0,"count":1}}',
    );
    expect((await itemsOf(target(), token)).map(({ key }) => key)).toEqual(["e"]);
    expect((await store(target(), token, "a", "2")).created).toBe(true);
    expect((await importBatch(target(), token, '{"b":1,"e":2}')).results).toEqual([
      { key: "b", created: true },
      { key: "e", created: false },
    ]);
    const { createdAt } = JSON.parse(await textOf(await asApp(target(), token, "/a/metadata"))) as Item;
    expect(createdAt > before).toBe(true);
    expect(await keysOf(target(), token)).toEqual(["a", "b", "e"]);
  });

  test("a write by token clears the time to live", async () => {
    const { uuid, token } = await install(target());
    for (const key of ["single", "batch", "left"]) {
      await put(target(), `/${uuid}/${key}`, "1", { "Content-Type": "application/json", "X-TTL": "3" });
    }
    expect((await store(target(), token, "single", "2")).created).toBe(false);
    expect((await importBatch(target(), token, '{"batch":2}')).results).toEqual([{ key: "batch", created: false }]);
    await untilExpired(target(), uuid, "left");
    expect(await keysOf(target(), token)).toEqual(["batch", "single"]);
    expect([await storedText(target(), token, "single"), await storedText(target(), token, "batch")]).toEqual([
      "2",
      "2",
    ]);
  });
}
