// Channels as an operator manages them: made, shown, changed, tested, deleted; their keys never come back out.

import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { eventually } from "../support/eventually.ts";
import { FaultUpstream } from "../support/fault-upstream.ts";
import {
  type ChannelJson,
  chat,
  chatCode,
  clearRelay,
  type Json,
  makeChannel,
  makeToken,
  manage,
  managed,
  RELAY_ENV,
  refusalOf,
} from "../support/relay-client.ts";
import { mint, type OpenTarget } from "../support/targets.ts";
import { afterMs, answerJson, answerNormally, refuse, wrongKey } from "../support/upstream-plans.ts";
import { useTarget } from "../support/use-target.ts";

const KEY = "sk-mock-0123456789abcdef";
const WAIT_MS = 5000;
/** How long a slow upstream takes for an answer; timers may be a little early. */
const [SLOW_MS, SLOW_MS_MIN] = [60, 50];
const MASK = "sk-mock...cdef";

export function relayChannelsSuite(name: string, open: OpenTarget): void {
  describe(`channels of ${name}`, () => {
    const target = useTarget(open, RELAY_ENV);
    let upstream: FaultUpstream;
    beforeAll(async () => {
      upstream = await FaultUpstream.start();
    });
    afterAll(() => upstream[Symbol.asyncDispose]());
    beforeEach(async () => {
      await clearRelay(target());
      upstream.reset();
    });

    const post = (body: unknown) => manage(target(), "POST", "/api/channel", body);
    const list = () => managed<ChannelJson[]>(target(), "GET", "/api/channel");
    const show = (id: number) => managed<ChannelJson>(target(), "GET", `/api/channel/${id}`);
    const change = (id: number, body: Json, method = "PUT") => manage(target(), method, `/api/channel/${id}`, body);
    const make = (fields: Json = {}) => makeChannel(target(), upstream, { key: KEY, ...fields });
    const health = (id: number) => managed(target(), "GET", `/api/channel/${id}/health`);

    test("one is made of type, name and key, and shown without its key", async () => {
      const answer = await post({ type: "OpenAI", name: "我的备用key", key: "sk-xxxx" });
      const text = await answer.text();
      const channel = JSON.parse(text) as ChannelJson;
      expect([answer.status, answer.headers.get("location")]).toEqual([201, `/api/channel/${channel.id}`]);
      expect(text).not.toContain("sk-xxxx");
      const nowSeconds = Math.floor(Date.now() / 1000);
      expect(channel).toEqual({
        id: expect.any(Number),
        type: "OpenAI",
        name: "我的备用key",
        key: "sk-...",
        base_url: "https://api.openai.com/v1",
        models: [],
        discovered_models: [],
        group: "default",
        weight: 1,
        priority: 0,
        status: 1,
        status_reason: null,
        model_mapping: {},
        auto_ban: true,
        no_stream_options: false,
        ttft_ms: null,
        total_ms: null,
        created_time: expect.any(Number),
        updated_time: expect.any(Number),
        test_time: 0,
        response_time: 0,
        used_quota: 0,
      });
      expect(Math.abs((channel.created_time as number) - nowSeconds)).toBeLessThan(30);
      expect(await show(channel.id)).toEqual(channel);
    });

    test("one of Mistral is not asked for the usage of streams, unless its operator says so", async () => {
      const mistral = { type: "mistral", base_url: "" };
      const flagOf = async (id: number, body: Json) =>
        ((await (await change(id, body)).json()) as Json).no_stream_options;
      const [usual, told, other] = [
        await make(mistral),
        await make({ ...mistral, no_stream_options: false }),
        await make({ type: "Together", base_url: "" }),
      ];
      expect([usual, told, other].map((one) => one.no_stream_options)).toEqual([true, false, false]);
      for (const body of [{ name: "n" }, { type: "Mistral" }]) {
        expect(await Promise.all([usual, told].map(({ id }) => flagOf(id, body)))).toEqual([true, false]);
      }
      const [toMistral, away] = [
        { type: "Mistral", key: KEY },
        { type: "Together", key: KEY },
      ];
      expect([await flagOf(other.id, toMistral), await flagOf(usual.id, away)]).toEqual([true, false]);
      expect(await flagOf(usual.id, { ...toMistral, no_stream_options: false })).toBe(false);
    });

    test("all of them are a bare list with their number, by id, in parts and by what they are", async () => {
      const keys = ["sk-mock-canary-aaaaaaaaaaaa", "sk-mock-canary-bbbbbbbbbbbb", "short-canary"];
      const made: ChannelJson[] = [];
      for (const [index, key] of keys.entries()) {
        made.push(
          await make({ key, name: `n${index}`, group: index === 2 ? "a, b" : "a", models: index === 1 ? ["m"] : [] }),
        );
      }
      const answer = await manage(target(), "GET", "/api/channel");
      const text = await answer.text();
      expect([answer.status, answer.headers.get("x-total-count")]).toEqual([200, "3"]);
      expect(JSON.parse(text)).toEqual(made);
      for (const key of keys) expect(text).not.toContain(key);
      expect(made.map(({ key }) => key)).toEqual(["sk-mock...aaaa", "sk-mock...bbbb", "sho...ry"]);
      const names = async (query: string) => {
        const part = await manage(target(), "GET", `/api/channel/?${query}`);
        return [((await part.json()) as Json[]).map((channel) => channel.name), part.headers.get("x-total-count")];
      };
      expect(await names("limit=1&offset=1")).toEqual([["n1"], "3"]);
      expect(await names("group=b")).toEqual([["n2"], "1"]);
      expect(await names("model=other")).toEqual([["n0", "n2"], "2"]);
      expect(await names("type=custom&status=1")).toEqual([["n0", "n1", "n2"], "3"]);
      expect(await names("type=1")).toEqual([[], "0"]);
      expect(await names("status=0")).toEqual([[], "0"]);
      for (const query of [
        "limit=0",
        "limit=x",
        "offset=-1",
        "status=9",
        "type=Azure",
        "colour=red",
        "limit=1&limit=2",
      ]) {
        expect([query, (await manage(target(), "GET", `/api/channel?${query}`)).status]).toEqual([query, 400]);
      }
    });

    test("a change keeps every other field, and the key works", async () => {
      const token = await makeToken(target());
      const before = await make({ models: ["a", "b"], priority: 3, weight: 7, model_mapping: { a: "x" } });
      for (const method of ["PUT", "PATCH"]) {
        const answer = await change(before.id, { name: `我的主力Key ${method}` }, method);
        const after = (await answer.json()) as ChannelJson;
        expect([answer.status, after]).toEqual([
          200,
          { ...before, name: `我的主力Key ${method}`, updated_time: after.updated_time },
        ]);
      }
      expect((await chat(target(), token.key, { model: "a" })).status).toBe(200);
      expect([upstream.keys, upstream.requests[0]!.json.model]).toEqual([[KEY], "x"]);
    });

    test("one sent back as it was read is what it was, key included", async () => {
      const token = await makeToken(target());
      const before = await make({ host: `${upstream.url}/v1`, base_url: undefined, ttft_ms: 5000 });
      expect(before.base_url).toBe(`${upstream.url}/v1`);
      const after = (await (await change(before.id, before)).json()) as ChannelJson;
      expect(after).toEqual({ ...before, updated_time: after.updated_time });
      expect((await chat(target(), token.key)).status).toBe(200);
      expect(upstream.keys).toEqual([KEY]);
    });

    test("a deleted one is gone at once, and its id is not used again", async () => {
      const token = await makeToken(target());
      const channel = await make();
      const answer = await manage(target(), "DELETE", `/api/channel/${channel.id}`);
      expect([answer.status, await answer.text()]).toEqual([204, ""]);
      for (const [method, rest] of [
        ...["GET", "PUT", "PATCH", "DELETE"].map((method) => [method, ""]),
        ...["test", "enable", "disable", "reset"].map((verb) => ["POST", `/${verb}`]),
        ...["health", "models"].map((noun) => ["GET", `/${noun}`]),
      ] as [string, string][]) {
        const body = method === "GET" || rest !== "" ? undefined : {};
        const gone = await refusalOf(await manage(target(), method, `/api/channel/${channel.id}${rest}`, body));
        expect([method, rest, gone.status, gone.code]).toEqual([method, rest, 404, "channel_not_found"]);
      }
      expect(await chatCode(await chat(target(), token.key))).toBe("no_available_channel");
      expect((await make()).id).toBeGreaterThan(channel.id);
    });

    test("what lacks a key or a name is refused by name, and nothing is stored", async () => {
      for (const key of [undefined, null, ""]) {
        const refused = await refusalOf(await post({ type: "OpenAI", name: "n", key }));
        expect([refused.status, refused.code]).toEqual([400, "missing_field"]);
        expect(refused.message).toContain("key");
      }
      for (const key of [7, true, ["sk-a"], "with space", "line\nend", "ключ", "x".repeat(4097)]) {
        const refused = await refusalOf(await post({ type: "OpenAI", name: "n", key }));
        expect([refused.status, refused.code]).toEqual([400, "invalid_field"]);
        expect(refused.message).toContain("key");
      }
      expect(await refusalOf(await post({ key: "sk-a" }))).toMatchObject({ status: 400, code: "missing_field" });
      expect(await list()).toEqual([]);
    });

    const WRONG: readonly (readonly [Json, string])[] = [
      [{ type: "Azure" }, "unknown_type"],
      [{ type: 3 }, "unknown_type"],
      [{ type: "" }, "unknown_type"],
      [{ type: "Ollama", base_url: null }, "missing_field"],
      [{ base_url: "api.example" }, "invalid_field"],
      [{ base_url: "ftp://api.example" }, "invalid_field"],
      [{ base_url: "https://user@api.example" }, "invalid_field"],
      [{ base_url: "https://api.example/?a=1" }, "invalid_field"],
      [{ base_url: "https://api.example/#a" }, "invalid_field"],
      [{ base_url: `https://api.example/${"a".repeat(2048)}` }, "invalid_field"],
      [{ base_url: "https://api.example", host: "https://other.example" }, "invalid_field"],
      [{ name: "" }, "missing_field"],
      [{ name: "x".repeat(129) }, "invalid_field"],
      [{ weight: -1 }, "invalid_field"],
      [{ weight: 1001 }, "invalid_field"],
      [{ weight: 1.5 }, "invalid_field"],
      [{ weight: "1" }, "invalid_field"],
      [{ priority: 1001 }, "invalid_field"],
      [{ priority: -1001 }, "invalid_field"],
      [{ status: 3 }, "invalid_field"],
      [{ status: true }, "invalid_field"],
      [{ models: [1] }, "invalid_field"],
      [{ model_mapping: { a: 1 } }, "invalid_field"],
      [{ total_ms: 0 }, "invalid_field"],
      [{ auto_ban: "yes" }, "invalid_field"],
      [{ colour: "red" }, "invalid_field"],
    ];
    test("the least and the most that a number may be are taken", async () => {
      for (const fields of [
        { weight: 0, priority: -1000 },
        { weight: 1000, priority: 1000 },
      ]) {
        expect(await make(fields)).toMatchObject(fields);
      }
    });

    test("a field that is not what it should be is refused", async () => {
      for (const [fields, code] of WRONG) {
        const channel = { type: "Custom", name: "n", key: KEY, base_url: upstream.url };
        const refused = await refusalOf(await post({ ...channel, ...fields }));
        expect([fields, refused.status, refused.code]).toEqual([fields, 400, code]);
      }
      for (const body of ["", "{", "[]", "null", '"x"', "7"]) {
        const answer = await target().fetch("/api/channel", { method: "POST", body });
        expect([body, answer.status]).toEqual([body, 400]);
      }
      expect(await list()).toEqual([]);
    });

    test("types are known in any case and by the numbers that mean the same everywhere", async () => {
      const shown: unknown[] = [];
      for (const type of ["deepseek", "SILICONFLOW", 1, 20, 25]) {
        const { type: stored, base_url } = await managed(target(), "POST", "/api/channel", {
          type,
          name: "n",
          key: KEY,
        });
        shown.push([stored, base_url]);
      }
      expect(shown).toEqual([
        ["DeepSeek", "https://api.deepseek.com/v1"],
        ["SiliconFlow", "https://api.siliconflow.cn/v1"],
        ["OpenAI", "https://api.openai.com/v1"],
        ["OpenRouter", "https://openrouter.ai/api/v1"],
        ["Moonshot", "https://api.moonshot.cn/v1"],
      ]);
      expect(await make({ type: 8 })).toMatchObject({ type: "Custom", base_url: upstream.url });
    });

    test("lists may be text, and disabled may be 2", async () => {
      const channel = await make({ models: " a,b ,a,,c/d", group: " vip , default", status: 2 });
      expect(channel).toMatchObject({ models: ["a", "b", "c/d"], group: "vip,default", status: 0 });
      const changed = await (await change(channel.id, { models: [], group: "" })).json();
      expect(changed).toMatchObject({ models: [], group: "default", status: 0 });
    });

    test("an address that must not be reached is refused when it is written", async () => {
      for (const base_url of [
        "http://169.254.169.254/latest",
        "https://10.0.0.1/v1",
        "http://[::1]:80",
        "http://0x0a000001",
      ]) {
        const refused = await refusalOf(await post({ type: "Custom", name: "n", key: KEY, base_url }));
        expect([base_url, refused.status, refused.code]).toEqual([base_url, 400, "base_url_refused"]);
        const channel = await make();
        const moved = await refusalOf(await change(channel.id, { base_url, key: KEY }));
        expect([base_url, moved.code]).toEqual([base_url, "base_url_refused"]);
        expect((await show(channel.id)).base_url).toBe(upstream.url);
      }
    });

    test("a new host needs the key again, the mask of the key is none", async () => {
      await using other = await FaultUpstream.start();
      const token = await makeToken(target());
      const channel = await make();
      for (const key of [undefined, channel.key]) {
        const refused = await refusalOf(await change(channel.id, { base_url: other.url, key }));
        expect([refused.status, refused.code]).toEqual([400, "key_required"]);
      }
      expect((await change(channel.id, { key: MASK })).status).toBe(200);
      expect((await chat(target(), token.key)).status).toBe(200);
      expect(upstream.keys).toEqual([KEY]);
      expect((await change(channel.id, { base_url: other.url, key: "sk-mock-other-host" })).status).toBe(200);
      expect((await chat(target(), token.key)).status).toBe(200);
      expect([upstream.keys, other.keys]).toEqual([[KEY], ["sk-mock-other-host"]]);
    });

    test("a changed key, a disabled one, an enabled one count from the next request", async () => {
      const token = await makeToken(target());
      const channel = await make();
      const status = async () => (await chat(target(), token.key)).status;
      expect(await status()).toBe(200);
      await change(channel.id, { key: "sk-mock-second" });
      expect(await status()).toBe(200);
      expect(await managed(target(), "POST", `/api/channel/${channel.id}/disable`)).toMatchObject({ status: 0 });
      expect(await status()).toBe(500);
      expect(await managed(target(), "POST", `/api/channel/${channel.id}/enable`)).toMatchObject({ status: 1 });
      expect(await status()).toBe(200);
      await change(channel.id, { status: 2 });
      expect(await status()).toBe(500);
      expect(upstream.keys).toEqual([KEY, "sk-mock-second", "sk-mock-second"]);
    });

    test("a test notes how long the upstream took", async () => {
      const channel = await make();
      upstream.next(afterMs(SLOW_MS, answerNormally));
      const { time_ms } = await managed(target(), "POST", `/api/channel/${channel.id}/test`, { model: "a" });
      const { response_time } = await show(channel.id);
      expect(response_time).toBeGreaterThanOrEqual(SLOW_MS_MIN);
      expect(response_time).toBe(Math.round(Number(time_ms)));
    });

    test("a test sends one request and tells how it went, whatever came of it", async () => {
      const channel = await make({ model_mapping: { a: "x" } });
      const path = `/api/channel/${channel.id}/test`;
      const required = await refusalOf(await manage(target(), "POST", path));
      expect([required.status, required.code]).toEqual([400, "model_required"]);
      expect(required.message).toContain("with model in the body or query, or with --model on the command line");
      const passed = await managed(target(), "POST", path, { model: "a" });
      expect(passed).toEqual({ success: true, status: 200, time_ms: expect.any(Number), ttft_ms: null, model: "a" });
      expect(upstream.requests.map(({ key, json }) => [key, json.model])).toEqual([[KEY, "x"]]);
      const streamed = await managed(target(), "POST", path, { model: "a", stream: true });
      expect(streamed).toMatchObject({ success: true, ttft_ms: expect.any(Number) });
      upstream.next(wrongKey);
      const failed = await managed(target(), "GET", `/api/channel/test/${channel.id}?model=b`);
      expect(failed).toMatchObject({ success: false, status: 401, model: "b", error: expect.any(String) });
      expect(JSON.stringify(failed)).not.toContain(KEY);
      const shown = await show(channel.id);
      expect(shown.test_time).toBeGreaterThan(0);
      await change(channel.id, { models: ["m1", "m2"] });
      expect(await managed(target(), "POST", path)).toMatchObject({ success: true, model: "m1" });
    });

    test("a channel disabled by its key is enabled by a test that passes, and by a reset", async () => {
      const token = await makeToken(target());
      const [bad] = [await make({ priority: 1 }), await make({ key: "sk-mock-other" })];
      const ban = async () => {
        upstream.forKey(KEY, wrongKey);
        expect((await chat(target(), token.key)).status).toBe(200);
        // The client does not wait for it.
        await eventually("the channel is disabled", WAIT_MS, async () => (await show(bad.id)).status === 3);
        expect((await show(bad.id)).status_reason).toBe("invalid_api_key");
      };
      await ban();
      expect(await health(bad.id)).toMatchObject({ status: 3 });
      expect(await managed(target(), "POST", `/api/channel/${bad.id}/test`, { model: "a" })).toMatchObject({
        success: false,
      });
      expect(await show(bad.id)).toMatchObject({ status: 3 });
      upstream.reset();
      expect(await managed(target(), "POST", `/api/channel/${bad.id}/test`, { model: "a" })).toMatchObject({
        success: true,
      });
      expect(await show(bad.id)).toMatchObject({ status: 1, status_reason: null });
      await ban();
      expect(await managed(target(), "POST", `/api/channel/${bad.id}/reset`)).toMatchObject({ status: 1 });
    });

    test("health tells of failures, of waiting models and of models that are off; a reset forgets them", async () => {
      const token = await makeToken(target());
      const channel = await make();
      expect(await health(channel.id)).toEqual({
        id: channel.id,
        status: 1,
        state: "closed",
        until: null,
        requests: 0,
        failures: 0,
        success_rate: null,
        cooling: [],
        models_off: [],
        last_error: null,
      });
      upstream.next(refuse(429, { code: "rate_limit_exceeded" }, { "Retry-After": "100" }));
      await chat(target(), token.key, { model: "busy" });
      upstream.next(refuse(404, { code: "model_not_found" }));
      await chat(target(), token.key, { model: "missing" });
      const nowSeconds = Date.now() / 1000;
      const sick = (await health(channel.id)) as { cooling: { until: number }[]; until: number } & Json;
      expect(sick).toMatchObject({ state: "cooling", cooling: [{ model: "busy" }], models_off: ["missing"] });
      expect(sick.cooling[0]!.until - nowSeconds).toBeWithin(30, 102);
      await managed(target(), "POST", `/api/channel/${channel.id}/reset`);
      expect(await health(channel.id)).toMatchObject({ state: "closed", until: null, cooling: [], models_off: [] });
    });

    test("the models of an upstream are read, kept and shown; what it cannot tell is a 502", async () => {
      const channel = await make();
      const path = `/api/channel/${channel.id}/models`;
      upstream.next(answerJson({ object: "list", data: [{ id: "Qwen/Qwen3-8B" }, { id: "b" }] }));
      expect(await managed(target(), "GET", path)).toEqual({ data: ["Qwen/Qwen3-8B", "b"] });
      expect([upstream.requests[0]!.path, upstream.keys]).toEqual(["/v1/models", [KEY]]);
      expect((await show(channel.id)).discovered_models).toEqual(["Qwen/Qwen3-8B", "b"]);
      upstream.next(wrongKey);
      const refused = await refusalOf(await manage(target(), "GET", path));
      expect([refused.status, refused.code]).toEqual([502, "upstream_failed"]);
      expect(refused.message).not.toContain(KEY);
      expect((await show(channel.id)).discovered_models).toEqual(["Qwen/Qwen3-8B", "b"]);
    });

    test("models that come as a bare array are read as well, an array in place of a completion is none", async () => {
      const token = await makeToken(target());
      const channel = await make();
      const path = `/api/channel/${channel.id}/models`;
      const bare = answerJson([{ id: "meta-llama/Llama-3", object: "model" }, { object: "model" }, "b", null]);
      upstream.next(bare, answerJson("none"), bare);
      expect(await managed(target(), "GET", path)).toEqual({ data: ["meta-llama/Llama-3"] });
      expect((await manage(target(), "GET", path)).status).toBe(502);
      expect(await chatCode(await chat(target(), token.key))).toBe("bad_upstream_response");
    });

    const ROUTES: readonly (readonly [string, string])[] = [
      ...["/api/channel", "/api/channel/", "/api/token", "/api/token/"].flatMap((path) => [
        ["GET", path] as const,
        ["POST", path] as const,
      ]),
      ...["GET", "PUT", "PATCH", "DELETE"].flatMap((method) => [
        [method, "/api/channel/1"] as const,
        [method, "/api/token/1"] as const,
      ]),
      ...["test", "enable", "disable", "reset"].map((verb) => ["POST", `/api/channel/1/${verb}`] as const),
      ...(
        ["/api/channel/1/health", "/api/channel/1/models", "/api/channel/test/1", "/api/log", "/api/log/stat"] as const
      ).map((path) => ["GET", path] as const),
      ["POST", "/_admin/rekey"],
    ];
    test("nobody but an operator gets in: no token, a relay token, an expired or narrowed one", async () => {
      const { key } = await makeToken(target());
      const channel = await make();
      const narrowed = [{ buckets: ["users"] }, { prefix: "a" }, { scope: "kv" }, { scope: "relay:read", prefix: "a" }];
      const headers: readonly (readonly [string | null, number])[] = [
        [null, 401],
        [`Bearer ${key}`, 401],
        [`Bearer ${await mint({ expiresInMs: -1000 })}`, 401],
        ...(await Promise.all(narrowed.map(async (claims) => [`Bearer ${await mint(claims)}`, 403] as const))),
      ];
      for (const [method, path] of ROUTES) {
        for (const [authorization, status] of headers) {
          const body = method === "GET" || method === "DELETE" ? {} : { body: "{}" };
          const answer = await target().fetch(path, { method, headers: { Authorization: authorization }, ...body });
          const { code } = await refusalOf(answer);
          expect([method, path, answer.status, code]).toEqual([
            method,
            path,
            status,
            status === 401 ? "unauthorized" : "forbidden",
          ]);
        }
      }
      expect(await list()).toEqual([channel]);
    });

    test("the scope relay:read looks, relay:write and admin change", async () => {
      const read = `Bearer ${await mint({ scope: "relay:read" })}`;
      for (const [method, path] of ROUTES.filter(([, path]) => !/1/.test(path))) {
        const answer = await target().fetch(path, {
          method,
          headers: { Authorization: read },
          ...(method === "GET" ? {} : { body: "" }),
        });
        expect([method, path, answer.status]).toEqual([method, path, method === "GET" ? 200 : 403]);
      }
      for (const scope of ["relay:write", "admin"]) {
        const headers = { Authorization: `Bearer ${await mint({ scope })}` };
        const body = JSON.stringify({ type: "OpenAI", name: "n", key: "sk-a" });
        expect((await target().fetch("/api/channel", { method: "POST", headers, body })).status).toBe(201);
        expect((await target().fetch("/api/channel", { headers })).status).toBe(200);
      }
    });

    test("an operator's token opens nothing of the relay itself", async () => {
      await make();
      for (const claims of [{}, { scope: "admin" }, { scope: "relay:write" }]) {
        expect(await chatCode(await chat(target(), await mint(claims)))).toBe("invalid_api_key");
      }
      expect(upstream.requests).toEqual([]);
    });

    test("other paths and methods are said to be none", async () => {
      for (const path of [
        "/api/channel/x",
        "/api/channel/0",
        "/api/channel/1/other",
        "/api/channel//",
        "/api/log/",
        "/api/log/other",
      ]) {
        expect([path, (await refusalOf(await manage(target(), "GET", path))).status]).toEqual([path, 404]);
      }
      const answer = await manage(target(), "PATCH", "/api/channel");
      expect([answer.status, answer.headers.get("allow")]).toEqual([405, "GET, POST, HEAD, OPTIONS"]);
      const options = await manage(target(), "OPTIONS", "/api/channel/1");
      expect([options.status, options.headers.get("allow")]).toEqual([204, "GET, PUT, PATCH, DELETE, HEAD, OPTIONS"]);
    });

    test("channels, their keys and their ids survive a restart", async () => {
      const token = await makeToken(target());
      const channel = await make({ models: ["a"] });
      const doomed = await make();
      await managed(target(), "DELETE", `/api/channel/${doomed.id}`);
      await target().restart();
      expect(await list()).toEqual([channel]);
      expect((await chat(target(), token.key, { model: "a" })).status).toBe(200);
      expect(upstream.keys).toEqual([KEY]);
      expect((await make()).id).toBe(doomed.id + 1);
    });
  });
}
