// What becomes of a request whose upstream fails: whether another channel is asked, what the client gets to see, and
// what the failure means for the channel.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { eventually } from "../support/eventually.ts";
import type { Plan } from "../support/fault-upstream.ts";
import { expectTimeFrom } from "../support/figures-in-bounds.ts";
import { type Json, RELAY_ENV, relayErrorOf } from "../support/relay-client.ts";
import { chatTextOf, RelayRig } from "../support/relay-rig.ts";
import type { OpenTarget } from "../support/targets.ts";
import {
  afterMs,
  answerJson,
  answerText,
  chatChunk,
  cutAnswer,
  DONE,
  errorFrame,
  rateLimit,
  redirectTo,
  refuse,
  resetAtOnce,
  stayStill,
  stream,
} from "../support/upstream-plans.ts";
import { useTarget } from "../support/use-target.ts";

setDefaultTimeout(120_000);

const STREAM = { stream: true };
const MODEL = "some-model";
const BAD = "bad_upstream_response";

/** What a failure does to its channel. */
type Effect = "none" | "failure" | "cooling" | "model off" | "disabled";

interface Failure {
  readonly name: string;
  readonly plan: Plan;
  /** What the client sees when there is nobody else. */
  readonly status: number;
  readonly code: string | null;
  readonly effect: Effect;
  readonly fields?: Json;
  readonly channel?: Json;
}

const outage = (status: number): Failure => ({
  name: `status ${status}`,
  plan: refuse(status, { code: "broken" }),
  status,
  code: "broken",
  effect: "failure",
});
const refusal = (status: number, code: string | null, effect: Effect, type?: string): Failure => ({
  name: `${status} ${code} ${type ?? ""}`,
  plan: refuse(status, { code, ...(type ? { type } : {}) }),
  status,
  code,
  effect,
});
const unreadable = (name: string, plan: Plan, more: Partial<Failure> = {}): Failure => ({
  name,
  plan,
  status: 502,
  code: BAD,
  effect: "failure",
  ...more,
});

const RETRIED: readonly Failure[] = [
  { name: "a reset", plan: resetAtOnce, status: 502, code: "upstream_unreachable", effect: "failure" },
  {
    name: "a closed port",
    plan: stayStill,
    status: 502,
    code: "upstream_unreachable",
    effect: "failure",
    channel: { base_url: "http://127.0.0.1:1" },
  },
  ...[500, 502, 503, 529, 408, 501, 520, 599].map(outage),
  unreadable("a redirect", redirectTo("http://127.0.0.1:1/")),
  unreadable("a lasting redirect", redirectTo("http://127.0.0.1:1/", 308)),
  unreadable("HTML under 200", answerText("<p>hello</p>", "text/html")),
  unreadable("a body that is no JSON", answerText("{oops", "application/json")),
  unreadable("a body that breaks off", cutAnswer('{"id":')),
  unreadable("an error under 200", answerJson({ error: { message: "x", type: "server_error", code: "hidden" } }), {
    code: "hidden",
  }),
  unreadable("an error as the first event", stream({ events: [errorFrame] }), { code: "server_error", fields: STREAM }),
  unreadable("a stream that breaks before its first event", stream({ events: [], end: "close" }), { fields: STREAM }),
  { name: "429", plan: rateLimit({}), status: 429, code: "rate_limit_exceeded", effect: "cooling" },
  refusal(401, "invalid_api_key", "disabled"),
  refusal(401, null, "disabled"),
  refusal(402, "payment_required", "disabled"),
  refusal(429, "insufficient_quota", "disabled", "insufficient_quota"),
  refusal(429, null, "disabled", "insufficient_quota"),
  refusal(403, "insufficient_quota", "disabled"),
  refusal(403, "invalid_api_key", "disabled"),
  refusal(403, "account_deactivated", "disabled"),
  refusal(403, null, "disabled", "authentication_error"),
  refusal(403, null, "disabled", "permission_error"),
  refusal(403, "forbidden", "none"),
  refusal(404, "model_not_found", "model off"),
  {
    name: "SiliconFlow's 20012",
    plan: answerJson({ code: 20012, message: "Model does not exist." }, 400),
    status: 400,
    code: "20012",
    effect: "model off",
  },
];

