// What the server refuses to take on: bodies too large, more bytes or requests than it has room for. Every refusal is
// an answer that says so, and a server that goes on serving.

import { describe, expect, test } from "bun:test";
import { storeFiles } from "../../src/storage/store-files.ts";
import { eventually } from "../support/eventually.ts";
import { expectTime } from "../support/figures-in-bounds.ts";
import { holdWriteLock } from "../support/foreign-lock.ts";
import { expectError, put, read, readJson } from "../support/kv-requests.ts";
import { openRaw, type RawConnection, sendRaw } from "../support/raw-request.ts";
import { bySize } from "../support/run-size.ts";
import { mint, type OpenTarget, type Target } from "../support/targets.ts";
import { useTarget } from "../support/use-target.ts";

const KiB = 1024;
const MiB = 1024 * KiB;
const WAIT_MS = 5000;
const SLOW_CONNECTIONS = 3000;
const FLOOD_BODIES = bySize(60, 200);

export function limitsSuite(name: string, open: OpenTarget): void {
  const small = { MAX_VALUE_BYTES: "1KiB", BODY_BUDGET_BYTES: "4MiB", METRICS: "open" };
  describe(`value limit on ${name}`, () => valueLimitTests(useTarget(open, small)));
  const tight = { MAX_VALUE_BYTES: "1MiB", BODY_BUDGET_BYTES: "1MiB", METRICS: "open" };
  describe(`body budget on ${name}`, () => budgetTests(useTarget(open, tight)));
  const wide = { MAX_VALUE_BYTES: "24MiB", BODY_BUDGET_BYTES: "24MiB", METRICS: "open" };
  describe(`large values on ${name}`, () => streamTests(useTarget(open, wide)));
  describe(`requests at once on ${name}`, () => inflightTests(useTarget(open, { MAX_INFLIGHT: "1" })));
  describe(`slow clients of ${name}`, () => slowTests(useTarget(open)));
  describe(`writes at once on ${name}`, () => queueTests(useTarget(open, { WRITE_QUEUE_MAX: "1" })));
  describe(`large bodies at once on ${name}`, () => floodTests(useTarget(open, { METRICS: "open" })));
}

async function headOf(target: Target, method: string, path: string, headers: string): Promise<string> {
  const authorization = `Authorization: Bearer ${await mint()}\r\n`;
  return `${method} ${path} HTTP/1.1\r\nHost: ${new URL(target.url).host}\r\n${authorization}${headers}\r\n`;
}

async function budgetInUse(target: Target): Promise<number> {
  const text = await (await target.fetch("/metrics")).text();
  return Number(/^gokv_body_budget_used_bytes (.+)$/m.exec(text)![1]);
}

/** Waits until the server has noticed what another connection did. */
function untilBudgetInUse(target: Target, bytes: number): Promise<void> {
  return eventually(`${bytes} bytes of the budget in use`, WAIT_MS, async () => (await budgetInUse(target)) === bytes);
}

/** The status and the JSON body of a raw answer, however its body was framed. */
function parseRefusal(text: string): { status: number; code: string | undefined; headers: string } {
  const [headers = ""] = text.split("\r\n\r\n");
  return { status: Number(text.slice(9, 12)), code: /\{.*"code":"(\w+)"\}/.exec(text)?.[1], headers };
}

