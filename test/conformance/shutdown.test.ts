// How a server ends: nothing that was accepted is dropped, nothing acknowledged is missing, no deadline is passed.

import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readFileSync, statSync } from "node:fs";
import { type Environment, GOKV, run, type ServerProcess, startServer, untilLogged } from "../support/executable.ts";
import { expectTime, expectTimeFrom } from "../support/figures-in-bounds.ts";
import { forgeToken } from "../support/forge-token.ts";
import { KeepAliveConnection, requestHead } from "../support/keep-alive-connection.ts";
import { has, hasProgram, isRoot } from "../support/needs.ts";
import { SECRET } from "../support/targets.ts";
import { type TempDir, tempDir } from "../support/temp-dir.ts";

// Many processes are started; on a busy machine that takes its time.
setDefaultTimeout(120_000);

/** A server listens on for this long after a signal, so that requests on the wire of kept connections are taken. */
const LISTENS_ON_MS = 250;
/** For starting threads, scheduling and a loaded machine. */
const SLACK_MS = 2000;
/** After which what was written to a socket has been read at the other end. */
const ARRIVED_MS = 500;

let dir: TempDir;
beforeEach(() => {
  dir = tempDir();
});
afterEach(() => dir[Symbol.dispose]());

const headers = { Authorization: `Bearer ${forgeToken()}` };
const settings = (env: Environment = {}): Environment => ({ JWT_SECRET: SECRET, DB_PATH: dir.file("data"), ...env });
const serve = (env: Environment = {}): Promise<ServerProcess> => startServer(settings(env));

/** Sends `signal` and resolves with the exit code and the time it took. */
async function end(server: ServerProcess, signal: NodeJS.Signals = "SIGTERM"): Promise<{ code: number; ms: number }> {
  const startMs = performance.now();
  server.kill(signal);
  const code = await server.exited;
  return { code, ms: performance.now() - startMs };
}

/** A clean stop leaves no frame in the write-ahead log. */
function expectCleanStore(): void {
  const wal = dir.file("data", "gokv.db-wal");
  expect(existsSync(wal) ? statSync(wal).size : 0).toBe(0);
}

/** Resolves when the server has seen a signal. */
async function draining(url: string): Promise<void> {
  const isReady = () =>
    fetch(`${url}/readyz`).then(
      ({ status }) => status === 200,
      // It listens on for a moment only, which a busy machine may let pass between two looks.
      () => false,
    );
  while (await isReady()) await Bun.sleep(1);
}

interface Client {
  /** Keys whose write was answered with 200. */
  readonly acknowledged: string[];
  /** What went wrong with a request that was sent. */
  readonly dropped: string[];
  readonly done: Promise<void>;
}

/** Writes key after key on one connection, until an answer says that it was the last one there. */
async function startClient(url: string, name: string): Promise<Client> {
  const connection = await KeepAliveConnection.open(url);
  const acknowledged: string[] = [];
  const dropped: string[] = [];
  const work = async () => {
    using _ = connection;
    for (let index = 0; ; index++) {
      const key = `${name}-${index}`;
      try {
        const answer = await connection.request("POST", `/load/${key}`, headers, key);
        if (answer.status === 200) acknowledged.push(key);
        else dropped.push(`${key}: ${answer.status}`);
        if (answer.headers.get("connection") === "close") return;
      } catch (error) {
        dropped.push(`${key}: ${(error as Error).message}`);
        return;
      }
    }
  };
  return { acknowledged, dropped, done: work() };
}

describe("a server under load", () => {
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) {
    test(`that gets ${signal} answers every request it has accepted and loses no acknowledged write`, async () => {
      // Long enough for each client to come again, whatever else the machine does.
      await using server = await serve({ DRAIN_DELAY: "1s" });
      const clients = await Promise.all(Array.from({ length: 24 }, (_, index) => startClient(server.url, `${index}`)));
      while (clients.some(({ acknowledged }) => acknowledged.length < 20)) await Bun.sleep(5);
      const ended = end(server, signal);
      await Promise.all(clients.map(({ done }) => done));
      const { code, ms } = await ended;
      expect(clients.flatMap(({ dropped }) => dropped)).toEqual([]);
      expect(code).toBe(0);
      expectTime("the end under load", ms, 1000 + SLACK_MS);
      expect(server.log()).toContain('"msg":"stopped"');
      expectCleanStore();

      const acknowledged = clients.flatMap((client) => client.acknowledged);
      await using again = await serve();
      const stored = (await (await fetch(`${again.url}/_list?bucket=load`, { headers })).json()) as string[];
      expect(stored).toEqual(acknowledged.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b))));
    });
  }
});

