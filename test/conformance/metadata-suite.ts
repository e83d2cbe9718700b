// What an entry carries besides its bytes: content type, X-Meta headers, and the description under /_meta.

import { describe, expect, test } from "bun:test";
import { expectError, keyPath, put, read, readJson } from "../support/kv-requests.ts";
import { sendRaw } from "../support/raw-request.ts";
import { mint, type OpenTarget, type Target } from "../support/targets.ts";
import { useTarget } from "../support/use-target.ts";

const MiB = 1024 * 1024;
const OCTET_STREAM = "application/octet-stream";

export function metadataSuite(name: string, open: OpenTarget): void {
  describe(`content types on ${name}`, () => contentTypeTests(useTarget(open)));
  describe(`X-Meta headers on ${name}`, () => metaHeaderTests(useTarget(open)));
  describe(`/_meta on ${name}`, () => describeTests(useTarget(open)));
}

const VERBATIM = [
  "text/html",
  "TEXT/HTML",
  "text/plain; charset=utf-8",
  "text/plain;charset=UTF-8",
  "x/y",
  "text/plain ; a=b",
  "application/vnd.api+json",
  'multipart/form-data; boundary="a b, c"',
  'a/b; c="\\"d\\\\"',
  "text/plain;",
  "a/b;c=d;e=f",
  "application/x-www-form-urlencoded2",
  "application/x-www-form-urlencode",
  "!#$%&'*+-.^_`|~/0",
  `text/${"x".repeat(250)}`,
];
const AS_NOT_GIVEN = [
  "application/x-www-form-urlencoded",
  "APPLICATION/X-WWW-Form-URLencoded",
  "",
  "application/x-www-form-urlencoded; charset=utf-8",
  "application/x-www-form-urlencoded;",
  OCTET_STREAM,
  `application/x-www-form-urlencoded; ${"x".repeat(300)}`,
];
const MALFORMED_TYPES = [
  "text",
  "text/",
  "/plain",
  "/",
  "text/plain/x",
  "text plain",
  "text /plain",
  "text/ plain",
  "text/pl ain",
  "text/plain;a",
  "text/plain; a=",
  'text/plain; a="x',
  "text/plain;=x",
  "text/plain; a = b",
  "text/plain, text/html",
  "text/plain; a=b c",
  "t\u00e9xt/plain",
  "text/plain; a=\u00e9",
  "<script>",
  "text/html<",
  "text@plain/x",
  `text/${"x".repeat(251)}`,
];

function contentTypeTests(target: () => Target): void {
  const typeOf = async (path: string) => (await target().fetch(path)).headers.get("content-type");

  test("a media type is kept and returned verbatim, up to 255 bytes", async () => {
    for (const type of VERBATIM) {
      await put(target(), "/types/k", "<script>alert(1)</script>", { "Content-Type": type });
      expect(await typeOf("/types/k")).toBe(type);
      expect((await target().fetch("/types/k", { method: "HEAD" })).headers.get("content-type")).toBe(type);
      expect((await readJson<{ content_type: string }>(target(), "/_meta/types/k")).content_type).toBe(type);
    }
  });

  test("a stored page cannot run: nosniff, an empty policy and a sandbox come with it", async () => {
    await put(target(), "/types/page", "<script>alert(1)</script>", { "Content-Type": "text/html" });
    const { headers } = await target().fetch("/types/page");
    expect(headers.get("x-content-type-options")).toBe("nosniff");
    expect(headers.get("content-security-policy")).toBe("default-src 'none'; sandbox");
  });

  test("no type, an empty one, and what curl -d sends unasked are served as octet-stream", async () => {
    for (const type of AS_NOT_GIVEN) {
      await put(target(), "/types/none", "x", { "Content-Type": type });
      expect([type, await typeOf("/types/none")]).toEqual([type, OCTET_STREAM]);
    }
    await put(target(), "/types/none", "x");
    expect(await typeOf("/types/none")).toBe(OCTET_STREAM);
  });

  test("a malformed, overlong or doubled type is refused and stores nothing", async () => {
    for (const type of MALFORMED_TYPES) {
      const response = await target().fetch("/types/bad", {
        method: "PUT",
        body: "x",
        headers: { "Content-Type": type },
      });
      await expectError(response, "content_type_invalid");
    }
    const head = `PUT /types/bad HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer ${await mint()}\r\nContent-Length: 1\r\n`;
    const doubled = "Content-Type: text/plain\r\nContent-Type: text/html\r\n";
    const { text } = await sendRaw(target().url, `${head}${doubled}\r\nx`);
    expect(text).toContain('"code":"content_type_invalid"');
    expect(await read(target(), "/types/bad")).toBeNull();
  });

  test("an overwrite without a type forgets the old one", async () => {
    await put(target(), "/types/forgotten", "x", { "Content-Type": "text/html" });
    await put(target(), "/types/forgotten", "x");
    expect(await typeOf("/types/forgotten")).toBe(OCTET_STREAM);
  });
}

