// The secrets of webhooks: shown once, kept sealed, sealed anew when the secret behind the seals changes.

import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { eventually } from "../support/eventually.ts";
import { type Environment, GOKV, run, type ServerProcess, startServer } from "../support/executable.ts";
import { mint, type TargetInit } from "../support/targets.ts";
import { type Account, API, createTask, logIn, signUp, UNLIMITED } from "../support/task-client.ts";
import { type TempDir, tempDir } from "../support/temp-dir.ts";
import { isAccepted, WebhookReceiver } from "../support/webhook-receiver.ts";

setDefaultTimeout(120_000);

const FIRST = "the first secret of this store, quite long";
const SECOND = "the second secret of this store, as long";
const THIRD = "a third one that has never sealed anything";
const ARRIVES_MS = 10_000;

interface Hook {
  readonly id: string;
  readonly secret: string;
}

let dir: TempDir;
let receiver: WebhookReceiver;
beforeEach(() => {
  dir = tempDir();
  receiver = new WebhookReceiver();
});
afterEach(async () => {
  await receiver[Symbol.asyncDispose]();
  dir[Symbol.dispose]();
});

/** A server, and what it has answered so far. */
interface Served extends AsyncDisposable {
  readonly process: ServerProcess;
  readonly answers: string[];
  fetch(path: string, init?: TargetInit): Promise<Response>;
  stop(): Promise<void>;
}

async function serve(secret: string, env: Environment = {}): Promise<Served> {
  const process = await startServer({
    JWT_SECRET: secret,
    DB_PATH: dir.file("data"),
    LOG_LEVEL: "debug",
    WEBHOOK_ALLOW_CIDRS: "127.0.0.1/32",
    ...UNLIMITED,
    ...env,
  });
  const answers: string[] = [];
  return {
    process,
    answers,
    async fetch(path, init = {}) {
      const response = await fetch(process.url + path, init as RequestInit);
      const text = await response.clone().text();
      answers.push(`${path} ${response.status} ${JSON.stringify([...response.headers])} ${text}`);
      return response;
    },
    async stop() {
      process.kill("SIGTERM");
      expect(await process.exited).toBe(0);
    },
    [Symbol.asyncDispose]: () => process[Symbol.asyncDispose](),
  };
}

async function request(server: Served, { token }: Account, method: string, path: string, body?: unknown) {
  const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json" };
  return server.fetch(API + path, { method, headers, ...(body === undefined ? {} : { body: JSON.stringify(body) }) });
}

async function makeHook(server: Served, account: Account): Promise<Hook> {
  const body = { url: receiver.url("/hook"), events: ["task.created"] };
  return (await (await request(server, account, "POST", "/webhooks", body)).json()) as Hook;
}

/** A ping, and which of the secrets verify what arrives. */
async function pinged(server: Served, account: Account, hook: Hook, secrets: readonly string[]): Promise<boolean[]> {
  const before = receiver.seen.length;
  expect((await request(server, account, "POST", `/webhooks/${hook.id}/ping`)).status).toBe(202);
  await eventually("the ping arrives", ARRIVES_MS, () => receiver.seen.length > before);
  return secrets.map((secret) => isAccepted(receiver.seen.at(-1)!, secret));
}

/** As it is, or most of its bytes in another coding. */
function holds(text: string, secret: string): boolean {
  const bytes = Buffer.from(secret.slice("whsec_".length), "base64");
  const codings = (["base64", "base64url", "hex", "latin1"] as const).map((coding) => bytes.toString(coding));
  return codings.some((coded) => text.includes(coded.slice(0, 20)) || text.includes(coded.slice(-24, -4)));
}

test("a secret is in no later answer, in no line of the log and in no file of the store", async () => {
  await using server = await serve(FIRST);
  const account = await signUp(server);
  const hook = await makeHook(server, account);
  const rotated = (await (await request(server, account, "POST", `/webhooks/${hook.id}/rotate-secret`)).json()) as Hook;
  const secrets = [hook.secret, rotated.secret];
  expect(secrets.map((secret) => holds(server.answers.join("\n"), secret))).toEqual([true, true]);
  server.answers.length = 0;
  receiver.answer("/hook", () => new Response("no", { status: 500 }));
  await createTask(server, account);
  await eventually("a failed attempt is logged", ARRIVES_MS, async () => {
    const answer = await request(server, account, "GET", `/webhooks/${hook.id}/deliveries`);
    return (await answer.text()).includes('"last_status":500');
  });
  for (const path of ["/webhooks", `/webhooks/${hook.id}`, "/jobs", "/tasks", "/auth/me"]) {
    expect((await request(server, account, "GET", path)).status).toBe(200);
  }
  await request(server, account, "PATCH", `/webhooks/${hook.id}`, { active: false });
  await request(server, account, "POST", `/webhooks/${hook.id}/ping`);
  await request(server, account, "PATCH", `/webhooks/${hook.id}`, { secret: hook.secret });
  const operator = { Authorization: `Bearer ${await mint({}, FIRST)}` };
  for (const path of ["/metrics", "/openapi.json", "/_admin/jobs"]) await server.fetch(path, { headers: operator });
  expect(server.answers.length).toBeGreaterThan(10);
  // Killed, so that its log stays as it is instead of being taken into the database.
  server.process.kill("SIGKILL");
  await server.process.exited;
  const traces: [string, string][] = [
    ...server.answers.map((answer): [string, string] => [answer.slice(0, 40), answer]),
    ["log", server.process.log() + server.process.output()],
  ];
  const files = readdirSync(dir.file("data"), { recursive: true, withFileTypes: true });
  for (const file of files.filter((entry) => entry.isFile())) {
    traces.push([file.name, readFileSync(`${file.parentPath}/${file.name}`, "latin1")]);
  }
  expect(traces.map(([name]) => name)).toEqual(expect.arrayContaining(["gokv.db", "gokv.db-wal"]));
  expect(server.process.log()).toContain("/webhooks");
  for (const secret of secrets)
    expect(traces.filter(([, text]) => holds(text, secret)).map(([name]) => name)).toEqual([]);
});

