// What a request to a model may look like, what is refused of it, and what of it reaches an upstream.

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { ENDPOINTS, type Endpoint } from "../../src/relay/relay-endpoints.ts";
import { RelayError } from "../../src/relay/relay-errors.ts";
import { decodeRelayBody, forwardedBody, parseRelayRequest } from "../../src/relay/relay-request.ts";
import { expectTime } from "../support/figures-in-bounds.ts";

const { chat, completions, embeddings, moderations, responses } = ENDPOINTS;
const MESSAGES = [{ role: "user", content: "hi" }];

/** A chat request with more members. */
const chatText = (members: object = {}) => JSON.stringify({ model: "m", messages: MESSAGES, ...members });
const parseChat = (members: object = {}) => parseRelayRequest(chat, chatText(members));

/** The code of the refusal and the member it is about, or null when there is none. */
function refusal(act: () => unknown): string | null {
  try {
    act();
    return null;
  } catch (error) {
    if (!(error instanceof RelayError)) throw error;
    expect(error.status).toBe(400);
    expect(error.message.length).toBeLessThan(200);
    return `${error.code} ${error.param}`;
  }
}

const refusalOfText = (endpoint: Endpoint, text: string) => refusal(() => parseRelayRequest(endpoint, text));
const refusalOf = (endpoint: Endpoint, body: unknown) => refusalOfText(endpoint, JSON.stringify(body));
const refusalOfChat = (members: object) => refusalOfText(chat, chatText(members));

describe("the bytes of a body", () => {
  const encode = (text: string) => new TextEncoder().encode(text);

  test("are text in UTF-8, kept as it is", () => {
    for (const text of ["{}", ' {"a":"é😀\\ud800"}\n', "", "no json"]) expect(decodeRelayBody(encode(text))).toBe(text);
  });

  test("are refused when they are no UTF-8", () => {
    for (const bytes of [
      [0xff],
      [0x22, 0xc3, 0x22],
      [0xed, 0xa0, 0x80],
      [0xc0, 0xaf],
      [0xef, 0xbb, 0xbf, 0x7b, 0x7d],
    ]) {
      expect([bytes, refusal(() => decodeRelayBody(Uint8Array.from(bytes)))]).toEqual([bytes, "invalid_json null"]);
    }
  });

  test("are refused when they are nested deeper than a parser should go", () => {
    const nested = (depth: number) => encode("[".repeat(depth) + "]".repeat(depth));
    expect(refusal(() => decodeRelayBody(nested(512)))).toBeNull();
    for (const depth of [513, 100_000]) {
      expect(refusal(() => decodeRelayBody(nested(depth)))).toBe("invalid_json null");
      expect(refusal(() => decodeRelayBody(nested(depth).subarray(0, depth)))).toBe("invalid_json null");
    }
    expect(refusal(() => decodeRelayBody(encode(`{"a":`.repeat(100_000))))).toBe("invalid_json null");
    expect(refusal(() => decodeRelayBody(encode(JSON.stringify("[".repeat(100_000)))))).toBeNull();
  });
});