/** The X-Meta headers of an answer, without the prefix. */
function metadataOf(headers: Headers): Record<string, string> {
  const entries = [...headers].filter(([name]) => name.startsWith("x-meta-"));
  return Object.fromEntries(entries.map(([name, value]) => [name.slice("x-meta-".length), value]));
}

function headersFor(metadata: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(metadata).map(([name, value]) => [`X-Meta-${name}`, value]));
}

function metaHeaderTests(target: () => Target): void {
  const send = (headers: Record<string, string>) => target().fetch("/meta/k", { method: "PUT", body: "x", headers });

  test("names come back lower-cased, values as sent, on GET, HEAD and in _meta", async () => {
    const sent = { Author: "Ada Lovelace", "a.b_c-d.0": "!~ \"quoted\" \\ {'json':1}", empty: "", n: "1, 2;3=4" };
    await put(target(), "/meta/round", "x", headersFor(sent));
    const { Author, ...others } = sent;
    const expected = { author: Author, ...others };
    for (const method of ["GET", "HEAD"]) {
      expect(metadataOf((await target().fetch("/meta/round", { method })).headers)).toEqual(expected);
    }
    const { metadata } = await readJson<{ metadata: object }>(target(), "/_meta/meta/round");
    expect(metadata).toEqual(expected);
  });

  test("names that mean something to a language are only names", async () => {
    const text = '{"__proto__":"1","constructor":"2","tostring":"3","then":"4"}';
    const names = ["__proto__", "constructor", "tostring", "then"];
    await put(
      target(),
      "/meta/proto",
      "x",
      Object.fromEntries(names.map((name, index) => [`X-Meta-${name}`, `${index + 1}`])),
    );
    const { headers } = await target().fetch("/meta/proto");
    expect(names.map((name) => headers.get(`x-meta-${name}`))).toEqual(["1", "2", "3", "4"]);
    const meta = await (await target().fetch("/_meta/meta/proto")).text();
    const stored = JSON.parse(/"metadata":(\{.*?\})/.exec(meta)![1]!) as object;
    expect(Object.entries(stored).toSorted()).toEqual(Object.entries(JSON.parse(text) as object).toSorted());
  });

  test("the next write replaces them all", async () => {
    await put(target(), "/meta/replaced", "x", headersFor({ a: "1", b: "2" }));
    await put(target(), "/meta/replaced", "x", headersFor({ b: "3" }));
    expect(metadataOf((await target().fetch("/meta/replaced")).headers)).toEqual({ b: "3" });
    await put(target(), "/meta/replaced", "x");
    expect(metadataOf((await target().fetch("/meta/replaced")).headers)).toEqual({});
  });

  test("32 entries are taken, 33 are not", async () => {
    const entries = (count: number) =>
      Object.fromEntries(Array.from({ length: count }, (_, index) => [`n${index}`, "v"]));
    await put(target(), "/meta/many", "x", headersFor(entries(32)));
    expect(metadataOf((await target().fetch("/meta/many")).headers)).toEqual(entries(32));
    await expectError(await send(headersFor(entries(33))), "metadata_invalid");
  });

  test("2048 bytes of stored JSON are taken, 2049 are not", async () => {
    const room = 2048 - '{"a":""}'.length;
    await put(target(), "/meta/large", "x", { "X-Meta-a": "v".repeat(room) });
    expect((await target().fetch("/meta/large")).headers.get("x-meta-a")).toBe("v".repeat(room));
    await expectError(await send({ "X-Meta-a": "v".repeat(room + 1) }), "metadata_invalid");
    // A quote takes two bytes of JSON.
    await put(target(), "/meta/large", "x", { "X-Meta-a": '"'.repeat(room / 2) });
    await expectError(await send({ "X-Meta-a": '"'.repeat(room / 2 + 1) }), "metadata_invalid");
  });

  test("names of 64 characters are taken; longer, empty and odd ones are not", async () => {
    await put(target(), "/meta/long", "x", { [`X-Meta-${"n".repeat(64)}`]: "v" });
    for (const name of ["n".repeat(65), "", "a~b", "a!", "a+b", "a'b", "a|b", "a#", "a*"]) {
      await expectError(await send({ [`X-Meta-${name}`]: "v" }), "metadata_invalid");
    }
  });

  test("values that are not printable ASCII are refused, however they are sent", async () => {
    for (const value of ["\u00e9", "\u00a0", "a\u0080b", "a\tb"]) {
      await expectError(await send({ "X-Meta-a": value }), "metadata_invalid");
    }
    const head = `PUT /meta/k HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer ${await mint()}\r\nContent-Length: 1\r\n`;
    for (const value of [Buffer.from("ü"), Buffer.from([0xff]), Buffer.from([0x7f])]) {
      const bytes = Buffer.concat([Buffer.from(`${head}X-Meta-a: a`), value, Buffer.from("\r\n\r\nx")]);
      expect((await sendRaw(target().url, bytes)).text).toMatch(/^HTTP\/1\.1 400 /);
    }
    expect(await read(target(), "/meta/k")).toBeNull();
  });
}

