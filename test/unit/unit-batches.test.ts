// Write units that share a commit: each is applied or refused by itself.

import type { Database } from "bun:sqlite";
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { AppError } from "../../src/shared/errors.ts";
import { kyselyOver } from "../../src/storage/kysely-sqlite.ts";
import { openStore } from "../../src/storage/open-store.ts";
import type { UnitOfWork } from "../../src/storage/unit-of-work.ts";
import { type QueuedUnit, UnitQueue } from "../../src/storage/unit-queue.ts";
import { WriteTransaction } from "../../src/storage/write-transaction.ts";
import { type TempDir, tempDir } from "../support/temp-dir.ts";
import { testGuard, testWriter } from "../support/test-guard.ts";

type Tables = { queue: { name: string; paused: number } };

let dir: TempDir;
const opened: Database[] = [];
beforeEach(() => {
  dir = tempDir();
});
afterEach(() => {
  for (const database of opened.splice(0)) database.close(true);
  dir[Symbol.dispose]();
});

/** A store of its own, and a log of the transactions that ended. */
async function openWriter() {
  const path = dir.file("gokv.db");
  const database = await openStore({ path, walLimitBytes: 1024 * 1024, databaseBytesMax: 0, isChecked: false });
  opened.push(database);
  const transaction = new WriteTransaction(database);
  const commits: string[] = [];
  const commit = transaction.commit.bind(transaction);
  transaction.commit = () => {
    commit();
    commits.push("commit");
  };
  const writer = testWriter(database, testGuard(database), transaction);
  const tables = kyselyOver<unknown>(database);
  const names = () => database.query<{ name: string }, []>("SELECT name FROM job_queue ORDER BY rowid").values().flat();
  const run = (...acts: ((work: UnitOfWork) => Promise<unknown>)[]) => {
    const units = acts.map((act) => ({ run: act, grows: true }));
    return writer.runAll(tables, units, Number.MAX_VALUE);
  };
  return { database, commits, names, run };
}

function add(name: string, then: (work: UnitOfWork) => void = () => undefined) {
  return async (work: UnitOfWork) => {
    const db = work.tables.withTables<{ job_queue: Tables["queue"] }>();
    await db.insertInto("job_queue").values({ name, paused: 0 }).execute();
    then(work);
    return name;
  };
}

const refuse = () => {
  throw new AppError("conflict", "no");
};
const break_ = () => {
  throw new TypeError("a mistake of ours");
};

describe("write units that wait together", () => {
  test("take one commit, and their results come in their order", async () => {
    const { commits, names, run } = await openWriter();
    expect(await run(add("a"), add("b"), add("c"))).toEqual(["a", "b", "c"]);
    expect([names(), commits.length]).toEqual([["a", "b", "c"], 1]);
  });

  test("are refused one by one: nothing of a refused one stays, everything of the others does", async () => {
    const { commits, names, run } = await openWriter();
    const [a, b, c] = await run(add("a"), add("b", refuse), add("c"));
    expect([a, (b as AppError).code, c]).toEqual(["a", "conflict", "c"]);
    expect([names(), commits.length]).toEqual([["a", "c"], 1]);
  });

  test("survive one that breaks a rule of the tables, or has a mistake in it", async () => {
    const { names, run } = await openWriter();
    const results = await run(add("a"), add("a"), add("b", break_), add("c"));
    expect(results.map((result) => (result instanceof AppError ? result.code : result))).toEqual([
      "a",
      "internal_error",
      "internal_error",
      "c",
    ]);
    expect(names()).toEqual(["a", "c"]);
  });

  test("leave the counters of buckets true when one of them wipes a bucket and is refused", async () => {
    const { database, names, run } = await openWriter();
    database.run("INSERT INTO kv_bucket (name, entries, bytes) VALUES ('b', 3, 30)");
    const wipeAndRefuse = add("x", (work) => {
      work.wipeBucket("b");
      refuse();
    });
    const count = async (work: UnitOfWork) => work.countEntries("b");
    const results = await run(add("a"), wipeAndRefuse, count);
    expect([results[0], (results[1] as AppError).code, results[2]]).toEqual(["a", "conflict", 3]);
    expect(names()).toEqual(["a"]);
    expect(database.query("SELECT wiped_revision FROM kv_bucket").values()).toEqual([[0]]);
  });
});

describe("the queue of write units", () => {
  const unit = (id: number) => ({ id, name: "x", args: null, lockDeadlineMs: id });

  test("sends what came in one turn together, and what comes meanwhile with the next batch", async () => {
    const sent: [readonly number[], number][] = [];
    const queue = new UnitQueue((units: readonly QueuedUnit[], deadline) =>
      sent.push([units.map(({ id }) => id), deadline]),
    );
    queue.add(unit(1));
    queue.add(unit(2));
    await new Promise(setImmediate);
    expect(sent).toEqual([[[1, 2], 1]]);
    queue.add(unit(3));
    await new Promise(setImmediate);
    expect(sent.length).toBe(1);
    queue.ended();
    expect(sent[1]).toEqual([[3], 3]);
  });

  test("closes when everything has ended, in batches of bounded size", async () => {
    const sizes: number[] = [];
    const queue = new UnitQueue((units) => {
      sizes.push(units.length);
      setImmediate(() => queue.ended());
    });
    for (let id = 0; id < 150; id++) queue.add(unit(id));
    await queue.close();
    expect(sizes).toEqual([64, 64, 22]);
    await queue.close();
  });
});
