// What a relay token may ask for in a minute and at once: requests, tokens of a model, calls in parallel.

import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { eventually } from "../support/eventually.ts";
import { FaultUpstream, type Plan } from "../support/fault-upstream.ts";
import { chatAnswer, metricOf, readBooks, settledBooks } from "../support/relay-books.ts";
import {
  chat,
  chatCode,
  clearRelay,
  expectRelayError,
  type Json,
  makeChannel,
  makeToken,
  managed,
  RELAY_ENV,
  type TokenJson,
} from "../support/relay-client.ts";
import { RelayRig } from "../support/relay-rig.ts";
import type { OpenTarget } from "../support/targets.ts";
import {
  afterwards,
  answerJson,
  chatChunk,
  cutAnswer,
  DONE,
  refuse,
  resetAtOnce,
  stayStill,
  stream,
} from "../support/upstream-plans.ts";
import { useTarget } from "../support/use-target.ts";

const MiB = 1024 * 1024;
const RELEASED_MS_MAX = 5_000;
/** With "hi", which is one token, it sets aside nine hundred. */
const NINE_HUNDRED = { max_tokens: 899 };
const CHEAP = answerJson(chatAnswer("yes", { prompt_tokens: 4, completion_tokens: 6 }));

/** How calls end that hold a place, by what the client sees: null = an answer, "left" = it does not wait for one. */
const ENDINGS: readonly (readonly [what: string, plan: Plan, fields: Json, code: string | null | "left"])[] = [
  ["an answer", CHEAP, {}, null],
  ["a stream that is whole", stream(), { stream: true }, null],
  ["an error of the upstream", refuse(400, { code: "bad_thing" }), {}, "bad_thing"],
  ["a failure of the upstream", refuse(500, { code: "oh_no" }), {}, "oh_no"],
  ["a reset before the answer", resetAtOnce, {}, "upstream_unreachable"],
  ["an answer that is cut", cutAnswer("{"), {}, "bad_upstream_response"],
  ["a stream that is cut", stream({ events: [chatChunk("a")], end: "reset" }), { stream: true }, null],
  ["a client that leaves before the answer", stayStill, {}, "left"],
  ["a client that leaves before the stream", stayStill, { stream: true }, "left"],
  ["a client that leaves a stream", stream({ events: [chatChunk("a")], end: "still" }), { stream: true }, "left"],
];

/** An answer of a known length whose end comes when the test says so. */
function slowAnswer(end: Promise<unknown>): Plan {
  const text = JSON.stringify(chatAnswer("x".repeat(700_000)));
  return async (exchange) => {
    await exchange.head(200, { "Content-Type": "application/json", "Content-Length": `${text.length}` });
    await exchange.write(text.slice(0, 1000));
    await Promise.race([end, exchange.gone]);
    if (!exchange.isGone) await exchange.write(text.slice(1000));
  };
}

