// What the relay does besides passing on: kept answers, responses that stay where they are, lists of models, usage,
// addresses that a token may be used from, figures.

import { describe, expect, test } from "bun:test";
import { alterStore } from "../support/alter-store.ts";
import { eventually } from "../support/eventually.ts";
import type { Plan } from "../support/fault-upstream.ts";
import { expectTimeFrom } from "../support/figures-in-bounds.ts";
import { sendRaw } from "../support/raw-request.ts";
import { growthOf } from "../support/reason-figure.ts";
import { chatAnswer, metricOf } from "../support/relay-books.ts";
import { ask, chat, expectRelayError, type Json, makeToken, managed, RELAY_ENV } from "../support/relay-client.ts";
import { RelayRig } from "../support/relay-rig.ts";
import { bySize } from "../support/run-size.ts";
import type { OpenTarget, Target } from "../support/targets.ts";
import {
  afterwards,
  answerJson,
  answerText,
  answerWith,
  chatChunk,
  DONE,
  event,
  rateLimit,
  refuse,
  resetAtOnce,
  stream,
} from "../support/upstream-plans.ts";
import { useTarget } from "../support/use-target.ts";

const USED_MS_MAX = 5_000;
const MiB = 1024 * 1024;
const BUDGET = "gokv_body_budget_used_bytes";

export function relayExtrasSuite(name: string, open: OpenTarget): void {
  describe(`what the relay does besides at ${name}`, () => {
    const target = useTarget(open, RELAY_ENV);
    cacheTests(target);
    stickyTests(target);
    modelTests(target);
    usageTests(target);
  });
  describe(`addresses of clients of the relay at ${name}`, () => {
    addressTests(useTarget(open, RELAY_ENV), useTarget(open, { ...RELAY_ENV, TRUSTED_PROXIES: "127.0.0.0/8,::1" }));
  });
  describe(`figures of the relay at ${name}`, () => metricsTests(useTarget(open, RELAY_ENV)));
}

/** One body for every path. */
const ALL_INPUTS = { model: "mock-small", input: "hi", prompt: "hi", messages: [{ role: "user", content: "hi" }] };
const TTL = { headers: { "x-gokv-cache": "ttl=300" } };