describe("a body", () => {
  test("that is no JSON object is refused", () => {
    for (const text of [
      "",
      " ",
      "{",
      '{"model":"m"',
      "[]",
      '[{"model":"m"}]',
      "null",
      "true",
      "1",
      '"text"',
      "{} {}",
      "{a:1}",
      '{"model":"m",}',
      '{"model":"m"}x',
      "{'model':'m'}",
      '{"model":"\n"}',
      '{"n":01}',
      '{"n":+1}',
      '{"n":.5}',
      '{"n":NaN}',
      '{"n":Infinity}',
      '{"n":0x10}',
      '{"n":1e}',
      "\ufeff{}",
      '{"a":1}/**/',
      '{"a":"\\x"}',
    ]) {
      expect([text, refusalOfText(chat, text)]).toEqual([text, "invalid_json null"]);
    }
  });

  test("is read as its parser reads it: of a member that comes twice the last one counts, here and upstream", () => {
    const text = '{"model":"a","messages":[1],"model":"b","messages":[2],"\\u006dodel":"c"}';
    const request = parseRelayRequest(chat, text);
    expect([request.model, request.names]).toEqual(["c", ["c"]]);
    const forwarded = forwardedBody(request, chat, request.model, false);
    expect(forwarded).toBe('{"model":"c","messages":[2]}');
  });

  test("needs what its model is to work on", () => {
    for (const [endpoint, member] of [
      [chat, "messages"],
      [completions, "prompt"],
      [embeddings, "input"],
      [moderations, "input"],
      [responses, "input"],
    ] as const) {
      const missing = `missing_required_parameter ${member}`;
      expect(refusalOf(endpoint, { model: "m" })).toBe(missing);
      expect(refusalOf(endpoint, { model: "m", [member]: null })).toBe(missing);
      for (const value of [0, 1, true, false]) {
        expect(refusalOf(endpoint, { model: "m", [member]: value })).toBe(`invalid_value ${member}`);
      }
      expect(refusalOf(endpoint, { model: "m", [member]: ["a"] })).toBeNull();
    }
    for (const messages of [[], {}, "hi", ""]) expect(refusalOfChat({ messages })).toBe("invalid_value messages");
    for (const endpoint of [embeddings, moderations, responses]) {
      expect(refusalOf(endpoint, { model: "m", input: "text" })).toBeNull();
    }
  });
});

describe("the model", () => {
  test("is needed", () => {
    for (const endpoint of [chat, completions, embeddings, responses]) {
      const body = { [endpoint.input]: ["x"] };
      expect(refusalOf(endpoint, body)).toBe("missing_required_parameter model");
      expect(refusalOf(endpoint, { ...body, model: null })).toBe("missing_required_parameter model");
      expect(refusalOf(endpoint, { ...body, models: ["m"] })).toBe("missing_required_parameter model");
    }
  });

  test("is a name of characters that can be printed", () => {
    for (const model of ["gpt-4o", "Qwen/Qwen3-8B", "a:b@c", "模型", "😀", " ", "__proto__", "x".repeat(256)]) {
      expect([model, parseChat({ model }).model]).toEqual([model, model]);
    }
    for (const model of ["", "x".repeat(257), "a\nb", "a\0", "\x7f", "\x85", "a\ud800", 1, true, {}, ["m"]]) {
      expect([model, refusalOfChat({ model })]).toEqual([model, "invalid_value model"]);
      expect([model, refusalOfChat({ models: ["a", model] })]).toEqual([model, "invalid_value models"]);
    }
  });

  test("may have fallbacks, five names in all, each counted once", () => {
    expect(parseChat().names).toEqual(["m"]);
    expect(parseChat({ models: [] }).names).toEqual(["m"]);
    expect(parseChat({ models: null }).names).toEqual(["m"]);
    expect(parseChat({ models: ["b", "m", "b", "a"] }).names).toEqual(["m", "b", "a"]);
    expect(parseChat({ models: ["1", "2", "3", "4", "m", "4"] }).names).toEqual(["m", "1", "2", "3", "4"]);
    expect(refusalOfChat({ models: ["1", "2", "3", "4", "5"] })).toBe("invalid_value models");
    for (const models of ["a,b", 1, {}, [null], [["a"]]]) {
      expect([models, refusalOfChat({ models })]).toEqual([models, "invalid_value models"]);
    }
  });

  test("of a moderation may be left to the upstream", () => {
    for (const body of [{ input: "x" }, { input: "x", model: null }, { input: "x", models: null }]) {
      const request = parseRelayRequest(moderations, JSON.stringify(body));
      expect(request.names).toEqual(["omni-moderation-latest"]);
      const forwarded = JSON.parse(forwardedBody(request, moderations, "mapped", false));
      expect(forwarded).toEqual("model" in body ? { input: "x", model: null } : { input: "x" });
    }
    expect(refusalOf(moderations, { input: "x", models: ["b"] })).toBe("missing_required_parameter model");
    const named = parseRelayRequest(moderations, '{"input":"x","model":"m"}');
    expect(forwardedBody(named, moderations, "mapped", false)).toBe('{"input":"x","model":"mapped"}');
  });
});

