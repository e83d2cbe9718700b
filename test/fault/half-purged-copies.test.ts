// Backups, exports and imports of a store with devices, apps, tokens and a namespace whose purge was cut off: what the
// apps see comes back, and nothing that was wiped does.

import { Database } from "bun:sqlite";
import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { EXIT } from "../../src/shared/errors.ts";
import { readNamespace } from "../support/batch-load.ts";
import { type Finished, GOKV, run, type ServerProcess, startServer } from "../support/executable.ts";
import { SECRET } from "../support/targets.ts";
import { type TempDir, tempDir } from "../support/temp-dir.ts";
import { type Asked, administer, asApp, type Installed, install, operatorAt } from "../support/token-client.ts";

setDefaultTimeout(120_000);

const WIPED_KEYS = 10_000;
const CREATOR = "203.0.113.7";
const FROM_CREATOR = { "X-Forwarded-For": CREATOR };

let dir: TempDir;
beforeEach(() => {
  dir = tempDir();
});
afterEach(() => dir[Symbol.dispose]());

const serve = (data = "data"): Promise<ServerProcess> =>
  startServer({ JWT_SECRET: SECRET, DB_PATH: dir.file(data), TRUSTED_PROXIES: "127.0.0.1" });

async function gokv(args: readonly string[], data = "data"): Promise<Finished> {
  const finished = await run([GOKV, ...args], { env: { DB_PATH: dir.file(data) }, cwd: dir.path });
  expect([args[0], finished.exitCode, finished.stderr]).toEqual([args[0], EXIT.done, ""]);
  return finished;
}

async function write(target: Asked, token: string, key: string, text: string): Promise<void> {
  const response = await asApp(target, token, `/${key}`, { method: "POST", body: text, headers: FROM_CREATOR });
  expect(response.status).toBe(200);
}

interface Sample {
  readonly full: Installed;
  readonly narrow: Installed;
  readonly revoked: Installed;
  /** Of the namespace of `full`, after the wipe. */
  readonly entries: ReadonlyMap<string, string>;
}

/** Kills the server in the middle of a purge, after writes that came behind the wipe. */
async function makeHalfPurged(): Promise<Sample> {
  const server = await serve();
  const target = await operatorAt(server.url);
  const full = await install(target);
  const narrow = await install(target, { permissionPrefix: "new", isReadOnly: true }, full.uuid);
  const revoked = await install(target, {}, full.uuid);
  expect((await administer(target, "DELETE", `/installations/${revoked.id}`)).status).toBe(204);
  const old = Object.fromEntries(Array.from({ length: WIPED_KEYS }, (_, n) => [`old.${n}`, "wiped"]));
  const body = JSON.stringify(old);
  expect((await asApp(target, full.token, "/_batchimport", { method: "POST", body })).status).toBe(200);
  expect((await asApp(target, full.token, "/", { method: "DELETE" })).status).toBe(204);
  const written = [write(target, full.token, "new.1", '{"a":1.0}'), write(target, full.token, "old.5999", '"again"')];
  await Promise.all(written);
  server.kill("SIGKILL");
  await server.exited;
  const entries = new Map([
    ["new.1", '{"a":1}'],
    ["old.5999", '"again"'],
  ]);
  using database = new Database(dir.file("data", "gokv.db"), { readonly: true });
  const { rows } = database.query<{ rows: number }, []>("SELECT count(*) AS rows FROM kv").get()!;
  expect(rows).toBeGreaterThan(entries.size);
  return { full, narrow, revoked, entries };
}

async function expectNamespace(target: Asked, { full, entries }: Sample): Promise<void> {
  expect(await readNamespace(target, full.token)).toEqual(new Map(entries));
  for (const key of entries.keys()) {
    const metadata = await asApp(target, full.token, `/${key}/metadata`);
    expect(await metadata.json()).toMatchObject({ key, creatorIp: CREATOR });
  }
  expect((await asApp(target, full.token, "/old.0")).status).toBe(404);
  expect(await (await asApp(target, full.token, "/new.1")).text()).toBe('{"a":1.0}');
}

