// Clients that leave, upstreams that fall silent: nobody works for who is gone, nobody is cut off for waiting.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { eventually, untilStill } from "../support/eventually.ts";
import type { Plan } from "../support/fault-upstream.ts";
import { expectTime, expectTimeFrom } from "../support/figures-in-bounds.ts";
import { openRaw } from "../support/raw-request.ts";
import { metricOf } from "../support/relay-books.ts";
import { dataOf, expectRelayError, type Json, RELAY_ENV } from "../support/relay-client.ts";
import { chatTextOf, RelayRig } from "../support/relay-rig.ts";
import type { OpenTarget } from "../support/targets.ts";
import {
  afterMs,
  afterwards,
  answerNormally,
  answerText,
  answerWith,
  chatChunk,
  DONE,
  event,
  rateLimit,
  refuse,
  resetAtOnce,
  stayStill,
  stream,
  wrongKey,
} from "../support/upstream-plans.ts";
import { useTarget } from "../support/use-target.ts";

setDefaultTimeout(120_000);

const STREAM = { stream: true };
const FREE_MS_MAX = 5_000;
/** How soon an upstream must see that its client has left. */
const CLOSE_MS_MAX = 200;
/** Longer than a server of this kind waits by default, and than the pause between two pings. */
const SILENCE_MS = 20_000;
const PING = ": ping\n\n";

/** What is taken by default. */
const EVENT_BYTES_MAX = 1024 * 1024;
const ANSWER_BYTES_MAX = 16 * 1024 * 1024;
const FINISH = chatChunk("", "stop");
const USAGE = { prompt_tokens: 70, completion_tokens: 50 };
const usageChunk = event({ choices: [], usage: USAGE });

/** Sends one event, then nothing more. */
const oneEvent: Plan = stream({ events: [chatChunk("one")], end: "still" });
/** Sends the head of a stream, then nothing more. */
const onlyHead: Plan = stream({ events: [], end: "still" });

/** Sends the request and leaves once `isReady` says so; resolves with how long the upstream then saw nothing of it. */
async function leave(rig: RelayRig, fields: Json, hasAnswer: boolean): Promise<number> {
  const controller = new AbortController();
  const asked = rig.chat(fields, { signal: controller.signal });
  const request = await rig.upstream.request(0);
  if (hasAnswer) {
    const reader = (await asked).body!.getReader();
    await reader.read();
  } else {
    asked.catch(() => undefined);
    // The head of the upstream's answer may be on its way.
    await Bun.sleep(50);
  }
  const leftMs = performance.now();
  controller.abort();
  const tookMs = (await request.closed) - leftMs;
  expect(request.wasGivenUp).toBe(true);
  return tookMs;
}

