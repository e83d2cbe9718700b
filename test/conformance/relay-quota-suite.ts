// What requests cost: a quota that is never overdrawn, usage that is charged once, a log that agrees with both.

import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import type { LogRow } from "../../src/relay/relay-tables.ts";
import { storeFiles } from "../../src/storage/store-files.ts";
import { eventually } from "../support/eventually.ts";
import { type Exchange, FaultUpstream, type Plan } from "../support/fault-upstream.ts";
import { holdWriteLock } from "../support/foreign-lock.ts";
import {
  type Books,
  chatAnswer,
  logRows,
  metricOf,
  mistakesIn,
  onlyRow,
  readBooks,
  settledBooks,
  watchBooks,
} from "../support/relay-books.ts";
import {
  chat,
  chatCode,
  clearRelay,
  type Json,
  makeChannel,
  makeToken,
  managed,
  RELAY_ENV,
  type TokenJson,
} from "../support/relay-client.ts";
import type { OpenTarget } from "../support/targets.ts";
import {
  afterwards,
  answerJson,
  chatChunk,
  DONE,
  event,
  rateLimit,
  refuse,
  resetAtOnce,
  stayStill,
  stream,
} from "../support/upstream-plans.ts";
import { useTarget } from "../support/use-target.ts";

/** "hi" is estimated at one token, so that a request with this bound sets aside a hundred. */
const MAX_TOKENS = 99;
const AMOUNT = 100;
const PARALLEL = 200;
/** Thirty bytes: ten tokens when they have to be estimated. */
const TEN_TOKENS = "thirty bytes of an answer, yes";
const GRANTED = 10_000;
const SETTLED_MS_MAX = 5_000;

/** What an upstream may say of usage, and what a request of one token then costs; null = what was estimated. */
const USAGES: readonly (readonly [what: string, usage: unknown, cost: number | null])[] = [
  ["no usage", undefined, null],
  ["null", null, null],
  ["an empty object", {}, null],
  ["a text", "12", null],
  ["texts as figures", { prompt_tokens: "3", completion_tokens: "4" }, null],
  ["a negative prompt", { prompt_tokens: -500, completion_tokens: 4 }, null],
  ["a negative completion", { prompt_tokens: 3, completion_tokens: -500 }, null],
  ["a fraction", { prompt_tokens: 3, completion_tokens: 0.5 }, null],
  ["more than a billion", { prompt_tokens: 3, completion_tokens: 1_000_000_001 }, null],
  ["what no integer holds", { prompt_tokens: 1e300, completion_tokens: 1 }, null],
  ["a list", [3, 4], null],
  ["honest figures", { prompt_tokens: 3, completion_tokens: 4, total_tokens: 7 }, 7],
  ["a total that counts hidden reasoning", { prompt_tokens: 3, completion_tokens: 4, total_tokens: 27 }, 27],
  ["zeros", { prompt_tokens: 0, completion_tokens: 0 }, 0],
];

const EXCESSES: readonly (readonly [path: string, param: string, values: readonly unknown[]])[] = [
  ["chat/completions", "n", [0, 129, 1e9, -1, 1.5, "2"]],
  ["chat/completions", "max_tokens", [0, 1_000_001, 1e15, -5, 0.5, "9"]],
  ["chat/completions", "max_completion_tokens", [0, 1_000_001, -1]],
  ["completions", "max_tokens", [0, 1_000_001]],
  ["completions", "n", [0, 129]],
  ["completions", "best_of", [0, 129, "2"]],
  ["responses", "max_output_tokens", [0, 1_000_001, -1]],
];

const FAILURES: readonly (readonly [what: string, plan: Plan, status: number, code: string])[] = [
  ["a bad request", refuse(400, { code: "bad_thing" }), 400, "bad_thing"],
  ["a rate limit", rateLimit({ "retry-after": "1" }), 429, "rate_limit_exceeded"],
  ["a failure", refuse(500, { code: "oh_no", type: "server_error" }), 500, "oh_no"],
  ["a reset", resetAtOnce, 502, "upstream_unreachable"],
  ["an answer that is none", answerJson([1]), 502, "bad_upstream_response"],
  ["an error under 200", failUnder200, 502, "oh_no"],
];

