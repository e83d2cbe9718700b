// Streams through the relay as clients see them: what passes byte for byte, and how every ending is told.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import type { Plan } from "../support/fault-upstream.ts";
import { openRaw } from "../support/raw-request.ts";
import { dataOf, RELAY_ENV, relayErrorOf } from "../support/relay-client.ts";
import { chatTextOf, RelayRig } from "../support/relay-rig.ts";
import type { OpenTarget } from "../support/targets.ts";
import {
  afterwards,
  answerText,
  chatChunk,
  DONE,
  errorFrame,
  event,
  normalEvents,
  refuse,
  stream,
} from "../support/upstream-plans.ts";
import { useTarget } from "../support/use-target.ts";

setDefaultTimeout(120_000);

const STREAM = { stream: true };
const EVENT_BYTES_MAX = 64 * 1024;
const ENV = { ...RELAY_ENV, RELAY_EVENT_MAX: `${EVENT_BYTES_MAX}` };

const FINISH = chatChunk("", "stop");
const USAGE = { prompt_tokens: 7, completion_tokens: 5, total_tokens: 12 };
const usageChunk = event({ id: "chatcmpl-1", object: "chat.completion.chunk", choices: [], usage: USAGE });
const INTERRUPTED = event({
  error: {
    message: "the upstream stream was interrupted",
    type: "upstream_error",
    param: null,
    code: "upstream_stream_interrupted",
  },
});

