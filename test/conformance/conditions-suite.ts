// Conditional requests and ranges on the wire: ETags, If-Match, If-None-Match, Range, If-Range (RFC 9110).

import { describe, expect, test } from "bun:test";
import { expectError, put, read, readJson, remove } from "../support/kv-requests.ts";
import type { OpenTarget, Target } from "../support/targets.ts";
import { useTarget } from "../support/use-target.ts";

const MiB = 1024 * 1024;
const MALFORMED = [
  "1",
  "abc",
  "W/1",
  "w/",
  "'1'",
  '"1',
  '1"',
  '"1" "2"',
  '"1"2',
  '"1";"2"',
  '"1", x',
  "*, *",
  '*, "1"',
  '"1", *',
  'w/"1"',
  'W/ "1"',
  '""1""',
  '"a b"',
  ",",
  ", ,",
  '"\u00e9',
  `"${"1".repeat(1023)}"`,
  Array.from({ length: 17 }, (_, index) => `"${index}"`).join(", "),
];

export function conditionsSuite(name: string, open: OpenTarget): void {
  describe(`ETags on ${name}`, () => etagTests(useTarget(open)));
  describe(`conditional writes on ${name}`, () => writeTests(useTarget(open)));
  describe(`conditional reads on ${name}`, () => readTests(useTarget(open)));
  describe(`parallel conditional writes on ${name}`, () => parallelTests(useTarget(open)));
  describe(`ranges on ${name}`, () => rangeTests(useTarget(open)));
}

function revisionOf(etag: string | null): number {
  expect(etag).toMatch(/^"[1-9]\d*"$/);
  return Number(JSON.parse(etag!));
}

function etagTests(target: () => Target): void {
  const etagOf = async (path: string, method = "GET") => (await target().fetch(path, { method })).headers.get("etag")!;

  test("one revision has one ETag on PUT, GET, HEAD and _meta, however often it is read", async () => {
    const etag = await put(target(), "/etags/same", "x");
    for (let times = 0; times < 3; times++) {
      expect(await etagOf("/etags/same")).toBe(etag);
      expect(await etagOf("/etags/same", "HEAD")).toBe(etag);
      expect(await etagOf("/_meta/etags/same")).toBe(etag);
    }
    const { revision } = await readJson<{ revision: number }>(target(), "/_meta/etags/same");
    expect(`"${revision}"`).toBe(etag);
  });

  test("each write has a larger ETag than all before it, in whatever bucket, with whatever value", async () => {
    const revisions: number[] = [];
    for (const path of ["/etags/a", "/other/a", "/etags/a", "/etags/b", "/other/a"]) {
      revisions.push(revisionOf(await put(target(), path, "same value")));
    }
    expect(revisions).toEqual(revisions.toSorted((a, b) => a - b));
    expect(new Set(revisions).size).toBe(revisions.length);
  });

  test("delete and re-create never brings an old ETag back, nor does a restart", async () => {
    const seen = [await put(target(), "/etags/reborn", "x")];
    for (let times = 0; times < 3; times++) {
      await remove(target(), "/etags/reborn");
      seen.push(await put(target(), "/etags/reborn", "x"));
    }
    await remove(target(), "/etags/reborn");
    await target().restart();
    seen.push(await put(target(), "/etags/reborn", "x"));
    const revisions = seen.map(revisionOf);
    expect(revisions).toEqual(revisions.toSorted((a, b) => a - b));
    expect(new Set(revisions).size).toBe(seen.length);
    // Removals take numbers too, the one before the restart included.
    expect(revisions.at(-1)! - revisions.at(-2)!).toBeGreaterThanOrEqual(2);
  });

  test("what changes nothing takes no revision", async () => {
    const before = revisionOf(await put(target(), "/etags/first", "x"));
    await remove(target(), "/etags/missing");
    await target().fetch("/etags/first", { method: "PUT", body: "y", headers: { "If-None-Match": "*" } });
    await target().fetch("/etags/missing", { method: "PUT", body: "y", headers: { "If-Match": "*" } });
    expect(revisionOf(await put(target(), "/etags/second", "x"))).toBe(before + 1);
  });

  test("an ETag survives a restart with its entry", async () => {
    const etag = await put(target(), "/etags/kept", "x");
    await target().restart();
    expect(await etagOf("/etags/kept")).toBe(etag);
  });
}

