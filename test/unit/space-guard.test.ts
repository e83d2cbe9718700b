// What a full store still does: which writes are tried, and when its file may grow again.

import type { Database } from "bun:sqlite";
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { existsSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { monotonicMs } from "../../src/shared/clock.ts";
import { freeBytesAt } from "../../src/storage/free-space.ts";
import type { KvPut } from "../../src/storage/kv-engine.ts";
import type { KvWriter } from "../../src/storage/kv-writer.ts";
import { openStore } from "../../src/storage/open-store.ts";
import type { SpaceGuard } from "../../src/storage/space-guard.ts";
import { reserveBytesOf } from "../../src/storage/space-reserve.ts";
import { has, isRoot } from "../support/needs.ts";
import { mountSmallVolume, type SmallVolume } from "../support/small-volume.ts";
import { type TempDir, tempDir } from "../support/temp-dir.ts";
import { testGuard, testWriter } from "../support/test-guard.ts";

const MiB = 1024 * 1024;
const WAL_LIMIT_BYTES = MiB;
const PAGE_BYTES = 4096;
const RESERVE_BYTES = 64 * PAGE_BYTES;
const MORE_THAN_ANY_VOLUME = 2 ** 60;

let dir: TempDir;
let database: Database;
let reserve: string;
beforeEach(async () => {
  dir = tempDir();
  reserve = dir.file("reserve");
  const path = dir.file("gokv.db");
  database = await openStore({ path, walLimitBytes: WAL_LIMIT_BYTES, databaseBytesMax: 0, isChecked: false });
});
afterEach(() => {
  database.close(true);
  dir[Symbol.dispose]();
});

function put(key: string, bytes = 10): KvPut {
  const rest = { contentType: null, metadata: null, ttlMs: null, creatorIp: null, condition: null };
  return { kind: "put", bucket: "b", key, value: new Uint8Array(bytes), ...rest };
}

const makeWriter = (space: SpaceGuard) => testWriter(database, space);
const guarded = (makeRoom: () => void = () => undefined) =>
  testGuard(database, { reserveBytes: RESERVE_BYTES, makeRoom });
/** As its keeper does when there is room for it. */
const writeReserve = () => writeFileSync(reserve, new Uint8Array(RESERVE_BYTES));

describe("while the store is full", () => {
  test("writes that belong together wait for their turn like single ones, and end the full state", () => {
    const space = guarded();
    const writer = makeWriter(space);
    const store = (key: string) => writer.applyAllOrNone([put(key), put(`${key}2`)], monotonicMs())[0]!.kind;
    space.noteFull();
    expect([store("early"), space.isFull]).toEqual(["full", true]);
    space.noteFreed();
    expect([store("freed"), space.isFull]).toEqual(["created", false]);
    expect(store("later")).toBe("created");
  });

  test("writes that belong together and are undone for a condition of one of them do not end the full state", () => {
    const space = guarded();
    const writer = makeWriter(space);
    space.noteFull();
    space.noteFreed();
    const unmet = { ...put("b"), condition: { ifMatch: "*", ifNoneMatch: null } as const };
    const outcomes = writer.applyAllOrNone([put("a"), unmet], monotonicMs());
    expect(outcomes.map(({ kind }) => kind)).toEqual(["created", "unmet"]);
    expect(space.isFull).toBe(true);
  });

  test("a wipe is not asked to wait", () => {
    const space = guarded();
    const writer = makeWriter(space);
    writer.apply([put("k")], monotonicMs());
    space.noteFull();
    expect(writer.wipe("b", monotonicMs()).kind).toBe("deleted");
  });

  test("the reserve is given up and the log is copied once, even when the copy meets no space itself", () => {
    let copies = 0;
    const space: SpaceGuard = guarded(() => {
      copies++;
      space.noteFull();
    });
    writeReserve();
    space.noteFull();
    expect([existsSync(reserve), copies]).toEqual([false, 1]);
  });

  test("a reserve that was written meanwhile is given up for the next delete that finds no room", () => {
    const space = guarded();
    writeReserve();
    space.noteFull();
    writeReserve();
    space.keepHouse();
    expect([space.isFull, space.canMakeRoom]).toEqual([true, true]);
    space.noteFull();
    expect([existsSync(reserve), space.canMakeRoom]).toEqual([false, false]);
  });
});

describe("a store that had to give up its reserve", () => {
  /** How many of a hundred values are stored. */
  const fill = (writer: KvWriter, name: string) => {
    const isStored = (n: number) =>
      writer.applyAllOrNone([put(`${name}${n}`, 10 * PAGE_BYTES)], monotonicMs())[0]!.kind === "created";
    const refused = Array.from({ length: 100 }, (_, n) => n).findIndex((n) => !isStored(n));
    return refused < 0 ? 100 : refused;
  };
  const pages = () => database.query<{ page_count: number }, []>("PRAGMA page_count").get()!.page_count;
  /** Meets the end of the space with a reserve, then space for one try. */
  const meetFullness = (space: SpaceGuard) => {
    writeReserve();
    space.noteFull();
    space.noteFreed();
  };

  test("uses the pages of what was removed, and does not grow", () => {
    const space = guarded();
    const writer = makeWriter(space);
    expect(fill(writer, "a")).toBe(100);
    const before = pages();
    meetFullness(space);
    space.keepHouse();
    expect(fill(writer, "b")).toBe(0);
    const removal = { kind: "delete", bucket: "b", key: "a1", condition: null } as const;
    expect(writer.apply([removal], monotonicMs())[0]!.kind).toBe("deleted");
    expect(writer.applyAllOrNone([put("again", 9 * PAGE_BYTES)], monotonicMs())[0]!.kind).toBe("created");
    expect(pages()).toBe(before);
  });

  test("grows again once the reserve was written anew, not as soon as there is room for it", () => {
    const space = guarded();
    const writer = makeWriter(space);
    meetFullness(space);
    expect(fill(writer, "a")).toBe(0);
    space.keepHouse();
    space.noteFreed();
    expect(fill(writer, "b")).toBe(0);
    writeReserve();
    space.keepHouse();
    expect(fill(writer, "c")).toBe(100);
  });

  test("grows again with the first write that meets the limit while the reserve is back", () => {
    const space = guarded();
    const writer = makeWriter(space);
    meetFullness(space);
    writeReserve();
    expect(fill(writer, "a")).toBe(0);
    expect([fill(writer, "b"), existsSync(reserve)]).toEqual([100, true]);
  });

  test("does not grow after another start either, where there is still no room for it", () => {
    const reserveBytes = MORE_THAN_ANY_VOLUME;
    const space = testGuard(database, { reserveBytes });
    space.noteOpened(0);
    expect(fill(makeWriter(space), "a")).toBe(0);
    expect(space.fullCause).toBe("volume");
  });

  test.each([
    ["there is room for it", RESERVE_BYTES, 0, 100],
    ["it is there", MORE_THAN_ANY_VOLUME, 1, 100],
    // Nobody may rely on a reserve of an earlier setting, or of the volume before it was made larger.
    ["one of half the size is there", MORE_THAN_ANY_VOLUME, 0.5, 0],
  ])("grows after another start where %s: %#", (_, reserveBytes, share, stored) => {
    writeFileSync(reserve, "");
    truncateSync(reserve, Math.floor(share * reserveBytesOf(dir.path, reserveBytes)));
    const space = testGuard(database, { reserveBytes });
    space.noteOpened(0);
    expect(fill(makeWriter(space), "a")).toBe(stored);
  });

  test("does not grow once its reserve is missing and there is no room for another", () => {
    writeFileSync(reserve, "");
    truncateSync(reserve, reserveBytesOf(dir.path, MORE_THAN_ANY_VOLUME));
    const space = testGuard(database, { reserveBytes: MORE_THAN_ANY_VOLUME });
    space.noteOpened(0);
    rmSync(reserve);
    space.keepHouse();
    expect(fill(makeWriter(space), "a")).toBe(0);
  });

  test("does not grow when the volume was full before its first reserve was written", () => {
    const space = guarded();
    space.noteFull();
    space.noteFreed();
    expect(fill(makeWriter(space), "a")).toBe(0);
  });

  test("grows on when it is to have none", () => {
    const space = testGuard(database);
    space.noteFull();
    space.noteFreed();
    expect(fill(makeWriter(space), "a")).toBe(100);
  });
});

if (has("root, to mount a small volume", isRoot())) {
  test("a store with a limit of its own names the volume when that is what has no room", () => {
    using volume = mountSmallVolume(MiB);
    const limited = () => testGuard(database, { isLimited: true }, join(volume.path, "reserve"));
    const [before, after] = [limited(), limited()];
    before.noteFull();
    writeFileSync(join(volume.path, "other"), new Uint8Array(freeBytesAt(volume.path)));
    after.noteFull();
    expect([before.fullCause, after.fullCause]).toEqual(["DB_MAX_BYTES", "volume"]);
  });

  describe("a store without a reserve, or with one that is as good as none, on a small volume", () => {
    const VOLUME_BYTES = 12 * MiB;
    let volume: SmallVolume;
    let small: Database;
    beforeEach(async () => {
      volume = mountSmallVolume(VOLUME_BYTES);
      const path = join(volume.path, "gokv.db");
      small = await openStore({ path, walLimitBytes: WAL_LIMIT_BYTES, databaseBytesMax: 0, isChecked: false });
      small.run("CREATE TABLE filler (value)");
    });
    afterEach(() => {
      small.close(true);
      volume[Symbol.dispose]();
    });

    const guardOf = (reserveBytes: number, isLimited = false) => testGuard(small, { isLimited, reserveBytes });
    const grow = (bytes: number) => small.run("INSERT INTO filler VALUES (zeroblob(?))", [bytes]);

    test.each([0, 1])("takes less than half of what is left with one commit: %d bytes", (reserveBytes) => {
      const space = guardOf(reserveBytes);
      space.noteOpened(0);
      expect(() => grow(VOLUME_BYTES / 2)).toThrow("full");
      grow(VOLUME_BYTES / 3);
      space.noteWritten(true);
      expect(() => grow(VOLUME_BYTES / 3)).toThrow("full");
    });

    test("grows again once there is much room", () => {
      const space = guardOf(0);
      space.noteOpened(0);
      volume.resize(128 * MiB);
      space.keepHouse();
      grow(VOLUME_BYTES);
    });

    test("names its own limit where that is reached first", () => {
      small.run("PRAGMA max_page_count = 256");
      const space = guardOf(0, true);
      space.noteOpened(0);
      expect(() => grow(MiB)).toThrow("full");
      space.noteFull();
      expect(space.fullCause).toBe("DB_MAX_BYTES");
    });
  });
}