function cacheTests(target: () => Target): void {
  const kept = (answer: Response) => answer.headers.get("x-gokv-cache");

  test("no answer is kept unless somebody asks for it", async () => {
    await using rig = await RelayRig.open(target());
    expect([kept(await rig.chat()), kept(await rig.chat())]).toEqual([null, null]);
    expect(rig.calls).toEqual([2]);
  });

  test("a kept answer is the same to the byte, costs nothing and is logged", async () => {
    await using rig = await RelayRig.open(target(), [{}], { remain_quota: 1_000_000 });
    const first = await rig.chat({ temperature: 0, seed: 1 }, TTL);
    const body = await first.text();
    const again = await rig.post(
      "/chat/completions",
      { seed: 1, messages: [{ content: "hi", role: "user" }], temperature: 0, model: "mock-small" },
      TTL,
    );
    expect([kept(first), kept(again)]).toEqual(["MISS", "HIT"]);
    expect([again.status, await again.text()]).toEqual([200, body]);
    expect(again.headers.get("content-type")).toBe(first.headers.get("content-type"));
    expect([first.headers.get("x-gokv-attempts"), again.headers.get("x-gokv-attempts")]).toEqual(["1", "0"]);
    expect(rig.calls).toEqual([1]);
    const [miss, hit] = await rig.rows(2);
    expect(hit).toMatchObject({ status: 200, quota: 0, prompt_tokens: 0, completion_tokens: 0, attempts: 0 });
    const usage = (await (await ask(target(), rig.token.key, "/usage")).json()) as Json;
    expect([usage.used_quota, usage.remain_quota]).toEqual([miss!.quota, 1_000_000 - (miss!.quota as number)]);
    expect(miss!.quota as number).toBeGreaterThan(0);
  });

  test("a kept stream is played again with the same events", async () => {
    await using rig = await RelayRig.open(target(), [{}], { cache_ttl: 300 });
    const texts: string[] = [];
    for (const expected of ["MISS", "HIT"]) {
      const answer = await rig.chat({ stream: true });
      texts.push(await answer.text());
      expect([kept(answer), answer.headers.get("content-type")]).toEqual([
        expected,
        "text/event-stream; charset=utf-8",
      ]);
    }
    expect(texts[1]).toBe(texts[0]!);
    expect(texts[0]).toEndWith("data: [DONE]\n\n");
    expect(rig.calls).toEqual([1]);
  });

  test("another token, body, path or kind of answer never hits", async () => {
    await using rig = await RelayRig.open(target(), [{}], { cache_ttl: 300 });
    const other = await makeToken(target(), { group: rig.group, cache_ttl: 300 });
    const answers = [
      await rig.chat(),
      await chat(target(), other.key),
      await rig.chat({ stream: true }),
      await rig.chat({ model: "mock-large" }),
      await rig.chat({ temperature: 0 }),
      await rig.chat({ messages: [{ role: "user", content: "hi " }] }),
      await rig.post("/completions", { model: "mock-small", prompt: "hi" }),
      await rig.post("/embeddings", { model: "mock-small", input: "hi" }),
      await rig.post("/embeddings", { model: "mock-small", input: ["hi"] }),
      await rig.chat({ stream: true, stream_options: { include_usage: true } }),
      await rig.post("/chat/completions", ALL_INPUTS),
      await rig.post("/completions", ALL_INPUTS),
      await rig.post("/embeddings", ALL_INPUTS),
    ];
    for (const answer of answers) await answer.text();
    expect(answers.map(kept)).toEqual(answers.map(() => "MISS"));
    expect(rig.calls).toEqual([answers.length]);
    expect(kept(await rig.post("/embeddings", { input: "hi", model: "mock-small" }))).toBe("HIT");
  });

  test("errors, cut streams and what is not to be kept never hit", async () => {
    await using rig = await RelayRig.open(target(), [{}], { cache_ttl: 300 });
    rig.upstream.next(
      refuse(400),
      stream({ cutAfterEvents: 3, end: "clean" }),
      stream({ events: [event({ error: { message: "x" } })] }),
    );
    await (await rig.chat({ seed: 1 })).text();
    expect(await (await rig.chat({ seed: 2, stream: true })).text()).toContain("upstream_stream_interrupted");
    await (await rig.chat({ seed: 3, stream: true })).text();
    for (const fields of [{ seed: 1 }, { seed: 2, stream: true }, { seed: 3, stream: true }]) {
      const answer = await rig.chat(fields);
      await answer.text();
      expect([answer.status, kept(answer)]).toEqual([200, "MISS"]);
    }
    const bypassed = [
      await rig.chat({ seed: 1 }, { headers: { "x-gokv-cache": "no-store" } }),
      await rig.post("/moderations", { input: "x" }, TTL),
      await rig.post("/moderations", { input: "x" }, TTL),
      await rig.post("/responses", { model: "a", input: "x" }, TTL),
      await rig.post("/responses", { model: "a", input: "x" }, TTL),
    ];
    expect(bypassed.map(kept)).toEqual(bypassed.map(() => "BYPASS"));
    expect(rig.calls).toEqual([6 + bypassed.length]);
  });

  test("no answer is kept but a 200", async () => {
    await using rig = await RelayRig.open(target(), [{}], { cache_ttl: 300 });
    rig.upstream.next(answerJson(chatAnswer("created"), 201));
    expect([(await rig.chat()).status, kept(await rig.chat()), kept(await rig.chat())]).toEqual([201, "MISS", "HIT"]);
  });

  test("a kept answer names the model that gave it", async () => {
    await using rig = await RelayRig.open(target(), [{ models: ["up"] }], { cache_ttl: 300 });
    for (const expected of ["MISS", "HIT"]) {
      const answer = await rig.chat({ model: "down", models: ["up"] });
      expect([kept(answer), answer.headers.get("x-gokv-model")]).toEqual([expected, "up"]);
    }
  });

  test("a kept answer is gone when its time is over", async () => {
    await using rig = await RelayRig.open(target());
    const short = { headers: { "x-gokv-cache": "ttl=1" } };
    const keptMs = performance.now();
    await (await rig.chat({}, short)).text();
    await eventually("the kept answer is gone", 5_000, async () => kept(await rig.chat({}, short)) === "MISS");
    expectTimeFrom("the end of a kept answer", performance.now() - keptMs, 950, 3_000);
    expect(rig.calls).toEqual([2]);
  });

  test("a kept answer that is large comes whole as well, one after the other", async () => {
    await using rig = await RelayRig.open(target());
    const text = JSON.stringify({
      ...chatAnswer("é".repeat(1_500_000)),
      usage: { prompt_tokens: 1, completion_tokens: 1 },
    });
    const chunks = Array.from({ length: 30 }, (_, index) => chatChunk(`${index} ${"x".repeat(50_000)}`));
    const events = [...chunks, chatChunk("", "stop"), DONE];
    rig.upstream.next(answerJson(JSON.parse(text)), stream({ events }));
    for (const [fields, expected] of [
      [{}, text],
      [{ stream: true }, events.join("")],
    ] as const) {
      for (const outcome of ["MISS", "HIT", "HIT"]) {
        const answer = await rig.chat(fields, TTL);
        const body = await answer.text();
        expect([kept(answer), body.length, body === expected]).toEqual([outcome, expected.length, true]);
        // It goes out in pieces, as it is taken.
        if (outcome === "HIT") expect(answer.headers.get("transfer-encoding")).toBe("chunked");
      }
    }
    expect(rig.calls).toEqual([2]);
    expect(await metricOf(target(), "gokv_relay_inflight")).toBe(0);
  });

  test("a header that says nothing clear is refused", async () => {
    await using rig = await RelayRig.open(target());
    for (const value of ["yes", "ttl=", "ttl=-1", "ttl=86401", "ttl=1.5", "ttl=300 s"]) {
      const answer = await rig.chat({}, { headers: { "x-gokv-cache": value } });
      await expectRelayError(answer, 400, "invalid_request_error", "invalid_value", "x-gokv-cache");
    }
    expect(rig.calls).toEqual([0]);
  });
}

/** A head alone. */
function answerNothing(status: number): Plan {
  return (exchange) => exchange.head(status, status === 204 ? {} : { "Content-Length": "0" });
}

