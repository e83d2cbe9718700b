// The engine of the relay between a channel and its breaker: what says nothing of the channel leaves it as it was.

import { expect, test } from "bun:test";
import { ByteBudget } from "../../src/http/byte-budget.ts";
import { OutboundFailure } from "../../src/http/outbound-transport.ts";
import { RequestScope } from "../../src/http/request-scope.ts";
import { ChannelPool } from "../../src/relay/channel-pool.ts";
import type { CircuitBreaker } from "../../src/relay/circuit-breaker.ts";
import type { IncomingRequest } from "../../src/relay/relay-call.ts";
import { ENDPOINTS, type Endpoint } from "../../src/relay/relay-endpoints.ts";
import { type EngineParts, RelayEngine } from "../../src/relay/relay-engine.ts";
import { parseRelayRequest } from "../../src/relay/relay-request.ts";
import type { Channel, RelayToken } from "../../src/relay/relay-tables.ts";
import { QUIET } from "../support/job-rig.ts";
import type { Json } from "../support/relay-client.ts";

const OPEN_MS = 15_000;
const ANSWER = new TextEncoder().encode(JSON.stringify({ choices: [] }));
const JSON_TYPE = { "Content-Type": "application/json" };
const STATE = { isDraining: false, hasFailed: false, trustedProxies: null };
const SETTINGS = {
  attemptsMax: 1,
  retriesTimeouts: false,
  ttftMs: 1000,
  idleMs: 1000,
  totalMs: 1000,
  responseBytesMax: 1000,
  eventBytesMax: 1000,
  onClientAbort: "cancel",
};
const nothing = () => undefined;

function incoming(endpoint: Endpoint, body: Json, tokenFields: Json = {}, signal?: AbortSignal): IncomingRequest {
  const request = new Request(`http://h/v1${endpoint.path}`, { method: "POST", ...(signal && { signal }) });
  const token = { id: 1, name: "t", groups: ["g"], isUnlimited: true, cacheTtlSeconds: 0, ...tokenFields };
  return {
    scope: new RequestScope(request, null, STATE),
    endpoint,
    blamesChannel: true,
    request: parseRelayRequest(endpoint, JSON.stringify(body)),
    token: token as unknown as RelayToken,
    holdBody: () => nothing,
  };
}

const CHAT = { model: "m", messages: [{ role: "user", content: "hi" }] };
const chat = () => incoming(ENDPOINTS.chat, CHAT);

/** A channel that is half-open. */
function halfOpenPool(): { pool: ChannelPool; breaker: CircuitBreaker; nowMs: number } {
  let nowMs = 1_000_000;
  const pool = new ChannelPool(
    () => nowMs,
    () => 0,
  );
  const channel = { id: 1, baseUrl: "http://upstream.example", groups: ["g"], models: ["m"], status: 1, weight: 1 };
  pool.replaceAll([{ channel: { ...channel, priority: 0, modelMapping: {} } as unknown as Channel, key: "sk-1" }]);
  const { breaker } = pool.find(1)!;
  for (let failures = 0; failures < 5; failures++) breaker.enter()("failure");
  nowMs += OPEN_MS;
  return { pool, breaker, nowMs };
}

/** A relay with so much room for answers, whose books nobody keeps; `changes` take the place of its parts. */
function engineWith(pool: ChannelPool, budgetBytes: number, changes: Json = {}): RelayEngine {
  const whole = { lengthBytes: ANSWER.length, read: async () => ANSWER.buffer };
  const parts = {
    settings: SETTINGS,
    pool,
    clock: Date.now,
    log: QUIET,
    budget: new ByteBudget(budgetBytes),
    transport: { send: async () => ({ status: 200, headers: new Headers(JSON_TYPE), body: null, whole }) },
    limits: { hold: () => ({ settle: nothing, drain: nothing, leave: nothing }) },
    usageLog: { record: nothing },
    metrics: { countCall: nothing, countAttempt: nothing },
    channels: { noteSuccess: nothing },
    answers: { whole: () => new Response() },
    ...changes,
  };
  return new RelayEngine(parts as unknown as EngineParts);
}

test("the one request that tries a half-open channel is given back when there is no room for its answer", async () => {
  const { pool, breaker } = halfOpenPool();
  const refused = await engineWith(pool, 1)
    .relay(chat())
    .catch((error) => error);
  expect(refused).toMatchObject({ code: "overloaded", status: 503 });
  expect([breaker.state, breaker.isPassable]).toEqual(["half_open", true]);
  expect((await engineWith(pool, 1_000_000).relay(chat())).status).toBe(200);
  expect(breaker.state).toBe("closed");
});

test("of many that follow a response and pay from a quota, one asks a half-open channel", async () => {
  const { pool, breaker, nowMs } = halfOpenPool();
  const reserved = Promise.withResolvers<boolean>();
  const refused = Promise.withResolvers<void>();
  let calls = 0;
  const engine = engineWith(pool, 1_000_000, {
    responses: { findChannel: async () => 1 },
    usageLog: { reserve: () => reserved.promise, settle: nothing },
    answers: { failure: () => new Response(null, { status: 500 }) },
    transport: {
      send: async () => {
        if (++calls > 1) refused.resolve();
        await refused.promise;
        return { status: 500, headers: new Headers(), body: null, whole: null };
      },
    },
  });
  const body = { model: "m", input: "x", previous_response_id: "resp_1" };
  let refusals = 0;
  const asked = Array.from({ length: 30 }, () =>
    engine.relay(incoming(ENDPOINTS.responses, body, { isUnlimited: false })).catch((error) => {
      if (++refusals === 29) refused.resolve();
      return error;
    }),
  );
  reserved.resolve(true);
  const statuses = (await Promise.all(asked)).map(({ status }) => status).toSorted();
  expect([calls, statuses]).toEqual([1, [500, ...new Array<number>(29).fill(503)]]);
  expect(breaker.openUntilMs - nowMs).toBe(2 * OPEN_MS);
});

test.each(["cancel", "drain"])(
  "a client that leaves gives back the one request that tries a half-open channel, whatever its upstream does: %s",
  async (onClientAbort) => {
    const { pool, breaker } = halfOpenPool();
    const client = new AbortController();
    const seen = () => [breaker.state, breaker.isPassable];
    const atWork = Promise.withResolvers<unknown[]>();
    const engine = engineWith(pool, 1_000_000, {
      settings: { ...SETTINGS, onClientAbort },
      answers: { failure: () => new Response(), gone: () => new Response() },
      transport: {
        async send({ signal }: { signal: AbortSignal }) {
          client.abort();
          if (signal.aborted) throw new OutboundFailure("aborted");
          atWork.resolve(seen());
          return { status: 500, headers: new Headers(), body: null, whole: null };
        },
      },
    });
    await engine.relay(incoming(ENDPOINTS.chat, CHAT, {}, client.signal));
    atWork.resolve(seen());
    expect([await atWork.promise, seen()]).toEqual(new Array(2).fill(["half_open", true]));
    expect((await engineWith(pool, 1_000_000).relay(chat())).status).toBe(200);
    expect(breaker.state).toBe("closed");
  },
);
