// Errors of upstreams: one shape for all of theirs, and no key in any.

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  createScrubber,
  errorInSuccess,
  readUpstreamError,
  scrubError,
  scrubValue,
} from "../../src/relay/upstream-error.ts";
import { expectTime } from "../support/figures-in-bounds.ts";

const read = (body: unknown, status = 400) => readUpstreamError(status, JSON.stringify(body), "application/json");
const error = (message: string, type = "upstream_error", param: string | null = null, code: string | null = null) => ({
  message,
  type,
  param,
  code,
});

describe("an error of an upstream", () => {
  test("in the usual shape stays as it is", () => {
    const usual = error("Incorrect API key provided", "invalid_request_error", "key", "invalid_api_key");
    expect(read({ error: usual })).toEqual({ error: usual, numericCode: null });
    expect(read({ error: { ...usual, inner: { a: 1 } }, other: 1 })).toEqual({ error: usual, numericCode: null });
  });

  test("in any other shape takes the usual one", () => {
    for (const [body, expected, numericCode] of [
      [{ error: "model is overloaded" }, error("model is overloaded"), null],
      [{ error: "no", code: 7, type: "t" }, error("no", "t", null, "7"), 7],
      [
        { code: 20012, message: "Model does not exist", data: null },
        error("Model does not exist", undefined, null, "20012"),
        20012,
      ],
      [{ code: "20015", message: "length" }, error("length", undefined, null, "20015"), 20015],
      [{ code: "NoSuchModel", message: "x" }, error("x", undefined, null, "NoSuchModel"), null],
      [{ message: "Not Found" }, error("Not Found"), null],
      [{ error: { message: "m", code: 401 } }, error("m", undefined, null, "401"), 401],
      [{ error: { message: "m", type: null, param: null, code: null } }, error("m"), null],
      [{ error: { message: "m", type: 5, param: ["x"], code: { a: 1 } } }, error("m"), null],
      [
        { object: "error", message: "m", type: "NotFoundError", code: 404 },
        error("m", "NotFoundError", null, "404"),
        404,
      ],
      [{ type: "error", error: { type: "overloaded_error", message: "m" } }, error("m", "overloaded_error"), null],
      [{ type: "error", code: "c", message: "m", param: "p" }, error("m", undefined, "p", "c"), null],
      [[{ error: { code: 400, message: "m", status: "INVALID_ARGUMENT" } }], error("m", undefined, null, "400"), 400],
      [{ detail: "Unauthorized" }, error("Unauthorized"), null],
      [{ code: -1, message: "m" }, error("m", undefined, null, "-1"), null],
      [{ code: 1.5, message: "m" }, error("m", undefined, null, "1.5"), null],
      [{ code: 1e300, message: "m" }, error("m", undefined, null, "1e+300"), null],
      ["Invalid token", error("Invalid token"), null],
    ] as const) {
      expect([body, read(body)]).toEqual([body, { error: expected, numericCode }]);
    }
  });

  test("that is plain text is told in its first 500 characters", () => {
    const plain = (text: string, type: string | null = "text/plain") => readUpstreamError(500, text, type).error;
    expect(plain("  upstream connect error\n")).toEqual(error("upstream connect error"));
    expect(plain("x".repeat(10_000)).message).toBe("x".repeat(500));
    expect(plain(`${"x".repeat(499)}😀`).message).toBe("x".repeat(499));
    expect(plain(`${"x".repeat(498)}😀y`).message).toBe(`${"x".repeat(498)}😀`);
    expect(plain('{"error":{"message":"cut', null)).toEqual(error('{"error":{"message":"cut'));
  });

  test("that is a web page is told in a sentence of our own", () => {
    for (const [text, type] of [
      ["<!DOCTYPE html><html><body>10.0.0.7</body></html>", "text/html"],
      ["\n\n <HTML>10.0.0.7", null],
      ["<?xml version='1.0'?><Error>10.0.0.7</Error>", "application/xml"],
      ["Bad gateway at 10.0.0.7", "Text/HTML; charset=utf-8"],
    ] as const) {
      const { message } = readUpstreamError(502, text, type).error;
      expect([text, message]).toEqual([text, "the upstream answered 502 with a web page"]);
    }
    const json = readUpstreamError(502, '{"error":{"message":"m"}}', "text/html").error;
    expect(json.message).toBe("m");
  });

  test("that says nothing is named by its status", () => {
    for (const text of ["", " \r\n", "{}", "[]", "null", "0", "true", '""']) {
      const { message, type, code } = readUpstreamError(503, text, null).error;
      expect([text, message.startsWith("the upstream answered 503 without"), type, code]).toEqual([
        text,
        true,
        "upstream_error",
        null,
      ]);
    }
  });

  test("in a shape that nobody knows is shown as it is", () => {
    expect(read({ detail: [{ loc: ["body"], msg: "field required" }] }).error.message).toBe(
      '{"detail":[{"loc":["body"],"msg":"field required"}]}',
    );
    expect(readUpstreamError(400, '{"why":"\\u0073\\u006b"}', null).error.message).toBe('{"why":"sk"}');
    expect(read({ error: { reason: "x" } }).error.message).toBe("the upstream reported an error");
  });

  test("has bounds, and no depth or size takes it down", () => {
    const long = "é".repeat(100_000);
    const { error: cut } = read({ error: { message: long, type: long, param: long, code: long } });
    expect([cut.message.length, cut.type.length, cut.param?.length, cut.code?.length]).toEqual([4096, 256, 256, 256]);
    const deep = 200_000;
    for (const text of [
      "[".repeat(deep),
      "[".repeat(deep) + "]".repeat(deep),
      `{"error":${"[".repeat(deep)}${"]".repeat(deep)}}`,
      `${'{"error":'.repeat(deep)}1${"}".repeat(deep)}`,
      `{"message":"${"\\n".repeat(1_000_000)}"}`,
      " ".repeat(4_000_000),
    ]) {
      const start = performance.now();
      expect(readUpstreamError(500, text, null).error.message.length).toBeWithin(1, 4097);
      expectTime("reading", performance.now() - start, 4000);
    }
  });
});

