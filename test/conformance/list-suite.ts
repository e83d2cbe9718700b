// Lists on the wire: whole ones, pages, ranges, groups, details and counts, against a model that sorts and filters.

import { describe, expect, test } from "bun:test";
import { expectError, keyPath, list, listPath, put, readJson, remove } from "../support/kv-requests.ts";
import { byBytes, expectedNames, type ListParameters } from "../support/list-model.ts";
import { bySize } from "../support/run-size.ts";
import { type Random, randomFrom, seededRandom } from "../support/seeded-random.ts";
import type { OpenTarget, Target } from "../support/targets.ts";
import { useTarget } from "../support/use-target.ts";

const PAGE_MAX = 1000;
const RANDOM_QUERIES = bySize(60, 300);

export function listSuite(name: string, open: OpenTarget): void {
  describe(`whole lists on ${name}`, () => wholeListTests(useTarget(open)));
  describe(`pages on ${name}`, () => pageTests(useTarget(open)));
  describe(`cursors on ${name}`, () => cursorTests(useTarget(open)));
  describe(`lists of 10 000 random keys on ${name}`, () => modelTests(useTarget(open)));
  describe(`details and counts on ${name}`, () => detailTests(useTarget(open)));
  describe(`list parameters on ${name}`, () => parameterTests(useTarget(open)));
}

async function putAll(target: Target, bucket: string, keys: readonly string[]): Promise<void> {
  const rest = [...keys];
  const work = async () => {
    for (let key = rest.pop(); key !== undefined; key = rest.pop()) await put(target, keyPath(bucket, key));
  };
  await Promise.all(Array.from({ length: 64 }, work));
}

interface Page {
  readonly names: string[];
  readonly cursor: string | null;
  /** The path in the Link header. */
  readonly next: string | null;
}

async function readPage(target: Target, path: string): Promise<Page> {
  const response = await target.fetch(path);
  expect([path, response.status]).toEqual([path, 200]);
  const link = response.headers.get("link");
  const next = link === null ? null : (/^<(\/_list\?[^<>]+)>; rel="next"$/.exec(link)?.[1] ?? "malformed");
  return { names: (await response.json()) as string[], cursor: response.headers.get("x-next-cursor"), next };
}

/** All pages, following the links; each page but the last is full. `between` runs before each further page. */
async function walk(
  target: Target,
  parameters: Readonly<Record<string, string | number>>,
  between: () => Promise<unknown> = async () => undefined,
): Promise<string[]> {
  const names: string[] = [];
  for (let path: string | null = listPath(parameters); path !== null; ) {
    const page = await readPage(target, path);
    names.push(...page.names);
    expect(page.cursor === null).toBe(page.next === null);
    if (page.next !== null) {
      expect(page.names.length).toBe(Number(parameters.limit));
      await between();
    }
    path = page.next;
  }
  return names;
}

