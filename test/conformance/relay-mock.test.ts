// gokv relay mock: a provider on this machine and for this machine, and the quick start with it.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { connect } from "node:net";
import { networkInterfaces } from "node:os";
import { cleanEnv, GOKV, run, startServer } from "../support/executable.ts";
import { forgeToken } from "../support/forge-token.ts";
import { has } from "../support/needs.ts";
import { SECRET } from "../support/targets.ts";
import { tempDir } from "../support/temp-dir.ts";

setDefaultTimeout(120_000);

const KEY = "sk-mock-aaaaaaaaaaaaaaaa";
const CHAT = JSON.stringify({ model: "any", messages: [{ role: "user", content: "hi" }] });

interface Mock extends AsyncDisposable {
  readonly url: string;
  stop(): Promise<number>;
}

async function startMock(...flags: readonly string[]): Promise<Mock> {
  const child = Bun.spawn([GOKV, "relay", "mock", "--port", "0", ...flags], {
    env: cleanEnv({}),
    stdout: "pipe",
    stderr: "inherit",
  });
  const { value } = await child.stdout.getReader().read();
  const url = /^mock provider listening on (http:\/\/127\.0\.0\.1:\d+)\n$/.exec(new TextDecoder().decode(value))?.[1];
  if (url === undefined) throw new Error(`no listening line but ${new TextDecoder().decode(value)}`);
  return {
    url,
    async stop() {
      child.kill("SIGTERM");
      return child.exited;
    },
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await child.exited;
    },
  };
}

function chat(url: string, key: string, body = CHAT): Promise<Response> {
  return fetch(`${url}/v1/chat/completions`, { method: "POST", headers: { Authorization: `Bearer ${key}` }, body });
}

describe("the mock provider", () => {
  test("answers keys that start with sk-mock-, refuses others, and ends cleanly at a signal", async () => {
    await using mock = await startMock();
    const answer = await chat(mock.url, KEY);
    expect(answer.status).toBe(200);
    expect(await answer.json()).toMatchObject({
      object: "chat.completion",
      usage: { total_tokens: expect.any(Number) },
    });
    expect((await chat(mock.url, "sk-real-1")).status).toBe(401);
    expect(await mock.stop()).toBe(0);
  });

  test("waits as long as it is told", async () => {
    await using mock = await startMock("--delay", "300");
    const startMs = performance.now();
    expect((await chat(mock.url, KEY)).status).toBe(200);
    expect(performance.now() - startMs).toBeGreaterThanOrEqual(299);
  });

  const outside = Object.values(networkInterfaces())
    .flat()
    .find((entry) => entry?.internal === false && entry.family === "IPv4")?.address;
  if (has("an address besides loopback", outside !== undefined)) {
    test("can be reached from this machine alone", async () => {
      await using mock = await startMock();
      const port = Number(new URL(mock.url).port);
      const outcome = await new Promise<string>((resolve) => {
        const socket = connect({ host: outside!, port });
        socket.once("connect", () => {
          socket.destroy();
          resolve("connected");
        });
        socket.once("error", ({ code }: NodeJS.ErrnoException) => resolve(String(code)));
      });
      expect(outcome).toBe("ECONNREFUSED");
    });
  }

  test("refuses flags that it does not understand, and a port that is taken", async () => {
    for (const flags of [
      ["--port", "70000"],
      ["--port", "http"],
      ["--delay", "1s"],
      ["--delay", "-1"],
      ["--host", "0.0.0.0"],
      ["4010"],
    ]) {
      const { exitCode, stderr } = await run([GOKV, "relay", "mock", ...flags]);
      expect([flags, exitCode]).toEqual([flags, 2]);
      expect(stderr).toContain("gokv relay mock --help");
    }
    await using mock = await startMock();
    const { exitCode, stderr } = await run([GOKV, "relay", "mock", "--port", new URL(mock.url).port]);
    expect(exitCode).toBe(1);
    expect(stderr).toBe(
      `gokv: Cannot listen on ${new URL(mock.url).host}: the port is in use. Choose another --port.\n`,
    );
  });
});

test("the quick start works: a channel to the mock, a token, a chat; only what is listed is open", async () => {
  using dir = tempDir();
  await using mock = await startMock();
  await using server = await startServer({
    JWT_SECRET: SECRET,
    DB_PATH: dir.file("data"),
    RELAY_ALLOW_CIDRS: "127.0.0.0/8",
  });
  const administer = (path: string, body: unknown) =>
    fetch(server.url + path, {
      method: "POST",
      headers: { Authorization: `Bearer ${forgeToken()}` },
      body: JSON.stringify(body),
    });
  const channel = { type: "Custom", name: "渠道A", key: KEY, base_url: mock.url };
  const made = await administer("/api/channel", channel);
  expect(made.status).toBe(201);
  expect(await made.json()).toMatchObject({
    id: 1,
    type: "Custom",
    key: "sk-mock...aaaa",
    base_url: mock.url,
    status: 1,
  });
  const token = await administer("/api/token", { name: "主力令牌", key: "sk-nexus-abc" });
  expect(token.status).toBe(201);
  expect(await token.json()).toMatchObject({ id: 1, key: "sk-nexus-abc", warning: "a short token can be guessed" });
  const answer = await chat(server.url, "sk-nexus-abc");
  expect(answer.status).toBe(200);
  expect(await answer.json()).toMatchObject({
    object: "chat.completion",
    choices: [{ message: { content: "You said: hi" }, finish_reason: "stop" }],
  });
  expect((await chat(server.url, "sk-fake-token", "{}")).status).toBe(401);

  for (const host of ["169.254.169.254", "[::ffff:169.254.169.254]", "10.0.0.1", "[::1]"]) {
    const refused = await administer("/api/channel", { ...channel, base_url: `http://${host}` });
    expect([host, refused.status, ((await refused.json()) as { code: string }).code]).toEqual([
      host,
      400,
      "base_url_refused",
    ]);
  }
});