/** Asserts 412 and the ETag it carries: that of the live entry, or none. */
async function expectUnmet(response: Response, etag: string | null): Promise<void> {
  expect(response.headers.get("etag")).toBe(etag);
  await expectError(response, "precondition_failed");
}

function writeTests(target: () => Target): void {
  const send = (method: string, path: string, headers: Record<string, string>) =>
    target().fetch(path, { method, headers, ...(method === "DELETE" ? {} : { body: "new" }) });

  for (const method of ["POST", "PUT", "DELETE"]) {
    const expected = method === "DELETE" ? null : "new";

    test(`${method} with If-Match goes through for the current ETag, alone, in a list, or as *`, async () => {
      for (const form of [(etag: string) => etag, (etag: string) => `"0", ${etag},"abc"`, () => "*", () => " * "]) {
        const etag = await put(target(), "/match/k", "old");
        const response = await send(method, "/match/k", { "If-Match": form(etag) });
        expect([response.status, await response.text()]).toEqual([200, ""]);
        expect(await read(target(), "/match/k")).toBe(expected);
      }
    });

    test(`${method} with If-Match on another revision is 412 and changes nothing`, async () => {
      const stale = await put(target(), "/match/stale", "older");
      const etag = await put(target(), "/match/stale", "old");
      for (const tag of [stale, `W/${etag}`, '"abc"', '""', `"0${etag.slice(1)}`, `${etag.slice(0, -1)}0"`]) {
        await expectUnmet(await send(method, "/match/stale", { "If-Match": tag }), etag);
      }
      expect(await read(target(), "/match/stale")).toBe("old");
    });

    test(`${method} with If-Match on a missing key is 412 without an ETag and stores nothing`, async () => {
      for (const tag of ["*", '"1"', '"1", "2"']) {
        await expectUnmet(await send(method, "/match/none", { "If-Match": tag }), null);
      }
      expect(await read(target(), "/match/none")).toBeNull();
    });

    test(`${method} with If-None-Match is 412 when one tag equals, weak or strong, or for * on an entry`, async () => {
      const etag = await put(target(), "/none-match/k", "old");
      for (const tag of ["*", etag, `W/${etag}`, `"0", W/${etag}`]) {
        await expectUnmet(await send(method, "/none-match/k", { "If-None-Match": tag }), etag);
      }
      expect(await read(target(), "/none-match/k")).toBe("old");
    });

    test(`${method} with If-None-Match goes through when no tag equals`, async () => {
      for (const tag of ['"0"', '"abc"', 'W/"1", "x"']) {
        await put(target(), "/none-match/other", "old");
        expect((await send(method, "/none-match/other", { "If-None-Match": tag })).status).toBe(200);
        expect(await read(target(), "/none-match/other")).toBe(expected);
      }
    });

    test(`${method} with both conditions happens only when both hold`, async () => {
      const etag = await put(target(), "/both/k", "old");
      const both = (match: string, noneMatch: string) => ({ "If-Match": match, "If-None-Match": noneMatch });
      await expectUnmet(await send(method, "/both/k", both(etag, "*")), etag);
      await expectUnmet(await send(method, "/both/k", both('"0"', '"0"')), etag);
      expect(await read(target(), "/both/k")).toBe("old");
      expect((await send(method, "/both/k", both("*", '"0"'))).status).toBe(200);
    });

    test(`${method} with a malformed condition is refused and changes nothing`, async () => {
      await put(target(), "/malformed/k", "old");
      for (const header of ["If-Match", "If-None-Match"]) {
        for (const tags of MALFORMED) {
          await expectError(await send(method, "/malformed/k", { [header]: tags }), "precondition_invalid");
        }
      }
      expect(await read(target(), "/malformed/k")).toBe("old");
    });

    test(`${method} with If-Unmodified-Since is refused, not ignored`, async () => {
      await put(target(), "/dates/k", "old");
      for (const date of [new Date(0).toUTCString(), new Date(Date.now() + 60_000).toUTCString(), "yesterday"]) {
        const response = await send(method, "/dates/k", { "If-Unmodified-Since": date });
        await expectError(response, "precondition_unsupported");
      }
      expect(await read(target(), "/dates/k")).toBe("old");
    });

    test(`${method} ignores If-Modified-Since`, async () => {
      await put(target(), "/dates/modified", "old");
      const headers = { "If-Modified-Since": new Date(Date.now() + 60_000).toUTCString() };
      expect((await send(method, "/dates/modified", headers)).status).toBe(200);
    });
  }

  test("DELETE of a missing key with If-None-Match goes through", async () => {
    expect((await send("DELETE", "/none-match/never", { "If-None-Match": "*" })).status).toBe(200);
  });

  test("16 tags are taken, in 1 KiB", async () => {
    const etag = await put(target(), "/many/k", "x");
    const tags = [...Array.from({ length: 15 }, (_, index) => `"${"a".repeat(50)}${index}"`), etag].join(", ");
    expect(tags.length).toBeLessThanOrEqual(1024);
    expect((await send("PUT", "/many/k", { "If-Match": tags })).status).toBe(200);
  });
}

