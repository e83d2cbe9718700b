// JSON kept as text: what counts as one, where its members stand, and that a cut leaves every other byte alone.

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  cutMember,
  isJson,
  membersNamed,
  parsedBytes,
  requireJson,
  topLevelMembers,
} from "../../src/shared/json-text.ts";
import { refusalOf } from "../support/refusal-of.ts";

function encode(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** Where a parser would see a difference, this text has it: spaces, escapes, doubled names, numbers as written. */
const spaces = fc.stringMatching(/^[ \t\n\r]{0,3}$/);
const names = fc.oneof(
  fc.constantFrom("token", "__proto__", "", '"', "\\", "}", "{", ",", ":", "]", "\u2028", "a\\"),
  fc.string({ unit: "binary", maxLength: 4 }).filter((name) => name.isWellFormed()),
);
const escaped = (text: string) =>
  `"${[...text].map((letter) => `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`).join("")}"`;
const nameTexts = names.chain((name) =>
  fc
    .boolean()
    .map((isEscaped) => [name, isEscaped && !/[^\0-\uffff]/u.test(name) ? escaped(name) : JSON.stringify(name)]),
);
const values = fc.oneof(
  fc.json({ maxDepth: 3 }),
  fc.constantFrom("1.0", "-0", "1e5", '"},{"', '"\\\\"', '"\\""', "[ ]", "{ }", '{"token":1}', "[[1],2]", "null"),
);
const memberTexts = fc.tuple(nameTexts, values, fc.array(spaces, { minLength: 4, maxLength: 4 }));
const objects = fc.tuple(fc.array(memberTexts, { maxLength: 5 }), spaces, spaces).map(([members, before, behind]) => {
  const parts = members.map(([[, name], value, [a, b, c, d]]) => `${a}${name}${b}:${c}${value}${d}`);
  return { text: `${before}{${parts.join(",")}}${behind}`, members };
});

describe("one JSON text", () => {
  test("is returned as it came", () => {
    for (const text of ["null", " 1.0 ", '{"a":1,"a":2}', "[]", '"\u2028😀"', "[1E400]", '"\\ud800"', '{"\ufeff":1}']) {
      expect(requireJson(encode(text))).toBe(text);
      expect(isJson(encode(text))).toBe(true);
    }
  });

  test("is nothing that is empty, begins with a byte order mark, or has something behind it", () => {
    for (const text of [
      "",
      " ",
      "\ufeff1",
      "\ufeff",
      "1 2",
      "{}{}",
      "{bad",
      "[1,]",
      "01",
      "+1",
      ".5",
      "'a'",
      "\u00a01",
    ]) {
      expect([text, refusalOf(() => requireJson(encode(text)))]).toEqual([text, "invalid_json"]);
      expect(isJson(encode(text))).toBe(false);
    }
  });

  test("is nothing that is not UTF-8 in its shortest form", () => {
    for (const bytes of [[0xff], [0xc0, 0xaf], [0xed, 0xa0, 0x80], [0xf4, 0x90, 0x80, 0x80], [0xe2, 0x82]]) {
      const quoted = new Uint8Array([0x22, ...bytes, 0x22]);
      expect(refusalOf(() => requireJson(quoted))).toBe("invalid_json");
      expect(isJson(quoted)).toBe(false);
    }
  });

  test("is at most 512 levels deep; brackets in strings are no levels", () => {
    const nested = (depth: number) => "[".repeat(depth) + "]".repeat(depth);
    const inString = `["${"[{".repeat(400)}\\"${"[".repeat(400)}", "\\\\", ${nested(510)}]`;
    for (const text of [nested(512), `{"a":${nested(511)}}`, inString, `[${nested(511)},${nested(511)}]`]) {
      expect(refusalOf(() => requireJson(encode(text)))).toBeNull();
    }
    for (const text of [nested(513), `{"a":${nested(512)}}`, "[".repeat(513), `["\\\\",${nested(512)}]`]) {
      expect(refusalOf(() => requireJson(encode(text)))).toBe("json_too_deep");
      expect(isJson(encode(text))).toBe(false);
    }
  });

  test("is what the parser of the language takes, as long as it is flat", () => {
    fc.assert(
      fc.property(fc.oneof(fc.json(), fc.string(), fc.stringMatching(/^[[\]{}",:0-9a-e\\ ]{0,12}$/)), (text) => {
        let isValid = true;
        try {
          JSON.parse(text);
        } catch {
          isValid = false;
        }
        expect(isJson(encode(text.toWellFormed()))).toBe(isValid);
      }),
      { numRuns: 2000 },
    );
  });
});

describe("the members of an object", () => {
  test("are none for other values", () => {
    for (const text of ["[]", '["a"]', "1", "null", '"{}"', ' "a" ', "true"]) expect(topLevelMembers(text)).toBeNull();
    for (const text of ["{}", " {\n} "]) expect(topLevelMembers(text)).toEqual([]);
  });

  test("are those of the outermost one, in order, with their places", () => {
    const text = ' { "a" : {"b":[1,{"c":2}]} ,"\\u0061":"}" , "":-1.0e5} ';
    const members = topLevelMembers(text)!;
    expect(members.map(({ name }) => name)).toEqual(["a", "a", ""]);
    expect(members.map(({ start, end }) => text.slice(start, end))).toEqual([
      '"a" : {"b":[1,{"c":2}]}',
      '"\\u0061":"}"',
      '"":-1.0e5',
    ]);
    expect(members.map(({ valueStart, end }) => text.slice(valueStart, end))).toEqual([
      '{"b":[1,{"c":2}]}',
      '"}"',
      "-1.0e5",
    ]);
  });

  test("are found in any object, however it is written", () => {
    fc.assert(
      fc.property(objects, ({ text, members }) => {
        const found = topLevelMembers(text)!;
        expect(found.map(({ name }) => name)).toEqual(members.map(([[name]]) => name!));
        expect(found.map(({ valueStart, end }) => text.slice(valueStart, end))).toEqual(
          members.map(([, value]) => value.trim()),
        );
      }),
      { numRuns: 2000 },
    );
  });
});

describe("the members of one name", () => {
  const named = (text: string, name: string) => topLevelMembers(text)?.filter((member) => member.name === name) ?? [];

  test("are those of the outermost object that have it, escaped or not", () => {
    const text = '{"token":1,"a":{"token":2},"\\u0074oken":3,"token ":4,"Token":5,"tokens":6,"token":7}';
    expect(membersNamed(text, "token").map(({ valueStart, end }) => text.slice(valueStart, end))).toEqual([
      "1",
      "3",
      "7",
    ]);
    for (const other of ["[]", '["token"]', '"token"', "1", "{}"]) expect(membersNamed(other, "token")).toEqual([]);
  });

  test("are the same that are found among all of any object", () => {
    fc.assert(
      fc.property(objects, fc.nat(), ({ text, members }, pick) => {
        const name = members.length === 0 ? "a" : members[pick % members.length]![0][0]!;
        expect(membersNamed(text, name)).toEqual(named(text, name));
      }),
      { numRuns: 2000 },
    );
  });
});

describe("a cut", () => {
  test("takes the member and one comma", () => {
    for (const [text, name, rest] of [
      ['{"t":1}', "t", "{}"],
      ['{ "t":1 }', "t", "{  }"],
      ['{"t":1,"a":2}', "t", '{"a":2}'],
      ['{"a":2,"t":1}', "t", '{"a":2}'],
      ['{"a":2 , "t":1 }', "t", '{"a":2  }'],
      ['{"a":1,"t":{"x":","},"b":2}', "t", '{"a":1,"b":2}'],
      ['{"a":",","t":1}', "t", '{"a":","}'],
    ] as const) {
      const member = topLevelMembers(text)!.find((candidate) => candidate.name === name)!;
      expect(cutMember(text, member)).toBe(rest);
    }
  });

  test("leaves the other members in order, with every byte of theirs, and valid JSON", () => {
    const some = fc.tuple(
      objects.filter(({ members }) => members.length > 0),
      fc.nat(),
    );
    fc.assert(
      fc.property(some, ([{ text }, pick]) => {
        const members = topLevelMembers(text)!;
        const rest = cutMember(text, members[pick % members.length]!);
        const textsOf = (from: string) => topLevelMembers(from)!.map(({ start, end }) => from.slice(start, end));
        expect(isJson(encode(rest))).toBe(true);
        expect(textsOf(rest)).toEqual(textsOf(text).toSpliced(pick % members.length, 1));
      }),
      { numRuns: 2000 },
    );
  });
});

test("looking for members comes to an end, whatever the text is", () => {
  const text = fc.stringMatching(/^\{[{}[\]",:\\ a]{0,40}$/);
  fc.assert(fc.property(text, (garbage) => topLevelMembers(garbage) !== null && membersNamed(garbage, "a") !== null));
});

describe("what a text takes when it is parsed", () => {
  const free = 8 * 1024;

  test("is told by its objects, arrays and strings", () => {
    const count = 100_000;
    const objects = `[${"{},".repeat(count)}0]`;
    expect(parsedBytes(objects)).toBe(72 * (count + 1) - objects.length - free);
    expect(parsedBytes(`["${"[{".repeat(count)}"]`)).toBe(0);
    expect(parsedBytes(`[${"1234,".repeat(count)}0]`)).toBe(0);
  });

  test("is less for strings that came before: a name is made once, however often it stands there", () => {
    const count = 2000;
    const same = `[${'"name",'.repeat(count)}"name"]`;
    expect(parsedBytes(same)).toBe(72 + 64 + 16 * count - same.length - free);
    // The parser looks at the ends of long ones.
    const middles = Array.from({ length: 400 }, (_, index) => `${"a".repeat(10)}${index % 10}${"b".repeat(10)}`);
    const alike = JSON.stringify([...middles, "c".repeat(3000)]);
    expect(parsedBytes(alike)).toBe(72 + 64 * 401 - alike.length - free);
    const others = JSON.stringify(Array.from({ length: count }, (_, index) => `${100_000 + index}`));
    expect(parsedBytes(others)).toBe(72 + 64 * count - others.length - free);
  });

  test("counts beyond its first 8 KiB however short the text is, and not at all where that is enough", () => {
    for (const count of [200, 1000, 16_000]) {
      const arrays = `[${"[],".repeat(count)}0]`;
      expect(parsedBytes(arrays)).toBe(72 * (count + 1) - arrays.length - free);
    }
    const messages = Array.from({ length: 60 }, () => ({ role: "user", content: "x".repeat(200) }));
    expect(parsedBytes(JSON.stringify({ model: "m", messages }))).toBe(0);
  });
});
