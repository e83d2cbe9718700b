// How long commands wait for a server, and what they say when no answer comes.

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, spyOn, test } from "bun:test";
import { JwtGate } from "../../src/auth/jwt-gate.ts";
import { AdminClient } from "../../src/cli/admin-client.ts";
import { relayCommand } from "../../src/cli/relay-commands.ts";
import { runCli, type StrictCommand } from "../../src/cli/run-cli.ts";
import { tokenCommand } from "../../src/cli/token-commands.ts";
import { userCommand } from "../../src/cli/user-commands.ts";
import { ExitError } from "../../src/shared/errors.ts";

const ENV = { GOKV_JWT: "a.b.c" };
const BOUND_MS = 50;

/** As a document shows them that has every service. */
const EVERYTHING = ["/api/kv/devices", "/api/channel", "/_admin/task/users", "/_admin/rekey"];

let server: ReturnType<typeof Bun.serve>;
/** What its document shows. */
let paths: readonly string[] = EVERYTHING;
/** What it was asked, without its document. */
const asked: string[] = [];
/** What every request has shown to be let in. */
const credentials = new Set<string | null>();
beforeAll(() => {
  server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch({ url, method, headers }) {
      credentials.add(headers.get("authorization"));
      if (url.endsWith("/openapi.json"))
        return Response.json({ paths: Object.fromEntries(paths.map((at) => [at, {}])) });
      asked.push(`${method} ${new URL(url).pathname}`);
      return url.endsWith("/silent") ? new Promise<Response>(() => undefined) : Response.json({ id: 1, success: true });
    },
  });
});
beforeEach(() => {
  paths = EVERYTHING;
  asked.length = 0;
  credentials.clear();
});
afterAll(() => server.stop(true));

/** What commands have complained of. */
const errors: string[] = [];
const { GOKV_JWT } = process.env;
beforeEach(() => {
  Object.assign(process.env, ENV);
});
afterEach(() => {
  if (GOKV_JWT === undefined) delete process.env.GOKV_JWT;
  else process.env.GOKV_JWT = GOKV_JWT;
});

/** Its exit code; what it complains of goes nowhere but into `errors`. */
async function gokv(command: StrictCommand, args: readonly string[], url = server.url.origin): Promise<number> {
  errors.length = 0;
  const spy = spyOn(process.stderr, "write").mockImplementation((text) => errors.push(String(text)) > 0);
  try {
    return await runCli("gokv", command, [...args, `--url=${url}`]);
  } finally {
    spy.mockRestore();
  }
}

async function refusal(url: string, path: string, timeoutMs?: number): Promise<string> {
  const client = await AdminClient.open(url, ENV, "relay");
  const error = await client.ask("GET", path, undefined, timeoutMs).catch((thrown: unknown) => thrown);
  if (!(error instanceof ExitError)) throw new Error(`no refusal but ${JSON.stringify(error)}`);
  expect(error.exitCode).toBe(1);
  return error.message;
}

test("a server that is silent for too long is said to be silent, not to be away", async () => {
  const { origin } = server.url;
  expect(await refusal(origin, "/silent", BOUND_MS)).toBe(
    `${origin} did not answer within 0.05 s. It may still do what it was asked for.`,
  );
});

test("a server that is away is said to be, in whole sentences", async () => {
  for (const [url, reason] of [
    ["http://127.0.0.1:1", "nothing listens there (ECONNREFUSED)"],
    ["nonsense", "that is no address such as http://127.0.0.1:8080"],
    ["ftp://127.0.0.1", "that is no address such as http://127.0.0.1:8080"],
    ["http://nowhere.invalid", "there is no host of that name (ENOTFOUND)"],
  ] as const) {
    expect(await refusal(url, "/")).toBe(`${url} cannot be reached: ${reason}. Is it running? See --url.`);
  }
});

test("a test of a channel is waited for longer than a request to an upstream may take", async () => {
  for (const [verb, ms] of [
    ["test", 660_000],
    ["models", 60_000],
    ["show", 30_000],
  ] as const) {
    const waits = spyOn(AbortSignal, "timeout");
    try {
      expect(await gokv(relayCommand, ["channel", verb, "1"])).toBe(0);
      // The first one is for the look at what the server has.
      expect(waits.mock.calls).toEqual([[30_000], [ms]]);
    } finally {
      waits.mockRestore();
    }
  }
});

test("a command with the secret alone signs itself a token of a minute; one with a token shows that", async () => {
  const secret = "a-secret-of-more-than-thirty-two-bytes";
  const show = async (env: NodeJS.ProcessEnv) => {
    credentials.clear();
    await (await AdminClient.open(server.url.origin, env, "relay")).ask("GET", "/");
    expect(credentials.size).toBe(1);
    return [...credentials][0]!;
  };
  expect(await show({ ...ENV, JWT_SECRET: secret })).toBe(`Bearer ${ENV.GOKV_JWT}`);
  const shown = await show({ JWT_SECRET: secret });
  const { iat, exp, ...claims } = JSON.parse(Buffer.from(shown.split(".")[1]!, "base64url").toString());
  expect([exp - iat, claims]).toEqual([60, { sub: "gokv cli", scope: "admin" }]);
  const secrets = [new TextEncoder().encode(secret)];
  const gateAt = (nowMs: number) => new JwtGate({ secrets, clock: () => nowMs, onFailure: () => undefined });
  expect(await gateAt(iat * 1000).admit(shown)).toMatchObject({ subject: "gokv cli" });
  expect(Math.abs(Date.now() / 1000 - iat)).toBeLessThan(60);
});

describe("a server without the service of a command", () => {
  const COMMANDS: readonly (readonly [service: string, command: StrictCommand, args: string])[] = [
    ["relay", relayCommand, "channel add --name prod --key sk-canary --type DeepSeek"],
    ["relay", relayCommand, "channel delete 1"],
    ["relay", relayCommand, "token add --name main"],
    ["relay", relayCommand, "token list"],
    ["token", tokenCommand, "issue --device d --app a"],
    ["token", tokenCommand, "app delete a"],
    ["token", tokenCommand, "install list"],
    ["task", userCommand, "create --username ann --email ann@example.com --password canary"],
    ["task", userCommand, "list"],
  ];

  test("is not sent anything: its paths would be a bucket's, and a secret would be kept as a value", async () => {
    const ofService = { token: "/api/kv/devices", relay: "/api/channel", task: "/_admin/task/users" };
    for (const [service, command, args] of COMMANDS) {
      paths = EVERYTHING.filter((path) => path !== ofService[service as keyof typeof ofService]);
      expect([args, await gokv(command, args.split(" "))]).toEqual([args, 1]);
      expect(errors).toEqual([`gokv: the service ${service} is not on at ${server.url.origin} (SERVICES).\n`]);
      expect([args, ...asked]).toEqual([args]);
    }
  });

  test("is not taken for one when it does not answer as gokv does", async () => {
    const stranger = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => Response.json({ paths: null }) });
    try {
      expect(await gokv(relayCommand, ["token", "list"], stranger.url.origin)).toBe(1);
      expect(errors).toEqual([expect.stringContaining("answered 200, and not as gokv does")]);
    } finally {
      await stranger.stop(true);
    }
  });
});
