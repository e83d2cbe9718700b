// Many clients, few keys, kills and slow syncs: what every client saw fits one order of atomic operations per key.

import { describe, expect, test } from "bun:test";
import { idOf, storedValue } from "../support/durable-load.ts";
import { startServer } from "../support/executable.ts";
import {
  type Action,
  type History,
  KeyChecker,
  MISSING,
  type Operation,
  type Result,
} from "../support/linearizability.ts";
import { has, hasProgram } from "../support/needs.ts";
import { bySize, report } from "../support/run-size.ts";
import { type Random, seededRandom } from "../support/seeded-random.ts";
import { strace } from "../support/strace.ts";
import { mint, SECRET } from "../support/targets.ts";
import { tempDir } from "../support/temp-dir.ts";

/** For each of the two variants. */
const OPERATIONS = bySize(30_000, 100_000, 520_000);
const OPERATIONS_PER_LIFE = 5_000;
const TIMEOUT_MS = bySize(240_000, 600_000, 1_800_000);
const KEYS = 8;
const CLIENTS = 24;
/** This one holds values that are too large for the cache and are read by a thread of their own. */
const LARGE_KEY = "large";
const LARGE_BYTES = 1_100_000;
const LARGE_CLIENTS = 2;
const SLOW_SYNC_MICROSECONDS = 3_000;
const REFUSED: ReadonlySet<number> = new Set([503, 507]);

/** What happens on the keys of one server process, from the side of the clients. */
class Recorder {
  readonly histories = new Map<string, History>();
  readonly problems: string[] = [];
  operations = 0;
  readonly #headers: Record<string, string>;
  readonly #random: Random;
  /** The ETag under which a client has last seen a value of a key: what its next swap expects. */
  readonly #seen = new Map<string, { etag: string; value: number }>();
  #lastValue = 0;
  #isOver = false;

  constructor(token: string, random: Random) {
    this.#headers = { Authorization: `Bearer ${token}` };
    this.#random = random;
  }

  /** Clients until so many more operations have begun; then `end` stops them, or the server while they still run. */
  async live(url: string, operations: number, end: () => void): Promise<void> {
    this.#isOver = false;
    const last = this.operations + operations;
    const reached = Promise.withResolvers<void>();
    const client = async (keys: readonly string[]) => {
      while (!this.#isOver) {
        if (this.operations >= last) reached.resolve();
        const goesOn = await this.act(url, this.#random.pick(keys));
        if (!goesOn) return;
      }
    };
    const clients = Array.from({ length: CLIENTS }, (_, n) => client([`k${n % KEYS}`, `k${(3 * n + 1) % KEYS}`]));
    const large = Array.from({ length: LARGE_CLIENTS }, () => client([LARGE_KEY]));
    await reached.promise;
    end();
    await Promise.all([...clients, ...large]);
  }

  stop(): void {
    this.#isOver = true;
  }

  /** False when the connection has ended without an answer. */
  async act(url: string, key: string, action = this.#choose(key)): Promise<boolean> {
    const operation: Operation = { action, result: "unknown" };
    const history = this.histories.get(key) ?? [];
    this.histories.set(key, history);
    this.operations++;
    history.push({ kind: "begin", operation });
    let isAnswered = true;
    try {
      operation.result = await this.#send(url, key, action);
    } catch {
      isAnswered = false;
    }
    history.push({ kind: "end", operation });
    return isAnswered;
  }

  #choose(key: string): Action {
    const chance = this.#random.next();
    if (chance < 0.55) return { kind: "get" };
    const value = ++this.#lastValue;
    if (chance < 0.75) return { kind: "put", value };
    if (chance < 0.83) return { kind: "remove" };
    if (chance < 0.9) return { kind: "create", value };
    const seen = this.#seen.get(key);
    return seen === undefined ? { kind: "get" } : { kind: "swap", expected: seen.value, value };
  }