function budgetTests(open: OpenTarget, name: string): void {
  describe(`whole answers of upstreams at ${name}`, () => {
    const target = useTarget(open, { ...RELAY_ENV, MAX_VALUE_BYTES: "1MiB", BODY_BUDGET_BYTES: "1MiB" });

    test("have a share of the byte budget: what does not fit is refused, and fits when another has gone", async () => {
      await using rig = await RelayRig.open(target());
      const { promise: end, resolve } = Promise.withResolvers<void>();
      rig.plan(slowAnswer(end));
      const first = rig.chat();
      await eventually("the first answer has begun", RELEASED_MS_MAX, async () => rig.calls[0] === 1);
      await eventually("the second has no room", RELEASED_MS_MAX, async () => {
        const second = await rig.chat();
        return (await chatCode(second)) === "overloaded" && second.headers.get("retry-after") === "1";
      });
      const { failures } = await rig.health(0);
      resolve();
      expect(((await (await first).json()) as { choices: unknown[] }).choices).toHaveLength(1);
      expect((await rig.chat()).status).toBe(200);
      // The channel is not to blame.
      expect(failures).toBe(0);
    });

    test("a request counts as what it is in memory when it is parsed", async () => {
      await using rig = await RelayRig.open(target());
      const body = (values: number) => ({
        model: "any",
        messages: [{ role: "user", content: "hi" }],
        x: Array(values).fill({}),
      });
      const tooMany = await rig.post("/chat/completions", body(30_000));
      expect([tooMany.status, await chatCode(tooMany)]).toEqual([413, "request_too_large"]);
      expect((await rig.post("/chat/completions", body(5_000))).status).toBe(200);
      expect(await metricOf(target(), "gokv_body_budget_used_bytes")).toBe(0);
    });

    test("a body that never fits into the budget with its values is too large, not told to come back", async () => {
      await using rig = await RelayRig.open(target());
      const bodyOf = (values: number) =>
        JSON.stringify({
          model: "any",
          messages: ["hi"],
          x: Array.from({ length: values }, (_, index) => `${100_000_000 + index}`),
          pad: "x".repeat(265_000),
        });
      // A string is sent in 12 bytes and is 64 in memory.
      const body = bodyOf(18_500);
      const weight = 18_500 * 64 - body.length;
      expect([body.length < MiB, weight < MiB, body.length + weight > MiB]).toEqual([true, true, true]);
      const inChunks = (text: string) => ({
        body: new ReadableStream({
          start(controller) {
            controller.enqueue(new TextEncoder().encode(text));
            controller.close();
          },
        }),
      });
      for (const init of [{}, inChunks(body)]) {
        const refused = await rig.post("/chat/completions", body, init);
        await expectRelayError(refused, 413, "invalid_request_error", "request_too_large");
      }
      // A few hundred bytes below.
      const fitting = bodyOf(16_350);
      for (const init of [{}, inChunks(fitting)]) {
        expect((await rig.post("/chat/completions", fitting, init)).status).toBe(200);
      }
      expect(await metricOf(target(), "gokv_body_budget_used_bytes")).toBe(0);
    });

    test("a stream holds the share of its request until it ends, however that is", async () => {
      await using rig = await RelayRig.open(target());
      const used = () => metricOf(target(), "gokv_body_budget_used_bytes");
      const body = JSON.stringify({
        model: "any",
        stream: true,
        messages: [{ role: "user", content: "y".repeat(9000) }],
      });
      for (const [end, isLeft] of [
        ["whole", false],
        ["reset", false],
        ["still", true],
      ] as const) {
        const { promise: more, resolve } = Promise.withResolvers<void>();
        rig.plan(async (exchange) => {
          await exchange.startEvents();
          await exchange.chunk(chatChunk("a"));
          await Promise.race([more, exchange.gone]);
          if (end === "reset") exchange.reset();
          else await exchange.chunk(chatChunk("b", "stop") + DONE).then(() => exchange.endChunks());
        });
        const abort = new AbortController();
        const answer = await rig.post("/chat/completions", body, { signal: abort.signal });
        const reader = answer.body!.getReader();
        await reader.read();
        expect([end, await used()]).toEqual([end, body.length]);
        if (isLeft) abort.abort();
        else resolve();
        while (!(await reader.read().catch(() => ({ done: true }))).done);
        await eventually("its share is back", RELEASED_MS_MAX, async () => (await used()) === 0);
      }
    });
  });
}

