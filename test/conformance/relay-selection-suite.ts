// Which channel is asked: by priority and health, from the very next request on after any change.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { eventually } from "../support/eventually.ts";
import type { Plan } from "../support/fault-upstream.ts";
import { expectTime, expectTimeFrom } from "../support/figures-in-bounds.ts";
import { chat, chatCode, type Json, makeToken, manage, managed, RELAY_ENV } from "../support/relay-client.ts";
import { RelayRig } from "../support/relay-rig.ts";
import { bySize } from "../support/run-size.ts";
import type { OpenTarget } from "../support/targets.ts";
import {
  afterMs,
  afterwards,
  answerNormally,
  chatChunk,
  DONE,
  event,
  rateLimit,
  refuse,
  stayStill,
  stream,
  wrongKey,
} from "../support/upstream-plans.ts";
import { useTarget } from "../support/use-target.ts";

setDefaultTimeout(120_000);

const OPEN_MS = 15_000;
const CLOSED_PORT = "http://127.0.0.1:1";
/** How fast a request is refused that no channel can take; the best of several, as others share the machine. */
const REFUSAL_MS_MAX = 5;
const badKey = refuse(401, { code: "invalid_api_key" });

export function relaySelectionSuite(name: string, open: OpenTarget): void {
  describe.concurrent(`selection of channels by ${name}`, () => {
    const target = useTarget(open, RELAY_ENV);

    test("a lower priority is asked only when the higher has nobody left", async () => {
      await using rig = await RelayRig.open(target(), [{ priority: 5 }, { priority: 5 }, { priority: -1 }]);
      await repeat(40, () => rig.chat());
      const [first, second, low] = rig.calls;
      expect(first! + second!).toBe(40);
      expect([first, second, low]).toEqual([expect.any(Number), expect.any(Number), 0]);
      expect(Math.min(first!, second!)).toBeGreaterThan(3);
      await rig.act(0, "disable");
      rig.upstreams[1]!.next(rateLimit({ "retry-after": "60" }));
      expect((await rig.chat()).status).toBe(200);
      expect(rig.calls[2]).toBe(1);
      await repeat(5, () => rig.chat());
      expect(rig.calls[2]).toBe(6);
      await rig.act(0, "enable");
      await repeat(5, () => rig.chat());
      expect(rig.calls[2]).toBe(6);
    });

    test("weights share the requests; a weight of 0 beside others gets none", async () => {
      const channels = [1, 3, 0].map((weight) => ({ weight, priority: 0 }));
      await using rig = await RelayRig.open(target(), channels);
      await repeat(200, () => rig.chat());
      const [one, three, none] = rig.calls;
      expect(none).toBe(0);
      // 50 are expected; less than one in a million runs leaves these bounds.
      expect(one).toBeWithin(20, 81);
      expect(one! + three!).toBe(200);
    });

    test("a channel serves the models that it names, and those that it renames", async () => {
      const channels = [{ models: ["a"] }, { models: ["b"], model_mapping: { mine: "theirs" } }];
      await using rig = await RelayRig.open(target(), channels);
      expect(await statusesOf(rig, ["a", "b", "mine", "c"])).toEqual([200, 200, 200, 404]);
      expect(rig.upstreams.map(({ requests }) => requests.map(({ json }) => json.model))).toEqual([
        ["a"],
        ["b", "theirs"],
      ]);
    });

    test("changes of a channel count from the next request on", async () => {
      await using rig = await RelayRig.open(target(), [{}, {}]);
      const [id] = [rig.channels[0]!.id];
      const change = (fields: Json) => managed(target(), "PUT", `/api/channel/${id}`, fields);
      const lastOf = (index: number) => rig.upstreams[index]!.requests.at(-1)!;
      await managed(target(), "DELETE", `/api/channel/${rig.channels[1]!.id}`);

      await change({ key: "sk-new-0123456789abcdef" });
      expect((await rig.chat()).status).toBe(200);
      expect(lastOf(0).key).toBe("sk-new-0123456789abcdef");
      await change({ model_mapping: { x: "y" } });
      await rig.chat({ model: "x" });
      expect(lastOf(0).json.model).toBe("y");
      await change({ models: ["only"] });
      expect(await statusesOf(rig, ["only", "other"])).toEqual([200, 404]);
      await change({ base_url: rig.upstreams[1]!.url, key: "sk-moved-0123456789abcdef" });
      expect((await rig.chat({ model: "only" })).status).toBe(200);
      expect(lastOf(1).key).toBe("sk-moved-0123456789abcdef");
      await change({ group: "somewhere-else" });
      expect(await chatCode(await rig.chat({ model: "only" }))).toBe("no_available_channel");
      await change({ group: rig.group, status: 0 });
      expect(await chatCode(await rig.chat({ model: "only" }))).toBe("no_available_channel");
      await change({ status: 1 });
      expect((await rig.chat({ model: "only" })).status).toBe(200);
      await managed(target(), "DELETE", `/api/channel/${id}`);
      const refused = await rig.chat({ model: "only" });
      expect([refused.status, await chatCode(refused)]).toEqual([500, "no_available_channel"]);
    });

    test("changes of a token count from the next request on", async () => {
      await using rig = await RelayRig.open(target());
      const token = await makeToken(target(), { group: rig.group });
      const change = (fields: Json) => managed(target(), "PUT", `/api/token/${token.id}`, fields);
      const codeNow = async () => chatCode(await chat(target(), token.key, { model: "m" }));
      expect(await codeNow()).toBeNull();
      await change({ status: 0 });
      expect(await codeNow()).toBe("token_disabled");
      await change({ status: 1, models: ["other"] });
      expect(await codeNow()).toBe("model_not_allowed");
      await change({ models: [], expired_time: 1 });
      expect(await codeNow()).toBe("token_expired");
      await change({ expired_time: -1, allow_ips: ["10.9.8.7"] });
      expect(await codeNow()).toBe("ip_not_allowed");
      await change({ allow_ips: [], group: "nobody-is-there" });
      expect(await codeNow()).toBe("no_available_channel");
      await change({ group: rig.group });
      expect(await codeNow()).toBeNull();
      await managed(target(), "DELETE", `/api/token/${token.id}`);
      expect(await codeNow()).toBe("invalid_api_key");
    });

    test("a channel that is deleted finishes what it has begun", async () => {
      await using rig = await RelayRig.open(target());
      rig.plan(afterMs(500, answerNormally));
      const asked = rig.chat();
      await rig.upstream.request(0);
      await managed(target(), "DELETE", `/api/channel/${rig.channels[0]!.id}`);
      expect((await asked).status).toBe(200);
      expect(await rig.rows(1)).toMatchObject([{ status: 200, channel_id: rig.channels[0]!.id }]);
    });
  });

  describe.concurrent(`channels of ${name} whose keys are refused`, () => {
    const target = useTarget(open, RELAY_ENV);

    test("are disabled while another is there", async () => {
      await using rig = await RelayRig.open(target(), [{}, {}]);
      rig.plan(wrongKey);
      expect((await rig.chat()).status).toBe(200);
      await eventually("the channel is disabled", 2_000, async () => (await rig.channel(0)).status === 3);
      expect(await rig.channel(0)).toMatchObject({ status: 3, status_reason: "invalid_api_key" });
      expect(await rig.health(0)).toMatchObject({ status: 3, failures: 0, last_error: { code: "invalid_api_key" } });
      await repeat(5, () => rig.chat());
      expect(rig.calls).toEqual([1, 6]);
    });

    test("stay when they are the last of their group: each call shows what the upstream says", async () => {
      await using rig = await RelayRig.open(target());
      rig.plan(wrongKey);
      for (let call = 1; call <= 10; call++) {
        const answer = await rig.chat();
        expect([answer.status, await chatCode(answer)]).toEqual([401, "invalid_api_key"]);
        expect(rig.calls).toEqual([call]);
      }
      await eventually("the reason is kept", 2_000, async () => (await rig.channel(0)).status_reason !== null);
      expect(await rig.channel(0)).toMatchObject({ status: 1, status_reason: "invalid_api_key" });
      expect(await rig.health(0)).toMatchObject({ state: "closed", failures: 0 });
    });

    test("are all refused at once: the last one stays", async () => {
      await using rig = await RelayRig.open(target(), [{ priority: 0 }, { priority: 0 }, { priority: 0 }]);
      rig.plan(badKey, badKey, badKey);
      const answers = await Promise.all(Array.from({ length: 20 }, () => rig.chat()));
      expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([401]));
      const statuses = async () => Promise.all([0, 1, 2].map(async (index) => (await rig.channel(index)).status));
      await eventually("two are disabled", 2_000, async () => (await statuses()).toSorted().join() === "1,3,3");
      const later = await rig.chat();
      expect([later.status, later.headers.get("x-gokv-attempts")]).toEqual([401, "1"]);
    });

    test("stay when an operator wants them to", async () => {
      await using rig = await RelayRig.open(target(), [{ auto_ban: false }, {}]);
      rig.plan(wrongKey);
      await repeat(3, () => rig.chat());
      expect(rig.calls).toEqual([3, 3]);
      expect((await rig.channel(0)).status).toBe(1);
    });

    const probed = bySize<string | null>(
      null,
      null,
      "are asked by themselves after a minute whether their keys work again",
    );
    if (probed !== null) {
      test(probed, async () => {
        await using rig = await RelayRig.open(target(), [{}, {}]);
        rig.upstream.next(wrongKey);
        expect((await rig.chat()).status).toBe(200);
        await eventually("the channel is disabled", 2_000, async () => (await rig.channel(0)).status === 3);
        await eventually("the channel is enabled", 75_000, async () => (await rig.channel(0)).status === 1);
        expect(rig.upstream.requests.at(-1)).toMatchObject({ method: "GET", path: "/v1/models" });
        await repeat(2, () => rig.chat());
        expect(rig.calls).toEqual([4, 1]);
      }, 400_000);
    }
  });

  describe.concurrent(`operators of ${name}`, () => {
    const target = useTarget(open, RELAY_ENV);

    test("test a channel: a success lifts its ban and closes its breaker", async () => {
      await using rig = await RelayRig.open(target(), [{ models: ["m"] }, { models: ["m"] }]);
      rig.upstream.next(...times(5, refuse(500)), wrongKey);
      await repeat(5, () => rig.chat({ model: "m" }));
      expect((await rig.health(0)).state).toBe("open");
      const failed = (await (await rig.act(0, "test")).json()) as Json;
      expect(failed).toMatchObject({ success: false, status: 401, ttft_ms: null, model: "m" });
      expect(failed.error).toContain("Incorrect API key provided: ***");
      expect((await rig.health(0)).state).toBe("open");

      const worked = (await (await rig.act(0, "test", { stream: true })).json()) as Json;
      expect(worked).toMatchObject({ success: true, status: 200, model: "m" });
      expect([worked.time_ms, worked.ttft_ms]).toEqual([expect.any(Number), expect.any(Number)]);
      expect(rig.upstream.requests.at(-1)!.json).toMatchObject({ model: "m", stream: true });
      expect(await rig.health(0)).toMatchObject({ state: "closed", requests: 0, failures: 0, success_rate: null });

      rig.upstream.next(wrongKey);
      await rig.chat({ model: "m" });
      await eventually("the channel is disabled", 2_000, async () => (await rig.channel(0)).status === 3);
      const answer = await manage(target(), "GET", `/api/channel/test/${rig.channels[0]!.id}?model=other`);
      expect(await answer.json()).toMatchObject({ success: true, model: "other", ttft_ms: null });
      expect(await rig.channel(0)).toMatchObject({ status: 1, status_reason: null, test_time: expect.any(Number) });
    });

    test("test a channel with a stream: one that breaks or tells of an error has failed", async () => {
      await using rig = await RelayRig.open(target(), [{ models: ["m"] }]);
      rig.upstream.always(refuse(500));
      await repeat(5, () => rig.chat({ model: "m" }));
      const { key } = rig.upstream.requests[0]!;
      const quoted = event({ error: { message: `Nothing for ${key}.`, type: "server_error", code: null } });
      const interrupted = "the upstream stream was interrupted";
      const faults: readonly (readonly [Plan, string])[] = [
        [stream({ events: [chatChunk("half a")], end: "clean" }), interrupted],
        [stream({ events: [chatChunk("half a"), chatChunk("nother")], gapMs: 20, end: "reset" }), interrupted],
        [stream({ events: [chatChunk("a"), quoted, chatChunk("b", "stop"), DONE] }), "Nothing for ***."],
        [stream({ events: [chatChunk("a"), quoted], gapMs: 20 }), "Nothing for ***."],
      ];
      for (const [plan, error] of faults) {
        rig.upstream.next(plan);
        const report = (await (await rig.act(0, "test", { stream: true })).json()) as Json;
        expect(report).toMatchObject({ success: false, status: 200, ttft_ms: expect.any(Number), error });
        expect((await rig.health(0)).state).not.toBe("closed");
      }
      // As for a client, an end that is named is enough.
      rig.upstream.next(stream({ events: [chatChunk("a"), chatChunk("", "stop")], end: "clean" }));
      expect(await (await rig.act(0, "test", { stream: true })).json()).toMatchObject({ success: true });
      expect((await rig.health(0)).state).toBe("closed");
    });

    test.each([false, true])(
      "test a channel with what its streams are asked, no_stream_options %p",
      async (isLeftOut) => {
        await using rig = await RelayRig.open(target(), [{ models: ["m"], no_stream_options: isLeftOut }]);
        await (await rig.chat({ model: "m", stream: true })).text();
        expect(await (await rig.act(0, "test", { stream: true })).json()).toMatchObject({ success: true });
        const asked = rig.upstream.requests.map(({ json }) => json.stream_options);
        expect(asked).toEqual(new Array(2).fill(isLeftOut ? undefined : { include_usage: true }));
        expect(await (await rig.act(0, "test")).json()).toMatchObject({ success: true });
        expect(rig.upstream.requests.at(-1)!.json).not.toHaveProperty("stream_options");
      },
    );

    test("test a model that knows its bound by another name", async () => {
      await using rig = await RelayRig.open(target(), [{ models: ["m"] }]);
      const unsupported = { code: "unsupported_parameter", param: "max_tokens" };
      rig.upstream.next(refuse(400, unsupported));
      expect(await (await rig.act(0, "test")).json()).toMatchObject({ success: true, status: 200 });
      rig.upstream.next(refuse(400, unsupported), refuse(400, unsupported));
      expect(await (await rig.act(0, "test")).json()).toMatchObject({ success: false, status: 400 });
      const bounds = rig.upstream.requests.map(({ json }) => [json.max_tokens, json.max_completion_tokens]);
      const both = [
        [16, undefined],
        [undefined, 1024],
      ];
      expect(bounds).toEqual([...both, ...both]);
      const text = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.";
      for (const fault of [refuse(400, { message: text }), refuse(422, unsupported), refuse(400, { param: "model" })]) {
        rig.upstream.next(fault);
        expect(await (await rig.act(0, "test")).json()).toMatchObject({ success: false });
      }
      expect(rig.calls).toEqual([7]);
    });

    test("test a channel that cannot be reached", async () => {
      await using rig = await RelayRig.open(target(), [{ base_url: CLOSED_PORT, models: ["m"] }]);
      const report = (await (await rig.act(0, "test")).json()) as Json;
      expect(report).toMatchObject({
        success: false,
        status: null,
        error: "the upstream could not be reached (ECONNREFUSED)",
      });
    });

    test("disable and enable a channel", async () => {
      await using rig = await RelayRig.open(target());
      expect(await (await rig.act(0, "disable")).json()).toMatchObject({ status: 0 });
      expect(await chatCode(await rig.chat())).toBe("no_available_channel");
      expect(await rig.health(0)).toMatchObject({ status: 0 });
      expect(await (await rig.act(0, "enable")).json()).toMatchObject({ status: 1, status_reason: null });
      expect((await rig.chat()).status).toBe(200);
    });

    test("reset a channel: failures, cooldowns, models marked off and a ban are forgotten", async () => {
      await using rig = await RelayRig.open(target(), [{}, {}]);
      const lone = { model: "cool" };
      rig.upstream.next(rateLimit({ "retry-after": "60" }), refuse(404, { code: "model_not_found" }));
      await rig.chat(lone);
      await rig.chat({ model: "off" });
      rig.upstream.next(...times(5, refuse(500)));
      await repeat(5, () => rig.chat());
      const before = await rig.health(0);
      expect(before).toMatchObject({ state: "open", cooling: [{ model: "cool" }], models_off: ["off"] });
      expect(before.until! - Date.now() / 1000).toBeWithin(1, 17);
      expect(before.last_error!.at).toBeWithin(Math.floor(Date.now() / 1000) - 60, Math.ceil(Date.now() / 1000) + 1);
      expect(await (await rig.act(0, "reset")).json()).toMatchObject({ id: rig.channels[0]!.id, status: 1 });
      expect(await rig.health(0)).toMatchObject({
        state: "closed",
        until: null,
        requests: 0,
        failures: 0,
        cooling: [],
        models_off: [],
      });
      const callsBefore = rig.calls[0]!;
      expect(await statusesOf(rig, ["cool", "off", "any"])).toEqual([200, 200, 200]);
      expect(rig.calls[0]).toBe(callsBefore + 3);

      rig.upstream.next(wrongKey);
      await rig.chat();
      await eventually("the channel is disabled", 2_000, async () => (await rig.channel(0)).status === 3);
      expect(await (await rig.act(0, "reset")).json()).toMatchObject({ status: 1, status_reason: null });
    });

    test("see how a channel fares", async () => {
      await using rig = await RelayRig.open(target());
      rig.upstream.next(answerNormally, answerNormally, answerNormally, refuse(503, { code: "busy" }));
      await repeat(4, () => rig.chat());
      expect(await rig.health(0)).toMatchObject({
        id: rig.channels[0]!.id,
        status: 1,
        state: "closed",
        until: null,
        requests: 4,
        failures: 1,
        success_rate: 0.75,
        cooling: [],
        models_off: [],
        last_error: { code: "busy" },
      });
    });
  });

  describe.concurrent(`breakers of ${name}`, () => {
    const target = useTarget(open, RELAY_ENV);
    const GOOD = answerNormally;
    const FAIL = refuse(500);

    test.each<[string, readonly Plan[], string]>([
      ["four failures", [FAIL, FAIL, FAIL, FAIL], "closed"],
      ["five failures", [FAIL, FAIL, FAIL, FAIL, FAIL], "open"],
      ["two of five", [GOOD, GOOD, GOOD, FAIL, FAIL], "closed"],
      ["three of five", [GOOD, GOOD, FAIL, FAIL, FAIL], "open"],
      ["three of six", [GOOD, GOOD, GOOD, FAIL, FAIL, FAIL], "open"],
      ["twelve refusals that are the client's", times(12, refuse(400)), "closed"],
      ["twelve limits", times(12, rateLimit({ "retry-after": "1" })), "cooling"],
      ["twelve keys that are refused", times(12, badKey), "closed"],
    ])("after %s: %s", async (_, plans, state) => {
      await using rig = await RelayRig.open(target());
      rig.upstream.next(...plans);
      for (const index of plans.keys()) await (await rig.chat({ model: `m${index}` })).arrayBuffer();
      expect((await rig.health(0)).state).toBe(state);
    });

    test("open after three failures to connect in a row", async () => {
      await using rig = await RelayRig.open(target(), [{ base_url: CLOSED_PORT }, {}]);
      for (const state of ["closed", "closed", "open"]) {
        expect((await rig.chat()).status).toBe(200);
        expect((await rig.health(0)).state).toBe(state);
      }
      const answer = await rig.chat();
      expect([answer.status, answer.headers.get("x-gokv-attempts")]).toEqual([200, "1"]);
    });

    test("count streams that break, once each", async () => {
      await using rig = await RelayRig.open(target());
      rig.plan(stream({ cutAfterEvents: 2, end: "clean" }));
      for (let failures = 1; failures <= 4; failures++) {
        await (await rig.chat({ stream: true })).text();
        expect((await rig.health(0)).failures).toBe(failures);
      }
      await (await rig.chat({ stream: true })).text();
      expect((await rig.health(0)).state).toBe("open");
    });

    test("do not count clients that leave", async () => {
      await using rig = await RelayRig.open(target());
      rig.plan(stayStill);
      for (let count = 1; count <= 6; count++) {
        const controller = new AbortController();
        const asked = rig.chat({}, { signal: controller.signal });
        await rig.upstream.request(count - 1);
        controller.abort();
        await asked.catch(() => undefined);
      }
      await rig.rows(6);
      expect(await rig.health(0)).toMatchObject({ state: "closed", requests: 0, failures: 0 });
    });

    test("of a lone channel: refused fast while open, one of fifty tries it, its success closes", async () => {
      await using rig = await RelayRig.open(target());
      const openedMs = performance.now();
      await openBreaker(rig);
      const tookMs: number[] = [];
      for (let call = 0; call < 20; call++) {
        const startMs = performance.now();
        const answer = await rig.chat();
        tookMs.push(performance.now() - startMs);
        expect([answer.status, await chatCode(answer)]).toEqual([503, "channels_cooling_down"]);
        expect(Number(answer.headers.get("retry-after"))).toBeWithin(1, 16);
      }
      expectTime("the quickest refusal", Math.min(...tookMs), REFUSAL_MS_MAX);
      expect(rig.calls).toEqual([5]);

      await untilHalfOpen(rig);
      expectTimeFrom("until it is half open", performance.now() - openedMs, OPEN_MS - 500, OPEN_MS + 3_000);
      // The one that tries is not answered before all others are refused.
      const refused = Promise.withResolvers<void>();
      rig.plan(afterwards(refused.promise, answerNormally));
      const statuses: number[] = [];
      const asked = Array.from({ length: 50 }, async () => {
        statuses.push((await rig.chat()).status);
        if (statuses.length === 49) refused.resolve();
      });
      await Promise.all(asked);
      statuses.sort((a, b) => a - b);
      expect(statuses).toEqual([200, ...new Array<number>(49).fill(503)]);
      expect(rig.calls).toEqual([6]);
      expect((await rig.health(0)).state).toBe("closed");
      rig.plan(answerNormally);
      const later = await Promise.all(Array.from({ length: 10 }, () => rig.chat()));
      expect(later.map(({ status }) => status)).toEqual(new Array(10).fill(200));
    });

    test("open for longer when the one that tries fails; others answer meanwhile", async () => {
      await using rig = await RelayRig.open(target(), [{}, {}]);
      await openBreaker(rig);
      await repeat(5, () => rig.chat());
      expect(rig.calls).toEqual([5, 10]);
      await untilHalfOpen(rig);
      rig.plan(afterMs(300, refuse(500)));
      const answers = await Promise.all(Array.from({ length: 50 }, () => rig.chat()));
      expect(answers.map(({ status }) => status)).toEqual(new Array(50).fill(200));
      expect(rig.calls).toEqual([6, 60]);
      const { state, until } = await rig.health(0);
      expect(state).toBe("open");
      expect(until! - Date.now() / 1000).toBeWithin(5, 32);
    });

    test("let another one try when the client of the first has left", async () => {
      await using rig = await RelayRig.open(target());
      await openBreaker(rig);
      await untilHalfOpen(rig);
      rig.upstream.next(stayStill);
      const controller = new AbortController();
      const asked = rig.chat({}, { signal: controller.signal });
      const trial = await rig.upstream.request(5);
      expect((await rig.chat()).status).toBe(503);
      controller.abort();
      await asked.catch(() => undefined);
      await trial.closed;
      rig.plan(answerNormally);
      // The upstream sees the end before the one who caused it has noted it.
      await eventually("another one may try", 1000, async () => (await rig.chat()).status === 200);
      expect((await rig.health(0)).state).toBe("closed");
    });
  });
}

function times(count: number, plan: Plan): Plan[] {
  return new Array<Plan>(count).fill(plan);
}

/** One after the other; every body is read. */
async function repeat(count: number, act: () => Promise<Response>): Promise<void> {
  for (let index = 0; index < count; index++) await (await act()).arrayBuffer();
}

async function statusesOf(rig: RelayRig, models: readonly string[]): Promise<number[]> {
  const statuses: number[] = [];
  for (const model of models) statuses.push((await rig.chat({ model })).status);
  return statuses;
}

/** Of the first channel, by five failures. */
async function openBreaker(rig: RelayRig): Promise<void> {
  rig.plan(refuse(500));
  await repeat(5, () => rig.chat());
  expect(await rig.health(0)).toMatchObject({ state: "open" });
}

async function untilHalfOpen(rig: RelayRig): Promise<void> {
  await eventually(
    "the breaker is half open",
    OPEN_MS + 5_000,
    async () => (await rig.health(0)).state === "half_open",
  );
}