  async #send(url: string, key: string, action: Action): Promise<Result> {
    const target = `${url}/register/${key}`;
    if (action.kind === "get") return this.#get(target, key);
    if (action.kind === "remove") {
      const response = await fetch(target, { method: "DELETE", headers: this.#headers });
      return this.#outcomeOf(response, "done");
    }
    const condition: Record<string, string> = {};
    if (action.kind === "create") condition["If-None-Match"] = "*";
    if (action.kind === "swap") condition["If-Match"] = this.#etagOf(key, action.expected);
    const body = storedValue(action.value, key === LARGE_KEY ? LARGE_BYTES : 1 + this.#random.below(200));
    const response = await fetch(target, { method: "PUT", headers: { ...this.#headers, ...condition }, body });
    return this.#outcomeOf(response, action.kind === "put" ? "done" : true);
  }

  #etagOf(key: string, expected: number): string {
    const seen = this.#seen.get(key)!;
    if (seen.value !== expected) throw new Error("chosen in the same turn");
    return seen.etag;
  }

  async #get(target: string, key: string): Promise<Result> {
    const response = await fetch(target, { headers: this.#headers });
    const body = new Uint8Array(await response.arrayBuffer());
    if (response.status === 404) return MISSING;
    if (REFUSED.has(response.status)) return "refused";
    const value = response.status === 200 ? idOf(body) : null;
    if (value === null) {
      this.problems.push(`GET ${key}: ${response.status}, ${body.length} bytes`);
      return "unknown";
    }
    this.#seen.set(key, { etag: response.headers.get("etag")!, value });
    return value;
  }

  async #outcomeOf(response: Response, success: Result): Promise<Result> {
    await response.arrayBuffer();
    if (response.status === 200) return success;
    if (response.status === 412 && success === true) return false;
    if (REFUSED.has(response.status)) return "refused";
    if (response.status !== 500) this.problems.push(`a write answers ${response.status}`);
    return "unknown";
  }
}

/** Lives of one store under load, each ended by a kill or a stop; every second one on a disk that syncs slowly. */
async function runVariant(env: Record<string, string>, random: Random): Promise<{ recorder: Recorder; lives: number }> {
  using dir = tempDir();
  const settings = { JWT_SECRET: SECRET, DB_PATH: dir.file("data"), ACCESS_LOG: "off", RESERVE_BYTES: "0", ...env };
  const slowSync = strace({
    output: "/dev/null",
    calls: ["fsync"],
    inject: [`fsync:delay_enter=${SLOW_SYNC_MICROSECONDS}`],
  });
  const maySlow = hasProgram("strace");
  const recorder = new Recorder(await mint({ expiresInMs: 24 * 3_600_000 }), random);
  const checkers = new Map<string, KeyChecker>();
  let lives = 0;
  for (; recorder.operations < OPERATIONS; lives++) {
    await using server = await startServer(settings, maySlow && lives % 2 === 1 ? slowSync : []);
    await recorder.live(server.url, OPERATIONS_PER_LIFE, () => server.kill(lives % 4 === 3 ? "SIGTERM" : "SIGKILL"));
    await server.exited;
    for (const [key, history] of recorder.histories) {
      const checker = checkers.get(key) ?? new KeyChecker();
      checkers.set(key, checker);
      const at = checker.check(history);
      if (at !== null) recorder.problems.push(`${key}: ${JSON.stringify(history.slice(Math.max(0, at - 20), at + 1))}`);
    }
    recorder.histories.clear();
    if (recorder.problems.length > 0) break;
  }
  return { recorder, lives };
}

has("strace, for the lives on a slow disk", hasProgram("strace"));

describe("clients of a server that is killed again and again", () => {
  const variants = [
    ["with the read cache", {}],
    ["without the read cache", { READ_CACHE_BYTES: "0" }],
  ] as const;
  for (const [name, env] of variants) {
    test(
      `see every key change by one atomic operation after the other, ${name}`,
      async () => {
        const { recorder, lives } = await runVariant(env, seededRandom(`operations ${name}`));
        report(
          `linearizability ${name}: ${recorder.operations} operations, ${lives} lives, ` +
            `${recorder.problems.length} violations`,
        );
        expect(recorder.problems).toEqual([]);
        expect(recorder.operations).toBeGreaterThanOrEqual(OPERATIONS);
      },
      TIMEOUT_MS,
    );
  }

  test("would be told apart from clients that were served something stale", async () => {
    using dir = tempDir();
    await using server = await startServer({ JWT_SECRET: SECRET, DB_PATH: dir.file("data"), ACCESS_LOG: "off" });
    const recorder = new Recorder(await mint(), seededRandom("history to forge"));
    await recorder.live(server.url, 500, () => recorder.stop());
    for (const action of [
      { kind: "put", value: 1_000_001 },
      { kind: "put", value: 1_000_002 },
      { kind: "get" },
    ] as const) {
      await recorder.act(server.url, "k0", action);
    }
    const history = recorder.histories.get("k0")!;
    expect(new KeyChecker().check(history)).toBeNull();
    const { operation } = history.at(-1)!;
    expect(operation.result).toBe(1_000_002);
    for (const forged of [1_000_001, MISSING, 77]) {
      operation.result = forged;
      expect(new KeyChecker().check(history)).toBe(history.length - 1);
    }
  });
});

/** `p1 [ … ] = done`: an operation from its begin to its end, by its position among the events. */
function historyOf(...operations: readonly [begin: number, end: number, action: Action, result: Result][]): History {
  const events = operations.flatMap(([begin, end, action, result]) => {
    const operation = { action, result };
    return [{ at: begin, kind: "begin", operation } as const, { at: end, kind: "end", operation } as const];
  });
  return events.sort((a, b) => a.at - b.at).map(({ kind, operation }) => ({ kind, operation }));
}

describe("the checker", () => {
  const put = (value: number): Action => ({ kind: "put", value });
  const get: Action = { kind: "get" };
  const remove: Action = { kind: "remove" };
  const create = (value: number): Action => ({ kind: "create", value });
  const swap = (expected: number, value: number): Action => ({ kind: "swap", expected, value });
  const isExplained = (history: History) => new KeyChecker().check(history) === null;

  test("accepts what one order explains", () => {
    expect(isExplained([])).toBe(true);
    expect(
      isExplained(
        historyOf([0, 1, get, 0], [2, 3, put(1), "done"], [4, 5, get, 1], [6, 7, remove, "done"], [8, 9, get, 0]),
      ),
    ).toBe(true);
    // Overlapping writes in either order, and a read that sees the one that ended first.
    expect(isExplained(historyOf([0, 5, put(1), "done"], [1, 4, put(2), "done"], [6, 7, get, 1]))).toBe(true);
    expect(isExplained(historyOf([0, 5, put(1), "done"], [1, 4, put(2), "done"], [6, 7, get, 2]))).toBe(true);
    // A read may see a write that has not ended yet.
    expect(isExplained(historyOf([0, 9, put(1), "done"], [1, 2, get, 0], [3, 4, get, 1]))).toBe(true);
  });

  test("rejects stale reads, lost writes, resurrections and reads that go back", () => {
    expect(isExplained(historyOf([0, 1, put(1), "done"], [2, 3, put(2), "done"], [4, 5, get, 1]))).toBe(false);
    expect(isExplained(historyOf([0, 1, put(1), "done"], [2, 3, get, 0]))).toBe(false);
    expect(isExplained(historyOf([0, 1, put(1), "done"], [2, 3, remove, "done"], [4, 5, get, 1]))).toBe(false);
    expect(isExplained(historyOf([0, 9, put(1), "done"], [1, 2, get, 1], [3, 4, get, 0]))).toBe(false);
    expect(isExplained(historyOf([0, 1, get, 5]))).toBe(false);
  });

  test("lets a write of unknown outcome happen once or not at all, but not after its end", () => {
    const unknown = [0, 3, put(1), "unknown"] as const;
    expect(isExplained(historyOf([...unknown], [4, 5, get, 0]))).toBe(true);
    expect(isExplained(historyOf([...unknown], [4, 5, get, 1], [6, 7, get, 1]))).toBe(true);
    expect(isExplained(historyOf([...unknown], [4, 5, get, 0], [6, 7, get, 1]))).toBe(false);
    expect(isExplained(historyOf([...unknown], [4, 5, get, 1], [6, 7, get, 0]))).toBe(false);
    expect(isExplained(historyOf([0, 3, put(1), "refused"], [4, 5, get, 1]))).toBe(false);
  });

  test("knows conditions: one of two creates wins, a swap needs what it expects", () => {
    expect(isExplained(historyOf([0, 3, create(1), true], [1, 2, create(2), false], [4, 5, get, 1]))).toBe(true);
    expect(isExplained(historyOf([0, 3, create(1), true], [1, 2, create(2), true]))).toBe(false);
    expect(isExplained(historyOf([0, 1, put(1), "done"], [2, 3, swap(1, 2), true], [4, 5, swap(1, 3), false]))).toBe(
      true,
    );
    expect(isExplained(historyOf([0, 1, put(1), "done"], [2, 3, swap(1, 2), true], [4, 5, swap(1, 3), true]))).toBe(
      false,
    );
    expect(isExplained(historyOf([0, 1, put(1), "done"], [2, 3, swap(1, 2), false]))).toBe(false);
  });

  test("carries what may be so from one part of a history to the next", () => {
    const checker = new KeyChecker();
    expect(checker.check(historyOf([0, 1, put(1), "done"], [2, 5, put(2), "unknown"]))).toBeNull();
    expect(checker.check(historyOf([0, 1, get, 2]))).toBeNull();
    expect(checker.check(historyOf([0, 1, get, 1]))).toBe(1);
  });
});
