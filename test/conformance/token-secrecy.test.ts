// After everything that can be done with tokens was done: where the program shows or keeps anything, no token is found.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { eventually } from "../support/eventually.ts";
import { type Environment, GOKV, run, type ServerProcess, startServer } from "../support/executable.ts";
import { SECRET } from "../support/targets.ts";
import { type TempDir, tempDir } from "../support/temp-dir.ts";
import { type Asked, administer, asApp, install, operatorAt } from "../support/token-client.ts";

/** The third mode, test, logs no requests at all. */
const MODES = ["debug", "release"] as const;
const NOBODY = { Authorization: null };

/** What was issued, and every text that the server gave while it was used. */
interface Traces {
  readonly tokens: readonly string[];
  readonly answers: readonly string[];
}

for (const mode of MODES) {
  describe(`issued tokens, GIN_MODE=${mode}`, () => {
    let dir: TempDir;
    let server: ServerProcess;
    let traces: Traces;
    let settings: Environment;
    beforeAll(async () => {
      dir = tempDir();
      settings = { JWT_SECRET: SECRET, DB_PATH: dir.file("data"), GIN_MODE: mode, LOG_LEVEL: "debug" };
      server = await startServer(settings);
      const operator = await operatorAt(server.url);
      traces = await doEverything(operator);
    }, 240_000);
    afterAll(async () => {
      await server[Symbol.asyncDispose]();
      dir[Symbol.dispose]();
    });

    test("are in no list, no error and no other answer but the two that issue them", () => {
      expect(traces.tokens.length).toBeGreaterThan(10);
      expect(traces.answers.length).toBeGreaterThan(100);
      expect(traces.answers.filter((answer) => holdsAny(answer, traces.tokens))).toEqual([]);
    });

    test("are in no line of the log, although requests carried them in their query", async () => {
      const written = () => server.log() + server.output();
      const told = () => written().match(/\/kv\/token\/_keys/g)?.length ?? 0;
      await eventually("requests are in the log", 1_000, () => told() > 5);
      const log = written();
      expect(holdsAny(log, traces.tokens)).toBe(false);
    });

    test("are in none of the files, the database and its log included, and in no export", async () => {
      // Killed, so that the log stays as it is instead of being taken into the database.
      server.kill("SIGKILL");
      await server.exited;
      const files = readdirSync(dir.file("data"), { recursive: true, withFileTypes: true }).filter((file) =>
        file.isFile(),
      );
      expect(files.map(({ name }) => name)).toEqual(expect.arrayContaining(["gokv.db", "gokv.db-wal"]));
      for (const { parentPath, name } of files) {
        const bytes = readFileSync(`${parentPath}/${name}`, "latin1");
        expect([name, holdsAny(bytes, traces.tokens)]).toEqual([name, false]);
      }
      const { exitCode, stdout } = await run([GOKV, "export"], { env: settings });
      expect([exitCode, holdsAny(stdout, traces.tokens)]).toEqual([0, false]);
      const values = [...stdout.matchAll(/"value":"([^"]*)"/g)].map((match) =>
        Buffer.from(match[1]!, "base64").toString(),
      );
      expect(values).toContain('{"data":"stored"}');
      expect(values.filter((value) => holdsAny(value, traces.tokens))).toEqual([]);
    });
  });
}

/** The token, or most of it, as it is, percent-encoded or in base64. The last four characters are its hint. */
function holdsAny(text: string, tokens: readonly string[]): boolean {
  return tokens.some((token) => {
    const secret = token.slice(4, -4);
    const inBase64 = [0, 1, 2].map((shift) => Buffer.from(secret.slice(shift)).toString("base64").slice(0, 24));
    return [secret.slice(0, 16), secret.slice(-16), ...inBase64].some((part) => text.includes(part));
  });
}

