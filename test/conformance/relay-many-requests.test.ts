// Many slow upstream requests at once: none of them waits for another.

import { expect, setDefaultTimeout, test } from "bun:test";
import { startServer } from "../support/executable.ts";
import { FaultUpstream } from "../support/fault-upstream.ts";
import { forgeToken } from "../support/forge-token.ts";
import { KeepAliveConnection } from "../support/keep-alive-connection.ts";
import { SECRET } from "../support/targets.ts";
import { tempDir } from "../support/temp-dir.ts";
import { afterMs, answerNormally } from "../support/upstream-plans.ts";

setDefaultTimeout(60_000);

const REQUESTS = 400;
const ANSWER_MS = 3_000;
const ALL_MS_MAX = 4_000;

test("four hundred requests of three seconds each are done in four, with nothing set that would help", async () => {
  using dir = tempDir();
  await using upstream = await FaultUpstream.start();
  upstream.always(afterMs(ANSWER_MS, answerNormally));
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
  const answers = await Promise.all(
    connections.map((connection) => connection.request("POST", "/v1/chat/completions", headers, body)),
  );
  const tookMs = performance.now() - startMs;
  for (const connection of connections) connection[Symbol.dispose]();
  expect(answers.map(({ status }) => status)).toEqual(new Array(REQUESTS).fill(200));
  expect(upstream.requests).toHaveLength(REQUESTS);
  expect(tookMs).toBeLessThan(ALL_MS_MAX);
  console.log(`figure: ${REQUESTS} requests of ${ANSWER_MS} ms took ${tookMs.toFixed(0)} ms`);
});
