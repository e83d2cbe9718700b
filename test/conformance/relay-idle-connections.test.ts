// Connections of clients of the relay are not kept for good: whatever the answer, their idle time is bounded again.

import { afterEach, beforeEach, describe, expect, setDefaultTimeout, spyOn, test } from "bun:test";
import { RequestScope } from "../../src/http/request-scope.ts";
import { IDLE_SECONDS } from "../../src/shared/bounds.ts";
import { eventually } from "../support/eventually.ts";
import { expectTimeFrom } from "../support/figures-in-bounds.ts";
import { openRaw } from "../support/raw-request.ts";
import { metricOf } from "../support/relay-books.ts";
import { ask, type Json, manage, RELAY_ENV } from "../support/relay-client.ts";
import { RelayRig } from "../support/relay-rig.ts";
import { bySize } from "../support/run-size.ts";
import { openInProcess } from "../support/targets.ts";
import { answerJson, chatChunk, refuse, stream } from "../support/upstream-plans.ts";
import { useTarget } from "../support/use-target.ts";

setDefaultTimeout(200_000);

const WAIT_MS_MAX = 5_000;
const INFLIGHT = "gokv_relay_inflight";
/** In seconds; the runtime looks every few of them. */
const AFTER_STREAM = 60;
const AFTER_OTHERS = 60;
const TTL = { headers: { "x-gokv-cache": "ttl=300" } };
const STREAM = { stream: true };

const target = useTarget(openInProcess, RELAY_ENV);

describe("the idle time of a connection", () => {
  let idle = spyOn(RequestScope.prototype, "extendIdleTimeout");
  beforeEach(() => {
    idle = spyOn(RequestScope.prototype, "extendIdleTimeout");
  });
  afterEach(() => idle.mockRestore());

  /** What was set for one request, in seconds; 0 = without a bound. */
  async function settings(act: () => Promise<unknown>): Promise<number[]> {
    idle.mockClear();
    await act();
    await eventually("nothing is at work", WAIT_MS_MAX, async () => (await metricOf(target(), INFLIGHT)) === 0);
    // The figures are asked for by a request as well.
    const isOther = (index: number) => (idle.mock.contexts[index] as RequestScope).route !== "/metrics";
    return idle.mock.calls.flatMap(([seconds], index) => (isOther(index) ? [seconds] : []));
  }

  test("is open while an upstream is at work, and bounded again with every kind of answer", async () => {
    await using rig = await RelayRig.open(target());
    const read = async (fields: Json, init = {}) => void (await (await rig.chat(fields, init)).text());
    expect(await settings(() => read({}))).toEqual([0, AFTER_OTHERS]);
    expect(await settings(() => read(STREAM))).toEqual([0, AFTER_STREAM]);
    rig.upstream.next(refuse(400), refuse(400), stream({ events: [chatChunk("a")], end: "reset" }));
    expect(await settings(() => read({}))).toEqual([0, AFTER_OTHERS]);
    expect(await settings(() => read(STREAM))).toEqual([0, AFTER_OTHERS]);
    expect(await settings(() => read(STREAM))).toEqual([0, AFTER_STREAM]);
    expect((await settings(() => read({ model: 1 }))).at(-1)).toBe(AFTER_OTHERS);
    const unknown = () => rig.post("/responses", { model: "a", input: "x", previous_response_id: "resp_unknown" });
    expect(await settings(unknown)).toEqual([0, AFTER_OTHERS]);
  });

  test("is bounded again with what was kept, a stream among it", async () => {
    await using rig = await RelayRig.open(target());
    for (const fields of [{}, STREAM]) {
      await (await rig.chat(fields, TTL)).text();
      const again = async () => {
        const answer = await rig.chat(fields, TTL);
        expect([await answer.text(), answer.headers.get("x-gokv-cache")]).toEqual([expect.any(String), "HIT"]);
      };
      expect(await settings(again)).toEqual([0, AFTER_OTHERS]);
    }
  });

  test("is bounded again with a response that is read where it is", async () => {
    await using rig = await RelayRig.open(target());
    const made = (await (await rig.post("/responses", { model: "a", input: "x" })).json()) as { id: string };
    rig.plan(answerJson({ id: made.id, object: "response" }));
    for (const method of ["GET", "HEAD"]) {
      const read = () => ask(target(), rig.token.key, `/responses/${made.id}`, undefined, { method });
      expect([method, await settings(read)]).toEqual([method, [0, AFTER_OTHERS]]);
    }
  });
});