function readTests(target: () => Target): void {
  for (const method of ["GET", "HEAD"]) {
    const ask = (path: string, headers: Record<string, string>) => target().fetch(path, { method, headers });

    test(`${method} with If-None-Match is 304 with the ETag and without a body when a tag equals`, async () => {
      const etag = await put(target(), "/reads/k", "x", { "Content-Type": "text/plain" });
      for (const tag of [etag, `W/${etag}`, "*", `"0", ${etag}`, `"0",\t, W/${etag}`]) {
        const response = await ask("/reads/k", { "If-None-Match": tag });
        expect([tag, response.status, await response.text()]).toEqual([tag, 304, ""]);
        expect(response.headers.get("etag")).toBe(etag);
        expect(response.headers.get("cache-control")).toBe("private, no-cache");
      }
    });

    test(`${method} with If-None-Match sends the value when it has changed, and 404 when it is gone`, async () => {
      const etag = await put(target(), "/reads/changed", "old");
      await put(target(), "/reads/changed", "new");
      const changed = await ask("/reads/changed", { "If-None-Match": etag });
      expect([changed.status, await changed.text()]).toEqual([200, method === "GET" ? "new" : ""]);
      await remove(target(), "/reads/changed");
      expect((await ask("/reads/changed", { "If-None-Match": etag })).status).toBe(404);
      expect((await ask("/reads/changed", { "If-None-Match": "*" })).status).toBe(404);
    });

    test(`${method} with If-Match is 412 when missing or none equals, else the value`, async () => {
      const etag = await put(target(), "/reads/match", "x");
      expect((await ask("/reads/match", { "If-Match": etag })).status).toBe(200);
      expect((await ask("/reads/match", { "If-Match": "*" })).status).toBe(200);
      for (const tag of ['"0"', `W/${etag}`]) {
        const response = await ask("/reads/match", { "If-Match": tag });
        expect([response.status, response.headers.get("etag")]).toEqual([412, etag]);
      }
      const missing = await ask("/reads/none", { "If-Match": "*" });
      expect([missing.status, missing.headers.get("etag")]).toEqual([412, null]);
    });

    test(`${method} judges If-Match before If-None-Match`, async () => {
      const etag = await put(target(), "/reads/both", "x");
      expect((await ask("/reads/both", { "If-Match": '"0"', "If-None-Match": etag })).status).toBe(412);
      expect((await ask("/reads/both", { "If-Match": etag, "If-None-Match": etag })).status).toBe(304);
    });

    test(`${method} ignores dates`, async () => {
      await put(target(), "/reads/dates", "x");
      const [past, future] = [new Date(0).toUTCString(), new Date(Date.now() + 60_000).toUTCString()];
      expect((await ask("/reads/dates", { "If-Modified-Since": future })).status).toBe(200);
      expect((await ask("/reads/dates", { "If-Unmodified-Since": past })).status).toBe(200);
    });

    test(`${method} with a malformed condition is refused`, async () => {
      await put(target(), "/reads/malformed", "x");
      for (const header of ["If-Match", "If-None-Match"]) {
        for (const tags of MALFORMED) {
          const response = await ask("/reads/malformed", { [header]: tags });
          expect([tags, response.status]).toEqual([tags, 400]);
          if (method === "GET") await expectError(response, "precondition_invalid");
        }
      }
    });
  }

  test("a large value answers conditions without being loaded", async () => {
    const etag = await put(target(), "/reads/large", new Uint8Array(2 * MiB));
    expect((await target().fetch("/reads/large", { headers: { "If-None-Match": etag } })).status).toBe(304);
    await expectUnmet(await target().fetch("/reads/large", { headers: { "If-Match": '"0"' } }), etag);
  });
}

