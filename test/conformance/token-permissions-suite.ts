// What an installation may touch on the wire: single keys, batches, lists, the whole namespace.

import { describe, expect, test } from "bun:test";
import { byBytes } from "../support/list-model.ts";
import { type PermissionFields, ruleMayRead, ruleMayWrite } from "../support/permission-rules.ts";
import type { OpenTarget, Target } from "../support/targets.ts";
import { asApp, type Installed, install, type Rights } from "../support/token-client.ts";
import { useTarget } from "../support/use-target.ts";

/** What is measured here is who may do what, not how often. */
const NO_RATES = { TOKEN_RATE_READ: "0", TOKEN_RATE_WRITE: "0", TOKEN_RATE_DELETE: "0", TOKEN_RATE_BATCH: "0" };

export function tokenPermissionsSuite(name: string, open: OpenTarget): void {
  describe(`permissions of tokens on ${name}`, () => {
    const target = useTarget(open, NO_RATES);
    tableTests(target);
    nameTests(target);
    readOnlyTests(target);
    listTests(target);
  });
}

/** 200, or the status and the code of the refusal. */
async function outcomeOf(answer: Response | Promise<Response>): Promise<string> {
  const response = await answer;
  const text = await response.text();
  if (response.ok) return `${response.status}`;
  return `${response.status} ${(JSON.parse(text) as { code: string }).code}`;
}

const pathOf = (key: string) => `/${encodeURIComponent(key)}`;

function post(target: Target, token: string, key: string, body = "1"): Promise<Response> {
  return asApp(target, token, pathOf(key), { method: "POST", body });
}

function importAll(target: Target, token: string, keys: readonly string[]): Promise<Response> {
  const members = keys.map((key) => `${JSON.stringify(key)}:1`);
  return asApp(target, token, "/_batchimport", { method: "POST", body: `{${members.join()}}` });
}

/** A device with `keys` in it and a token for the whole of it. */
async function fill(target: Target, keys: readonly string[]): Promise<Installed> {
  const owner = await install(target);
  const answer = await importAll(target, owner.token, keys);
  expect(((await answer.json()) as { successful: number }).successful).toBe(keys.length);
  return owner;
}

interface KeyPage {
  readonly keys: string[];
  readonly total_rows: number;
}

async function keysOf(target: Target, token: string, query = "?limit=1000"): Promise<KeyPage> {
  const response = await asApp(target, token, `/_keys${query}`);
  expect(response.status).toBe(200);
  return (await response.json()) as KeyPage;
}

async function itemKeysOf(target: Target, token: string): Promise<string[]> {
  const { items } = (await (await asApp(target, token, "/?limit=1000")).json()) as { items: { key: string }[] };
  return items.map(({ key }) => key);
}

const TABLE_KEYS = [
  "a",
  "a.",
  "a.b",
  "a.b.c",
  "a.bc",
  "ab",
  "A.b",
  "a/b",
  "x.a.b",
  "_a",
  "read:a",
  "read:a.b",
  "write:a",
  "%",
  "%.x",
  "é.1",
  "😀.1",
  "__proto__",
];

const TABLE_RIGHTS: readonly Rights[] = [
  {},
  { isReadOnly: true },
  { permissionPrefix: "a" },
  { permissionPrefix: "a.b", isReadOnly: true },
  { permissionPrefix: "A", permissionKey: ["a.b"] },
  { permissionKey: ["a"] },
  { permissionKey: ["read:a"] },
  { permissionKey: ["write:a.b", "read:a"] },
  { permissionKey: ["write:read:a", "%"] },
  { permissionKey: ["a", "😀", "read:é", "__proto__"], isReadOnly: true },
  { permissionPrefix: "x.a", permissionKey: ["read:write:a", "_"] },
];

function fieldsOf({ permissionPrefix = null, permissionKey = [], isReadOnly = false }: Rights): PermissionFields {
  return { permissionPrefix, permissionKey, isReadOnly };
}

/** What the rules say about each use of `key`. */
function expectedRow(fields: PermissionFields, key: string): Record<string, string | boolean> {
  const [mayRead, mayWrite] = [ruleMayRead(fields, key), ruleMayWrite(fields, key)];
  const refusal = fields.isReadOnly ? "403 read_only_token" : "403 write_denied";
  return {
    get: mayRead ? "200" : "403 read_denied",
    metadata: mayRead ? "200" : "403 read_denied",
    isListed: mayRead,
    hasItem: mayRead,
    post: mayWrite ? "200" : refusal,
    batch: mayWrite ? "stored" : fields.isReadOnly ? refusal : "write_denied",
    delete: mayWrite ? "204" : refusal,
  };
}

