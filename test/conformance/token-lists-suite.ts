// The two lists of the token API: shapes, defaults, bounds, order, what is counted, and where a page becomes too much.

import { describe, expect, test } from "bun:test";
import { MiB } from "../../src/shared/bounds.ts";
import { eventually, untilAfter } from "../support/eventually.ts";
import { keyPath, put } from "../support/kv-requests.ts";
import { byBytes } from "../support/list-model.ts";
import { openRaw, type RawConnection } from "../support/raw-request.ts";
import { metricOf } from "../support/relay-books.ts";
import { mint, type OpenTarget, type Target } from "../support/targets.ts";
import { asApp, type Installed, install } from "../support/token-client.ts";
import { useTarget } from "../support/use-target.ts";

const NO_RATES = { TOKEN_RATE_READ: "0", TOKEN_RATE_WRITE: "0", TOKEN_RATE_DELETE: "0", TOKEN_RATE_BATCH: "0" };
const SORT_ROWS_MAX = 40;

export function tokenListsSuite(name: string, open: OpenTarget): void {
  describe(`lists of tokens on ${name}`, () => {
    const target = useTarget(open, { ...NO_RATES, SWEEP_INTERVAL: "1h", TRUSTED_PROXIES: "127.0.0.1/32" });
    shapeTests(target);
    boundTests(target);
    orderTests(target);
    contentTests(target);
  });
  describe(`long lists of tokens on ${name}`, () => {
    tooMuchTests(useTarget(open, { ...NO_RATES, TOKEN_MAX_SORT_ROWS: `${SORT_ROWS_MAX}`, TOKEN_KV_ALIAS: "1" }));
  });
  describe(`lists of tokens beside uploads on ${name}`, () => {
    budgetTests(useTarget(open, { ...NO_RATES, METRICS: "open" }));
  });
}

interface KeyPage {
  readonly keys: string[];
  readonly total_rows: number;
  readonly current_page: { readonly limit: number; readonly skip: number; readonly count: number };
  readonly load_more?: string;
}

interface ItemPage {
  readonly items: { readonly key: string; readonly value: unknown; readonly createdAt: string; updatedAt: string }[];
  readonly total_rows: number;
  readonly load_more?: string;
}

async function ask<T>(target: Target, token: string, path: string): Promise<T> {
  const response = await asApp(target, token, path);
  expect([path, response.status, response.headers.get("content-type")]).toEqual([path, 200, "application/json"]);
  return (await response.json()) as T;
}

async function refusalOf(target: Target, token: string, path: string): Promise<[status: number, code: string]> {
  const response = await asApp(target, token, path);
  const { statusCode, code } = (await response.json()) as { statusCode: number; code: string };
  expect(statusCode).toBe(response.status);
  return [statusCode, code];
}

/** A device whose entries are `members`, as JSON texts by key. */
async function fill(target: Target, members: ReadonlyMap<string, string>): Promise<Installed> {
  const owner = await install(target);
  const body = `{${[...members].map(([key, value]) => `${JSON.stringify(key)}:${value}`).join()}}`;
  const answer = await asApp(target, owner.token, "/_batchimport", { method: "POST", body });
  expect(((await answer.json()) as { successful: number }).successful).toBe(members.size);
  return owner;
}

function numbered(count: number): Map<string, string> {
  return new Map(Array.from({ length: count }, (_, index) => [`key-${String(index).padStart(4, "0")}`, `${index}`]));
}

/** Every page from `path` on by its links, on whatever mount they lead to. */
async function follow<Page extends { load_more?: string }>(
  target: Target,
  token: string,
  path: string,
): Promise<Page[]> {
  const pages: Page[] = [];
  for (let next: string | undefined = `/kv/token${path}`; next !== undefined; ) {
    const response = await target.fetch(next, { headers: { Authorization: `Bearer ${token}` } });
    expect([next, response.status]).toEqual([next, 200]);
    const page = (await response.json()) as Page;
    pages.push(page);
    next = page.load_more;
  }
  return pages;
}

