// The way to other servers, against real servers on this machine: what is dialled, what is sent, what ends it.

import { afterEach, beforeEach, describe, expect, setDefaultTimeout, spyOn, test } from "bun:test";
import { type AddressInfo, createServer } from "node:net";
import { gzipSync } from "node:zlib";
import { AddressRules } from "../../src/http/address-rules.ts";
import { OutboundFailure, type OutboundRequest, OutboundTransport } from "../../src/http/outbound-transport.ts";
import type { Clock } from "../../src/shared/clock.ts";
import { Subnets } from "../../src/shared/ip-addresses.ts";
import { makeCertificate } from "../support/certificate.ts";
import { FaultUpstream } from "../support/fault-upstream.ts";
import { expectFigure, expectTime, expectTimeFrom } from "../support/figures-in-bounds.ts";
import { has, hasProgram } from "../support/needs.ts";
import { canSilence, silenceAddress } from "../support/silent-address.ts";
import {
  answerGzipped,
  answerJson,
  chatChunk,
  cutAnswer,
  redirectTo,
  resetAtOnce,
  sendRaw,
  stayStill,
  stream,
} from "../support/upstream-plans.ts";

setDefaultTimeout(120_000);

const CONNECT_MS = 1_500;
/** An upstream has to see within this time that nobody waits any more. */
const CANCEL_MS = 200;
const LOOPBACK = "127.0.0.0/8";

let upstream: FaultUpstream;
beforeEach(async () => {
  upstream = await FaultUpstream.start();
});
afterEach(async () => {
  expect(upstream.mistakes).toEqual([]);
  await upstream[Symbol.asyncDispose]();
});

interface Setup {
  readonly allowed?: readonly string[];
  readonly allowHttp?: boolean;
  readonly needsAll?: boolean;
  /** Addresses by name; a list of lists is an answer per look-up, the last one for good. */
  readonly names?: Readonly<Record<string, readonly string[]>>;
  readonly lookup?: (name: string) => Promise<readonly string[]>;
  readonly now?: Clock;
  readonly ca?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly logged?: string[];
}

function transport(setup: Setup = {}): OutboundTransport {
  const { allowed = [LOOPBACK], allowHttp = false, names = {}, now, ca, env = {}, logged = [] } = setup;
  const write = (message: string) => void logged.push(message);
  const lookup = async (name: string) => {
    const addresses = names[name];
    if (addresses === undefined) throw Object.assign(new Error("unknown name"), { code: "ENOTFOUND" });
    return addresses;
  };
  return new OutboundTransport({
    what: "upstreams",
    rules: new AddressRules(allowed.length === 0 ? null : new Subnets(allowed), allowHttp),
    needsAll: setup.needsAll ?? false,
    connectMs: CONNECT_MS,
    log: { debug: write, info: write, warn: write, error: write, fatal: write, flush: () => undefined },
    env,
    lookup: setup.lookup ?? lookup,
    ...(now === undefined ? {} : { now }),
    ...(ca === undefined ? {} : { ca }),
  });
}

function ask(url: string, more: Partial<OutboundRequest> = {}): OutboundRequest {
  return {
    url: `${url}/v1/chat/completions`,
    method: "POST",
    headers: { authorization: "Bearer sk-mock-1" },
    body: JSON.stringify({ model: "any", messages: [{ role: "user", content: "hi" }] }),
    signal: new AbortController().signal,
    ...more,
  };
}

/** The kind and the code of what a request fails with. */
async function failureOf(work: Promise<unknown>): Promise<{ kind: string; code: string | null }> {
  try {
    await work;
  } catch (error) {
    if (error instanceof OutboundFailure) return { kind: error.kind, code: error.code };
    throw error;
  }
  throw new Error("it did not fail");
}

/** How long after `since` the upstream saw the end of its first request's connection. */
async function seenClosedAfter(since: number, index = 0): Promise<number> {
  const request = await upstream.request(index);
  const closedMs = await request.closed;
  expect(request.wasGivenUp).toBe(true);
  return closedMs - since;
}