function valueLimitTests(target: () => Target): void {
  const chunked = (sizes: readonly number[]) =>
    (async function* () {
      for (const size of sizes) yield new Uint8Array(size);
    })();

  test("a value of the limit is stored, one byte more is 413 and leaves the old value", async () => {
    await put(target(), "/limit/k", new Uint8Array(1024));
    for (const method of ["POST", "PUT"]) {
      const response = await target().fetch("/limit/k", { method, body: new Uint8Array(1025) });
      expect(response.headers.get("connection")).toBe("close");
      await expectError(response, "body_too_large");
    }
    expect((await read(target(), "/limit/k"))?.length).toBe(1024);
  });

  test("the same for a body of unknown length", async () => {
    const stored = await target().fetch("/limit/chunked", { method: "PUT", body: chunked([1000, 24]) });
    expect(stored.status).toBe(200);
    for (const sizes of [[1000, 25], [2000], [100_000, 1_000_000]]) {
      const response = await target().fetch("/limit/chunked", { method: "PUT", body: chunked(sizes) });
      expect(response.headers.get("connection")).toBe("close");
      await expectError(response, "body_too_large");
    }
    expect((await read(target(), "/limit/chunked"))?.length).toBe(1024);
  });

  test("a length of a terabyte is refused at once, before a byte of it has come", async () => {
    const startMs = performance.now();
    for (const length of [1e12, Number.MAX_SAFE_INTEGER, 1025]) {
      const head = await headOf(target(), "POST", "/limit/huge", `Content-Length: ${length}\r\n`);
      const { status, code, headers } = parseRefusal((await sendRaw(target().url, head)).text);
      expect([status, code]).toEqual([413, "body_too_large"]);
      expect(headers).toContain("Content-Type: application/json");
      expect(headers).toContain("Connection: close");
    }
    expectTime("three refusals", performance.now() - startMs, 2000);
  });

  test("a client that sends on for a megabyte sees the answer, not a broken pipe", async () => {
    const bodies = Array.from({ length: 20 }, () => new Uint8Array(900 * KiB));
    const answers = await Promise.all(bodies.map((body) => target().fetch("/limit/k", { method: "PUT", body })));
    for (const answer of answers) await expectError(answer, "body_too_large");
  });

  test("a chunk whose size alone is over the limit is refused when its bytes come", async () => {
    const head = await headOf(target(), "PUT", "/limit/chunk", "Transfer-Encoding: chunked\r\n");
    const answer = await sendRaw(target().url, `${head}100000000000\r\n${"x".repeat(2000)}`);
    expect(parseRefusal(answer.text)).toMatchObject({ status: 413, code: "body_too_large" });
  });

  test("a refused body leaves nothing of the budget in use", async () => {
    await untilBudgetInUse(target(), 0);
  });
}

/** A request that has announced a body of `bytes` and sent one of them: its share of the budget is taken. */
async function holdBody(target: Target, path: string, bytes: number): Promise<RawConnection> {
  const connection = await openRaw(target.url);
  connection.send(`${await headOf(target, "PUT", path, `Content-Length: ${bytes}\r\n`)}x`);
  await untilBudgetInUse(target, bytes);
  return connection;
}

function budgetTests(target: () => Target): void {
  test("what does not fit the budget is 503 with Retry-After, everything else goes on", async () => {
    await put(target(), "/budget/old", "old");
    using held = await holdBody(target(), "/budget/held", MiB);
    for (let times = 0; times < 3; times++) {
      const response = await target().fetch("/budget/other", { method: "PUT", body: "x" });
      expect(response.headers.get("connection")).toBe("close");
      await expectError(response, "overloaded");
    }
    const head = await headOf(target(), "PUT", "/budget/other", "Transfer-Encoding: chunked\r\n");
    const chunked = parseRefusal((await sendRaw(target().url, `${head}1\r\nx\r\n0\r\n\r\n`)).text);
    expect([chunked.status, chunked.code]).toEqual([503, "overloaded"]);
    expect(chunked.headers).toContain("Retry-After: 1");

    expect(await read(target(), "/budget/old")).toBe("old");
    expect(await read(target(), "/budget/other")).toBeNull();
    await put(target(), "/budget/empty", "");
    expect((await target().fetch("/budget/empty", { method: "DELETE" })).status).toBe(200);
    expect((await target().fetch("/readyz", { headers: { Authorization: null } })).status).toBe(200);

    held.send("x".repeat(MiB - 1));
    expect(await held.received(/\r\n\r\n/)).toStartWith("HTTP/1.1 200 ");
    expect((await read(target(), "/budget/held"))?.length).toBe(MiB);
    await put(target(), "/budget/other", "x");
  });

  test("a client that leaves in mid-body gives its share back and stores nothing", async () => {
    const held = await holdBody(target(), "/budget/left", MiB);
    held[Symbol.dispose]();
    await untilBudgetInUse(target(), 0);
    await put(target(), "/budget/after", "x");
    expect(await read(target(), "/budget/left")).toBeNull();
  });

  test("a body of unknown length takes its share while it comes", async () => {
    const head = await headOf(target(), "PUT", "/budget/chunked", "Transfer-Encoding: chunked\r\n");
    const size = 300 * KiB;
    using held = await openRaw(target().url);
    held.send(`${head}${size.toString(16)}\r\n${"x".repeat(size)}\r\n`);
    await untilBudgetInUse(target(), 512 * KiB);
    const response = await target().fetch("/budget/other", { method: "PUT", body: new Uint8Array(600 * KiB) });
    await expectError(response, "overloaded");
    held.send("0\r\n\r\n");
    expect(await held.received(/\r\n\r\n/)).toStartWith("HTTP/1.1 200 ");
    await untilBudgetInUse(target(), 0);
  });

  test("a doubled length does not upset the account", async () => {
    const head = await headOf(target(), "PUT", "/budget/doubled", "Content-Length: 1\r\nContent-Length: 1\r\n");
    expect((await sendRaw(target().url, `${head}x`)).statuses).toEqual([400]);
    expect(await budgetInUse(target())).toBe(0);
    using _held = await holdBody(target(), "/budget/held", MiB);
    await expectError(await target().fetch("/budget/other", { method: "PUT", body: "x" }), "overloaded");
    expect(await read(target(), "/budget/doubled")).toBeNull();
  });
}