async function failUnder200(exchange: Exchange): Promise<void> {
  const error = { error: { message: "no", type: "server_error", code: "oh_no" } };
  await (exchange.request.json.stream === true ? stream({ events: [event(error)] }) : answerJson(error))(exchange);
}

export function relayQuotaSuite(name: string, open: OpenTarget): void {
  describe(`what requests cost at ${name}`, () => {
    const target = useTarget(open, RELAY_ENV);
    let upstream: FaultUpstream;
    beforeAll(async () => {
      upstream = await FaultUpstream.start();
    });
    afterAll(() => upstream[Symbol.asyncDispose]());
    beforeEach(async () => {
      await clearRelay(target());
      upstream.reset();
      await makeChannel(target(), upstream);
    });

    const grant = (quota: number, fields: Json = {}) => makeToken(target(), { remain_quota: quota, ...fields });
    const ask = (token: TokenJson, fields: Json = {}) =>
      chat(target(), token.key, { max_tokens: MAX_TOKENS, ...fields });
    const post = (path: string, token: TokenJson, body: Json, headers: Record<string, string> = {}) =>
      target().fetch(`/v1/${path}`, {
        method: "POST",
        headers: { Authorization: `Bearer ${token.key}`, ...headers },
        body: JSON.stringify(body),
      });
    const lastQuota = async ({ id }: TokenJson) => (await logRows(target(), `&token_id=${id}`))[0]!.quota;
    const read = (token: TokenJson) => managed<TokenJson>(target(), "GET", `/api/token/${token.id}`);

    describe("a quota", () => {
      test("for ten lets ten of two hundred parallel requests pass and refuses all others", async () => {
        const granted = 10 * AMOUNT + AMOUNT / 2;
        const token = await grant(granted);
        const release = Promise.withResolvers<void>();
        const usage = { prompt_tokens: 1, completion_tokens: MAX_TOKENS };
        upstream.always(afterwards(release.promise, answerJson(chatAnswer("yes", usage))));
        const asked = Array.from({ length: PARALLEL }, () => ask(token));
        await upstream.request(9);
        expect(readBooks(target().dbPath, token.id).open).toBe(10 * AMOUNT);
        release.resolve();
        const { mistakes, looks } = await watchBooks(target(), { tokenId: token.id, granted }, Promise.all(asked));
        expect(mistakes).toEqual([]);
        expect(looks).toBeGreaterThan(0);
        const answers = await Promise.all(asked);
        const codes = await Promise.all(answers.map(chatCode));
        expect(codes.filter((code) => code === null)).toHaveLength(10);
        expect(codes.filter((code) => code === "insufficient_quota")).toHaveLength(PARALLEL - 10);
        const last = answers.find(({ status }) => status !== 200)!;
        expect([last.status, last.headers.get("x-should-retry")]).toEqual([429, "false"]);
        expect(upstream.requests).toHaveLength(10);
        expect(await settledBooks(target(), token.id, 10)).toMatchObject({ remain: AMOUNT / 2, used: 10 * AMOUNT });
      });

      test("is set aside as the endpoint counts, whatever bounds of other endpoints a request names", async () => {
        const token = await grant(GRANTED);
        upstream.always(stayStill);
        for (const [path, body, amount] of [
          ["chat/completions", { messages: [{ role: "user", content: "hi" }], max_output_tokens: 1 }, 1 + 1024],
          ["responses", { input: "hi", max_tokens: 1 }, 1 + 1024],
          ["completions", { prompt: ["hi", "ho"], best_of: 3, max_tokens: MAX_TOKENS }, 2 + 2 * 3 * MAX_TOKENS],
        ] as const) {
          const before = upstream.requests.length;
          const leave = new AbortController();
          const asked = target()
            .fetch(`/v1/${path}`, {
              method: "POST",
              headers: { Authorization: `Bearer ${token.key}` },
              body: JSON.stringify({ model: "any", ...body }),
              signal: leave.signal,
            })
            .catch(() => null);
          await upstream.request(before);
          expect([path, readBooks(target().dbPath, token.id).open]).toEqual([path, amount]);
          leave.abort();
          await asked;
          await settledBooks(target(), token.id, before + 1);
        }
      });

      test("stays exact while two hundred requests at once set aside and give back", async () => {
        const granted = 30 * AMOUNT;
        const token = await grant(granted);
        upstream.always(answerJson(chatAnswer("yes", { prompt_tokens: 3, completion_tokens: 27 })));
        let passed = 0;
        const rush = Promise.all(
          Array.from({ length: PARALLEL }, async () => {
            if ((await ask(token)).status === 200) passed++;
          }),
        );
        const { mistakes } = await watchBooks(target(), { tokenId: token.id, granted }, rush);
        expect(mistakes).toEqual([]);
        expect(passed).toBeGreaterThanOrEqual(30);
        expect(passed).toBeLessThanOrEqual(granted / 30);
        const books = await settledBooks(target(), token.id, passed);
        expect(books).toMatchObject({ used: passed * 30, remain: granted - passed * 30, open: 0 });
      });

      test("that a request does not fit into sends nothing and logs nothing", async () => {
        const token = await grant(AMOUNT - 1);
        expect([(await ask(token)).status, upstream.requests.length]).toEqual([429, 0]);
        expect(readBooks(target().dbPath, token.id)).toMatchObject({ remain: AMOUNT - 1, open: 0, rows: 0 });
        // Sixteen million tokens asked for in two figures that are both allowed.
        expect(await chatCode(await ask(token, { n: 128, max_tokens: 125_000 }))).toBe("insufficient_quota");
        expect((await ask(token, { max_tokens: MAX_TOKENS - 1 })).status).toBe(200);
      });

      test("is spent to nothing, not beyond, by an answer that cost more than was left", async () => {
        const token = await grant(AMOUNT + 50);
        upstream.always(
          answerJson(chatAnswer("yes", { prompt_tokens: 1_000_000_000, completion_tokens: 1_000_000_000 })),
        );
        expect((await ask(token)).status).toBe(200);
        expect(await settledBooks(target(), token.id, 1)).toMatchObject({ remain: 0, used: 150, logged: 150 });
        expect(await chatCode(await ask(token))).toBe("insufficient_quota");
      });

      test("that was spent does not come back by changes of the token under traffic", async () => {
        const token = await grant(GRANTED);
        upstream.always(answerJson(chatAnswer("yes", { prompt_tokens: 3, completion_tokens: 4 })));
        let isOver = false;
        let rows = 0;
        let added = 0;
        const traffic = Array.from({ length: 6 }, async () => {
          while (!isOver) {
            expect((await ask(token)).status).toBe(200);
            rows++;
          }
        });
        for (let turn = 0; turn < 25; turn++) {
          const { key: _, ...whole } = await read(token);
          await managed(target(), "PUT", `/api/token/${token.id}`, { ...whole, name: `name ${turn}` });
          await managed(target(), "PATCH", `/api/token/${token.id}`, { name: "another", rpm: 0 });
          await managed(target(), "PUT", `/api/token/${token.id}`, { add_quota: turn % 2 === 0 ? 40 : -15 });
          added += turn % 2 === 0 ? 40 : -15;
        }
        isOver = true;
        await Promise.all(traffic);
        expect(rows).toBeGreaterThan(25);
        const books = await settledBooks(target(), token.id, rows);
        expect(books.used).toBe(rows * 7);
        expect(mistakesIn(books, GRANTED + added)).toEqual([]);
      });

      test("is told to the token it belongs to, and to no other", async () => {
        const [mine, other] = [await grant(5_000, { rpm: 100, name: "mine" }), await grant(700, { name: "other" })];
        upstream.always(answerJson(chatAnswer("yes", { prompt_tokens: 30, completion_tokens: 12 })));
        expect((await ask(mine)).status).toBe(200);
        await settledBooks(target(), mine.id, 1);
        const usageOf = async ({ key }: TokenJson) =>
          (await target().fetch("/v1/usage", { headers: { Authorization: `Bearer ${key}` } })).json();
        const common = { unlimited_quota: false, expired_time: -1, tpm: 0, max_parallel: 0 };
        expect(await usageOf(mine)).toEqual({
          ...common,
          name: "mine",
          remain_quota: 5_000 - 42,
          used_quota: 42,
          rpm: 100,
        });
        expect(await usageOf(other)).toEqual({ ...common, name: "other", remain_quota: 700, used_quota: 0, rpm: 0 });
        expect(await usageOf(await makeToken(target()))).toMatchObject({ unlimited_quota: true, used_quota: 0 });
      });
    });

    describe("the usage that an upstream states", () => {
      for (const [what, usage, cost] of USAGES) {
        const verdict = cost === null ? "estimated" : "charged";
        test(`as ${what} is ${verdict}, in a whole answer and in a stream`, async () => {
          const whole = await grant(GRANTED);
          upstream.next(answerJson(chatAnswer(TEN_TOKENS, usage)));
          expect((await ask(whole)).status).toBe(200);
          const streamed = await grant(GRANTED);
          const last = event({ id: "c", object: "chat.completion.chunk", choices: [], usage });
          upstream.next(stream({ events: [chatChunk(TEN_TOKENS), chatChunk("", "stop"), last, DONE] }));
          await (await ask(streamed, { stream: true })).text();
          for (const token of [whole, streamed]) {
            const row = await onlyRow(target(), token.id);
            const charged = cost ?? 1 + 10;
            expect(row).toMatchObject({ status: 200, quota: charged, estimated: cost === null ? 1 : 0 });
            expect(row.prompt_tokens + row.completion_tokens).toBe(charged);
            const books = readBooks(target().dbPath, token.id);
            expect(books).toMatchObject({ remain: GRANTED - charged, used: charged, open: 0 });
          }
        });
      }

      test("on a chunk that holds text counts, and the last one wins", async () => {
        const token = await grant(GRANTED);
        const events = [
          chatChunk("a", null, { usage: { prompt_tokens: 5, completion_tokens: 1 } }),
          chatChunk("b", null, { usage: { prompt_tokens: 5, completion_tokens: 2 } }),
          chatChunk("", "stop", { usage: { prompt_tokens: 5, completion_tokens: 3 } }),
        ];
        upstream.next(stream({ events: [...events, DONE] }));
        expect(await (await ask(token, { stream: true })).text()).toBe([...events, DONE].join(""));
        expect(await onlyRow(target(), token.id)).toMatchObject({
          prompt_tokens: 5,
          completion_tokens: 3,
          quota: 8,
          estimated: 0,
          stream: 1,
        });
      });

      test("in the last chunk counts where Groq puts it, unless it stands in its usual place", async () => {
        const x_groq = { id: "req_1", usage: { prompt_tokens: 5, completion_tokens: 6, total_tokens: 11 } };
        const usage = { prompt_tokens: 5, completion_tokens: 3 };
        for (const [last, quota] of [
          [{ x_groq }, 11],
          [{ x_groq, usage: null }, 11],
          [{ x_groq, usage }, 8],
        ] as const) {
          const token = await grant(GRANTED);
          const events = [chatChunk("a", null, { x_groq: { id: "req_1" } }), chatChunk("", "stop", last), DONE];
          upstream.next(stream({ events }));
          expect(await (await ask(token, { stream: true })).text()).toBe(events.join(""));
          expect(await onlyRow(target(), token.id)).toMatchObject({ quota, estimated: 0 });
        }
      });

      test("counts for an embedding as its prompt alone, and for a moderation not at all", async () => {
        const token = await grant(GRANTED);
        upstream.next(answerJson({ object: "list", data: [], usage: { prompt_tokens: 9, total_tokens: 9 } }));
        expect((await post("embeddings", token, { model: "e", input: "some text" })).status).toBe(200);
        expect((await onlyRow(target(), token.id)).quota).toBe(9);
        upstream.next(answerJson({ object: "list", data: [], usage: { total_tokens: 77 } }));
        expect((await post("embeddings", token, { model: "e", input: "some text" })).status).toBe(200);
        expect(await settledBooks(target(), token.id, 2)).toMatchObject({ used: 9 + 77 });
        upstream.next(answerJson({ id: "m", results: [], usage: { prompt_tokens: 9, completion_tokens: 9 } }));
        expect((await post("moderations", token, { input: "some text" })).status).toBe(200);
        expect(await settledBooks(target(), token.id, 3)).toMatchObject({ used: 86, remain: GRANTED - 86 });
      });
    });

    test("figures beyond every bound are refused, and cost nothing", async () => {
      const token = await grant(GRANTED);
      const input = { model: "any", messages: [{ role: "user", content: "hi" }], prompt: "hi", input: "hi" };
      const { messages, prompt, input: text, ...common } = input;
      const bodies: Record<string, Json> = {
        "chat/completions": { ...common, messages },
        completions: { ...common, prompt },
        responses: { ...common, input: text },
      };
      for (const [path, param, values] of EXCESSES) {
        for (const value of values) {
          const answer = await post(path, token, { ...bodies[path], [param]: value });
          const { error } = (await answer.json()) as { error: Json };
          expect([path, value, answer.status, error]).toMatchObject([
            path,
            value,
            400,
            { type: "invalid_request_error", code: "invalid_value", param },
          ]);
        }
      }
      expect(upstream.requests).toHaveLength(0);
      expect(readBooks(target().dbPath, token.id)).toMatchObject({ remain: GRANTED, used: 0, open: 0, rows: 0 });
    });

    describe("a request that fails before anything of its answer was sent", () => {
      for (const [what, plan, status, code] of FAILURES) {
        test(`costs nothing and is logged once: ${what}`, async () => {
          const token = await grant(GRANTED, { group: "gfalse,gtrue" });
          for (const isStream of [false, true]) {
            // A channel and a model for each: what a failure has done to the first does not reach the second.
            await makeChannel(target(), upstream, { models: [`m${isStream}`], priority: 9, group: `g${isStream}` });
            const model = `m${isStream}`;
            upstream.next(plan);
            const answer = await ask(token, { stream: isStream, model });
            expect([await chatCode(answer), answer.status]).toEqual([code, status]);
          }
          await settledBooks(target(), token.id, 2);
          for (const row of await logRows(target(), `&token_id=${token.id}`)) {
            expect(row).toMatchObject({ status, quota: 0, error_code: code, estimated: 0 });
            expect([row.prompt_tokens, row.completion_tokens]).toEqual([0, 0]);
          }
          expect(readBooks(target().dbPath, token.id)).toMatchObject({ remain: GRANTED, used: 0, open: 0 });
        });
      }
    });

    test("a stream that its client leaves, or that breaks, costs the prompt and what had come of it", async () => {
      const left = await grant(GRANTED);
      upstream.next(stream({ events: [chatChunk(TEN_TOKENS)], end: "still" }));
      const abort = new AbortController();
      const answer = await target().fetch("/v1/chat/completions", {
        method: "POST",
        headers: { Authorization: `Bearer ${left.key}` },
        body: JSON.stringify({ model: "any", stream: true, messages: [{ role: "user", content: "hi" }] }),
        signal: abort.signal,
      });
      await answer.body!.getReader().read();
      abort.abort();
      expect(await onlyRow(target(), left.id)).toMatchObject({ status: 499, quota: 11, estimated: 1 });
      const broken = await grant(GRANTED);
      upstream.next(stream({ events: [chatChunk(TEN_TOKENS)], end: "reset" }));
      await (await ask(broken, { stream: true })).text();
      const row = await onlyRow(target(), broken.id);
      expect(row).toMatchObject({ quota: 11, estimated: 1, error_code: "upstream_stream_interrupted" });
      for (const { id } of [left, broken]) expect(mistakesIn(readBooks(target().dbPath, id), GRANTED)).toEqual([]);
    });

    test("a stream without its end costs an estimate, whatever its chunks say of usage so far", async () => {
      const usage = { prompt_tokens: 0, completion_tokens: 0, total_tokens: 0 };
      const events = [chatChunk(TEN_TOKENS, null, { usage })];
      const left = await grant(GRANTED);
      upstream.next(stream({ events, end: "still" }));
      const abort = new AbortController();
      const answer = await chat(target(), left.key, { stream: true }, { signal: abort.signal });
      await answer.body!.getReader().read();
      abort.abort();
      expect(await onlyRow(target(), left.id)).toMatchObject({ status: 499, quota: 11, estimated: 1 });
      const broken = await grant(GRANTED);
      upstream.next(stream({ events, end: "reset" }));
      await (await ask(broken, { stream: true })).text();
      expect(await onlyRow(target(), broken.id)).toMatchObject({ quota: 11, estimated: 1 });
    });

    test("a client that leaves while its quota is set aside costs nothing, and no upstream is asked", async () => {
      /** False when it was refused before it could leave: a write does not wait for long for a lock. */
      async function leavesInTime(key: string): Promise<boolean> {
        await using _ = await holdWriteLock(storeFiles(target().dbPath).database);
        const abort = new AbortController();
        let isAnswered = false;
        const asked = chat(target(), key, {}, { signal: abort.signal }).then(
          () => {
            isAnswered = true;
          },
          () => undefined,
        );
        const isWaiting = async () => isAnswered || (await metricOf(target(), "gokv_relay_inflight")) === 1;
        await eventually("its quota is being set aside", SETTLED_MS_MAX, isWaiting);
        abort.abort();
        await asked;
        return !isAnswered;
      }
      let token = await grant(GRANTED);
      while (!(await leavesInTime(token.key))) token = await grant(GRANTED);
      const row = await onlyRow(target(), token.id);
      expect(row).toMatchObject({ status: 499, error_code: "client_closed_request", quota: 0, attempts: 0 });
      expect(readBooks(target().dbPath, token.id)).toMatchObject({ remain: GRANTED, used: 0, open: 0 });
      expect(upstream.requests).toEqual([]);
    });

    test("what is set aside comes back in a restart, and what was charged stays charged", async () => {
      const token = await grant(GRANTED);
      upstream.next(answerJson(chatAnswer("yes", { prompt_tokens: 3, completion_tokens: 4 })), stayStill);
      expect((await ask(token)).status).toBe(200);
      await settledBooks(target(), token.id, 1);
      const cut = ask(token).catch(() => null);
      await upstream.request(1);
      expect(readBooks(target().dbPath, token.id)).toMatchObject({ remain: GRANTED - 7 - AMOUNT, open: AMOUNT });
      await target().restart();
      await cut;
      expect((await ask(token)).status).toBe(200);
      const { dbPath } = target();
      // A server that could still say so has logged the cut one, too.
      const isSettled = ({ reservations, rows }: Books) => reservations === 0 && rows >= 2;
      await eventually("all is settled", SETTLED_MS_MAX, () => isSettled(readBooks(dbPath, token.id)));
      expect(mistakesIn(readBooks(dbPath, token.id), GRANTED)).toEqual([]);
      expect(readBooks(dbPath, token.id).used).toBe(7 + (await lastQuota(token)));
    });

    describe("the log", () => {
      /** Traffic of every kind on two channels; returns how many requests each token had admitted. */
      async function makeTraffic(tokens: readonly TokenJson[]): Promise<Map<number, number>> {
        const admitted = new Map(tokens.map(({ id }) => [id, 0]));
        await makeChannel(target(), upstream, { name: "second", models: ["b"], priority: 5 });
        upstream.forModel("bad", refuse(400, { code: "bad_thing" }));
        const same = { "X-Request-Id": "the-same-for-all" };
        const messages = [{ role: "user", content: "hi" }];
        const calls = tokens.flatMap((token) => [
          ...["a", "b", "b", "bad"].map((model) => [token, "chat/completions", { model, messages }] as const),
          ...["a", "b"].map((model) => [token, "chat/completions", { model, messages, stream: true }] as const),
          [token, "embeddings", { model: "a", input: "text" }] as const,
          [token, "moderations", { input: "text" }] as const,
          [token, "responses", { model: "b", input: "x" }] as const,
        ]);
        await Promise.all(
          calls.map(async ([token, path, body]) => {
            const answer = await post(path, token, body, same);
            await answer.text();
            expect(answer.headers.get("x-request-id")).not.toBe("the-same-for-all");
            admitted.set(token.id, admitted.get(token.id)! + 1);
          }),
        );
        // Refused before anything was sent: not in the log.
        expect((await post("chat/completions", tokens[0]!, { model: "a" }, same)).status).toBe(400);
        return admitted;
      }

      test("has one row for each admitted request, also when all of them bring the same id", async () => {
        const tokens = [await grant(100_000), await makeToken(target())];
        const admitted = await makeTraffic(tokens);
        for (const { id } of tokens) await settledBooks(target(), id, admitted.get(id)!);
        const rows = await logRows(target());
        const own = rows.filter(({ token_id }) => admitted.has(token_id));
        expect(new Set(own.map(({ request_id }) => request_id)).size).toBe(own.length);
        expect(own.map(({ request_id }) => request_id)).not.toContain("the-same-for-all");
        expect(own.map(({ ts }) => ts)).toEqual(own.map(({ ts }) => ts).sort((a, b) => b - a));
        for (const token of tokens) {
          const books = readBooks(target().dbPath, token.id);
          expect(books.used).toBe(books.logged);
          expect(books.used).toBeGreaterThan(0);
        }
        expect(await metricOf(target(), "gokv_relay_inflight")).toBe(0);
        expect(await metricOf(target(), "gokv_relay_log_dropped_total")).toBe(0);
      });

      test("is filtered and summed as a recount of all its rows says", async () => {
        const fromMs = Date.now();
        const tokens = [await grant(100_000), await makeToken(target())];
        const admitted = await makeTraffic(tokens);
        for (const { id } of tokens) await settledBooks(target(), id, admitted.get(id)!);
        const all = await logRows(target(), `&from=${fromMs}`);
        expect(all).toHaveLength([...admitted.values()].reduce((sum, count) => sum + count, 0));
        const middle = all[Math.floor(all.length / 2)]!;
        const filters: readonly (readonly [string, (row: LogRow) => boolean])[] = [
          ...tokens.map(({ id }) => [`token_id=${id}`, (row: LogRow) => row.token_id === id] as const),
          [`channel_id=${middle.channel_id}`, (row) => row.channel_id === middle.channel_id],
          ["model=b", ({ model }) => model === "b"],
          ["status=400", ({ status }) => status === 400],
          [`request_id=${middle.request_id}`, (row) => row === middle],
          [`to=${middle.ts}`, ({ ts }) => ts < middle.ts],
          [`from=${middle.ts}`, ({ ts }) => ts >= middle.ts],
          [
            `model=b&status=200&token_id=${tokens[0]!.id}`,
            (row) => row.model === "b" && row.status === 200 && row.token_id === tokens[0]!.id,
          ],
          ["model=nothing", () => false],
        ];
        for (const [query, fits] of filters) {
          const start = query.startsWith("from") ? "" : `&from=${fromMs}`;
          expect([query, await logRows(target(), `${start}&${query}`)]).toEqual([query, all.filter(fits)]);
        }
        for (const [group, keyOf] of GROUPS) {
          const path = `/api/log/stat?group_by=${group}&from=${fromMs}`;
          const { data } = await managed<{ data: Json[] }>(target(), "GET", path);
          expect([group, data]).toEqual([group, recount(all, keyOf)]);
        }
      });
    });
  });
}