function stickyTests(target: () => Target): void {
  const create = async (rig: RelayRig, fields: Json = {}, key = rig.token.key) => {
    const answer = await ask(target(), key, "/responses", { model: "a", input: "x", ...fields });
    const text = await answer.text();
    expect([answer.status, text]).toEqual([200, text]);
    return /"id":"(resp_[^"]+)"/.exec(text)![1]!;
  };
  const EVEN = [{ priority: 0 }, { priority: 0 }];
  const notFound = async (answer: Response, param: string) =>
    void (await expectRelayError(answer, 404, "invalid_request_error", "response_not_found", param));

  test("what follows a response goes to the channel that made it, also when that one fails", async () => {
    await using rig = await RelayRig.open(target(), EVEN);
    for (const stream of [false, true]) {
      for (const upstream of rig.upstreams) upstream.reset();
      const id = await create(rig, { stream });
      const home = rig.calls.indexOf(1);
      for (let times = 1; times <= 8; times++) {
        await create(rig, { previous_response_id: id, stream });
        expect(rig.calls[home]).toBe(times + 1);
      }
      expect(rig.upstreams[home]!.requests.at(-1)!.json.previous_response_id).toBe(id);
      rig.upstreams[home]!.next(refuse(500));
      const failed = await rig.post("/responses", { model: "a", input: "x", previous_response_id: id });
      expect([failed.status, failed.headers.get("x-gokv-attempts")]).toEqual([500, "1"]);
      expect(rig.calls[1 - home]).toBe(0);
    }
  });

  test("a response is read and deleted where it is", async () => {
    await using rig = await RelayRig.open(target(), EVEN);
    const id = await create(rig);
    const home = rig.calls.indexOf(1);
    const shown = { id, object: "response", status: "completed" };
    rig.upstreams[home]!.next(answerJson(shown), answerJson({ id, deleted: true }));
    const read = await ask(target(), rig.token.key, `/responses/${id}`);
    expect([read.status, await read.json()]).toEqual([200, shown]);
    const deleted = await ask(target(), rig.token.key, `/responses/${id}`, undefined, { method: "DELETE" });
    expect([deleted.status, await deleted.json()]).toEqual([200, { id, deleted: true }]);
    expect(rig.upstreams[home]!.requests.map(({ method, path }) => [method, path])).toEqual([
      ["POST", "/v1/responses"],
      ["GET", `/v1/responses/${id}`],
      ["DELETE", `/v1/responses/${id}`],
    ]);
    expect([rig.calls[1 - home], rig.upstreams[home]!.requests[2]!.body]).toEqual([0, ""]);
    await notFound(await ask(target(), rig.token.key, `/responses/${id}`), "response_id");
  });

  test("a response that its upstream deletes without a word is deleted", async () => {
    await using rig = await RelayRig.open(target());
    for (const plan of [answerNothing(204), answerNothing(205), answerNothing(200), answerText("", "text/plain")]) {
      const id = await create(rig);
      rig.upstream.next(plan);
      const deleted = await ask(target(), rig.token.key, `/responses/${id}`, undefined, { method: "DELETE" });
      expect(await deleted.text()).toBe("");
      expect([Math.trunc(deleted.status / 100), deleted.headers.get("content-type")]).toEqual([2, null]);
      await notFound(await ask(target(), rig.token.key, `/responses/${id}`), "response_id");
    }
    const id = await create(rig);
    rig.upstream.next(answerNothing(204));
    expect((await ask(target(), rig.token.key, `/responses/${id}`)).status).toBe(204);
    expect(await rig.health(0)).toMatchObject({ state: "closed", failures: 0, last_error: null });
  });

  test("what an upstream tells of a response that it keeps never counts against its channel", async () => {
    await using rig = await RelayRig.open(target());
    const id = await create(rig);
    const noEvents = stream({ events: [], end: "clean" });
    for (const method of ["GET", "DELETE"]) {
      for (const plan of [answerText("<p>", "text/html"), answerText("{oops", "application/json"), noEvents]) {
        rig.upstream.next(plan);
        expect((await ask(target(), rig.token.key, `/responses/${id}`, undefined, { method })).status).toBe(502);
      }
    }
    expect(await rig.health(0)).toMatchObject({ state: "closed", failures: 0 });
    rig.upstream.next(answerNothing(204));
    expect((await rig.post("/responses", { model: "a", input: "x" })).status).toBe(502);
    expect((await rig.health(0)).failures).toBe(1);
  });

  test("unknown ids and those of another token are 404, and no upstream is asked", async () => {
    await using rig = await RelayRig.open(target(), EVEN);
    const other = await makeToken(target(), { group: rig.group });
    const foreign = await create(rig, {}, other.key);
    const unstored = await create(rig, { store: false });
    const calls = [...rig.calls];
    for (const id of [foreign, unstored, "resp_unknown", "../../models", "%"]) {
      const path = `/responses/${encodeURIComponent(id)}`;
      await notFound(await ask(target(), rig.token.key, path), "response_id");
      await notFound(await ask(target(), rig.token.key, path, undefined, { method: "DELETE" }), "response_id");
      const answer = await rig.post("/responses", { model: "a", input: "x", previous_response_id: id });
      await notFound(answer, "previous_response_id");
    }
    expect(rig.calls).toEqual(calls);
    await create(rig, { previous_response_id: foreign }, other.key);
  });

  test("reading a response costs nothing, and its usage is not counted once more", async () => {
    await using rig = await RelayRig.open(target());
    const id = await create(rig);
    const usage = { input_tokens: 100, output_tokens: 50 };
    rig.upstream.next(answerJson({ id, object: "response", status: "completed", usage }));
    expect((await ask(target(), rig.token.key, `/responses/${id}`)).status).toBe(200);
    const [, row] = await rig.rows(2);
    expect(row).toMatchObject({ prompt_tokens: 0, completion_tokens: 0, quota: 0, estimated: 0, status: 200 });
  });

  test("a response that is made in the background costs what was set aside for it", async () => {
    await using rig = await RelayRig.open(target(), [{}], { remain_quota: 10_000 });
    for (const [index, status] of ["queued", "in_progress"].entries()) {
      rig.upstream.next(answerJson({ id: `resp_bg${index}`, object: "response", status, usage: null }));
      await create(rig, { background: true, input: "hi!", max_output_tokens: 3000 });
    }
    const rows = await rig.rows(2);
    for (const row of rows) {
      expect(row).toMatchObject({ prompt_tokens: 1, completion_tokens: 3000, quota: 3001, estimated: 1 });
    }
    const usage = (await (await ask(target(), rig.token.key, "/usage")).json()) as Json;
    expect([usage.used_quota, usage.remain_quota]).toEqual([6002, 3998]);
  });

  test("a stream of a response in the background costs that as well, unless its end was seen", async () => {
    await using rig = await RelayRig.open(target(), [{}], { remain_quota: 100_000 });
    const eventOf = (type: string, more: Json) => event({ type, response: { id: "resp_bg", ...more } }, type);
    const queued = eventOf("response.queued", { status: "queued", usage: null });
    const completed = eventOf("response.completed", { usage: { input_tokens: 10, output_tokens: 20 } });
    const fields = { input: "hi!", max_output_tokens: 3000, stream: true };
    const ways = [
      [true, "still", 3001],
      [true, "reset", 3001],
      [true, "whole", 30],
      // Given up with its client.
      [false, "still", 1],
    ] as const;
    for (const [index, [background, end]] of ways.entries()) {
      rig.upstream.next(stream({ events: end === "whole" ? [queued, completed] : [queued], end }));
      const controller = new AbortController();
      const init = { signal: controller.signal };
      const answer = await rig.post("/responses", { model: "a", ...fields, background }, init);
      const reader = answer.body!.getReader();
      await reader.read();
      if (end === "still") controller.abort();
      else while (!(await reader.read()).done);
      await rig.rows(index + 1);
    }
    const rows = await rig.rows(ways.length);
    expect(rows.map(({ quota }) => quota)).toEqual(ways.map(([, , quota]) => quota));
    expect(rows.map(({ estimated }) => estimated)).toEqual([1, 1, 0, 1]);
  });

  test("what is asked of a response in its query reaches the upstream, and a stream comes as one", async () => {
    await using rig = await RelayRig.open(target());
    const id = await create(rig);
    const events = ["response.created", "response.completed"].map(
      (type) => `event: ${type}\ndata: ${JSON.stringify({ type, response: { id } })}\n\n`,
    );
    rig.upstream.next(answerJson({ id, object: "response" }), stream({ events }));
    const query = "include%5B%5D=a.b&include%5B%5D=c";
    await (await ask(target(), rig.token.key, `/responses/${id}?include[]=a.b&include%5B%5D=c`)).text();
    const streamed = await ask(target(), rig.token.key, `/responses/${id}?stream=true&starting_after=0`);
    expect(streamed.headers.get("content-type")).toStartWith("text/event-stream");
    expect(await streamed.text()).toBe(events.join(""));
    expect(rig.upstream.requests.slice(1).map(({ path }) => path)).toEqual([
      `/v1/responses/${id}?${query}`,
      `/v1/responses/${id}?stream=true&starting_after=0`,
    ]);
  });

  test("HEAD of a response as a stream says no length, and lets the upstream go at once", async () => {
    await using rig = await RelayRig.open(target());
    const id = await create(rig);
    rig.upstream.next(stream({ events: [event({ type: "response.created", response: { id } })], end: "still" }));
    const { text } = await sendRaw(
      target().url,
      `HEAD /v1/responses/${id}?stream=true HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${rig.token.key}\r\n\r\n`,
    );
    expect(text).toMatch(/^HTTP\/1\.1 200 /);
    expect(text).toMatch(/\r\ncontent-type: text\/event-stream/i);
    expect(text).not.toMatch(/\r\ncontent-length:/i);
    await rig.upstream.requests.at(-1)!.closed;
    expect((await rig.rows(2))[1]).toMatchObject({ status: 200, error_code: null, quota: 0 });
    const isIdle = async () => (await metricOf(target(), "gokv_relay_inflight")) === 0;
    await eventually("its place is free", USED_MS_MAX, isIdle);
  });

  test("whether a response comes as a stream is for its upstream to say, not for the query", async () => {
    await using rig = await RelayRig.open(target());
    const id = await create(rig);
    const read = (query: string) => ask(target(), rig.token.key, `/responses/${id}${query}`);
    rig.plan(answerJson({ id, object: "response" }));
    for (let times = 0; times < 5; times++) {
      const answer = await read("?stream=true");
      expect([answer.status, await answer.json()]).toEqual([200, { id, object: "response" }]);
    }
    const events = ["response.created", "response.completed"].map((type) => event({ type, response: { id } }, type));
    for (const query of ["?stream=1", "?stream=True", ""]) {
      const more = Promise.withResolvers<void>();
      rig.upstream.next(async (exchange) => {
        await exchange.startEvents();
        await exchange.chunk(events[0]!);
        await afterwards(more.promise, () => exchange.chunk(events[1]!))(exchange);
        await exchange.endChunks();
      });
      const answer = await read(query);
      const reader = answer.body!.getReader();
      expect(new TextDecoder().decode((await reader.read()).value)).toBe(events[0]!);
      more.resolve();
      expect(new TextDecoder().decode((await reader.read()).value)).toBe(events[1]!);
      expect(answer.headers.get("content-type")).toStartWith("text/event-stream");
    }
    const { path, headers } = rig.upstream.requests.at(-1)!;
    expect([path, headers.accept]).toEqual([`/v1/responses/${id}`, "application/json, text/event-stream"]);
    const rows = await rig.rows(9);
    expect(rows.map(({ stream: isStream }) => isStream)).toEqual([0, 0, 0, 0, 0, 0, 1, 1, 1]);
  });

  test("what the query of a response leads to never counts against its channel", async () => {
    await using rig = await RelayRig.open(target(), [{}, {}]);
    const id = await create(rig);
    const read = async (query: string) => {
      const answer = await ask(target(), rig.token.key, `/responses/${id}${query}`);
      await answer.text();
      return answer.status;
    };
    const created = event({ type: "response.created", response: { id } }, "response.created");
    const plans: readonly (readonly [Plan, number])[] = [
      [refuse(500), 500],
      [refuse(403, { code: "permission_error" }), 403],
      [resetAtOnce, 502],
      [answerText("<p>", "text/html"), 502],
      [stream({ events: [], end: "clean" }), 502],
      [stream({ events: [event({ type: "error", message: "no" }, "error")], end: "clean" }), 502],
      [stream({ events: [created], end: "clean" }), 200],
      [stream({ events: [created], end: "reset" }), 200],
    ];
    for (const [plan, status] of plans) {
      rig.plan(plan);
      expect(await read("?stream=true&starting_after=9")).toBe(status);
    }
    expect(await rig.health(0)).toMatchObject({ status: 1, state: "closed", failures: 0, models_off: [] });
    rig.plan(refuse(500));
    expect([await read(""), (await rig.health(0)).failures]).toEqual([500, 1]);
  });

  test("there is nothing else below a response", async () => {
    await using rig = await RelayRig.open(target());
    const id = await create(rig);
    for (const [method, path] of [
      ["GET", `/responses/${id}/input_items`],
      ["POST", `/responses/${id}/cancel`],
    ] as const) {
      const answer = await ask(target(), rig.token.key, path, undefined, { method });
      await expectRelayError(answer, 404, "invalid_request_error", "unknown_url");
    }
    expect(rig.calls).toEqual([1]);
  });

  test("what follows a response waits as well when its channel has asked for it", async () => {
    await using rig = await RelayRig.open(target(), EVEN);
    const id = await create(rig);
    const home = rig.calls.indexOf(1);
    const follow = { model: "a", input: "x", previous_response_id: id };
    rig.upstreams[home]!.next(rateLimit({ "retry-after": "30" }));
    expect((await rig.post("/responses", follow)).status).toBe(429);
    const waiting = await rig.post("/responses", follow);
    await expectRelayError(waiting, 503, "server_error", "channels_cooling_down");
    expect(Number(waiting.headers.get("retry-after"))).toBeWithin(20, 31);
    expect(rig.calls[home]).toBe(2);
  });

  test("a response that is gone keeps nobody from the others, one that is refused for now does", async () => {
    await using rig = await RelayRig.open(target());
    const ids = [await create(rig), await create(rig)];
    const read = (id: string) => ask(target(), rig.token.key, `/responses/${id}`);
    for (const error of [{ type: "not_found_error" }, { code: "model_not_found" }]) {
      rig.upstream.next(refuse(404, error), answerJson({ id: ids[1], object: "response" }));
      expect([(await read(ids[0]!)).status, (await read(ids[1]!)).status]).toEqual([404, 200]);
    }
    expect(await rig.health(0)).toMatchObject({ state: "closed", models_off: [], cooling: [] });
    rig.upstream.next(rateLimit({ "retry-after": "30" }));
    expect((await read(ids[0]!)).status).toBe(429);
    await expectRelayError(await read(ids[1]!), 503, "server_error", "channels_cooling_down");
    await create(rig);
  });

  test("a response that its upstream has forgotten takes its model from nobody", async () => {
    await using rig = await RelayRig.open(target());
    const id = await create(rig);
    const follow = () => rig.post("/responses", { model: "a", input: "x", previous_response_id: id });
    for (const error of [{ type: "NotFoundError" }, { code: "model_not_found" }]) {
      rig.upstream.next(refuse(404, error));
      expect((await follow()).status).toBe(404);
      expect((await rig.health(0)).models_off).toEqual([]);
      expect([(await follow()).status, (await rig.chat({ model: "a" })).status]).toEqual([200, 200]);
    }
  });

  test("without its channel a response is not available", async () => {
    await using rig = await RelayRig.open(target(), EVEN);
    const id = await create(rig);
    await rig.act(rig.calls.indexOf(1), "disable");
    const follow = { model: "a", input: "x", previous_response_id: id };
    for (const answer of [
      await ask(target(), rig.token.key, `/responses/${id}`),
      await rig.post("/responses", follow),
    ]) {
      await expectRelayError(answer, 503, "server_error", "channel_unavailable");
      expect(answer.headers.get("retry-after")).toBe("1");
    }
    expect(rig.calls.toSorted()).toEqual([0, 1]);
  });

  test("asked for its head alone, a large response leaves nothing of the byte budget in use", async () => {
    await using rig = await RelayRig.open(target());
    const id = await create(rig);
    const shown = { id, object: "response", output: [], pad: "x".repeat(2 * MiB) };
    rig.plan(answerJson(shown));
    const path = `/responses/${id}`;
    const heads = [1, 2, 3].map(() => ask(target(), rig.token.key, path, undefined, { method: "HEAD" }));
    expect((await Promise.all(heads)).map(({ status }) => status)).toEqual([200, 200, 200]);
    expect(await metricOf(target(), BUDGET)).toBe(0);
    expect(await (await ask(target(), rig.token.key, path)).json()).toEqual(shown);
    await eventually("the budget is free", USED_MS_MAX, async () => (await metricOf(target(), BUDGET)) === 0);
  });

  test("what follows a response passes neither groups nor models", async () => {
    await using rig = await RelayRig.open(target(), [{ models: ["cheap"], model_mapping: { fast: "cheap" } }]);
    const id = await create(rig, { model: "cheap" });
    const follow = (model: string) => rig.post("/responses", { model, input: "x", previous_response_id: id });
    await expectRelayError(await follow("dear"), 404, "invalid_request_error", "model_not_found", "model");
    for (const model of ["cheap", "fast"]) expect([model, (await follow(model)).status]).toEqual([model, 200]);
    await managed(target(), "PATCH", `/api/token/${rig.token.id}`, { group: "elsewhere" });
    const asked = [await follow("cheap"), await ask(target(), rig.token.key, `/responses/${id}`)];
    for (const answer of asked) await expectRelayError(answer, 503, "server_error", "channel_unavailable");
    expect(rig.calls).toEqual([3]);
    await managed(target(), "PATCH", `/api/token/${rig.token.id}`, { group: `elsewhere,${rig.group}` });
    expect((await follow("cheap")).status).toBe(200);
  });

  test("a response that the store takes no note of is answered and charged, and leaves nothing behind", async () => {
    await using rig = await RelayRig.open(target(), [{}], { remain_quota: 1_000_000 });
    const id = await create(rig);
    const [first] = await rig.rows(1);
    const { dbPath } = target();
    await alterStore(
      dbPath,
      "CREATE TRIGGER full BEFORE INSERT ON relay_response BEGIN SELECT RAISE(ABORT, 'no'); END",
    );
    await alterStore(
      dbPath,
      "CREATE TRIGGER kept BEFORE DELETE ON relay_response BEGIN SELECT RAISE(ABORT, 'no'); END",
    );
    try {
      await create(rig);
      await create(rig, { stream: true });
      rig.upstream.next(answerJson({ id, deleted: true }));
      const path = `/responses/${id}`;
      expect((await ask(target(), rig.token.key, path, undefined, { method: "DELETE" })).status).toBe(200);
    } finally {
      for (const name of ["full", "kept"]) await alterStore(dbPath, `DROP TRIGGER ${name}`);
    }
    const rows = await rig.rows(4);
    expect(rows.map(({ status, error_code }) => [status, error_code])).toEqual(rows.map(() => [200, null]));
    expect(rows.map(({ quota }) => quota)).toEqual([first!.quota, first!.quota, first!.quota, 0]);
    expect(first!.quota as number).toBeGreaterThan(0);
    expect([await metricOf(target(), BUDGET), await metricOf(target(), "gokv_relay_inflight")]).toEqual([0, 0]);
    await create(rig, { previous_response_id: await create(rig) });
  });

  test("a restart does not forget where a response is", async () => {
    await using rig = await RelayRig.open(target(), EVEN);
    const id = await create(rig);
    const home = rig.calls.indexOf(1);
    await target().restart();
    for (let times = 0; times < 4; times++) await create(rig, { previous_response_id: id });
    expect(rig.calls[home]).toBe(5);
  });
}

