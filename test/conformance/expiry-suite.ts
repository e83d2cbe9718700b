// Expiry on the wire: when an entry is gone, where it no longer shows, and what happens to its row.

import { describe, expect, test } from "bun:test";
import { eventually, untilAfter } from "../support/eventually.ts";
import { expectError, list, put, read, readJson, remove } from "../support/kv-requests.ts";
import type { OpenTarget, Target } from "../support/targets.ts";
import { useTarget } from "../support/use-target.ts";

const DAY_S = 86_400;

export function expirySuite(name: string, open: OpenTarget): void {
  describe(`expiry on ${name}`, () => expiryTests(useTarget(open, { SWEEP_INTERVAL: "1h" })));
  describe(`expiry on ${name}: forms of a TTL`, () => formTests(useTarget(open)));
  describe(`expiry on ${name}: the sweep`, () => sweepTests(useTarget(open, { SWEEP_INTERVAL: "50ms" })));
}

interface Meta {
  readonly revision: number;
  readonly created_at: string;
  readonly updated_at: string;
  readonly expires_at: string | null;
}

function metaOf(target: Target, path: string): Promise<Meta> {
  return readJson<Meta>(target, `/_meta${path}`);
}

async function expiryOf(target: Target, path: string): Promise<number> {
  return Date.parse((await metaOf(target, path)).expires_at!);
}

function expiryTests(target: () => Target): void {
  test.concurrent("an entry is readable until the very millisecond it expires, and missing from then on", async () => {
    await put(target(), "/instant/k", "x", { "X-TTL": "1" });
    const expiresAtMs = await expiryOf(target(), "/instant/k");
    for (let isGone = false; !isGone; ) {
      const askedMs = Date.now();
      const value = await read(target(), "/instant/k");
      const answeredMs = Date.now();
      isGone = value === null;
      // Judged at some moment between the two.
      if (isGone) expect(answeredMs).toBeGreaterThanOrEqual(expiresAtMs);
      else expect(askedMs).toBeLessThan(expiresAtMs);
    }
  });

  test.concurrent("before any sweep an expired entry is missing everywhere, and writing it is a create", async () => {
    // Enough for what is done before they expire.
    const brief = { "X-TTL": "3" };
    for (const key of ["a", "b", "c/1", "d"]) await put(target(), `/gone/${key}`, "x", brief);
    await put(target(), "/gone/kept", "x");
    await put(target(), "/gone-too/k", "x", { "X-TTL": "3s", "X-Meta-a": "1" });
    const first = await metaOf(target(), "/gone/a");
    expect(await read(target(), "/gone/a")).toBe("x");
    expect((await target().fetch("/gone/a")).headers.get("x-ttl")).toMatch(/^[123]$/);
    await untilAfter(await expiryOf(target(), "/gone-too/k"));

    expect(await read(target(), "/gone/a")).toBeNull();
    expect((await target().fetch("/gone/a", { method: "HEAD" })).status).toBe(404);
    await expectError(await target().fetch("/_meta/gone/a"), "key_not_found");
    expect(await list(target(), { bucket: "gone" })).toEqual(["kept"]);
    expect(await list(target(), { bucket: "gone", reverse: 1, limit: 2 })).toEqual(["kept"]);
    expect(await list(target(), { bucket: "gone", delimiter: "/" })).toEqual(["kept"]);
    expect(await readJson(target(), "/_list?bucket=gone&count=1")).toEqual({ count: 1 });
    expect(await readJson(target(), "/_list?bucket=gone&count=1&prefix=a")).toEqual({ count: 0 });
    expect(await list(target(), { prefix: "gone" })).toEqual(["gone"]);
    expect(await list(target(), { bucket: "gone-too" })).toEqual([]);

    const etag = `"${first.revision}"`;
    const unmet = await target().fetch("/gone/a", { method: "PUT", body: "y", headers: { "If-Match": etag } });
    expect(unmet.headers.get("etag")).toBeNull();
    await expectError(unmet, "precondition_failed");
    expect((await target().fetch("/gone/a", { headers: { "If-None-Match": etag } })).status).toBe(404);
    await remove(target(), "/gone/b");

    await put(target(), "/gone/a", "again", { "If-None-Match": "*" });
    expect(await read(target(), "/gone/a")).toBe("again");
    const second = await metaOf(target(), "/gone/a");
    expect(Date.parse(second.created_at)).toBeGreaterThan(Date.parse(first.created_at));
    expect(second.expires_at).toBeNull();
    expect(await list(target(), { bucket: "gone" })).toEqual(["a", "kept"]);
  });

  test.concurrent("a small hot entry expires although it has just been read", async () => {
    await put(target(), "/hot/k", "x", { "X-TTL": "1" });
    const expiresAtMs = await expiryOf(target(), "/hot/k");
    while (Date.now() < expiresAtMs - 50) expect([200, 404]).toContain((await target().fetch("/hot/k")).status);
    await untilAfter(expiresAtMs);
    expect(await read(target(), "/hot/k")).toBeNull();
  });

  test("an expired entry stays missing after a restart, one that has time left stays", async () => {
    await put(target(), "/restart/short", "x", { "X-TTL": "1" });
    await put(target(), "/restart/long", "x", { "X-TTL": "1h" });
    const { expires_at } = await metaOf(target(), "/restart/long");
    await untilAfter(await expiryOf(target(), "/restart/short"));
    await target().restart();
    expect(await read(target(), "/restart/short")).toBeNull();
    expect(await list(target(), { bucket: "restart" })).toEqual(["long"]);
    expect((await metaOf(target(), "/restart/long")).expires_at).toBe(expires_at);
  });

  test("an overwrite without a TTL removes the previous one, one with a TTL replaces it", async () => {
    await put(target(), "/over/k", "1", { "X-TTL": "60" });
    await put(target(), "/over/k", "2");
    expect((await metaOf(target(), "/over/k")).expires_at).toBeNull();
    const head = await target().fetch("/over/k", { method: "HEAD" });
    expect([head.headers.get("x-ttl"), head.headers.get("x-expires-at")]).toEqual([null, null]);
    await put(target(), "/over/k", "3", { "X-TTL": "60" });
    await put(target(), "/over/k?ttl=2h", "4");
    expect(Number((await target().fetch("/over/k")).headers.get("x-ttl"))).toBeWithin(7_100, 7_201);
  });
}