describe("a request", () => {
  test("reaches the address of its name, and carries what was given and nothing of its own making", async () => {
    await using way = transport({ names: { "api.example": ["127.0.0.1"] } });
    const url = `http://api.example:${upstream.port}`;
    const answer = await way.send(ask(url, { url: `${url}/v1/chat/completions?x=%20y` }));
    expect(answer.status).toBe(200);
    expect(answer.headers.get("content-type")).toBe("application/json");
    expect(await new Response(answer.body).json()).toMatchObject({ object: "chat.completion" });
    const [seen] = upstream.requests;
    expect([seen!.method, seen!.path]).toEqual(["POST", "/v1/chat/completions?x=%20y"]);
    const { "content-length": length, "user-agent": agent, connection, ...headers } = seen!.headers;
    expect(headers).toEqual({
      host: `api.example:${upstream.port}`,
      "content-type": "application/json",
      accept: "*/*",
      "accept-encoding": "identity",
      authorization: "Bearer sk-mock-1",
    });
    expect([Number(length), connection]).toEqual([seen!.body.length, "keep-alive"]);
    expect(agent).toMatch(/^gokv\/\d/);
  });

  test("without a body has no content type; one of its own is kept", async () => {
    await using way = transport();
    await way.send(ask(upstream.url, { url: `${upstream.url}/v1/models`, method: "GET", body: null }));
    await way.send(ask(upstream.url, { headers: { "content-type": "text/x", accept: "text/event-stream" } }));
    expect(upstream.requests.map(({ method, headers }) => [method, headers["content-type"], headers.accept])).toEqual([
      ["GET", undefined, "*/*"],
      ["POST", "text/x", "text/event-stream"],
    ]);
  });

  test("uses a connection again", async () => {
    await using way = transport();
    for (let count = 0; count < 10; count++) await new Response((await way.send(ask(upstream.url))).body).text();
    expect(upstream.requests.map(({ connection }) => connection)).toEqual(new Array(10).fill(1));
    // The first of the two was the bare dial.
    expect(upstream.connections).toBe(2);
  });

  test.each([16 * 1024, 16 * 1024 + 1, 3_000_000])(
    "of %d bytes whose answer may take long arrives whole",
    async (bytes) => {
      const names = { "api.example": ["127.0.0.2", "127.0.0.1"] };
      await using way = transport({ names });
      const body = `密${"x".repeat(bytes - 3)}`;
      // The first of its addresses takes no connection: what was begun there is sent anew.
      const asked = ask(`http://api.example:${upstream.port}`, { body, isAnswerLong: true });
      for (const sent of [asked, { ...asked, body: new TextEncoder().encode(body) }]) {
        expect((await way.send(sent)).status).toBe(200);
      }
      expect(upstream.requests.map((request) => request.body === body)).toEqual([true, true]);
      for (const { headers } of upstream.requests) {
        expect([headers["content-length"], headers["transfer-encoding"]]).toEqual([`${bytes}`, undefined]);
        expect(headers["content-type"]).toBe("application/json");
      }
    },
  );

  test("shares the first dial with others that come at the same time", async () => {
    await using way = transport();
    const texts = await Promise.all(
      Array.from({ length: 20 }, async () => new Response((await way.send(ask(upstream.url))).body).text()),
    );
    expect(texts).toHaveLength(20);
    expect(upstream.connections).toBeWithin(2, 22);
    const bare = upstream.connections - new Set(upstream.requests.map(({ connection }) => connection)).size;
    expect(bare).toBe(1);
  });

  test("is answered with a redirect as it came, and nothing is sent to the new place", async () => {
    await using other = await FaultUpstream.start();
    await using way = transport();
    for (const status of [301, 302, 303, 307, 308]) {
      upstream.next(redirectTo(`${other.url}/v1/chat/completions`, status));
      expect((await way.send(ask(upstream.url))).status).toBe(status);
    }
    expect(other.connections).toBe(0);
  });

  test("goes directly although a proxy is set, which is said once", async () => {
    const before = process.env.HTTP_PROXY;
    await using proxy = await FaultUpstream.start();
    process.env.HTTP_PROXY = proxy.url;
    try {
      const logged: string[] = [];
      await using way = transport({ env: process.env as Record<string, string>, logged });
      await way.send(ask(upstream.url));
      await way.send(ask(upstream.url));
      expect([upstream.requests.length, proxy.connections]).toEqual([2, 0]);
      expect(logged).toEqual(["upstreams are reached directly, not through the proxy that is set"]);
    } finally {
      if (before === undefined) delete process.env.HTTP_PROXY;
      else process.env.HTTP_PROXY = before;
    }
    const logged: string[] = [];
    transport({ logged, env: {} });
    transport({ logged, env: { all_proxy: "http://proxy.example" } });
    expect(logged).toHaveLength(1);
  });
});

