// What an installation may touch, by key and by range, against the rules as they are written down.

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { canRead, canWrite, isFull, type Permissions, readableRanges } from "../../src/token/permissions.ts";
import { byBytes } from "../support/list-model.ts";
import { ruleIsFull, ruleMayRead, ruleMayWrite } from "../support/permission-rules.ts";

const RUNS = { numRuns: 3000 };

function permissions(prefix: string | null, ...grants: string[]): Permissions {
  return { permissionPrefix: prefix, permissionKey: grants, isReadOnly: false };
}

/** Short texts of few parts, so that names, prefixes and keys meet often. */
const part = fc.constantFrom("a", "b", "A", ".", ".", "_", "%", "/", "-", "é", "\uffff", "😀", "read:", "write:");
const text = fc.array(part, { minLength: 1, maxLength: 5 }).map((parts) => parts.join(""));
const name = text.filter((candidate) => !candidate.endsWith("."));
const fields = fc.record({
  permissionPrefix: fc.oneof(fc.constant(null), fc.constant(""), name),
  permissionKey: fc.array(name, { maxLength: 5 }),
  isReadOnly: fc.boolean(),
});

describe("the permissions of an installation", () => {
  test("without prefix and grants are the whole namespace", () => {
    for (const prefix of [null, ""]) {
      expect(isFull(permissions(prefix))).toBe(true);
      expect([canRead(permissions(prefix), "x"), canWrite(permissions(prefix), "__proto__")]).toEqual([true, true]);
    }
    expect([isFull(permissions("a")), isFull(permissions("", "a")), isFull(permissions(null, "a"))]).toEqual([
      false,
      false,
      false,
    ]);
    expect(canRead(permissions("", "a"), "b")).toBe(false);
  });

  test("by prefix are what follows it and a dot, and not the prefix itself", () => {
    const mine = permissions("myapp");
    for (const key of ["myapp.a", "myapp.", "myapp..", "myapp.a.b", "myapp./"]) {
      expect([key, canRead(mine, key), canWrite(mine, key)]).toEqual([key, true, true]);
    }
    for (const key of ["myapp", "myapp2.a", "myapp2", "MYAPP.a", "xmyapp.a", "myapp/a", "myap", ".myapp.a", "myapp-"]) {
      expect([key, canRead(mine, key), canWrite(mine, key)]).toEqual([key, false, false]);
    }
  });

  test("by grant are the name itself and what follows it and a dot", () => {
    for (const [grant, isWritable] of [
      ["shared", true],
      ["write:shared", true],
      ["read:shared", false],
    ] as const) {
      for (const key of ["shared", "shared.x", "shared.x.y"]) {
        const granted = permissions(null, grant);
        expect([grant, key, canRead(granted, key), canWrite(granted, key)]).toEqual([grant, key, true, isWritable]);
      }
      for (const key of ["sharedx", "share", "Shared", "x.shared", grant === "shared" ? "read:shared" : grant]) {
        expect([grant, key, canRead(permissions(null, grant), key)]).toEqual([grant, key, false]);
      }
    }
  });

  test("take only the first mark of a grant as one", () => {
    expect(canWrite(permissions(null, "write:read:x"), "read:x")).toBe(true);
    expect(canRead(permissions(null, "write:read:x"), "x")).toBe(false);
    expect(canRead(permissions(null, "read:write:x"), "write:x.y")).toBe(true);
    expect(canWrite(permissions(null, "read:write:x"), "write:x")).toBe(false);
    expect(canWrite(permissions(null, "READ:x"), "READ:x")).toBe(true);
  });

  test("of a read-only installation let nothing be written", () => {
    for (const base of [permissions(null), permissions("a"), permissions(null, "a", "write:a")]) {
      expect(canWrite({ ...base, isReadOnly: true }, "a.b")).toBe(false);
      expect(canRead({ ...base, isReadOnly: true }, "a.b")).toBe(true);
    }
  });

  test("are those of the rules, whatever the fields and the key", () => {
    fc.assert(
      fc.property(fields, text, (installation, key) => {
        expect(isFull(installation)).toBe(ruleIsFull(installation));
        expect(canRead(installation, key)).toBe(ruleMayRead(installation, key));
        expect(canWrite(installation, key)).toBe(ruleMayWrite(installation, key));
      }),
      RUNS,
    );
  });
});

describe("the readable ranges", () => {
  test("of a plain installation are everything", () => {
    expect(readableRanges(permissions(null))).toEqual([{ lower: "", upper: null }]);
  });

  test("are in byte order, and a range inside another is left out", () => {
    expect(readableRanges(permissions("a", "a.b", "read:a.b.c", "A", "a"))).toEqual([
      { lower: "A", upper: "A\0" },
      { lower: "A.", upper: "A/" },
      { lower: "a", upper: "a\0" },
      { lower: "a.", upper: "a/" },
    ]);
    const names = ["😀", "\uffff", "é", "b", "A"];
    const lowers = readableRanges(permissions(null, ...names)).map(({ lower }) => lower);
    expect(lowers).toEqual(["A", "A.", "b", "b.", "é", "é.", "\uffff", "\uffff.", "😀", "😀."]);
  });

  test("hold each readable key in exactly one range and no other key in any", () => {
    fc.assert(
      fc.property(fields, text, (installation, key) => {
        const holding = readableRanges(installation).filter(
          ({ lower, upper }) => byBytes(key, lower) >= 0 && (upper === null || byBytes(key, upper) < 0),
        );
        expect(holding.length).toBe(ruleMayRead(installation, key) ? 1 : 0);
      }),
      RUNS,
    );
  });

  test("are disjoint and sorted", () => {
    fc.assert(
      fc.property(fields, (installation) => {
        const ranges = readableRanges(installation);
        expect(ranges.length).toBeGreaterThan(0);
        for (const [index, { lower }] of ranges.entries()) {
          if (index > 0) expect(byBytes(ranges[index - 1]!.upper!, lower)).toBeLessThanOrEqual(0);
        }
      }),
      RUNS,
    );
  });
});