const GROUPS: readonly (readonly [string, (row: LogRow) => number | string | null])[] = [
  ["token", ({ token_id }) => token_id],
  ["channel", ({ channel_id }) => channel_id],
  ["model", ({ model }) => model],
  ["day", ({ ts }) => new Date(ts).toISOString().slice(0, 10)],
];

/** The sums of a log, counted row by row. */
function recount(rows: readonly LogRow[], keyOf: (row: LogRow) => number | string | null): Json[] {
  const sum = (own: readonly LogRow[], figure: (row: LogRow) => number) =>
    own.reduce((total, row) => total + figure(row), 0);
  const rounded = (ms: number) => Math.round(ms * 100) / 100;
  return [...Map.groupBy(rows, keyOf)]
    .sort(([left], [right]) => ((left ?? "") < (right ?? "") ? -1 : 1))
    .map(([key, own]) => {
      const begun = own.filter(({ ttft_ms }) => ttft_ms !== null);
      const failed = own.filter(({ status, error_code }) => status >= 400 || error_code !== null);
      return {
        key,
        requests: own.length,
        errors: failed.length,
        prompt_tokens: sum(own, (row) => row.prompt_tokens),
        completion_tokens: sum(own, (row) => row.completion_tokens),
        quota: sum(own, (row) => row.quota),
        duration_ms_avg: rounded(sum(own, (row) => row.duration_ms) / own.length),
        ttft_ms_avg: begun.length === 0 ? null : rounded(sum(begun, (row) => row.ttft_ms!) / begun.length),
      };
    });
}