describe("an answer", () => {
  test("arrives piece by piece, as upstream sends it", async () => {
    await using way = transport();
    const first = Promise.withResolvers<void>();
    upstream.next(async (exchange) => {
      await exchange.startEvents();
      await exchange.chunk(chatChunk("a"));
      await first.promise;
      await exchange.chunk(chatChunk("b"));
      await exchange.endChunks();
    });
    const { body } = await way.send(ask(upstream.url));
    const reader = body!.getReader();
    const decoder = new TextDecoder();
    expect(decoder.decode((await reader.read()).value)).toBe(chatChunk("a"));
    first.resolve();
    expect(decoder.decode((await reader.read()).value)).toBe(chatChunk("b"));
    expect((await reader.read()).done).toBe(true);
  });

  test("in an encoding that nobody asked for is decoded, in small pieces however far it unfolds", async () => {
    await using way = transport();
    upstream.next(answerGzipped);
    const answer = await way.send(ask(upstream.url));
    expect(answer.headers.has("content-encoding")).toBe(false);
    expect(answer.headers.has("content-length")).toBe(false);
    expect(await new Response(answer.body).json()).toMatchObject({ object: "chat.completion" });

    const bomb = gzipSync(Buffer.alloc(256 * 1024 * 1024));
    upstream.next((exchange) => exchange.answer(200, { "Content-Encoding": "gzip" }, bomb));
    const memory = process.memoryUsage.rss();
    const reader = (await way.send(ask(upstream.url))).body!.getReader();
    for (let read = 0; read < 1024 * 1024; ) {
      const piece = (await reader.read()).value!;
      expect(piece.length).toBeLessThanOrEqual(1024 * 1024);
      read += piece.length;
    }
    await reader.cancel();
    expectFigure("memory of a decoded answer", process.memoryUsage.rss() - memory, 64 * 1024 * 1024, 2);
  });

  test("in an unknown encoding, or that is no HTTP, is a bad response", async () => {
    await using way = transport();
    upstream.next((exchange) => exchange.answer(200, { "Content-Encoding": "rot13" }, "uryyb"));
    expect((await failureOf(way.send(ask(upstream.url)))).kind).toBe("bad_response");
    for (const answer of [
      "<html>hello</html>\r\n\r\n",
      "HTTP/1.1 abc OK\r\n\r\n",
      "HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
      "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
      "HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
    ]) {
      upstream.next(sendRaw(answer));
      expect([answer, (await failureOf(way.send(ask(upstream.url)))).kind]).toEqual([answer, "bad_response"]);
    }
  });

  test("in an unknown encoding is not waited for: its connection is closed", async () => {
    await using way = transport();
    upstream.next(async (exchange) => {
      await exchange.head(200, { "Content-Encoding": "rot13", "Content-Length": "1000000" });
      await exchange.write("uryyb");
      await exchange.pause(2_000);
      if (!exchange.isGone) exchange.close();
    });
    // In the end the garbage collector would close it too.
    const cancel = spyOn(ReadableStream.prototype, "cancel");
    try {
      expect((await failureOf(way.send(ask(upstream.url)))).kind).toBe("bad_response");
      expect(cancel).toHaveBeenCalledTimes(1);
    } finally {
      cancel.mockRestore();
    }
    const request = await upstream.request(0);
    await request.closed;
    expect(request.wasGivenUp).toBe(true);
  });

  test("that breaks off fails its reader, whether its length or its chunks are missing", async () => {
    await using way = transport();
    for (const plan of [
      cutAnswer('{"a":'),
      stream({ events: [chatChunk("a")], end: "close" }),
      stream({ events: [chatChunk("a")], end: "reset" }),
    ]) {
      upstream.next(plan);
      const broken = await way.send(ask(upstream.url));
      expect(await new Response(broken.body).text().then(String, ({ code }) => code)).toBe("ECONNRESET");
    }
  });
});