describe("a server that got a signal", () => {
  test("says so at once: not ready, still alive, and every answer is the last on its connection", async () => {
    await using server = await serve({ DRAIN_DELAY: "30s" });
    const kept = await Promise.all(Array.from({ length: 6 }, () => KeepAliveConnection.open(server.url)));
    for (const connection of kept) {
      const ready = await connection.request("GET", "/readyz");
      expect([ready.status, ready.body, ready.headers.get("connection")]).toEqual([
        200,
        '{"status":"ready"}',
        undefined,
      ]);
    }
    const signalledMs = performance.now();
    server.kill("SIGTERM");
    await draining(server.url);
    expectTime("being not ready", performance.now() - signalledMs, 500);

    const requests: [string, string, Record<string, string>, number][] = [
      ["GET", "/readyz", {}, 503],
      ["GET", "/livez", {}, 200],
      ["POST", "/b/k", headers, 200],
      ["GET", "/b/k", headers, 200],
      ["GET", "/_list", headers, 200],
      ["GET", "/b/k", {}, 401],
    ];
    for (const [index, [method, path, sent, status]] of requests.entries()) {
      const answer = await kept[index]!.request(method, path, sent, method === "POST" ? "x" : "");
      expect([path, answer.status, answer.headers.get("connection")]).toEqual([path, status, "close"]);
      await kept[index]!.closed();
    }
    const readiness = await fetch(`${server.url}/readyz`);
    expect(await readiness.text()).toBe('{"status":"draining"}');
    expect(readiness.headers.get("retry-after")).toBe("1");
    expect(readiness.headers.get("connection")).toBe("close");
    server.kill("SIGTERM");
    expect(await server.exited).toBe(0);
  });

  test("goes on listening for a moment, and for as long as DRAIN_DELAY says", async () => {
    await using short = await serve();
    const startMs = performance.now();
    short.kill("SIGTERM");
    await draining(short.url);
    const takes = () =>
      fetch(`${short.url}/livez`).then(
        ({ status }) => status === 200,
        () => false,
      );
    while (await takes()) await Bun.sleep(10);
    expect(performance.now() - startMs).toBeGreaterThan(LISTENS_ON_MS - 20);
    expect(await short.exited).toBe(0);

    await using long = await serve({ DRAIN_DELAY: "3s" });
    const ended = end(long);
    await Bun.sleep(700);
    expect((await fetch(`${long.url}/b/late`, { method: "POST", body: "x", headers })).status).toBe(200);
    const { code, ms } = await ended;
    expect(code).toBe(0);
    expectTimeFrom("the end after DRAIN_DELAY", ms, 3000, 3000 + SLACK_MS);
  });

  test("takes a request that comes on a connection which was idle", async () => {
    await using server = await serve({ DRAIN_DELAY: "2s" });
    using idle = await KeepAliveConnection.open(server.url);
    await idle.request("GET", "/livez");
    const ended = end(server);
    await draining(server.url);
    const answer = await idle.request("POST", "/b/k", headers, "just in time");
    expect([answer.status, answer.headers.get("connection")]).toEqual([200, "close"]);
    expect((await ended).code).toBe(0);
    await using again = await serve();
    expect(await (await fetch(`${again.url}/b/k`, { headers })).text()).toBe("just in time");
  });

  test("waits for an upload and a download that are under way", async () => {
    await using server = await serve();
    const large = Buffer.alloc(8 * 1024 * 1024, "x");
    await fetch(`${server.url}/b/large`, { method: "POST", body: large, headers });
    using upload = await KeepAliveConnection.open(server.url);
    upload.write(requestHead("POST", "/b/slow", { ...headers, "Content-Length": "20" }));
    upload.write("0123456789");
    using download = await KeepAliveConnection.open(server.url);
    download.pause();
    download.write(requestHead("GET", "/b/large", headers));
    await Bun.sleep(ARRIVED_MS);
    const ended = end(server);
    await untilLogged(server, /"msg":"stopping","requests":2}/);
    // Past the time in which the server listens on.
    await Bun.sleep(LISTENS_ON_MS + 200);
    upload.write("9876543210");
    expect((await upload.answer()).status).toBe(200);
    download.resume();
    const { status, body } = await download.answer();
    expect([status, body.length]).toEqual([200, large.length]);
    const { code, ms } = await ended;
    expect(code).toBe(0);
    expectTime("the end after both", ms, LISTENS_ON_MS + 200 + SLACK_MS);
    expectCleanStore();
    await using again = await serve();
    expect(await (await fetch(`${again.url}/b/slow`, { headers })).text()).toBe("01234567899876543210");
  });

  test("does not wait for connections on which nothing was asked", async () => {
    await using server = await serve({ SHUTDOWN_TIMEOUT: "20s" });
    using _silent = await KeepAliveConnection.open(server.url);
    using halfHead = await KeepAliveConnection.open(server.url);
    halfHead.write("POST /b/k HTTP/1.1\r\nHost: h\r\nContent-Le");
    using idle = await KeepAliveConnection.open(server.url);
    await idle.request("GET", "/livez");
    const { code, ms } = await end(server);
    expect(code).toBe(0);
    expectTimeFrom("the end without requests", ms, LISTENS_ON_MS, LISTENS_ON_MS + SLACK_MS);
    await Promise.all([halfHead.closed(), idle.closed()]);
    expectCleanStore();
  });

  test("keeps its deadline with a half-sent body, a half-read answer and a silent connection open", async () => {
    await using server = await serve({ SHUTDOWN_TIMEOUT: "1s" });
    await fetch(`${server.url}/b/large`, { method: "POST", body: Buffer.alloc(8 * 1024 * 1024), headers });
    await fetch(`${server.url}/b/k`, { method: "POST", body: "old", headers });
    using _silent = await KeepAliveConnection.open(server.url);
    using halfBody = await KeepAliveConnection.open(server.url);
    halfBody.write(`${requestHead("POST", "/b/k", { ...headers, "Content-Length": "1000" })}half`);
    using halfRead = await KeepAliveConnection.open(server.url);
    halfRead.pause();
    halfRead.write(requestHead("GET", "/b/large", headers));
    await Bun.sleep(ARRIVED_MS);
    const { code, ms } = await end(server);
    expect(code).toBe(0);
    expectTimeFrom("the deadline", ms, LISTENS_ON_MS + 900, LISTENS_ON_MS + 1000 + SLACK_MS);
    await halfBody.closed();
    expectCleanStore();
    await using again = await serve();
    expect(await (await fetch(`${again.url}/b/k`, { headers })).text()).toBe("old");
  });

  test("ends at once at a second signal, with everything acknowledged on disk", async () => {
    for (const env of [{ DRAIN_DELAY: "30s" }, { SHUTDOWN_TIMEOUT: "30s" }]) {
      await using server = await serve(env);
      using halfBody = await KeepAliveConnection.open(server.url);
      halfBody.write(`${requestHead("POST", "/b/half", { ...headers, "Content-Length": "1000" })}half`);
      const clients = await Promise.all(Array.from({ length: 4 }, (_, index) => startClient(server.url, `${index}`)));
      server.kill("SIGTERM");
      await Promise.all(clients.map(({ done }) => done));
      await Bun.sleep(LISTENS_ON_MS + 100);
      const { code, ms } = await end(server, "SIGTERM");
      expect(code).toBe(0);
      expectTime("the end at a second signal", ms, SLACK_MS);
      expectCleanStore();
      await using again = await serve();
      const stored = (await (await fetch(`${again.url}/_list?bucket=load`, { headers })).json()) as string[];
      const acknowledged = clients.flatMap((client) => client.acknowledged);
      expect(acknowledged.filter((key) => !stored.includes(key))).toEqual([]);
      expect((await fetch(`${again.url}/b/half`, { headers })).status).toBe(404);
    }
  });

  test("acknowledges nothing that it does not keep, even when two signals come at once", async () => {
    await using server = await serve();
    const answers: Promise<number>[] = [];
    for (let index = 0; index < 200; index++) {
      const init = { method: "POST", body: "x", headers };
      answers.push(
        fetch(`${server.url}/b/${index}`, init).then(
          ({ status }) => status,
          () => 0,
        ),
      );
    }
    await Promise.race(answers);
    server.kill("SIGTERM");
    server.kill("SIGINT");
    expect(await server.exited).toBe(0);
    const statuses = await Promise.all(answers);
    expectCleanStore();
    await using again = await serve();
    const stored = (await (await fetch(`${again.url}/_list?bucket=b`, { headers })).json()) as string[];
    const missing = statuses.flatMap((status, index) =>
      status === 200 && !stored.includes(`${index}`) ? [index] : [],
    );
    expect(missing).toEqual([]);
  });

  test("heeds it while it is still opening its store", async () => {
    const child = Bun.spawn([GOKV], {
      env: { ...settings({ PORT: "0", HOST: "127.0.0.1" }) } as Record<string, string>,
      stderr: "ignore",
    });
    while (!existsSync(dir.file("data", "lock.db"))) await Bun.sleep(1);
    child.kill("SIGTERM");
    expect(await child.exited).toBe(0);
    expectCleanStore();
  });
});

