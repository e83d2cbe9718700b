// Keys of the token API in paths: what is one key, what is refused, which names belong to the routes.

import { describe, expect, test } from "bun:test";
import type { ErrorCode } from "../../src/shared/errors.ts";
import { HOSTILE_KEYS } from "../support/hostile-values.ts";
import { expectError, put, read } from "../support/kv-requests.ts";
import { sendRaw } from "../support/raw-request.ts";
import type { OpenTarget, Target } from "../support/targets.ts";
import { expectRefusal, keysOf, store, storedText, textOf, WITHOUT_RATES } from "../support/token-answers.ts";
import { administer, asApp, install } from "../support/token-client.ts";
import { useTarget } from "../support/use-target.ts";

export function tokenNamesSuite(name: string, open: OpenTarget): void {
  describe(`token keys on ${name}: in paths`, () => pathTests(useTarget(open, WITHOUT_RATES)));
  describe(`token keys on ${name}: hostile ones`, () => hostileTests(useTarget(open, WITHOUT_RATES)));
  describe(`token keys on ${name}: refused ones`, () => refusedTests(useTarget(open, WITHOUT_RATES)));
  describe(`token keys on ${name}: reserved ones`, () => reservedTests(useTarget(open, WITHOUT_RATES)));
  describe(`token keys on ${name}: buckets that belong to mounts`, () => {
    bucketTests(useTarget(open, WITHOUT_RATES), useTarget(open, { SERVICES: "kv" }));
  });
}

async function metadataKey(target: Target, token: string, path: string): Promise<string> {
  return (JSON.parse(await textOf(await asApp(target, token, `/${path}/metadata`))) as { key: string }).key;
}