function modelTests(target: () => Target): void {
  const list = async (key: string) => {
    const answer = await ask(target(), key, "/models");
    const { object, data } = (await answer.json()) as { object: string; data: Json[] };
    expect([answer.status, object]).toEqual([200, "list"]);
    return data;
  };
  const ids = async (key: string) => (await list(key)).map(({ id }) => id);

  test("the list holds what enabled channels of the group serve, as far as the token may use it", async () => {
    await using rig = await RelayRig.open(target(), [
      { models: ["a", "Qwen/Qwen3-8B"], model_mapping: { fast: "a" } },
      { models: ["a", "b"] },
      { models: ["disabled"], status: 0 },
      { models: ["elsewhere"], group: "elsewhere" },
      { model_mapping: { renamed: "x" } },
    ]);
    const all = ["Qwen/Qwen3-8B", "a", "b", "fast", "renamed"];
    expect(await ids(rig.token.key)).toEqual(all);
    for (const entry of await list(rig.token.key)) {
      expect(entry).toEqual({ id: entry.id, object: "model", created: expect.any(Number), owned_by: "gokv" });
      expect(Math.abs((entry.created as number) - Date.now() / 1000)).toBeLessThan(60);
    }
    const { group } = rig;
    const narrow = await makeToken(target(), { group, models: ["b", "Qwen/Qwen3-8B", "unknown", "elsewhere"] });
    expect(await ids(narrow.key)).toEqual(["Qwen/Qwen3-8B", "b"]);
    const both = await makeToken(target(), { group: `${group},elsewhere` });
    expect(await ids(both.key)).toEqual([...all.slice(0, 3), "elsewhere", ...all.slice(3)]);
    expect(await ids((await makeToken(target(), { group: "nobody" })).key)).toEqual([]);
    expect(rig.calls).toEqual([0, 0, 0, 0, 0]);
  });

  test("a channel without a list of models shows those that its upstream has named", async () => {
    await using rig = await RelayRig.open(target());
    expect(await ids(rig.token.key)).toEqual([]);
    rig.plan(answerJson({ object: "list", data: [{ id: "found/two" }, { id: "found-one" }] }));
    await managed(target(), "GET", `/api/channel/${rig.channels[0]!.id}/models`);
    expect(await ids(rig.token.key)).toEqual(["found-one", "found/two"]);
  });

  test("one model is shown by its name, slashes and all, and no other", async () => {
    await using rig = await RelayRig.open(target(), [{ models: ["Qwen/Qwen3-8B", "b", "c"] }], {
      models: ["Qwen/Qwen3-8B", "b"],
    });
    for (const path of ["Qwen/Qwen3-8B", "Qwen%2FQwen3-8B"]) {
      const answer = await ask(target(), rig.token.key, `/models/${path}`);
      expect([answer.status, await answer.json()]).toEqual([
        200,
        { id: "Qwen/Qwen3-8B", object: "model", created: expect.any(Number), owned_by: "gokv" },
      ]);
    }
    for (const id of ["c", "unknown", "Qwen", "qwen/qwen3-8b"]) {
      const answer = await ask(target(), rig.token.key, `/models/${id}`);
      await expectRelayError(answer, 404, "invalid_request_error", "model_not_found", "model");
    }
  });
}