function parallelTests(target: () => Target): void {
  test("of 50 parallel creates of one key exactly one succeeds, the others are 412", async () => {
    const writes = Array.from({ length: 50 }, async (_, index) => {
      const headers = { "If-None-Match": "*" };
      return (await target().fetch("/parallel/create", { method: "PUT", body: `${index}`, headers })).status;
    });
    const statuses = await Promise.all(writes);
    expect(statuses.filter((status) => status === 412).length).toBe(49);
    expect(await read(target(), "/parallel/create")).toBe(`${statuses.indexOf(200)}`);
  });

  test("50 parallel increments with If-Match and retry end at 50", async () => {
    await put(target(), "/parallel/counter", "0");
    const increment = async () => {
      for (;;) {
        const response = await target().fetch("/parallel/counter");
        const headers = { "If-Match": response.headers.get("etag")! };
        const body = `${Number(await response.text()) + 1}`;
        const { status } = await target().fetch("/parallel/counter", { method: "PUT", headers, body });
        if (status === 200) return;
        expect(status).toBe(412);
      }
    };
    await Promise.all(Array.from({ length: 50 }, increment));
    expect(await read(target(), "/parallel/counter")).toBe("50");
  });

  test("of 50 parallel deletes of one revision exactly one succeeds", async () => {
    const headers = { "If-Match": await put(target(), "/parallel/delete", "x") };
    const deletes = Array.from({ length: 50 }, () => target().fetch("/parallel/delete", { method: "DELETE", headers }));
    const statuses = (await Promise.all(deletes)).map((response) => response.status);
    expect(statuses.toSorted()).toEqual([200, ...Array.from({ length: 49 }, () => 412)]);
  });
}

const ALPHABET = "abcdefghijklmnopqrstuvwxyz";