const TIMEOUTS: readonly Failure[] = [
  outage(504),
  outage(524),
  {
    name: "no first event in time",
    plan: stayStill,
    status: 504,
    code: "upstream_timeout",
    effect: "failure",
    fields: STREAM,
    channel: { ttft_ms: 600 },
  },
  {
    name: "no answer in time",
    plan: stayStill,
    status: 504,
    code: "upstream_timeout",
    effect: "failure",
    channel: { total_ms: 600 },
  },
];

const FINAL: readonly Failure[] = [
  ...[400, 413, 422, 404, 405, 409, 415, 418, 431, 451].map((status) => refusal(status, "as_it_is", "none")),
];

async function expectEffect(rig: RelayRig, effect: Effect, code: string | null): Promise<void> {
  if (effect === "disabled") {
    await eventually("the channel is disabled", 2_000, async () => (await rig.channel(0)).status === 3);
  }
  const [channel, health] = [await rig.channel(0), await rig.health(0)];
  expect({
    status: channel.status,
    state: health.state,
    failures: health.failures,
    cooling: health.cooling.map(({ model }) => model),
    off: health.models_off,
  }).toEqual({
    status: effect === "disabled" ? 3 : 1,
    state: effect === "cooling" ? "cooling" : "closed",
    failures: effect === "failure" ? 1 : 0,
    cooling: effect === "cooling" ? [MODEL] : [],
    off: effect === "model off" ? [MODEL] : [],
  });
  if (effect === "disabled" && code !== null) expect(channel.status_reason).toBe(code);
}