function pathTests(target: () => Target): void {
  test("a slash in a key may be encoded or not", async () => {
    const { token } = await install(target());
    await store(target(), token, "a/b", "1");
    expect(await storedText(target(), token, "a%2Fb")).toBe("1");
    expect((await store(target(), token, "a%2fb", "2")).created).toBe(false);
    expect(await storedText(target(), token, "a/b")).toBe("2");
    await store(target(), token, "a/", "3");
    await store(target(), token, "/a", "4");
    await store(target(), token, "a//b", "5");
    expect(await keysOf(target(), token)).toEqual(["/a", "a/", "a//b", "a/b"]);
    expect([await storedText(target(), token, "%2Fa"), await storedText(target(), token, "a%2F")]).toEqual(["4", "3"]);
  });

  test("a last segment that says metadata is the route, written with %2F it is a part of the key", async () => {
    const { token } = await install(target());
    await store(target(), token, "a", "1");
    expect(await metadataKey(target(), token, "a")).toBe("a");
    await expectRefusal(await asApp(target(), token, "/a%2Fmetadata"), "key_not_found");
    await store(target(), token, "a%2Fmetadata", '"mine"');
    expect(await storedText(target(), token, "a%2Fmetadata")).toBe('"mine"');
    expect(await metadataKey(target(), token, "a")).toBe("a");
    expect(await metadataKey(target(), token, "a%2Fmetadata")).toBe("a/metadata");
    expect(await keysOf(target(), token)).toEqual(["a", "a/metadata"]);
    for (const method of ["POST", "DELETE"]) {
      const response = await asApp(target(), token, "/a/metadata", { method, body: "2" });
      expect(response.headers.get("allow")).toBe("GET, HEAD, OPTIONS");
      await expectRefusal(response, "method_not_allowed");
    }
    expect((await asApp(target(), token, "/a%2Fmetadata", { method: "DELETE" })).status).toBe(204);
    expect(await keysOf(target(), token)).toEqual(["a"]);
  });

  test("metadata, whole or as a part of a word, is a key", async () => {
    const { token } = await install(target());
    const keys = ["metadata", "a/metadatas", "a/xmetadata", "metadata/a", "a/Metadata", "ametadata", "/metadata"];
    for (const key of keys) await store(target(), token, key, JSON.stringify(key));
    for (const key of keys) expect(await storedText(target(), token, key)).toBe(JSON.stringify(key));
    expect(await metadataKey(target(), token, "metadata")).toBe("metadata");
    expect(await metadataKey(target(), token, "metadata/a")).toBe("metadata/a");
    expect((await keysOf(target(), token)).toSorted()).toEqual(keys.toSorted());
    for (const key of keys) expect((await asApp(target(), token, `/${key}`, { method: "DELETE" })).status).toBe(204);
  });

  test("a query, a plus and a dot in a segment are what they say", async () => {
    const { token } = await install(target());
    await store(target(), token, "a+b?x=1", "1");
    expect(await keysOf(target(), token)).toEqual(["a+b"]);
    for (const key of ["...", "a..b", ".a", "a.", "a/...", "a./b"]) await store(target(), token, key, "1");
    expect((await keysOf(target(), token)).length).toBe(7);
  });

  test("a key may stand in the path as it is, without any encoding", async () => {
    const { token } = await install(target());
    for (const key of ["班级-数学", "é", "😀", 'a"b', "{x}", "a|b", "a:b@c"]) {
      const head = `POST /kv/token/${key} HTTP/1.1\r\nHost: h\r\nX-App-Token: ${token}\r\nContent-Length: 1\r\n\r\n1`;
      expect([key, (await sendRaw(target().url, new TextEncoder().encode(head))).statuses]).toEqual([key, [200]]);
      expect(await storedText(target(), token, encodeURIComponent(key))).toBe("1");
    }
  });

  test("a path that leaves the mount by its dots leaves it", async () => {
    const { uuid, token } = await install(target());
    await put(target(), `/${uuid}/x`, "1");
    const head = `GET /kv/token/../../${uuid}/x HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer ${token}\r\n\r\n`;
    expect((await sendRaw(target().url, head)).statuses).toEqual([401]);
    const fragment = `GET /kv/token/a#b HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer ${token}\r\n\r\n`;
    const { text } = await sendRaw(target().url, fragment);
    expect(text).toContain('"code":"path_invalid"');
  });
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const CONTROLS = /[\0-\x1f\x7f]/;

function hostileTests(target: () => Target): void {
  test("every hostile key is stored, read, described, listed and deleted, or holds control characters", async () => {
    const { uuid, token } = await install(target());
    const good = HOSTILE_KEYS.filter((key) => !CONTROLS.test(key));
    for (const key of HOSTILE_KEYS) {
      const path = encodeURIComponent(key);
      if (CONTROLS.test(key)) {
        await expectRefusal(await asApp(target(), token, `/${path}`, { method: "POST", body: "1" }), "key_invalid");
        await expectRefusal(await asApp(target(), token, `/${path}`), "key_invalid");
      } else expect((await store(target(), token, path, JSON.stringify(key))).created).toBe(true);
    }
    for (const key of good) {
      const path = encodeURIComponent(key);
      expect([key, await storedText(target(), token, path)]).toEqual([key, JSON.stringify(key)]);
      expect(await metadataKey(target(), token, path)).toBe(key);
      expect(await read(target(), `/${uuid}/${path}`)).toBe(JSON.stringify(key));
    }
    const inByteOrder = good.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
    expect(await keysOf(target(), token)).toEqual(inByteOrder);
    const { items } = JSON.parse(await textOf(await asApp(target(), token, "/?limit=1000"))) as {
      items: { key: string; value: unknown }[];
    };
    expect(items.map(({ key, value }) => [key, value])).toEqual(inByteOrder.map((key) => [key, key]));
    for (const key of good) {
      const response = await asApp(target(), token, `/${encodeURIComponent(key)}`, { method: "DELETE" });
      expect([key, response.status]).toEqual([key, 204]);
    }
    expect(await keysOf(target(), token)).toEqual([]);
  });
}

const REFUSED: readonly (readonly [path: string, code: ErrorCode])[] = [
  ["%FF", "path_invalid"],
  ["%ZZ", "path_invalid"],
  ["%", "path_invalid"],
  ["%e0%80%80", "path_invalid"],
  ["%ed%a0%80", "path_invalid"],
  ["a/%C0%AF", "path_invalid"],
  ["a%2F..%2Fb", "key_invalid"],
  ["..%2Fb", "key_invalid"],
  ["a%2F.", "key_invalid"],
  ["%2e%2e%2fb", "key_invalid"],
  ["%00", "key_invalid"],
  ["a%00b", "key_invalid"],
  ["%0a", "key_invalid"],
  ["%0D%0AX-Injected:%201", "key_invalid"],
  ["a%1fb", "key_invalid"],
  ["%7F", "key_invalid"],
  ["%EF%BF%BD", "key_invalid"],
  ["k".repeat(1025), "key_invalid"],
  ["%C3%A9".repeat(513), "key_invalid"],
  ["%F0%9F%98%80".repeat(257), "key_invalid"],
];

function refusedTests(target: () => Target): void {
  test("what no key can be is 400 for every method, and never a failure", async () => {
    const { token } = await install(target());
    for (const [path, code] of REFUSED) {
      for (const init of [{}, { method: "POST", body: "1" }, { method: "DELETE" }]) {
        const response = await asApp(target(), token, `/${path}`, init);
        expect([path, init, response.status]).toEqual([path, init, 400]);
        await expectRefusal(response, code);
      }
      await expectRefusal(await asApp(target(), token, `/${path}/metadata`), code);
      expect((await asApp(target(), token, `/${path}`, { method: "HEAD" })).status).toBe(400);
    }
    expect(await keysOf(target(), token)).toEqual([]);
  });

  test("1024 bytes are a key, in every alphabet", async () => {
    const { token } = await install(target());
    for (const key of ["k".repeat(1024), "é".repeat(512), "😀".repeat(256), `${"a/".repeat(511)}ab`]) {
      await store(target(), token, encodeURIComponent(key), "1");
      expect(await storedText(target(), token, encodeURIComponent(key))).toBe("1");
    }
    expect((await keysOf(target(), token)).length).toBe(4);
  });

  test("a POST without a key is 400", async () => {
    const { token } = await install(target());
    for (const path of ["", "/", "?limit=1"]) {
      for (const body of ["{}", "{bad"]) {
        await expectRefusal(await asApp(target(), token, path, { method: "POST", body }), "key_empty");
      }
    }
  });

  test("a malformed path is refused before the token is looked at, a bad key after", async () => {
    const headers = { Authorization: null };
    await expectRefusal(await target().fetch("/kv/token/%FF", { headers }), "path_invalid");
    await expectRefusal(await target().fetch("/kv/token/%00", { headers }), "token_missing");
  });
}

const RESERVED = ["_keys", "_batchimport", "_info", "_token", "_check", "_hint"];

function reservedTests(target: () => Target): void {
  test("POST and DELETE of a reserved name are refused, GET of one without a route is 404", async () => {
    const { token } = await install(target());
    for (const key of RESERVED) {
      for (const path of [key, key.replace("_", "%5F")]) {
        if (path !== "_batchimport") {
          const post = await asApp(target(), token, `/${path}`, { method: "POST", body: "1" });
          await expectRefusal(post, "key_reserved");
        }
        await expectRefusal(await asApp(target(), token, `/${path}`, { method: "DELETE" }), "key_reserved");
        await expectRefusal(await asApp(target(), token, `/${path}/metadata`), "key_not_found");
      }
    }
    for (const key of ["_check", "_hint", "_batchimport"]) {
      await expectRefusal(await asApp(target(), token, `/${key}`), "key_not_found");
    }
    expect(await keysOf(target(), token)).toEqual([]);
  });

  test("entries that the operator gave such a name are neither read nor listed nor counted, and stay", async () => {
    const { uuid, token } = await install(target());
    for (const key of RESERVED) await put(target(), `/${uuid}/${key}`, "1", { "Content-Type": "application/json" });
    await store(target(), token, "_x", "1");
    await store(target(), token, "k", "2");
    for (const query of ["", "?sortBy=createdAt", "?sortBy=key&sortDir=desc", "?sortBy=creatorIp&limit=3"]) {
      const page = JSON.parse(await textOf(await asApp(target(), token, `/_keys${query}`))) as {
        keys: string[];
        total_rows: number;
      };
      expect([query, page.keys.toSorted(), page.total_rows]).toEqual([query, ["_x", "k"], 2]);
      const values = JSON.parse(await textOf(await asApp(target(), token, `/${query}`))) as {
        items: unknown[];
        total_rows: number;
      };
      expect([query, values.items.length, values.total_rows]).toEqual([query, 2, 2]);
    }
    expect(await textOf(await asApp(target(), token, "/_keys?skip=1"))).toContain('"keys":["k"],"total_rows":2,');
    await expectRefusal(await asApp(target(), token, "/_check"), "key_not_found");
    for (const key of RESERVED) {
      await expectRefusal(await asApp(target(), token, `/${key}/metadata`), "key_not_found");
    }
    for (const key of RESERVED) expect(await read(target(), `/${uuid}/${key}`)).toBe("1");
  });

  test("names that only begin or end like them are ordinary keys", async () => {
    const { token } = await install(target());
    const keys = ["_", "_x", "__keys", "_keys2", "_KEYS", "a/_keys", "_keys/a", "_keys.a", "_checks", "keys"];
    for (const key of keys) await store(target(), token, key, "1");
    for (const key of keys) expect(await storedText(target(), token, key)).toBe("1");
    expect((await keysOf(target(), token)).toSorted()).toEqual(keys.toSorted());
  });
}

function bucketTests(target: () => Target, withoutToken: () => Target): void {
  test("a bucket of the mount's name is refused on the operator's routes while the service is on", async () => {
    for (const path of ["/kv/x", "/kv/x/y", "/kv/tokens", "/kv/_keys", "/api/x"]) {
      const response = await target().fetch(path, { method: "PUT", body: "1" });
      await expectError(response, "bucket_reserved");
      await expectError(await target().fetch(path), "bucket_reserved");
      await put(withoutToken(), path, "1");
      expect(await read(withoutToken(), path)).toBe("1");
    }
    await put(withoutToken(), "/kv/token/k", "1");
    expect(await read(withoutToken(), "/kv/token/k")).toBe("1");
  });

  test("no device can have such a name, nor one that no bucket can have", async () => {
    for (const uuid of ["kv", "api", "v1", "_x", "_list", "a/b", "..", ".", "a\u0000", "a\n", "u".repeat(129)]) {
      const response = await administer(target(), "POST", "/devices", { uuid });
      expect([uuid, response.status]).toEqual([uuid, 400]);
    }
    for (const uuid of ["KV", "kv2", "x_", "u".repeat(128), "教室 301"]) {
      const { token } = await install(target(), {}, uuid);
      await store(target(), token, "k", "1");
      expect(await read(target(), `/${encodeURIComponent(uuid)}/k`)).toBe("1");
    }
  });
}