function usageTests(target: () => Target): void {
  test("a token sees its own usage and no other's", async () => {
    await using rig = await RelayRig.open(target());
    const { group } = rig;
    const expired_time = Math.floor(Date.now() / 1000) + 3600;
    const limited = {
      name: "limited",
      group,
      remain_quota: 5000,
      rpm: 100,
      tpm: 90_000,
      max_parallel: 7,
      expired_time,
    };
    const one = await makeToken(target(), limited);
    const two = await makeToken(target(), { name: "free", group });
    const usage = async (key: string) => (await (await ask(target(), key, "/usage")).json()) as Json;
    expect(await usage(one.key)).toEqual({
      name: "limited",
      remain_quota: 5000,
      used_quota: 0,
      unlimited_quota: false,
      expired_time,
      rpm: 100,
      tpm: 90_000,
      max_parallel: 7,
    });
    const idle = {
      name: "free",
      remain_quota: 0,
      used_quota: 0,
      unlimited_quota: true,
      expired_time: -1,
      rpm: 0,
      tpm: 0,
      max_parallel: 0,
    };
    expect(await usage(two.key)).toEqual(idle);
    const { usage: used } = (await (await chat(target(), one.key)).json()) as { usage: { total_tokens: number } };
    await eventually("the usage is counted", USED_MS_MAX, async () => (await usage(one.key)).used_quota !== 0);
    expect(await usage(one.key)).toMatchObject({
      used_quota: used.total_tokens,
      remain_quota: 5000 - used.total_tokens,
    });
    expect(await usage(two.key)).toEqual(idle);
    await (await chat(target(), two.key)).text();
    await eventually("the usage is counted", USED_MS_MAX, async () => (await usage(two.key)).used_quota !== 0);
    expect(await usage(two.key)).toEqual({ ...idle, used_quota: used.total_tokens });
  });
}