function streamTests(target: () => Target): void {
  const size = 24 * MiB;

  test("a large value waits for room, is 503 after a second, and comes when a reader has left", async () => {
    await put(target(), "/streams/large", new Uint8Array(size).fill(7));
    await put(target(), "/streams/small", "small");
    const slow = await openRaw(target().url);
    slow.pause();
    slow.send(await headOf(target(), "GET", "/streams/large", ""));
    await untilBudgetInUse(target(), size);

    const startMs = performance.now();
    await expectError(await target().fetch("/streams/large"), "overloaded");
    expect(performance.now() - startMs).toBeGreaterThan(900);
    expect(await read(target(), "/streams/small")).toBe("small");
    expect((await target().fetch("/streams/large", { method: "HEAD" })).headers.get("content-length")).toBe(`${size}`);

    const waiting = target().fetch("/streams/large");
    slow[Symbol.dispose]();
    const response = await waiting;
    expect(response.status).toBe(200);
    expect((await response.arrayBuffer()).byteLength).toBe(size);
    await untilBudgetInUse(target(), 0);
  });

  test("large values that are read in parallel come whole, in turn", async () => {
    await put(target(), "/streams/turns", new Uint8Array(10 * MiB).fill(9));
    const reads = Array.from({ length: 6 }, async () => {
      const response = await target().fetch("/streams/turns");
      return response.status === 200 ? (await response.arrayBuffer()).byteLength : response.status;
    });
    const results = await Promise.all(reads);
    expect(results.filter((result) => result !== 10 * MiB && result !== 503)).toEqual([]);
    expect(results.filter((result) => result === 10 * MiB).length).toBeGreaterThanOrEqual(2);
    await untilBudgetInUse(target(), 0);
  });
}

function inflightTests(target: () => Target): void {
  test("more requests at once than allowed are 503 before the token is looked at; probes answer", async () => {
    await put(target(), "/inflight/k", "x");
    using held = await openRaw(target().url);
    await using lock = await holdWriteLock(storeFiles(target().dbPath).database);
    held.send(`${await headOf(target(), "PUT", "/inflight/held", "Content-Length: 3\r\n")}abc`);
    const isTaken = async () => (await target().fetch("/inflight/k")).status === 503;
    await eventually("the only place is taken", WAIT_MS, isTaken);

    const none = { headers: { Authorization: null } };
    for (const path of ["/inflight/k", "/_list", "/_meta/inflight/k", "/metrics"]) {
      await expectError(await target().fetch(path), "overloaded");
      await expectError(await target().fetch(path, none), "overloaded");
    }
    await expectError(await target().fetch("/inflight/k", { method: "PATCH" }), "method_not_allowed");
    expect(await readJson(target(), "/livez", none)).toEqual({ status: "ok" });
    expect(await readJson(target(), "/readyz", none)).toEqual({ status: "ready" });
    expect((await target().fetch("/", none)).status).toBe(200);

    await lock[Symbol.asyncDispose]();
    expect(await held.received(/\r\n\r\n/)).toStartWith("HTTP/1.1 200 ");
    expect(await read(target(), "/inflight/held")).toBe("abc");
  });

  test("a body on its way takes no place, whoever sends it; the request has one when it is there", async () => {
    using known = await openRaw(target().url);
    using stranger = await openRaw(target().url);
    known.send(`${await headOf(target(), "PUT", "/inflight/slow", "Content-Length: 3\r\n")}a`);
    const { host } = new URL(target().url);
    stranger.send(`POST /kv/token/k HTTP/1.1\r\nHost: ${host}\r\nContent-Length: 1000\r\n\r\n`);
    await Bun.sleep(100);
    for (let times = 0; times < 20; times++) expect(await read(target(), "/inflight/k")).toBe("x");
    known.send("bc");
    expect(await known.received(/\r\n\r\n/)).toStartWith("HTTP/1.1 200 ");
    expect(await read(target(), "/inflight/slow")).toBe("abc");
  });

  test("a request whose body came in chunks has a place like any other", async () => {
    await put(target(), "/inflight/k", "x");
    using held = await openRaw(target().url);
    await using lock = await holdWriteLock(storeFiles(target().dbPath).database);
    held.send(
      `${await headOf(target(), "PUT", "/inflight/chunked", "Transfer-Encoding: chunked\r\n")}3\r\nabc\r\n0\r\n\r\n`,
    );
    const isTaken = async () => (await target().fetch("/inflight/k")).status === 503;
    await eventually("the only place is taken", WAIT_MS, isTaken);
    await lock[Symbol.asyncDispose]();
    expect(await held.received(/\r\n\r\n/)).toStartWith("HTTP/1.1 200 ");
    expect(await read(target(), "/inflight/chunked")).toBe("abc");
  });

  test("a request that fails makes room again", async () => {
    for (let times = 0; times < 5; times++) {
      await expectError(await target().fetch("/inflight/none"), "key_not_found");
      await expectError(await target().fetch("/inflight/%ff"), "path_invalid");
      await expectError(await target().fetch("/inflight/k", { headers: { Authorization: null } }), "unauthorized");
    }
    expect(await read(target(), "/inflight/k")).toBe("x");
  });
}