const canUnshare = isRoot() && hasProgram("unshare");
if (has("root and unshare, for a process with id 1", canUnshare)) {
  describe("a server that is process 1, as in a container", () => {
    const UNSHARE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
    const childOf = (pid: number) => Number(readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim());

    for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) {
      test(`ends cleanly at ${signal}`, async () => {
        await using server = await startServer(settings(), UNSHARE);
        const pid = childOf(server.pid);
        // The last number is the id inside: what the process takes itself for.
        expect(readFileSync(`/proc/${pid}/status`, "utf8")).toMatch(/^NSpid:\t\d+\t1$/m);
        await fetch(`${server.url}/b/k`, { method: "POST", body: "x", headers });
        const startMs = performance.now();
        process.kill(pid, signal);
        expect(await server.exited).toBe(0);
        expectTime("the end of process 1", performance.now() - startMs, LISTENS_ON_MS + SLACK_MS);
        expectCleanStore();
      });
    }

    test("answers its own healthcheck from the next process", async () => {
      await using server = await startServer(settings(), UNSHARE);
      const env = { PORT: new URL(server.url).port };
      expect((await run([GOKV, "healthcheck"], { env })).exitCode).toBe(0);
      process.kill(childOf(server.pid), "SIGTERM");
      expect(await server.exited).toBe(0);
    });
  });
}