function addressTests(direct: () => Target, behindProxy: () => Target): void {
  const PEER = ["127.0.0.1", "::1"];
  const CLIENT = ["203.0.113.0/24", "2001:db8::7"];
  const statuses = async (target: Target, forwarded: string | null) => {
    await using rig = await RelayRig.open(target);
    const headers = { "X-Forwarded-For": forwarded, "X-Real-IP": "203.0.113.9", Forwarded: "for=203.0.113.9" };
    const codes: number[] = [];
    for (const allow_ips of [PEER, CLIENT]) {
      const { key } = await makeToken(target, { group: rig.group, allow_ips });
      codes.push((await chat(target, key, {}, { headers })).status);
    }
    await (await rig.chat({}, { headers })).text();
    const [row] = await rig.rows(1);
    return [...codes, row!.client_ip];
  };

  test("the address of the connection counts, whatever the headers say", async () => {
    for (const forwarded of [null, "203.0.113.9", "203.0.113.9, 127.0.0.1"]) {
      expect([forwarded, await statuses(direct(), forwarded)]).toEqual([forwarded, [200, 403, "127.0.0.1"]]);
    }
  });

  test("behind a trusted proxy it is the last address that is not a proxy's", async () => {
    for (const [forwarded, expected] of [
      [null, [200, 403, "127.0.0.1"]],
      ["203.0.113.9", [403, 200, "203.0.113.9"]],
      ["2001:db8::7, 127.0.0.1", [403, 200, "2001:db8::7"]],
      ["203.0.113.9, 198.51.100.7", [403, 403, "198.51.100.7"]],
      ["198.51.100.7, 203.0.113.9", [403, 200, "203.0.113.9"]],
      ["203.0.113.9, junk", [200, 403, "127.0.0.1"]],
    ] as const) {
      expect([forwarded, await statuses(behindProxy(), forwarded)]).toEqual([forwarded, [...expected]]);
    }
  });
}

