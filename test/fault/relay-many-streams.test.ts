// A thousand streams at once: no event is lost, and the process stays small.

import { expect, test } from "bun:test";
import { connect, type Socket } from "node:net";
import { eventually } from "../support/eventually.ts";
import { FaultUpstream } from "../support/fault-upstream.ts";
import { expectFigure } from "../support/figures-in-bounds.ts";
import { has } from "../support/needs.ts";
import { metricOf, settledBooks } from "../support/relay-books.ts";
import { makeChannel, makeToken } from "../support/relay-client.ts";
import { RelayProcess } from "../support/relay-process.ts";
import { bySize, report } from "../support/run-size.ts";
import { tempDir } from "../support/temp-dir.ts";
import { chatChunk, DONE } from "../support/upstream-plans.ts";

const STREAMS = 1_000;
const GAP_MS = 100;
const EVENTS = bySize(60, 200, 600);
const BYTES_MAX = 250e6;
const GROWTH_BYTES_MAX = 15e6;
/** A second half that holds half as much again as the first keeps what it has passed on. */
const GROWTH_SHARE_MAX = 0.5;
const SAMPLE_MS = 250;
const ENDED_MS_MAX = 30_000;
const MB = 1e6;

/** Counts the events of one stream; none of its bytes are kept but the last few. */
class StreamReader {
  events = 0;
  isWhole = false;
  readonly ended: Promise<void>;
  readonly #socket: Socket;

  constructor(url: string, request: string) {
    const { hostname, port } = new URL(url);
    const ended = Promise.withResolvers<void>();
    this.ended = ended.promise;
    this.#socket = connect({ host: hostname, port: Number(port) }, () => this.#socket.write(request));
    let rest = "";
    this.#socket.on("data", (chunk: Buffer) => {
      const text = rest + chunk.toString("latin1");
      let at = 0;
      for (let found = text.indexOf('"content"'); found >= 0; found = text.indexOf('"content"', at)) {
        this.events++;
        at = found + 9;
      }
      rest = text.slice(Math.max(at, text.length - 20));
      if (!rest.includes("[DONE]")) return;
      this.isWhole = true;
      this.#socket.end();
    });
    this.#socket.on("error", () => undefined);
    this.#socket.on("close", () => ended.resolve());
  }
}

function requestOf(key: string): string {
  const body = JSON.stringify({ model: "any", stream: true, messages: [{ role: "user", content: "hi" }] });
  return (
    `POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer ${key}\r\n` +
    `Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`
  );
}

if (has("/proc, to see how large a process is", process.platform === "linux")) {
  test(
    "a thousand streams at once lose no event and fit into 250 MB",
    async () => {
      using dir = tempDir();
      await using upstream = await FaultUpstream.start();
      upstream.always(async (exchange) => {
        await exchange.startEvents();
        for (let event = 0; event < EVENTS && !exchange.isGone; event++) {
          await exchange.chunk(chatChunk("some words"));
          await exchange.pause(GAP_MS);
        }
        await exchange.chunk(chatChunk("", "stop") + DONE);
        await exchange.endChunks();
      });
      await using relay = await RelayProcess.start(dir.file("data"), { METRICS: "open" });
      await makeChannel(relay, upstream);
      const token = await makeToken(relay);
      const idleBytes = relay.residentBytes;
      const readers = Array.from({ length: STREAMS }, () => new StreamReader(relay.url, requestOf(token.key)));
      const sizes: number[] = [];
      const timer = setInterval(() => sizes.push(relay.residentBytes), SAMPLE_MS);
      await upstream.request(STREAMS - 1);
      const begunAt = sizes.length;
      expect(await metricOf(relay, "gokv_relay_inflight")).toBe(STREAMS);
      await Promise.all(readers.map(({ ended }) => ended));
      clearInterval(timer);
      expect(readers.filter(({ isWhole }) => !isWhole)).toHaveLength(0);
      expect(new Set(readers.map(({ events }) => events))).toEqual(new Set([EVENTS]));
      const during = sizes.slice(begunAt);
      const [first, second] = [during.slice(0, during.length / 2), during.slice(during.length / 2)].map((half) =>
        Math.max(...half),
      ) as [number, number];
      report(
        `${STREAMS} streams of ${EVENTS} events: ${(idleBytes / MB).toFixed(0)} MB before, at most ` +
          `${(first / MB).toFixed(0)} MB in the first half, ${(second / MB).toFixed(0)} MB in the second`,
      );
      expectFigure("memory of the streams", Math.max(...sizes), BYTES_MAX, 2);
      const slack = (first * GROWTH_SHARE_MAX) / GROWTH_BYTES_MAX;
      expectFigure("its growth in the second half", second - first, GROWTH_BYTES_MAX, slack);
      await settledBooks(relay, token.id, STREAMS);
      await eventually("nothing is at work", ENDED_MS_MAX, async () => {
        return (await metricOf(relay, "gokv_relay_inflight")) === 0;
      });
    },
    bySize(120_000, 180_000),
  );
}