async function doEverything(operator: Asked): Promise<Traces> {
  const plain = await install(operator, {}, "plain");
  const narrow = await install(operator, { permissionPrefix: "p", permissionKey: ["read:s"] }, "plain");
  const readOnly = await install(operator, { isReadOnly: true }, "plain");
  const expired = await install(operator, { expiresAt: "2020-01-01T00:00:00Z" }, "plain");
  const revoked = await install(operator, {}, "plain");
  const rotated = await install(operator, {}, "plain");
  const homeless = await install(operator, {}, "homeless");
  const tokens = [plain, narrow, readOnly, expired, revoked, rotated, homeless].map(({ token }) => token);
  const answers: string[] = [];
  const keep = async (asked: Promise<Response>): Promise<void> => {
    const response = await asked;
    answers.push(`${response.status} ${JSON.stringify([...response.headers])} ${await response.text()}`);
  };
  for (const { token } of [plain, narrow, readOnly, expired, revoked, rotated, homeless]) {
    await useEverywhere(operator, token, keep);
  }
  const answer = await administer(operator, "POST", `/installations/${rotated.id}/rotate`);
  tokens.push(((await answer.json()) as { token: string }).token);
  await keep(administer(operator, "DELETE", `/installations/${revoked.id}`));
  await keep(administer(operator, "DELETE", "/devices/homeless?purge=true"));
  for (const token of [...tokens]) await useEverywhere(operator, token, keep);
  for (let index = 0; index < 5; index++) tokens.push((await install(operator, {}, "plain")).token);
  await administerEverything(operator, tokens[0]!, keep);
  return { tokens, answers };
}

/** The token in every place where it may stand, and in some where it may not. */
async function useEverywhere(server: Asked, token: string, keep: (asked: Promise<Response>) => Promise<void>) {
  const json = { method: "POST", headers: { ...NOBODY, "Content-Type": "application/json" } };
  const query = (path: string) => server.fetch(`/kv/token${path}`, { headers: NOBODY });
  await keep(asApp(server, token, "/p.stored", { method: "POST", body: '{"data":"stored"}' }));
  await keep(server.fetch("/kv/token/p.body", { ...json, body: JSON.stringify({ token, data: 1 }) }));
  await keep(server.fetch("/kv/token/p.only", { ...json, body: JSON.stringify({ token }) }));
  await keep(server.fetch("/kv/token/_batchimport", { ...json, body: JSON.stringify({ token, "p.a": 1, _keys: 2 }) }));
  await keep(asApp(server, token, "/p.k", { method: "POST", body: JSON.stringify({ token, data: 1 }) }));
  await keep(server.fetch("/kv/token/p.k", { headers: { ...NOBODY, "X-App-Token": token } }));
  for (const path of ["/_keys", "/", "/_info", "/_token", "/p.k", "/p.k/metadata", "/none", "/%FF", "/_check"]) {
    await keep(query(`${path}?token=${token}`));
    await keep(query(`${path}?limit=1&token=${encodeURIComponent(token)}&sortBy=key`));
    await keep(asApp(server, token, path));
  }
  await keep(query(`/_keys?limit=x&token=${token}`));
  await keep(query(`/_keys?sortBy=${token}`));
  await keep(query(`/_keys?token=${token}&token=${token}`));
  await keep(query(`/_keys?Token=${token}`));
  await keep(asApp(server, token, "/p.k", { method: "PUT", body: "1" }));
  await keep(asApp(server, token, `/p.k?token=${token}`, { method: "POST", body: `{"broken":"${token}` }));
  await keep(asApp(server, token, "/p.k", { method: "DELETE", headers: { "If-Match": '"1"' } }));
  await keep(asApp(server, token, "/p.none", { method: "DELETE" }));
  await keep(server.fetch(`/kv/token/p.k?token=${token}`, { method: "OPTIONS", headers: NOBODY }));
  // To the operator's own routes, where it is nothing.
  for (const path of ["/plain/p.k", "/_list", "/api/kv/installations", "/metrics", "/livez"]) {
    await keep(server.fetch(path, { headers: { Authorization: `Bearer ${token}` } }));
    await keep(server.fetch(`${path}?token=${token}`, { headers: NOBODY }));
  }
}

async function administerEverything(server: Asked, token: string, keep: (asked: Promise<Response>) => Promise<void>) {
  for (const path of ["/devices", "/apps", "/installations", "/installations?device=plain", "/apps/suite"]) {
    await keep(administer(server, "GET", path));
  }
  const list = (await (await administer(server, "GET", "/installations")).json()) as { items: { id: string }[] };
  for (const { id } of list.items) {
    await keep(administer(server, "GET", `/installations/${id}`));
    await keep(administer(server, "PATCH", `/installations/${id}`, { note: "changed" }));
  }
  // Members with a token for a value are refused without repeating it.
  await keep(administer(server, "POST", "/installations", { deviceUuid: "plain", appId: "suite", token }));
  await keep(administer(server, "PATCH", "/apps/suite", { [token]: 1 }));
  for (const path of ["/metrics", "/openapi.json", "/_list", "/_list?bucket=plain"]) await keep(server.fetch(path));
}
