// Thousands of short random sequences of requests, each in a bucket of its own, against a map in memory. All start from
// one seed, which is printed; the operations of a sequence that fails are part of the failure.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { HOSTILE_KEYS } from "../support/hostile-values.ts";
import { keyPath, list, listPath, readJson } from "../support/kv-requests.ts";
import { byBytes, expectedNames } from "../support/list-model.ts";
import { bySize, report } from "../support/run-size.ts";
import { type Random, randomFrom, seededRandom } from "../support/seeded-random.ts";
import { openBinary, type Target } from "../support/targets.ts";

const SEQUENCES = bySize(2_000, 5_000, 10_000);
const OPERATIONS_MAX = 24;
/** Sequences under way at once: their writes share commits. */
const PARALLEL = 50;
const RESTARTS = 4;

interface Entry {
  readonly value: string;
  readonly etag: string;
  readonly contentType: string;
  readonly metadata: Readonly<Record<string, string>>;
  readonly hasExpiry: boolean;
}

/** One sequence: its own keys in its own bucket, what should be in it, and what was done. */
interface Sequence {
  readonly target: Target;
  readonly bucket: string;
  readonly random: Random;
  readonly keys: readonly string[];
  readonly model: Map<string, Entry>;
  /** ETags that were current once. */
  readonly staleTags: string[];
  readonly done: string[];
}

type Operation = (sequence: Sequence, key: string) => Promise<void>;

/** A condition that a write may carry, and whether it holds for `entry`. */
function pickCondition({ random, staleTags }: Sequence, entry: Entry | undefined): [Record<string, string>, boolean] {
  const stale = staleTags.length > 0 ? random.pick(staleTags) : '"0"';
  const current = entry?.etag ?? '"0"';
  switch (random.below(8)) {
    case 0:
      return [{ "If-None-Match": "*" }, entry === undefined];
    case 1:
      return [{ "If-Match": "*" }, entry !== undefined];
    case 2:
      return [{ "If-Match": current }, entry !== undefined];
    case 3:
      return [{ "If-Match": `${stale}, "x"` }, entry?.etag === stale];
    case 4:
      return [{ "If-None-Match": `W/${current}` }, entry === undefined];
    case 5:
      return [{ "If-Match": current, "If-None-Match": stale }, entry !== undefined && entry.etag !== stale];
    default:
      return [{}, true];
  }
}

async function write(sequence: Sequence, key: string): Promise<void> {
  const { random, model, target, bucket, staleTags, done } = sequence;
  const entry = model.get(key);
  const [condition, isMet] = pickCondition(sequence, entry);
  const value = `${random.below(1e9)}-`.repeat(1 + random.below(random.chance(0.05) ? 4000 : 5));
  const contentType = random.pick(["", "text/plain", "application/json"]);
  const metadata: Record<string, string> = random.chance(0.3) ? { n: `${random.below(100)}`, "a.b": "" } : {};
  const hasExpiry = random.chance(0.3);
  const method = random.pick(["PUT", "POST"]);
  done.push(`${method} ${JSON.stringify(key)} ${JSON.stringify(condition)}`);
  const headers: Record<string, string> = { ...condition, "Content-Type": contentType };
  for (const [name, text] of Object.entries(metadata)) headers[`X-Meta-${name}`] = text;
  if (hasExpiry) headers["X-TTL"] = "1h";
  const response = await target.fetch(keyPath(bucket, key), { method, headers, body: new TextEncoder().encode(value) });
  expect(response.status).toBe(isMet ? 200 : 412);
  const etag = response.headers.get("etag");
  if (!isMet) return expect(etag).toBe(entry?.etag ?? null);
  if (entry !== undefined) staleTags.push(entry.etag);
  expect([...staleTags, entry?.etag]).not.toContain(etag!);
  model.set(key, { value, etag: etag!, contentType: contentType || "application/octet-stream", metadata, hasExpiry });
}

async function remove(sequence: Sequence, key: string): Promise<void> {
  const { model, target, bucket, staleTags, done } = sequence;
  const entry = model.get(key);
  const [condition, isMet] = pickCondition(sequence, entry);
  done.push(`DELETE ${JSON.stringify(key)} ${JSON.stringify(condition)}`);
  const response = await target.fetch(keyPath(bucket, key), { method: "DELETE", headers: condition });
  expect(response.status).toBe(isMet ? 200 : 412);
  if (!isMet) return expect(response.headers.get("etag")).toBe(entry?.etag ?? null);
  if (entry !== undefined) staleTags.push(entry.etag);
  model.delete(key);
}

async function read({ target, bucket, model, random, done }: Sequence, key: string): Promise<void> {
  const entry = model.get(key);
  const method = random.pick(["GET", "HEAD"]);
  done.push(`${method} ${JSON.stringify(key)}`);
  const response = await target.fetch(keyPath(bucket, key), { method });
  const { headers } = response;
  const text = await response.text();
  if (entry === undefined) return expect(response.status).toBe(404);
  expect([response.status, text]).toEqual([200, method === "GET" ? entry.value : ""]);
  expect([headers.get("etag"), headers.get("content-type")]).toEqual([entry.etag, entry.contentType]);
  expect([headers.get("x-meta-n"), headers.get("x-meta-a.b")]).toEqual([
    entry.metadata.n ?? null,
    entry.metadata["a.b"] ?? null,
  ]);
  expect(headers.has("x-expires-at")).toBe(entry.hasExpiry);
}

