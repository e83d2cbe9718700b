// Ten thousand random operations on a few namespaces through both surfaces, against maps in memory: what is listed,
// counted and read is what the maps hold, for every installation. All start from one seed, which is printed.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { keyPath, list, listPath, readJson } from "../support/kv-requests.ts";
import { byBytes } from "../support/list-model.ts";
import { type PermissionFields, ruleIsFull, ruleMayRead, ruleMayWrite } from "../support/permission-rules.ts";
import { bySize, report } from "../support/run-size.ts";
import { type Random, randomFrom, seededRandom } from "../support/seeded-random.ts";
import { openBinary, type Target } from "../support/targets.ts";
import { asApp, install } from "../support/token-client.ts";

const OPERATIONS = bySize(10_000, 15_000, 300_000);
const NAMESPACES = 4;
const RESTARTS = 4;
const RESERVED = ["_keys", "_batchimport", "_info", "_token", "_check", "_hint"];
const SORT_FIELDS = ["key", "createdAt", "updatedAt", "creatorIp"] as const;
/** Answers that an expiry has overtaken prove nothing; there must be few of them. */
const OVERTAKEN_SHARE_MAX = 0.5;

const RIGHTS: readonly PermissionFields[] = [
  { permissionPrefix: null, permissionKey: [], isReadOnly: false },
  { permissionPrefix: null, permissionKey: [], isReadOnly: true },
  { permissionPrefix: "app", permissionKey: [], isReadOnly: false },
  { permissionPrefix: "app", permissionKey: ["app.a", "read:app.a.1", "log", "_keys"], isReadOnly: false },
  { permissionPrefix: null, permissionKey: ["read:log", "write:%", "😀"], isReadOnly: false },
];

const KEYS: readonly string[] = [
  "app",
  "app.",
  "app.a",
  "app.a.1",
  "app.a.2",
  "app.b",
  "app2.a",
  "APP.a",
  "log",
  "log.1",
  "log.2",
  "logs",
  "%",
  "%.x",
  "😀",
  "😀.1",
  "\uffff",
  "é",
  "__proto__",
  "constructor",
  "a/b",
  "0",
  "_x",
  "z",
];

/** Stored for a second each, and written so rarely that most of them do expire. */
const BRIEF_KEYS = Array.from({ length: 500 }, (_, index) => `${index % 2 === 0 ? "app." : ""}brief.${index}`);
const EXPIRIES_MIN = 50;

interface Entry {
  readonly text: string;
  readonly contentType: string;
  /** Missing from then on; null = never. */
  readonly expiresAtMs: number | null;
}

interface Token {
  readonly token: string;
  readonly rights: PermissionFields;
}

/** One namespace, its tokens, what should be in it, and what was done. */
interface Namespace {
  readonly target: Target;
  readonly uuid: string;
  readonly random: Random;
  readonly tokens: Token[];
  readonly model: Map<string, Entry>;
  readonly done: string[];
  compared: number;
  overtaken: number;
  /** Entries that have expired before anything else became of them. */
  expired: number;
}

type Operation = (namespace: Namespace) => Promise<void>;

/** An answer is judged by the state before it, unless some entry has expired while it was waited for. */
async function during<T>(
  namespace: Namespace,
  ask: () => Promise<T>,
  judge: (answer: T, live: ReadonlyMap<string, Entry>) => void | Promise<void>,
): Promise<T> {
  const { model } = namespace;
  const askedMs = Date.now();
  for (const [key, { expiresAtMs }] of model) {
    if (expiresAtMs === null || expiresAtMs >= askedMs) continue;
    model.delete(key);
    namespace.expired++;
  }
  const answer = await ask();
  const answeredMs = Date.now();
  const isOvertaken = [...model.values()].some(
    ({ expiresAtMs }) => expiresAtMs !== null && expiresAtMs >= askedMs && expiresAtMs <= answeredMs,
  );
  if (isOvertaken) namespace.overtaken++;
  else {
    namespace.compared++;
    await judge(answer, liveAt(model, askedMs));
  }
  return answer;
}

function liveAt(model: ReadonlyMap<string, Entry>, nowMs: number): Map<string, Entry> {
  return new Map([...model].filter(([, { expiresAtMs }]) => expiresAtMs === null || expiresAtMs > nowMs));
}

function randomJson(random: Random): string {
  return random.pick([
    "null",
    "0",
    '""',
    "[1.0, 2]",
    '{ "a" : 12345678901234567890 }',
    `"${"v".repeat(random.below(99))}"`,
  ]);
}