describe("a number", () => {
  const withNumber = (number: string) => `{"model":"m","messages":[{"x":[{"y":${number}}]}],"z":0}`;

  test("that is exact passes, wherever it stands", () => {
    for (const number of [
      "0",
      "-0",
      "1",
      "-1",
      "0.1",
      "1e5",
      "1E+15",
      "9e15",
      "-9e15",
      "1e-400",
      "1e-7",
      "0.1e16",
      "9007199254740991",
      "9007199254740992",
      "-9007199254740992",
      "1234567890123456.5",
      "999999999999999.9",
      `0.${"1".repeat(10_000)}`,
      `1${"0".repeat(14)}.0`,
      "0e9999",
      "0.0000000000000000000000001",
    ]) {
      expect([number, refusalOfText(chat, withNumber(number))]).toEqual([number, null]);
    }
  });

  test("that would be changed by reading it is refused, and the member is named", () => {
    for (const number of [
      "9007199254740993",
      "-9007199254740993",
      "9007199254740994",
      "9999999999999999",
      "10000000000000000",
      "18446744073709551615",
      "1e16",
      "-1e16",
      "1e400",
      "-1e400",
      "1E400",
      "1.5e+400",
      "0.1e500",
      "1e20",
      "9007199254740993.0",
      "9007199254740993e0",
      "90071992547409930e-1",
      "9".repeat(400),
      `1${"0".repeat(10_000)}`,
    ]) {
      expect([number, refusalOfText(chat, withNumber(number))]).toEqual([number, "invalid_value messages"]);
      const second = `{"seed":${number},"model":"m","messages":[1]}`;
      expect([number, refusalOfText(chat, second)]).toEqual([number, "invalid_value seed"]);
      const spaced = `{ "a" : [ 1 , "${number}" , ${number} ] , "model" : "m" , "messages" : [ 1 ] }`;
      expect([number, refusalOfText(chat, spaced)]).toEqual([number, "invalid_value a"]);
    }
  });

  test("in a text is text", () => {
    for (const content of [
      "1e400",
      "9007199254740993",
      '"9007199254740993',
      "\\",
      '\\"1e400',
      '\\\\"1e400,',
      "\\".repeat(9),
    ]) {
      const members = { messages: [{ role: "user", content }], [content]: content };
      expect([content, refusalOfChat(members)]).toEqual([content, null]);
      expect(parseChat(members).body.messages).toEqual(members.messages);
    }
  });

  test("is found behind texts of every kind", () => {
    fc.assert(
      fc.property(
        fc.array(fc.oneof(fc.string(), fc.constantFrom("\\", '"', '\\"', "1e400")), { maxLength: 8 }),
        (texts) => {
          const exact = JSON.stringify({ model: "m", messages: texts.length > 0 ? texts : ["x"] });
          expect(refusalOfText(chat, exact)).toBeNull();
          expect(refusalOfText(chat, `${exact.slice(0, -1)},"last":9007199254740993}`)).toBe("invalid_value last");
        },
      ),
      { numRuns: 500 },
    );
  });

  test("in a member with a name too long to be repeated is refused without it", () => {
    expect(refusalOfText(chat, `{"${"x".repeat(257)}":1e400,"model":"m","messages":[1]}`)).toBe("invalid_value null");
  });
});