/** A TTL in the query, in the header, or in both; the seconds it means. */
const ACCEPTED: readonly (readonly [query: string | null, header: string | null, seconds: number])[] = [
  ["1", null, 1],
  ["60", null, 60],
  [null, "60", 60],
  ["90s", null, 90],
  [null, "5m", 300],
  ["1h30m", null, 5400],
  ["1.5h", null, 5400],
  ["7d", null, 7 * DAY_S],
  ["1500ms", null, 1.5],
  ["0.5m", null, 30],
  ["1d1h1m1s", null, DAY_S + 3661],
  ["%2B90s", null, 90],
  ["007", null, 7],
  ["3650d", null, 3650 * DAY_S],
  [`${3650 * DAY_S}`, null, 3650 * DAY_S],
  ["60", "1m", 60],
  ["1h", "3600", 3600],
];

const REFUSED = [
  "0",
  "-1",
  "-1s",
  "0s",
  "999ms",
  "0.5s",
  "1ns",
  "",
  "abc",
  "5x",
  "5 s",
  "5s ",
  "1e3",
  "1.5",
  "0x10",
  "1_000",
  "1700000000",
  "1700000000000",
  "315360001",
  "3651d",
  "9999999999999999999",
  "Infinity",
  "NaN",
  "1h30",
  "h",
  "s",
  "2030-01-01T00:00:00Z",
  "60,60",
  "true",
];

