// What large requests cost in memory whose answers are streams: nothing, once their answers have begun.

import { expect, test } from "bun:test";
import { eventually } from "../support/eventually.ts";
import { FaultUpstream } from "../support/fault-upstream.ts";
import { openRaw } from "../support/raw-request.ts";
import { chat, makeChannel, makeToken } from "../support/relay-client.ts";
import { RelayProcess } from "../support/relay-process.ts";
import { tempDir } from "../support/temp-dir.ts";
import { chatChunk, stream } from "../support/upstream-plans.ts";

const MiB = 1024 * 1024;
const STREAMS = 24;
const BODY_BYTES = 9 * MiB;
const WAIT_MS = 30_000;

test("a stream keeps nothing of a large request, neither a share of the budget nor memory", async () => {
  using dir = tempDir();
  await using upstream = await FaultUpstream.start();
  await using relay = await RelayProcess.start(dir.file("data"));
  await makeChannel(relay, upstream);
  const { key } = await makeToken(relay);
  upstream.forModel("endless", stream({ events: [chatChunk("yes")], end: "still" }));
  const beforeBytes = relay.residentBytes;
  using clients = new DisposableStack();
  const head = `POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${key}\r\n`;
  for (let count = 0; count < STREAMS; count++) {
    const messages = [{ role: "user", content: `${count}${"x".repeat(BODY_BYTES)}` }];
    const body = JSON.stringify({ model: "endless", stream: true, messages });
    const client = clients.use(await openRaw(relay.url));
    client.send(`${head}Content-Length: ${body.length}\r\n\r\n${body}`);
    await client.received(/data: /);
    expect(upstream.requests.at(-1)!.body).toHaveLength(body.length + USAGE_ASKED.length);
    upstream.requests.length = 0;
  }
  // Half of what came: the collector takes its time, and the allocator keeps some of what it frees.
  const grownBytesMax = (STREAMS * BODY_BYTES) / 2;
  await eventually("the memory is free", WAIT_MS, async () => {
    for (let count = 0; count < 20; count++) expect((await chat(relay, key)).status).toBe(200);
    return relay.residentBytes - beforeBytes < grownBytesMax;
  });
}, 120_000);

/** What the relay adds to the body of a stream. */
const USAGE_ASKED = ',"stream_options":{"include_usage":true}';
