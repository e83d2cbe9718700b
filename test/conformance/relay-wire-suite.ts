// What the relay passes on and what it keeps to itself: bodies, headers and addresses, in both directions.

import { describe, expect, test } from "bun:test";
import { VERSION } from "../../src/shared/version.ts";
import type { Plan } from "../support/fault-upstream.ts";
import { sendRaw } from "../support/raw-request.ts";
import { ask, chat, expectRelayError, makeToken, RELAY_ENV, relayErrorOf } from "../support/relay-client.ts";
import { RelayRig } from "../support/relay-rig.ts";
import type { OpenTarget, Target } from "../support/targets.ts";
import { answerJson, normalEvents, refuse, stream } from "../support/upstream-plans.ts";
import { useTarget } from "../support/use-target.ts";

const CHAT = "/chat/completions";
const MESSAGES = [{ role: "user", content: "hi" }];

export function relayWireSuite(name: string, open: OpenTarget): void {
  describe(`what the relay passes on at ${name}`, () => {
    const target = useTarget(open, RELAY_ENV);
    bodyTests(target);
    nameTests(target);
    headerTests(target);
    addressTests(target);
  });
  describe(`answers that name their channel at ${name}`, () => {
    const target = useTarget(open, { ...RELAY_ENV, RELAY_EXPOSE_CHANNEL: "1" });
    test("each does when it is asked for by a setting", async () => {
      await using rig = await RelayRig.open(target());
      for (const stream of [false, true]) {
        const answer = await rig.chat({ stream });
        expect([answer.status, answer.headers.get("x-gokv-channel-id")]).toEqual([200, `${rig.channels[0]!.id}`]);
        await answer.text();
      }
      // Of a failure: the one that was asked last.
      rig.plan(refuse(400, { code: "bad_thing" }));
      const refused = await rig.chat();
      expect([refused.status, refused.headers.get("x-gokv-channel-id")]).toEqual([400, `${rig.channels[0]!.id}`]);
    });
  });
}

function bodyTests(target: () => Target): void {
  test("fields that nobody knows reach the upstream unchanged, the list of models does not", async () => {
    await using rig = await RelayRig.open(target());
    const body = {
      model: "a",
      models: ["b", "c"],
      messages: [...MESSAGES, { role: "user", content: [{ type: "x", y: null }] }],
      temperature: 0.7,
      top_p: 1e-7,
      max_tokens: 5,
      enable_thinking: false,
      thinking: { budget: [1, { a: "ä\u2028" }] },
      "": 1,
      "weird key": true,
      toString: "x",
      constructor: { prototype: [] },
      nothing: null,
      empty: {},
    };
    await (await rig.post(CHAT, body)).text();
    const { models: _, ...expected } = body;
    expect(rig.upstream.requests[0]!.json).toEqual(expected);
    expect(Object.keys(rig.upstream.requests[0]!.json).toSorted()).toEqual(Object.keys(expected).toSorted());
  });

  test("a member called __proto__ stays an ordinary one", async () => {
    await using rig = await RelayRig.open(target());
    const text = '{"model":"a","messages":[1],"__proto__":{"model":"b","polluted":1}}';
    expect((await rig.post(CHAT, text)).status).toBe(200);
    expect(rig.upstream.requests[0]!.body).toContain('"__proto__":{"model":"b","polluted":1}');
    expect(rig.upstream.requests[0]!.body).toStartWith('{"model":"a"');
  });

  test("every endpoint reaches its own path, with what was sent", async () => {
    await using rig = await RelayRig.open(target());
    for (const [path, body] of [
      [CHAT, { model: "a", messages: MESSAGES }],
      ["/completions", { model: "a", prompt: "say" }],
      ["/completions", { model: "a", prompt: ["say", "it"] }],
      ["/embeddings", { model: "a", input: ["x", "y"], encoding_format: "base64" }],
      ["/moderations", { input: "x" }],
      ["/moderations", { model: "a", input: [{ type: "text", text: "x" }] }],
      ["/responses", { model: "a", input: "x", instructions: "be kind" }],
    ] as const) {
      const answer = await rig.post(path, body);
      const json = (await answer.json()) as Record<string, unknown>;
      expect([path, answer.status, typeof json]).toEqual([path, 200, "object"]);
      const { path: asked, json: forwarded, method } = rig.upstream.requests.at(-1)!;
      expect([method, asked, forwarded]).toEqual(["POST", `/v1${path}`, body]);
    }
  });

  test("an answer arrives byte for byte", async () => {
    await using rig = await RelayRig.open(target());
    const text =
      '{ "id": "x",\r\n  "choices": [ ],  "big": 12345678901234567890, "a": 1, "a": 2, "ü": "\\u00fc\\ud83d" }\n';
    const plan: Plan = (exchange) => exchange.answer(200, { "Content-Type": "application/json; charset=utf-8" }, text);
    rig.plan(plan);
    const answer = await rig.chat();
    expect([answer.headers.get("content-type"), await answer.text()]).toEqual([
      "application/json; charset=utf-8",
      text,
    ]);
  });

  test("the content type of a request does not matter", async () => {
    await using rig = await RelayRig.open(target());
    const body = JSON.stringify({ model: "a", messages: MESSAGES });
    for (const type of ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-8"]) {
      const answer = await ask(target(), rig.token.key, CHAT, body, { headers: { "Content-Type": type } });
      expect([type, answer.status]).toEqual([type, 200]);
    }
    expect(rig.upstream.requests.map(({ headers }) => headers["content-type"])).toEqual(
      Array.from({ length: 3 }, () => "application/json"),
    );
  });

  test("a hundred thousand nested arrays are 400", async () => {
    await using rig = await RelayRig.open(target());
    for (const nested of ["[".repeat(100_000), "[".repeat(100_000) + "]".repeat(100_000)]) {
      const answer = await rig.post(CHAT, `{"model":"a","messages":${nested}}`);
      await expectRelayError(answer, 400, "invalid_request_error", "invalid_json");
    }
    expect(rig.calls).toEqual([0]);
  });
}

