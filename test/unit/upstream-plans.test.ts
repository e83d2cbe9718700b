// The failing provider of the tests itself: what it sends, and what it says that it saw.

import { afterEach, beforeEach, expect, test } from "bun:test";
import { FaultUpstream } from "../support/fault-upstream.ts";
import {
  afterwards,
  answerWith,
  chatChunk,
  DONE,
  rateLimit,
  refuse,
  resetAtOnce,
  stayStill,
  stream,
  wrongKey,
} from "../support/upstream-plans.ts";

let upstream: FaultUpstream;
beforeEach(async () => {
  upstream = await FaultUpstream.start();
});
afterEach(async () => {
  expect(upstream.mistakes).toEqual([]);
  await upstream[Symbol.asyncDispose]();
});

function ask(body: Record<string, unknown> = {}, init: RequestInit = {}, path = "/v1/chat/completions") {
  return fetch(upstream.url + path, {
    method: "POST",
    headers: { authorization: "Bearer sk-1" },
    body: JSON.stringify({ model: "any", messages: [{ role: "user", content: "hi" }], ...body }),
    ...init,
  });
}

test("answers well until told otherwise: whole, streamed, at every version path", async () => {
  expect(await (await ask()).json()).toMatchObject({ choices: [{ message: { content: "You said: hi" } }] });
  const streamed = await (await ask({ stream: true })).text();
  expect(streamed).toEndWith(DONE);
  for (const path of ["/v3/openai/chat/completions", "/api/paas/v4/chat/completions", "/x/v1beta/chat/completions"]) {
    expect([path, (await ask({}, {}, path)).status]).toEqual([path, 200]);
  }
  expect((await ask({}, {}, "/v1/elsewhere")).status).toBe(404);
  const models = await fetch(`${upstream.url}/v1/models`);
  expect(await models.json()).toMatchObject({ object: "list" });
});

test("takes the plan of the queue, of the key, of the model, of all, in this order", async () => {
  upstream.always(refuse(500));
  upstream.forModel("m", refuse(501));
  upstream.forKey("sk-1", wrongKey);
  upstream.next(rateLimit({ "retry-after": "7" }), answerWith({ usage: null }));
  const limited = await ask({ model: "m" });
  expect([limited.status, limited.headers.get("retry-after")]).toEqual([429, "7"]);
  expect(await (await ask({ model: "m" })).json()).toMatchObject({ object: "chat.completion", usage: null });
  expect(await (await ask({ model: "m" })).text()).toContain("sk-1");
  const other = { headers: { authorization: "Bearer sk-2" } };
  expect((await ask({ model: "m" }, other)).status).toBe(501);
  expect((await ask({}, other)).status).toBe(500);
  expect(upstream.keys).toEqual(["sk-1", "sk-1", "sk-1", "sk-2", "sk-2"]);
  upstream.reset();
  expect((await ask()).status).toBe(200);
});

test("cuts a stream after so many events or bytes, and sends it in pieces of any size", async () => {
  const events = [chatChunk("é"), chatChunk("b"), chatChunk("", "stop"), DONE];
  const whole = Buffer.from(events.join(""));
  upstream.next(
    stream({ events, cutAfterEvents: 2, end: "clean" }),
    stream({ events, cutAfterBytes: 33, end: "clean" }),
    stream({ events, pieceBytes: 1 }),
    stream({ events, cutAfterEvents: 1, end: "close" }),
  );
  expect(await (await ask()).text()).toBe(events.slice(0, 2).join(""));
  expect(Buffer.from(await (await ask()).bytes()).equals(whole.subarray(0, 33))).toBe(true);
  const pieces: Uint8Array[] = [];
  for await (const piece of (await ask()).body!) pieces.push(piece);
  expect(Buffer.concat(pieces).equals(whole)).toBe(true);
  expect(pieces.length).toBeGreaterThan(20);
  expect(await (await ask()).text().catch(({ code }) => code)).toBe("ECONNRESET");
});

test("keeps what it saw, and when the other side gave up", async () => {
  await ask({ nested: { new: [1] } }, { headers: { authorization: "Bearer sk-1", "x-a": "b" } }, "/v1/x?y=1");
  const [seen] = upstream.requests;
  expect([seen!.method, seen!.path, seen!.headers["x-a"], seen!.key]).toEqual(["POST", "/v1/x?y=1", "b", "sk-1"]);
  expect(seen!.json.nested).toEqual({ new: [1] });

  upstream.always(stayStill);
  const controller = new AbortController();
  const gone = ask({}, { signal: controller.signal }).catch(() => null);
  const second = await upstream.request(1);
  controller.abort();
  await gone;
  expect(await second.closed).toBeGreaterThan(second.arrivedMs);
  expect(second.wasGivenUp).toBe(true);

  const go = Promise.withResolvers<void>();
  upstream.always(afterwards(go.promise, resetAtOnce));
  const reset = ask().catch(({ code }) => code);
  const third = await upstream.request(2);
  go.resolve();
  expect(await reset).toBe("ECONNRESET");
  await third.closed;
  expect(third.wasGivenUp).toBe(false);
});

test("reads a body that comes in chunks", async () => {
  const body = new ReadableStream({
    start(controller) {
      for (const part of ['{"model":', '"pieces"}']) controller.enqueue(new TextEncoder().encode(part));
      controller.close();
    },
  });
  await ask({}, { body });
  expect(upstream.requests[0]!.json).toEqual({ model: "pieces" });
});