/** What becomes of `key` in a batch of one. */
async function batchOutcome(target: Target, token: string, key: string): Promise<string> {
  const answer = await importAll(target, token, [key]);
  if (!answer.ok) return outcomeOf(answer);
  const {
    total,
    results,
    errors = [],
  } = (await answer.json()) as {
    total: number;
    results: { key: string }[];
    errors?: { key: string; code: string }[];
  };
  expect([total, results.length + errors.length, (results[0] ?? errors[0])!.key]).toEqual([1, 1, key]);
  return errors[0]?.code ?? "stored";
}

function tableTests(target: () => Target): void {
  test("are those of the rules for every installation, key and use", async () => {
    const owner = await fill(target(), TABLE_KEYS);
    let rows = 0;
    for (const rights of TABLE_RIGHTS) {
      const { token } = await install(target(), rights, owner.uuid);
      const listed = await keysOf(target(), token);
      const items = await itemKeysOf(target(), token);
      const readable = TABLE_KEYS.filter((key) => ruleMayRead(fieldsOf(rights), key)).sort(byBytes);
      expect({ rights, ...listed }).toMatchObject({ rights, keys: readable, total_rows: readable.length });
      for (const key of TABLE_KEYS) {
        const found = {
          get: await outcomeOf(asApp(target(), token, pathOf(key))),
          metadata: await outcomeOf(asApp(target(), token, `${pathOf(key)}/metadata`)),
          isListed: listed.keys.includes(key),
          hasItem: items.includes(key),
          post: await outcomeOf(post(target(), token, key, "2")),
          batch: await batchOutcome(target(), token, key),
          delete: await outcomeOf(asApp(target(), token, pathOf(key), { method: "DELETE" })),
        };
        expect({ rights, key, ...found }).toEqual({ rights, key, ...expectedRow(fieldsOf(rights), key) } as never);
        if (found.delete === "204") expect(await outcomeOf(post(target(), owner.token, key))).toBe("200");
        rows += Object.keys(found).length;
      }
    }
    expect(rows).toBeGreaterThanOrEqual(1000);
  }, 240_000);
}

function nameTests(target: () => Target): void {
  test("of a prefix end at its dot: neither the prefix itself nor a longer name nor other letters", async () => {
    const { token } = await install(target(), { permissionPrefix: "myapp" });
    for (const [key, isAllowed] of [
      ["myapp.a", true],
      ["myapp", false],
      ["myapp2.a", false],
      ["myapp2", false],
      ["MYAPP.a", false],
      ["xmyapp.a", false],
    ] as const) {
      const outcomes = [
        await outcomeOf(post(target(), token, key)),
        await outcomeOf(asApp(target(), token, pathOf(key))),
        await outcomeOf(asApp(target(), token, `${pathOf(key)}/metadata`)),
        await outcomeOf(asApp(target(), token, pathOf(key), { method: "DELETE" })),
      ];
      const denied = ["403 write_denied", "403 read_denied", "403 read_denied", "403 write_denied"];
      expect([key, ...outcomes]).toEqual([key, ...(isAllowed ? ["200", "200", "200", "204"] : denied)]);
    }
  });

  test("do not tell by a refusal whether the key exists, nor what is wrong with its name", async () => {
    const owner = await fill(target(), ["there"]);
    const { token } = await install(target(), { permissionPrefix: "mine" }, owner.uuid);
    for (const suffix of ["", "/metadata"]) {
      for (const method of ["GET", "HEAD"]) {
        const answers: unknown[] = [];
        for (const path of ["/there", "/absent", "/a%2F..%2Fb", "/_check"]) {
          const answer = await asApp(target(), token, path + suffix, { method });
          const headers = Object.fromEntries(
            [...answer.headers].filter(([name]) => name !== "x-request-id" && name !== "date"),
          );
          answers.push({ status: answer.status, body: await answer.text(), headers });
        }
        expect(answers[0]).toMatchObject({ status: 403 });
        expect(answers.slice(1)).toEqual([answers[0], answers[0], answers[0]]);
      }
    }
    const writes = ["/there", "/absent"].map((path) => asApp(target(), token, path, { method: "DELETE" }));
    expect(await Promise.all(writes.map(outcomeOf))).toEqual(["403 write_denied", "403 write_denied"]);
  });

  test("take wildcards of other languages as the bytes they are", async () => {
    for (const name of ["%", "_", "a%b", "[x]", "*", "\\", "'", "?", "a_b", "^a", "$", "' OR 1=1 --"]) {
      const near = ["a", "ab", "aXb", "x", "[y]", "\\\\", "''", "%%", "__", "b", name.toUpperCase()];
      const keys = [...new Set([...near, name, ...[...near, name].map((key) => `${key}.k`)])];
      const owner = await fill(target(), keys);
      for (const [rights, own] of [
        [{ permissionPrefix: name }, [`${name}.k`]],
        [{ permissionKey: [name] }, [name, `${name}.k`]],
      ] as const) {
        const { token } = await install(target(), rights, owner.uuid);
        expect(await keysOf(target(), token)).toMatchObject({ keys: own, total_rows: own.length });
        expect(await itemKeysOf(target(), token)).toEqual([...own]);
        for (const key of keys) {
          const isOwn = (own as readonly string[]).includes(key);
          const outcome = await outcomeOf(asApp(target(), token, pathOf(key)));
          expect([name, key, outcome]).toEqual([name, key, isOwn ? "200" : "403 read_denied"]);
        }
      }
    }
  }, 120_000);
}

