// A store of an earlier version is brought up to date by a server that starts on it, and by nothing that gives up.

import { Database } from "bun:sqlite";
import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { MIGRATIONS } from "../../src/storage/migrations.ts";
import { schemaVersion } from "../../src/storage/sqlite-connection.ts";
import { type Environment, type Finished, GOKV, run, startServer, stop } from "../support/executable.ts";
import { forgeToken } from "../support/forge-token.ts";
import { makeOld } from "../support/old-store.ts";
import { SECRET } from "../support/targets.ts";
import { type TempDir, tempDir } from "../support/temp-dir.ts";

// Several processes are started; on a busy machine that takes its time.
setDefaultTimeout(60_000);

const OLD = 1;
const TODAY = MIGRATIONS.length;
const headers = { Authorization: `Bearer ${forgeToken()}` };

let dir: TempDir;
let exported: string;
/** A store of the first version with one key, and an export of that. */
beforeEach(async () => {
  dir = tempDir();
  await using server = await startServer({ JWT_SECRET: SECRET, DB_PATH: dir.file("data") });
  expect((await fetch(`${server.url}/b/k`, { method: "POST", headers, body: "v" })).status).toBe(200);
  await stop(server);
  exported = (await gokv(["export"])).stdout;
  makeOld(dir.file("data", "gokv.db"));
});
afterEach(() => dir[Symbol.dispose]());

const gokv = (args: readonly string[], env: Environment = {}, stdin = ""): Promise<Finished> =>
  run([GOKV, ...args], {
    env: { JWT_SECRET: SECRET, DB_PATH: dir.file("data"), HOST: "127.0.0.1", GIN_MODE: "release", ...env },
    stdin,
  });

function version(): number {
  using database = new Database(dir.file("data", "gokv.db"), { readonly: true });
  return schemaVersion(database);
}

test("an import into a store of an earlier version upgrades it, a dry run or a refused one does not", async () => {
  const dry = await gokv(["import", "-", "--mode", "skip", "--dry-run"], {}, exported);
  expect(dry).toEqual({ exitCode: 0, stdout: "would store 0, skipped 1, left out 0 expired\n", stderr: "" });
  expect(version()).toBe(OLD);
  const refused = await gokv(["import", "-"], {}, exported);
  expect([refused.exitCode, refused.stderr]).toEqual([1, expect.stringContaining("nothing was imported")]);
  expect(version()).toBe(OLD);
  const done = await gokv(["import", "-", "--mode", "overwrite"], {}, exported);
  expect(done).toMatchObject({ exitCode: 0, stdout: "stored 1, skipped 0, left out 0 expired\n" });
  expect(version()).toBe(TODAY);
  expect((await gokv(["check"])).stdout).toStartWith("sound: 1 entries");
});

test("a start that cannot listen leaves a store of an earlier version as it is", async () => {
  using taken = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data: () => undefined } });
  const { exitCode, stderr } = await gokv(["serve"], { PORT: `${taken.port}` });
  expect([exitCode, stderr]).toEqual([1, expect.stringContaining("the port is in use")]);
  expect(version()).toBe(OLD);
});

test("a start that upgrades a store says from which schema to which, and the next start says nothing", async () => {
  for (const lines of [[{ level: "info", from: OLD, to: TODAY }], []]) {
    await using server = await startServer({ JWT_SECRET: SECRET, DB_PATH: dir.file("data") });
    expect(await (await fetch(`${server.url}/b/k`, { headers })).text()).toBe("v");
    await stop(server);
    const told = server
      .log()
      .split("\n")
      .filter((line) => line.includes("upgraded the store"));
    expect(told.map((line) => JSON.parse(line))).toMatchObject(lines);
    expect(version()).toBe(TODAY);
  }
});

test("a rekey of a store of an earlier version is refused with what to do, and changes nothing", async () => {
  const stderr = expect.stringMatching(/^gokv: .*gokv\.db has schema 1, .*Start the server once.*\n$/);
  expect(await gokv(["rekey"])).toEqual({ exitCode: 1, stdout: "", stderr });
  expect(version()).toBe(OLD);
});
