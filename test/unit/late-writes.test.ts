// Writes of an app that come when its installation is gone: they change nothing, whoever has its namespace by then.

import { expect, test } from "bun:test";
import type { AppError } from "../../src/shared/errors.ts";
import type { KvPut } from "../../src/storage/kv-engine.ts";
import type { SqliteStore } from "../../src/storage/sqlite-store.ts";
import { openOwnStore } from "../support/own-store.ts";

const OLD = "old-installation";
const SUCCESSOR = "later-installation";

function put(key: string, installationId: string | undefined): KvPut {
  const rest = { contentType: null, metadata: null, ttlMs: null, condition: null, creatorIp: null };
  return { kind: "put", bucket: "room", key, installationId, value: new Uint8Array([1]), ...rest };
}

function removal(key: string, installationId: string | undefined) {
  return { kind: "delete", bucket: "room", key, installationId, condition: null } as const;
}

async function installed(store: SqliteStore, id: string): Promise<void> {
  const app = { id: `app of ${id}`, name: "App", description: null, homepage: null };
  await store.run("token.createDevice", { uuid: "room", name: null });
  await store.run("token.createApp", { ...app, permissionPrefix: null, permissionKey: [] });
  const tokenHash = new Uint8Array(new Bun.CryptoHasher("sha256").update(id).digest());
  const fields = { id, deviceUuid: "room", appId: app.id, tokenHash, tokenHint: "hint" };
  await store.run("token.createInstallation", fields);
}

function codeOf(change: Promise<unknown>): Promise<string | undefined> {
  return change.then(
    () => undefined,
    (error: AppError) => error.code,
  );
}

function keysOf(store: SqliteStore): string[] {
  return ["kept", "late"].filter((key) => store.find("room", key) !== null);
}

test("writes for an installation that is gone are refused one by one, those beside them are stored", async () => {
  await using own = await openOwnStore();
  const { sqlite: store } = own;
  await installed(store, OLD);
  await store.write(put("before", OLD));
  await store.run("token.deleteDevice", { uuid: "room", isPurge: true });
  const outcomes = [put("late", OLD), put("kept", undefined), removal("kept", OLD), put("late", OLD)].map((write) =>
    codeOf(store.write(write)),
  );
  expect(await Promise.all(outcomes)).toEqual(["token_invalid", undefined, "token_invalid", "token_invalid"]);
  expect(keysOf(store)).toEqual(["kept"]);
});

test("what the owner before sent changes nothing in the namespace of a successor", async () => {
  await using own = await openOwnStore();
  const { sqlite: store } = own;
  await installed(store, OLD);
  await store.run("token.deleteDevice", { uuid: "room", isPurge: false });
  await installed(store, SUCCESSOR);
  await store.write(put("kept", SUCCESSOR));
  const late = [
    store.write(put("late", OLD)),
    store.write(removal("kept", OLD)),
    store.writeTogether([put("late", OLD)]),
    store.writeTogether([put("late", SUCCESSOR), put("late", OLD)]),
    store.wipe("room", OLD),
  ].map(codeOf);
  expect(await Promise.all(late)).toEqual(late.map(() => "token_invalid"));
  expect(keysOf(store)).toEqual(["kept"]);
  await store.writeTogether([put("late", SUCCESSOR)]);
  expect(keysOf(store)).toEqual(["kept", "late"]);
  await store.wipe("room", SUCCESSOR);
  expect(keysOf(store)).toEqual([]);
});