function rangeTests(target: () => Target): void {
  const ask = async (range: string, more: Record<string, string> = {}, path = "/ranges/k") =>
    target().fetch(path, { headers: { Range: range, ...more } });

  const exact: readonly (readonly [range: string, body: string, contentRange: string])[] = [
    ["bytes=0-0", "a", "bytes 0-0/26"],
    ["bytes=5-", ALPHABET.slice(5), "bytes 5-25/26"],
    ["bytes=-5", "vwxyz", "bytes 21-25/26"],
    ["bytes=0-", ALPHABET, "bytes 0-25/26"],
    ["bytes=3-7", "defgh", "bytes 3-7/26"],
    ["bytes=25-25", "z", "bytes 25-25/26"],
    ["bytes=20-1000", "uvwxyz", "bytes 20-25/26"],
    ["bytes=-26", ALPHABET, "bytes 0-25/26"],
    ["bytes=-1000", ALPHABET, "bytes 0-25/26"],
    ["BYTES=0-0", "a", "bytes 0-0/26"],
  ];

  for (const method of ["PUT", "POST"]) {
    test(`${method} of a part of a value is refused, and the value stays whole`, async () => {
      await put(target(), "/ranges/part", ALPHABET);
      for (const part of ["bytes 0-1/26", "bytes 0-25/26", "bytes */26", "items 1-2/3", "anything", ""]) {
        const init = { method, body: "XY", headers: { "Content-Range": part } };
        await expectError(await target().fetch("/ranges/part", init), "content_range_unsupported");
      }
      expect(await read(target(), "/ranges/part")).toBe(ALPHABET);
    });
  }

  test("a single range is 206 with exactly its bytes and the headers of the value", async () => {
    const etag = await put(target(), "/ranges/k", ALPHABET, { "Content-Type": "text/plain", "X-Meta-a": "1" });
    for (const [range, body, contentRange] of exact) {
      const response = await ask(range);
      expect([range, response.status, await response.text()]).toEqual([range, 206, body]);
      expect(response.headers.get("content-range")).toBe(contentRange);
      expect(response.headers.get("content-length")).toBe(`${body.length}`);
      expect([response.headers.get("etag"), response.headers.get("x-meta-a")]).toEqual([etag, "1"]);
      expect(response.headers.get("content-type")).toBe("text/plain");
    }
  });

  test("a range outside the value is 416 with its size", async () => {
    await put(target(), "/ranges/k", ALPHABET);
    await put(target(), "/ranges/empty", "");
    for (const range of ["bytes=26-", "bytes=26-30", "bytes=1000-", "bytes=-0", `bytes=${"9".repeat(400)}-`]) {
      const response = await ask(range);
      expect([range, response.headers.get("content-range")]).toEqual([range, "bytes */26"]);
      await expectError(response, "range_not_satisfiable");
    }
    for (const range of ["bytes=0-0", "bytes=0-", "bytes=-5"]) {
      const response = await ask(range, {}, "/ranges/empty");
      expect([range, response.headers.get("content-range")]).toEqual([range, "bytes */0"]);
      await expectError(response, "range_not_satisfiable");
    }
  });

  test("several ranges, another unit and bad syntax are the whole value", async () => {
    await put(target(), "/ranges/k", ALPHABET);
    for (const range of [
      "bytes=0-0,2-3",
      "bytes=0-0, -5",
      "items=0-0",
      "0-0",
      "bytes=",
      "bytes=-",
      "bytes=5-3",
      "bytes=a-b",
      "bytes 0-0",
      "bytes=0",
      "bytes=0-0-0",
      "bytes=1.5-2",
      "bytes=+1-2",
      "bytes=--5",
      "bytes=0x1-2",
    ]) {
      const response = await ask(range);
      expect([range, response.status, await response.text()]).toEqual([range, 200, ALPHABET]);
      expect(response.headers.get("content-range")).toBeNull();
    }
  });

  test("If-Range with the current strong ETag keeps the range, anything else sends the whole value", async () => {
    const stale = await put(target(), "/ranges/k", ALPHABET);
    const etag = await put(target(), "/ranges/k", ALPHABET);
    expect((await ask("bytes=0-0", { "If-Range": etag })).status).toBe(206);
    for (const tag of [
      stale,
      `W/${etag}`,
      "abc",
      new Date().toUTCString(),
      new Date(Date.now() + 60_000).toUTCString(),
    ]) {
      const response = await ask("bytes=0-0", { "If-Range": tag });
      expect([tag, response.status, await response.text()]).toEqual([tag, 200, ALPHABET]);
    }
    const outside = await ask("bytes=1000-", { "If-Range": stale });
    expect([outside.status, await outside.text()]).toEqual([200, ALPHABET]);
  });

  test("conditions come before ranges; HEAD does not evaluate Range", async () => {
    const etag = await put(target(), "/ranges/k", ALPHABET);
    expect((await ask("bytes=0-0", { "If-None-Match": etag })).status).toBe(304);
    expect((await ask("bytes=1000-", { "If-Match": '"0"' })).status).toBe(412);
    for (const range of ["bytes=0-0", "bytes=1000-"]) {
      const head = await target().fetch("/ranges/k", { method: "HEAD", headers: { Range: range } });
      expect([head.status, head.headers.get("content-length")]).toEqual([200, "26"]);
      expect(head.headers.get("content-range")).toBeNull();
    }
    expect((await ask("bytes=0-0", {}, "/ranges/none")).status).toBe(404);
  });

  test("ranges of a value that is sent as a stream are exact", async () => {
    const value = Uint8Array.from({ length: 3 * MiB + 5 }, (_, at) => (at * 7 + (at >> 11)) & 0xff);
    await put(target(), "/ranges/large", value);
    const size = value.length;
    for (const [range, first, last] of [
      ["bytes=0-0", 0, 0],
      ["bytes=-5", size - 5, size - 1],
      ["bytes=1048570-1048590", 1_048_570, 1_048_590],
      ["bytes=7-", 7, size - 1],
      ["bytes=0-2097151", 0, 2_097_151],
    ] as const) {
      const response = await ask(range, {}, "/ranges/large");
      const bytes = new Uint8Array(await response.arrayBuffer());
      expect([range, response.status, bytes.length]).toEqual([range, 206, last - first + 1]);
      expect(Buffer.compare(bytes, value.subarray(first, last + 1))).toBe(0);
      expect(response.headers.get("content-range")).toBe(`bytes ${first}-${last}/${size}`);
      // A stream has no Content-Length; X-Size tells how much of it will come.
      const isStream = bytes.length > MiB;
      const lengths = ["content-length", "x-size"].map((name) => response.headers.get(name));
      expect([range, ...lengths]).toEqual(
        isStream ? [range, null, `${bytes.length}`] : [range, `${bytes.length}`, null],
      );
    }
    const outside = await ask(`bytes=${size}-`, {}, "/ranges/large");
    expect(outside.headers.get("content-range")).toBe(`bytes */${size}`);
    await expectError(outside, "range_not_satisfiable");
  });
}
