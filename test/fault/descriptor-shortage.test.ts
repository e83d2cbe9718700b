// Clients have taken all file descriptors when a thread is needed for the first time: the server goes on.

import { expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync } from "node:fs";
import { startServer, stop } from "../support/executable.ts";
import { forgeToken } from "../support/forge-token.ts";
import { KeepAliveConnection, requestHead } from "../support/keep-alive-connection.ts";
import { SECRET } from "../support/targets.ts";
import { tempDir } from "../support/temp-dir.ts";

setDefaultTimeout(30_000);

const LIMIT = 60;
const WAITING = 10;
const LARGE_BYTES = 3 * 1024 * 1024;
const LIMITED = ["sh", "-c", `ulimit -n ${LIMIT} && exec "$@"`, "sh"];
const headers = { Authorization: `Bearer ${forgeToken()}` };

type Ask = (method: string, path: string) => Promise<number>;

/** Lets `act` ask a server that has a large value, on a connection of which it has as many as it can. */
async function whileTaken(act: (ask: Ask) => Promise<void>): Promise<void> {
  using dir = tempDir();
  await using server = await startServer({ JWT_SECRET: SECRET, DB_PATH: dir.file("data") }, LIMITED);
  const put = await fetch(`${server.url}/b/large`, { method: "PUT", headers, body: new Uint8Array(LARGE_BYTES) });
  expect(put.status).toBe(200);
  // Opens their services, which have figures.
  for (const path of ["/v1/models", "/api/v1/tasks"]) expect((await fetch(server.url + path)).status).toBe(401);
  using clients = new DisposableStack();
  const connect = async () => clients.use(await KeepAliveConnection.open(server.url));
  const first = await connect();
  const ask: Ask = async (method, path) => (await first.request(method, path, headers)).status;
  expect(await ask("GET", "/livez")).toBe(200);
  const taken = () => readdirSync(`/proc/${server.pid}/fd`).length;
  while (taken() < LIMIT) expect((await (await connect()).request("GET", "/livez")).status).toBe(200);
  for (let number = 0; number < WAITING; number++) (await connect()).write(requestHead("GET", "/livez", {}));
  await act(ask);
  expect(await ask("GET", "/livez")).toBe(200);
  await stop(server);
}

for (const path of ["/metrics", "/b/large", "/_list?bucket=b&count=1"]) {
  test(`GET ${path} is answered for the first time when clients have all descriptors, and more wait`, () =>
    whileTaken(async (ask) => expect(await ask("GET", path)).toBe(200)));
}

test("backups are made or fail when clients have all descriptors, and the server goes on", () =>
  whileTaken(async (ask) => {
    for (let number = 0; number < 3; number++) expect([200, 500]).toContain(await ask("POST", "/_admin/backup"));
    expect(await ask("GET", "/b/large")).toBe(200);
  }));