function wholeListTests(target: () => Target): void {
  test("an empty store lists as [], with and without an empty bucket parameter", async () => {
    for (const path of [
      "/_list",
      "/_list?",
      "/_list?bucket=",
      "/_list?bucket=b",
      "/_list?limit=5",
      "/_list?reverse=1",
    ]) {
      expect(await (await target().fetch(path)).text()).toBe("[]");
    }
  });

  test("without a bucket all buckets are listed, with one all its keys, as arrays in byte order", async () => {
    const keys = ["b", "a", "B", "10", "9", "é", "z", "a/b", "a.b", "\ue000", "😀", "\uffff", "~"];
    await putAll(target(), "users", keys);
    await putAll(target(), "Users", ["1"]);
    await putAll(target(), "a", ["1"]);
    await putAll(target(), "😀", ["1"]);
    await putAll(target(), "\ue000", ["1"]);
    expect(await (await target().fetch("/_list")).text()).toBe(JSON.stringify(["Users", "a", "users", "\ue000", "😀"]));
    expect(await list(target(), { bucket: "" })).toEqual(await list(target()));
    expect(await list(target(), { bucket: "users" })).toEqual(keys.toSorted(byBytes));
    expect(await list(target(), { bucket: "users", reverse: 1 })).toEqual(keys.toSorted(byBytes).reverse());
    expect(await list(target(), { reverse: 1 })).toEqual(["😀", "\ue000", "users", "a", "Users"]);
  });

  test("an unknown, emptied or impossible bucket lists as [] with 200", async () => {
    await put(target(), "/emptied/1");
    await put(target(), "/emptied/2");
    await remove(target(), "/emptied/1");
    expect(await list(target(), { bucket: "emptied" })).toEqual(["2"]);
    await remove(target(), "/emptied/2");
    expect(await list(target(), { prefix: "emptied" })).toEqual([]);
    for (const bucket of ["emptied", "unknown", "user", "users2", "a/b", "..", "_x", "\0", "\ufffd", "b".repeat(500)]) {
      expect([bucket, await list(target(), { bucket })]).toEqual([bucket, []]);
      expect([bucket, await list(target(), { bucket, limit: 1 })]).toEqual([bucket, []]);
      expect(await readJson(target(), listPath({ bucket, count: 1 }))).toEqual({ count: 0 });
    }
  });

  test("a bucket emptied and filled again is listed again", async () => {
    await put(target(), "/again/1");
    await remove(target(), "/again/1");
    await put(target(), "/again/2");
    expect(await list(target(), { bucket: "again" })).toEqual(["2"]);
    expect(await list(target(), { prefix: "again" })).toEqual(["again"]);
  });

  test("buckets take prefix, start, end, limit and reverse as keys do", async () => {
    const buckets = ["r1", "r2", "r2a", "r3", "r%", "r_", "R1"];
    for (const bucket of buckets) await put(target(), keyPath(bucket, "k"));
    const all = await list(target());
    for (const parameters of [
      { prefix: "r" },
      { prefix: "r2" },
      { prefix: "r%" },
      { prefix: "r_" },
      { start: "r2" },
      { end: "r2a" },
      { start: "r2", end: "r3" },
      { prefix: "r", start: "r1", end: "r2a" },
      { start: "r3", end: "r1" },
    ] as const) {
      for (const reverse of [{}, { reverse: 1 }] as const) {
        const expected = expectedNames(all, { ...parameters, ...reverse });
        expect(await list(target(), { ...parameters, ...reverse })).toEqual(expected);
        for (const limit of [1, 2, 3, 20]) {
          expect(await walk(target(), { ...parameters, ...reverse, limit })).toEqual(expected);
        }
      }
    }
  });

  test("HEAD of a list that would be a stream says how long it would be", async () => {
    await putAll(
      target(),
      "headed",
      Array.from({ length: 1200 }, (_, index) => `key ${index} ü`),
    );
    const path = listPath({ bucket: "headed" });
    const { byteLength } = await (await target().fetch(path)).arrayBuffer();
    const head = await target().fetch(path, { method: "HEAD" });
    expect([head.status, head.headers.get("content-length"), await head.text()]).toEqual([200, `${byteLength}`, ""]);
  });

  test("HEAD of a list has the headers of GET and no body", async () => {
    const path = listPath({ bucket: "users", limit: 2 });
    const [get, head] = [await target().fetch(path), await target().fetch(path, { method: "HEAD" })];
    expect([head.status, await head.text()]).toEqual([200, ""]);
    for (const name of ["content-type", "link", "x-next-cursor"]) {
      expect([name, head.headers.get(name)]).toEqual([name, get.headers.get(name)]);
      expect(head.headers.get(name)).not.toBeNull();
    }
    expect(head.headers.get("content-length")).toBe(`${(await get.text()).length}`);
  });
}

/** Keys that a LIKE, a glob or a comparison of UTF-16 units would get wrong, with their neighbours. */
const TRICKY_KEYS = [
  "%",
  "%%",
  "%a",
  "_",
  "__",
  "_a",
  "*",
  "**",
  "*a",
  "a",
  "a%",
  "a%b",
  "a_",
  "a_b",
  "a*",
  "a*b",
  "ab",
  "aab",
  "axb",
  "a/",
  "a/1",
  "a/2",
  "a0",
  "A",
  "A/1",
  "b",
  "b/",
  "b2",
  "B",
  "?",
  "[a]",
  "\\",
  "\\%",
  "a\\",
  "é",
  "e\u0301",
  "ê",
  "😀",
  "😀/1",
  "😁",
  "\ud7ff",
  "\ue000",
  "\uffff",
  "\u{10ffff}",
  "\u{10ffff}a",
  "\u{10ffff}\u{10ffff}",
  "k".repeat(1024),
];

/** Keys that are stored and deleted while a list is paged: before, between and behind those that stay. */
function visitorsOf(keys: readonly string[]): string[] {
  const short = keys.filter((key) => key.length < 1000);
  return ["!", "~", ...short.map((key) => `${key}~visitor`), ...short.map((key) => `${key} visitor`)];
}

