// Every refusal of the relay on the wire: status, type, code, param and headers, and that no upstream was asked for it.

import { describe, expect, test } from "bun:test";
import { SMALL_STEP_BYTES } from "../../src/shared/bounds.ts";
import { eventually } from "../support/eventually.ts";
import type { Plan } from "../support/fault-upstream.ts";
import { freePort } from "../support/free-port.ts";
import { openRaw, sendRaw } from "../support/raw-request.ts";
import { metricOf } from "../support/relay-books.ts";
import { ask, chat, expectRelayError, type Json, makeToken, RELAY_ENV, relayErrorOf } from "../support/relay-client.ts";
import { RelayRig } from "../support/relay-rig.ts";
import type { OpenTarget, Target } from "../support/targets.ts";
import {
  afterwards,
  answerJson,
  answerNormally,
  answerText,
  answerWith,
  chatChunk,
  cutAnswer,
  DONE,
  event,
  rateLimit,
  redirectTo,
  refuse,
  resetAtOnce,
  stayStill,
  stream,
  wrongKey,
} from "../support/upstream-plans.ts";
import { useTarget } from "../support/use-target.ts";

const WAIT_MS_MAX = 5_000;
const BODY_MAX = 65_536;
const CHAT = "/chat/completions";
const MESSAGES = [{ role: "user", content: "hi" }];
const ENV = { ...RELAY_ENV, RELAY_BODY_MAX: `${BODY_MAX}`, RELAY_RESPONSE_MAX: "65536" };

export function relayErrorsSuite(name: string, open: OpenTarget): void {
  describe(`refusals of the relay on ${name}`, () => {
    const target = useTarget(open, ENV);
    tokenTests(target);
    bodyTests(target);
    numberTests(target);
    limitTests(target);
    shortageTests(target);
    upstreamTests(target);
    oddErrorTests(target);
  });
  describe(`too many relayed requests at once on ${name}`, () => {
    overloadTests(useTarget(open, { ...ENV, RELAY_MAX_INFLIGHT: "2" }));
  });
}