function shapeTests(target: () => Target): void {
  test("of an empty namespace are empty, in exactly this form", async () => {
    const { token } = await install(target());
    const keys = '{"keys":[],"total_rows":0,"current_page":{"limit":100,"skip":0,"count":0}}';
    expect(await (await asApp(target(), token, "/_keys")).text()).toBe(keys);
    for (const path of ["/", ""]) {
      expect(await (await asApp(target(), token, path)).text()).toBe('{"items":[],"total_rows":0}');
    }
  });

  test("have the first hundred keys in order, and a link to the others, when nothing is asked for", async () => {
    const { token } = await fill(target(), numbered(150));
    const page = await ask<KeyPage>(target(), token, "/_keys");
    expect(page).toEqual({
      keys: [...numbered(100).keys()],
      total_rows: 150,
      current_page: { limit: 100, skip: 0, count: 100 },
      load_more: "/kv/token/_keys?sortBy=key&sortDir=asc&limit=100&skip=100",
    });
    const values = await ask<ItemPage>(target(), token, "/");
    expect(Object.keys(values)).toEqual(["items", "total_rows", "load_more"]);
    expect(values.load_more).toBe("/kv/token/?sortBy=key&sortDir=asc&limit=100&skip=100");
    const first = values.items[0]!;
    expect(Object.keys(first)).toEqual(["key", "value", "createdAt", "updatedAt"]);
    expect(values.items.map(({ key, value }) => [key, `${value}`])).toEqual([...numbered(100)]);
    for (const time of [first.createdAt, first.updatedAt]) expect(new Date(time).toISOString()).toBe(time);
  });

  test("give every key once by their links, and the last page has none", async () => {
    const { token } = await fill(target(), numbered(57));
    const all = [...numbered(57).keys()];
    for (const limit of [1, 10, 19, 56, 57, 58]) {
      for (const order of ["sortBy=key", "sortBy=createdAt&sortDir=DESC"]) {
        const query = `?${order}&limit=${limit}`;
        const keyPages = await follow<KeyPage>(target(), token, `/_keys${query}`);
        const keys = keyPages.flatMap((page) => page.keys);
        expect([query, ...(order === "sortBy=key" ? keys : keys.reverse())]).toEqual([query, ...all]);
        expect(keyPages.length).toBe(Math.ceil(57 / limit));
        expect(keyPages.at(-1)!.load_more).toBeUndefined();
        expect(keyPages.every((page) => page.current_page.count === page.keys.length)).toBe(true);
        const itemPages = await follow<ItemPage>(target(), token, `/${query}`);
        expect(
          itemPages
            .flatMap((page) => page.items)
            .map(({ key }) => key)
            .toSorted(),
        ).toEqual(all);
        expect(itemPages.map((page) => page.total_rows)).toEqual(itemPages.map(() => 57));
      }
    }
  });

  test("do not copy a token from the query into the link", async () => {
    const { token } = await fill(target(), numbered(3));
    for (const path of ["/_keys", "/"]) {
      const answer = await target().fetch(`/kv/token${path}?limit=1&token=${token}`, {
        headers: { Authorization: null },
      });
      const text = await answer.text();
      expect([answer.status, text.includes("load_more"), text.includes(token)]).toEqual([200, true, false]);
    }
  });

  test("answer HEAD without a body", async () => {
    const { token } = await fill(target(), numbered(2));
    for (const path of ["/_keys", "/"]) {
      const answer = await asApp(target(), token, path, { method: "HEAD" });
      expect([answer.status, await answer.text()]).toEqual([200, ""]);
      expect(answer.headers.get("content-type")).toBe("application/json");
    }
  });
}