function nameTests(target: () => Target): void {
  test("a model that is named twice is judged and forwarded as one and the same", async () => {
    await using rig = await RelayRig.open(target(), [{ models: ["b"] }], { models: ["b"] });
    const twice = (first: string, second: string) =>
      `{"model":"${first}","messages":[{"role":"user","content":"hi"}],"\\u006dodel":"${second}"}`;
    expect((await rig.post(CHAT, twice("a", "b"))).status).toBe(200);
    const { body } = rig.upstream.requests[0]!;
    expect(body.match(/model/g)).toEqual(["model"]);
    expect(JSON.parse(body)).toEqual({ model: "b", messages: MESSAGES });
    const refused = await rig.post(CHAT, twice("b", "a"));
    await expectRelayError(refused, 403, "permission_error", "model_not_allowed", "model");
    expect(rig.calls).toEqual([1]);
  });

  test("a mapping renames on the way out only", async () => {
    const mapping = { fast: "Qwen/Qwen3-8B", __proto__x: "y" };
    await using rig = await RelayRig.open(target(), [{ model_mapping: mapping, models: ["fast", "constructor"] }]);
    for (const [model, sent] of [
      ["fast", "Qwen/Qwen3-8B"],
      ["constructor", "constructor"],
    ] as const) {
      expect((await rig.chat({ model })).status).toBe(200);
      expect(rig.upstream.requests.at(-1)!.json.model).toBe(sent);
    }
    const [row] = (await rig.rows(2)).map(({ model, upstream_model }) => [model, upstream_model]);
    expect(row).toEqual(["fast", "Qwen/Qwen3-8B"]);
  });

  test("a moderation without a model goes to a channel of the usual model, as it was sent", async () => {
    await using rig = await RelayRig.open(target(), [{ models: ["other"] }, { models: ["omni-moderation-latest"] }]);
    expect((await rig.post("/moderations", { input: "x" })).status).toBe(200);
    expect(rig.calls).toEqual([0, 1]);
    expect(rig.upstreams[1]!.requests[0]!.json).toEqual({ input: "x" });
    const narrow = await makeToken(target(), { group: rig.group, models: ["other"] });
    const refused = await ask(target(), narrow.key, "/moderations", { input: "x" });
    await expectRelayError(refused, 403, "permission_error", "model_not_allowed", "model");
  });

  test("a model that is down is answered by the next one, which is named", async () => {
    await using rig = await RelayRig.open(target(), [{ models: ["down"] }, { models: ["up", "größe"] }]);
    rig.plan(refuse(500));
    for (const [models, named] of [
      [["up"], "up"],
      [["nowhere", "up"], "up"],
      [["größe"], encodeURI("größe")],
    ] as const) {
      const answer = await rig.chat({ model: "down", models });
      expect([answer.status, answer.headers.get("x-gokv-model")]).toEqual([200, named]);
    }
    rig.plan(refuse(400, { code: "bad" }));
    const refused = await rig.chat({ model: "down", models: ["up"] });
    expect([refused.status, (await relayErrorOf(refused)).code]).toEqual([400, "bad"]);
    expect(rig.calls).toEqual([4, 3]);
  });
}