describe("the idle time of an operator's connection", () => {
  test("is open while an upstream or a backup is waited for, and bounded again afterwards", async () => {
    await using rig = await RelayRig.open(target());
    const { id } = rig.channels[0]!;
    const idle = spyOn(RequestScope.prototype, "extendIdleTimeout");
    const asked = async (method: string, path: string, body?: Json) => {
      idle.mockClear();
      const { status } = await manage(target(), method, path, body);
      return [status, ...idle.mock.calls.map(([seconds]) => seconds)];
    };
    try {
      const reachable = { base_url: `${rig.upstream.url}/v1`, key: "sk-other-0123456789" };
      const refused = { ...reachable, base_url: "http://192.0.2.1/v1" };
      expect(await asked("POST", `/api/channel/${id}/test`, { model: "any" })).toEqual([200, 0, IDLE_SECONDS]);
      expect(await asked("GET", `/api/channel/${id}/models`)).toEqual([200, 0, IDLE_SECONDS]);
      rig.upstream.next(refuse(500));
      expect(await asked("GET", `/api/channel/${id}/models`)).toEqual([502, 0, IDLE_SECONDS]);
      expect(await asked("PUT", `/api/channel/${id}`, reachable)).toEqual([200, 0, IDLE_SECONDS]);
      expect(await asked("PUT", `/api/channel/${id}`, refused)).toEqual([400, 0, IDLE_SECONDS]);
      expect(await asked("POST", "/_admin/backup")).toEqual([200, 0, IDLE_SECONDS]);
    } finally {
      idle.mockRestore();
    }
  });
});

const closed = bySize<string | null>(null, null, "a connection is closed when it is idle after a stream or an answer");
if (closed !== null) {
  test(closed, async () => {
    await using rig = await RelayRig.open(target());
    for (const [fields, seconds] of [
      [STREAM, AFTER_STREAM],
      [{}, AFTER_OTHERS],
    ] as const) {
      using client = await openRaw(target().url);
      const body = JSON.stringify({ model: "any", messages: [{ role: "user", content: "hi" }], ...fields });
      client.send(
        `POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${rig.token.key}\r\n` +
          `Content-Length: ${body.length}\r\n\r\n${body}`,
      );
      await client.received(/\[DONE\]|"usage"/);
      const idleMs = performance.now();
      await client.closed();
      const tookMs = performance.now() - idleMs;
      expectTimeFrom("closing an idle connection", tookMs, (seconds - 5) * 1000, (seconds + 10) * 1000);
    }
  });

  test("a large answer that nobody takes is let go, with its share of the byte budget", async () => {
    await using rig = await RelayRig.open(target());
    rig.plan(answerJson({ choices: [], pad: "x".repeat(15 * 1024 * 1024) }));
    using client = await openRaw(target().url);
    const body = JSON.stringify({ model: "any", messages: [{ role: "user", content: "hi" }] });
    client.send(
      `POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${rig.token.key}\r\n` +
        `Content-Length: ${body.length}\r\n\r\n${body}`,
    );
    await client.received(/HTTP\/1\.1 200/);
    client.pause();
    const used = () => metricOf(target(), "gokv_body_budget_used_bytes");
    expect(await used()).toBeGreaterThan(0);
    await eventually("its share is back", (AFTER_OTHERS + 15) * 1000, async () => (await used()) === 0);
  });
}