function boundTests(target: () => Target): void {
  test("cut a limit that is too large, and with a limit of nothing have only the total", async () => {
    const { token } = await fill(target(), numbered(1003));
    for (const limit of ["1001", "999999999999999999999"]) {
      const page = await ask<KeyPage>(target(), token, `/_keys?limit=${limit}`);
      expect(page.current_page).toEqual({ limit: 1000, skip: 0, count: 1000 });
      expect(page.load_more).toBe("/kv/token/_keys?sortBy=key&sortDir=asc&limit=1000&skip=1000");
      expect((await ask<ItemPage>(target(), token, `/?limit=${limit}`)).items.length).toBe(1000);
    }
    expect(await ask<KeyPage>(target(), token, "/_keys?limit=0")).toEqual({
      keys: [],
      total_rows: 1003,
      current_page: { limit: 0, skip: 0, count: 0 },
    });
    expect(await ask<ItemPage>(target(), token, "/?limit=0")).toEqual({ items: [], total_rows: 1003 });
  });

  test("at or past the end are empty without a link", async () => {
    const { token } = await fill(target(), numbered(5));
    for (const skip of [5, 6, 100_001, Number.MAX_SAFE_INTEGER]) {
      expect(await ask<KeyPage>(target(), token, `/_keys?skip=${skip}`)).toEqual({
        keys: [],
        total_rows: 5,
        current_page: { limit: 100, skip, count: 0 },
      });
      expect(await ask<ItemPage>(target(), token, `/?skip=${skip}`)).toEqual({ items: [], total_rows: 5 });
    }
    const last = await ask<KeyPage>(target(), token, "/_keys?skip=4&limit=1");
    expect([last.keys, last.load_more]).toEqual([["key-0004"], undefined as never]);
  });

  test("refuse parameters that mean nothing", async () => {
    const { token } = await install(target());
    const bad = ["-1", "1.5", "1e3", "abc", "", "0x1", "%20"].flatMap((text) => [`limit=${text}`, `skip=${text}`]);
    const fields = ["value", "__proto__", "key;drop table", "KEY", ""].map(
      (text) => `sortBy=${encodeURIComponent(text)}`,
    );
    const others = ["skip=9007199254740992", "sortDir=up", "sortDir=", "sortDir=asc%20"];
    const twice = ["limit=1&limit=1", "skip=0&skip=0", "sortBy=key&sortBy=key", "sortDir=asc&sortDir=asc"];
    for (const query of [...bad, ...fields, ...others, ...twice]) {
      for (const path of ["/_keys", "/"]) {
        const refusal = await refusalOf(target(), token, `${path}?${query}`);
        expect([path, query, ...refusal]).toEqual([path, query, 400, "invalid_parameter"]);
      }
    }
  });
}

const CREATORS = ["10.0.0.9", "10.0.0.10", "2001:db8::1", "9.9.9.9"];
const ORDERED_KEYS = ["a", "a.", "a/", "a.b", "A", "é", "e\u0301", "😀", "\uffff", "b", "_x", "0", "~", "a b", "aa"];

function orderTests(target: () => Target): void {
  test("are in the order of the bytes of the keys", async () => {
    const { token } = await fill(target(), new Map(ORDERED_KEYS.map((key) => [key, "1"])));
    const { keys } = await ask<KeyPage>(target(), token, "/_keys");
    expect(keys).toEqual(ORDERED_KEYS.toSorted(byBytes));
    const placed = ["A", "a", "é", "😀"].map((key) => keys.indexOf(key));
    expect(placed).toEqual(placed.toSorted((a, b) => a - b));
    expect(keys.indexOf("a.")).toBe(keys.indexOf("a") + 2);
    expect(keys.indexOf("a/")).toBeGreaterThan(keys.indexOf("a.b"));
  });

  test("by each field are in its order, ties by key, and descending is exactly the reverse", async () => {
    const { uuid, token } = await install(target());
    for (const [index, key] of ORDERED_KEYS.entries()) {
      const creator = index % 5 === 4 ? {} : { "X-Forwarded-For": CREATORS[index % 4]! };
      await put(target(), keyPath(uuid, key), "1", { "Content-Type": "application/json", ...creator });
    }
    for (const key of ["😀", "a.b", "A"]) {
      const answer = await asApp(target(), token, `/${encodeURIComponent(key)}`, { method: "POST", body: "2" });
      expect(answer.status).toBe(200);
    }
    const entries = await Promise.all(
      ORDERED_KEYS.map((key) =>
        ask<Record<string, string | null>>(target(), token, `/${encodeURIComponent(key)}/metadata`),
      ),
    );
    expect(new Set(entries.map(({ creatorIp }) => creatorIp)).size).toBeGreaterThanOrEqual(4);
    for (const field of ["key", "createdAt", "updatedAt", "creatorIp"]) {
      const fieldOf = (entry: Record<string, string | null>) => entry[field] ?? "";
      const sorted = entries.toSorted((a, b) => byBytes(fieldOf(a), fieldOf(b)) || byBytes(a.key!, b.key!));
      const expected = sorted.map(({ key }) => key!);
      for (const path of ["/_keys", "/"]) {
        const keysOf = async (query: string) => {
          const page = await ask<Partial<KeyPage & ItemPage>>(target(), token, `${path}?sortBy=${field}${query}`);
          return page.keys ?? page.items!.map(({ key }) => key);
        };
        expect([field, path, ...(await keysOf(""))]).toEqual([field, path, ...expected]);
        expect([field, path, ...(await keysOf("&sortDir=DESC"))]).toEqual([field, path, ...expected.toReversed()]);
        expect(await keysOf("&skip=3&limit=4")).toEqual(expected.slice(3, 7));
        expect(await keysOf("&sortDir=desc&skip=3&limit=4")).toEqual(expected.toReversed().slice(3, 7));
      }
    }
  });
}