export function relayLimitsSuite(name: string, open: OpenTarget): void {
  budgetTests(open, name);
  describe(`limits of relay tokens at ${name}`, () => {
    const target = useTarget(open, RELAY_ENV);
    let upstream: FaultUpstream;
    beforeAll(async () => {
      upstream = await FaultUpstream.start();
    });
    afterAll(() => upstream[Symbol.asyncDispose]());
    beforeEach(async () => {
      await clearRelay(target());
      upstream.reset();
      upstream.always(CHEAP);
      await makeChannel(target(), upstream, { auto_ban: false });
    });

    const ask = (token: TokenJson, fields: Json = {}) => chat(target(), token.key, fields);

    test("five requests a minute: the sixth is refused with how long to wait, and is not logged", async () => {
      const token = await makeToken(target(), { rpm: 5 });
      const answers = [];
      for (let count = 0; count < 6; count++) answers.push(await ask(token));
      expect(answers.map(({ status }) => status)).toEqual([200, 200, 200, 200, 200, 429]);
      const { headers } = answers[5]!;
      expect(await answers[5]!.json()).toMatchObject({
        error: { type: "rate_limit_error", code: "rate_limit_exceeded", param: null, message: expect.any(String) },
      });
      // One place comes free every twelve seconds.
      expect(Number(headers.get("retry-after"))).toBeWithin(1, 13);
      expect(headers.get("x-ratelimit-limit-requests")).toBe("5");
      expect(headers.get("x-ratelimit-remaining-requests")).toBe("0");
      expect(headers.get("x-ratelimit-reset-requests")).toMatch(/^([45]\d|60)s$/);
      expect(upstream.requests).toHaveLength(5);
      await settledBooks(target(), token.id, 5);
      expect((await ask(await makeToken(target(), { rpm: 5 }))).status).toBe(200);
    });

    test("one request passes as soon as the refusal said, and no second", async () => {
      const token = await makeToken(target(), { rpm: 10 });
      const answers = await Promise.all(Array.from({ length: 15 }, () => ask(token)));
      expect(answers.filter(({ status }) => status === 200)).toHaveLength(10);
      const refused = answers.find(({ status }) => status === 429)!;
      await Bun.sleep(Number(refused.headers.get("retry-after")) * 1000);
      const later = [await ask(token), await ask(token)];
      expect(later.map(({ status }) => status)).toEqual([200, 429]);
    }, 120_000);

    test("tokens a minute: what an answer did not need is given back, so that the next request fits", async () => {
      const token = await makeToken(target(), { tpm: 1000 });
      for (let count = 0; count < 10; count++) expect((await ask(token, NINE_HUNDRED)).status).toBe(200);
      // Ten times ten tokens are spent now.
      const refused = await ask(token, { max_tokens: 990 });
      expect(await chatCode(refused)).toBe("rate_limit_exceeded");
      expect(Number(refused.headers.get("retry-after"))).toBeGreaterThan(0);
      expect(refused.headers.get("x-ratelimit-limit-tokens")).toBe("1000");
      expect(Number(refused.headers.get("x-ratelimit-remaining-tokens"))).toBeWithin(900, 1000);
      expect((await ask(token, NINE_HUNDRED)).status).toBe(200);
    });

    test("tokens a minute: an answer that used them all leaves none", async () => {
      const token = await makeToken(target(), { tpm: 1000 });
      upstream.next(answerJson(chatAnswer("yes", { prompt_tokens: 1, completion_tokens: 899 })));
      expect((await ask(token, NINE_HUNDRED)).status).toBe(200);
      expect(await chatCode(await ask(token, NINE_HUNDRED))).toBe("rate_limit_exceeded");
      expect(upstream.requests).toHaveLength(1);
    });

    test("tokens a minute: a failed request gives all of them back, one that waits none", async () => {
      const token = await makeToken(target(), { tpm: 1000 });
      upstream.next(refuse(400, { code: "bad_thing" }), stayStill);
      expect(await chatCode(await ask(token, NINE_HUNDRED))).toBe("bad_thing");
      const abort = new AbortController();
      const waiting = leaveable(token, NINE_HUNDRED, abort.signal);
      await upstream.request(1);
      expect(await chatCode(await ask(token, NINE_HUNDRED))).toBe("rate_limit_exceeded");
      abort.abort();
      await waiting;
      await eventually("the tokens are back", RELEASED_MS_MAX, async () => (await ask(token, NINE_HUNDRED)).ok);
    });

    test("tokens a minute: what an answer used beyond its request counts as well", async () => {
      const token = await makeToken(target(), { tpm: 1000 });
      upstream.next(answerJson(chatAnswer("much", { prompt_tokens: 1000, completion_tokens: 1500 })));
      expect((await ask(token, { max_tokens: 10 })).status).toBe(200);
      const refused = await ask(token, { max_tokens: 10 });
      expect(await chatCode(refused)).toBe("rate_limit_exceeded");
      // A debt of 1500 takes a minute and a half.
      expect(Number(refused.headers.get("retry-after"))).toBeWithin(85, 92);
      expect(refused.headers.get("x-ratelimit-remaining-tokens")).toBe("0");
    });

    test("a refusal tells of requests and tokens alike, whichever there are too many of", async () => {
      const token = await makeToken(target(), { rpm: 1, tpm: 1000, max_parallel: 1 });
      upstream.next(stayStill);
      const abort = new AbortController();
      const holder = leaveable(token, { max_tokens: 99 }, abort.signal);
      await upstream.request(0);
      const parallel = await ask(token);
      abort.abort();
      await holder;
      await settledBooks(target(), token.id, 1);
      const rate = await ask(token);
      for (const refused of [parallel, rate]) {
        expect(await chatCode(refused)).toBe("rate_limit_exceeded");
        expect(refused.headers.get("x-ratelimit-limit-requests")).toBe("1");
        expect(refused.headers.get("x-ratelimit-remaining-requests")).toBe("0");
        expect(refused.headers.get("x-ratelimit-limit-tokens")).toBe("1000");
      }
      expect(parallel.headers.get("x-ratelimit-remaining-tokens")).toBe("900");
    });

    test("tokens a minute: a request above the limit is refused at once, whatever is left", async () => {
      const token = await makeToken(target(), { tpm: 1000, remain_quota: 100_000 });
      const refused = await ask(token, { max_tokens: 1000 });
      // No client library is to wait and come back with it.
      expect(refused.headers.get("x-should-retry")).toBe("false");
      expect(await chatCode(refused)).toBe("rate_limit_exceeded");
      expect((await ask(token, { max_tokens: 999 })).status).toBe(200);
      expect(await settledBooks(target(), token.id, 1)).toMatchObject({ remain: 99_990, used: 10 });
    });

    test("a quota that is spent gives back the tokens a minute that its refusal did not use", async () => {
      const token = await makeToken(target(), { tpm: 1000, remain_quota: 10 });
      for (let count = 0; count < 3; count++) {
        expect(await chatCode(await ask(token, NINE_HUNDRED))).toBe("insufficient_quota");
      }
      expect(readBooks(target().dbPath, token.id)).toMatchObject({ remain: 10, open: 0, rows: 0 });
    });

    test("of a hundred calls at once exactly as many pass as may be parallel", async () => {
      const token = await makeToken(target(), { max_parallel: 7 });
      const other = await makeToken(target(), { max_parallel: 1 });
      const release = Promise.withResolvers<void>();
      upstream.always(afterwards(release.promise, CHEAP));
      let refused = 0;
      const asked = Array.from({ length: 100 }, async (_, index) => {
        const answer = await ask(token, { stream: index % 2 === 1 && index > 13 });
        if (answer.status === 429) refused++;
        return answer;
      });
      await eventually("all but seven are refused", RELEASED_MS_MAX, () => refused === 93);
      await upstream.request(6);
      expect(upstream.requests).toHaveLength(7);
      // Another token has places of its own.
      const beside = ask(other);
      await upstream.request(7);
      release.resolve();
      expect((await beside).status).toBe(200);
      const answers = await Promise.all(asked);
      const last = answers.find(({ status }) => status === 429)!;
      expect([await chatCode(last), last.headers.get("retry-after")]).toEqual(["rate_limit_exceeded", "1"]);
      expect(upstream.requests).toHaveLength(8);
      await settledBooks(target(), token.id, 7);
      // All seven places are free again.
      const again = await Promise.all(Array.from({ length: 7 }, () => ask(token)));
      expect(again.map(({ status }) => status)).toEqual(new Array(7).fill(200));
    });

    for (const [what, plan, fields, code] of ENDINGS) {
      test(`a parallel place is free again after ${what}`, async () => {
        const token = await makeToken(target(), { max_parallel: 1 });
        const release = Promise.withResolvers<void>();
        upstream.next(afterwards(release.promise, plan));
        const abort = new AbortController();
        const holder = leaveable(token, fields, abort.signal);
        await upstream.request(0);
        expect(await chatCode(await ask(token))).toBe("rate_limit_exceeded");
        release.resolve();
        if (code === "left") {
          if (plan !== stayStill) await holder.begun;
          abort.abort();
          await holder;
        } else expect(await holder).toBe(code);
        await settledBooks(target(), token.id, 1);
        // On a channel that has no failures behind it.
        await clearChannels();
        await makeChannel(target(), upstream);
        expect((await ask(token)).status).toBe(200);
        expect((await ask(token)).status).toBe(200);
      });
    }

    test("a place is held until the last byte of a stream is out", async () => {
      const token = await makeToken(target(), { max_parallel: 1 });
      const release = Promise.withResolvers<void>();
      upstream.next(async (exchange) => {
        await exchange.startEvents();
        await exchange.chunk(chatChunk("a"));
        await afterwards(release.promise, () => exchange.chunk(`${chatChunk("", "stop")}data: [DONE]\n\n`))(exchange);
        await exchange.endChunks();
      });
      const answer = await ask(token, { stream: true });
      const reader = answer.body!.getReader();
      await reader.read();
      expect(await chatCode(await ask(token))).toBe("rate_limit_exceeded");
      release.resolve();
      while (!(await reader.read()).done);
      expect((await ask(token)).status).toBe(200);
    });

    test("a place is held until the last byte of a large answer is out", async () => {
      const token = await makeToken(target(), { max_parallel: 1 });
      upstream.next(answerJson(chatAnswer("x".repeat(14_000_000))));
      const answer = await ask(token);
      expect(await chatCode(await ask(token))).toBe("rate_limit_exceeded");
      expect((await answer.arrayBuffer()).byteLength).toBeGreaterThan(14_000_000);
      await eventually("the place is free", RELEASED_MS_MAX, async () => (await ask(token)).status === 200);
    });

    test("limits that are changed count from the next request", async () => {
      const token = await makeToken(target(), { rpm: 1 });
      expect([(await ask(token)).status, (await ask(token)).status]).toEqual([200, 429]);
      await managed(target(), "PUT", `/api/token/${token.id}`, { rpm: 0 });
      expect((await ask(token)).status).toBe(200);
      await managed(target(), "PUT", `/api/token/${token.id}`, { tpm: 10 });
      expect((await ask(token)).status).toBe(429);
    });

    async function clearChannels(): Promise<void> {
      for (const { id } of await managed<{ id: number }[]>(target(), "GET", "/api/channel")) {
        await managed(target(), "DELETE", `/api/channel/${id}`);
      }
    }

    /** A call that its client may leave; resolves with its code, or null. `begun` resolves with its first byte. */
    function leaveable(token: TokenJson, fields: Json, signal: AbortSignal) {
      const begun = Promise.withResolvers<void>();
      const call = async (): Promise<string | null> => {
        try {
          const answer = await target().fetch("/v1/chat/completions", {
            method: "POST",
            headers: { Authorization: `Bearer ${token.key}` },
            signal,
            body: JSON.stringify({ model: "any", messages: [{ role: "user", content: "hi" }], ...fields }),
          });
          if (!answer.ok) return await chatCode(answer);
          for await (const _ of answer.body!) begun.resolve();
        } catch (error) {
          expect(signal.aborted).toBe(true);
          expect(error).toBeInstanceOf(DOMException);
        }
        return null;
      };
      return Object.assign(call(), { begun: begun.promise });
    }
  });
}