function tokenTests(target: () => Target): void {
  test("without a good token nothing is looked at, whatever the path: 401 with a challenge", async () => {
    await using rig = await RelayRig.open(target());
    const wrong: readonly (readonly [string | null, "missing_api_key" | "invalid_api_key"])[] = [
      [null, "missing_api_key"],
      ["Bearer sk-fake-token", "invalid_api_key"],
      ["Bearer", "invalid_api_key"],
      ["Bearer ", "invalid_api_key"],
      ["Basic c2stZmFrZTp0b2tlbg==", "invalid_api_key"],
      [`Basic ${rig.token.key}`, "invalid_api_key"],
      [`Bearer ${rig.token.key} x`, "invalid_api_key"],
      [`Bearer ${rig.token.key}x`, "invalid_api_key"],
      [`Bearer Bearer ${rig.token.key}`, "invalid_api_key"],
      [rig.token.key, "invalid_api_key"],
    ];
    for (const [authorization, code] of wrong) {
      for (const [method, path] of [
        ["POST", CHAT],
        ["GET", "/models"],
        ["GET", "/nothing"],
        ["DELETE", CHAT],
      ] as const) {
        const body = method === "POST" ? { body: "not even JSON" } : {};
        const answer = await ask(target(), null, path, undefined, {
          method,
          headers: { Authorization: authorization },
          ...body,
        });
        await expectRelayError(answer, 401, "invalid_request_error", code);
        expect(answer.headers.get("www-authenticate")).toBe("Bearer");
      }
    }
    expect(rig.calls).toEqual([0]);
  });

  test("two Authorization headers are none, also when both are good", async () => {
    await using rig = await RelayRig.open(target());
    const header = `Authorization: Bearer ${rig.token.key}\r\n`;
    const body = JSON.stringify({ model: "a", messages: MESSAGES });
    const rest = `Host: x\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
    const twice = await sendRaw(target().url, `POST /v1${CHAT} HTTP/1.1\r\n${header}${header}${rest}`);
    expect([twice.statuses, twice.text.includes('"code":"invalid_api_key"')]).toEqual([[401], true]);
    expect((await sendRaw(target().url, `POST /v1${CHAT} HTTP/1.1\r\n${header}${rest}`)).statuses).toEqual([200]);
    expect(rig.calls).toEqual([1]);
  });

  test("a token that is disabled or has expired says so", async () => {
    await using rig = await RelayRig.open(target());
    const { group } = rig;
    for (const [fields, code] of [
      [{ status: 0 }, "token_disabled"],
      [{ status: 2 }, "token_disabled"],
      [{ expired_time: Math.floor(Date.now() / 1000) - 1 }, "token_expired"],
    ] as const) {
      const { key } = await makeToken(target(), { group, ...fields });
      const answer = await chat(target(), key);
      await expectRelayError(answer, 401, "invalid_request_error", code);
      expect(answer.headers.get("www-authenticate")).toBe("Bearer");
    }
    expect(rig.calls).toEqual([0]);
  });

  test("a token that may not be used from here, or not for this model: 403", async () => {
    await using rig = await RelayRig.open(target());
    const { group } = rig;
    const elsewhere = await makeToken(target(), { group, allow_ips: ["10.9.8.0/24", "2001:db8::1"] });
    await expectRelayError(await chat(target(), elsewhere.key), 403, "permission_error", "ip_not_allowed");
    const narrow = await makeToken(target(), { group, models: ["a", "b"] });
    for (const fields of [{ model: "c" }, { model: "a", models: ["b", "c"] }, { model: "A" }]) {
      const answer = await chat(target(), narrow.key, fields);
      await expectRelayError(answer, 403, "permission_error", "model_not_allowed", "model");
    }
    expect(rig.calls).toEqual([0]);
    expect((await chat(target(), narrow.key, { model: "a", models: ["b"] })).status).toBe(200);
  });

  test("other paths are 404, other methods 405 with what is allowed", async () => {
    await using rig = await RelayRig.open(target());
    const { key } = rig.token;
    for (const path of [
      "/",
      "/nothing",
      "/chat",
      "/chat/completions/x",
      "/images/generations",
      "/responses/",
      "/models/",
    ]) {
      await expectRelayError(await ask(target(), key, path, {}), 404, "invalid_request_error", "unknown_url");
    }
    for (const [method, path, allow] of [
      ["GET", CHAT, "POST, OPTIONS"],
      ["PUT", "/embeddings", "POST, OPTIONS"],
      ["DELETE", "/models", "GET, HEAD, OPTIONS"],
      ["POST", "/models/a/b", "GET, HEAD, OPTIONS"],
      ["POST", "/usage", "GET, HEAD, OPTIONS"],
      ["GET", "/responses", "POST, OPTIONS"],
      ["POST", "/responses/resp_1", "GET, DELETE, HEAD, OPTIONS"],
    ] as const) {
      const answer = await ask(target(), key, path, undefined, { method });
      await expectRelayError(answer, 405, "invalid_request_error", "method_not_allowed");
      expect([path, answer.headers.get("allow")]).toEqual([path, allow]);
      const options = await ask(target(), key, path, undefined, { method: "OPTIONS" });
      expect([path, options.status, options.headers.get("allow")]).toEqual([path, 204, allow]);
      expect([path, options.headers.get("x-gokv-attempts")]).toEqual([path, "0"]);
      expect([path, options.headers.has("x-gokv-overhead-ms")]).toEqual([path, true]);
    }
  });
}

type BadBody = readonly [
  path: string,
  body: unknown,
  code: "invalid_value" | "missing_required_parameter",
  param: string,
];
const MISSING = "missing_required_parameter";
const INVALID = "invalid_value";
const BAD_BODIES: readonly BadBody[] = [
  [CHAT, { messages: MESSAGES }, MISSING, "model"],
  [CHAT, { model: "", messages: MESSAGES }, INVALID, "model"],
  [CHAT, { model: 7, messages: MESSAGES }, INVALID, "model"],
  [CHAT, { model: "a".repeat(257), messages: MESSAGES }, INVALID, "model"],
  [CHAT, { model: "a\nb", messages: MESSAGES }, INVALID, "model"],
  [CHAT, { model: "a" }, MISSING, "messages"],
  [CHAT, { model: "a", messages: [] }, INVALID, "messages"],
  [CHAT, { model: "a", messages: "hi" }, INVALID, "messages"],
  [CHAT, { model: "a", messages: MESSAGES, stream: "yes" }, INVALID, "stream"],
  [CHAT, { model: "a", messages: MESSAGES, n: 0 }, INVALID, "n"],
  [CHAT, { model: "a", messages: MESSAGES, n: 129 }, INVALID, "n"],
  [CHAT, { model: "a", messages: MESSAGES, max_tokens: 1_000_001 }, INVALID, "max_tokens"],
  [CHAT, { model: "a", messages: MESSAGES, max_completion_tokens: -1 }, INVALID, "max_completion_tokens"],
  [CHAT, { model: "a", messages: MESSAGES, max_tokens: 1.5 }, INVALID, "max_tokens"],
  [CHAT, { model: "a", messages: MESSAGES, models: "b" }, INVALID, "models"],
  [CHAT, { model: "a", messages: MESSAGES, models: ["b", "c", "d", "e", "f"] }, INVALID, "models"],
  [CHAT, { model: "a", messages: MESSAGES, stream: true, stream_options: 1 }, INVALID, "stream_options"],
  ["/completions", { model: "a" }, MISSING, "prompt"],
  ["/embeddings", { model: "a" }, MISSING, "input"],
  ["/embeddings", { input: "x" }, MISSING, "model"],
  ["/moderations", {}, MISSING, "input"],
  ["/responses", { model: "a", input: "x", max_output_tokens: 0 }, INVALID, "max_output_tokens"],
  ["/responses", { model: "a", input: "x", previous_response_id: 1 }, INVALID, "previous_response_id"],
];

function bodyTests(target: () => Target): void {
  test("a missing or bad field is named", async () => {
    await using rig = await RelayRig.open(target());
    for (const [path, body, code, param] of BAD_BODIES) {
      const answer = await rig.post(path, body);
      const error = await expectRelayError(answer, 400, "invalid_request_error", code, param);
      expect(error.message).toContain(param);
    }
    expect(rig.calls).toEqual([0]);
  });

  test("what is not one JSON object is 400, and never more than that", async () => {
    await using rig = await RelayRig.open(target());
    const nested = `{"model":"a","messages":${"[".repeat(30_000)}${"]".repeat(30_000)}}`;
    const bad = ["", "{", '{"model":"a","messages":[{"role":"user"', "[]", '"a"', "null", "7", "{} {}", "\0", nested];
    for (const text of [
      ...bad,
      '{"model":"a",}',
      "{'model':'a'}",
      '{"model":NaN,"messages":[1]}',
      "[".repeat(60_000),
    ]) {
      await expectRelayError(await rig.post(CHAT, text), 400, "invalid_request_error", "invalid_json");
    }
    const notUtf8 = Buffer.from('{"model":"a","messages":["\xff"]}', "latin1");
    const answer = await ask(target(), rig.token.key, CHAT, undefined, { method: "POST", body: notUtf8 });
    await expectRelayError(answer, 400, "invalid_request_error", "invalid_json");
    expect(rig.calls).toEqual([0]);
  });

  test("a body of the largest size passes, one byte more is 413, with and without its length given", async () => {
    await using rig = await RelayRig.open(target());
    rig.plan(answerJson({ choices: [] }));
    const text = (length: number) => {
      const empty = JSON.stringify({ model: "a", messages: [{ role: "user", content: "" }] });
      return empty.replace('""', `"${"x".repeat(length - empty.length)}"`);
    };
    // Two pieces: a body of which the length is not known beforehand.
    const pieces = (whole: string) =>
      new ReadableStream({
        start(controller) {
          controller.enqueue(new TextEncoder().encode(whole.slice(0, 1000)));
          controller.enqueue(new TextEncoder().encode(whole.slice(1000)));
          controller.close();
        },
      });
    const send = (body: string | ReadableStream) =>
      ask(target(), rig.token.key, CHAT, undefined, { method: "POST", body, headers: { Connection: "close" } });
    for (const make of [text, (length: number) => pieces(text(length))]) {
      const passed = await send(make(BODY_MAX));
      expect([passed.status, (await passed.text()).length > 0]).toEqual([200, true]);
      const refused = await send(make(BODY_MAX + 1));
      await expectRelayError(refused, 413, "invalid_request_error", "request_too_large");
    }
    expect(rig.upstream.requests.map(({ body }) => body.length)).toEqual([BODY_MAX, BODY_MAX]);
  });

  test("a compressed body is 415", async () => {
    await using rig = await RelayRig.open(target());
    const body = Bun.gzipSync(JSON.stringify({ model: "a", messages: MESSAGES }));
    const answer = await ask(target(), rig.token.key, CHAT, undefined, {
      method: "POST",
      body,
      headers: { "Content-Encoding": "gzip" },
    });
    await expectRelayError(answer, 415, "invalid_request_error", "unsupported_encoding");
    expect(rig.calls).toEqual([0]);
    expect((await rig.chat({}, { headers: { "content-encoding": "identity" } })).status).toBe(200);
  });
}

function numberTests(target: () => Target): void {
  test("a number that cannot be kept exactly is refused wherever it stands, others arrive as they are", async () => {
    await using rig = await RelayRig.open(target());
    const withNumber = (number: string) => `{"model":"a","messages":[{"role":"user","content":"9007199254740993"}],
      "metadata":{"deep":[{"number":${number}}]}}`;
    for (const number of ["9007199254740993", "-9007199254740993", "1e400", "-1e400", "12345678901234567890", "1e16"]) {
      const answer = await rig.post(CHAT, withNumber(number));
      await expectRelayError(answer, 400, "invalid_request_error", "invalid_value", "metadata");
    }
    const seed = await rig.post(CHAT, `{"model":"a","messages":[1],"seed":9007199254740993}`);
    await expectRelayError(seed, 400, "invalid_request_error", "invalid_value", "seed");
    expect(rig.calls).toEqual([0]);
    for (const number of ["9007199254740991", "-9007199254740991", "0.1", "1e-7", "0"]) {
      expect((await rig.post(CHAT, withNumber(number))).status).toBe(200);
      expect(rig.upstream.requests.at(-1)!.body).toContain(`"number":${number}}`);
    }
  });
}

function limitTests(target: () => Target): void {
  test("a spent quota is 429, and no client is to try it again", async () => {
    await using rig = await RelayRig.open(target(), [{}], { remain_quota: 3 });
    const answer = await rig.chat({ max_tokens: 100 });
    const { message } = await expectRelayError(answer, 429, "insufficient_quota", "insufficient_quota");
    // One for the prompt.
    expect(message).toEndWith("101 tokens that this may take");
    expect(answer.headers.get("x-should-retry")).toBe("false");
    for (const [path, body, ending] of [
      [
        CHAT,
        { model: "a", messages: MESSAGES },
        "1025 tokens that this may take; it names no max_tokens: one below 1024",
      ],
      ["/responses", { model: "a", input: "hi" }, "1025 tokens that this may take; it names no max_output_tokens: one"],
      ["/embeddings", { model: "a", input: "a long one, but with no answer" }, "10 tokens that this may take"],
    ] as const) {
      const open = await expectRelayError(
        await rig.post(path, body),
        ...([429, "insufficient_quota", "insufficient_quota"] as const),
      );
      expect(open.message).toContain(ending);
      expect(open.message.includes("asks for fewer")).toBe(path !== "/embeddings");
    }
    expect(rig.calls).toEqual([0]);
  });

  test("more requests or tokens per minute than allowed are 429, with the limit and when it is over", async () => {
    await using rig = await RelayRig.open(target());
    const { group } = rig;
    const rpm = await makeToken(target(), { group, rpm: 1 });
    expect((await chat(target(), rpm.key)).status).toBe(200);
    const tpm = await makeToken(target(), { group, tpm: 500 });
    const refused = [
      [await chat(target(), rpm.key), "requests", "1"],
      [await chat(target(), tpm.key, { max_tokens: 1000 }), "tokens", "500"],
    ] as const;
    for (const [answer, unit, limit] of refused) {
      await expectRelayError(answer, 429, "rate_limit_error", "rate_limit_exceeded");
      const { headers } = answer;
      expect(Number(headers.get("retry-after"))).toBeWithin(1, 121);
      expect(headers.get(`x-ratelimit-limit-${unit}`)).toBe(limit);
      expect(headers.get(`x-ratelimit-remaining-${unit}`)).toMatch(/^\d+$/);
      expect(headers.get(`x-ratelimit-reset-${unit}`)).toMatch(/^\d+s$/);
    }
    expect(rig.calls).toEqual([1]);
  });

  test("more requests at once than allowed are 429, until one of them is over", async () => {
    await using rig = await RelayRig.open(target(), [{}], { max_parallel: 1 });
    const release = Promise.withResolvers<void>();
    rig.upstream.next(afterwards(release.promise, answerNormally));
    const first = rig.chat();
    await rig.upstream.request(0);
    const answer = await rig.chat();
    await expectRelayError(answer, 429, "rate_limit_error", "rate_limit_exceeded");
    expect(answer.headers.get("retry-after")).toBe("1");
    release.resolve();
    await (await first).text();
    expect((await rig.chat()).status).toBe(200);
    expect(rig.calls).toEqual([2]);
  });
}

function shortageTests(target: () => Target): void {
  test("a group without an enabled channel is 500, and no client is to try it again", async () => {
    await using rig = await RelayRig.open(target());
    const nowhere = await makeToken(target(), { group: "nobody" });
    await rig.act(0, "disable");
    for (const key of [nowhere.key, rig.token.key]) {
      const answer = await chat(target(), key);
      await expectRelayError(answer, 500, "server_error", "no_available_channel");
      expect(answer.headers.get("x-should-retry")).toBe("false");
    }
    expect(rig.calls).toEqual([0]);
  });

  test("a model that no channel serves is 404", async () => {
    await using rig = await RelayRig.open(target(), [{ models: ["a"] }]);
    await expectRelayError(await rig.chat({ model: "b" }), 404, "invalid_request_error", "model_not_found", "model");
    expect(rig.calls).toEqual([0]);
  });

  test("when all channels of a model cool down it is 503, with the soonest time", async () => {
    await using rig = await RelayRig.open(target(), [{}, {}]);
    rig.plan(rateLimit({ "retry-after": "50" }), rateLimit({ "retry-after": "20" }));
    expect((await rig.chat({ model: "a" })).status).toBe(429);
    const answer = await rig.chat({ model: "a" });
    await expectRelayError(answer, 503, "server_error", "channels_cooling_down");
    expect(Number(answer.headers.get("retry-after"))).toBeWithin(1, 21);
    expect(rig.calls).toEqual([1, 1]);
  });
}

function overloadTests(target: () => Target): void {
  test("what is beyond the bound is 503 at once, and passes when others are done", async () => {
    await using rig = await RelayRig.open(target());
    const release = Promise.withResolvers<void>();
    rig.upstream.always(afterwards(release.promise, answerNormally));
    const working = [rig.chat(), rig.chat()];
    await rig.upstream.request(1);
    const answer = await rig.chat();
    await expectRelayError(answer, 503, "server_error", "overloaded");
    expect(answer.headers.get("retry-after")).toBe("1");
    release.resolve();
    expect((await Promise.all(working)).map(({ status }) => status)).toEqual([200, 200]);
    expect((await rig.chat()).status).toBe(200);
  });

  test("the bound holds as well for requests whose bodies pause on their way", async () => {
    await using rig = await RelayRig.open(target());
    const release = Promise.withResolvers<void>();
    rig.upstream.always(afterwards(release.promise, answerNormally));
    // Of a shorter one nothing is seen before it is there.
    const body = JSON.stringify({ model: "any", messages: MESSAGES, user: "x".repeat(2 * SMALL_STEP_BYTES) });
    using clients = new DisposableStack();
    const connections = await Promise.all(Array.from({ length: 5 }, () => openRaw(target().url)));
    for (const connection of connections) {
      clients.use(connection);
      connection.send(
        `POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${rig.token.key}\r\n` +
          `Content-Length: ${body.length}\r\n\r\n${body.slice(0, 10)}`,
      );
    }
    const waiting = async () => (await metricOf(target(), "gokv_body_budget_used_bytes")) === 5 * SMALL_STEP_BYTES;
    await eventually("all are in mid-body", WAIT_MS_MAX, waiting);
    const statuses: number[] = [];
    const answers = connections.map(async (connection) => {
      connection.send(body.slice(10));
      statuses.push(Number((await connection.received(/HTTP\/1\.1 \d{3} /)).slice(9, 12)));
    });
    await eventually("three are refused", WAIT_MS_MAX, () => statuses.length === 3);
    release.resolve();
    await Promise.all(answers);
    expect([statuses, rig.calls]).toEqual([[503, 503, 503, 200, 200], [2]]);
  });
}

/** What an upstream does, and what the client of the only channel is told. */
const BAD_ANSWERS: readonly (readonly [what: string, plan: Plan, fields: Json, upstreamStatus: string | null])[] = [
  ["a redirect", redirectTo("https://example.com/v1/chat/completions"), {}, "307"],
  ["a redirect with an answer", answerJson({ choices: [] }, 302, { Location: "/v1" }), {}, "302"],
  ["a status that HTTP does not have", refuse(600), {}, "600"],
  ["the status of a bot wall", refuse(999), {}, "999"],
  ["a status that HTTP does not have, for a stream,", refuse(999), { stream: true }, "999"],
  ["a web page", answerText("<!doctype html><p>Welcome</p>", "text/html"), {}, "200"],
  ["an answer that calls itself a web page", answerText('{"choices":[]}', "text/html"), {}, "200"],
  ["JSON that breaks off", answerText('{"choices":', "application/json"), {}, "200"],
  ["JSON that is no object", answerJson([1]), {}, "200"],
  ["a body that breaks off", cutAnswer('{"choices":[]}'), {}, null],
  ["an answer that is too large", answerWith({ more: "x".repeat(70_000) }), {}, "200"],
  ["events where an answer was asked for", stream({ events: [event({ choices: [] })] }), {}, "200"],
  ["an answer where events were asked for", answerJson({ choices: [] }), { stream: true }, "200"],
  [
    "a stream that calls itself JSON",
    answerText(chatChunk("a", "stop") + DONE, "application/json"),
    { stream: true },
    "200",
  ],
  ["a stream without an event", stream({ events: [] }), { stream: true }, "200"],
];

function upstreamTests(target: () => Target): void {
  for (const [what, plan, fields, upstreamStatus] of BAD_ANSWERS) {
    test(`${what} from an upstream is 502`, async () => {
      await using rig = await RelayRig.open(target());
      rig.plan(plan);
      const answer = await rig.chat(fields);
      await expectRelayError(answer, 502, "upstream_error", "bad_upstream_response");
      if (upstreamStatus !== null) expect(answer.headers.get("x-gokv-upstream-status")).toBe(upstreamStatus);
      expect(answer.headers.get("x-gokv-attempts")).toBe("1");
      expect(rig.calls).toEqual([1]);
    });
  }

  test("an error under 200 is told without the key it quotes, whether events were asked for or not", async () => {
    await using rig = await RelayRig.open(target(), [{ key: "sk-canary-0123456789abcdef" }]);
    const error = { message: "no sk-canary-0123456789abcdef", type: "policy", param: null, code: "too_long" };
    for (const stream of [false, true]) {
      rig.plan(answerJson({ error }));
      const answer = await rig.chat({ stream });
      expect([stream, answer.status, await relayErrorOf(answer)]).toEqual([
        stream,
        502,
        { ...error, message: "no ***" },
      ]);
      // One that is too large to be read says nothing.
      rig.plan(answerText(`{"error":{"message":"${"x".repeat(70_000)}"}}`, "application/json"));
      await expectRelayError(await rig.chat({ stream }), 502, "upstream_error", "bad_upstream_response");
    }
  });

  test("an answer that is too large costs what was set aside, and says nothing of the channel", async () => {
    await using rig = await RelayRig.open(target(), [{}, {}], { remain_quota: 10_000 });
    rig.plan(answerWith({ more: "x".repeat(70_000) }));
    // As many as would open the breaker of a channel that fails.
    for (let asked = 1; asked <= 6; asked++) {
      const answer = await rig.chat({ max_tokens: 99 });
      const { message } = await expectRelayError(answer, 502, "upstream_error", "bad_upstream_response");
      expect(message).toContain("too large");
    }
    expect(rig.calls).toEqual([6, 0]);
    expect(await rig.health(0)).toMatchObject({ state: "closed", failures: 0 });
    for (const { quota, estimated } of await rig.rows(6)) expect([quota, estimated]).toEqual([100, 1]);
  });

  test("what is too large and no JSON costs nothing, counts against its channel, and another is asked", async () => {
    const large = "x".repeat(70_000);
    const inPieces: Plan = async (exchange) => {
      await exchange.head(200, { "Content-Type": "text/html", "Transfer-Encoding": "chunked" });
      await exchange.chunk(large);
      await exchange.endChunks();
    };
    for (const page of [answerText(large, "text/html"), inPieces]) {
      await using rig = await RelayRig.open(target(), [{}, {}], { remain_quota: 10_000 });
      rig.plan(page);
      const answer = await rig.chat({ max_tokens: 99 });
      expect([answer.status, rig.calls]).toEqual([200, [1, 1]]);
      expect((await rig.health(0)).failures).toBe(1);
      rig.plan(null, page);
      await expectRelayError(await rig.chat(), 502, "upstream_error", "bad_upstream_response");
      expect((await rig.rows(2))[1]!.quota).toBe(0);
    }
  });

  test("an embedding that says with a code and a message that it is one is no failure", async () => {
    await using rig = await RelayRig.open(target());
    const data = [{ object: "embedding", index: 0, embedding: [1] }];
    const said = { code: 0, message: "success", object: "list", data, usage: { prompt_tokens: 4, total_tokens: 4 } };
    rig.plan(answerJson(said));
    const answer = await rig.post("/embeddings", { model: "any", input: "hi" });
    expect([answer.status, await answer.json()]).toEqual([200, said]);
  });

  test("an upstream that nobody answers for, or that hangs up, is 502", async () => {
    const closed = freePort();
    for (const channel of [{ base_url: `http://127.0.0.1:${closed}` }, {}]) {
      await using rig = await RelayRig.open(target(), [channel]);
      rig.plan(resetAtOnce);
      for (const stream of [false, true]) {
        const answer = await rig.chat({ stream });
        const { message } = await expectRelayError(answer, 502, "upstream_error", "upstream_unreachable");
        expect(message).not.toContain("127.0.0.1");
        expect(answer.headers.get("x-gokv-upstream-status")).toBeNull();
      }
    }
  });

  test("an upstream that does not answer in time is 504, and is asked once", async () => {
    await using rig = await RelayRig.open(target(), [{ ttft_ms: 500, total_ms: 700 }, {}]);
    rig.plan(stayStill);
    for (const stream of [false, true]) {
      await expectRelayError(await rig.chat({ stream }), 504, "upstream_error", "upstream_timeout");
    }
    expect(rig.calls).toEqual([2, 0]);
  });

  test("a refusal by an upstream is relayed with its status, type, code and wait", async () => {
    await using rig = await RelayRig.open(target());
    for (const [status, type, code] of [
      [400, "invalid_request_error", "context_length_exceeded"],
      [422, "invalid_request_error", null],
      [404, "invalid_request_error", "not_here"],
      [403, "policy", "blocked"],
      [500, "server_error", "server_error"],
    ] as const) {
      rig.upstream.next(refuse(status, { type, code, message: "It did not work." }, { "retry-after": "7" }));
      const answer = await rig.chat();
      expect([answer.status, await relayErrorOf(answer)]).toEqual([
        status,
        { message: "It did not work.", type, param: null, code },
      ]);
      expect(answer.headers.get("x-gokv-upstream-status")).toBe(`${status}`);
      expect(answer.headers.get("retry-after")).toBeNull();
    }
    rig.upstream.next(rateLimit({ "retry-after": "7", "x-ratelimit-remaining-requests": "0" }));
    const limited = await rig.chat();
    expect([limited.status, (await relayErrorOf(limited)).code]).toEqual([429, "rate_limit_exceeded"]);
    expect(limited.headers.get("retry-after")).toBe("7");
    expect(limited.headers.get("x-ratelimit-remaining-requests")).toBeNull();
  });

  test("a refusal that quotes the key of the channel arrives without it", async () => {
    const key = "sk-canary-Zx81Qp03Lm77";
    await using rig = await RelayRig.open(target(), [{ key }]);
    rig.plan(wrongKey);
    const answer = await rig.chat();
    const { message, code } = await relayErrorOf(answer);
    expect([answer.status, code]).toEqual([401, "invalid_api_key"]);
    expect(message).toBe("Incorrect API key provided: ***. You can find yours on your account page.");
    expect(rig.upstream.keys).toEqual([key]);
  });

  test.each([
    ["with slashes escaped", "\\/"],
    ["with slashes as numbers", "\\u002F"],
  ])(
    "a refusal that is too long to be read to its end, and quotes the key %s, arrives without it",
    async (_, slash) => {
      const key = "Zm9v/YmFy+cXV4/bGlu/ZW5v/dGVz";
      await using rig = await RelayRig.open(target(), [{ key }]);
      const quoted = `{"error":{"message":"Bad key ${key.replaceAll("/", slash)}."},"trace":"${"x".repeat(70_000)}"}`;
      rig.upstream.next(answerText(quoted, "application/json", 400));
      const answer = await rig.chat();
      expect(answer.status).toBe(400);
      expect((await relayErrorOf(answer)).message).toStartWith('{"error":{"message":"Bad key ***."},"trace":"xxx');
    },
  );
}