async function readPart({ target, bucket, model, random, done }: Sequence, key: string): Promise<void> {
  const entry = model.get(key);
  const [first, last] = [random.below(40), random.below(40)];
  done.push(`GET ${JSON.stringify(key)} ${first}-${last}`);
  const response = await target.fetch(keyPath(bucket, key), { headers: { Range: `bytes=${first}-${last}` } });
  const text = await response.text();
  if (entry === undefined) return expect(response.status).toBe(404);
  if (last < first) return expect([response.status, text]).toEqual([200, entry.value]);
  if (first >= entry.value.length) return expect(response.status).toBe(416);
  expect([response.status, text]).toEqual([206, entry.value.slice(first, last + 1)]);
}

async function describeKey({ target, bucket, model, done }: Sequence, key: string): Promise<void> {
  const entry = model.get(key);
  done.push(`_meta ${JSON.stringify(key)}`);
  const response = await target.fetch(`/_meta${keyPath(bucket, key)}`);
  const meta = (await response.json()) as Record<string, unknown>;
  if (entry === undefined) return expect(response.status).toBe(404);
  expect([meta.bucket, meta.key, meta.size, `"${meta.revision}"`]).toEqual([
    bucket,
    key,
    entry.value.length,
    entry.etag,
  ]);
  expect([meta.content_type, meta.metadata, meta.expires_at !== null]).toEqual([
    entry.contentType,
    entry.metadata,
    entry.hasExpiry,
  ]);
}

async function listKeys({ target, bucket, model, random, done }: Sequence, key: string): Promise<void> {
  const parameters = {
    ...(random.chance(0.4) ? { prefix: [...key].slice(0, 1).join("") } : {}),
    ...(random.chance(0.3) ? { start: key } : {}),
    ...(random.chance(0.3) ? { delimiter: "/" } : {}),
    ...(random.chance(0.5) ? { reverse: 1 as const } : {}),
  };
  done.push(`_list ${JSON.stringify(parameters)}`);
  expect(await list(target, { bucket, ...parameters })).toEqual(expectedNames(model.keys(), parameters));
  const count = { count: model.size };
  expect(await readJson<object>(target, listPath({ bucket, count: 1 }))).toEqual(count);
}

const OPERATIONS: readonly Operation[] = [write, write, write, remove, read, read, readPart, describeKey, listKeys];

/** Returns the sequence as it ended. */
async function runSequence(target: Target, seed: number): Promise<Sequence> {
  const random = randomFrom(seed);
  const keys = Array.from({ length: 1 + random.below(5) }, () => random.pick(HOSTILE_KEYS));
  const sequence: Sequence = { target, bucket: `s${seed}`, random, keys, model: new Map(), staleTags: [], done: [] };
  try {
    for (let left = 1 + random.below(OPERATIONS_MAX); left > 0; left--) {
      await random.pick(OPERATIONS)(sequence, random.pick(keys));
    }
    await expectEnd(sequence);
    return sequence;
  } catch (error) {
    const operations = sequence.done.join("\n  ");
    throw new Error(`the sequence of ${seed} ended otherwise than the model:\n  ${operations}`, { cause: error });
  }
}

async function expectEnd({ target, bucket, model }: Sequence): Promise<void> {
  expect(await list(target, { bucket })).toEqual([...model.keys()].sort(byBytes));
  for (const [key, { value, etag }] of model) {
    const response = await target.fetch(keyPath(bucket, key));
    expect([response.headers.get("etag"), await response.text()]).toEqual([etag, value]);
  }
}

describe("random sequences of requests", () => {
  let target: Target;
  beforeAll(async () => {
    target = await openBinary({ READ_CACHE_BYTES: "64KiB" });
  });
  afterAll(() => target[Symbol.asyncDispose]());

  test(`${SEQUENCES} of them end as a map in memory does, before and after a kill`, async () => {
    const first = seededRandom("random sequences").below(2 ** 31);
    const startMs = performance.now();
    for (let part = 0; part < RESTARTS; part++) {
      const seeds = Array.from({ length: SEQUENCES / RESTARTS }, (_, index) => first + part * SEQUENCES + index);
      const ended: Sequence[] = [];
      const work = async () => {
        for (let seed = seeds.pop(); seed !== undefined; seed = seeds.pop())
          ended.push(await runSequence(target, seed));
      };
      await Promise.all(Array.from({ length: PARALLEL }, work));
      await target.restart();
      await Promise.all(ended.map(expectEnd));
    }
    report(`${SEQUENCES} random sequences in ${Math.round((performance.now() - startMs) / 100) / 10} s`);
  }, 480_000);
});
