// A volume or a quota that is full, as an app meets it: values and batches are refused, reads and deletes go on, and
// writes again once there is room, without a restart.

import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { EXIT } from "../../src/shared/errors.ts";
import { readNamespace } from "../support/batch-load.ts";
import { eventually } from "../support/eventually.ts";
import { type Environment, GOKV, run, type ServerProcess, startServer, stop } from "../support/executable.ts";
import { has, hasProgram, isRoot } from "../support/needs.ts";
import { mountSmallVolume } from "../support/small-volume.ts";
import { strace } from "../support/strace.ts";
import { callsOfStorageThread, readTrace } from "../support/system-call-trace.ts";
import { SECRET } from "../support/targets.ts";
import { tempDir } from "../support/temp-dir.ts";
import { type Asked, administer, asApp, install, operatorAt } from "../support/token-client.ts";

const MiB = 1024 * 1024;
const VALUE = JSON.stringify("v".repeat(100_000));
const BATCH_KEYS = 5;
const DELETED = 15;
/** While there is no room, one write in a second is tried. */
const RETRY_TIMEOUT_MS = 10_000;
const TEST_TIMEOUT_MS = 240_000;

const UNLIMITED = { TOKEN_RATE_READ: "0", TOKEN_RATE_WRITE: "0", TOKEN_RATE_DELETE: "0", TOKEN_RATE_BATCH: "0" };

/** An app on a server, and what it has stored there. */
class AppOnServer {
  readonly target: Asked;
  readonly token: string;
  readonly stored = new Map<string, string>();

  constructor(target: Asked, token: string) {
    this.target = target;
    this.token = token;
  }

  async post(key: string, value = VALUE): Promise<Response> {
    const response = await asApp(this.target, this.token, `/${key}`, { method: "POST", body: value });
    if (response.status === 200) this.stored.set(key, value);
    return response;
  }

  async importBatch(name: string, value = VALUE): Promise<Response> {
    const keys = Array.from({ length: BATCH_KEYS }, (_, n) => `${name}.${n}`);
    const body = `{${keys.map((key) => `${JSON.stringify(key)}:${value}`).join()}}`;
    const response = await asApp(this.target, this.token, "/_batchimport", { method: "POST", body });
    if (response.status === 200) for (const key of keys) this.stored.set(key, value);
    return response;
  }

  async delete(path: string): Promise<Response> {
    const response = await asApp(this.target, this.token, path, { method: "DELETE" });
    if (response.status === 204 && path === "/") this.stored.clear();
    if (response.status === 204) this.stored.delete(path.slice(1));
    return response;
  }

  /** Writes until the first refusal, which must name the reason. */
  async fill(write: (n: number) => Promise<Response>): Promise<void> {
    for (let n = 0; ; n++) {
      const response = await write(n);
      if (response.status !== 200) return expectFull(response);
    }
  }

  async expectAsStored(): Promise<void> {
    expect(await readNamespace(this.target, this.token)).toEqual(this.stored);
  }
}

async function expectFull(response: Response): Promise<void> {
  const { message, ...rest } = (await response.json()) as { message: string };
  expect([response.status, rest]).toEqual([507, { statusCode: 507, code: "storage_full" } as never]);
  expect(message).not.toMatch(/SQLITE|disk|page/i);
}

/** Fills the store, makes room, fills it again; then a restart must find exactly what was answered. */
async function liveThroughFullness(env: Environment): Promise<void> {
  const server = await startServer({ ...env, ...UNLIMITED });
  const target = await operatorAt(server.url);
  const app = new AppOnServer(target, (await install(target)).token);
  const { token } = app;
  const bystander = await install(target);
  await app.fill((n) => app.post(`k${n}`));
  expect(app.stored.size).toBeGreaterThan(2 * DELETED);

  await expectFull(await app.importBatch("refused"));
  await expectFull(await app.post("k0", JSON.stringify("w".repeat(400_000))));
  expect(await (await asApp(target, token, "/k0")).text()).toBe(VALUE);
  expect((await asApp(target, token, "/_keys?limit=1000")).status).toBe(200);
  expect((await asApp(target, bystander.token, "/_token")).status).toBe(200);
  await app.expectAsStored();

  for (let n = 0; n < DELETED; n++) expect((await app.delete(`/k${n}`)).status).toBe(204);
  await eventually("a value is taken", RETRY_TIMEOUT_MS, async () => (await app.post("again")).ok);
  await eventually("a batch is taken", RETRY_TIMEOUT_MS, async () => (await app.importBatch("again")).ok);
  await app.expectAsStored();

  await app.fill((n) => app.importBatch(`more${n}`));
  expect((await app.delete("/")).status).toBe(204);
  expect(await (await asApp(target, token, "/_keys")).json()).toMatchObject({ keys: [], total_rows: 0 });
  await eventually("a batch is taken after the wipe", RETRY_TIMEOUT_MS, async () => (await app.importBatch("new")).ok);
  await app.expectAsStored();
  server.kill("SIGKILL");
  await server.exited;

  await using after = await startServer({ ...env, ...UNLIMITED });
  const again = new AppOnServer(await operatorAt(after.url), token);
  for (const [key, value] of app.stored) again.stored.set(key, value);
  await again.expectAsStored();
  // The room of all that was wiped is there again.
  for (let n = 0; n < DELETED; n++) {
    await eventually("a value is taken", RETRY_TIMEOUT_MS, async () => (await again.post(`late${n}`)).ok);
  }
  after.kill("SIGKILL");
  await after.exited;
  expect((await run([GOKV, "check"], { env })).exitCode).toBe(EXIT.done);
}