describe("a failure", () => {
  test("to connect, or an end without an answer, is an unreachable upstream", async () => {
    await using way = transport({ names: { "api.example": ["127.0.0.1"] } });
    upstream.next(resetAtOnce);
    expect(await failureOf(way.send(ask(upstream.url)))).toEqual({ kind: "unreachable", code: "ECONNRESET" });
    const closed = await FaultUpstream.start();
    const { port } = closed;
    await closed[Symbol.asyncDispose]();
    const refused = await failureOf(way.send(ask(`http://127.0.0.1:${port}`)));
    expect(refused).toEqual({ kind: "unreachable", code: "ECONNREFUSED" });
    const nowhere = await failureOf(way.send(ask("http://nowhere.example")));
    expect(nowhere.kind).toBe("unreachable");
  });

  test("of one address leads to the next one, and that is remembered", async () => {
    const names = { "api.example": ["127.0.0.2", "127.0.0.1"] };
    await using way = transport({ names });
    await using other = await FaultUpstream.start();
    const url = `http://api.example:${other.port}`;
    for (let count = 0; count < 3; count++) expect((await way.send(ask(url))).status).toBe(200);
    expect(other.requests).toHaveLength(3);
  });

  test("of an address that was in use lets it come last, even when it is back", async () => {
    await using way = transport({ names: { "api.example": ["127.0.0.2", "127.0.0.1"] } });
    const { port } = upstream;
    const url = `http://api.example:${port}`;
    const first = await FaultUpstream.start({ host: "127.0.0.2", port });
    expect((await way.send(ask(url))).status).toBe(200);
    expect([first.requests.length, upstream.requests.length]).toEqual([1, 0]);
    await first[Symbol.asyncDispose]();
    expect((await way.send(ask(url))).status).toBe(200);
    await using back = await FaultUpstream.start({ host: "127.0.0.2", port });
    expect((await way.send(ask(url))).status).toBe(200);
    expect([back.requests.length, upstream.requests.length]).toEqual([0, 2]);
  });

  test("that comes after the request was sent is not repeated at another address", async () => {
    await using way = transport({ names: { "api.example": ["127.0.0.1", "127.0.0.1"] } });
    upstream.always(resetAtOnce);
    await failureOf(way.send(ask(`http://api.example:${upstream.port}`)));
    expect(upstream.requests).toHaveLength(1);
  });

  test("of a look-up that does not end comes with the deadline for connecting", async () => {
    await using way = transport({ lookup: () => new Promise(() => undefined) });
    const startMs = performance.now();
    expect((await failureOf(way.send(ask("http://slow.example")))).kind).toBe("unreachable");
    expectTimeFrom("the deadline", performance.now() - startMs, CONNECT_MS - 20, CONNECT_MS + 1000);
  });

  if (has("Linux, for an address that drops connections", canSilence)) {
    test("to get any answer to a connection comes with the deadline, and then the next address is tried", async () => {
      using _silent = await silenceAddress("127.0.0.3", upstream.port);
      const names = { "api.example": ["127.0.0.3", "127.0.0.1"], "silent.example": ["127.0.0.3"] };
      await using way = transport({ names });
      let startMs = performance.now();
      expect((await way.send(ask(`http://api.example:${upstream.port}`))).status).toBe(200);
      expectTimeFrom("the deadline", performance.now() - startMs, CONNECT_MS - 20, CONNECT_MS + 1000);
      // It failed lately, so it comes last.
      startMs = performance.now();
      expect((await way.send(ask(`http://api.example:${upstream.port}`))).status).toBe(200);
      expect(performance.now() - startMs).toBeLessThan(CONNECT_MS - 100);
      const lone = await failureOf(way.send(ask(`http://silent.example:${upstream.port}`)));
      expect(lone).toEqual({ kind: "unreachable", code: "ETIMEDOUT" });

      const controller = new AbortController();
      const request = ask(`http://127.0.0.3:${upstream.port}`, { signal: controller.signal });
      const waiting = failureOf(way.send(request));
      startMs = performance.now();
      controller.abort();
      expect((await waiting).kind).toBe("aborted");
      expect(performance.now() - startMs).toBeLessThan(CONNECT_MS - 100);
    });
  }
});

