// The rules of a task: what a patch changes, who may, what a label is.

import { describe, expect, test } from "bun:test";
import {
  changesBetween,
  columnsOf,
  labelSet,
  parseVersionMatch,
  requireMatch,
  requireMayChange,
  roleOf,
} from "../../src/task/item-rules.ts";
import { NO_DUE_MS } from "../../src/task/task-tables.ts";
import { refusalOf } from "../support/refusal-of.ts";
import { ITEM_FIELDS } from "../support/task-store.ts";

describe("the changes of a patch", () => {
  test("name what differs, as clients see it, and nothing else", () => {
    const after = { ...ITEM_FIELDS, dueAtMs: 0, priority: "high", labels: ["a"], title: "A task" } as const;
    const changes = changesBetween(ITEM_FIELDS, after);
    expect(changes).toEqual({
      due_date: [null, "1970-01-01T00:00:00.000Z"],
      priority: ["medium", "high"],
      labels: [[], ["a"]],
    });
    expect(columnsOf(after, changes)).toEqual({ due_at_ms: 0, priority: 3 });
    expect(columnsOf(ITEM_FIELDS, changesBetween(after, ITEM_FIELDS))).toEqual({ due_at_ms: NO_DUE_MS, priority: 2 });
    expect(changesBetween(after, { ...after, labels: ["a"] })).toEqual({});
  });

  test("of a title or a description change what is searched", () => {
    const after = { ...ITEM_FIELDS, description: "Ｆｕｌｌ Width" };
    const { search_text } = columnsOf(after, changesBetween(ITEM_FIELDS, after));
    expect(search_text).toBe("a task\nfull width");
  });
});

describe("who may change a task", () => {
  const row = { user_id: 1, assignee_id: 2, deleted_at_ms: 0 };

  test("is its owner, and its assignee as long as it lives", () => {
    expect([1, 2, 3, null].map((userId) => roleOf(row, userId))).toEqual(["owner", "assignee", null, "operator"]);
    const deleted = { ...row, deleted_at_ms: 5 };
    expect([1, 2, 3, null].map((userId) => roleOf(deleted, userId))).toEqual(["owner", null, null, "operator"]);
    expect(roleOf({ ...row, assignee_id: 1 }, 1)).toBe("owner");
  });

  test("as an assignee reports progress and leaves, no more", () => {
    const judge = (changes: Record<string, [unknown, unknown]>) =>
      refusalOf(() => requireMayChange("assignee", changes));
    expect(judge({ status: ["pending", "completed"], assignee_id: [2, null] })).toBeNull();
    expect(judge({ assignee_id: [2, 3] })).toBe("forbidden");
    expect(judge({ status: ["pending", "completed"], title: ["a", "b"] })).toBe("forbidden");
    expect(refusalOf(() => requireMayChange("owner", { title: ["a", "b"] }))).toBeNull();
  });
});

describe("the version that a change is based on", () => {
  test("must be the one that is there, where one is named", () => {
    const judge = (header: string | null, isRequired = false) =>
      refusalOf(() => requireMatch(3, parseVersionMatch(header), isRequired));
    for (const header of [null, "*", " * ", '"v3"', '"v3",', '"v2", "v3"', '"x" ,"v3"', '"a,b","v3"'])
      expect(judge(header)).toBeNull();
    for (const header of ['"v2"', 'W/"v3"', '"3"', '"V3"', '"v03"', '""']) {
      expect(judge(header)).toBe("version_mismatch");
    }
    for (const header of ["v3", "", '"v3', '"v3" "v4"', "**", '"v3", *']) {
      expect(judge(header)).toBe("precondition_invalid");
    }
    expect([judge(null, true), judge("*", true)]).toEqual(["if_match_required", null]);
  });

  test("may be one of sixteen, in a kibibyte", () => {
    const tags = Array.from({ length: 17 }, (_, index) => `"v${index + 1}"`);
    const long = (length: number) => `"${"x".repeat(length - 2)}"`;
    expect(parseVersionMatch(tags.slice(1).join(", "))).toHaveLength(16);
    expect(refusalOf(() => parseVersionMatch(tags.join(", ")))).toBe("precondition_invalid");
    expect(parseVersionMatch(long(1024))).toEqual([]);
    expect(refusalOf(() => parseVersionMatch(long(1025)))).toBe("precondition_invalid");
  });
});

describe("labels", () => {
  test("are a set in order, of which the first spelling stays", () => {
    expect(labelSet(["b", "A", "B", "a", "ä", "Ä"])).toEqual(["A", "b", "ä"]);
    expect(labelSet(["\u00e9", "e\u0301", "__proto__"])).toEqual(["__proto__", "e\u0301", "\u00e9"]);
    expect(labelSet([])).toEqual([]);
  });
});