function randomKey(random: Random): string {
  return random.pick(random.chance(0.1) ? BRIEF_KEYS : KEYS);
}

const pathOf = (key: string) => `/${encodeURIComponent(key)}`;

async function tokenPost(namespace: Namespace): Promise<void> {
  const { target, model, random, tokens, done } = namespace;
  const { token, rights } = random.pick(tokens);
  const key = randomKey(random);
  const text = randomJson(random);
  done.push(`POST ${key} ${text} as ${JSON.stringify(rights)}`);
  const ask = async () => {
    const response = await asApp(target, token, pathOf(key), { method: "POST", body: text });
    return { status: response.status, body: (await response.json()) as { created?: boolean } };
  };
  await during(namespace, ask, ({ status, body }, live) => {
    const isAllowed = ruleMayWrite(rights, key);
    expect([status, body.created]).toEqual(isAllowed ? [200, !live.has(key)] : [403, undefined]);
  });
  if (ruleMayWrite(rights, key)) model.set(key, { text, contentType: "application/json", expiresAtMs: null });
}

async function tokenBatch(namespace: Namespace): Promise<void> {
  const { target, model, random, tokens, done } = namespace;
  const { token, rights } = random.pick(tokens);
  const keys = [...KEYS, ...RESERVED].filter(() => random.chance(0.2));
  if (keys.length === 0) return;
  const members = keys.map((key) => [key, randomJson(random)] as const);
  done.push(`batch of ${keys.join()} as ${JSON.stringify(rights)}`);
  const body = `{${members.map(([key, text]) => `${JSON.stringify(key)}:${text}`).join()}}`;
  const ask = () => asApp(target, token, "/_batchimport", { method: "POST", body });
  const isStored = (key: string) => ruleMayWrite(rights, key) && !RESERVED.includes(key);
  await during(namespace, ask, async (response, live) => {
    if (rights.isReadOnly) return expect(response.status).toBe(403);
    const answer = (await response.json()) as { results: unknown[]; errors?: { key: string }[] };
    const stored = keys.filter(isStored).map((key) => ({ key, created: !live.has(key) }));
    expect([response.status, answer.results]).toEqual([200, stored]);
    expect((answer.errors ?? []).map(({ key }) => key)).toEqual(keys.filter((key) => !isStored(key)));
  });
  for (const [key, text] of members) {
    if (isStored(key)) model.set(key, { text, contentType: "application/json", expiresAtMs: null });
  }
}

async function tokenDelete(namespace: Namespace): Promise<void> {
  const { target, model, random, tokens, done } = namespace;
  const { token, rights } = random.pick(tokens);
  const key = randomKey(random);
  done.push(`DELETE ${key} as ${JSON.stringify(rights)}`);
  const ask = () => asApp(target, token, pathOf(key), { method: "DELETE" });
  await during(namespace, ask, ({ status }, live) => {
    expect(status).toBe(ruleMayWrite(rights, key) ? (live.has(key) ? 204 : 404) : 403);
  });
  if (ruleMayWrite(rights, key)) model.delete(key);
}

async function tokenWipe(namespace: Namespace): Promise<void> {
  const { target, model, random, tokens, done } = namespace;
  if (!random.chance(0.05)) return;
  const { token, rights } = random.pick(tokens);
  const isAllowed = ruleIsFull(rights) && !rights.isReadOnly;
  done.push(`DELETE / as ${JSON.stringify(rights)}`);
  expect((await asApp(target, token, "/", { method: "DELETE" })).status).toBe(isAllowed ? 204 : 403);
  if (isAllowed) model.clear();
}

async function operatorPut(namespace: Namespace): Promise<void> {
  const { target, uuid, model, random, done } = namespace;
  const hasExpiry = random.chance(0.4);
  const others = random.chance(0.1) ? RESERVED : KEYS;
  const key = random.pick(hasExpiry && random.chance(0.9) ? BRIEF_KEYS : others);
  const contentType = random.pick(["application/json", "application/json", "application/ld+json", "text/plain"]);
  const text = random.chance(0.2) ? "{bad" : randomJson(random);
  done.push(`PUT ${key} ${contentType} ${text} ${hasExpiry ? "for a second" : ""}`);
  const headers: Record<string, string> = { "Content-Type": contentType, ...(hasExpiry ? { "X-TTL": "1" } : {}) };
  const response = await target.fetch(keyPath(uuid, key), { method: "PUT", body: text, headers });
  expect(response.status).toBe(200);
  model.set(key, { text, contentType, expiresAtMs: null });
  if (!hasExpiry) return;
  const meta = await readJson<{ expires_at: string }>(target, `/_meta${keyPath(uuid, key)}`);
  model.set(key, { text, contentType, expiresAtMs: Date.parse(meta.expires_at) });
}