interface Description {
  readonly created_at: string;
  readonly updated_at: string;
  readonly expires_at: string | null;
}

const MEMBERS = [
  "bucket",
  "key",
  "size",
  "revision",
  "content_type",
  "created_at",
  "updated_at",
  "expires_at",
  "metadata",
];
const RFC_3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;

function describeTests(target: () => Target): void {
  test("all members are there, in order, also for an entry that was given nothing", async () => {
    const askedMs = Date.now();
    const plain = await put(target(), "/described/plain", "hello");
    const answeredMs = Date.now();
    const response = await target().fetch("/_meta/described/plain");
    expect(response.headers.get("etag")).toBe(plain);
    const text = await response.text();
    expect(Object.keys(JSON.parse(text))).toEqual(MEMBERS);
    const meta = JSON.parse(text) as Description;
    expect(meta.created_at).toMatch(RFC_3339);
    const { created_at } = meta;
    expect(JSON.parse(text)).toEqual({
      bucket: "described",
      key: "plain",
      size: 5,
      revision: Number(JSON.parse(plain)),
      content_type: OCTET_STREAM,
      created_at,
      updated_at: created_at,
      expires_at: null,
      metadata: {},
    });
    expect(Date.parse(meta.created_at)).toBeGreaterThanOrEqual(askedMs);
    expect(Date.parse(meta.created_at)).toBeLessThanOrEqual(answeredMs);
  });

  test("type, metadata and expiry are told, and HEAD has the headers alone", async () => {
    const given = { "Content-Type": "text/plain", "X-Meta-a": "1", "X-TTL": "1h" };
    const etag = await put(target(), "/described/full", new Uint8Array(2 * MiB), given);
    const meta = await readJson<Description>(target(), "/_meta/described/full");
    expect(meta).toMatchObject({ size: 2 * MiB, content_type: "text/plain", metadata: { a: "1" } });
    expect(meta.expires_at).toMatch(RFC_3339);
    expect(Date.parse(meta.expires_at!) - Date.parse(meta.updated_at)).toBe(3_600_000);
    const head = await target().fetch("/_meta/described/full", { method: "HEAD" });
    expect([head.status, head.headers.get("etag"), await head.text()]).toEqual([200, etag, ""]);
    expect(head.headers.get("content-length")).toBe(`${JSON.stringify(meta).length}`);
  });

  test("an overwrite keeps the time of creation, delete and re-create does not", async () => {
    await put(target(), "/described/times", "1");
    const first = await readJson<Description>(target(), "/_meta/described/times");
    while (Date.now() <= Date.parse(first.created_at)) await Bun.sleep(1);
    await put(target(), "/described/times", "2");
    const second = await readJson<Description>(target(), "/_meta/described/times");
    expect(second.created_at).toBe(first.created_at);
    expect(Date.parse(second.updated_at)).toBeGreaterThan(Date.parse(first.updated_at));
    await target().fetch("/described/times", { method: "DELETE" });
    await put(target(), "/described/times", "3");
    const third = await readJson<Description>(target(), "/_meta/described/times");
    expect(Date.parse(third.created_at)).toBeGreaterThan(Date.parse(first.created_at));
  });

  test("Last-Modified of the value is the time of the last write", async () => {
    await put(target(), "/described/modified", "x");
    const { updated_at } = await readJson<Description>(target(), "/_meta/described/modified");
    const { headers } = await target().fetch("/described/modified");
    expect(headers.get("last-modified")).toBe(new Date(updated_at).toUTCString());
  });

  test("a missing key is 404, a query parameter is refused", async () => {
    await expectError(await target().fetch("/_meta/described/none"), "key_not_found");
    await put(target(), "/described/k", "x");
    await expectError(await target().fetch("/_meta/described/k?x=1"), "query_invalid");
    await expectError(await target().fetch("/_meta/described/k?ttl=5"), "query_invalid");
  });

  test("keys are told as they are: slashes, percent signs, control characters", async () => {
    for (const key of ["a/b//", "%2F%", '"\r\n\t', "😀"]) {
      await put(target(), keyPath("described", key), "x");
      expect(await readJson(target(), `/_meta${keyPath("described", key)}`)).toMatchObject({
        bucket: "described",
        key,
      });
    }
  });
}