function slowTests(target: () => Target): void {
  test(`${SLOW_CONNECTIONS} of them cost others nothing`, async () => {
    await put(target(), "/slow/k", "x");
    const { host } = new URL(target().url);
    const heads = [
      `${await headOf(target(), "PUT", "/slow/held", "Content-Length: 1000\r\n")}a`,
      `POST /kv/token/k HTTP/1.1\r\nHost: ${host}\r\nContent-Length: 1000\r\n\r\n`,
      `GET /slow/k HTTP/1.1\r\nHost: ${host}\r\n`,
    ];
    using connections = new DisposableStack();
    for (let count = 0; count < SLOW_CONNECTIONS; count++) {
      connections.use(await openRaw(target().url)).send(heads[count % heads.length]!);
    }
    const waits: number[] = [];
    for (let times = 0; times < 300; times++) {
      const startMs = performance.now();
      expect(await read(target(), "/slow/k")).toBe("x");
      waits.push(performance.now() - startMs);
    }
    expectTime("the 99th percentile of others", waits.toSorted((a, b) => a - b)[296]!, 50);
  });
}

function queueTests(target: () => Target): void {
  test("writes beyond the queue are 503 and surely not applied; the others are stored", async () => {
    const write = async (index: number) => {
      const response = await target().fetch(`/queue/${index}`, { method: "PUT", body: `${index}` });
      if (response.status === 503) await expectError(response, "overloaded");
      return response.status;
    };
    const statuses = await Promise.all(Array.from({ length: 200 }, (_, index) => write(index)));
    expect(statuses.filter((status) => status !== 200 && status !== 503)).toEqual([]);
    expect(statuses).toContain(200);
    expect(statuses).toContain(503);
    for (const [index, status] of statuses.entries()) {
      expect(await read(target(), `/queue/${index}`)).toBe(status === 200 ? `${index}` : null);
    }
  });
}

function floodTests(target: () => Target): void {
  test(`of ${FLOOD_BODIES} bodies of 8 MB at once each is stored or 503, and the server goes on`, async () => {
    const body = new Uint8Array(8_000_000).fill(65);
    const post = async (index: number) => {
      const response = await target().fetch(`/flood/${index}`, { method: "POST", body });
      if (response.status === 503) await expectError(response, "overloaded");
      else expect([response.status, await response.text()]).toEqual([200, ""]);
      return response.status;
    };
    const statuses = await Promise.all(Array.from({ length: FLOOD_BODIES }, (_, index) => post(index)));
    expect(statuses).toContain(200);
    const stored = statuses.flatMap((status, index) => (status === 200 ? [`${index}`] : []));
    expect((await readJson<string[]>(target(), "/_list?bucket=flood")).toSorted()).toEqual(stored.toSorted());
    expect((await target().fetch(`/flood/${stored[0]}`, { method: "HEAD" })).headers.get("content-length")).toBe(
      "8000000",
    );
    await untilBudgetInUse(target(), 0);
  }, 120_000);
}
