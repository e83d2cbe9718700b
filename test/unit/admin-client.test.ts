// How long commands wait for a server, and what they say when no answer comes.

import { afterAll, beforeAll, expect, spyOn, test } from "bun:test";
import { AdminClient } from "../../src/cli/admin-client.ts";
import { relayCommand } from "../../src/cli/relay-commands.ts";
import { runCli } from "../../src/cli/run-cli.ts";
import { ExitError } from "../../src/shared/errors.ts";

const ENV = { GOKV_JWT: "a.b.c" };
const BOUND_MS = 50;

let server: ReturnType<typeof Bun.serve>;
beforeAll(() => {
  server = Bun.serve({
    ...{ hostname: "127.0.0.1", port: 0 },
    fetch: ({ url }) =>
      url.endsWith("/silent") ? new Promise<Response>(() => undefined) : Response.json({ id: 1, success: true }),
  });
});
afterAll(() => server.stop(true));

async function refusal(url: string, path: string, timeoutMs?: number): Promise<string> {
  const client = await AdminClient.open(url, ENV);
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
  for (const url of ["http://127.0.0.1:1", "nonsense"]) {
    const message = await refusal(url, "/");
    expect(message).toStartWith(`${url} cannot be reached: `);
    expect(message).toEndWith(" Is it running? See --url.");
    expect(message).not.toMatch(/[.?!]{2}/);
  }
});

test("a test of a channel is waited for longer than a request to an upstream may take", async () => {
  const waits = spyOn(AbortSignal, "timeout");
  const output = spyOn(process.stdout, "write").mockImplementation(() => true);
  const { GOKV_JWT } = process.env;
  try {
    Object.assign(process.env, ENV);
    for (const verb of ["test", "models", "show"]) {
      expect(await runCli("gokv relay", relayCommand, ["channel", verb, "1", `--url=${server.url.origin}`])).toBe(0);
    }
    expect(waits.mock.calls).toEqual([[660_000], [60_000], [30_000]]);
  } finally {
    if (GOKV_JWT === undefined) delete process.env.GOKV_JWT;
    else process.env.GOKV_JWT = GOKV_JWT;
    waits.mockRestore();
    output.mockRestore();
  }
});
