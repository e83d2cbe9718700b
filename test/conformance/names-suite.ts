// Buckets and keys as they travel in paths: which requests mean the same entry, which must not, and that the
// neighbour survives.

import { describe, expect, test } from "bun:test";
import {
  HOSTILE_BUCKETS,
  HOSTILE_KEYS,
  neighboursOf,
  REFUSED_BUCKETS,
  REFUSED_KEYS,
} from "../support/hostile-values.ts";
import { expectError, keyPath, list, put, read, readJson, remove } from "../support/kv-requests.ts";
import { sendRaw } from "../support/raw-request.ts";
import { mint, type OpenTarget, type Target } from "../support/targets.ts";
import { useTarget } from "../support/use-target.ts";

const KEY_BYTES_MAX = 1024;
const BUCKET_BYTES_MAX = 128;
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const NOT_A_BUCKET = /^_|[/\0-\x1f\x7f-\x9f]/;
const DOTS = /(?:^|\/)\.\.?(?:\/|$)/;

export function namesSuite(name: string, open: OpenTarget): void {
  describe(`names on ${name}: hostile ones`, () => hostileTests(useTarget(open)));
  describe(`names on ${name}: neighbours`, () => neighbourTests(useTarget(open)));
  describe(`names on ${name}: paths`, () => pathTests(useTarget(open)));
  describe(`names on ${name}: refused ones`, () => refusedTests(useTarget(open)));
  describe(`names on ${name}: raw targets`, () => rawTests(useTarget(open)));
  describe(`names on ${name}: reserved buckets`, () => {
    reservedTests(useTarget(open), useTarget(open, { SERVICES: "kv" }));
  });
}

/** The order that lists keep. */
function inByteOrder(names: readonly string[]): string[] {
  return names.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
}

function hostileTests(target: () => Target): void {
  test("every hostile key is stored, read, described and listed byte for byte", async () => {
    for (const key of HOSTILE_KEYS) await put(target(), keyPath("keys", key), `value of ${key}`);
    for (const key of HOSTILE_KEYS) {
      const path = keyPath("keys", key);
      expect([key, await read(target(), path)]).toEqual([key, `value of ${key}`]);
      const meta = await readJson<{ bucket: string; key: string }>(target(), `/_meta${path}`);
      expect([meta.bucket, meta.key]).toEqual(["keys", key]);
    }
    const listed = await list(target(), { bucket: "keys" });
    expect(listed).toEqual(inByteOrder(HOSTILE_KEYS));
    expect(listed.length).toBe(new Set(HOSTILE_KEYS).size);
  });

  test("every hostile bucket holds its own entry and is listed byte for byte", async () => {
    for (const bucket of HOSTILE_BUCKETS) await put(target(), keyPath(bucket, "k"), `value in ${bucket}`);
    for (const bucket of HOSTILE_BUCKETS) {
      expect([bucket, await read(target(), keyPath(bucket, "k"))]).toEqual([bucket, `value in ${bucket}`]);
      expect([bucket, await list(target(), { bucket })]).toEqual([bucket, ["k"]]);
    }
    expect(await list(target())).toEqual(inByteOrder([...HOSTILE_BUCKETS, "keys"]));
  });

  test("hostile names are still there after a restart", async () => {
    await target().restart();
    expect(await list(target(), { bucket: "keys" })).toEqual(inByteOrder(HOSTILE_KEYS));
    for (const key of HOSTILE_KEYS) {
      expect([key, await read(target(), keyPath("keys", key))]).toEqual([key, `value of ${key}`]);
    }
  });
}

/** Neighbours that may be stored beside `name`. */
function storable(name: string, bytesMax: number): string[] {
  return neighboursOf(name).filter((near) => Buffer.byteLength(near) <= bytesMax && !DOTS.test(near));
}