function contentTests(target: () => Target): void {
  test("show the values as they were stored", async () => {
    const texts = new Map([
      ["a", '{ "b": 1.0,  "a": 12345678901234567890, "a": 2 }'],
      ["b", '"\\u00e9\\/"'],
      ["c", "null"],
      ["d", " [ ] "],
    ]);
    const { token } = await fill(target(), texts);
    const text = await (await asApp(target(), token, "/")).text();
    for (const value of texts.values()) expect(text).toContain(`"value":${value.trim()}`);
    expect((JSON.parse(text) as ItemPage).items.length).toBe(4);
  });

  test("show what the operator stored, with type and size in place of a value that is no JSON", async () => {
    const { uuid, token } = await install(target());
    await put(target(), keyPath(uuid, "image"), new Uint8Array([137, 80, 78, 71]), { "Content-Type": "image/png" });
    await put(target(), keyPath(uuid, "bad"), "{bad", { "Content-Type": "application/json" });
    await put(target(), keyPath(uuid, "good"), " [1.0]", { "Content-Type": "application/problem+json" });
    await put(target(), keyPath(uuid, "text"), "1", { "Content-Type": "text/plain" });
    const { items, total_rows } = await ask<ItemPage>(target(), token, "/");
    expect(total_rows).toBe(4);
    const shown = items.map(({ createdAt, updatedAt, ...item }) => {
      expect([Date.parse(createdAt) > 0, Date.parse(updatedAt) > 0]).toEqual([true, true]);
      return item as object;
    });
    expect(shown).toEqual([
      { key: "bad", value: null, contentType: "application/json", size: 4 },
      { key: "good", value: [1] },
      { key: "image", value: null, contentType: "image/png", size: 4 },
      { key: "text", value: null, contentType: "text/plain", size: 1 },
    ]);
    expect((await ask<KeyPage>(target(), token, "/_keys")).keys).toEqual(["bad", "good", "image", "text"]);
  });

  test("neither list nor count the names of routes, which only the operator can store", async () => {
    const { uuid, token } = await install(target());
    const reserved = ["_keys", "_batchimport", "_info", "_token", "_check", "_hint"];
    for (const key of [...reserved, "_x", "_keys2", "k"]) {
      await put(target(), keyPath(uuid, key), "1", { "Content-Type": "application/json" });
    }
    const granted = await install(target(), { permissionKey: ["_keys", "k", "read:_hint"] }, uuid);
    for (const sortBy of ["key", "createdAt"]) {
      const page = await ask<KeyPage>(target(), token, `/_keys?sortBy=${sortBy}`);
      expect([page.keys.toSorted(), page.total_rows]).toEqual([["_keys2", "_x", "k"], 3]);
      const narrow = await ask<KeyPage>(target(), granted.token, `/_keys?sortBy=${sortBy}`);
      expect([narrow.keys, narrow.total_rows]).toEqual([["k"], 1]);
      expect((await ask<ItemPage>(target(), token, `/?sortBy=${sortBy}`)).items.length).toBe(3);
    }
  });

  test("neither list nor count what has expired, before any sweep", async () => {
    const { uuid, token } = await fill(target(), numbered(3));
    const narrow = await install(target(), { permissionKey: ["brief", "key-0001"] }, uuid);
    const headers = { "Content-Type": "application/json", "X-TTL": "3" };
    for (const key of ["brief", "brief.1", "key-0000"]) await put(target(), keyPath(uuid, key), "1", headers);
    expect((await ask<KeyPage>(target(), narrow.token, "/_keys")).keys).toEqual(["brief", "brief.1", "key-0001"]);
    expect((await ask<KeyPage>(target(), token, "/_keys")).total_rows).toBe(5);
    await untilAfter(Date.now() + 3000);
    for (const sortBy of ["key", "updatedAt"]) {
      const page = await ask<KeyPage>(target(), token, `/_keys?sortBy=${sortBy}`);
      expect([page.keys, page.total_rows]).toEqual([["key-0001", "key-0002"], 2]);
      const few = await ask<KeyPage>(target(), narrow.token, `/_keys?sortBy=${sortBy}`);
      expect([few.keys, few.total_rows]).toEqual([["key-0001"], 1]);
      expect((await ask<ItemPage>(target(), token, `/?sortBy=${sortBy}`)).total_rows).toBe(2);
    }
    const again = await asApp(target(), token, "/key-0000", { method: "POST", body: "7" });
    expect(((await again.json()) as { created: boolean }).created).toBe(true);
    expect((await ask<KeyPage>(target(), token, "/_keys")).total_rows).toBe(3);
  });
}

