// Query parameters of lists and their cursors, without a server.

import { describe, expect, test } from "bun:test";
import { searchTextOf, searchWordsOf } from "../../src/task/search-text.ts";
import { formatCursor, parseCursor } from "../../src/task/task-cursor.ts";
import { listKey, NEWEST_FIRST, parseFilter, parseListQuery, type TaskFilter } from "../../src/task/task-query.ts";
import { refusalOf } from "../support/refusal-of.ts";

const NOTHING: TaskFilter = {
  statuses: [],
  priorities: [],
  labels: [],
  assignee: null,
  dueFromMs: null,
  dueBeforeMs: null,
  scope: "all",
  updatedFromMs: null,
  isOverdue: null,
  words: [],
  isDeleted: false,
};

describe("the parameters of a list", () => {
  test("mean no filter, the newest first and a page of 200 when there are none", () => {
    expect(parseListQuery({})).toEqual({
      filter: NOTHING,
      sort: { by: "created_at", isDescending: true },
      limit: 200,
      cursor: null,
      hasCount: false,
      hasUsers: false,
    });
  });

  test("are read into their parts, lists in an order of their own", () => {
    const { filter, ...rest } = parseListQuery({
      status: "completed,pending,completed",
      priority: "high,low",
      label: "Docs,a,DOCS",
      scope: "mine",
      assignee: "17",
      due_after: "2026-02-01T00:00:00Z",
      due_before: "2026-02-01T08:00:00.5+08:00",
      updated_after: "1970-01-01T00:00:00Z",
      overdue: "false",
      q: " Ｗide  wide 文 ",
      deleted: "true",
      sort: "priority",
      limit: "1000",
      cursor: "x",
      count: "true",
      expand: "user",
    });
    expect(filter).toEqual({
      statuses: ["pending", "completed"],
      priorities: [1, 3],
      labels: ["a", "docs"],
      scope: "mine",
      assignee: 17,
      dueFromMs: Date.UTC(2026, 1, 1),
      dueBeforeMs: Date.UTC(2026, 1, 1) + 500,
      updatedFromMs: 0,
      isOverdue: false,
      words: ["wide", "文"],
      isDeleted: true,
    });
    expect(rest).toEqual({
      sort: { by: "priority", isDescending: false },
      limit: 1000,
      cursor: "x",
      hasCount: true,
      hasUsers: true,
    });
  });

  test("have one canonical form for what means the same, another for anything else", () => {
    const form = (parameters: Parameters<typeof parseFilter>[0]) => listKey(1, parseFilter(parameters), NEWEST_FIRST);
    expect(form({ status: "pending,completed" })).toBe(form({ status: "completed,pending,pending" }));
    expect(form({ status: "", label: "A" })).toBe(form({ label: "a" }));
    const different = [{}, { due_after: "2026-02-01T00:00:00Z" }, { due_before: "2026-02-01T00:00:00Z" }, { q: "1" }];
    different.push(
      { updated_after: "2026-02-01T00:00:00Z" } as never,
      { label: "1" } as never,
      { assignee: "1" } as never,
    );
    expect(new Set(different.map((parameters) => form(parameters))).size).toBe(different.length);
  });
});

describe("the labels of a filter", () => {
  test("are twenty at most, each counted once", () => {
    const labels = Array.from({ length: 20 }, (_, index) => `label ${String(index).padStart(2, "0")}`);
    expect(parseFilter({ label: [...labels, "LABEL 07", "Label 00"].join() }).labels).toEqual(labels);
    expect(() => parseFilter({ label: [...labels, "another"].join() })).toThrow(/^label names at most 20 labels/);
  });
});

describe("the words of a search", () => {
  test("have at most 200 characters together, as they are when they are searched for", () => {
    // It is written out as six characters.
    const square = "㌖";
    expect(parseFilter({ q: square.repeat(33) }).words).toEqual(["キロメートル".repeat(33)]);
    expect(parseFilter({ q: `${"a".repeat(100)} ${"😀".repeat(100)}` }).words.length).toBe(2);
    for (const q of [
      square.repeat(34),
      "a".repeat(201),
      `${"a".repeat(100)} ${"😀".repeat(101)}`,
      "%".repeat(50_001),
    ]) {
      expect(refusalOf(() => parseFilter({ q }))).toBe("invalid_request");
      expect(() => parseFilter({ q })).toThrow(/^q has at most 200 characters/);
    }
  });
});

describe("a cursor", () => {
  test("gives its place back to its own list, whatever numbers stand in it", () => {
    for (const key of [0, 1, 3, -62_167_219_200_000, 9e15, Date.now()]) {
      for (const id of [1, 2 ** 32, Number.MAX_SAFE_INTEGER]) {
        const text = formatCursor({ key, id }, "1 list");
        expect(text).toMatch(/^[A-Za-z0-9_-]{40}$/);
        expect(parseCursor(text, "1 list")).toEqual({ key, id });
        expect(refusalOf(() => parseCursor(text, "2 list"))).toBe("invalid_cursor");
      }
    }
  });

  test("is refused with any other character anywhere, longer, shorter, or of another alphabet", () => {
    const text = formatCursor({ key: 5, id: 6 }, "list");
    const others = [...text].flatMap((_, at) =>
      [..."Az09-_+/= é"].map((character) => `${text.slice(0, at)}${character}${text.slice(at + 1)}`),
    );
    for (const other of [...others, "", text.slice(1), `${text}A`, `${text}=`, ` ${text}`, `${text}\n`]) {
      if (other !== text) expect(refusalOf(() => parseCursor(other, "list"))).toBe("invalid_cursor");
    }
  });
});

describe("the text that is searched", () => {
  test("is folded like the words that are looked for", () => {
    const text = searchTextOf({ title: "Ｆｕｌｌ ÉTÉ", description: "ﬁne\n文档" });
    expect(text).toBe("full été\nfine\n文档");
    for (const q of ["FULL", "e\u0301te\u0301", "ﬁ", "文", "été full"]) {
      expect([q, searchWordsOf(q).every((word) => text.includes(word))]).toEqual([q, true]);
    }
    expect(searchWordsOf(" \t\n\u3000 ")).toEqual([]);
  });

  test("holds all of a text of usual letters, and no more than four times the longest description of others", () => {
    const title = "x".repeat(255);
    const emoji = "\u{1F600}".repeat(20_000);
    expect(searchTextOf({ title, description: emoji })).toBe(`${title}\n${emoji}`);
    for (const description of ["\uFDFA".repeat(20_000), `\uFDFA${"\uFDFA\u{1F600}".repeat(9_000)}`]) {
      const text = searchTextOf({ title, description });
      expect(text.length).toBeWithin(79_999, 80_001);
      expect(`${title}\n${description}`.normalize("NFKC").startsWith(text)).toBe(true);
      expect(text.isWellFormed()).toBe(true);
    }
  });
});