describe("an abort", () => {
  test("before the head closes the connection to upstream", async () => {
    await using way = transport();
    upstream.always(stayStill);
    const controller = new AbortController();
    const failure = failureOf(way.send(ask(upstream.url, { signal: controller.signal })));
    await upstream.request(0);
    const abortedMs = performance.now();
    controller.abort();
    expect((await failure).kind).toBe("aborted");
    expectTime("closing", await seenClosedAfter(abortedMs), CANCEL_MS);
    expect(upstream.connections).toBe(2);
    // It may have been given up because nothing came through any more: that is looked at first.
    upstream.reset();
    expect((await way.send(ask(upstream.url))).status).toBe(200);
    expect(upstream.connections).toBe(4);
  });

  test("in mid-body closes it, whether somebody reads or not, plain or compressed", async () => {
    await using way = transport();
    const gzipHead = gzipSync("a".repeat(100_000)).subarray(0, 40);
    for (const [index, reads] of [true, false, true, false].entries()) {
      const isCompressed = index > 1;
      upstream.next(
        isCompressed
          ? async (exchange) => {
              await exchange.startEvents({ "Content-Encoding": "gzip" });
              await exchange.chunk(gzipHead);
              await exchange.gone;
            }
          : stream({ events: [chatChunk("a")], end: "still" }),
      );
      const controller = new AbortController();
      const { body } = await way.send(ask(upstream.url, { signal: controller.signal }));
      const reading = reads ? new Response(body).text().catch(({ name }) => name) : null;
      const abortedMs = performance.now();
      controller.abort();
      expectTime("closing", await seenClosedAfter(abortedMs, index), CANCEL_MS);
      if (reading !== null) expect(await reading).toBe("AbortError");
    }
  });

  test("of the reader alone closes it as well", async () => {
    await using way = transport();
    upstream.next(stream({ events: [chatChunk("a")], end: "still" }));
    const reader = (await way.send(ask(upstream.url))).body!.getReader();
    await reader.read();
    const cancelledMs = performance.now();
    await reader.cancel();
    expectTime("closing", await seenClosedAfter(cancelledMs), CANCEL_MS);
  });

  test("that came first, or while the name is looked up, sends nothing", async () => {
    await using way = transport({ lookup: () => new Promise(() => undefined) });
    expect((await failureOf(way.send(ask(upstream.url, { signal: AbortSignal.abort() })))).kind).toBe("aborted");
    const controller = new AbortController();
    const waiting = failureOf(way.send(ask(`http://slow.example:${upstream.port}`, { signal: controller.signal })));
    const abortedMs = performance.now();
    controller.abort();
    expect((await waiting).kind).toBe("aborted");
    expect(performance.now() - abortedMs).toBeLessThan(CONNECT_MS / 2);
    await (await fetch(upstream.url)).text();
    expect(upstream.connections).toBe(1);
  });
});

