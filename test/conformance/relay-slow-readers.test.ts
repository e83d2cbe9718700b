// What clients cost that stop reading their streams: a bounded memory, and after a while nothing.

import { expect, setDefaultTimeout, test } from "bun:test";
import { eventually, untilStill } from "../support/eventually.ts";
import { startServer } from "../support/executable.ts";
import { FaultUpstream, type Plan } from "../support/fault-upstream.ts";
import { expectFigure, expectTimeFrom } from "../support/figures-in-bounds.ts";
import { forgeToken } from "../support/forge-token.ts";
import { openRaw, type RawConnection } from "../support/raw-request.ts";
import { residentBytes } from "../support/resident-bytes.ts";
import { bySize, report } from "../support/run-size.ts";
import { SECRET } from "../support/targets.ts";
import { tempDir } from "../support/temp-dir.ts";
import { chatChunk } from "../support/upstream-plans.ts";

setDefaultTimeout(120_000);

const STREAMS = 40;
const EVENT_BYTES = 16 * 1024;
/** Of each stream: far more than the kernel takes for two connections. */
const OFFERED_BYTES = 48 * 1024 * 1024;
/** What one stream may hold: the relay itself one piece, the runtime what it has read ahead of that. */
const HELD_BYTES_MAX = 2 * 1024 * 1024;
/** Of the runtime, whose heap grows and shrinks by itself. */
const NOISE_BYTES = 24 * 1024 * 1024;
const DROPPED_MS = 60_000;

const EVENT = chatChunk("x".repeat(EVENT_BYTES - chatChunk("").length));

test("forty clients that do not read on cost a bounded memory, and hold their upstreams up", async () => {
  await using rig = await Rig.open();
  let flood = Promise.withResolvers<void>();
  let sentBytes = 0;
  rig.upstream.always(async (exchange) => {
    await exchange.startEvents();
    await exchange.chunk(EVENT);
    await flood.promise;
    for (let bytes = 0; bytes < OFFERED_BYTES && !exchange.isGone; bytes += EVENT_BYTES) {
      await exchange.chunk(EVENT);
      sentBytes += EVENT_BYTES;
    }
    await exchange.gone;
  });
  await using clients = new AsyncDisposableStack();
  let grownBytes = 0;
  // The first round is for the runtime, whose heap grows with what passes; it stays, so that nothing of it is free.
  for (let round = 0; round < 2; round++) {
    flood = Promise.withResolvers<void>();
    sentBytes = 0;
    for (let stream = 0; stream < STREAMS; stream++) clients.use(await rig.stalledClient());
    const before = rig.residentBytes();
    flood.resolve();
    await untilStill(() => sentBytes);
    grownBytes = rig.residentBytes() - before;
    expect(sentBytes).toBeLessThan((STREAMS * OFFERED_BYTES) / 2);
  }
  report(
    `${STREAMS} unread streams: ${kib(grownBytes / STREAMS)} each, ${kib(sentBytes / STREAMS)} taken from upstream`,
  );
  expectFigure("memory of unread streams", grownBytes, STREAMS * HELD_BYTES_MAX + NOISE_BYTES, 2);
  await clients.disposeAsync();
  await eventually("nothing is at work", 5_000, async () => (await rig.metric("gokv_relay_inflight")) === 0);
});

const dropped = bySize<string | null>(
  null,
  null,
  "a client that reads nothing for a minute is dropped, and its upstream with it",
);
if (dropped !== null) {
  test(dropped, async () => {
    await using rig = await Rig.open();
    rig.upstream.always(endless);
    using client = await rig.stalledClient();
    const stoppedMs = performance.now();
    const [request] = rig.upstream.requests;
    const tookMs = (await request!.closed) - stoppedMs;
    expectTimeFrom("dropping who does not read", tookMs, DROPPED_MS - 5_000, DROPPED_MS + 10_000);
    client.resume();
    const text = await client.closed();
    expect(text).not.toContain("[DONE]");
    await eventually("the row is there", 5_000, async () => (await rig.log()).length === 1);
    expect(await rig.log()).toMatchObject([{ status: 499, error_code: "client_closed_request", attempts: 1 }]);
    expect(await rig.metric("gokv_relay_inflight")).toBe(0);
  });
}

const endless: Plan = async (exchange) => {
  await exchange.startEvents();
  while (!exchange.isGone) await exchange.chunk(EVENT);
};

/** The executable with one channel and one token. */
class Rig implements AsyncDisposable {
  readonly #stack: AsyncDisposableStack;
  readonly #server: Awaited<ReturnType<typeof startServer>>;
  readonly upstream: FaultUpstream;
  #key = "";

  private constructor(stack: AsyncDisposableStack, server: Awaited<ReturnType<typeof startServer>>, up: FaultUpstream) {
    this.#stack = stack;
    this.#server = server;
    this.upstream = up;
  }

  static async open(): Promise<Rig> {
    const stack = new AsyncDisposableStack();
    const dir = stack.use(tempDir());
    const upstream = stack.use(await FaultUpstream.start());
    const server = stack.use(
      await startServer({
        JWT_SECRET: SECRET,
        DB_PATH: dir.file("data"),
        RELAY_ALLOW_CIDRS: "127.0.0.0/8",
        ACCESS_LOG: "off",
      }),
    );
    const rig = new Rig(stack, server, upstream);
    await rig.#manage("/api/channel", { type: "Custom", name: "a", key: "sk-0123456789", base_url: upstream.url });
    rig.#key = ((await rig.#manage("/api/token", { name: "a" })) as { key: string }).key;
    return rig;
  }

  /** A client that has read the first event of its stream, and reads no more. */
  async stalledClient(): Promise<RawConnection> {
    const client = await openRaw(this.#server.url);
    const body = JSON.stringify({ model: "any", messages: [{ role: "user", content: "hi" }], stream: true });
    client.send(
      `POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${this.#key}\r\n` +
        `Content-Length: ${body.length}\r\n\r\n${body}`,
    );
    await client.received(/data: /);
    client.pause();
    return client;
  }

  residentBytes(): number {
    return residentBytes(this.#server.pid);
  }

  async metric(name: string): Promise<number> {
    const text = await (await fetch(`${this.#server.url}/metrics`, { headers: this.#operator })).text();
    return Number(new RegExp(`^${name} (.+)$`, "m").exec(text)![1]);
  }

  async log(): Promise<unknown[]> {
    return ((await this.#manage("/api/log")) as { data: unknown[] }).data;
  }

  get #operator(): Record<string, string> {
    return { Authorization: `Bearer ${forgeToken()}` };
  }

  async #manage(path: string, body?: unknown): Promise<unknown> {
    const sent = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
    const answer = await fetch(this.#server.url + path, { headers: this.#operator, ...sent });
    if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
    return answer.json();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#stack.disposeAsync();
  }
}

function kib(bytes: number): string {
  return `${Math.round(bytes / 1024)} KiB`;
}