const HOSTILE_HEADERS = {
  Cookie: "session=1",
  "X-Forwarded-For": "1.2.3.4",
  "X-Forwarded-Host": "evil.example",
  Forwarded: "for=1.2.3.4",
  "X-Real-IP": "1.2.3.4",
  "Proxy-Authorization": "Basic eDp5",
  "User-Agent": "curl/8",
  Accept: "text/html",
  "Accept-Encoding": "gzip, br",
  Referer: "http://evil.example",
  Origin: "http://evil.example",
  "X-Api-Key": "sk-x",
  "x-portkey-config": '{"url":"http://evil.example"}',
  "x-portkey-provider": "openai",
  "x-portkey-custom-host": "e",
  "OpenAI-Organization": "org-1",
  "OpenAI-Project": "p",
  "X-Request-Id": "mine",
  "api-key": "sk-y",
  "X-Stainless-Lang": "js",
  "x-gokv-cache": "no-store",
  "Helicone-Target-URL": "http://evil.example",
};
const SENT_HEADERS = [
  "accept",
  "accept-encoding",
  "authorization",
  "content-length",
  "content-type",
  "host",
  "user-agent",
];

function headerTests(target: () => Target): void {
  test("of the headers of a client only two reach the upstream, and the token never does", async () => {
    await using rig = await RelayRig.open(target());
    const passed = { "OpenAI-Beta": "assistants=v2", "Idempotency-Key": "key-1" };
    for (const stream of [false, true]) {
      await (await rig.chat({ stream }, { headers: { ...HOSTILE_HEADERS, ...passed } })).text();
      const { headers, key } = rig.upstream.requests.at(-1)!;
      const names = [...SENT_HEADERS, "idempotency-key", "openai-beta"].toSorted();
      expect(
        Object.keys(headers)
          .filter((name) => name !== "connection")
          .toSorted(),
      ).toEqual(names);
      expect(headers).toMatchObject({
        "content-type": "application/json",
        accept: stream ? "text/event-stream" : "application/json",
        "accept-encoding": "identity",
        "user-agent": `gokv/${VERSION}`,
        "openai-beta": "assistants=v2",
        "idempotency-key": expect.stringMatching(/^[0-9a-f]{64}$/),
        host: `127.0.0.1:${rig.upstream.port}`,
      });
      expect(key).not.toBe(rig.token.key);
      expect(rig.upstream.requests.at(-1)!.body).not.toContain(rig.token.key);
    }
  });

  test("an idempotency key is one's own: the same for one token each time, another for each other one", async () => {
    await using rig = await RelayRig.open(target());
    const other = await makeToken(target(), { group: rig.group });
    const asked = [
      [rig.token.key, "1"],
      [rig.token.key, "1"],
      [rig.token.key, "2"],
      [other.key, "1"],
      // Says nothing: the same for all such requests it would make them one.
      [rig.token.key, ""],
    ] as const;
    for (const [key, idempotency] of asked) {
      await chat(target(), key, {}, { headers: { "Idempotency-Key": idempotency } });
    }
    const [first, again, second, others, none] = rig.upstream.requests.map(({ headers }) => headers["idempotency-key"]);
    expect(again).toBe(first!);
    expect(new Set([first, second, others]).size).toBe(3);
    expect(none).toBeUndefined();
  });

  test("a fallback has an idempotency key of its own: it is another request than the one that failed", async () => {
    await using rig = await RelayRig.open(target(), [{}, {}]);
    for (const upstream of rig.upstreams) upstream.forModel("down", refuse(500));
    const asked = { model: "down", models: ["up"] };
    expect((await rig.chat(asked, { headers: { "Idempotency-Key": "1" } })).status).toBe(200);
    const [down, up] = rig.upstreams[0]!.requests.map(({ headers }) => headers["idempotency-key"]);
    expect(up).not.toBe(down!);
    // Another channel is asked for the same.
    expect(rig.upstreams[1]!.requests.map(({ headers }) => headers["idempotency-key"])).toEqual([down!]);
  });

  test("no request can name an upstream: not by a field, a header or its host", async () => {
    await using rig = await RelayRig.open(target());
    await using elsewhere = await RelayRig.open(target());
    const { url, port } = elsewhere.upstream;
    const naming = { api_base: url, base_url: url, custom_host: url, api_key: "sk-x", channel: 1, channel_id: 1 };
    const body = JSON.stringify({ model: "a", messages: MESSAGES, ...naming });
    const head = [
      `POST http://127.0.0.1:${port}/v1/chat/completions?channel=${elsewhere.channels[0]!.id} HTTP/1.1`,
      `Host: 127.0.0.1:${port}`,
      `Authorization: Bearer ${rig.token.key}`,
      `x-portkey-custom-host: ${url}`,
      `x-gokv-channel-id: ${elsewhere.channels[0]!.id}`,
      `x-base-url: ${url}`,
      `Content-Length: ${body.length}`,
    ];
    const relative = head[0]!.replace(`http://127.0.0.1:${port}`, "");
    const answer = await sendRaw(target().url, [[relative, ...head.slice(1)].join("\r\n"), "\r\n\r\n", body].join(""));
    expect(answer.statuses).toEqual([200]);
    await sendRaw(target().url, [head.join("\r\n"), "\r\n\r\n", body].join(""));
    expect(elsewhere.calls).toEqual([0]);
    expect(rig.upstream.requests.length).toBeWithin(1, 3);
    expect(rig.upstream.requests[0]!).toMatchObject({
      path: "/v1/chat/completions",
      json: { model: "a", messages: MESSAGES, ...naming },
    });
    expect(rig.upstream.requests[0]!.headers.host).toBe(`127.0.0.1:${rig.upstream.port}`);
  });

  test("of the headers of an upstream only its type and its time reach the client", async () => {
    await using rig = await RelayRig.open(target());
    const sent = {
      "openai-processing-ms": "12",
      "Set-Cookie": "a=b",
      "openai-organization": "org-1",
      "openai-version": "1",
      "x-ratelimit-limit-requests": "9",
      "x-request-id": "theirs",
      "x-gokv-channel-id": "7",
      Server: "nginx",
      "Access-Control-Allow-Origin": "*",
      Via: "1.1 x",
      "Strict-Transport-Security": "max-age=1",
      Link: "<x>",
      "WWW-Authenticate": "Basic",
      Location: "http://evil.example",
      "x-should-retry": "true",
      "cf-ray": "1",
      "x-gokv-model": "theirs",
      "content-language": "en",
      etag: '"1"',
      "retry-after-ms": "1",
    };
    const events: Plan = (exchange) => stream({ events: normalEvents(exchange), headers: sent })(exchange);
    const common = [
      "cache-control",
      "content-type",
      "date",
      "x-content-type-options",
      "x-gokv-attempts",
      "x-gokv-overhead-ms",
      "x-request-id",
    ];
    for (const [fields, plan, more] of [
      [{}, answerJson({ choices: [] }, 200, sent), ["content-length", "openai-processing-ms"]],
      [{ stream: true }, events, ["openai-processing-ms", "transfer-encoding", "x-accel-buffering"]],
      [{}, refuse(400, {}, sent), ["content-length", "x-gokv-upstream-status"]],
    ] as const) {
      rig.plan(plan);
      const answer = await rig.chat(fields);
      await answer.text();
      const names = [...answer.headers.keys()].filter((name) => name !== "connection" && name !== "keep-alive");
      expect(names.toSorted()).toEqual([...common, ...more].toSorted());
      expect(answer.headers.get("x-request-id")).toMatch(/^[0-9a-f]{8}-/);
    }
  });

  test("the type and the time of an upstream reach the client in their form only, and without its key", async () => {
    const key = "sk-canary-Zx81Qp03Lm77";
    await using rig = await RelayRig.open(target(), [{ key }]);
    for (const [type, shown, time, shownTime] of [
      ["application/json", "application/json", "12", "12"],
      ["application/json; charset=utf-8", "application/json; charset=utf-8", "12.5", "12.5"],
      ['Application/JSON ;charset="utf-8"', 'Application/JSON ;charset="utf-8"', "0", "0"],
      [`application/json; k=${key}`, "application/json; k=***", key, null],
      [`application/${key}+json`, "application/***+json", `12 ${key}`, null],
      ["application/json; a=b; c d=e; f=g", "application/json; a=b", "12 ms", null],
      ["application/json, text/html", "application/json", "-1", null],
    ] as const) {
      rig.plan(answerJson({ choices: [] }, 200, { "Content-Type": type, "openai-processing-ms": time }));
      const { headers } = await rig.chat();
      const received = [headers.get("content-type"), headers.get("openai-processing-ms")];
      expect([type, ...received]).toEqual([type, shown, shownTime]);
    }
  });

  test("every answer has an id of its own, whatever the client sends", async () => {
    await using rig = await RelayRig.open(target());
    const ids = new Set<string>();
    for (let times = 0; times < 3; times++) {
      for (const [path, body] of [
        [CHAT, { model: "a", messages: MESSAGES }],
        [CHAT, {}],
        ["/models", undefined],
        ["/usage", undefined],
      ] as const) {
        const answer = await ask(target(), rig.token.key, path, body, { headers: { "X-Request-Id": "mine" } });
        ids.add(answer.headers.get("x-request-id")!);
        expect([path, answer.headers.get("x-gokv-attempts")]).toEqual([path, answer.ok && body ? "1" : "0"]);
        expect(answer.headers.get("x-gokv-overhead-ms")).toMatch(/^\d+\.\d$/);
        expect(answer.headers.get("x-gokv-channel-id")).toBeNull();
      }
    }
    expect([ids.size, ids.has("mine")]).toEqual([12, false]);
  });

  test("a stream says that nobody is to keep or to gather it", async () => {
    await using rig = await RelayRig.open(target());
    const answer = await rig.chat({ stream: true });
    await answer.text();
    expect(answer.headers.get("content-type")).toMatch(/^text\/event-stream/);
    expect(answer.headers.get("cache-control")).toBe("no-cache");
    expect(answer.headers.get("x-accel-buffering")).toBe("no");
    expect(answer.headers.get("content-encoding")).toBeNull();
  });
}