function readOnlyTests(target: () => Target): void {
  test("of a read-only token refuse every write before its body is looked at, and let everything be read", async () => {
    const owner = await fill(target(), ["k"]);
    const { token } = await install(target(), { isReadOnly: true }, owner.uuid);
    for (const [method, path] of [
      ["POST", "/k"],
      ["POST", "/new"],
      ["DELETE", "/k"],
      ["DELETE", "/"],
      ["POST", "/_batchimport"],
      ["POST", "/"],
    ] as const) {
      for (const body of ["{bad", '{"k":2}']) {
        const outcome = await outcomeOf(asApp(target(), token, path, { method, body }));
        expect([method, path, outcome]).toEqual([
          method,
          path,
          path === "/" && method === "DELETE" ? "403 namespace_denied" : "403 read_only_token",
        ] as never);
      }
    }
    for (const path of ["/k", "/k/metadata", "/", "/_keys", "/_info", "/_token"]) {
      expect([path, await outcomeOf(asApp(target(), token, path))]).toEqual([path, "200"]);
    }
    expect(await (await asApp(target(), token, "/k")).text()).toBe("1");
  });

  test("let only a token of the whole namespace delete it, and a refusal removes nothing", async () => {
    const keys = ["mine.a", "mine.b", "other"];
    const owner = await fill(target(), keys);
    for (const rights of [
      { permissionPrefix: "mine" },
      { permissionKey: ["mine"] },
      { permissionKey: ["write:mine", "write:other"] },
      { isReadOnly: true },
    ]) {
      const { token } = await install(target(), rights, owner.uuid);
      const outcome = await outcomeOf(asApp(target(), token, "/", { method: "DELETE" }));
      expect(outcome).toBe("403 namespace_denied");
    }
    expect(await keysOf(target(), owner.token)).toMatchObject({ keys, total_rows: 3 });
    expect(await outcomeOf(asApp(target(), owner.token, "/", { method: "DELETE" }))).toBe("204");
    expect(await keysOf(target(), owner.token)).toMatchObject({ keys: [], total_rows: 0 });
  });
}

function listTests(target: () => Target): void {
  test("list every key once when prefix and grants overlap, and the pages joined are the whole", async () => {
    const names = ["a", "a.", "a.a", "a.b", "a.b.c", "a.b.c.d", "a.b.cd", "a.bb", "aa", "b", "a/", "A.b", "a.b/c"];
    const owner = await fill(target(), names);
    const rights = { permissionPrefix: "a", permissionKey: ["a.b", "read:a.b.c", "a", "write:a.b"] };
    const { token } = await install(target(), rights, owner.uuid);
    const readable = names.filter((key) => ruleMayRead(fieldsOf(rights), key)).sort(byBytes);
    expect(readable).toHaveLength(9);
    for (const sortBy of ["key", "createdAt", "updatedAt", "creatorIp"]) {
      for (const sortDir of ["asc", "desc"]) {
        const order = `?sortBy=${sortBy}&sortDir=${sortDir}`;
        const whole = await keysOf(target(), token, `${order}&limit=1000`);
        expect(whole.total_rows).toBe(readable.length);
        expect(whole.keys.toSorted(byBytes)).toEqual(readable);
        for (const limit of [1, 2, 3, 4, 5]) {
          const joined: string[] = [];
          for (let skip = 0; skip < readable.length; skip += limit) {
            const page = await keysOf(target(), token, `${order}&limit=${limit}&skip=${skip}`);
            expect(page.total_rows).toBe(readable.length);
            joined.push(...page.keys);
          }
          expect([order, limit, ...joined]).toEqual([order, limit, ...whole.keys]);
        }
      }
    }
  });

  test("of a token without any readable key make empty lists, not refusals", async () => {
    const owner = await fill(target(), ["a", "b"]);
    const { token } = await install(target(), { permissionPrefix: "nothing" }, owner.uuid);
    expect(await (await asApp(target(), token, "/_keys")).json()).toEqual({
      keys: [],
      total_rows: 0,
      current_page: { limit: 100, skip: 0, count: 0 },
    });
    expect(await (await asApp(target(), token, "/")).json()).toEqual({ items: [], total_rows: 0 });
  });
}