describe("an error in place of a success", () => {
  test("is found", () => {
    for (const value of [
      { error: { message: "m" } },
      { error: "m" },
      { error: { message: "m" }, choices: [] },
      { type: "error", message: "m" },
      { type: "error" },
      { object: "error", message: "m", code: 400 },
      { code: 50505, message: "m", data: null },
      { code: 50505, message: "m", data: ["of what"] },
      { code: 0, message: "m" },
    ]) {
      const message = "message" in value || "error" in value ? "m" : "the upstream reported an error";
      expect([value, errorInSuccess(value)?.error.message]).toEqual([value, message]);
    }
  });

  test("is not taken for one where there is none", () => {
    for (const value of [
      undefined,
      null,
      "error",
      1,
      [],
      [{ error: "m" }],
      {},
      { error: null },
      { error: "" },
      { error: {} },
      { error: false },
      { choices: [{ message: { content: "error" } }] },
      { message: "m" },
      { message: "m", code: null },
      { choices: [], code: 1, message: "m" },
      { code: 0, message: "success", object: "list", data: [{ embedding: [1] }] },
      { code: "200", message: "success", results: [{ flagged: false }] },
      { code: 0, message: "success", object: "response", output: [{ type: "message" }] },
      { type: "response.created", response: { error: null } },
      { object: "list", data: [] },
      { code: 0, message: "" },
    ]) {
      expect([value, errorInSuccess(value)]).toEqual([value, null]);
    }
  });
});