function pageTests(target: () => Target): void {
  const stay = new Set(TRICKY_KEYS);

  test("pages of every limit from 1 to 20 add up to the whole list while other keys come and go", async () => {
    await putAll(target(), "tricky", TRICKY_KEYS);
    await putAll(target(), "trick", ["a"]);
    await putAll(target(), "tricky2", ["a"]);
    const visitors = visitorsOf(TRICKY_KEYS);
    const random = seededRandom("keys that come and go");
    const comeAndGo = () =>
      Promise.all(
        Array.from({ length: 3 }, () => {
          const path = keyPath("tricky", random.pick(visitors));
          return random.chance(0.5) ? put(target(), path) : remove(target(), path);
        }),
      );
    for (let limit = 1; limit <= 20; limit++) {
      for (const reverse of [{}, { reverse: 1 }] as const) {
        const names = await walk(target(), { bucket: "tricky", limit, ...reverse }, comeAndGo);
        expect([limit, names.filter((name) => stay.has(name))]).toEqual([limit, expectedNames(stay, reverse)]);
        expect([limit, names]).toEqual([limit, expectedNames(names, reverse)]);
        expect(names.filter((name) => !stay.has(name) && !visitors.includes(name))).toEqual([]);
      }
    }
  });

  test("a prefix is a prefix of bytes, not a pattern, for every key and its neighbours", async () => {
    await putAll(target(), "prefixes", TRICKY_KEYS);
    for (const prefix of [...TRICKY_KEYS, "\u{10ffff}\u{10ffff}\u{10ffff}", "\0", "zzz", "\ufffd", " "]) {
      for (const reverse of [{}, { reverse: 1 }] as const) {
        const expected = expectedNames(TRICKY_KEYS, { prefix, ...reverse });
        expect([prefix, await list(target(), { bucket: "prefixes", prefix, ...reverse })]).toEqual([prefix, expected]);
        expect([prefix, await walk(target(), { bucket: "prefixes", prefix, ...reverse, limit: 2 })]).toEqual([
          prefix,
          expected,
        ]);
      }
    }
  });

  test("start is inclusive, end exclusive, and both are intersected with the prefix", async () => {
    await putAll(target(), "bounds", TRICKY_KEYS);
    const random = seededRandom("bounds of a list");
    const bounds = ["", ...TRICKY_KEYS, "a\0", "m", "\u{10ffff}\u{10ffff}\u{10ffff}"];
    for (let times = 0; times < 150; times++) {
      const parameters: ListParameters = {
        prefix: random.pick(["", "", "a", "a%", "\u{10ffff}"]),
        start: random.pick(bounds),
        end: random.pick(bounds),
        ...(random.chance(0.5) ? { reverse: 1 } : {}),
      };
      const expected = expectedNames(TRICKY_KEYS, parameters);
      const asked = { bucket: "bounds", ...parameters };
      expect([asked, await list(target(), asked)]).toEqual([asked, expected]);
      expect([asked, await walk(target(), { ...asked, limit: 1 + random.below(20) })]).toEqual([asked, expected]);
    }
  });

  test("a page that ends with the list has neither cursor nor link", async () => {
    await putAll(target(), "exact", ["1", "2", "3", "4"]);
    for (const limit of [4, 5, 1000]) {
      const page = await readPage(target(), listPath({ bucket: "exact", limit }));
      expect(page).toEqual({ names: ["1", "2", "3", "4"], cursor: null, next: null });
    }
    const whole = await readPage(target(), listPath({ bucket: "exact" }));
    expect(whole).toEqual({ names: ["1", "2", "3", "4"], cursor: null, next: null });
  });

  test("the link keeps all other parameters and adds the cursor", async () => {
    await putAll(target(), "li nk&", ["a/1", "a/2", "a/3/x", "a/4"]);
    const parameters = { bucket: "li nk&", prefix: "a/", start: "a/", end: "a/9&=#", limit: 2, delimiter: "/" };
    const page = await readPage(target(), listPath(parameters));
    const next = new URLSearchParams(page.next!.slice("/_list?".length));
    const expected = { ...parameters, limit: "2", cursor: page.cursor! };
    expect(Object.fromEntries(next)).toEqual(expected);
    expect((await readPage(target(), page.next!)).names).toEqual(["a/3/", "a/4"]);
  });
}

