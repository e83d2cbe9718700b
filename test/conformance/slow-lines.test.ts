// Clients on slow lines: who sends or takes a little all the time is served, however long that takes.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { keyPath, put, read } from "../support/kv-requests.ts";
import { openRaw } from "../support/raw-request.ts";
import { metricOf } from "../support/relay-books.ts";
import { mint, openBinary, type Target } from "../support/targets.ts";
import { asApp, install } from "../support/token-client.ts";
import { useTarget } from "../support/use-target.ts";

setDefaultTimeout(120_000);

const MiB = 1024 * 1024;
/** Longer than a silent connection is kept, and than the runtime takes to notice. */
const SLOW_MS = 21_000;
const PAUSE_MS = 1_500;
const PIECES = SLOW_MS / PAUSE_MS;
const PIECE = "x".repeat(3_000);

/** How a body may come: its name, its header, how a piece of it stands on the wire, and its end. */
const FRAMINGS = [
  ["of known length", `Content-Length: ${PIECES * PIECE.length}\r\n`, (text: string) => text, ""],
  [
    "of unknown length",
    "Transfer-Encoding: chunked\r\n",
    (text: string) => `${text.length.toString(16)}\r\n${text}\r\n`,
    "0\r\n\r\n",
  ],
] as const;

async function headOf(target: Target, method: string, path: string, headers = ""): Promise<string> {
  const { host } = new URL(target.url);
  return `${method} ${path} HTTP/1.1\r\nHost: ${host}\r\nAuthorization: Bearer ${await mint()}\r\n${headers}\r\n`;
}

describe.concurrent("a slow line", () => {
  const target = useTarget(openBinary);
  const budgeted = useTarget(openBinary, {
    BODY_BUDGET_BYTES: "4MiB",
    MAX_VALUE_BYTES: "4MiB",
    TOKEN_MAX_VALUE_BYTES: "4MiB",
  });

  test.each(FRAMINGS)("that brings 2 KB a second of a body %s is not cut", async (name, header, framed, end) => {
    using client = await openRaw(target().url);
    const path = keyPath("slow", name);
    client.send(await headOf(target(), "PUT", path, header));
    for (let piece = 0; piece < PIECES; piece++) {
      client.send(framed(PIECE));
      await Bun.sleep(PAUSE_MS);
    }
    client.send(end);
    expect(await client.received(/\r\n\r\n/)).toStartWith("HTTP/1.1 200 ");
    expect((await read(target(), path))?.length).toBe(PIECES * PIECE.length);
  });

  test.each(FRAMINGS)(
    "that brings 2 KB a second of the value %s of an app is not cut",
    async (_, header, framed, end) => {
      const { token } = await install(target());
      using client = await openRaw(target().url);
      const { host } = new URL(target().url);
      const type = "Content-Type: application/json\r\n";
      client.send(`POST /kv/token/k HTTP/1.1\r\nHost: ${host}\r\nX-App-Token: ${token}\r\n${type}${header}\r\n`);
      const value = JSON.stringify("v".repeat(PIECES * PIECE.length - 2));
      for (let piece = 0; piece < PIECES; piece++) {
        client.send(framed(value.slice(piece * PIECE.length, (piece + 1) * PIECE.length)));
        await Bun.sleep(PAUSE_MS);
      }
      client.send(end);
      expect(await client.received(/\r\n\r\n/)).toStartWith("HTTP/1.1 200 ");
      expect(await (await asApp(target(), token, "/k")).text()).toBe(value);
    },
  );

  test("that brings a byte now and then holds no memory that somebody else needs", async () => {
    const { token } = await install(budgeted());
    const { host } = new URL(budgeted().url);
    const length = 3 * MiB;
    const framing = `Content-Type: application/json\r\nContent-Length: ${length}\r\n`;
    const head = `POST /kv/token/k HTTP/1.1\r\nHost: ${host}\r\nX-App-Token: ${token}\r\n${framing}\r\n`;
    using slow = await openRaw(budgeted().url);
    slow.send(head + " ".repeat(length - 100));
    for (let second = 0; second < SLOW_MS / PAUSE_MS; second++) {
      await Bun.sleep(PAUSE_MS);
      slow.send(" ");
    }
    expect(await metricOf(budgeted(), "gokv_body_budget_used_bytes")).toBeGreaterThan(2 * MiB);
    await put(budgeted(), keyPath("quick", "large"), new Uint8Array(2 * MiB));
    expect(await slow.received(/\r\n\r\n/)).toStartWith("HTTP/1.1 503 ");
    expect(await metricOf(budgeted(), "gokv_body_budget_used_bytes")).toBe(0);
  });

  test("that takes nothing of a large value for a while is not cut", async () => {
    const path = keyPath("slow", "large");
    await put(target(), path, new Uint8Array(15 * MiB));
    const { hostname, port } = new URL(target().url);
    const ended = Promise.withResolvers<void>();
    let received = 0;
    let isTaking = false;
    const client = await Bun.connect({
      hostname,
      port: Number(port),
      socket: {
        data(socket, bytes) {
          received += bytes.length;
          if (!isTaking) socket.pause();
          if (received > 15 * MiB) ended.resolve();
        },
        close: () => ended.resolve(),
      },
    });
    client.write(await headOf(target(), "GET", path));
    await Bun.sleep(SLOW_MS);
    // The system has taken some megabytes, and the client next to nothing.
    expect(await metricOf(target(), "gokv_body_budget_used_bytes")).toBeGreaterThan(MiB);
    isTaking = true;
    client.resume();
    await ended.promise;
    client.terminate();
    expect(received).toBeGreaterThan(15 * MiB);
  });
});