async function operatorDelete({ target, uuid, model, random, done }: Namespace): Promise<void> {
  const key = random.pick(random.chance(0.1) ? RESERVED : KEYS);
  done.push(`operator's DELETE ${key}`);
  expect((await target.fetch(keyPath(uuid, key), { method: "DELETE" })).status).toBe(200);
  model.delete(key);
}

async function readOne(namespace: Namespace): Promise<void> {
  const { target, random, tokens, done } = namespace;
  const { token, rights } = random.pick(tokens);
  const key = randomKey(random);
  const suffix = random.pick(["", "/metadata"]);
  done.push(`GET ${key}${suffix} as ${JSON.stringify(rights)}`);
  const ask = async () => {
    const response = await asApp(target, token, pathOf(key) + suffix);
    return { status: response.status, text: await response.text() };
  };
  await during(namespace, ask, ({ status, text }, live) => {
    if (!ruleMayRead(rights, key)) return expect(status).toBe(403);
    const entry = live.get(key);
    expect(status).toBe(entry === undefined ? 404 : 200);
    if (entry !== undefined && suffix === "") expect(text).toBe(entry.text);
  });
}

function readableKeys(live: ReadonlyMap<string, Entry>, rights: PermissionFields): string[] {
  return [...live.keys()].filter((key) => ruleMayRead(rights, key) && !RESERVED.includes(key)).sort(byBytes);
}

/** What a list shows of an entry, besides its times. */
function shownOf(key: string, { text, contentType }: Entry): Item {
  const value = contentType === "text/plain" || text === "{bad" ? undefined : (JSON.parse(text) as unknown);
  return value === undefined ? { key, value: null, contentType, size: Buffer.byteLength(text) } : { key, value };
}

type Item = Record<string, unknown> & { readonly key: string };

async function listValues(namespace: Namespace): Promise<void> {
  const { target, random, tokens, done } = namespace;
  const { token, rights } = random.pick(tokens);
  const [sortBy, sortDir] = [random.pick(SORT_FIELDS), random.pick(["asc", "desc"])];
  done.push(`GET / by ${sortBy} ${sortDir} as ${JSON.stringify(rights)}`);
  const ask = async () => {
    const response = await asApp(target, token, `/?limit=1000&sortBy=${sortBy}&sortDir=${sortDir}`);
    expect(response.status).toBe(200);
    return (await response.json()) as { items: Item[]; total_rows: number };
  };
  await during(namespace, ask, ({ items, total_rows }, live) => {
    const keys = readableKeys(live, rights);
    const byKey = items.toSorted((a, b) => byBytes(a.key, b.key));
    expect([total_rows, byKey.map(({ createdAt, updatedAt, ...item }) => item)]).toEqual([
      keys.length,
      keys.map((key) => shownOf(key, live.get(key)!)),
    ]);
    // All entries have one creator: by that field only the keys decide.
    const rank = (item: Item) => (sortBy === "createdAt" || sortBy === "updatedAt" ? String(item[sortBy]) : "");
    const sorted = byKey.toSorted((a, b) => byBytes(rank(a), rank(b)) || byBytes(a.key, b.key));
    const expected = (sortDir === "asc" ? sorted : sorted.reverse()).map(({ key }) => key);
    expect(items.map(({ key }) => key)).toEqual(expected);
  });
}

async function listKeys(namespace: Namespace): Promise<void> {
  const { target, random, tokens, done } = namespace;
  const { token, rights } = random.pick(tokens);
  const [limit, skip, isReverse] = [random.below(8), random.below(12), random.chance(0.5)];
  done.push(`_keys ${limit} from ${skip} ${isReverse} as ${JSON.stringify(rights)}`);
  const ask = async () => {
    const query = `limit=${limit}&skip=${skip}&sortDir=${isReverse ? "desc" : "asc"}`;
    const response = await asApp(target, token, `/_keys?${query}`);
    return (await response.json()) as { keys: string[]; total_rows: number; load_more?: string };
  };
  await during(namespace, ask, (page, live) => {
    const keys = readableKeys(live, rights);
    if (isReverse) keys.reverse();
    const expected = keys.slice(skip, skip + limit);
    expect([page.total_rows, page.keys]).toEqual([keys.length, expected]);
    expect(page.load_more !== undefined).toBe(expected.length > 0 && skip + expected.length < keys.length);
  });
}