export function relayAbortsSuite(name: string, open: OpenTarget): void {
  describe(`clients of ${name} that leave`, () => {
    const target = useTarget(open, RELAY_ENV);

    test.each<[string, Json, Plan, boolean]>([
      ["in the middle of a stream", STREAM, oneEvent, true],
      ["before the head of a stream", STREAM, stayStill, false],
      ["before the first event of a stream", STREAM, onlyHead, false],
      ["before the head of a whole answer", {}, stayStill, false],
      ["in the middle of a whole answer", {}, halfAnswer, false],
    ])("%s: their upstream is closed at once, and one row says so", async (_, fields, plan, hasAnswer) => {
      await using rig = await RelayRig.open(target(), [{}, {}]);
      rig.plan(plan);
      expectTime("closing upstream", await leave(rig, fields, hasAnswer), CLOSE_MS_MAX);
      expect(rig.calls).toEqual([1, 0]);
      expect(await rig.onlyRow()).toMatchObject({
        status: 499,
        error_code: "client_closed_request",
        attempts: 1,
        channel_id: rig.channels[0]!.id,
        // The prompt was given to the upstream.
        ...(hasAnswer ? { estimated: 1, completion_tokens: 1 } : { estimated: 1, completion_tokens: 0 }),
      });
      const health = await rig.health(0);
      expect([health.failures, health.state]).toEqual([0, "closed"]);
    });

    test("of a stream of responses: the upstream is closed at once", async () => {
      await using rig = await RelayRig.open(target());
      const created = event({ type: "response.created", response: { id: "resp_1" } }, "response.created");
      rig.plan(stream({ events: [created], end: "still" }));
      const controller = new AbortController();
      const answer = await rig.post("/responses", { model: "a", input: "b", ...STREAM }, { signal: controller.signal });
      await answer.body!.getReader().read();
      const leftMs = performance.now();
      controller.abort();
      expectTime("closing upstream", (await rig.upstream.requests[0]!.closed) - leftMs, CLOSE_MS_MAX);
    });

    test("while the answer of another is read: that one is not touched", async () => {
      await using rig = await RelayRig.open(target());
      const more = Promise.withResolvers<void>();
      const held = stream({ events: [chatChunk("a")] });
      rig.upstream.next(async (exchange) => {
        await exchange.startEvents();
        await exchange.chunk(chatChunk("a"));
        await afterwards(more.promise, () => exchange.chunk(FINISH + DONE))(exchange);
        await exchange.endChunks();
      }, held);
      const staying = await rig.chat(STREAM);
      const controller = new AbortController();
      const leaving = await rig.chat(STREAM, { signal: controller.signal });
      controller.abort();
      await leaving.text().catch(() => undefined);
      more.resolve();
      expect(await staying.text()).toBe(chatChunk("a") + FINISH + DONE);
    });

    test("in numbers: nothing of them stays", async () => {
      await using rig = await RelayRig.open(target());
      rig.plan(oneEvent);
      const count = 40;
      await Promise.all(
        Array.from({ length: count }, async () => {
          const controller = new AbortController();
          const answer = await rig.chat(STREAM, { signal: controller.signal });
          await answer.body!.getReader().read();
          controller.abort();
        }),
      );
      const rows = await rig.rows(count);
      expect(rows.map(({ status }) => status)).toEqual(new Array(count).fill(499));
      await Promise.all(rig.upstream.requests.map(({ closed }) => closed));
      const metrics = await (await target().fetch("/metrics")).text();
      expect(metrics).toMatch(/^gokv_relay_inflight 0$/m);
    });
  });

  describe(`clients of ${name} that leave while their answers are wanted to the end`, () => {
    const target = useTarget(open, { ...RELAY_ENV, RELAY_ON_CLIENT_ABORT: "drain" });

    test("in the middle of a stream: the upstream finishes, and its usage counts", async () => {
      await using rig = await RelayRig.open(target());
      const more = Promise.withResolvers<void>();
      rig.plan(async (exchange) => {
        await exchange.startEvents();
        await exchange.chunk(chatChunk("one"));
        await afterwards(more.promise, async () => {
          await exchange.chunk(chatChunk("two"));
          await exchange.chunk(FINISH + usageChunk + DONE);
          await exchange.endChunks();
        })(exchange);
      });
      const controller = new AbortController();
      const answer = await rig.chat(STREAM, { signal: controller.signal });
      await answer.body!.getReader().read();
      controller.abort();
      await Bun.sleep(CLOSE_MS_MAX);
      more.resolve();
      const row = await rig.onlyRow();
      expect(row).toMatchObject({ status: 499, estimated: 0, prompt_tokens: 70, completion_tokens: 50, quota: 120 });
      expect(rig.upstream.mistakes).toEqual([]);
    });

    test.each<[string, Json, Plan]>([
      ["before the first event", STREAM, stream({ events: [chatChunk("one"), FINISH, usageChunk, DONE] })],
      ["before a whole answer", {}, answerWith({ usage: USAGE })],
    ])("%s: the upstream finishes, and its usage counts, as does the client that left", async (_, fields, plan) => {
      await using rig = await RelayRig.open(target());
      const left = () => metricOf(target(), "gokv_relay_aborts_total");
      const leftBefore = await left();
      const more = Promise.withResolvers<void>();
      rig.plan(afterwards(more.promise, plan));
      const controller = new AbortController();
      const asked = rig.chat(fields, { signal: controller.signal });
      const request = await rig.upstream.request(0);
      controller.abort();
      await asked.catch(() => undefined);
      await Bun.sleep(CLOSE_MS_MAX);
      expect(request.wasGivenUp).toBe(false);
      more.resolve();
      const row = await rig.onlyRow();
      expect(row).toMatchObject({ status: 499, estimated: 0, prompt_tokens: 70, completion_tokens: 50, quota: 120 });
      expect(await left()).toBe(leftBefore + 1);
    });

    test.each<[string, Json, Plan]>([
      ["a stream", STREAM, oneEvent],
      ["a whole answer", {}, stayStill],
    ])("before the end of %s: their parallel place is free for another", async (_, fields, plan) => {
      await using rig = await RelayRig.open(target(), [{}], { max_parallel: 1 });
      rig.upstream.next(plan);
      const controller = new AbortController();
      const asked = rig.chat(fields, { signal: controller.signal });
      const request = await rig.upstream.request(0);
      controller.abort();
      await asked.then((answer) => answer.text()).catch(() => undefined);
      await eventually("the place is free", FREE_MS_MAX, async () => (await rig.chat()).status === 200);
      expect(request.wasGivenUp).toBe(false);
    });

    test("in numbers: of one token twice as many are at work as may be parallel, and no more", async () => {
      await using rig = await RelayRig.open(target(), [{}], { max_parallel: 2 });
      const more = Promise.withResolvers<void>();
      rig.upstream.next(...new Array<Plan>(4).fill(afterwards(more.promise, answerNormally)));
      for (let count = 0; count < 4; count++) {
        const controller = new AbortController();
        const asked = rig.chat({}, { signal: controller.signal });
        await rig.upstream.request(count);
        controller.abort();
        await asked.catch(() => undefined);
        await Bun.sleep(CLOSE_MS_MAX);
      }
      const refused = await rig.chat();
      await expectRelayError(refused, 429, "rate_limit_error", "rate_limit_exceeded");
      expect([refused.headers.get("retry-after"), rig.calls]).toEqual(["1", [4]]);
      more.resolve();
      await rig.rows(4);
      const answers = await Promise.all([rig.chat(), rig.chat()]);
      expect(answers.map(({ status }) => status)).toEqual([200, 200]);
    });

    test.each<[string, Json, string[]]>([
      ["a whole answer", {}, []],
      ["a first event", STREAM, []],
      ["a later event", STREAM, [chatChunk("one")]],
    ])("before %s that is too large: it costs what was set aside all the same", async (_, fields, before) => {
      await using rig = await RelayRig.open(target(), [{}], { remain_quota: 10_000 });
      const more = Promise.withResolvers<void>();
      rig.plan(async (exchange) => {
        if (fields === STREAM) await exchange.startEvents();
        for (const sent of before) await exchange.chunk(sent);
        await afterwards(more.promise, async () => {
          if (fields === STREAM) await exchange.chunk(chatChunk("x".repeat(EVENT_BYTES_MAX)));
          else
            await exchange.head(200, {
              "Content-Type": "application/json",
              "Content-Length": `${ANSWER_BYTES_MAX + 1}`,
            });
          await exchange.gone;
        })(exchange);
      });
      const controller = new AbortController();
      const asked = rig.chat({ ...fields, max_tokens: 99 }, { signal: controller.signal });
      await rig.upstream.request(0);
      if (before.length > 0) await (await asked).body!.getReader().read();
      controller.abort();
      await asked.catch(() => undefined);
      await Bun.sleep(CLOSE_MS_MAX);
      more.resolve();
      expect(await rig.onlyRow()).toMatchObject({ status: 499, estimated: 1, quota: 100 });
    });

    test.each<[string, Json]>([
      ["a stream", STREAM],
      ["a whole answer", {}],
    ])("before %s that fails: it is not tried again", async (_, fields) => {
      await using rig = await RelayRig.open(target(), [{}, {}]);
      const more = Promise.withResolvers<void>();
      rig.plan(afterwards(more.promise, refuse(500)));
      const controller = new AbortController();
      const asked = rig.chat(fields, { signal: controller.signal });
      await rig.upstream.request(0);
      controller.abort();
      await asked.catch(() => undefined);
      await Bun.sleep(CLOSE_MS_MAX);
      more.resolve();
      const row = await rig.rows(1);
      expect(row).toMatchObject([{ status: 499, error_code: "client_closed_request", attempts: 1, quota: 0 }]);
      expect(rig.calls).toEqual([1, 0]);
    });

    test.each<[string, Plan]>([
      ["fails", refuse(500)],
      ["breaks off", resetAtOnce],
      ["sends what cannot be read", answerText("<html>", "text/html")],
      ["refuses its key", wrongKey],
      ["is asked too much", rateLimit({ "retry-after": "60" })],
      ["does not know the model", refuse(404, { code: "model_not_found", param: "model" })],
    ])("before an upstream %s: that counts against no channel", async (_, plan) => {
      await using rig = await RelayRig.open(target(), [{}, {}]);
      const more = Promise.withResolvers<void>();
      rig.plan(afterwards(more.promise, plan));
      const count = 6;
      for (let asked = 0; asked < count; asked++) {
        const controller = new AbortController();
        const answer = rig.chat({}, { signal: controller.signal });
        await rig.upstream.request(asked);
        controller.abort();
        await answer.catch(() => undefined);
      }
      await Bun.sleep(CLOSE_MS_MAX);
      more.resolve();
      const rows = await rig.rows(count);
      expect(rows.map(({ status, attempts }) => [status, attempts])).toEqual(rows.map(() => [499, 1]));
      const untouched = { status: 1, state: "closed", failures: 0, cooling: [], models_off: [] };
      expect([await rig.health(0), rig.calls]).toMatchObject([untouched, [count, 0]]);
    });

    test("an upstream that never ends is given up when the time of the request is over", async () => {
      await using rig = await RelayRig.open(target(), [{ total_ms: 2_000 }]);
      rig.plan(oneEvent);
      const controller = new AbortController();
      const answer = await rig.chat(STREAM, { signal: controller.signal });
      await answer.body!.getReader().read();
      controller.abort();
      await rig.upstream.requests[0]!.closed;
      expect(await rig.onlyRow()).toMatchObject({ status: 499, estimated: 1 });
    });
  });

  describe.concurrent(`silent upstreams of ${name}`, () => {
    const target = useTarget(open, RELAY_ENV);

    test("twenty seconds before the head of a whole answer cut nobody off", async () => {
      await using rig = await RelayRig.open(target());
      rig.plan(afterMs(SILENCE_MS, answerNormally));
      const answer = await rig.chat();
      expect([answer.status, await chatTextOf(answer)]).toEqual([200, "You said: hi"]);
    });

    test("twenty seconds before the head of a stream cut nobody off", async () => {
      await using rig = await RelayRig.open(target());
      rig.plan(afterMs(SILENCE_MS, answerNormally));
      const answer = await rig.chat(STREAM);
      expect([answer.status, await chatTextOf(answer)]).toEqual([200, "You said: hi"]);
    });

    test("twenty seconds before the first event cut nobody off", async () => {
      await using rig = await RelayRig.open(target());
      rig.plan(async (exchange) => {
        await exchange.startEvents();
        await exchange.pause(SILENCE_MS);
        await exchange.chunk(chatChunk("late") + FINISH + DONE);
        await exchange.endChunks();
      });
      expect(await (await rig.chat(STREAM)).text()).toBe(chatChunk("late") + FINISH + DONE);
    });

    test("twenty seconds in the middle of a stream are bridged by a ping", async () => {
      await using rig = await RelayRig.open(target());
      rig.plan(stream({ events: [chatChunk("a"), FINISH + DONE], gapMs: SILENCE_MS }));
      const startMs = performance.now();
      let pingMs = 0;
      let text = "";
      const answer = await rig.chat(STREAM);
      for await (const bytes of answer.body!) {
        text += new TextDecoder().decode(bytes);
        if (pingMs === 0 && text.includes(PING)) pingMs = performance.now() - startMs;
      }
      expect(text).toBe(chatChunk("a") + PING + FINISH + DONE);
      expectTimeFrom("the ping", pingMs, 14_500, 17_000);
    });

    test("a ping never stands within an event, however slowly that comes", async () => {
      await using rig = await RelayRig.open(target());
      const late = chatChunk("late");
      rig.plan(async (exchange) => {
        await exchange.startEvents();
        await exchange.chunk(chatChunk("a") + late.slice(0, 20));
        await exchange.pause(SILENCE_MS);
        await exchange.chunk(late.slice(20) + FINISH + DONE);
        await exchange.endChunks();
      });
      expect(await (await rig.chat(STREAM)).text()).toBe(chatChunk("a") + PING + late + FINISH + DONE);
    });

    test("a client that leaves in the silence after a ping is seen to leave", async () => {
      await using rig = await RelayRig.open(target());
      rig.plan(oneEvent);
      const controller = new AbortController();
      const reader = (await rig.chat(STREAM, { signal: controller.signal })).body!.getReader();
      await reader.read();
      expect(new TextDecoder().decode((await reader.read()).value)).toBe(PING);
      const leftMs = performance.now();
      controller.abort();
      expectTime("closing upstream", (await rig.upstream.requests[0]!.closed) - leftMs, CLOSE_MS_MAX);
      expect((await rig.onlyRow()).status).toBe(499);
    });
  });

  describe.concurrent(`clients of ${name} that read slowly`, () => {
    const target = useTarget(open, RELAY_ENV);

    test("hold their upstream up, and miss nothing", async () => {
      await using rig = await RelayRig.open(target());
      const count = 20_000;
      const filler = "x".repeat(4_000);
      const state = { sent: 0 };
      rig.plan(async (exchange) => {
        await exchange.startEvents();
        while (state.sent < count && !exchange.isGone) await exchange.chunk(chatChunk(`${state.sent++} ${filler}`));
        await exchange.chunk(FINISH + DONE);
        await exchange.endChunks();
      });
      using client = await openRaw(target().url);
      const body = JSON.stringify({ model: "any", messages: [{ role: "user", content: "hi" }], ...STREAM });
      client.send(
        `POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${rig.token.key}\r\n` +
          `Connection: close\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
      );
      await client.received(/data: /);
      client.pause();
      await untilStill(() => state.sent);
      // The rest is in the buffers of two connections; without a limit all of it would have been sent.
      expect(state.sent).toBeLessThan(count * 0.75);
      client.resume();
      const received = await client.closed();
      const numbers = [...received.matchAll(/"content":"(\d+) x/g)].map((match) => Number(match[1]));
      expect(numbers).toEqual(Array.from({ length: count }, (_, index) => index));
      expect(dataOf(received).at(-1)).toBe("[DONE]");
    });
  });
}

/** The head and half of a body, then nothing more. */
const halfAnswer: Plan = async (exchange) => {
  await exchange.head(200, { "Content-Type": "application/json", "Content-Length": "100" });
  await exchange.write('{"id":"a",');
  await exchange.gone;
};