describe("how many answers and tokens are asked for", () => {
  test("is bounded", () => {
    for (const [member, max] of [
      ["n", 128],
      ["max_tokens", 1_000_000],
      ["max_completion_tokens", 1_000_000],
      ["max_output_tokens", 1_000_000],
    ] as const) {
      for (const value of [1, 2, max, null])
        expect([member, value, refusalOfChat({ [member]: value })]).toEqual([member, value, null]);
      for (const value of [0, -1, 1.5, max + 1, 2 ** 53, "1", true, [1], {}]) {
        expect([member, value, refusalOfChat({ [member]: value })]).toEqual([member, value, `invalid_value ${member}`]);
      }
    }
  });

  test("is the largest of several bounds, one answer when nothing is said", () => {
    expect(parseChat()).toMatchObject({ maxTokens: null, choices: 1 });
    expect(parseChat({ max_tokens: null, n: null })).toMatchObject({ maxTokens: null, choices: 1 });
    expect(parseChat({ max_tokens: 5, n: 3 })).toMatchObject({ maxTokens: 5, choices: 3 });
    expect(parseChat({ max_tokens: 5, max_completion_tokens: 7 }).maxTokens).toBe(7);
    expect(parseRelayRequest(responses, '{"model":"m","input":"x","max_output_tokens":9}').maxTokens).toBe(9);
  });

  test("is what the endpoint is told in its own words: bounds of another one bound nothing", () => {
    const own = { chat: ["max_tokens", "max_completion_tokens"], completions: ["max_tokens"] } as const;
    for (const endpoint of [chat, completions, responses]) {
      const counted = endpoint.name === "responses" ? ["max_output_tokens"] : own[endpoint.name];
      for (const member of ["max_tokens", "max_completion_tokens", "max_output_tokens"]) {
        const body = { model: "m", [endpoint.input]: ["x"], [member]: 1 };
        const { maxTokens } = parseRelayRequest(endpoint, JSON.stringify(body));
        const expected = (counted as readonly string[]).includes(member) ? 1 : null;
        expect([endpoint.name, member, maxTokens]).toEqual([endpoint.name, member, expected]);
      }
    }
  });

  test("grows with each prompt of a completion, and with the answers of which the best are kept", () => {
    const choices = (members: object) =>
      parseRelayRequest(completions, JSON.stringify({ model: "m", prompt: "x", ...members })).choices;
    expect([choices({ best_of: 20 }), choices({ n: 30, best_of: 20 }), choices({ best_of: null })]).toEqual([
      20, 30, 1,
    ]);
    for (const [prompt, prompts] of [
      [["a", "b", "c"], 3],
      [[1, 2, 3], 1],
      [[[1, 2], [3]], 2],
      [["a", [1], 2], 2],
      [[], 1],
      [{ any: "thing" }, 1],
    ] as const) {
      expect([prompt, choices({ prompt }), choices({ prompt, n: 2, best_of: 5 })]).toEqual([
        prompt,
        prompts,
        5 * prompts,
      ]);
    }
    for (const best_of of [0, 129, 1.5, "2"]) {
      const refused = refusalOf(completions, { model: "m", prompt: "x", best_of });
      expect([best_of, refused]).toEqual([best_of, "invalid_value best_of"]);
    }
    // Elsewhere a member of this name is none of ours.
    expect(parseChat({ best_of: 20 }).choices).toBe(1);
    expect(parseChat({ best_of: "x" }).choices).toBe(1);
  });
});