async function operatorList(namespace: Namespace): Promise<void> {
  const { target, uuid, done } = namespace;
  done.push("_list, its count");
  await during(
    namespace,
    () => list(target, { bucket: uuid }),
    (names, live) => {
      expect(names).toEqual([...live.keys()].sort(byBytes));
    },
  );
  const count = () => readJson<{ count: number }>(target, listPath({ bucket: uuid, count: 1 }));
  await during(namespace, count, (answer, live) => expect(answer).toEqual({ count: live.size }));
}

const WRITES = [tokenPost, tokenPost, tokenBatch, tokenDelete, tokenWipe, operatorPut, operatorPut, operatorDelete];
const READS = [readOne, readOne, listKeys, listKeys, listValues, operatorList];
const ALL: readonly Operation[] = [...WRITES, ...READS];

async function openNamespace(target: Target, random: Random): Promise<Namespace> {
  const uuid = `m${random.below(1e9)}`;
  const tokens: Token[] = [];
  for (const rights of RIGHTS) tokens.push({ token: (await install(target, rights, uuid)).token, rights });
  return { target, uuid, random, tokens, model: new Map(), done: [], compared: 0, overtaken: 0, expired: 0 };
}

async function operate(namespace: Namespace, count: number): Promise<void> {
  try {
    for (let left = count; left > 0; left--) await namespace.random.pick(ALL)(namespace);
  } catch (error) {
    const operations = namespace.done.slice(-100).join("\n  ");
    throw new Error(`${namespace.uuid} is otherwise than its model after:\n  ${operations}`, { cause: error });
  }
}

/** Once nothing can expire any more, everything is compared: each installation's list, and the operator's. */
async function expectEnd(namespace: Namespace): Promise<void> {
  const { target, model, tokens } = namespace;
  const lastMs = Math.max(0, ...[...model.values()].map(({ expiresAtMs }) => expiresAtMs ?? 0));
  while (Date.now() <= lastMs) await Bun.sleep(lastMs + 1 - Date.now());
  for (const { token, rights } of tokens) {
    const response = await asApp(target, token, "/?limit=1000");
    const { items, total_rows } = (await response.json()) as { items: Item[]; total_rows: number };
    const live = liveAt(model, lastMs);
    const keys = readableKeys(live, rights);
    expect([total_rows, items.map(({ createdAt, updatedAt, ...item }) => item)]).toEqual([
      keys.length,
      keys.map((key) => shownOf(key, live.get(key)!)),
    ]);
  }
  await operatorList(namespace);
}

describe("random operations through both surfaces", () => {
  let target: Target;
  beforeAll(async () => {
    const noRates = { TOKEN_RATE_READ: "0", TOKEN_RATE_WRITE: "0", TOKEN_RATE_DELETE: "0", TOKEN_RATE_BATCH: "0" };
    target = await openBinary({ ...noRates, SWEEP_INTERVAL: "400ms" });
  });
  afterAll(() => target[Symbol.asyncDispose]());

  test(`${OPERATIONS} of them leave what maps in memory hold, before and after kills`, async () => {
    const random = seededRandom("token model");
    const startMs = performance.now();
    const namespaces: Namespace[] = [];
    for (let index = 0; index < NAMESPACES; index++) {
      namespaces.push(await openNamespace(target, randomFrom(random.below(2 ** 31))));
    }
    const share = Math.ceil(OPERATIONS / NAMESPACES / RESTARTS);
    for (let part = 0; part < RESTARTS; part++) {
      await Promise.all(namespaces.map((namespace) => operate(namespace, share)));
      await target.restart();
      await Promise.all(namespaces.map(expectEnd));
    }
    const sumOf = (name: "compared" | "overtaken" | "expired") =>
      namespaces.reduce((sum, namespace) => sum + namespace[name], 0);
    const [compared, overtaken, expired] = [sumOf("compared"), sumOf("overtaken"), sumOf("expired")];
    const seconds = Math.round((performance.now() - startMs) / 100) / 10;
    report(
      `${OPERATIONS} random operations in ${seconds} s, ${expired} expiries, ` +
        `${compared} answers compared, ${overtaken} overtaken by an expiry`,
    );
    expect(expired).toBeGreaterThan(EXPIRIES_MIN);
    expect(overtaken / (compared + overtaken)).toBeLessThan(OVERTAKEN_SHARE_MAX);
  }, 1_200_000);
});