describe("names", () => {
  test("are looked up once for requests that come together, and again after 30 s", async () => {
    let nowMs = 1_000;
    const asked: string[] = [];
    await using way = transport({
      now: () => nowMs,
      lookup: async (name) => {
        asked.push(name);
        return ["127.0.0.1"];
      },
    });
    const url = `http://api.example:${upstream.port}`;
    const send = async () => void (await new Response((await way.send(ask(url))).body).text());
    await Promise.all([send(), send(), send()]);
    nowMs += 29_000;
    await send();
    expect(asked).toEqual(["api.example"]);
    nowMs += 2_000;
    await send();
    expect(asked).toEqual(["api.example", "api.example"]);
  });

  test("that end in a digit are names as others are", async () => {
    const asked: string[] = [];
    const lookup = async (name: string) => {
      asked.push(name);
      return ["127.0.0.1"];
    };
    await using way = transport({ lookup });
    const names = ["gpu1", "ollama-2", "llm.rack7"];
    for (const name of names) expect((await way.send(ask(`http://${name}:${upstream.port}`))).status).toBe(200);
    expect(asked).toEqual(names);
    // Addresses, however they are written, are nobody's names.
    for (const host of ["127.1", "2130706433", "0x7f000001"]) {
      expect((await way.send(ask(`http://${host}:${upstream.port}`))).status).toBe(200);
    }
    expect(asked).toEqual(names);
  });

  test("whose address changes are judged again: what passed once does not pass for good", async () => {
    let nowMs = 1_000;
    const answers = [["127.0.0.1"], ["169.254.169.254"], ["10.0.0.1", "::ffff:10.0.0.1"]];
    await using way = transport({ now: () => nowMs, lookup: async () => answers.shift()! });
    const url = `http://changing.example:${upstream.port}`;
    expect((await way.send(ask(url))).status).toBe(200);
    for (let count = 0; count < 2; count++) {
      nowMs += 31_000;
      expect((await failureOf(way.send(ask(url)))).kind).toBe("refused_address");
    }
    expect(upstream.requests).toHaveLength(1);
  });

  test("are looked up again when none of their addresses could be reached", async () => {
    const answers = [["127.0.0.2"], ["127.0.0.1"]];
    await using way = transport({ lookup: async () => answers.shift()! });
    const url = `http://moved.example:${upstream.port}`;
    expect((await failureOf(way.send(ask(url)))).kind).toBe("unreachable");
    expect((await way.send(ask(url))).status).toBe(200);
  });

  test("an address that was not used for 30 s is dialled bare first", async () => {
    let nowMs = 1_000;
    await using way = transport({ now: () => nowMs });
    const send = async () => void (await new Response((await way.send(ask(upstream.url))).body).text());
    await send();
    nowMs += 29_000;
    await send();
    nowMs += 29_000;
    await send();
    expect(upstream.connections).toBe(2);
    nowMs += 31_000;
    await send();
    expect(upstream.connections).toBe(3);
    expect(upstream.requests.map(({ connection }) => connection)).toEqual([1, 1, 1, 1]);
  });
});

/** Ways to say an address of this machine or of the cloud it runs in. */
const DISGUISED = [
  "127.0.0.1",
  "127.1",
  "2130706433",
  "0x7f.1",
  "0177.0.0.1",
  "①27.0.0.1",
  "%31%32%37.0.0.1",
  "[::1]",
  "[::]",
  "[::ffff:127.0.0.1]",
  "[64:ff9b::7f00:1]",
  "[2002:7f00:1::]",
  "0.0.0.0",
  "169.254.169.254",
  "[::ffff:a9fe:a9fe]",
  "[fe80::1]",
  "localhost",
  "localhost.",
  "LOCALHOST",
  "a.localhost",
  "leads-home.example",
  "leads-to-metadata.example",
  "leads-to-both.example",
];
const LEADING_HOME = {
  "leads-home.example": ["127.0.0.1"],
  "leads-to-metadata.example": ["169.254.169.254"],
  "leads-to-both.example": ["::1", "::ffff:127.0.0.1"],
};

describe("an address that is not allowed", () => {
  for (const allowHttp of [false, true]) {
    test(`is not dialled in any disguise ${allowHttp ? "with plain http allowed" : "by default"}`, async () => {
      await using way = transport({ allowed: [], allowHttp, names: LEADING_HOME });
      for (const host of DISGUISED) {
        for (const scheme of ["http", "https"]) {
          const url = `${scheme}://${host}:${upstream.port}`;
          expect([url, (await failureOf(way.send(ask(url)))).kind]).toEqual([url, "refused_address"]);
        }
      }
      expect(upstream.connections).toBe(0);
    });
  }

  test("is passed over for one that is", async () => {
    await using way = transport({ names: { "mixed.example": ["10.0.0.1", "::1", "127.0.0.1", "169.254.169.254"] } });
    expect((await way.send(ask(`http://mixed.example:${upstream.port}`))).status).toBe(200);
  });

  test("plain http does not leave for a public address unless it is allowed", async () => {
    await using way = transport({ names: { "api.example": ["1.1.1.1"] } });
    expect((await failureOf(way.send(ask("http://api.example")))).kind).toBe("refused_address");
  });
});