describe("scrubbing", () => {
  const KEY = "Ab0-Cd1_Ef2.Gh3~Ij4+Kl5/Mn6=";

  test("hides a key, and each beginning and end of it of 8 characters or more", () => {
    const scrub = createScrubber([KEY]);
    expect(scrub(`key ${KEY} refused, ${KEY}`)).toBe("key *** refused, ***");
    expect(scrub(KEY)).toBe("***");
    for (let length = 8; length <= KEY.length; length++) {
      expect([length, scrub(`<${KEY.slice(0, length)}>`)]).toEqual([length, "<***>"]);
      expect([length, scrub(`<${KEY.slice(-length)}>`)]).toEqual([length, "<***>"]);
    }
    expect(scrub(`${KEY.slice(0, 10)}****${KEY.slice(-8)}`)).toBe("**********");
    for (const text of [KEY.slice(0, 7), KEY.slice(-7), KEY.slice(1, -1), KEY.toLowerCase(), "", "no key here"]) {
      expect([text, scrub(text)]).toEqual([text, text]);
    }
  });

  test("hides parts of a key that overlap, and keys that hold one another", () => {
    expect(createScrubber(["aaaaaaaaaaaa"])(`x${"a".repeat(30)}y${"a".repeat(7)}z`)).toBe(`x***y${"a".repeat(7)}z`);
    const periodic = createScrubber(["abcabcabcabc"]);
    expect(periodic("abcabcabc-bcabcabc-cabcabca-abcabcabcabcabcabc")).toBe("***-***-cabcabca-***");
    expect(createScrubber(["0123456789", "6789abcdef01"])("<0123456789abcdef01>")).toBe("<***>");
    expect(createScrubber(["0123456789abcdef", "456789ab"])("<0123456789abcdef>")).toBe("<***>");
    expect(createScrubber([KEY, KEY, `${KEY}${KEY}`])(`${KEY}${KEY}${KEY}`)).toBe("***");
  });

  test("hides a key in texts with any other character", () => {
    const scrub = createScrubber([KEY]);
    expect(scrub(`\0${KEY}\0${KEY}é😀`)).toBe("\0***\0***é😀");
    expect(scrub(`$&${KEY}$1`)).toBe("$&***$1");
  });

  test("hides short keys as a whole, and lets those be that are none", () => {
    expect(createScrubber(["sk-aaa"])("bad sk-aaa, sk-aa")).toBe("bad ***, sk-aa");
    expect(createScrubber(["abcd"])("xabcdx abc")).toBe("x***x abc");
    for (const key of ["", "x", "key"]) expect(createScrubber([key])("a key x")).toBe("a key x");
    expect(createScrubber([])("plain")).toBe("plain");
  });

  test("hides a key as JSON writes it, and as JSON in a text of JSON does", () => {
    const key = 'a"b\\c/d"e\\f"g\\h"i\\j"k\\l';
    const scrub = createScrubber([key]);
    const inside = JSON.stringify({ key });
    expect(scrub(`sent ${inside}`)).toBe('sent {"key":"***"}');
    for (const [body, message] of [
      [{ why: key }, '{"why":"***"}'],
      [{ why: `Bearer ${key.slice(0, 8)}` }, '{"why":"Bearer ***"}'],
      [{ why: inside }, '{"why":"{\\"key\\":\\"***\\"}"}'],
      [{ error: inside }, '{"key":"***"}'],
    ] as const) {
      expect(scrubError(read(body).error, scrub).message).toBe(message);
    }
  });

  test("hides a key in whatever way JSON may write its characters", () => {
    const key = "Zm9v/YmFy+cX<V4&bG>lu'ZW/5v==";
    const scrub = createScrubber([key]);
    const slashes = key.replaceAll("/", "\\/");
    const numbered = (text: string) => text.replace(/[+<>&'/]/g, (sign) => `\\u00${sign.charCodeAt(0).toString(16)}`);
    for (const written of [
      slashes,
      numbered(key),
      numbered(key).replaceAll(/u00../g, (code) => `u${code.slice(1).toUpperCase()}`),
      slashes.replaceAll("\\", "\\\\"),
      numbered(key).replaceAll("\\", "\\\\\\\\"),
      numbered(key).replaceAll("\\", "\\u005c"),
      slashes.replace("Z", "\\u005A").replaceAll("=", "\\u003D"),
      slashes.slice(0, 9),
      slashes.slice(-9),
    ]) {
      const quoted = `Bad: {\\"key\\":\\"${written}\\"}\\n`;
      expect([written, scrub(quoted)]).toEqual([written, 'Bad: {\\"key\\":\\"***\\"}\\n']);
    }
    for (const text of ["\\/\\u002f\\u00zz\\", `\\/${key.slice(0, 7)}\\/`, "C:\\Zm9v\\YmFy"]) {
      expect([text, scrub(text)]).toEqual([text, text]);
    }
  });

  test("hides keys that hold backslashes, or look like escapes themselves, as they are and quoted", () => {
    for (const key of ["abcd\\u0041", "\\u0041bcdefgh", "u0041bcdefgh\\", "a\\b\\c\\d\\e\\f", "\\/\\/abcd/\\"]) {
      const scrub = createScrubber([key]);
      const quoted = JSON.stringify(key);
      for (const text of [`<${key}>`, `<${key.slice(0, 8)}>`, `<${quoted}>`, `<${JSON.stringify(quoted)}>`]) {
        expect([text, scrub(text)]).toEqual([text, expect.stringMatching(/^<[\\"]*\*\*\*[\\"]*>$/)]);
      }
    }
  });

  test("hides a key with escapes in an error that breaks off", () => {
    const key = "Zm9v/YmFy+cXV4/bGlu/ZW5v/dGVz";
    const written = key.replaceAll("/", "\\/");
    const body = `{"error":{"message":"Incorrect API key provided: ${written}."},"trace":"xxx`;
    const { message } = scrubError(readUpstreamError(401, body, "application/json").error, createScrubber([key]));
    expect(message).toBe('{"error":{"message":"Incorrect API key provided: ***."},"trace":"xxx');
  });

  test("leaves no 8 characters of a key's beginning or end behind, however deep in JSON it was quoted", () => {
    const key = fc.string({ unit: fc.constantFrom(..."yz01/+<'\""), minLength: 8, maxLength: 14 });
    // Of each layer, the characters that it writes by their number.
    const layers = fc.array(fc.constantFrom("", "/", "+<'", '"', "yz/"), { minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(key, layers, (secret, numbered) => {
        const quote = (text: string, signs: string) =>
          [...text]
            .map((sign) =>
              signs.includes(sign) ? `\\u00${sign.charCodeAt(0).toString(16)}` : sign.replace(/["\\/]/, "\\$&"),
            )
            .join("");
        const text = numbered.reduce(quote, `(${secret})`);
        const scrubbed = createScrubber([secret])(text);
        const read = numbered.reduce((inner) => JSON.parse(`"${inner}"`) as string, scrubbed);
        expect(read).toBe("(***)");
      }),
      { numRuns: 1000 },
    );
  });

  test("hides what looks like anybody's key", () => {
    const scrub = createScrubber([]);
    for (const [text, expected] of [
      ["Incorrect API key provided: sk-proj-abc_DEF-123.", "Incorrect API key provided: ***."],
      ["sk-12345", "***"],
      ["sk-1234", "sk-1234"],
      ["(sk-abcdefgh)", "(***)"],
      ["a sk-aaaaa b sk-bbbbb", "a *** b ***"],
      ["sk-abcde*****wxyz", "********wxyz"],
      ["key=sk-or-v1-0123456789abcdef", "key=***"],
      ["_sk-abcdefgh", "_***"],
      ["\\nsk-abcdefgH1", "\\n***"],
      ["Bearersk-0a1b2c3d", "Bearer***"],
      ["the task-manager and a risk-averse disk-usage", "the task-manager and a risk-averse disk-usage"],
      ["SK-ABCDEFGH", "SK-ABCDEFGH"],
    ] as const) {
      expect([text, scrub(text)]).toEqual([text, expected]);
    }
  });

  test("leaves no 8 characters of a key's beginning or end behind, whatever the text", () => {
    // Of few characters, so that parts of it come up in the text again and again.
    const few = fc.string({ unit: fc.constantFrom("a", "b"), minLength: 8, maxLength: 14 });
    const text = fc.array(fc.oneof(fc.string({ unit: fc.constantFrom("a", "b") }), fc.constant("-")), {
      maxLength: 12,
    });
    fc.assert(
      fc.property(few, text, fc.nat(), (key, pieces, at) => {
        const joined = pieces.toSpliced(at % (pieces.length + 1), 0, key).join("");
        const scrubbed = createScrubber([key])(joined);
        expect(scrubbed).not.toContain(key.slice(0, 8));
        expect(scrubbed).not.toContain(key.slice(-8));
        expect(scrubbed).toContain("***");
        // What is left stood there before, in this order.
        let from = 0;
        for (const piece of scrubbed.split("***")) {
          const found = joined.indexOf(piece, from);
          expect(found).toBeGreaterThanOrEqual(from);
          from = found + piece.length;
        }
      }),
      { numRuns: 1000 },
    );
  });

  test("takes time in proportion to the text, whatever stands in it", () => {
    const periodic = "a".repeat(4096);
    const almost = `${"a".repeat(4095)}b`;
    const keys = [periodic, almost, `${"ab".repeat(2048)}`, KEY];
    const scrub = createScrubber(keys);
    const escapes = ["\\", "\\a", "\\u0061", "\\u005c", "u005c"];
    const plain = ["a", "ab", "aab", "sk-", "sk-a", "sk-A1", "-", `${"a".repeat(4094)}c`, KEY.slice(0, 8), KEY];
    for (const unit of [...plain, ...escapes]) {
      const text = unit.repeat(1_000_000 / unit.length);
      const start = performance.now();
      scrub(text);
      // Squared, or times the length of a key, it would take minutes.
      expectTime(`reading ${unit.slice(0, 9)}`, performance.now() - start, 4000);
    }
  });

  test("covers every text of an error and of a value", () => {
    const scrub = createScrubber([KEY]);
    expect(scrubError(error(KEY, KEY, KEY, KEY), scrub)).toEqual(error("***", "***", "***", "***"));
    expect(scrubError(error("m"), scrub)).toEqual(error("m"));
    const value = { [KEY]: [KEY, { a: KEY, b: 1, c: null, d: true }], e: `x${KEY}` };
    expect(scrubValue(value, scrub)).toEqual({ "***": ["***", { a: "***", b: 1, c: null, d: true }], e: "x***" });
    expect(JSON.stringify(scrubValue(JSON.parse(`{"__proto__":"${KEY}"}`), scrub))).toBe('{"__proto__":"***"}');
    const deep = JSON.parse("[".repeat(100_000) + "]".repeat(100_000));
    expect(JSON.stringify(scrubValue(deep, scrub))).toBe(`${"[".repeat(64)}null${"]".repeat(64)}`);
  });
});