const PATHS = [
  ["", "/v1"],
  ["/", "/v1"],
  ["/v1", "/v1"],
  ["/v1/", "/v1"],
  ["/v3/openai", "/v3/openai"],
  ["/v3/openai/", "/v3/openai"],
  ["/api/paas/v4", "/api/paas/v4"],
  ["/v1beta/openai", "/v1beta/openai"],
  ["/proxy", "/proxy/v1"],
  ["/proxy/", "/proxy/v1"],
  ["/vision", "/vision/v1"],
] as const;

function addressTests(target: () => Target): void {
  test("addresses with and without a version lead to the right path", async () => {
    await using rig = await RelayRig.open(target());
    rig.plan(answerJson({ choices: [], object: "list", data: [] }));
    for (const [given, base] of PATHS) {
      const base_url = rig.upstream.url + given;
      const { id } = rig.channels[0]!;
      const changed = await target().fetch(`/api/channel/${id}`, {
        method: "PATCH",
        body: JSON.stringify({ base_url }),
      });
      expect([given, changed.status]).toEqual([given, 200]);
      rig.upstream.requests.length = 0;
      await (await chat(target(), rig.token.key)).text();
      await (await rig.post("/embeddings", { model: "a", input: "x" })).text();
      await (await target().fetch(`/api/channel/${id}/models`)).text();
      const paths = ["chat/completions", "embeddings", "models"].map((path) => `${base}/${path}`);
      expect([given, rig.upstream.requests.map(({ path }) => path)]).toEqual([given, paths]);
    }
  });
}