const FIGURES = {
  requests_total: ["route", "status", "stream"],
  attempts_total: ["channel", "outcome"],
  overhead_seconds: ["le"],
  ttft_seconds: ["le"],
  upstream_seconds: ["channel", "le"],
  inflight: [],
  tokens_total: ["kind"],
  channel_state: ["channel", "state"],
  cache_total: ["result"],
  aborts_total: ["phase"],
  log_queue: [],
  log_dropped_total: [],
} as const;

function metricsTests(target: () => Target): void {
  const PARALLEL = 32;
  const scrape = async () => (await target().fetch("/metrics")).text();
  const linesOf = (text: string) => text.split("\n").filter((line) => line.startsWith("gokv_relay_"));

  test("keys that are refused are counted by reason", async () => {
    await using rig = await RelayRig.open(target());
    const { group } = rig;
    const disabled = await makeToken(target(), { group, status: 0 });
    const expired = await makeToken(target(), { group, expired_time: 1 });
    const elsewhere = await makeToken(target(), { group, allow_ips: ["192.0.2.1"] });
    const keys = [null, "sk-fake-token", "sk-fake-token", disabled.key, expired.key, elsewhere.key, rig.token.key];
    const askAll = async () => {
      for (const key of keys) await (await chat(target(), key)).text();
    };
    const expected = { missing_api_key: 1, invalid_api_key: 2, token_disabled: 1, token_expired: 1, ip_not_allowed: 1 };
    const grown = await growthOf(target(), "gokv_auth_failures_total", Object.keys(expected), askAll);
    expect(grown).toEqual(expected);
  });

  test("what is refused for want of a channel is counted by its code, what an upstream refuses is not", async () => {
    await using rig = await RelayRig.open(target());
    rig.upstream.next(refuse(503), rateLimit({ "retry-after": "60" }));
    const askAll = async () => {
      const statuses: number[] = [];
      for (let times = 0; times < 3; times++) statuses.push((await rig.chat()).status);
      expect(statuses).toEqual([503, 429, 503]);
    };
    const reasons = ["channels_cooling_down", "bad_upstream_response"];
    const grown = await growthOf(target(), "gokv_rejected_total", reasons, askAll);
    expect(grown).toEqual({ channels_cooling_down: 1, bad_upstream_response: 0 });
  });

  test("all figures are there, with their labels, and are bounded whatever is asked for", async () => {
    await using rig = await RelayRig.open(target(), [{ models: ["known"] }]);
    await (await rig.chat({ model: "known" })).text();
    await (await rig.chat({ model: "known", stream: true })).text();
    await (await rig.chat({ model: "known", seed: 1 }, TTL)).text();
    await rig.chat({ model: "known", seed: 1 }, TTL);
    const text = await scrape();
    for (const [name, labels] of Object.entries(FIGURES)) {
      expect(text).toMatch(new RegExp(`^# TYPE gokv_relay_${name} (counter|gauge|histogram)$`, "m"));
      const lines = linesOf(text).filter((line) => line.startsWith(`gokv_relay_${name}`) && !line.includes("_info"));
      const found = new Set(lines.flatMap((line) => [...line.matchAll(/([a-z_]+)="/g)].map((match) => match[1]!)));
      expect([name, [...found].toSorted(), lines.length > 0]).toEqual([name, [...labels], true]);
    }
    await manyModelsAndTokens(rig);
    const after = await scrape();
    // Two more routes and statuses, and no line for each model or token.
    expect(linesOf(after).length).toBeLessThan(linesOf(text).length + 40);
    expect(after.length).toBeLessThan(200_000);
    expect(after).not.toMatch(/model-\d|sk-nexus|sk-upstream|secret prompt|token-name/);
    expect(after).toMatch(/^gokv_relay_inflight 0$/m);
  }, 480_000);

  /** Each with a name of its own: models, tokens that exist and those that do not, paths. */
  async function manyModelsAndTokens(rig: RelayRig): Promise<void> {
    const { group } = rig;
    await managed(target(), "PATCH", `/api/channel/${rig.channels[0]!.id}`, { models: [] });
    rig.plan(answerJson({ choices: [] }));
    const count = bySize(1_000, 2_000, 10_000);
    let next = 0;
    const work = async () => {
      for (let index = next++; index < count; index = next++) {
        const { key } = await makeToken(target(), { group, name: `token-name-${index}` });
        const fields = { model: `model-${index}`, messages: [{ role: "user", content: `secret prompt ${index}` }] };
        expect((await chat(target(), key, fields)).status).toBe(200);
        expect((await chat(target(), `sk-nexus-unknown-${index}`, fields)).status).toBe(401);
        await ask(target(), key, `/unknown-${index}`, {});
        await ask(target(), key, `/models/model-${index}`);
      }
    };
    await Promise.all(Array.from({ length: PARALLEL }, work));
  }

  test("requests, attempts, tokens, kept answers and states are counted", async () => {
    await using rig = await RelayRig.open(target());
    const { id } = rig.channels[0]!;
    const before = await scrape();
    await (await rig.chat()).text();
    await (await rig.chat({ seed: 1 }, TTL)).text();
    await (await rig.chat({ seed: 1 }, TTL)).text();
    rig.upstream.next(refuse(400));
    await (await rig.chat()).text();
    await (await rig.chat({ stream: true })).text();
    await rig.act(0, "disable");
    const after = await scrape();
    const grown = (line: string) => figure(after, line) - figure(before, line);
    expect([
      grown('gokv_relay_requests_total{route="chat",status="200",stream="0"}'),
      grown('gokv_relay_requests_total{route="chat",status="400",stream="0"}'),
      grown('gokv_relay_requests_total{route="chat",status="200",stream="1"}'),
      grown(`gokv_relay_attempts_total{channel="${id}",outcome="answer"}`),
      grown(`gokv_relay_attempts_total{channel="${id}",outcome="status"}`),
      grown(`gokv_relay_attempts_total{channel="${id}",outcome="stream"}`),
      grown('gokv_relay_cache_total{result="hit"}'),
      grown('gokv_relay_cache_total{result="miss"}'),
      grown("gokv_relay_overhead_seconds_count"),
      grown("gokv_relay_ttft_seconds_count"),
      grown(`gokv_relay_upstream_seconds_count{channel="${id}"}`),
    ]).toEqual([3, 1, 1, 2, 1, 1, 1, 1, 5, 1, 4]);
    expect(grown('gokv_relay_tokens_total{kind="prompt"}')).toBeGreaterThan(0);
    expect(grown('gokv_relay_tokens_total{kind="completion"}')).toBeGreaterThan(0);
    expect(figure(after, `gokv_relay_channel_state{channel="${id}",state="disabled"}`)).toBe(1);
    expect(figure(after, `gokv_relay_channel_state{channel="${id}",state="closed"}`)).toBe(0);
  });

  test("the part of a prompt that came from a cache is logged with its request, and counted", async () => {
    await using rig = await RelayRig.open(target());
    const cached = 'gokv_relay_tokens_total{kind="cached"}';
    const before = figure(await scrape(), cached);
    const usage = { prompt_tokens: 5, completion_tokens: 1, prompt_tokens_details: { cached_tokens: 2 } };
    rig.upstream.next(answerWith({ usage }));
    await (await rig.chat()).text();
    expect((await rig.rows(1))[0]).toMatchObject({
      prompt_tokens: 5,
      completion_tokens: 1,
      cached_tokens: 2,
      quota: 6,
    });
    expect(figure(await scrape(), cached) - before).toBe(2);
  });

  test("a channel with a waiting model is cooling in the figures, as its health says", async () => {
    await using rig = await RelayRig.open(target());
    rig.upstream.next(rateLimit({ "Retry-After": "100" }));
    await (await rig.chat({ model: "busy" })).text();
    const text = await scrape();
    const { id } = rig.channels[0]!;
    const states = ["closed", "open", "half_open", "cooling", "disabled", "locked"];
    const shown = states.filter((state) => figure(text, `gokv_relay_channel_state{channel="${id}",state="${state}"}`));
    expect([(await rig.health(0)).state, shown]).toEqual(["cooling", ["cooling"]]);
  });

  function figure(text: string, name: string): number {
    const line = text.split("\n").find((candidate) => candidate.startsWith(`${name} `));
    return line === undefined ? 0 : Number(line.slice(name.length + 1));
  }
}
