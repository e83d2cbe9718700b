// What may be a name, an address or a password, and which of them are the same.

import { describe, expect, test } from "bun:test";
import {
  emailKeyOf,
  emailProblem,
  passwordProblem,
  usernameKeyOf,
  usernameProblem,
} from "../../src/task/account-rules.ts";

describe("names of accounts", () => {
  test("have 3 to 20 code points of any script", () => {
    for (const name of ["abc", "a".repeat(20), "王小明", "🙂🙂🙂", "🙂".repeat(20), "Ann Lee", "o'neil"]) {
      expect([name, usernameProblem(name)]).toEqual([name, null]);
    }
    expect(usernameProblem("ab")).toBe("must have at least 3 characters");
    expect(usernameProblem("🙂🙂")).toBe("must have at least 3 characters");
    expect(usernameProblem("a".repeat(21))).toBe("must have at most 20 characters");
  });

  test("hold no control character and no space at their ends", () => {
    for (const name of ["a\nbc", "ab\u007fc", "abc\u0085", " abc", "abc ", "\u3000abc", "   "]) {
      expect([name, usernameProblem(name)]).toEqual([name, expect.any(String)]);
    }
  });

  test("hold nothing that cannot be seen, and something that can", () => {
    const hidden = ["bob\u00ad", "bo\u200db", "bob\u202e", "bob\ufe0f", "b\u{e0041}ob", "\u3164\u3164\u3164"];
    hidden.push("bob\u2800", "\u2800bob", "\u2800\u2800\u2800");
    for (const name of hidden) expect(usernameProblem(name)).toBe("must not hold invisible characters");
    for (const name of ["\u0301\u0301\u0301", "\u0301 \u0301"]) {
      expect(usernameProblem(name)).toBe("must hold a visible character");
    }
    for (const name of ["a\u2028bc", "a\u2029bc"]) {
      expect(usernameProblem(name)).toBe("must not hold control characters");
    }
    for (const name of ["Jose\u0301", "कमल", "สมชาย"]) expect(usernameProblem(name)).toBeNull();
  });

  test("are none that deleted accounts have", () => {
    for (const name of ["deleted-4", "Deleted-17", "ｄｅｌｅｔｅｄ－４"]) {
      expect(usernameProblem(name)).toBe("is kept for deleted accounts");
    }
    for (const name of ["deleted", "deleted-", "deleted-4a", "undeleted-4"]) expect(usernameProblem(name)).toBeNull();
  });

  test("are the same in any case and width", () => {
    for (const name of ["ALICE", "alice", "ａｌｉｃｅ"]) expect(usernameKeyOf(name)).toBe("alice");
    expect(usernameKeyOf("alicé")).not.toBe("alice");
  });
});

describe("addresses of accounts", () => {
  test("are somebody at a name with a dot", () => {
    for (const address of ["a@b.cd", "first.last+tag@sub.example.com", "用户@例子.公司"]) {
      expect([address, emailProblem(address)]).toEqual([address, null]);
    }
    const malformed = ["", "a", "@b.cd", "a@", "a@b", "a@b.", "a@.b", "a@b..c", "a b@c.de", "a@b@c.de", "a@b.c\n"];
    malformed.push("a\u200b@x.com", "a\u00ad@x.com", "a@x\u202e.com", "a@x.com\u3164", "a\u2800@x.com");
    for (const address of [...malformed, `${"a".repeat(65)}@b.cd`, `a@${"b".repeat(260)}.cd`]) {
      expect([address, emailProblem(address)]).toEqual([address, expect.any(String)]);
    }
  });

  test("are the same in any case, spacing and normal form", () => {
    expect(emailKeyOf("  Ann@Example.COM ")).toBe("ann@example.com");
    expect(emailKeyOf("e\u0301@example.com")).toBe(emailKeyOf("\u00c9@example.com"));
  });
});

test("passwords are counted in code points", () => {
  expect(passwordProblem("123456", 6)).toBeNull();
  expect(passwordProblem("12345", 6)).toBe("must have at least 6 characters");
  expect(passwordProblem("密".repeat(128), 6)).toBeNull();
  expect(passwordProblem("🙂".repeat(128), 6)).toBeNull();
  expect(passwordProblem("密".repeat(129), 6)).toBe("must have at most 128 characters");
  expect(passwordProblem("1234567", 8)).toBe("must have at least 8 characters");
});