/** Devices, apps and tokens as they were. */
async function expectTokens(target: Asked, { full, narrow, revoked }: Sample): Promise<void> {
  expect(await (await asApp(target, full.token, "/_token")).json()).toMatchObject({ id: full.id, isReadOnly: false });
  expect(await (await asApp(target, narrow.token, "/_token")).json()).toMatchObject({
    id: narrow.id,
    permissionPrefix: "new",
    isReadOnly: true,
    device: { uuid: full.uuid },
  });
  expect((await asApp(target, narrow.token, "/old.5999")).status).toBe(403);
  expect((await asApp(target, revoked.token, "/_token")).status).toBe(401);
  const listed = await (await administer(target, "GET", `/installations?device=${full.uuid}`)).json();
  const ids = (listed as { items: { id: string }[] }).items.map(({ id }) => id);
  expect(ids.sort()).toEqual([full.id, narrow.id].sort());
}

describe("a store whose purge was cut off", () => {
  test("is sound, and so is its backup, which brings back devices, tokens, values and creators", async () => {
    const sample = await makeHalfPurged();
    const entries = sample.entries.size;
    expect((await gokv(["check"])).stdout).toStartWith(`sound: ${entries} entries in 1 buckets`);
    expect((await gokv(["backup", "copy.db"])).stdout).toStartWith(`copy.db: ${entries} entries`);
    expect((await gokv(["check", "copy.db"], "nowhere")).stdout).toStartWith(`sound: ${entries} entries`);
    expect((await gokv(["restore", "copy.db"], "restored")).stdout).toContain(`: ${entries} entries`);
    await using server = await serve("restored");
    const target = await operatorAt(server.url);
    await expectTokens(target, sample);
    await expectNamespace(target, sample);
    // A token of the backup writes, and its namespace can be wiped.
    await write(target, sample.full.token, "old.3", "3");
    expect((await readNamespace(target, sample.full.token)).size).toBe(entries + 1);
    expect((await asApp(target, sample.full.token, "/", { method: "DELETE" })).status).toBe(204);
    expect((await readNamespace(target, sample.full.token)).size).toBe(0);
  });

  test("restored over the present store ends tokens issued since and revives those revoked since", async () => {
    const first = await serve();
    const target = await operatorAt(first.url);
    const before = await install(target);
    await gokv(["backup", "copy.db"]);
    const after = await install(target, {}, before.uuid);
    expect((await administer(target, "DELETE", `/installations/${before.id}`)).status).toBe(204);
    expect((await asApp(target, before.token, "/_token")).status).toBe(401);
    first.kill("SIGKILL");
    await first.exited;
    await gokv(["restore", "copy.db"]);
    await using server = await serve();
    const again = await operatorAt(server.url);
    expect((await asApp(again, before.token, "/_token")).status).toBe(200);
    expect((await asApp(again, after.token, "/_token")).status).toBe(401);
  });

  test("exports no wiped entry; an import keeps values and creators, and a new installation reads them", async () => {
    const sample = await makeHalfPurged();
    const exported = await gokv(["export"]);
    const lines = exported.stdout.trimEnd().split("\n");
    expect(lines.length).toBe(sample.entries.size + 2);
    expect(lines.filter((line) => line.includes(`"creator_ip":"${CREATOR}"`)).length).toBe(sample.entries.size);
    // Devices and tokens are no entries.
    for (const { token, id } of [sample.full, sample.narrow]) {
      expect([exported.stdout.includes(token), exported.stdout.includes(id)]).toEqual([false, false]);
    }
    await Bun.write(dir.file("entries.ndjson"), exported.stdout);
    expect((await gokv(["import", "entries.ndjson"], "fresh")).stdout).toBe(
      `stored ${sample.entries.size}, skipped 0, left out 0 expired\n`,
    );
    await using server = await serve("fresh");
    const target = await operatorAt(server.url);
    expect((await asApp(target, sample.full.token, "/_token")).status).toBe(401);
    const full = await install(target, {}, sample.full.uuid);
    await expectNamespace(target, { ...sample, full });
  });

  test("takes an import of keys that wait for their purge as new ones", async () => {
    const sample = await makeHalfPurged();
    const server = await serve("other");
    const other = await operatorAt(server.url);
    const { token } = await install(other, {}, sample.full.uuid);
    await write(other, token, "old.5998", '"imported"');
    const { stdout } = await gokv(["export"], "other");
    server.kill("SIGKILL");
    await server.exited;
    await Bun.write(dir.file("entries.ndjson"), stdout);
    expect((await gokv(["import", "entries.ndjson"])).stdout).toStartWith("stored 1, skipped 0");
    await gokv(["check"]);
    await using again = await serve();
    const target = await operatorAt(again.url);
    const entries = new Map([...sample.entries, ["old.5998", '"imported"']].sort() as [string, string][]);
    expect(await readNamespace(target, sample.full.token)).toEqual(entries);
  });
});