function neighbourTests(target: () => Target): void {
  test("deleting or replacing a hostile key leaves its neighbours alone", async () => {
    for (const [index, key] of HOSTILE_KEYS.entries()) {
      const bucket = `keys-${index}`;
      const neighbours = storable(key, KEY_BYTES_MAX);
      await Promise.all([...neighbours, key].map((name) => put(target(), keyPath(bucket, name), `=${name}`)));
      await put(target(), keyPath(bucket, key), "replaced");
      await remove(target(), keyPath(bucket, key));
      expect([key, await read(target(), keyPath(bucket, key))]).toEqual([key, null]);
      const kept = await Promise.all(neighbours.map((name) => read(target(), keyPath(bucket, name))));
      expect([key, kept]).toEqual([key, neighbours.map((name) => `=${name}`)]);
      expect([key, await list(target(), { bucket })]).toEqual([key, inByteOrder(neighbours)]);
    }
  });

  test("deleting the only key of a hostile bucket leaves its neighbours alone", async () => {
    for (const bucket of HOSTILE_BUCKETS) {
      const neighbours = storable(bucket, BUCKET_BYTES_MAX).filter((near) => !NOT_A_BUCKET.test(near));
      await Promise.all([...neighbours, bucket].map((name) => put(target(), keyPath(name, "n"), `=${name}`)));
      await remove(target(), keyPath(bucket, "n"));
      expect([bucket, await list(target(), { bucket })]).toEqual([bucket, []]);
      const kept = await Promise.all(neighbours.map((name) => read(target(), keyPath(name, "n"))));
      expect([bucket, kept]).toEqual([bucket, neighbours.map((name) => `=${name}`)]);
      await Promise.all(neighbours.map((name) => remove(target(), keyPath(name, "n"))));
    }
  });

  test("a colon does not join bucket and key: a:b/c and a/b:c hold two values", async () => {
    await put(target(), "/a:b/c", "1");
    await put(target(), "/a/b:c", "2");
    expect([await read(target(), "/a:b/c"), await read(target(), "/a/b:c")]).toEqual(["1", "2"]);
    await remove(target(), "/a:b/c");
    expect(await read(target(), "/a/b:c")).toBe("2");
  });

  test("neither case nor Unicode form is folded", async () => {
    const names = ["user", "User", "USER", "\u00e9", "e\u0301", "ﬁ", "fi", "ß", "ss", "K", "\u212a"];
    for (const name of names) await put(target(), keyPath("folding", name), name);
    for (const name of names) expect(await read(target(), keyPath("folding", name))).toBe(name);
    expect((await list(target(), { bucket: "folding" })).length).toBe(names.length);
    await put(target(), "/B/k", "upper");
    await put(target(), "/b/k", "lower");
    expect([await read(target(), "/B/k"), await read(target(), "/b/k")]).toEqual(["upper", "lower"]);
  });
}

function pathTests(target: () => Target): void {
  const same: readonly (readonly [string, string])[] = [
    ["/b/user/1", "/b/user%2F1"],
    ["/b/user/1", "/b/user%2f1"],
    ["/b/user/1", "/%62/%75ser/%31"],
    ["/b//k", "/b/%2Fk"],
    ["/b/k/", "/b/k%2F"],
    ["/b/a//c", "/b/a%2F%2Fc"],
    ["/b/a+b", "/b/a%2Bb"],
    ["/b/a b", "/b/a%20b"],
    ["/b/a:b@c", "/b/a%3Ab%40c"],
    ["/b/~x", "/b/%7Ex"],
    ["/b/\u00fc", "/b/%C3%BC"],
  ];
  for (const [path, other] of same) {
    test(`${path} and ${other} are one key`, async () => {
      await put(target(), path, path);
      expect(await read(target(), other)).toBe(path);
      await remove(target(), other);
      expect(await read(target(), path)).toBeNull();
    });
  }

  const different: readonly (readonly [string, string])[] = [
    ["/b/user%2F1", "/b/user%252F1"],
    ["/b/k", "/b//k"],
    ["/b/k", "/b/k/"],
    ["/b/k", "/b/k//"],
    ["/b/%25ff", "/b/%C3%BF"],
    ["/b/%2520", "/b/%20"],
    ["/b/a+b", "/b/a%20b"],
    ["/b/a%5Cb", "/b/a%2Fb"],
    ["/b/%C3%A9", "/b/e%CC%81"],
    ["/b/k", "/b/k%20"],
    ["/b/k", "/b/k%0A"],
  ];
  for (const [path, other] of different) {
    test(`${path} and ${other} are two keys`, async () => {
      await put(target(), path, path);
      await put(target(), other, other);
      expect([await read(target(), path), await read(target(), other)]).toEqual([path, other]);
      await remove(target(), path);
      expect(await read(target(), other)).toBe(other);
      await remove(target(), other);
    });
  }

  test("keys are listed decoded: %25ff is the key %ff, slashes at the edges belong to it", async () => {
    for (const path of ["/decoded/%25ff", "/decoded//k", "/decoded/k/", "/decoded/a%2Fb"]) await put(target(), path);
    expect(await list(target(), { bucket: "decoded" })).toEqual(["%ff", "/k", "a/b", "k/"]);
  });

  test("a plus in a query is a space", async () => {
    for (const key of ["a b", "a+b"]) await put(target(), keyPath("plus", key));
    expect(await readJson<string[]>(target(), "/_list?bucket=plus&prefix=a+b")).toEqual(["a b"]);
    expect(await readJson<string[]>(target(), "/_list?bucket=plus&prefix=a%2Bb")).toEqual(["a+b"]);
  });
}