describe("a stream", () => {
  test("is one only where there are streams", () => {
    for (const endpoint of [chat, completions, responses]) {
      const body = { model: "m", [endpoint.input]: ["x"] };
      const isStream = (stream: unknown) => parseRelayRequest(endpoint, JSON.stringify({ ...body, stream })).isStream;
      expect([isStream(true), isStream(false), isStream(null), isStream(undefined)]).toEqual([
        true,
        false,
        false,
        false,
      ]);
      for (const stream of ["true", 1, 0, {}, []]) {
        expect([stream, refusalOf(endpoint, { ...body, stream })]).toEqual([stream, "invalid_value stream"]);
      }
    }
    for (const endpoint of [embeddings, moderations]) {
      expect(parseRelayRequest(endpoint, '{"model":"m","input":"x","stream":true}').isStream).toBe(false);
    }
  });

  test("ends with its usage when the client asks for it", () => {
    const wants = (members: object) => parseChat(members).wantsUsage;
    expect(wants({ stream: true, stream_options: { include_usage: true } })).toBe(true);
    for (const options of [{}, null, { include_usage: false }, { include_usage: null }, { other: true }]) {
      expect([options, wants({ stream: true, stream_options: options })]).toEqual([options, false]);
    }
    expect(wants({ stream: false, stream_options: { include_usage: true } })).toBe(false);
    const responsesText = '{"model":"m","input":"x","stream":true,"stream_options":{"include_usage":true}}';
    expect(parseRelayRequest(responses, responsesText).wantsUsage).toBe(false);
  });

  test("has options that are an object", () => {
    for (const options of ["x", 1, true, []]) {
      const members = { stream: true, stream_options: options };
      expect([options, refusalOfChat(members)]).toEqual([options, "invalid_value stream_options"]);
    }
    for (const asked of ["true", 1, 0, {}, []]) {
      const members = { stream: true, stream_options: { include_usage: asked } };
      expect([asked, refusalOfChat(members)]).toEqual([asked, "invalid_value stream_options.include_usage"]);
    }
  });
});

test("a response may follow another one, be made in the background, and be kept unless the client says no", () => {
  const parse = (members: object) =>
    parseRelayRequest(responses, JSON.stringify({ model: "m", input: "x", ...members }));
  expect(parse({})).toMatchObject({ previousResponseId: null, isStored: true });
  expect(parse({ previous_response_id: null, store: null })).toMatchObject({
    previousResponseId: null,
    isStored: true,
  });
  expect(parse({ previous_response_id: "resp_1", store: true })).toMatchObject({ previousResponseId: "resp_1" });
  expect(parse({ store: false }).isStored).toBe(false);
  expect([{}, { background: false }, { background: true }].map((body) => parse(body).isBackground)).toEqual([
    false,
    false,
    true,
  ]);
  for (const id of ["", 1, {}, "x".repeat(513)]) {
    expect([id, refusal(() => parse({ previous_response_id: id }))]).toEqual([
      id,
      "invalid_value previous_response_id",
    ]);
  }
  expect(refusal(() => parse({ store: "no" }))).toBe("invalid_value store");
  expect(refusal(() => parse({ background: "true" }))).toBe("invalid_value background");
  expect(parseChat({ previous_response_id: "resp_1", store: true })).toMatchObject({
    previousResponseId: null,
    isStored: false,
  });
});