export function relayStreamsSuite(name: string, open: OpenTarget): void {
  describe.concurrent(`streams of ${name}`, () => {
    const target = useTarget(open, ENV);

    test("the first event is there before the upstream sends the second", async () => {
      await using rig = await RelayRig.open(target());
      const second = Promise.withResolvers<void>();
      rig.plan(async (exchange) => {
        await exchange.startEvents();
        await exchange.chunk(chatChunk("one"));
        await afterwards(second.promise, async () => {
          await exchange.chunk(chatChunk("two") + FINISH + DONE);
          await exchange.endChunks();
        })(exchange);
      });
      const answer = await rig.chat(STREAM);
      const reader = answer.body!.pipeThrough(new TextDecoderStream()).getReader();
      expect((await reader.read()).value).toBe(chatChunk("one"));
      second.resolve();
      let rest = "";
      for (let part = await reader.read(); !part.done; part = await reader.read()) rest += part.value;
      expect(rest).toBe(chatChunk("two") + FINISH + DONE);
    });

    test("it is an event stream that nothing on the way keeps or holds back", async () => {
      await using rig = await RelayRig.open(target());
      const answer = await rig.chat(STREAM);
      expect(answer.status).toBe(200);
      expect(answer.headers.get("content-type")).toMatch(/^text\/event-stream/);
      expect(answer.headers.get("cache-control")).toBe("no-cache");
      expect(answer.headers.get("x-accel-buffering")).toBe("no");
      expect(answer.headers.get("content-encoding")).toBeNull();
      expect(answer.headers.get("x-gokv-attempts")).toBe("1");
      expect(await chatTextOf(answer)).toBe("You said: hi");
    });

    test.each([
      ["LF", "\n"],
      ["CRLF", "\r\n"],
      ["CR", "\r"],
    ])("cut in two at every byte it arrives as it was sent: lines end with %s", async (_, lineEnd) => {
      await using rig = await RelayRig.open(target());
      const text = (chatChunk("你好 😀 é") + chatChunk("b", "stop") + DONE).replaceAll("\n", lineEnd);
      const bytes = Buffer.from(text);
      const cuts = Array.from({ length: bytes.length - 1 }, (_, at) => at + 1);
      for (let at = 0; at < cuts.length; at += 32) {
        const some = cuts.slice(at, at + 32);
        rig.upstream.next(...some.map((cut) => cutAt(bytes, cut)));
        const answers = await Promise.all(some.map(() => rig.chat(STREAM)));
        const bodies = await Promise.all(answers.map(async (answer) => Buffer.from(await answer.arrayBuffer())));
        for (const body of bodies) expect(body.equals(bytes)).toBe(true);
      }
    });

    test("sent byte by byte it arrives as it was sent", async () => {
      await using rig = await RelayRig.open(target());
      const events = [": hello\n\n", chatChunk("你好 😀"), 'id: 7\ndata: {"a":\ndata: 1}\n\n', FINISH, DONE];
      rig.plan(stream({ events, pieceBytes: 1 }));
      expect(await (await rig.chat(STREAM)).text()).toBe(events.join(""));
    });

    test("the usage is always asked for, and shown to those who asked", async () => {
      await using rig = await RelayRig.open(target());
      const body = chatChunk("a") + FINISH;
      rig.plan(stream({ events: [body, usageChunk, DONE] }));
      expect(await (await rig.chat(STREAM)).text()).toBe(body + DONE);
      const asking = { ...STREAM, stream_options: { include_usage: true } };
      expect(await (await rig.chat(asking)).text()).toBe(body + usageChunk + DONE);
      const refusing = { ...STREAM, stream_options: { include_usage: false, x: 1 } };
      expect(await (await rig.chat(refusing)).text()).toBe(body + DONE);
      expect(rig.upstream.requests.map(({ json }) => json.stream_options)).toEqual([
        { include_usage: true },
        { include_usage: true },
        { include_usage: true, x: 1 },
      ]);
      for (const row of await rig.rows(3)) {
        expect(row).toMatchObject({ status: 200, stream: 1, prompt_tokens: 7, completion_tokens: 5, quota: 12 });
        expect(row).toMatchObject({ estimated: 0, error_code: null });
      }
    });

    test("usage on a chunk with text is passed on, and the last usage counts", async () => {
      await using rig = await RelayRig.open(target());
      const events = [
        chatChunk("a", null, { usage: { prompt_tokens: 7, completion_tokens: 1 } }),
        chatChunk("b", "stop", { usage: { prompt_tokens: 7, completion_tokens: 2 } }),
        DONE,
      ];
      rig.plan(stream({ events }));
      expect(await (await rig.chat(STREAM)).text()).toBe(events.join(""));
      expect(await rig.rows(1)).toMatchObject([{ prompt_tokens: 7, completion_tokens: 2, estimated: 0 }]);
    });

    test("a channel that knows no stream_options is not sent any", async () => {
      await using rig = await RelayRig.open(target(), [{ no_stream_options: true }]);
      await (await rig.chat(STREAM)).text();
      await (await rig.chat({ ...STREAM, stream_options: { include_usage: true } })).text();
      for (const { json } of rig.upstream.requests) expect(json).not.toHaveProperty("stream_options");
      expect(rig.calls).toEqual([2]);
    });

    test("an empty finish_reason, as some send with every chunk, is no end", async () => {
      await using rig = await RelayRig.open(target());
      const events = [chatChunk("he", ""), chatChunk("llo", "")];
      rig.plan(stream({ events, end: "reset" }));
      expect(await (await rig.chat(STREAM)).text()).toBe(events.join("") + INTERRUPTED);
      expect(await rig.rows(1)).toMatchObject([{ error_code: "upstream_stream_interrupted" }]);
    });

    test("of several answers all must have come to their end", async () => {
      const second = (content: string, finish: string | null) =>
        event({ object: "chat.completion.chunk", choices: [{ index: 1, delta: { content }, finish_reason: finish }] });
      await using rig = await RelayRig.open(target());
      const begun = [chatChunk("whole"), second("half", null), FINISH];
      rig.upstream.next(
        stream({ events: begun, end: "clean" }),
        stream({ events: [...begun, second("", "length")], end: "clean" }),
      );
      expect(await (await rig.chat({ ...STREAM, n: 2 })).text()).toBe(begun.join("") + INTERRUPTED);
      expect(await (await rig.chat({ ...STREAM, n: 2 })).text()).toEndWith(second("", "length") + DONE);
    });

    test("the time between its events is none that the relay took", async () => {
      await using rig = await RelayRig.open(target());
      rig.plan(stream({ events: [chatChunk("a"), chatChunk("b"), FINISH, DONE], gapMs: 400 }));
      await (await rig.chat(STREAM)).text();
      const [row] = await rig.rows(1);
      expect(row!.duration_ms as number).toBeGreaterThan(1_100);
      expect(row!.overhead_ms as number).toBeLessThan(1_000);
    });

    test.each(["clean", "close", "reset"] as const)(
      "what ends unfinished (%s) is told to be interrupted, after all that came, without [DONE]",
      async (end) => {
        for (const count of [1, 2, 5]) {
          await using rig = await RelayRig.open(target(), [{}, {}]);
          const events = Array.from({ length: 6 }, (_, index) => chatChunk(`word${index}`));
          rig.plan(stream({ events, cutAfterEvents: count, end }));
          const answer = await rig.chat(STREAM);
          expect(answer.status).toBe(200);
          expect(await answer.text()).toBe(events.slice(0, count).join("") + INTERRUPTED);
          expect(rig.calls).toEqual([1, 0]);
          const [row] = await rig.rows(1);
          expect(row).toMatchObject({ status: 200, error_code: "upstream_stream_interrupted", estimated: 1 });
          expect((await rig.health(0)).failures).toBe(1);
        }
      },
    );

    test.each(["close", "reset"] as const)("a half event is never passed on (%s)", async (end) => {
      await using rig = await RelayRig.open(target());
      const whole = chatChunk("a");
      rig.plan(stream({ events: [whole, chatChunk("b")], cutAfterBytes: whole.length + 20, end }));
      expect(await (await rig.chat(STREAM)).text()).toBe(whole + INTERRUPTED);
    });

    test.each(["clean", "close"] as const)("a finish without [DONE] gets it, once (%s)", async (end) => {
      await using rig = await RelayRig.open(target());
      rig.plan(stream({ events: [chatChunk("a"), FINISH, usageChunk], end }));
      expect(await (await rig.chat(STREAM)).text()).toBe(chatChunk("a") + FINISH + DONE);
      expect(await rig.rows(1)).toMatchObject([{ status: 200, error_code: null, quota: 12, estimated: 0 }]);
    });

    test("[DONE] ends it, whatever the upstream does behind", async () => {
      await using rig = await RelayRig.open(target());
      rig.plan(stream({ events: [chatChunk("a"), FINISH, DONE], end: "still" }));
      expect(await (await rig.chat(STREAM)).text()).toBe(chatChunk("a") + FINISH + DONE);
      expect(await rig.rows(1)).toMatchObject([{ status: 200, error_code: null }]);
    });

    test("an error as its first event is answered by another channel, as one clean stream", async () => {
      await using rig = await RelayRig.open(target(), [{}, {}]);
      rig.plan(stream({ events: [": wait\n\n", errorFrame, chatChunk("never"), DONE] }));
      const answer = await rig.chat(STREAM);
      expect(answer.headers.get("x-gokv-attempts")).toBe("2");
      const text = await answer.text();
      expect(text).not.toContain("error");
      expect(text).not.toContain("never");
      expect(dataOf(text).at(-1)).toBe("[DONE]");
      expect(rig.calls).toEqual([1, 1]);
      expect((await rig.health(0)).failures).toBe(1);
      expect(await rig.rows(1)).toMatchObject([{ status: 200, attempts: 2, channel_id: rig.channels[1]!.id }]);
    });

    test("an error as its first event without another channel is an answer of its own, scrubbed", async () => {
      await using rig = await RelayRig.open(target(), [{ key: "sk-canary-0123456789abcdef" }]);
      const message = "no capacity for sk-canary-0123456789abcdef";
      rig.plan(stream({ events: [event({ error: { message, type: "server_error", code: "overloaded" } })] }));
      const answer = await rig.chat(STREAM);
      const error = await relayErrorOf(answer);
      expect(answer.status).toBe(502);
      expect(error.code).toBe("overloaded");
      expect(error.message).toBe("no capacity for ***");
    });

    test("an error in the middle is passed on scrubbed, ends it without [DONE], and is not tried again", async () => {
      await using rig = await RelayRig.open(target(), [{ key: "sk-canary-0123456789abcdef" }, {}]);
      const error = { message: "the key sk-canary-0123456789abcdef is tired", type: "server_error", code: "tired" };
      rig.plan(stream({ events: [chatChunk("one"), event({ error }), chatChunk("two"), DONE] }));
      const text = await (await rig.chat(STREAM)).text();
      const shown = { error: { message: "the key *** is tired", type: "server_error", param: null, code: "tired" } };
      const [first, second, ...more] = dataOf(text);
      expect([`data: ${first}\n\n`, JSON.parse(second!), more]).toEqual([chatChunk("one"), shown, []]);
      expect(rig.calls).toEqual([1, 0]);
      expect((await rig.rows(1))[0]).toMatchObject({ status: 200, error_code: expect.any(String), attempts: 1 });
    });

    test("an event that is named an error is one without saying so, scrubbed", async () => {
      await using rig = await RelayRig.open(target(), [{ key: "sk-canary-0123456789abcdef" }]);
      for (const said of [{ message: "sk-canary-0123456789abcdef is tired" }, "sk-canary-0123456789abcdef is tired"]) {
        rig.plan(stream({ events: [chatChunk("one"), event(said, "error"), chatChunk("two"), DONE] }));
        const [, second, ...more] = dataOf(await (await rig.chat(STREAM)).text());
        const error = { message: "*** is tired", type: "upstream_error", param: null, code: null };
        expect([JSON.parse(second!), more]).toEqual([{ error }, []]);
      }
    });

    test("an event that is too large interrupts a stream that has begun", async () => {
      await using rig = await RelayRig.open(target(), [{}, {}]);
      const fits = chatChunk("x".repeat(EVENT_BYTES_MAX - chatChunk("").length - '"content":""'.length));
      expect(fits.length).toBe(EVENT_BYTES_MAX);
      rig.plan(stream({ events: [chatChunk("a"), fits, FINISH, DONE] }));
      expect(await (await rig.chat(STREAM)).text()).toBe(chatChunk("a") + fits + FINISH + DONE);
      rig.plan(stream({ events: [chatChunk("a"), fits.replace("xx", "xxx"), FINISH, DONE] }));
      expect(await (await rig.chat(STREAM)).text()).toBe(chatChunk("a") + INTERRUPTED);
      expect(rig.calls).toEqual([2, 0]);
    });

    test.each([
      ["as the first", []],
      ["after others", [chatChunk("thirty bytes of an answer, yes")]],
    ])("an event that is too large %s costs what was set aside, and says nothing of the channel", async (_, before) => {
      await using rig = await RelayRig.open(target(), [{}, {}], { remain_quota: 10_000 });
      rig.plan(stream({ events: [...before, chatChunk("x".repeat(2 * EVENT_BYTES_MAX)), FINISH, DONE] }));
      // As many as would open the breaker of a channel that fails.
      for (let asked = 1; asked <= 6; asked++) {
        const answer = await rig.chat({ ...STREAM, max_tokens: 99 });
        const text = await answer.text();
        expect(answer.status).toBe(before.length > 0 ? 200 : 502);
        expect(text).toContain(before.length > 0 ? INTERRUPTED : '"code":"bad_upstream_response"');
      }
      expect(rig.calls).toEqual([6, 0]);
      expect(await rig.health(0)).toMatchObject({ state: "closed", failures: 0 });
      for (const { quota, estimated } of await rig.rows(6)) expect([quota, estimated]).toEqual([100, 1]);
    });

    test("a stream that ends with an event that is too large costs no less than what it sent", async () => {
      await using rig = await RelayRig.open(target(), [{}], { remain_quota: 10_000 });
      const events = [chatChunk("abc".repeat(500)), chatChunk("x".repeat(2 * EVENT_BYTES_MAX))];
      rig.plan(stream({ events }));
      await (await rig.chat({ ...STREAM, max_tokens: 99 })).text();
      expect((await rig.onlyRow()).quota).toBe(501);
    });

    test("an event without an end is given up at the bound", async () => {
      await using rig = await RelayRig.open(target());
      rig.plan(async (exchange) => {
        await exchange.startEvents();
        await exchange.chunk(`${chatChunk("a")}data: `);
        while (!exchange.isGone) await exchange.chunk("x".repeat(8 * 1024));
      });
      expect(await (await rig.chat(STREAM)).text()).toBe(chatChunk("a") + INTERRUPTED);
      await rig.upstream.requests[0]!.closed;
    });

    test.each<[string, Plan]>([
      ["HTML under 200", answerText("<!doctype html><p>Sign in</p>", "text/html")],
      ["JSON where a stream was asked", answerText('{"id":"x","choices":[]}', "application/json")],
      ["no content type", (exchange) => exchange.answer(200, {}, "data: {}\n\n")],
      ["a stream with nothing in it", stream({ events: [], end: "clean" })],
      ["a stream of comments alone", stream({ events: [": a\n\n", ": b\n\n"], end: "clean" })],
      ["a stream cut before its first event", stream({ events: [": a\n\n"], end: "close" })],
    ])("%s is a failure of the channel: the next one answers, a lone one is 502", async (_, plan) => {
      await using rig = await RelayRig.open(target(), [{}, {}]);
      rig.plan(plan);
      const answer = await rig.chat(STREAM);
      expect([answer.status, await chatTextOf(answer)]).toEqual([200, "You said: hi"]);
      expect(rig.calls).toEqual([1, 1]);
      expect((await rig.health(0)).failures).toBe(1);
      rig.plan(plan, plan);
      const refused = await rig.chat(STREAM);
      const error = await relayErrorOf(refused);
      expect([refused.status, error.type, error.code]).toEqual([502, "upstream_error", "bad_upstream_response"]);
      expect(error.message).not.toContain("<");
    });

    test.each<[string, Plan]>([
      ["HTML under 200", answerText("<!doctype html><p>Sign in</p>", "text/html")],
      ["a stream where JSON was asked", stream({ events: [chatChunk("a"), DONE] })],
    ])("a whole answer that is %s is a failure of the channel", async (_, plan) => {
      await using rig = await RelayRig.open(target(), [{}, {}]);
      rig.plan(plan);
      const answer = await rig.chat();
      expect([answer.status, await chatTextOf(answer)]).toEqual([200, "You said: hi"]);
      expect(rig.calls).toEqual([1, 1]);
      expect((await rig.health(0)).failures).toBe(1);
    });

    test("a refusal of a stream keeps its status and is JSON", async () => {
      await using rig = await RelayRig.open(target());
      rig.plan(refuse(400, { code: "context_length_exceeded", message: "Too long." }));
      const answer = await rig.chat(STREAM);
      expect([answer.status, (await relayErrorOf(answer)).code]).toEqual([400, "context_length_exceeded"]);
    });

    test("a channel may think longer before its first event than a stream may be silent", async () => {
      await using hasty = await open({ ...ENV, RELAY_IDLE_MS: "300" });
      await using rig = await RelayRig.open(hasty);
      rig.plan(async (exchange) => {
        await exchange.startEvents();
        await exchange.pause(900);
        await exchange.chunk(chatChunk("late"));
        await exchange.gone;
      });
      expect(await (await rig.chat(STREAM)).text()).toBe(chatChunk("late") + INTERRUPTED);
      expect(rig.calls).toEqual([1]);
    });

    test("a first event that does not come in time is 504", async () => {
      await using rig = await RelayRig.open(target(), [{ ttft_ms: 600 }, {}]);
      rig.plan(stream({ events: [": a\n\n"], end: "still" }));
      const answer = await rig.chat(STREAM);
      expect([answer.status, (await relayErrorOf(answer)).code]).toEqual([504, "upstream_timeout"]);
      await rig.upstream.requests[0]!.closed;
      expect(rig.calls).toEqual([1, 0]);
    });

    test("a stream that outlasts the time of the whole request is interrupted", async () => {
      await using rig = await RelayRig.open(target(), [{ total_ms: 1_500 }]);
      rig.plan(stream({ events: Array.from({ length: 100 }, () => chatChunk("a")), gapMs: 100 }));
      const text = await (await rig.chat(STREAM)).text();
      expect(text).toMatch(/^data: /);
      expect(text).toEndWith(INTERRUPTED);
      expect(dataOf(text).length).toBeLessThan(20);
      await rig.upstream.requests[0]!.closed;
      expect(await rig.rows(1)).toMatchObject([{ status: 200, error_code: "upstream_timeout" }]);
      expect((await rig.health(0)).failures).toBe(1);
    });

    test("clients that read until their time is over say nothing of the channel", async () => {
      await using rig = await RelayRig.open(target(), [{ total_ms: 1_500 }]);
      rig.plan(async (exchange) => {
        await exchange.startEvents();
        while (!exchange.isGone) await exchange.chunk(chatChunk("x".repeat(16 * 1024)));
      });
      const body = JSON.stringify({ model: "any", messages: [{ role: "user", content: "hi" }], stream: true });
      const readSlowly = async (index: number) => {
        using client = await openRaw(target().url);
        client.send(
          `POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${rig.token.key}\r\n` +
            `Content-Length: ${body.length}\r\n\r\n${body}`,
        );
        await client.received(/data: /);
        client.pause();
        await (await rig.upstream.request(index)).closed;
        client.resume();
        return (await client.received(/0\r\n\r\n$/)).slice(-1000);
      };
      for (const text of await Promise.all([0, 1, 2, 3, 4, 5].map(readSlowly))) {
        expect(text).toContain(INTERRUPTED);
        expect(text).not.toContain("[DONE]");
      }
      const row = { status: 200, error_code: "upstream_timeout" };
      expect(await rig.rows(6)).toMatchObject(new Array(6).fill(row));
      expect(await rig.health(0)).toMatchObject({ state: "closed", requests: 6, failures: 0 });
    });
  });

  describe.concurrent(`streams of responses of ${name}`, () => {
    const target = useTarget(open, RELAY_ENV);
    const RESPONSE = { model: "any", input: "hi", ...STREAM };

    test("keep the names of their events and get no [DONE]", async () => {
      await using rig = await RelayRig.open(target());
      const sent: string[] = [];
      rig.plan((exchange) => {
        sent.push(...normalEvents(exchange));
        return stream({ events: sent, end: "whole" })(exchange);
      });
      const text = await (await rig.post("/responses", RESPONSE)).text();
      expect(text).toBe(sent.join(""));
      expect(text).toContain("event: response.output_text.delta\n");
      expect(text).not.toContain("[DONE]");
      expect(rig.upstream.requests[0]!.json).not.toHaveProperty("stream_options");
      expect(await rig.rows(1)).toMatchObject([{ status: 200, route: "responses", estimated: 0, error_code: null }]);
    });

    test.each(["clean", "close", "reset"] as const)("report a cut (%s) as an error event", async (end) => {
      await using rig = await RelayRig.open(target());
      const sent: string[] = [];
      rig.plan((exchange) => {
        sent.push(...normalEvents(exchange).slice(0, 5));
        return stream({ events: sent, end })(exchange);
      });
      const text = await (await rig.post("/responses", RESPONSE)).text();
      const error = {
        type: "error",
        code: "upstream_stream_interrupted",
        message: "the upstream stream was interrupted",
        param: null,
      };
      expect(text).toStartWith(sent.join(""));
      const last = text.slice(sent.join("").length);
      expect(last).toMatch(/^event: error\ndata: [^\n]+\n\n$/);
      expect(JSON.parse(dataOf(last)[0]!)).toEqual(error);
      expect(await rig.rows(1)).toMatchObject([{ error_code: "upstream_stream_interrupted" }]);
    });

    test("pass an error event on scrubbed, and end with it", async () => {
      await using rig = await RelayRig.open(target(), [{ key: "sk-canary-0123456789abcdef" }]);
      const failure = { type: "error", code: "boom", message: "sk-canary-0123456789abcdef broke", param: null };
      rig.plan((exchange) => {
        const [created = ""] = normalEvents(exchange);
        return stream({ events: [created, event(failure, "error"), event("late")] })(exchange);
      });
      const text = await (await rig.post("/responses", RESPONSE)).text();
      expect(text).toContain("event: response.created\n");
      expect(JSON.parse(dataOf(text).at(-1)!)).toMatchObject({ type: "error", code: "boom", message: "*** broke" });
      expect(text).not.toContain("late");
    });
  });
}

/** The body in two pieces, each on its own. */
function cutAt(bytes: Buffer, at: number): Plan {
  return async (exchange) => {
    await exchange.startEvents();
    await exchange.chunk(bytes.subarray(0, at));
    await new Promise((resolve) => setImmediate(resolve));
    await exchange.chunk(bytes.subarray(at));
    await exchange.endChunks();
  };
}