export function relayRetrySuite(name: string, open: OpenTarget): void {
  describe.concurrent(`failures of upstreams behind ${name}`, () => {
    const target = useTarget(open, RELAY_ENV);

    for (const failure of RETRIED) {
      const { plan, status, code, effect, fields = {}, channel = {} } = failure;
      test(`${failure.name}: another channel answers; the failed one: ${effect}`, async () => {
        await using rig = await RelayRig.open(target(), [channel, {}]);
        rig.plan(plan);
        const answer = await rig.chat({ model: MODEL, ...fields });
        expect([answer.status, await chatTextOf(answer)]).toEqual([200, "You said: hi"]);
        expect(answer.headers.get("x-gokv-attempts")).toBe("2");
        expect(rig.calls).toEqual(channel.base_url === undefined ? [1, 1] : [0, 1]);
        await expectEffect(rig, effect, code);
        expect(await rig.rows(1)).toMatchObject([
          { status: 200, attempts: 2, channel_id: rig.channels[1]!.id, error_code: null },
        ]);
      });

      test(`${failure.name} everywhere: the client sees ${status}`, async () => {
        await using rig = await RelayRig.open(target(), [channel, channel]);
        rig.plan(plan, plan);
        const answer = await rig.chat({ model: MODEL, ...fields });
        expect([answer.status, (await relayErrorOf(answer)).code]).toEqual([status, code]);
        expect(answer.headers.get("x-gokv-attempts")).toBe("2");
        expect(rig.calls).toEqual(channel.base_url === undefined ? [1, 1] : [0, 0]);
        expect(await rig.rows(1)).toMatchObject([{ status, attempts: 2, quota: 0, prompt_tokens: 0, estimated: 0 }]);
      });
    }

    for (const failure of [...TIMEOUTS, ...FINAL]) {
      const { plan, status, code, effect, fields = {}, channel = {} } = failure;
      test(`${failure.name}: no other channel is asked; the failed one: ${effect}`, async () => {
        await using rig = await RelayRig.open(target(), [channel, {}]);
        rig.plan(plan);
        const answer = await rig.chat({ model: MODEL, ...fields });
        expect([answer.status, (await relayErrorOf(answer)).code]).toEqual([status, code]);
        expect(answer.headers.get("x-gokv-attempts")).toBe("1");
        expect(answer.headers.get("x-gokv-upstream-status")).toBe(code === "upstream_timeout" ? null : `${status}`);
        expect(rig.calls).toEqual([1, 0]);
        await expectEffect(rig, effect, code);
        expect(await rig.rows(1)).toMatchObject([{ status, attempts: 1, quota: 0, error_code: code }]);
      });
    }

    test.each<[string, readonly (readonly [number, string | null])[], number]>([
      [
        "429 before 500",
        [
          [429, "rate_limit_exceeded"],
          [500, "boom"],
        ],
        429,
      ],
      [
        "500 before 429",
        [
          [500, "boom"],
          [429, "rate_limit_exceeded"],
        ],
        429,
      ],
      [
        "500 before 401",
        [
          [500, "boom"],
          [401, "invalid_api_key"],
        ],
        500,
      ],
      [
        "401 before 500",
        [
          [401, "invalid_api_key"],
          [500, "boom"],
        ],
        500,
      ],
      [
        "404 before 401",
        [
          [404, "model_not_found"],
          [401, "invalid_api_key"],
        ],
        404,
      ],
      [
        "500 before 404",
        [
          [500, "boom"],
          [404, "model_not_found"],
        ],
        500,
      ],
      [
        "of two outages the last",
        [
          [500, "boom"],
          [503, "boom"],
        ],
        503,
      ],
      [
        "of two key failures the last",
        [
          [401, "invalid_api_key"],
          [402, "payment_required"],
        ],
        402,
      ],
      [
        "401 before 400",
        [
          [401, "invalid_api_key"],
          [400, "as_it_is"],
        ],
        400,
      ],
    ])("the client sees the failure that tells it most: %s", async (_, failures, status) => {
      await using rig = await RelayRig.open(target(), [{}, {}]);
      rig.plan(...failures.map(([each, code]) => refuse(each, { code })));
      expect((await rig.chat()).status).toBe(status);
      expect(rig.calls).toEqual([1, 1]);
    });

    test("at most three channels are tried for a model, none of them twice", async () => {
      await using rig = await RelayRig.open(target(), [{}, {}, {}, {}, {}]);
      rig.plan(...rig.upstreams.map(() => refuse(500)));
      const answer = await rig.chat();
      expect([answer.status, answer.headers.get("x-gokv-attempts")]).toEqual([500, "3"]);
      expect(rig.calls).toEqual([1, 1, 1, 0, 0]);
    });

    test("two models have four attempts between them", async () => {
      await using rig = await RelayRig.open(target(), [{}, {}, {}, {}, {}]);
      rig.plan(...rig.upstreams.map(() => refuse(500)));
      const answer = await rig.chat({ model: "a", models: ["b"] });
      expect([answer.status, answer.headers.get("x-gokv-attempts")]).toEqual([500, "4"]);
      expect(rig.upstreams.flatMap(({ requests }) => requests.map(({ json }) => json.model)).toSorted()).toEqual([
        "a",
        "a",
        "a",
        "b",
      ]);
    });

    test("400 and 422 go upstream exactly once, however many channels and models there are", async () => {
      for (const status of [400, 422]) {
        await using rig = await RelayRig.open(target(), [{}, {}, {}]);
        rig.plan(...rig.upstreams.map(() => refuse(status)));
        expect((await rig.chat({ models: ["b", "c"] })).status).toBe(status);
        expect((await rig.chat({ ...STREAM, models: ["b", "c"] })).status).toBe(status);
        expect(rig.calls).toEqual([2, 0, 0]);
      }
    });

    test("a 429 whose text speaks of an invalid key disables nothing", async () => {
      await using rig = await RelayRig.open(target(), [{}, {}]);
      rig.plan(rateLimit({}, "error code: invalid_api_key, insufficient_quota, authentication_error"));
      expect((await rig.chat({ model: MODEL })).status).toBe(200);
      await expectEffect(rig, "cooling", null);
    });

    test("a 403 and a 400 whose texts speak of keys and models change nothing", async () => {
      await using rig = await RelayRig.open(target(), [{}, {}]);
      rig.upstream.next(refuse(403, { message: "invalid_api_key" }), refuse(400, { message: "model_not_found 20012" }));
      expect((await rig.chat({ model: MODEL })).status).toBe(200);
      expect((await rig.chat({ model: MODEL })).status).toBe(400);
      await expectEffect(rig, "none", null);
    });

    test("a model that is unknown at one endpoint is asked for at the others", async () => {
      await using rig = await RelayRig.open(target());
      rig.upstream.next(refuse(404, { code: "model_not_found", param: "model" }));
      const embed = () => rig.post("/embeddings", { model: MODEL, input: "x" });
      expect((await embed()).status).toBe(404);
      await expectEffect(rig, "model off", null);
      expect((await rig.chat({ model: MODEL })).status).toBe(200);
      const refused = await embed();
      expect([refused.status, (await relayErrorOf(refused)).code]).toEqual([404, "model_not_found"]);
      expect(rig.calls).toEqual([2]);
    });

    test("a model that no channel knows is not found, however often it is asked for", async () => {
      await using rig = await RelayRig.open(target(), [{}, {}]);
      rig.plan(...[0, 1].map(() => refuse(404, { code: "model_not_found" })));
      for (let asked = 0; asked < 3; asked++) {
        const answer = await rig.chat({ model: MODEL });
        expect([answer.status, (await relayErrorOf(answer)).code]).toEqual([404, "model_not_found"]);
        expect(answer.headers.get("retry-after")).toBe(null);
      }
      expect(rig.calls).toEqual([1, 1]);
    });

    test("a 404 about something else than the model takes it from nobody", async () => {
      await using rig = await RelayRig.open(target());
      rig.upstream.next(refuse(404, { type: "NotFoundError", param: "input[0].file_id" }));
      expect((await rig.chat({ model: MODEL })).status).toBe(404);
      await expectEffect(rig, "none", null);
      expect((await rig.chat({ model: MODEL })).status).toBe(200);
    });

    test("the time of the whole request holds for all attempts together", async () => {
      await using hasty = await open({ ...RELAY_ENV, RELAY_TOTAL_MS: "3000" });
      await using rig = await RelayRig.open(hasty, [{}, { total_ms: 5_000 }]);
      rig.plan(async (exchange) => {
        await exchange.pause(2_800);
        await refuse(500)(exchange);
      }, stayStill);
      const startMs = performance.now();
      expect((await rig.chat()).status).toBe(504);
      const tookMs = performance.now() - startMs;
      expectTimeFrom("all attempts", tookMs, 2_950, 3_200);
      // Less than the first attempt and the whole time of the second take.
      expect(tookMs).toBeLessThan(5_500);
      expect(rig.calls).toEqual([1, 1]);
      // A fraction of its time is nothing to judge it by.
      expect(await rig.health(1)).toMatchObject({ state: "closed", failures: 0 });
    });

    test("the time of a channel begins when it is asked, not when the one before it was", async () => {
      await using rig = await RelayRig.open(target(), [{}, { total_ms: 1_500 }]);
      rig.plan(afterMs(1_600, refuse(503)));
      const answer = await rig.chat();
      expect([answer.status, answer.headers.get("x-gokv-attempts")]).toEqual([200, "2"]);
      rig.plan(afterMs(1_600, refuse(503)), stayStill);
      expect((await rig.chat()).status).toBe(504);
      expect((await rig.health(1)).failures).toBe(1);
    });
  });

  describe.concurrent(`failures of upstreams behind ${name} that retries what ran out of time`, () => {
    const target = useTarget(open, { ...RELAY_ENV, RELAY_RETRY_TIMEOUTS: "1" });

    for (const { name: what, plan, fields = {}, channel = {} } of TIMEOUTS) {
      test(`${what}: another channel answers`, async () => {
        await using rig = await RelayRig.open(target(), [channel, {}]);
        rig.plan(plan);
        const answer = await rig.chat({ model: MODEL, ...fields });
        expect([answer.status, await chatTextOf(answer)]).toEqual([200, "You said: hi"]);
        expect(rig.calls).toEqual([1, 1]);
        await expectEffect(rig, "failure", null);
      });
    }

    test("nobody is asked when the time of the whole request is over", async () => {
      await using hasty = await open({ ...RELAY_ENV, RELAY_RETRY_TIMEOUTS: "1", RELAY_TOTAL_MS: "700" });
      await using rig = await RelayRig.open(hasty, [{}, {}]);
      rig.plan(stayStill);
      const answer = await rig.chat();
      expect([answer.status, answer.headers.get("x-gokv-attempts")]).toEqual([504, "1"]);
      expect(rig.calls).toEqual([1, 0]);
      expect((await rig.health(0)).failures).toBe(1);
      expect((await rig.health(1)).requests).toBe(0);
    });
  });

  describe.concurrent(`upstreams behind ${name} that ask to be left alone`, () => {
    const target = useTarget(open, RELAY_ENV);

    test.each<[string, () => Record<string, string>, number]>([
      ["seconds", () => ({ "retry-after": "2" }), 2_000],
      ["a date", () => ({ "retry-after": new Date(Date.now() + 3_000).toUTCString() }), 2_000],
      ["milliseconds", () => ({ "retry-after-ms": "1500" }), 1_500],
      ["milliseconds of Azure", () => ({ "x-ms-retry-after-ms": "1500" }), 1_500],
      ["no time at all", () => ({ "retry-after": "0" }), 1_000],
      ["the longer of two times", () => ({ "retry-after": "1", "retry-after-ms": "2500" }), 2_500],
    ])("for %s get no call for that model, but one for another", async (_, headers, waitMs) => {
      await using rig = await RelayRig.open(target());
      const startMs = performance.now();
      rig.upstream.next(rateLimit(headers()));
      const first = await rig.chat({ model: MODEL });
      expect([first.status, (await relayErrorOf(first)).code]).toEqual([429, "rate_limit_exceeded"]);
      expect((await rig.chat({ model: "another" })).status).toBe(200);
      let answer = await rig.chat({ model: MODEL });
      // Unless this machine was busy for so long that the time is over already.
      if (performance.now() - startMs < waitMs) expect(answer.status).toBe(503);
      const told = Number(answer.headers.get("retry-after") ?? 1);
      expect(told).toBeWithin(1, Math.ceil(waitMs / 1000) + 2);
      while (answer.status === 503) {
        expect((await relayErrorOf(answer)).code).toBe("channels_cooling_down");
        expect(rig.calls).toEqual([2]);
        await Bun.sleep(50);
        answer = await rig.chat({ model: MODEL });
      }
      expect(answer.status).toBe(200);
      // A date has whole seconds.
      expectTimeFrom("being left alone", performance.now() - startMs, waitMs - 100, waitMs + 1_500);
    });

    test("for too long are left alone for an hour", async () => {
      await using rig = await RelayRig.open(target());
      rig.upstream.next(rateLimit({ "retry-after": "99999999" }));
      const answer = await rig.chat({ model: MODEL });
      expect([answer.status, answer.headers.get("retry-after")]).toEqual([429, "99999999"]);
      const [cooling] = (await rig.health(0)).cooling;
      expect(cooling!.until - Date.now() / 1000).toBeWithin(3_540, 3_602);
    });

    test.each<[string, Record<string, string>, number]>([
      ["in milliseconds", { "retry-after-ms": "3000" }, 3],
      ["in no known form", { "retry-after": "soon" }, 5],
      ["not at all", {}, 5],
    ])("and say %s for how long: the client is told in seconds", async (_, headers, seconds) => {
      await using rig = await RelayRig.open(target());
      rig.upstream.next(rateLimit(headers));
      const answer = await rig.chat({ model: MODEL });
      expect([answer.status, answer.headers.get("retry-after")]).toEqual([429, `${seconds}`]);
    });

    const KEY = "canary-Zx81Qp03Lm77";
    const QUOTING = { "retry-after": `key ${KEY} is limited` };
    const NO_QUOTA = { type: "insufficient_quota", code: "insufficient_quota", message: "No credit." };

    test.each<[string, Plan, string | null]>([
      ["with words in place of a time", rateLimit(QUOTING), "5"],
      ["with words besides a time", rateLimit({ ...QUOTING, "retry-after-ms": "2500" }), "3"],
      ["with the shorter of two times in seconds", rateLimit({ "retry-after": "1", "retry-after-ms": "2500" }), "3"],
      [
        "with a date whose day is a word of theirs",
        rateLimit({ "retry-after": "Canary, 01 Jan 2020 00:00:00 GMT" }),
        "1",
      ],
      ["without credit, with words in place of a time", refuse(429, NO_QUOTA, QUOTING), null],
      ["without credit, with a time", refuse(429, NO_QUOTA, { "retry-after": "7.5" }), "8"],
    ])("%s: the client gets whole seconds, and no text of theirs", async (_, plan, seconds) => {
      await using rig = await RelayRig.open(target(), [{ key: KEY }]);
      rig.upstream.next(plan);
      const answer = await rig.chat({ model: MODEL });
      expect([answer.status, answer.headers.get("retry-after")]).toEqual([429, seconds]);
    });

    test("for no time they name are left alone for five seconds, and for longer each time", async () => {
      await using rig = await RelayRig.open(target());
      rig.upstream.next(rateLimit({ "retry-after": "soon" }), rateLimit());
      await rig.chat({ model: MODEL });
      const first = (await rig.health(0)).cooling[0]!.until - Date.now() / 1000;
      expect(first).toBeWithin(1, 6.1);
      let answer = await rig.chat({ model: MODEL });
      while (answer.status === 503) {
        await Bun.sleep(100);
        answer = await rig.chat({ model: MODEL });
      }
      expect(answer.status).toBe(429);
      const second = (await rig.health(0)).cooling[0]!.until - Date.now() / 1000;
      expect(second).toBeWithin(6.1, 11.1);
    });

    test("all of them: the client is told the soonest time", async () => {
      await using rig = await RelayRig.open(target(), [{}, {}, {}]);
      rig.plan(...["30", "9", "20"].map((seconds) => rateLimit({ "retry-after": seconds })));
      expect((await rig.chat({ model: MODEL })).status).toBe(429);
      const answer = await rig.chat({ model: MODEL });
      expect(answer.status).toBe(503);
      expect((await relayErrorOf(answer)).code).toBe("channels_cooling_down");
      expect(Number(answer.headers.get("retry-after"))).toBeWithin(1, 10);
      expect(rig.calls).toEqual([1, 1, 1]);
      // What no upstream was asked for is no use of anything.
      expect((await rig.rows(1)).length).toBe(1);
    });
  });

  describe.concurrent(`models to fall back on behind ${name}`, () => {
    const target = useTarget(open, RELAY_ENV);
    const CHANNELS = [{ models: ["down"] }, { models: ["up"] }];
    const ASKED = { model: "down", models: ["down", "up"] };

    test.each<[string, Plan]>([
      ["fails", refuse(500)],
      ["is over its limit", rateLimit()],
      ["is unknown there", refuse(404, { code: "model_not_found" })],
      ["has a key that is refused", refuse(401, { code: "invalid_api_key" })],
    ])("the next model answers when one %s", async (_, plan) => {
      await using rig = await RelayRig.open(target(), CHANNELS);
      rig.plan(plan);
      for (const fields of [{}, STREAM]) {
        const answer = await rig.chat({ ...ASKED, ...fields });
        expect([answer.status, await chatTextOf(answer)]).toEqual([200, "You said: hi"]);
        expect(answer.headers.get("x-gokv-model")).toBe("up");
      }
      for (const { json } of rig.upstreams[1]!.requests) {
        expect(json.model).toBe("up");
        expect(json).not.toHaveProperty("models");
      }
      for (const row of await rig.rows(2)) expect(row).toMatchObject({ status: 200, model: "up" });
    });

    test("the next model answers when nobody serves the one before, or it is cooling", async () => {
      await using rig = await RelayRig.open(target(), CHANNELS);
      const unknown = await rig.chat({ model: "nobody-serves-it", models: ["up"] });
      expect([unknown.status, unknown.headers.get("x-gokv-model")]).toEqual([200, "up"]);
      rig.upstream.next(rateLimit({ "retry-after": "60" }));
      await rig.chat({ model: "down" });
      const cooling = await rig.chat(ASKED);
      expect([cooling.status, cooling.headers.get("x-gokv-model")]).toEqual([200, "up"]);
      expect(rig.calls).toEqual([1, 2]);
    });

    test("each model that can be asked gets an attempt, however many those before it have failed", async () => {
      const models = [["x", "y"], ["x", "y"], ["x", "y"], ["z"]];
      await using rig = await RelayRig.open(
        target(),
        models.map((served) => ({ models: served })),
      );
      rig.plan(refuse(500), refuse(500), refuse(500));
      const answer = await rig.chat({ model: "x", models: ["y", "z"] });
      expect([answer.status, answer.headers.get("x-gokv-model")]).toEqual([200, "z"]);
      const asked = rig.upstreams.flatMap(({ requests }) => requests.map(({ json }) => json.model)).toSorted();
      expect(asked).toEqual(["x", "x", "x", "y", "z"]);
    });

    test("no attempt is kept for a model that nobody can be asked for", async () => {
      await using rig = await RelayRig.open(target(), [{}, {}, {}].fill({ models: ["x", "y"] }));
      for (const upstream of rig.upstreams) upstream.forModel("x", refuse(500));
      rig.upstream.forModel("y", refuse(500));
      const answer = await rig.chat({ model: "x", models: ["y", "nobody-serves-it"] });
      expect([answer.status, answer.headers.get("x-gokv-model"), rig.calls]).toEqual([200, "y", [2, 2, 1]]);
    });

    test("the first model is used, and named, as long as it works", async () => {
      await using rig = await RelayRig.open(target(), CHANNELS);
      const answer = await rig.chat(ASKED);
      expect([answer.status, answer.headers.get("x-gokv-model")]).toEqual([200, "down"]);
      expect(rig.calls).toEqual([1, 0]);
    });

    test.each([400, 413, 422, 504])("%d does not fall back", async (status) => {
      await using rig = await RelayRig.open(target(), CHANNELS);
      rig.plan(refuse(status));
      expect((await rig.chat(ASKED)).status).toBe(status);
      expect(rig.calls).toEqual([1, 0]);
    });

    test("nothing falls back once a stream has begun", async () => {
      await using rig = await RelayRig.open(target(), CHANNELS);
      rig.plan(stream({ events: [chatChunk("a"), errorFrame, DONE] }));
      expect(await (await rig.chat({ ...ASKED, ...STREAM })).text()).toContain("server_error");
      expect(rig.calls).toEqual([1, 0]);
    });
  });
}