function cursorTests(target: () => Target): void {
  const keys = Array.from({ length: 12 }, (_, index) => `k/${index % 3}/${index}`).toSorted(byBytes);

  test("a cursor is bound to bucket, prefix, start, end, reverse and delimiter", async () => {
    await putAll(target(), "bound", keys);
    await putAll(target(), "bound2", keys);
    const own: Readonly<Record<string, string | number>> = {
      bucket: "bound",
      prefix: "k",
      start: "k",
      end: "l",
      limit: 2,
    };
    const { cursor } = await readPage(target(), listPath(own));
    const others = [
      { bucket: "bound2" },
      { bucket: "" },
      { prefix: "k/" },
      { prefix: "" },
      { start: "k/" },
      { end: "m" },
      { reverse: 1 },
      { delimiter: "/" },
    ] as const;
    for (const other of others) {
      const path = listPath({ ...own, ...other, cursor });
      await expectError(await target().fetch(path), "cursor_invalid");
    }
    const page = await readPage(target(), listPath({ ...own, cursor }));
    expect(page.names).toEqual(keys.slice(2, 4));
    const more = await readPage(target(), listPath({ ...own, limit: 5, cursor }));
    expect(more.names).toEqual(keys.slice(2, 7));
  });

  test("a text that is no cursor is refused", async () => {
    await putAll(target(), "forged", keys);
    const { cursor } = await readPage(target(), listPath({ bucket: "forged", limit: 2 }));
    for (const forged of [
      "x",
      "AAAA",
      "AAAAAA",
      `${cursor}=`,
      `${cursor}.`,
      ` ${cursor}`,
      cursor!.slice(0, 5),
      "a/1",
      "😀",
    ]) {
      await expectError(await target().fetch(listPath({ bucket: "forged", cursor: forged })), "cursor_invalid");
    }
  });

  test("a cursor survives the deletion of the key it stands at, and of all around it", async () => {
    for (const reverse of [{}, { reverse: 1 }] as const) {
      await putAll(target(), "deleted", keys);
      const order = expectedNames(keys, reverse);
      const { names, next } = await readPage(target(), listPath({ bucket: "deleted", limit: 5, ...reverse }));
      expect(names).toEqual(order.slice(0, 5));
      for (const key of order.slice(3, 7)) await remove(target(), keyPath("deleted", key));
      expect((await readPage(target(), next!)).names).toEqual(order.slice(7, 12));
    }
  });

  test("a cursor survives a restart", async () => {
    await putAll(target(), "restarted", keys);
    const { next } = await readPage(target(), listPath({ bucket: "restarted", limit: 5 }));
    await target().restart();
    expect((await readPage(target(), next!)).names).toEqual(keys.slice(5, 10));
  });

  test("a cursor at the end of what is left is an empty page", async () => {
    await putAll(target(), "shrunk", keys);
    const { next } = await readPage(target(), listPath({ bucket: "shrunk", limit: 10 }));
    for (const key of keys.slice(10)) await remove(target(), keyPath("shrunk", key));
    expect(await readPage(target(), next!)).toEqual({ names: [], cursor: null, next: null });
  });

  test("a cursor without a limit reads 1000 at a time", async () => {
    const many = Array.from({ length: 1102 }, (_, index) => `${index}`.padStart(5, "0"));
    await putAll(target(), "thousand", many);
    const { cursor } = await readPage(target(), listPath({ bucket: "thousand", limit: 1 }));
    const page = await readPage(target(), listPath({ bucket: "thousand", cursor }));
    expect(page.names).toEqual(many.slice(1, 1 + PAGE_MAX));
    expect((await readPage(target(), page.next!)).names).toEqual(many.slice(1 + PAGE_MAX));
  });
}

const PARTS = [
  "a",
  "b",
  "c",
  " ",
  "\t",
  "/",
  "/",
  "//",
  "%",
  "_",
  "*",
  "é",
  "😀",
  "\ue000",
  "\u{10ffff}",
  "0",
  "B",
  "::",
];
const DOTS = /(?:^|\/)\.\.?(?:\/|$)/;

function randomKey(random: Random): string {
  for (;;) {
    const key = Array.from({ length: 1 + random.below(9) }, () => random.pick(PARTS)).join("");
    if (!DOTS.test(key)) return key;
  }
}