describe("the secret behind the seals of webhooks", () => {
  /** Makes a hook under `FIRST`, rotates its secret twice, and stops. */
  async function prepare(): Promise<{ account: Account; hook: Hook; secrets: string[] }> {
    await using server = await serve(FIRST);
    const account = await signUp(server);
    const hook = await makeHook(server, account);
    const rotated = [hook];
    for (let count = 0; count < 2; count++) {
      const answer = await request(server, account, "POST", `/webhooks/${hook.id}/rotate-secret`);
      rotated.push((await answer.json()) as Hook);
    }
    await server.stop();
    return { account, hook, secrets: rotated.map(({ secret }) => secret) };
  }

  const again = async (server: Served, { email, password }: Account): Promise<Account> =>
    logIn(server, email, password);

  for (const services of ["kv,token,relay,task", "task", "relay"]) {
    test(`is changed through a server with SERVICES=${services}, and the old one is needed no more`, async () => {
      const { account, hook, secrets } = await prepare();
      {
        await using server = await serve(SECOND, { JWT_SECRET_PREVIOUS: FIRST, SERVICES: services });
        const headers = { Authorization: `Bearer ${await mint({}, SECOND)}` };
        const narrow = { Authorization: `Bearer ${await mint({ scope: "kv" }, SECOND)}` };
        const rekey = (sent: typeof headers) => server.fetch("/_admin/rekey", { method: "POST", headers: sent });
        expect((await rekey(narrow)).status).toBe(403);
        const answer = await rekey(headers);
        const kid = expect.stringMatching(/^[0-9a-f]{8}$/);
        expect([answer.status, await answer.json()]).toEqual([
          200,
          { resealed: 0, kid, webhooks: { resealed: 1, kid } },
        ]);
        expect(await (await rekey(headers)).json()).toMatchObject({ webhooks: { resealed: 0 } });
        await server.stop();
      }
      await using server = await serve(SECOND);
      expect(await pinged(server, await again(server, account), hook, secrets)).toEqual([true, true, true]);
    });
  }

  test("is changed in the store itself as well", async () => {
    const { account, hook, secrets } = await prepare();
    const env = { DB_PATH: dir.file("data"), JWT_SECRET: SECOND, JWT_SECRET_PREVIOUS: FIRST };
    const { exitCode, stdout, stderr } = await run([GOKV, "rekey"], { env });
    expect([exitCode, stderr]).toEqual([0, ""]);
    expect(stdout).toMatch(/^resealed 0 \(kid \w{8}\)\nwebhook secrets resealed 1 \(kid \w{8}\)\n$/);
    await using server = await serve(SECOND);
    expect(await pinged(server, await again(server, account), hook, secrets)).toEqual([true, true, true]);
  });

  test("lost with a former secret only, it holds up a change until the secret of the hook is rotated", async () => {
    let [account, hook]: [Account | null, Hook | null] = [null, null];
    {
      await using server = await serve(FIRST);
      account = await signUp(server);
      hook = await makeHook(server, account);
      await server.stop();
    }
    const rotate = (server: Served) => request(server, account!, "POST", `/webhooks/${hook!.id}/rotate-secret`);
    {
      await using server = await serve(SECOND, { JWT_SECRET_PREVIOUS: FIRST });
      account = await again(server, account);
      expect((await rotate(server)).status).toBe(200);
      await server.stop();
    }
    await using server = await serve(THIRD, { JWT_SECRET_PREVIOUS: SECOND });
    account = await again(server, account);
    const headers = { Authorization: `Bearer ${await mint({}, THIRD)}` };
    const rekey = () => server.fetch("/_admin/rekey", { method: "POST", headers });
    const refused = await rekey();
    expect([refused.status, ((await refused.json()) as { message: string }).message]).toEqual([
      409,
      expect.stringContaining("or have their owners rotate them."),
    ]);
    expect((await rotate(server)).status).toBe(200);
    expect((await rekey()).status).toBe(200);
  });

  test("lost, it leaves hooks that send nothing and say so, until their secrets are rotated", async () => {
    const { account: old, hook, secrets } = await prepare();
    await using server = await serve(THIRD);
    const account = await again(server, old);
    const headers = { Authorization: `Bearer ${await mint({}, THIRD)}` };
    const refused = await server.fetch("/_admin/rekey", { method: "POST", headers });
    const body = (await refused.json()) as { message: string };
    expect([refused.status, body]).toMatchObject([409, { code: "key_unreadable", webhooks: [hook.id] }]);
    expect(body.message).toContain("Nothing was changed.");
    await request(server, account, "POST", `/webhooks/${hook.id}/ping`);
    await eventually("the log says so", ARRIVES_MS, async () => {
      const answer = await request(server, account, "GET", `/webhooks/${hook.id}/deliveries`);
      return (await answer.text()).includes("no secret of this server opens the secret of the webhook");
    });
    expect(receiver.seen).toEqual([]);
    const rotated = await request(server, account, "POST", `/webhooks/${hook.id}/rotate-secret`);
    const { secret } = (await rotated.json()) as Hook;
    expect(await pinged(server, account, hook, [...secrets, secret])).toEqual([false, false, false, true]);
  });
});
