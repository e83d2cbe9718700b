// Many slow upstream requests at once: none of them waits for another.

import { expect, setDefaultTimeout, test } from "bun:test";
import { startServer } from "../support/executable.ts";
import { FaultUpstream } from "../support/fault-upstream.ts";
import { forgeToken } from "../support/forge-token.ts";
import { KeepAliveConnection } from "../support/keep-alive-connection.ts";
import { report } from "../support/run-size.ts";
import { SECRET } from "../support/targets.ts";
import { tempDir } from "../support/temp-dir.ts";
import { afterwards, answerNormally } from "../support/upstream-plans.ts";

setDefaultTimeout(120_000);

const REQUESTS = 400;

test("four hundred requests are upstream at once, with nothing set that would help", async () => {
  using dir = tempDir();
  await using upstream = await FaultUpstream.start();
  // None is answered before all have come: a bound below their number would be waited for in vain.
  const release = Promise.withResolvers<void>();
  upstream.always(afterwards(release.promise, answerNormally));
  await using server = await startServer({
    JWT_SECRET: SECRET,
    DB_PATH: dir.file("data"),
    RELAY_ALLOW_CIDRS: "127.0.0.0/8",
    ACCESS_LOG: "off",
  });
  const administer = (path: string, body: unknown) =>
    fetch(server.url + path, {
      method: "POST",
      headers: { Authorization: `Bearer ${forgeToken()}` },
      body: JSON.stringify(body),
    });
  const channel = { type: "Custom", name: "slow", key: "sk-slow-1234567890", base_url: upstream.url };
  expect((await administer("/api/channel", channel)).status).toBe(201);
  const token = (await (await administer("/api/token", { name: "many" })).json()) as { key: string };

  const connections = await Promise.all(Array.from({ length: REQUESTS }, () => KeepAliveConnection.open(server.url)));
  const headers = { Authorization: `Bearer ${token.key}`, "Content-Type": "application/json" };
  const body = JSON.stringify({ model: "any", messages: [{ role: "user", content: "hi" }] });
  const startMs = performance.now();
  const asked = connections.map((connection) => connection.request("POST", "/v1/chat/completions", headers, body));
  await upstream.request(REQUESTS - 1);
  const tookMs = performance.now() - startMs;
  release.resolve();
  const answers = await Promise.all(asked);
  for (const connection of connections) connection[Symbol.dispose]();
  expect(answers.map(({ status }) => status)).toEqual(new Array(REQUESTS).fill(200));
  expect(upstream.requests).toHaveLength(REQUESTS);
  report(`${REQUESTS} requests were upstream after ${tookMs.toFixed(0)} ms`);
});