function modelTests(target: () => Target): void {
  // Always the same keys, so that a failure is found again; the queries differ from run to run.
  const source = randomFrom(20_260_401);
  const keys = new Set<string>();
  while (keys.size < 10_000) keys.add(randomKey(source));
  const sorted = expectedNames(keys, {});

  test("an unlimited list is complete, in order, forwards, backwards and collapsed", async () => {
    await putAll(target(), "random", sorted);
    for (const parameters of [{}, { reverse: 1 }, { delimiter: "/" }, { delimiter: "/", reverse: 1 }] as const) {
      const page = await readPage(target(), listPath({ bucket: "random", ...parameters }));
      expect(page).toEqual({ names: expectedNames(sorted, parameters), cursor: null, next: null });
    }
    expect(await list(target())).toEqual(["random"]);
  }, 120_000);

  test("delimiter, prefix, bounds, order and limit together equal a model", async () => {
    const random = seededRandom("queries over 10 000 keys");
    for (let times = 0; times < RANDOM_QUERIES; times++) {
      const parameters: ListParameters = {
        ...(random.chance(0.8)
          ? { delimiter: random.pick(["/", "/", "//", "a", "é", "::", "😀", "\u{10ffff}", "/a"]) }
          : {}),
        ...(random.chance(0.6) ? { prefix: random.pick([...PARTS, "a/", "b/c", "\u{10ffff}\u{10ffff}", "zz"]) } : {}),
        ...(random.chance(0.3) ? { start: random.pick(sorted) } : {}),
        ...(random.chance(0.3) ? { end: random.pick(sorted) } : {}),
        ...(random.chance(0.5) ? { reverse: 1 } : {}),
      };
      const expected = expectedNames(sorted, parameters);
      const limit = Math.min(PAGE_MAX, Math.max(1 + random.below(50), Math.ceil(expected.length / 10)));
      const asked = { bucket: "random", ...parameters };
      expect([asked, await walk(target(), { ...asked, limit })]).toEqual([asked, expected]);
      expect([asked, await list(target(), asked)]).toEqual([asked, expected]);
    }
  }, 120_000);

  test("counts equal the model", async () => {
    const random = seededRandom("counts over 10 000 keys");
    for (let times = 0; times < 60; times++) {
      const parameters = {
        ...(random.chance(0.6) ? { prefix: random.pick([...PARTS, "a/", "zz"]) } : {}),
        ...(random.chance(0.5) ? { start: random.pick(sorted) } : {}),
        ...(random.chance(0.5) ? { end: random.pick(sorted) } : {}),
      };
      const count = expectedNames(sorted, parameters).length;
      const path = listPath({ bucket: "random", count: 1, ...parameters });
      expect([path, await readJson(target(), path)]).toEqual([path, { count }]);
    }
  });

  test("details without a limit are pages of 1000", async () => {
    const path = listPath({ bucket: "random", details: 1 });
    const response = await target().fetch(path);
    const page = (await response.json()) as Details;
    expect(page.keys.map(({ name }) => name)).toEqual(sorted.slice(0, PAGE_MAX));
    expect([page.list_complete, page.prefixes]).toEqual([false, []]);
    expect(page.cursor).toBe(response.headers.get("x-next-cursor"));
    const next = await readJson<Details>(target(), listPath({ bucket: "random", details: 1, cursor: page.cursor }));
    expect(next.keys.map(({ name }) => name)).toEqual(sorted.slice(PAGE_MAX, 2 * PAGE_MAX));
  });
}

interface Details {
  readonly keys: readonly { readonly name: string }[];
  readonly prefixes: readonly string[];
  readonly list_complete: boolean;
  readonly cursor: string | null;
}