function tooMuchTests(target: () => Target): void {
  test("of values that are too large together are refused with a limit that then succeeds", async () => {
    const { token } = await install(target());
    const value = `"${"v".repeat(MiB - 2)}"`;
    const keys = [...numbered(100).keys()];
    for (const key of keys) {
      expect((await asApp(target(), token, `/${key}`, { method: "POST", body: value })).status).toBe(200);
    }
    const refused = await asApp(target(), token, "/");
    const { code, message } = (await refused.json()) as { code: string; message: string };
    expect([refused.status, code]).toEqual([400, "page_too_large"]);
    const limit = Number(/limit=(\d+)/.exec(message)![1]);
    expect(limit).toBe(32);
    const page = await ask<ItemPage>(target(), token, `/?limit=${limit}`);
    const lengths = page.items.map((item) => (item.value as string).length);
    expect(lengths).toEqual(Array.from({ length: limit }, () => MiB - 2));
    expect(await refusalOf(target(), token, `/?limit=${limit + 1}`)).toEqual([400, "page_too_large"]);
    await eventually("refused pages hold nothing", 5000, async () => (await metricOf(target(), BUDGET_IN_USE)) === 0);
    expect((await ask<KeyPage>(target(), token, "/_keys")).keys).toEqual(keys);
  }, 120_000);

  test("are not too large for values that do not stand in them", async () => {
    const { uuid, token } = await install(target());
    const image = new Uint8Array(MiB);
    for (const key of numbered(39).keys())
      await put(target(), keyPath(uuid, key), image, { "Content-Type": "image/png" });
    await put(target(), keyPath(uuid, "last"), "[1]", { "Content-Type": "application/json" });
    for (const sortBy of ["key", "createdAt"]) {
      const { items } = await ask<ItemPage>(target(), token, `/?sortBy=${sortBy}`);
      expect(items.map(({ value }) => value)).toEqual([...new Array(39).fill(null), [1]]);
      expect(items[0]).toMatchObject({ contentType: "image/png", size: MiB });
    }
  }, 120_000);

  test("too long to be sorted are refused by any field but the key, counting what this token may read", async () => {
    const { uuid, token } = await fill(target(), numbered(SORT_ROWS_MAX + 1));
    const narrow = await install(target(), { permissionKey: ["key-0000", "key-0040"] }, uuid);
    for (const sortBy of ["createdAt", "updatedAt", "creatorIp"]) {
      for (const path of ["/_keys", "/"]) {
        expect(await refusalOf(target(), token, `${path}?sortBy=${sortBy}`)).toEqual([400, "sort_too_large"]);
      }
      expect((await ask<KeyPage>(target(), narrow.token, `/_keys?sortBy=${sortBy}`)).total_rows).toBe(2);
    }
    expect(await metricOf(target(), BUDGET_IN_USE)).toBe(0);
    expect((await ask<KeyPage>(target(), token, "/_keys?sortBy=key")).total_rows).toBe(SORT_ROWS_MAX + 1);
    expect((await asApp(target(), token, "/key-0007", { method: "DELETE" })).status).toBe(204);
    expect((await ask<KeyPage>(target(), token, "/_keys?sortBy=createdAt")).keys.length).toBe(SORT_ROWS_MAX);
  });

  test("link to the next page on the mount that was asked", async () => {
    const { token } = await fill(target(), numbered(5));
    const headers = { Authorization: `Bearer ${token}` };
    for (const [mount, path] of [
      ["/kv/token", "/_keys"],
      ["/kv/token", "/"],
      ["/kv", "/_keys"],
      ["/kv", "/"],
    ] as const) {
      const answer = await target().fetch(`${mount}${path}?limit=2&skip=1`, { headers });
      const { load_more } = (await answer.json()) as { load_more: string };
      expect(load_more).toBe(`${mount}${path}?sortBy=key&sortDir=asc&limit=2&skip=3`);
      expect((await target().fetch(load_more, { headers })).status).toBe(200);
    }
  });
}