const ALL_METHODS = ["POST", "PUT", "GET", "DELETE"];

async function expectRefused(target: Target, path: string, code: Parameters<typeof expectError>[1]): Promise<void> {
  for (const method of ALL_METHODS) {
    const body = method.startsWith("P") ? { body: "x" } : {};
    await expectError(await target.fetch(path, { method, ...body }), code);
  }
  expect([path, (await target.fetch(path, { method: "HEAD" })).status]).toEqual([path, 400]);
}

function refusedTests(target: () => Target): void {
  test("an empty bucket is refused on every method", async () => {
    const authorization = `Authorization: Bearer ${await mint()}\r\n`;
    for (const path of ["//k", "//", "///", "//b/k"]) {
      for (const method of ALL_METHODS) {
        // A fetch would merge the slashes.
        const head = `${method} ${path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n${authorization}\r\n`;
        const { text, statuses } = await sendRaw(target().url, head);
        expect([path, statuses, codeIn(text)]).toEqual([path, [400], "bucket_empty"]);
      }
    }
  });

  test("an empty key is refused on every method", async () => {
    for (const path of ["/b/", "/b", "/livez/", "/%62", "/openapi"]) await expectRefused(target(), path, "key_empty");
  });

  test("malformed, dangerous and overlong keys are refused on every method", async () => {
    for (const [key, code] of REFUSED_KEYS) {
      await expectRefused(target(), `/b/${key}`, code);
      await expectError(await target().fetch(`/_meta/b/${key}`), code);
    }
  });

  test("malformed, dangerous and overlong buckets are refused on every method", async () => {
    for (const [bucket, code] of REFUSED_BUCKETS) {
      await expectRefused(target(), `/${bucket}/k`, code);
      await expectError(await target().fetch(`/_meta/${bucket}/k`), code);
    }
  });

  test("nothing was stored by any of them", async () => {
    expect(await list(target())).toEqual([]);
  });

  test("_meta needs a bucket and a key", async () => {
    await expectError(await target().fetch("/_meta/"), "bucket_empty");
    await expectError(await target().fetch("/_meta//k"), "bucket_empty");
    await expectError(await target().fetch("/_meta/b"), "key_empty");
    await expectError(await target().fetch("/_meta/b/"), "key_empty");
    await expectError(await target().fetch("/_meta"), "bucket_empty");
  });
}

/** The code of an error answer that was received raw. */
function codeIn(text: string): string | undefined {
  return /"code":"(\w+)"/.exec(text)?.[1];
}