describe("the judgement of a URL", () => {
  test("refuses every disguise of an address that is not allowed", async () => {
    await using way = transport({ allowed: [], names: LEADING_HOME });
    for (const host of DISGUISED) {
      for (const scheme of ["http", "https"]) {
        const url = `${scheme}://${host}:${upstream.port}/v1`;
        const objection = scheme === "http" ? "plain_http" : "address";
        expect([url, await way.judge(url)]).toEqual([url, objection]);
      }
    }
    expect(upstream.connections).toBe(0);
  });

  test("lets pass what may be dialled, and names that cannot be resolved now", async () => {
    const names = { "api.example": ["1.1.1.1", "10.0.0.1"], "inside.example": ["10.0.0.1"] };
    await using closed = transport({ allowed: [], names });
    expect(await closed.judge("https://api.example/v1")).toBeNull();
    expect(await closed.judge("https://1.1.1.1")).toBeNull();
    expect(await closed.judge("https://unknown.example")).toBeNull();
    expect(await closed.judge("http://api.example/v1")).toBe("plain_http");
    expect(await closed.judge("http://unknown.example")).toBe("plain_http");
    expect(await closed.judge("https://inside.example")).toBe("address");
    await using local = transport({ names: { ...names, "home.example": ["127.0.0.1"] } });
    expect(await local.judge(upstream.url)).toBeNull();
    expect(await local.judge("http://localhost:4010")).toBeNull();
    expect(await local.judge("http://home.example")).toBeNull();
    expect(await local.judge("http://unknown.example")).toBeNull();
    expect(await local.judge("http://api.example")).toBe("plain_http");
    expect(await local.judge("https://169.254.169.254")).toBe("address");
    for (const way of [closed, local]) expect(await way.judge("http://1.1.1.1")).toBe("plain_http");
    await using open = transport({ allowed: [], allowHttp: true, names });
    expect(await open.judge("http://api.example")).toBeNull();
    expect(await open.judge("http://inside.example")).toBe("address");
  });

  test("refuses a name with one address that is not allowed when all have to be; nothing is sent", async () => {
    const names = { "mixed.example": ["127.0.0.1", "10.0.0.1"], "home.example": ["127.0.0.1"] };
    await using way = transport({ names, needsAll: true });
    expect(await way.judge("http://home.example")).toBeNull();
    expect(await way.judge("http://mixed.example")).toBe("address");
    expect(await way.judge("http://localhost:4010")).toBe("address");
    const sent = way.send(ask(`http://mixed.example:${upstream.port}`));
    expect(await failureOf(sent)).toEqual({ kind: "refused_address", code: null });
    expect(upstream.connections).toBe(0);
  });

  test("asks the name server anew", async () => {
    const answers = [["1.1.1.1"], ["10.0.0.1"]];
    await using way = transport({ lookup: async () => answers.shift()! });
    expect(await way.judge("https://changing.example")).toBeNull();
    expect(await way.judge("https://changing.example")).toBe("address");
  });

  test("does not wait for a name server for longer than for a connection", async () => {
    await using way = transport({ lookup: () => new Promise(() => undefined) });
    const startMs = performance.now();
    expect(await way.judge("https://slow.example")).toBeNull();
    expectTime("the deadline", performance.now() - startMs, CONNECT_MS + 1000);
  });
});

