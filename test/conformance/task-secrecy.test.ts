// Accounts were used in every way: where the program shows or keeps anything, no password and no token is found.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { GOKV, run, type ServerProcess, startServer } from "../support/executable.ts";
import { SECRET } from "../support/targets.ts";
import { ask, createTask, logIn, signUp, UNLIMITED } from "../support/task-client.ts";
import { type TempDir, tempDir } from "../support/temp-dir.ts";
import { type Asked, operatorAt } from "../support/token-client.ts";

const PASSWORDS = ["password123", "the-second-password", "a-wrong-password", "by-the-operator"] as const;

interface Traces {
  readonly secrets: readonly string[];
  readonly emails: readonly string[];
  readonly userId: number;
}

for (const mode of ["debug", "release"] as const) {
  describe(`secrets of accounts, GIN_MODE=${mode}`, () => {
    let dir: TempDir;
    let server: ServerProcess;
    let traces: Traces;
    beforeAll(async () => {
      dir = tempDir();
      const settings = { JWT_SECRET: SECRET, DB_PATH: dir.file("data"), GIN_MODE: mode, LOG_LEVEL: "debug" };
      server = await startServer({ ...settings, ...UNLIMITED });
      traces = await doEverything(await operatorAt(server.url));
    }, 60_000);
    afterAll(async () => {
      await server[Symbol.asyncDispose]();
      dir[Symbol.dispose]();
    });

    test("are in no line of the log, nor are addresses", () => {
      const log = server.log() + server.output();
      expect(log.match(/\/api\/v1\/auth\/login/g)?.length ?? 0).toBeGreaterThan(3);
      expect([...traces.secrets, ...traces.emails].filter((secret) => log.includes(secret))).toEqual([]);
    });

    if (mode === "release") {
      test("requests leave one line each, with who, where, what came of it and how long it took", () => {
        const lines = server
          .log()
          .split("\n")
          .filter((line) => line.includes('"request"'))
          .map((line) => JSON.parse(line) as Record<string, unknown>);
        const created = lines.filter(({ route, method }) => route === "/api/v1/tasks" && method === "POST");
        expect(created).toHaveLength(1);
        expect(created[0]).toMatchObject({ status: 201, sub: `${traces.userId}`, id: expect.any(String) });
        expect(created[0]!.ms).toBeNumber();
        const revoked = lines.filter(({ route }) => route === "/api/v1/auth/sessions/:id");
        expect(revoked.map(({ status }) => status)).toEqual([404]);
        const ids = lines.map(({ id }) => id);
        expect(new Set(ids).size).toBe(ids.length);
        expect(server.log()).toContain("a refresh token was used twice");
      });
    }

    test("are in none of the files, the database and its log included, and in no export", async () => {
      // Killed, so that the log stays as it is instead of being taken into the database.
      server.kill("SIGKILL");
      await server.exited;
      const files = readdirSync(dir.file("data"), { withFileTypes: true }).filter((file) => file.isFile());
      expect(files.map(({ name }) => name)).toEqual(expect.arrayContaining(["gokv.db", "gokv.db-wal"]));
      for (const { name } of files) {
        const bytes = readFileSync(dir.file(`data/${name}`), "latin1");
        expect([name, traces.secrets.filter((secret) => bytes.includes(secret))]).toEqual([name, []]);
      }
      const { exitCode, stdout } = await run([GOKV, "export"], { env: { DB_PATH: dir.file("data") } });
      expect([exitCode, traces.secrets.filter((secret) => stdout.includes(secret))]).toEqual([0, []]);
    });
  });
}

/** Tokens in their middle: their ends may be common to all. */
function partsOf(token: string): string[] {
  return token.startsWith("rt_") ? [token.slice(3, 23), token.slice(-20)] : [token.slice(-40), token.split(".")[1]!];
}

async function doEverything(server: Asked): Promise<Traces> {
  const [password, second, wrong, byOperator] = PASSWORDS;
  const alice = await signUp(server);
  const tokens = [alice.token, alice.refreshToken];
  const as = (method: string, path: string, body?: unknown) => ask(server, method, path, { token: alice.token, body });
  await createTask(server, alice);
  await as("GET", "/auth/me");
  await as("PATCH", "/auth/me", { email: "moved@example.org", current_password: password });
  await as("PATCH", "/auth/me", { email: "moved@example.org", current_password: wrong });
  await as("DELETE", `/auth/sessions/${Bun.randomUUIDv7()}`);
  await as("GET", `/auth/me?token=${alice.token}`);
  await as("POST", "/auth/login", { email: "moved@example.org", password: wrong });
  await as("POST", "/auth/login", { email: "moved@example.org", password: second, extra: password });
  await as("POST", "/auth/refresh", `{"refresh_token":"${alice.refreshToken}"`);
  for (let parent = alice.refreshToken, round = 0; round < 3; round++) {
    const answer = await as("POST", "/auth/refresh", { refresh_token: parent });
    const pair = (await answer.json()) as { token: string; refresh_token: string };
    tokens.push(pair.token, pair.refresh_token);
    parent = pair.refresh_token;
  }
  await as("POST", "/auth/refresh", { refresh_token: alice.refreshToken });
  const again = await logIn(server, "moved@example.org", password);
  const changed = await ask(server, "POST", "/auth/password", {
    token: again.token,
    body: { current_password: password, new_password: second },
  });
  const pair = (await changed.json()) as { token: string; refresh_token: string };
  tokens.push(again.token, again.refreshToken, pair.token, pair.refresh_token);
  const path = `/_admin/task/users/${alice.id}`;
  await server.fetch(path, { method: "PATCH", body: JSON.stringify({ password: byOperator }) });
  await server.fetch(path, { method: "PATCH", body: JSON.stringify({ password: byOperator, [second]: 1 }) });
  const last = await logIn(server, "moved@example.org", byOperator);
  tokens.push(last.token, last.refreshToken);
  const emails = [alice.email, "moved@example.org"];
  return { secrets: [...PASSWORDS, ...tokens.flatMap(partsOf)], emails, userId: alice.id };
}