describe("the forwarded body", () => {
  const forward = (members: object, takesOptions = false, model = "mapped") =>
    JSON.parse(forwardedBody(parseChat(members), chat, model, takesOptions));

  test("has another model and no fallbacks, and all else as it was, known or not", () => {
    const unknown = { temperature: 0.7, x_new: { deep: [1, { y: null }], "": "" }, metadata: { a: "b" }, seed: -5 };
    expect(forward({ ...unknown, models: ["b"] })).toEqual({ model: "mapped", messages: MESSAGES, ...unknown });
    expect(forward({ models: null })).not.toHaveProperty("models");
  });

  test("keeps the order of the members", () => {
    const text = '{"z":1,"model":"m","a":[],"models":["b"],"messages":[1],"b":{}}';
    const forwarded = forwardedBody(parseRelayRequest(chat, text), chat, "m", false);
    expect(forwarded).toBe('{"z":1,"model":"m","a":[],"messages":[1],"b":{}}');
  });

  test("asks for the usage of a stream, in place of what the client said of it", () => {
    for (const options of [undefined, null, {}, { include_usage: false }, { include_usage: true }]) {
      const forwarded = forward({ stream: true, stream_options: options }, true);
      expect(forwarded.stream_options).toEqual({ include_usage: true });
    }
    const kept = forward({ stream: true, stream_options: { other: 1, include_usage: false } }, true).stream_options;
    expect(kept).toEqual({ other: 1, include_usage: true });
  });

  test("has no options of a stream for an upstream that does not know them, whatever the client said", () => {
    expect(forward({ stream: true }, false)).not.toHaveProperty("stream_options");
    const options = { include_usage: true };
    expect(forward({ stream: true, stream_options: options }, false)).not.toHaveProperty("stream_options");
  });

  test("leaves the options alone where there is no stream, and where they mean nothing to us", () => {
    expect(forward({ stream: false }, true)).not.toHaveProperty("stream_options");
    const options = { include_usage: false };
    expect(forward({ stream: false, stream_options: options }, true).stream_options).toEqual(options);
    const response = parseRelayRequest(responses, '{"model":"m","input":"x","stream":true}');
    expect(forwardedBody(response, responses, "m", true)).toBe('{"model":"m","input":"x","stream":true}');
  });

  test("can be made again with another model: the request stays as it was", () => {
    const request = parseChat({ models: ["b"], stream: true, stream_options: { other: 1 } });
    const before = structuredClone(request.body);
    const bodies = ["a", "b", "a"].map((model) => forwardedBody(request, chat, model, true));
    expect(bodies[0]).toBe(bodies[2]!);
    expect(bodies[0]).not.toBe(bodies[1]!);
    expect(request.body).toEqual(before);
  });

  test("holds members with the names of built-in ones as plain data", () => {
    const text =
      '{"__proto__":{"model":"evil","stream":true},"constructor":1,"toJSON":"x","hasOwnProperty":null,' +
      '"model":"m","messages":[{"__proto__":{"role":"x"},"toString":1}]}';
    const request = parseRelayRequest(chat, text);
    expect([request.model, request.isStream]).toEqual(["m", false]);
    expect(forwardedBody(request, chat, "m", true)).toBe(text);
    const hidden = '{"__proto__":{"model":"m"},"messages":[1]}';
    expect(refusalOfText(chat, hidden)).toBe("missing_required_parameter model");
  });

  test("says the same as the body of the client, whatever stands in it", () => {
    const json = fc.jsonValue({ maxDepth: 4 });
    fc.assert(
      fc.property(fc.dictionary(fc.string({ maxLength: 8 }), json), json, (members, message) => {
        const text = JSON.stringify({ ...members, messages: [message], model: "m", stream: null, n: 1 });
        if (refusalOfText(chat, text) !== null) return;
        const { models: _, ...expected } = JSON.parse(text);
        expect(JSON.parse(forwardedBody(parseRelayRequest(chat, text), chat, "m", false))).toEqual(expected);
      }),
      { numRuns: 500 },
    );
  });
});

test("reading takes time in proportion to the length, whatever the body is made of", () => {
  const large = 4_000_000;
  const fill = (unit: string) => unit.repeat(large / unit.length);
  const bodies = {
    text: JSON.stringify({ model: "m", messages: [fill("lorem ipsum \n")] }),
    quotes: JSON.stringify({ model: "m", messages: [fill('"')] }),
    backslashes: JSON.stringify({ model: "m", messages: [fill("\\")] }),
    "empty texts": `{"model":"m","messages":[${fill('"",')}""]}`,
    numbers: `{"model":"m","messages":[${fill("1234,")}0]}`,
    "long fractions": `{"model":"m","messages":[${fill("0.12345678901234567,")}0]}`,
    "one number": `{"model":"m","messages":[0.${fill("1")}]}`,
    exponents: `{"model":"m","messages":[${fill("1e1,")}0]}`,
    "members of one name": `{"model":"m","messages":[1]${fill(',"a":1')}}`,
    fallbacks: `{"model":"m","messages":[1],"models":[${fill('"b",')}"b"]}`,
  };
  for (const [name, text] of Object.entries(bodies)) {
    const start = performance.now();
    expect([name, refusalOfText(chat, text)]).toEqual([name, null]);
    // Squared, each of them would take hours.
    expectTime(name, performance.now() - start, 3000);
  }
});