function detailTests(target: () => Target): void {
  test("details tell of each key what _meta tells, members in order", async () => {
    await put(target(), "/details/a", "hello", { "Content-Type": "text/plain", "X-Meta-b": "2", "X-TTL": "1h" });
    await put(target(), "/details/b/1", "");
    const text = await (await target().fetch(listPath({ bucket: "details", details: 1 }))).text();
    expect(text).toStartWith('{"keys":[{"name":"a","size":5,"revision":');
    expect(text).toEndWith('}],"prefixes":[],"list_complete":true,"cursor":null}');
    const { keys } = JSON.parse(text) as Details;
    for (const entry of keys) {
      const { bucket, key, ...rest } = await readJson<Record<string, unknown>>(
        target(),
        `/_meta/details/${entry.name}`,
      );
      expect(JSON.stringify(entry)).toBe(JSON.stringify({ name: key, ...rest }));
      expect(bucket).toBe("details");
    }
  });

  test("with a delimiter, groups are told as prefixes and count against the limit", async () => {
    await putAll(target(), "groups", ["a", "b/1", "b/2", "c", "d/1", "e"]);
    const page = await readJson<Details>(target(), listPath({ bucket: "groups", details: 1, delimiter: "/" }));
    expect(page.keys.map(({ name }) => name)).toEqual(["a", "c", "e"]);
    expect([page.prefixes, page.list_complete, page.cursor]).toEqual([["b/", "d/"], true, null]);
    const asked = { bucket: "groups", details: 1, delimiter: "/", limit: 2 };
    const pages: unknown[] = [];
    for (let cursor: string | null = null; pages.length === 0 || cursor !== null; ) {
      const part: Details = await readJson<Details>(target(), listPath({ ...asked, cursor }));
      pages.push([part.keys.map(({ name }) => name), part.prefixes]);
      cursor = part.cursor;
      expect(part.list_complete).toBe(cursor === null);
    }
    expect(pages).toEqual([
      [["a"], ["b/"]],
      [["c"], ["d/"]],
      [["e"], []],
    ]);
  });

  test("a count follows writes and deletes", async () => {
    const count = () => readJson(target(), listPath({ bucket: "counted", count: 1 }));
    expect(await count()).toEqual({ count: 0 });
    await putAll(target(), "counted", ["a", "b", "c"]);
    await put(target(), "/counted/a", "again");
    expect(await count()).toEqual({ count: 3 });
    await remove(target(), "/counted/b");
    await remove(target(), "/counted/b");
    expect(await count()).toEqual({ count: 2 });
  });
}

const REFUSED_QUERIES = [
  "limit=0",
  "limit=1001",
  "limit=-1",
  "limit=abc",
  "limit=1.5",
  "limit=",
  "limit=1e2",
  "limit=+5",
  "limit=99999999",
  "reverse=0",
  "reverse=true",
  "reverse=",
  "reverse",
  "reverse=11",
  "bucket=b&details=0",
  "bucket=b&details=yes",
  "bucket=b&count=0",
  "bucket=b&count=true",
  "bucket=b&count",
  "bucket=b&delimiter=",
  "details=1",
  "delimiter=/",
  "count=1",
  "bucket=&count=1",
  "bucket=&details=1",
  `bucket=b&delimiter=${"d".repeat(17)}`,
  `bucket=b&delimiter=${"%C3%A9".repeat(8)}d`,
  "bucket=b&count=1&limit=5",
  "bucket=b&count=1&cursor=x",
  "bucket=b&count=1&reverse=1",
  "bucket=b&count=1&delimiter=/",
  "bucket=b&count=1&details=1",
  "bukket=b",
  "limits=5",
  "Bucket=b",
  "bucket=b&bucket=c",
  "bucket=b&bucket=b",
  "limit=5&limit=6",
  "prefix=a&prefix=b",
  "bucket=%ff",
  "x",
  "prefix=%zz",
  "prefix=%",
  "=b",
  "bucket=b&ttl=5",
  "token=x",
  "__proto__=1",
  "constructor=1",
];

function parameterTests(target: () => Target): void {
  test("unknown, doubled, contradictory and malformed parameters are refused", async () => {
    for (const query of REFUSED_QUERIES) {
      const response = await target().fetch(`/_list?${query}`);
      expect([query, response.status]).toEqual([query, 400]);
      await expectError(response, "query_invalid");
    }
  });

  test("a delimiter of 16 bytes and a limit of 1000 are taken", async () => {
    await putAll(target(), "b", [`x${"d".repeat(16)}y`, "z"]);
    const parameters = { bucket: "b", delimiter: "d".repeat(16), limit: 1000 };
    expect(await list(target(), parameters)).toEqual([`x${"d".repeat(16)}`, "z"]);
    expect(await list(target(), { ...parameters, delimiter: "é".repeat(8) })).toEqual([`x${"d".repeat(16)}y`, "z"]);
  });

  test("an end that is empty is no end; a prefix that is empty is no prefix", async () => {
    await putAll(target(), "empty", ["a", "b"]);
    expect(await list(target(), { bucket: "empty", start: "", end: "", prefix: "" })).toEqual(["a", "b"]);
  });
}