if (has("openssl, for certificates", hasProgram("openssl"))) {
  describe("TLS", () => {
    const certificate = makeCertificate("upstream.example", "second.example");
    const names = {
      "upstream.example": ["127.0.0.1"],
      "second.example.": ["127.0.0.1"],
      "other.example": ["127.0.0.1"],
    };

    test("is spoken to the name, whatever address is dialled", async () => {
      await using secure = await FaultUpstream.start({ tls: certificate });
      await using way = transport({ names, ca: certificate.cert });
      for (let count = 0; count < 3; count++) {
        const answer = await way.send(ask(`https://upstream.example:${secure.port}`));
        expect(await new Response(answer.body).json()).toMatchObject({ object: "chat.completion" });
      }
      expect(secure.requests[0]!.headers.host).toBe(`upstream.example:${secure.port}`);
      expect(new Set(secure.requests.map(({ connection }) => connection)).size).toBe(1);
      expect(secure.requests[0]!.serverName).toBe("upstream.example");
      expect((await way.send(ask(`https://second.example.:${secure.port}`))).status).toBe(200);
      expect(secure.requests[3]!.serverName).toBe("second.example");
    });

    test("is spoken to an address when the certificate is for one", async () => {
      const forAddress = makeCertificate("127.0.0.1");
      await using secure = await FaultUpstream.start({ tls: forAddress });
      await using way = transport({ ca: forAddress.cert });
      expect((await way.send(ask(secure.url))).status).toBe(200);
      expect(secure.requests[0]!.serverName).toBeNull();
    });

    test("fails for a certificate of another name, of nobody known, or for an address; nothing is sent", async () => {
      await using secure = await FaultUpstream.start({ tls: certificate });
      await using way = transport({ names, ca: certificate.cert });
      // A good connection in the pool does not vouch for another name.
      await new Response((await way.send(ask(`https://upstream.example:${secure.port}`))).body).text();
      const otherName = await failureOf(way.send(ask(`https://other.example:${secure.port}`)));
      expect(otherName).toEqual({ kind: "unreachable", code: "ERR_TLS_CERT_ALTNAME_INVALID" });
      expect((await failureOf(way.send(ask(secure.url)))).kind).toBe("unreachable");
      await using strict = transport({ names });
      const unknown = await failureOf(strict.send(ask(`https://upstream.example:${secure.port}`)));
      expect(unknown.kind).toBe("unreachable");
      expect(secure.requests).toHaveLength(1);
    });

    test("fails against a server without it", async () => {
      const plain = createServer((socket) => {
        socket.on("error", () => undefined);
        socket.once("data", () => socket.end("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"));
      });
      await new Promise<void>((resolve) => plain.listen(0, "127.0.0.1", resolve));
      await using way = transport({ names, ca: certificate.cert });
      const url = `https://upstream.example:${(plain.address() as AddressInfo).port}`;
      expect((await failureOf(way.send(ask(url)))).kind).toBe("unreachable");
      plain.close();
    });

    test("that is never spoken is a connection that cannot be made, and the next address is tried", async () => {
      const silent = createServer((socket) => socket.on("error", () => undefined));
      await new Promise<void>((resolve) => silent.listen(0, "127.0.0.2", resolve));
      const { port } = silent.address() as AddressInfo;
      await using secure = await FaultUpstream.start({ tls: certificate, port });
      const both = { "upstream.example": ["127.0.0.2", "127.0.0.1"], "second.example": ["127.0.0.2"] };
      await using way = transport({ names: both, ca: certificate.cert });
      const startMs = performance.now();
      expect((await way.send(ask(`https://upstream.example:${port}`))).status).toBe(200);
      expectTimeFrom("giving a silent server up", performance.now() - startMs, CONNECT_MS - 50, CONNECT_MS + 2_000);
      expect(await failureOf(way.send(ask(`https://second.example:${port}`)))).toEqual({
        kind: "unreachable",
        code: "ETIMEDOUT",
      });
      silent.close();
      expect(secure.requests).toHaveLength(1);
    });

    test("ends with an abort as plain connections do", async () => {
      await using secure = await FaultUpstream.start({ tls: certificate });
      await using way = transport({ names, ca: certificate.cert });
      for (const [index, plan] of [stayStill, stream({ events: [chatChunk("a")], end: "still" })].entries()) {
        secure.next(plan);
        const controller = new AbortController();
        const url = `https://upstream.example:${secure.port}`;
        const work = way.send(ask(url, { signal: controller.signal })).catch(() => null);
        const request = await secure.request(index);
        if (index === 1) await work;
        const abortedMs = performance.now();
        controller.abort();
        expectTime("closing", (await request.closed) - abortedMs, CANCEL_MS);
        await work;
      }
    });
  });
}

test("answers are not mixed up under many requests at once", async () => {
  await using way = transport({ names: { "api.example": ["127.0.0.1"] } });
  upstream.always((exchange) => answerJson({ echo: exchange.request.json.model })(exchange));
  const url = `http://api.example:${upstream.port}`;
  const echoes = await Promise.all(
    Array.from({ length: 200 }, async (_, index) => {
      const { body } = await way.send(ask(url, { body: JSON.stringify({ model: index }) }));
      return ((await new Response(body).json()) as { echo: number }).echo;
    }),
  );
  expect(echoes).toEqual(Array.from({ length: 200 }, (_, index) => index));
});