function formTests(target: () => Target): void {
  test("a TTL is an integer of seconds or a duration, in the query or in X-TTL", async () => {
    for (const [query, header, seconds] of ACCEPTED) {
      const path = query === null ? "/forms/k" : `/forms/k?ttl=${query}`;
      await put(target(), path, "x", header === null ? {} : { "X-TTL": header });
      const meta = await metaOf(target(), "/forms/k");
      const ttlMs = Date.parse(meta.expires_at!) - Date.parse(meta.updated_at);
      expect([query, header, ttlMs]).toEqual([query, header, seconds * 1000]);
    }
  });

  test("GET and HEAD tell the seconds left, rounded up, and the instant", async () => {
    await put(target(), "/forms/told?ttl=100", "x");
    const meta = await metaOf(target(), "/forms/told");
    for (const method of ["GET", "HEAD"]) {
      const askedMs = Date.now();
      const { headers } = await target().fetch("/forms/told", { method });
      const answeredMs = Date.now();
      expect(headers.get("x-expires-at")).toBe(meta.expires_at);
      expect(headers.get("x-expires-at")).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
      const expiresAtMs = Date.parse(meta.expires_at!);
      const left = Number(headers.get("x-ttl"));
      expect(left).toBeLessThanOrEqual(Math.ceil((expiresAtMs - askedMs) / 1000));
      expect(left).toBeGreaterThanOrEqual(Math.ceil((expiresAtMs - answeredMs) / 1000));
    }
  });

  test("anything else is refused and stores nothing, with a message that says what a TTL is", async () => {
    for (const ttl of REFUSED) {
      const inQuery = await target().fetch(`/forms/refused?ttl=${encodeURIComponent(ttl)}`, {
        method: "PUT",
        body: "x",
      });
      expect([ttl, ((await inQuery.clone().json()) as { message: string }).message]).toEqual([
        ttl,
        expect.stringMatching(/duration.*not a timestamp/),
      ]);
      await expectError(inQuery, "ttl_invalid");
      if (ttl.trim() !== ttl) continue;
      const inHeader = await target().fetch("/forms/refused", { method: "PUT", body: "x", headers: { "X-TTL": ttl } });
      await expectError(inHeader, "ttl_invalid");
    }
    expect(await read(target(), "/forms/refused")).toBeNull();
  });

  test("query and header that differ are refused", async () => {
    for (const [query, header] of [
      ["60", "61"],
      ["60", "1h"],
      ["60", "abc"],
      ["abc", "60"],
    ] as const) {
      const headers = { "X-TTL": header };
      const response = await target().fetch(`/forms/differ?ttl=${query}`, { method: "PUT", body: "x", headers });
      await expectError(response, "ttl_invalid");
    }
    expect(await read(target(), "/forms/differ")).toBeNull();
  });

  test("a misspelt or doubled ttl does not store for ever", async () => {
    for (const query of ["tll=5", "TTL=5", "ttl=5&ttl=6", "expires=5", "ttl=5&ex=1"]) {
      await expectError(await target().fetch(`/forms/typo?${query}`, { method: "PUT", body: "x" }), "query_invalid");
    }
    expect(await read(target(), "/forms/typo")).toBeNull();
  });
}

function sweepTests(target: () => Target): void {
  const revisionOf = async (path: string) => Number(JSON.parse(await put(target(), path, "x")));

  test("the sweep removes expired rows, and nothing else, each with a revision", async () => {
    const paths = Array.from({ length: 1200 }, (_, index) => `/swept/${index}`);
    const first = await revisionOf("/swept/kept");
    await Promise.all(paths.map((path) => put(target(), path, "x", { "X-TTL": "1" })));
    await put(target(), "/swept/long", "x", { "X-TTL": "1h" });
    // Revisions are given to writes and to removals alone: what is not a write of this test is a removal.
    let writes = paths.length + 1;
    const removals = async () => (await revisionOf("/swept/kept")) - first - ++writes;
    await eventually("all are swept", 10_000, async () => (await removals()) >= paths.length);
    expect(await removals()).toBe(paths.length);
    expect(await list(target(), { bucket: "swept" })).toEqual(["kept", "long"]);
    expect(await readJson(target(), "/_list?bucket=swept&count=1")).toEqual({ count: 2 });
  });
}
