// Large values that change or fail while they are loaded: what is judged anew, and what is given back of the budget.

import { expect, test } from "bun:test";
import { ByteBudget } from "../../src/http/byte-budget.ts";
import { RequestScope } from "../../src/http/request-scope.ts";
import { readValue } from "../../src/kv/read-value.ts";
import { MiB } from "../../src/shared/bounds.ts";
import { AppError } from "../../src/shared/errors.ts";
import type { KvEngine, KvEntry, KvFound } from "../../src/storage/kv-engine.ts";

const STATE = { isDraining: false, hasFailed: false, trustedProxies: null };
const LARGE: KvFound = {
  revision: 1,
  createdAtMs: 0,
  updatedAtMs: 0,
  expiresAtMs: null,
  contentType: null,
  metadata: null,
  creatorIp: null,
  sizeBytes: MiB,
  value: null,
};

type Load = KvEngine["load"];

/** Reads a large value whose revision rises each time it is looked up: 1, 2, and so on; from 2 on it is `latest`. */
async function read(
  load: Load,
  headers: Record<string, string> = {},
  latest: KvFound | null = LARGE,
  { budget = new ByteBudget(4 * MiB), signal = null }: { budget?: ByteBudget; signal?: AbortSignal | null } = {},
) {
  const used: number[] = [];
  let revision = 0;
  const engine: Pick<KvEngine, "find" | "load"> = {
    find() {
      const found = ++revision === 1 ? LARGE : latest;
      return found && { ...found, revision };
    },
    load(...named) {
      used.push(budget.usedBytes);
      return load(...named);
    },
  };
  const services = { engine: engine as KvEngine, budget, templates: new WeakMap<KvEntry, Headers>() };
  const scope = new RequestScope(new Request("http://h/b/k", { headers, signal }), null, STATE);
  const answer = await Promise.resolve(readValue(services, scope, { bucket: "b", key: "k" })).catch((error) => error);
  return { answer, used, budget };
}

test("a value that is overwritten again and again holds the share of one try, and nothing at its end", async () => {
  const { answer, used, budget } = await read(async () => null);
  expect(answer).toBeInstanceOf(AppError);
  expect(answer).toMatchObject({ code: "busy" });
  expect(used).toEqual([MiB, MiB, MiB]);
  expect(budget.usedBytes).toBe(0);
});

test("a value that cannot be loaded gives its share back", async () => {
  const { answer, used, budget } = await read(() => Promise.reject(new AppError("value_damaged", "It is damaged.")));
  expect(answer).toMatchObject({ code: "value_damaged" });
  expect([used, budget.usedBytes]).toEqual([[MiB], 0]);
});

test("a value that is loaded by the second try is sent as it is then", async () => {
  const value = new Uint8Array(MiB).fill(7);
  const { answer, budget } = await read(async (_, __, revision) => (revision === 1 ? null : value));
  expect([answer.status, answer.headers.get("etag")]).toEqual([200, '"2"']);
  expect(new Uint8Array(await answer.arrayBuffer())).toEqual(value);
  expect(budget.usedBytes).toBe(0);
});

test("a value that was overwritten while it was loaded is judged anew by the conditions of the request", async () => {
  const loaded: number[] = [];
  const load: Load = async (_, __, revision) => {
    loaded.push(revision);
    return revision === 1 ? null : new Uint8Array(MiB);
  };
  const unmet = await read(load, { "If-Match": '"1"' });
  expect(unmet.answer).toMatchObject({ code: "precondition_failed", details: { revision: 2 } });
  const unchanged = await read(load, { "If-None-Match": '"2"' });
  expect([unchanged.answer.status, unchanged.answer.headers.get("etag")]).toEqual([304, '"2"']);
  expect([loaded, unmet.budget.usedBytes, unchanged.budget.usedBytes]).toEqual([[1, 1], 0, 0]);
});

test("a value that has become small, or is gone, while it was loaded is answered as that", async () => {
  const small = { ...LARGE, sizeBytes: 2, value: new TextEncoder().encode("hi") };
  const replaced = await read(async () => null, {}, small);
  expect([replaced.answer.headers.get("etag"), await replaced.answer.text()]).toEqual(['"2"', "hi"]);
  const deleted = await read(async () => null, {}, null);
  expect(deleted.answer).toMatchObject({ code: "key_not_found" });
  expect([replaced.used, replaced.budget.usedBytes, deleted.budget.usedBytes]).toEqual([[MiB], 0, 0]);
});

test("a value is not loaded for a client that leaves while it waits for room", async () => {
  const budget = new ByteBudget(MiB);
  budget.tryReserve(MiB);
  const client = new AbortController();
  const load: Load = async () => new Uint8Array(MiB);
  const reading = read(load, {}, LARGE, { budget, signal: client.signal });
  client.abort();
  const { answer, used } = await reading;
  expect(answer).toMatchObject({ code: "unavailable" });
  budget.release(MiB);
  expect([used, budget.usedBytes, budget.waitingBytes]).toEqual([[], 0, 0]);
});

test("a large value that has gone meanwhile is looked for again only for a client that may still see it", async () => {
  const looked: number[] = [];
  const engine: Pick<KvEngine, "find" | "load"> = {
    find: () => ({ ...LARGE, revision: looked.push(1) }),
    load: async () => null,
  };
  const budget = new ByteBudget(4 * MiB);
  const services = { engine: engine as KvEngine, budget, templates: new WeakMap<KvEntry, Headers>() };
  const scope = new RequestScope(new Request("http://h/b/k"), null, STATE);
  const confirm = () => Promise.reject(new AppError("token_invalid", "missing or invalid token"));
  const answer = Promise.resolve(readValue(services, scope, { bucket: "b", key: "k" }, confirm));
  expect(await answer.catch((error) => error)).toMatchObject({ code: "token_invalid" });
  expect([looked.length, budget.usedBytes]).toEqual([1, 0]);
});
