// The KV surface as its users see it: create, read, replace, delete, and all of it still there after a restart.

import { describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { alterStore } from "../support/alter-store.ts";
import { expectError, keyPath, list, put, read, readJson, remove } from "../support/kv-requests.ts";
import { sendRaw } from "../support/raw-request.ts";
import { mint, type OpenTarget, type Target } from "../support/targets.ts";
import { useTarget } from "../support/use-target.ts";

const MiB = 1024 * 1024;
const EVERY_BYTE = Uint8Array.from({ length: 256 }, (_, byte) => byte);

export function kvSuite(name: string, open: OpenTarget): void {
  describe(`KV on ${name}: methods`, () => methodTests(useTarget(open)));
  describe(`KV on ${name}: values`, () => valueTests(useTarget(open)));
  describe(`KV on ${name}: HEAD`, () => headTests(useTarget(open)));
  describe(`KV on ${name}: misspelt requests`, () => queryTests(useTarget(open)));
  describe(`KV on ${name}: restarts`, () => restartTests(useTarget(open)));
  describe(`KV on ${name}: a failing store`, () => failingReadTests(useTarget(open, { SWEEP_INTERVAL: "1h" })));
}

function methodTests(target: () => Target): void {
  for (const method of ["POST", "PUT"]) {
    test(`${method} creates and replaces with 200, an empty body and an ETag`, async () => {
      const path = `/methods/${method}`;
      const etags: number[] = [];
      for (const value of ["Ada", "Grace"]) {
        const response = await target().fetch(path, { method, body: value });
        expect([response.status, await response.text()]).toEqual([200, ""]);
        expect(response.headers.get("content-length")).toBe("0");
        etags.push(Number(JSON.parse(response.headers.get("etag")!)));
        expect(await read(target(), path)).toBe(value);
      }
      expect(etags[1]!).toBeGreaterThan(etags[0]!);
    });
  }

  test("POST and PUT of one key meet the same entry", async () => {
    await target().fetch("/methods/same", { method: "POST", body: "posted" });
    const before = await readJson<{ created_at: string }>(target(), "/_meta/methods/same");
    await target().fetch("/methods/same", { method: "PUT", body: "put" });
    const after = await readJson<{ created_at: string }>(target(), "/_meta/methods/same");
    expect(after.created_at).toBe(before.created_at);
    expect(await list(target(), { bucket: "methods", prefix: "same" })).toEqual(["same"]);
  });

  test("DELETE answers 200 for present and missing keys, and GET is 404 afterwards", async () => {
    await put(target(), "/methods/gone", "x");
    await remove(target(), "/methods/gone");
    expect(await read(target(), "/methods/gone")).toBeNull();
    await remove(target(), "/methods/gone");
    await remove(target(), "/methods/never-there");
    await remove(target(), "/no-such-bucket/k");
    expect(await list(target(), { prefix: "no-such" })).toEqual([]);
  });

  test("GET of a missing key is 404 key_not_found, in a known and an unknown bucket", async () => {
    await put(target(), "/methods/there", "x");
    await expectError(await target().fetch("/methods/not-there"), "key_not_found");
    await expectError(await target().fetch("/nowhere/k"), "key_not_found");
  });

  test("a method override has no effect, in a header or in the query", async () => {
    await put(target(), "/methods/kept", "x");
    for (const header of ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"]) {
      const response = await target().fetch("/methods/kept", { headers: { [header]: "DELETE" } });
      expect([response.status, await response.text()]).toEqual([200, "x"]);
      expect(await put(target(), "/methods/kept", "x", { [header]: "DELETE" })).toBeString();
    }
    const response = await target().fetch("/methods/kept?_method=DELETE");
    expect([response.status, await response.text()]).toEqual([200, "x"]);
    expect(await read(target(), "/methods/kept")).toBe("x");
  });

  test("an overwrite replaces value, type, metadata and expiry together", async () => {
    const old = { "Content-Type": "text/plain", "X-Meta-a": "1", "X-TTL": "60" };
    await put(target(), "/methods/whole", "old", old);
    await put(target(), "/methods/whole", "new", { "X-Meta-b": "2" });
    const response = await target().fetch("/methods/whole");
    expect(await response.text()).toBe("new");
    expect(response.headers.get("content-type")).toBe("application/octet-stream");
    expect([response.headers.get("x-meta-a"), response.headers.get("x-meta-b")]).toEqual([null, "2"]);
    expect([response.headers.get("x-ttl"), response.headers.get("x-expires-at")]).toEqual([null, null]);
  });
}

/** Sends `body` as it is and compares what comes back, byte for byte. */
async function roundTrip(target: Target, path: string, body: Uint8Array<ArrayBuffer>): Promise<Response> {
  const response = await target.fetch(path, { method: "POST", body });
  expect([response.status, await response.text()]).toEqual([200, ""]);
  const stored = await target.fetch(path);
  const bytes = new Uint8Array(await stored.arrayBuffer());
  expect(bytes.length).toBe(body.length);
  expect(Buffer.compare(bytes, body)).toBe(0);
  expect([stored.status, stored.headers.get("content-type")]).toEqual([200, "application/octet-stream"]);
  return stored;
}

function valueTests(target: () => Target): void {
  test("an empty body is an empty value, with and without Content-Length", async () => {
    await roundTrip(target(), "/values/empty", new Uint8Array(0));
    const authorization = `Authorization: Bearer ${await mint()}\r\n`;
    const head = `PUT /values/no-length HTTP/1.1\r\nHost: h\r\n${authorization}\r\n`;
    expect((await sendRaw(target().url, head)).statuses).toEqual([200]);
    expect(await read(target(), "/values/no-length")).toBe("");
  });

  test("one byte, every byte value, and all pairs of them come back as they were", async () => {
    await roundTrip(target(), "/values/one", Uint8Array.of(0));
    await roundTrip(target(), "/values/every-byte", EVERY_BYTE);
    const pairs = Uint8Array.from({ length: 2 * 256 * 256 }, (_, at) => (at % 2 === 0 ? at >> 9 : at >> 1));
    await roundTrip(target(), "/values/pairs", pairs);
  });

  const sizes = [16 * 1024, 16 * 1024 + 1, 64 * 1024, MiB - 1, MiB, MiB + 1, 3 * MiB + 7, 25 * MiB];
  for (const size of sizes) {
    test(`${size} bytes come back as they were`, async () => {
      const body = new Uint8Array(size);
      for (let at = 0; at < size; at += 65_536) crypto.getRandomValues(body.subarray(at, at + 65_536));
      const stored = await roundTrip(target(), `/values/${size}`, body);
      const isStreamed = size > MiB;
      expect(stored.headers.get(isStreamed ? "x-size" : "content-length")).toBe(`${size}`);
      expect(stored.headers.get(isStreamed ? "content-length" : "x-size")).toBeNull();
      await remove(target(), `/values/${size}`);
    });
  }

  test("a body of unknown length is stored whole", async () => {
    const body = (async function* () {
      for (const piece of ["ab", "c".repeat(70_000), "d"]) yield new TextEncoder().encode(piece);
    })();
    const response = await target().fetch("/values/chunked", { method: "PUT", body });
    expect(response.status).toBe(200);
    expect(await read(target(), "/values/chunked")).toBe(`ab${"c".repeat(70_000)}d`);
  });

  test("Content-Encoding and charset are not looked at: the bytes stay as sent and are served plain", async () => {
    const zipped = Bun.gzipSync("plain text");
    const headers = { "Content-Encoding": "gzip", "Content-Type": "text/plain; charset=utf-16" };
    await put(target(), "/values/zipped", zipped, headers);
    const response = await target().fetch("/values/zipped", { headers: { "Accept-Encoding": "gzip, br" } });
    expect(response.headers.get("content-encoding")).toBeNull();
    expect(Buffer.compare(new Uint8Array(await response.arrayBuffer()), zipped)).toBe(0);
  });

  test("a body that is cut stores nothing and leaves the old value", async () => {
    await put(target(), "/values/cut", "old");
    const head = `PUT /values/cut HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer ${await mint()}\r\n`;
    const options = { isHalfClosed: true };
    const known = await sendRaw(target().url, `${head}Content-Length: 10\r\n\r\nabc`, options);
    const chunked = await sendRaw(target().url, `${head}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n`, options);
    expect([known.statuses, chunked.statuses]).toEqual([[], []]);
    expect(await read(target(), "/values/cut")).toBe("old");
  });

  test("parallel writes of one key leave one of the values, whole", async () => {
    const values = Array.from({ length: 40 }, (_, index) => `${index}-`.repeat(5000));
    await Promise.all(values.map((value) => put(target(), "/values/contended", value)));
    expect(values).toContain((await read(target(), "/values/contended"))!);
  });
}

/** Headers that differ from answer to answer, or by how a body is sent. */
function comparable(headers: Headers): Record<string, string> {
  const all = Object.fromEntries(headers);
  const varying = ["date", "x-request-id", "content-length", "transfer-encoding", "x-size", "x-ttl"];
  for (const name of varying) delete all[name];
  return all;
}

function headTests(target: () => Target): void {
  for (const size of [0, 1, 1000, 2 * MiB]) {
    test(`HEAD of ${size} bytes has the headers of GET, the length, and no body`, async () => {
      const headers = { "Content-Type": "text/css", "X-Meta-a": "1", "X-TTL": "7d" };
      await put(target(), `/head/${size}`, new Uint8Array(size), headers);
      const get = await target().fetch(`/head/${size}`);
      await get.arrayBuffer();
      const head = await target().fetch(`/head/${size}`, { method: "HEAD" });
      expect([head.status, await head.text()]).toEqual([200, ""]);
      expect(head.headers.get("content-length")).toBe(`${size}`);
      expect(head.headers.get("x-size")).toBe(get.headers.get("x-size"));
      expect(comparable(head.headers)).toEqual(comparable(get.headers));
      // Whole seconds, which go on between the two.
      for (const { headers } of [get, head]) expect(Number(headers.get("x-ttl"))).toBeWithin(604_700, 604_801);
    });
  }

  test("HEAD sends no byte behind the head, for a value and for an error", async () => {
    await put(target(), "/head/raw", "hello");
    const authorization = `Authorization: Bearer ${await mint()}\r\n`;
    for (const [path, status, length] of [
      ["/head/raw", 200, 5],
      ["/head/none", 404, 81],
      ["/_list?bucket=head&prefix=raw", 200, 7],
    ] as const) {
      const { text, statuses } = await sendRaw(
        target().url,
        `HEAD ${path} HTTP/1.1\r\nHost: h\r\n${authorization}\r\n`,
      );
      expect([path, statuses, text.endsWith("\r\n\r\n")]).toEqual([path, [status], true]);
      expect([path, Number(/content-length: (\d+)/i.exec(text)?.[1])]).toEqual([path, length]);
    }
  });

  test("HEAD of a missing key and of a bad path fail as GET does, without a body", async () => {
    for (const [path, status] of [
      ["/head/none", 404],
      ["/head/%ff", 400],
      ["/_x/k", 400],
    ] as const) {
      const head = await target().fetch(path, { method: "HEAD" });
      const get = await target().fetch(path);
      expect([head.status, get.status, await head.text()]).toEqual([status, status, ""]);
      expect(comparable(head.headers)).toEqual(comparable(get.headers));
    }
    const refused = await target().fetch("/head/none", { method: "HEAD", headers: { Authorization: null } });
    expect([refused.status, await refused.text()]).toEqual([401, ""]);
  });
}

function queryTests(target: () => Target): void {
  test("an unknown or doubled query parameter on a write is refused and nothing is stored", async () => {
    for (const query of ["tll=5", "TTL=5", "ttl=5&ttl=6", "ttl=5&ttl=5", "x", "ttl=5&x=1", "=5", "ttl=%ff", "%zz=1"]) {
      const code = "query_invalid";
      await expectError(await target().fetch(`/queries/k?${query}`, { method: "PUT", body: "x" }), code);
      await expectError(await target().fetch(`/queries/k?${query}`, { method: "POST", body: "x" }), code);
    }
    expect(await read(target(), "/queries/k")).toBeNull();
  });

  test("DELETE takes no query parameter", async () => {
    await put(target(), "/queries/kept", "x");
    await expectError(await target().fetch("/queries/kept?ttl=5", { method: "DELETE" }), "query_invalid");
    await expectError(await target().fetch("/queries/kept?force=1", { method: "DELETE" }), "query_invalid");
    expect(await read(target(), "/queries/kept")).toBe("x");
  });

  test("a query on GET and HEAD of a value is ignored", async () => {
    await put(target(), "/queries/read", "x");
    for (const query of ["v=1", "ttl=5&ttl=6", "%zz", "&&&", "a=%ff"]) {
      expect(await read(target(), `/queries/read?${query}`)).toBe("x");
      expect((await target().fetch(`/queries/read?${query}`, { method: "HEAD" })).status).toBe(200);
    }
  });

  test("an empty query and empty pairs are no parameters", async () => {
    await put(target(), "/queries/empty?", "1");
    await put(target(), "/queries/empty?&&", "2");
    expect(await read(target(), "/queries/empty")).toBe("2");
  });
}

function restartTests(target: () => Target): void {
  test("what was acknowledged is there after a restart: value, type, metadata, times, lists", async () => {
    const headers = { "Content-Type": "text/plain", "X-Meta-a": "1", "X-TTL": "1h" };
    await put(target(), "/kept/1", "still here", headers);
    await put(target(), "/kept/large", "x".repeat(2 * MiB));
    await put(target(), "/kept/deleted", "x");
    await remove(target(), "/kept/deleted");
    await put(target(), "/emptied/1", "x");
    await remove(target(), "/emptied/1");
    const before = await readJson(target(), "/_meta/kept/1");
    await target().restart();
    expect(await readJson(target(), "/_meta/kept/1")).toEqual(before);
    expect(await read(target(), "/kept/1")).toBe("still here");
    expect(await read(target(), "/kept/large")).toBe("x".repeat(2 * MiB));
    expect(await read(target(), "/kept/deleted")).toBeNull();
    expect(await list(target())).toEqual(["kept"]);
    expect(await list(target(), { bucket: "kept" })).toEqual(["1", "large"]);
  });

  test("the data lies in DB_PATH", () => {
    expect(existsSync(join(target().dbPath, "gokv.db"))).toBe(true);
  });

  test("many acknowledged writes, in parallel up to the restart, are all there", async () => {
    const paths = Array.from({ length: 500 }, (_, index) => keyPath("many", `${index}`));
    await Promise.all(paths.map((path) => put(target(), path, path)));
    await target().restart();
    const values = await Promise.all(paths.map((path) => read(target(), path)));
    expect(values).toEqual(paths);
  });
}

function failingReadTests(target: () => Target): void {
  test("a read that fails in the store is 500 and tells nothing of the engine", async () => {
    await put(target(), "/failing/k", "x");
    await put(target(), "/failing/large", "x".repeat(2 * MiB));
    // Starts the thread for what takes long, which must fail in the middle of its life as well.
    await readJson(target(), "/_list?count=1&bucket=failing");
    await alterStore(target().dbPath, "ALTER TABLE kv RENAME TO kv_elsewhere");
    const paths = [
      "/failing/k",
      "/failing/large",
      "/_meta/failing/k",
      "/_list?bucket=failing",
      "/_list?count=1&bucket=failing",
    ];
    const answers = [];
    for (const path of paths) answers.push(await target().fetch(path));
    const head = await target().fetch("/failing/k", { method: "HEAD" });
    await alterStore(target().dbPath, "ALTER TABLE kv_elsewhere RENAME TO kv");
    for (const answer of answers) {
      const text = await answer.clone().text();
      await expectError(answer, "internal_error");
      expect(text).not.toMatch(/sql|table|column|kv_|database|\/tmp|at /i);
    }
    expect(head.status).toBe(500);
    expect(await read(target(), "/failing/k")).toBe("x");
  });
}