const PAGE = "<html><head><title>502 Bad Gateway</title></head><body><center>nginx</center></body></html>";

/** A text of which nobody knows how long it is before it has come. */
function chunkedText(text: string, status: number): Plan {
  return async (exchange) => {
    await exchange.head(status, { "Content-Type": "text/plain", "Transfer-Encoding": "chunked" });
    await exchange.chunk(text);
    await exchange.endChunks();
  };
}

/** An error of an upstream as it comes, and as the client gets it; a type of null stands for any. */
const ODD_ERRORS: readonly (readonly [
  what: string,
  plan: Plan,
  status: number,
  message: string | RegExp,
  code: string | null,
])[] = [
  [
    "a code and a message in place of an error",
    answerJson({ code: 20015, message: "The parameter is invalid.", data: null }, 400),
    ...([400, "The parameter is invalid.", "20015"] as const),
  ],
  ["a JSON string", answerJson("Invalid token", 401), 401, "Invalid token", null],
  ["an error that is a text", answerJson({ error: "no such thing" }, 404), 404, "no such thing", null],
  ["a number as code", refuse(400, { code: 1210, message: "Bad." }), 400, "Bad.", "1210"],
  ["plain text", answerText("upstream is sad", "text/plain", 500), 500, "upstream is sad", null],
  ["a long text", answerText("x".repeat(5000), "text/plain", 500), 500, /^x{500}$/, null],
  ["a text of megabytes", answerText("x".repeat(3_000_000), "text/plain", 500), 500, /^x{500}$/, null],
  ["a text of megabytes in chunks", chunkedText("x".repeat(3_000_000), 500), 500, /^x{500}$/, null],
  [
    "an error with megabytes of message",
    refuse(400, { message: "x".repeat(3_000_000) }),
    400,
    /^{"error":{"mess/,
    null,
  ],
  ["a web page of megabytes", answerText(PAGE + "x".repeat(3_000_000), "text/html", 502), 502, /^[^<>x]{10,}$/, null],
  ["a web page", answerText(PAGE, "text/html", 502), 502, /^[^<>]{10,}$/, null],
  ["an empty body", answerText("", "application/json", 503), 503, /^.{10,}$/, null],
  ["an empty object", answerJson({}, 500), 500, /^.{10,}$/, null],
  ["JSON that breaks off", answerText('{"error":{"mess', "application/json", 400), 400, /^.{5,}$/, null],
];

function oddErrorTests(target: () => Target): void {
  for (const [what, plan, status, message, code] of ODD_ERRORS) {
    test(`an upstream error that is ${what} becomes an error of the usual shape`, async () => {
      await using rig = await RelayRig.open(target());
      rig.plan(plan);
      for (const stream of [false, true]) {
        const answer = await rig.chat({ stream });
        const error = await relayErrorOf(answer);
        expect([answer.status, error.code, error.param]).toEqual([status, code, null]);
        if (typeof message === "string") expect(error.message).toBe(message);
        else expect(error.message).toMatch(message);
        expect(error.type.length).toBeGreaterThan(0);
        expect(answer.headers.get("x-gokv-upstream-status")).toBe(`${status}`);
      }
    });
  }
}