describe("a namespace of a store that has reached DB_MAX_BYTES", () => {
  test(
    "refuses values and batches with 507, is read and deleted from, and takes writes again after that",
    async () => {
      using dir = tempDir();
      await liveThroughFullness({
        JWT_SECRET: SECRET,
        DB_PATH: dir.file("data"),
        DB_MAX_BYTES: "6MiB",
        RESERVE_BYTES: "0",
      });
    },
    TEST_TIMEOUT_MS,
  );
});

if (has("root, to mount a small volume", isRoot())) {
  describe("a namespace on a full volume", () => {
    test(
      "refuses values and batches with 507, is read and deleted from, and takes writes again after that",
      async () => {
        using volume = mountSmallVolume(64 * MiB);
        await liveThroughFullness({ JWT_SECRET: SECRET, DB_PATH: join(volume.path, "data") });
      },
      TEST_TIMEOUT_MS,
    );

    test(
      "lets nobody spend on batches the room that deletes need, and lets the operator revoke a token",
      async () => {
        using volume = mountSmallVolume(48 * MiB);
        await using server = await startServer({
          JWT_SECRET: SECRET,
          DB_PATH: join(volume.path, "data"),
          ...UNLIMITED,
        });
        const target = await operatorAt(server.url);
        const app = new AppOnServer(target, (await install(target)).token);
        const doomed = await install(target);
        await app.fill((n) => app.post(`k${n}`));
        // Batches keep coming that would fit into what was given up for the deletes.
        const small = JSON.stringify("s".repeat(20_000));
        const taken: string[] = [];
        for (let n = 0; n < 100; n++) if ((await app.importBatch(`b${n}`, small)).ok) taken.push(`b${n}`);
        expect(taken.length).toBeLessThan(10);
        expect((await administer(target, "DELETE", `/installations/${doomed.id}`)).status).toBe(204);
        expect((await asApp(target, doomed.token, "/_keys")).status).toBe(401);
        for (let n = 0; n < DELETED; n++) expect((await app.delete(`/k${n}`)).status).toBe(204);
        await app.expectAsStored();
        expect((await app.delete("/")).status).toBe(204);
      },
      TEST_TIMEOUT_MS,
    );
  });
}

if (has("strace", hasProgram("strace"))) {
  describe("the first request that finds no space", () => {
    // How often it is tried before the reserve is given up.
    const cases = [
      ["a wipe", 1, (app: AppOnServer) => app.delete("/")],
      ["the removal of a key", 2, (app: AppOnServer) => app.delete("/k")],
      ["a revocation", 1, (app: AppOnServer, id: string) => administer(app.target, "DELETE", `/installations/${id}`)],
    ] as const;
    for (const [what, tries, act] of cases) {
      test(
        `is served from the reserve when it is ${what}`,
        async () => {
          using dir = tempDir();
          const data = dir.file("data");
          const env = { JWT_SECRET: SECRET, DB_PATH: data, ACCESS_LOG: "off", RESERVE_BYTES: "1MiB" };
          const traced = (...inject: string[]) => {
            const files = [`${data}/gokv.db`, `${data}/gokv.db-wal`];
            const options = { output: dir.file("trace"), calls: ["pwrite64"], inject, paths: files };
            return startServer(env, strace(options));
          };
          const first = await startServer(env);
          const { id, token } = await install(await operatorAt(first.url));
          const warmUp = async (server: ServerProcess) => {
            const app = new AppOnServer(await operatorAt(server.url), token);
            expect((await app.post("k", "1")).status).toBe(200);
            return app;
          };
          await warmUp(first);
          await stop(first);
          const counted = await traced();
          await warmUp(counted);
          counted.kill("SIGKILL");
          await counted.exited;
          await stop(await startServer(env));

          const next = callsOfStorageThread(readTrace(dir.file("trace")), "pwrite64") + 1;
          await using server = await traced(`pwrite64:error=ENOSPC:when=${next}..${next + tries - 1}`);
          expect((await act(await warmUp(server), id)).status).toBe(204);
          // A trace is whole when what it follows has ended.
          server.kill("SIGKILL");
          await server.exited;
          const failed = readTrace(dir.file("trace")).calls.filter((call) => call.isInjected);
          expect(failed.length).toBe(tries);
        },
        TEST_TIMEOUT_MS,
      );
    }
  });
}