const BUDGET_IN_USE = "gokv_body_budget_used_bytes";

/** An upload that has announced `bytes` and sends no more than one: its share of the memory for bodies is taken. */
async function holdUpload(target: Target, path: string, bytes: number): Promise<RawConnection> {
  const inUse = () => metricOf(target, BUDGET_IN_USE);
  const expected = (await inUse()) + bytes;
  const connection = await openRaw(target.url);
  const head = [
    `PUT ${path} HTTP/1.1`,
    `Host: ${new URL(target.url).host}`,
    `Authorization: Bearer ${await mint()}`,
    `Content-Length: ${bytes}`,
  ];
  connection.send(`${head.join("\r\n")}\r\n\r\nx`);
  await eventually("the upload has its share", 5000, async () => (await inUse()) === expected);
  return connection;
}

function budgetTests(target: () => Target): void {
  test("take nothing of the memory for bodies while they wait for their turn", async () => {
    const { token } = await fill(target(), numbered(10_000));
    let left = 60;
    const lists = Array.from({ length: left }, async () => {
      const answer = await asApp(target(), token, "/?sortBy=updatedAt&limit=1");
      left--;
      return answer.status;
    });
    const mostUsed: number[] = [];
    for (let round = 0; left > 0; round++) {
      const put = await target().fetch(`/beside/${round}`, { method: "PUT", body: "small" });
      expect(put.status).toBe(200);
      mostUsed.push(await metricOf(target(), BUDGET_IN_USE));
    }
    expect(await Promise.all(lists)).toEqual(lists.map(() => 200));
    expect(mostUsed.length).toBeGreaterThan(2);
    // One of them is read, another may have been answered just now.
    expect(Math.max(...mostUsed)).toBeLessThanOrEqual(3 * MiB);
  });

  test("whose clients leave while they wait are no failures of the server", async () => {
    const { token } = await fill(target(), numbered(10_000));
    const left = new AbortController();
    const lists = Array.from({ length: 30 }, () =>
      asApp(target(), token, "/?sortBy=updatedAt&limit=1", { signal: left.signal }).catch(() => null),
    );
    await Bun.sleep(50);
    left.abort();
    await Promise.all(lists);
    const answered = async (status: number) => {
      const text = await (await target().fetch("/metrics")).text();
      const line = new RegExp(
        `^gokv_http_requests_total\\{route="/kv/token/",method="GET",status="${status}"\\} (\\d+)$`,
        "m",
      );
      return Number(line.exec(text)?.[1] ?? 0);
    };
    await eventually("all are accounted for", 5000, async () => (await answered(499)) > 0);
    expect(await answered(503)).toBe(0);
  });

  test("take of the memory for bodies what their values need, and no more", async () => {
    const { token } = await install(target());
    const value = `"${"v".repeat(MiB - 2)}"`;
    for (const key of numbered(20).keys()) {
      expect((await asApp(target(), token, `/${key}`, { method: "POST", body: value })).status).toBe(200);
    }
    const few = await fill(target(), numbered(5));
    const countOf = async (limit: number) => (await ask<ItemPage>(target(), token, `/?limit=${limit}`)).items.length;
    {
      using _ = await holdUpload(target(), "/uploads/a", 17 * MiB);
      for (const limit of [1, 2, 20]) expect(await countOf(limit)).toBe(limit);
      using __ = await holdUpload(target(), "/uploads/b", 24 * MiB);
      expect(await countOf(5)).toBe(5);
      expect((await ask<ItemPage>(target(), few.token, "/")).items.length).toBe(5);
      expect(await refusalOf(target(), token, "/?limit=8")).toEqual([503, "overloaded"]);
    }
    await eventually("the uploads are given up", 5000, async () => {
      const answer = await asApp(target(), token, "/");
      await answer.arrayBuffer();
      return answer.status === 200;
    });
  }, 120_000);
}