function rawTests(target: () => Target): void {
  const ask = async (method: string, path: string, { token = "", body = "" } = {}) => {
    const length = body === "" ? "" : `Content-Length: ${body.length}\r\n`;
    const authorization = `Authorization: Bearer ${token === "" ? await mint() : token}\r\n`;
    const head = `${method} ${path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n`;
    return sendRaw(target().url, `${head}${authorization}${length}\r\n${body}`);
  };

  test("a path that climbs acts on the bucket it ends in, with the rights of that bucket", async () => {
    await put(target(), "/b/c", "in b");
    await put(target(), "/a/c", "in a");
    const [forA, forB] = [await mint({ buckets: ["a"] }), await mint({ buckets: ["b"] })];
    for (const path of [
      "/a/../b/c",
      "/a/%2e%2e/b/c",
      "/a/.%2E/b/c",
      "/a/x/../../b/c",
      "/../b/c",
      "/a\\..\\b\\c",
      "/./b/./c",
    ]) {
      const granted = await ask("GET", path, { token: forB });
      expect([path, granted.statuses, granted.text.endsWith("in b")]).toEqual([path, [200], true]);
      expect([path, (await ask("GET", path, { token: forA })).statuses]).toEqual([path, [403]]);
      expect([path, (await ask("DELETE", path, { token: forA })).statuses]).toEqual([path, [403]]);
      expect([path, (await ask("PUT", path, { token: forA, body: "x" })).statuses]).toEqual([path, [403]]);
    }
    expect([await read(target(), "/b/c"), await read(target(), "/a/c")]).toEqual(["in b", "in a"]);
  });

  test("a raw # anywhere in the target is refused: what stands behind it would be lost", async () => {
    for (const path of [
      "/b/k#",
      "/b/k#x",
      "/b#/k",
      "/#",
      "/b/k?ttl=5#x",
      "/_list?bucket=b#x",
      "/_meta/b/k#x",
      "/_list#",
    ]) {
      for (const method of ["GET", "PUT", "DELETE"]) {
        if (path.startsWith("/_") && method !== "GET") continue;
        const { text, statuses } = await ask(method, path, { body: method === "PUT" ? "x" : "" });
        expect([path, statuses, codeIn(text)]).toEqual([path, [400], "path_invalid"]);
      }
    }
    expect(await list(target(), { bucket: "b", prefix: "k" })).toEqual([]);
  });

  test("raw UTF-8 in a path is the key it spells; raw bytes that are no UTF-8 are refused", async () => {
    const utf8 = Buffer.from("/raw/ü😀").toString("latin1");
    expect((await ask("PUT", utf8, { body: "x" })).statuses).toEqual([200]);
    expect(await list(target(), { bucket: "raw" })).toEqual(["ü😀"]);
    for (const path of ["/raw/\xff", "/raw/a\xc3", "/raw/\xed\xa0\x80", "/raw/\xc0\xaf"]) {
      const { text, statuses } = await ask("PUT", path, { body: "x" });
      expect([path, statuses, codeIn(text)]).toEqual([path, [400], "key_invalid"]);
    }
    const { text, statuses } = await ask("PUT", "/\xff/k", { body: "x" });
    expect([statuses, codeIn(text)]).toEqual([[400], "bucket_invalid"]);
    expect(await list(target(), { bucket: "raw" })).toEqual(["ü😀"]);
  });
}

function reservedTests(target: () => Target, kvOnly: () => Target): void {
  test("buckets of the server and of services that are on are refused", async () => {
    for (const bucket of ["_x", "_list", "_meta", "_admin", "_", "api", "kv"]) {
      await expectRefused(
        target(),
        `/${bucket === "_list" ? "%5flist" : bucket}/k`.replace("/_meta/", "/%5Fmeta/"),
        "bucket_reserved",
      );
    }
    await expectRefused(target(), "/_list/k", "bucket_reserved");
    // All of v1 belongs to the relay, which does not know this token.
    expect((await target().fetch("/v1/k", { method: "PUT", body: "x" })).status).toBe(401);
    expect(await list(target())).toEqual([]);
  });

  test("only the very name is reserved", async () => {
    for (const bucket of ["API", "api2", "ap", "Kv", "v1x", "v2", "a_", "list", "meta"]) {
      await put(target(), `/${bucket}/k`, bucket);
      expect(await read(target(), `/${bucket}/k`)).toBe(bucket);
    }
  });

  test("without the services that mount them, api, kv and v1 are buckets like others", async () => {
    for (const bucket of ["api", "kv", "v1"]) {
      await put(kvOnly(), `/${bucket}/k/1`, bucket);
      expect(await read(kvOnly(), `/${bucket}/k/1`)).toBe(bucket);
    }
    expect(await list(kvOnly())).toEqual(["api", "kv", "v1"]);
    await expectRefused(kvOnly(), "/_x/k", "bucket_reserved");
  });

  test("an encoded mount is no mount: /%5flist wants a token and is a reserved bucket", async () => {
    for (const path of ["/%5flist", "/%5Flist?bucket=b", "/%5Flist/k", "/%5Fmeta/b/k", "/%5fadmin/backup"]) {
      await expectError(await target().fetch(path, { headers: { Authorization: null } }), "unauthorized");
      await expectError(await target().fetch(path), "bucket_reserved");
    }
    for (const path of ["/%6civez", "/ready%7a", "/%6detrics"]) {
      await expectError(await target().fetch(path, { headers: { Authorization: null } }), "unauthorized");
      await expectError(await target().fetch(path), "key_empty");
    }
  });
}
