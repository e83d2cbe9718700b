// A namespace that is deleted as a whole: what every reader sees of it, what is written afterwards, what else it takes.

import { describe, expect, test } from "bun:test";
import { eventually } from "../support/eventually.ts";
import { keyPath, list, listPath, put, readJson } from "../support/kv-requests.ts";
import { queryStore } from "../support/query-store.ts";
import type { OpenTarget, Target } from "../support/targets.ts";
import { administer, asApp, type Installed, install } from "../support/token-client.ts";
import { useTarget } from "../support/use-target.ts";

const NO_RATES = { TOKEN_RATE_READ: "0", TOKEN_RATE_WRITE: "0", TOKEN_RATE_DELETE: "0", TOKEN_RATE_BATCH: "0" };
/** More than a slice of the purge, so that it takes several. */
const MANY = 4000;
const FEW_SLICES = 300;
const WATCHERS = 4;
const ROUNDS = 3;

export function tokenWipeSuite(name: string, open: OpenTarget): void {
  describe(`a wiped namespace on ${name}`, () => {
    const target = useTarget(open, { ...NO_RATES, SWEEP_INTERVAL: "1h" });
    goneTests(target);
    laterWriteTests(target);
    readerTests(target);
    deviceTests(target);
  });
}

/** All below one prefix, so that a token with that prefix reads the same by ranges. */
const PREFIX = "key";
const nameOf = (index: number) => `${PREFIX}.${String(index).padStart(5, "0")}`;
const JSON_TYPE = { "Content-Type": "application/json" };

/** Stores `count` numbered keys in one batch. */
async function fill(target: Target, { token }: Installed, count: number, value: unknown = 1): Promise<void> {
  const members = Object.fromEntries(Array.from({ length: count }, (_, index) => [nameOf(index), value]));
  const answer = await asApp(target, token, "/_batchimport", { method: "POST", body: JSON.stringify(members) });
  expect(((await answer.json()) as { successful: number }).successful).toBe(count);
}

async function wipe(target: Target, token: string): Promise<void> {
  const answer = await asApp(target, token, "/", { method: "DELETE" });
  expect([answer.status, await answer.text()]).toEqual([204, ""]);
}

async function totalOf(target: Target, token: string, query = "?limit=0"): Promise<number> {
  const answer = await asApp(target, token, `/_keys${query}`);
  expect(answer.status).toBe(200);
  return ((await answer.json()) as { total_rows: number }).total_rows;
}

async function countOf(target: Target, uuid: string): Promise<number> {
  return (await readJson<{ count: number }>(target, listPath({ bucket: uuid, count: 1 }))).count;
}

function statusOf(answer: Promise<Response>): Promise<number> {
  return answer.then(async (response) => {
    await response.arrayBuffer();
    return response.status;
  });
}

/** Nothing of the namespace is left for anybody, on either surface. */
async function expectEmpty(target: Target, { uuid, token }: Installed, keys: readonly string[]): Promise<void> {
  for (const sortBy of ["key", "createdAt"]) {
    expect(await (await asApp(target, token, `/_keys?sortBy=${sortBy}`)).json()).toEqual({
      keys: [],
      total_rows: 0,
      current_page: { limit: 100, skip: 0, count: 0 },
    });
    expect(await (await asApp(target, token, `/?sortBy=${sortBy}`)).json()).toEqual({ items: [], total_rows: 0 });
  }
  for (const key of keys) {
    expect(await statusOf(asApp(target, token, `/${key}`))).toBe(404);
    expect(await statusOf(asApp(target, token, `/${key}/metadata`))).toBe(404);
    expect(await statusOf(asApp(target, token, `/${key}`, { method: "DELETE" }))).toBe(404);
    expect(await statusOf(target.fetch(keyPath(uuid, key)))).toBe(404);
    expect(await statusOf(target.fetch(`/_meta${keyPath(uuid, key)}`))).toBe(404);
  }
  expect(await list(target, { bucket: uuid })).toEqual([]);
  expect(await list(target, { bucket: uuid, reverse: 1, delimiter: "." })).toEqual([]);
  expect(await list(target, { bucket: uuid, limit: 5 })).toEqual([]);
  expect(await countOf(target, uuid)).toBe(0);
  expect(await list(target, { prefix: uuid })).toEqual([]);
}

function goneTests(target: () => Target): void {
  test("is empty for the token and for the operator the moment it is answered, and after a restart", async () => {
    const installed = await install(target());
    await fill(target(), installed, MANY);
    const samples = [0, 1, MANY / 2, MANY - 1].map(nameOf);
    // In the read cache when the namespace goes.
    for (const key of samples) expect(await statusOf(asApp(target(), installed.token, `/${key}`))).toBe(200);
    await wipe(target(), installed.token);
    await expectEmpty(target(), installed, samples);
    await target().restart();
    await expectEmpty(target(), installed, samples);
  });

  test("leaves no row behind, and neither does one that was wiped while the first was being removed", async () => {
    const wiped = [await install(target()), await install(target())];
    for (const installed of wiped) await fill(target(), installed, FEW_SLICES);
    for (const { token } of wiped) await wipe(target(), token);
    const names = wiped.map(({ uuid }) => `'${uuid}'`).join();
    const sql = `SELECT (SELECT count(*) FROM kv WHERE bucket IN (${names})) AS rowsLeft,
      (SELECT count(*) FROM kv_bucket WHERE name IN (${names}) AND wiped_revision > 0) AS wipesLeft`;
    type Left = { rowsLeft: number; wipesLeft: number };
    await eventually("no row and no wipe is left", 1_000, async () => {
      const [left] = await queryStore<Left>(target().dbPath, sql);
      return left!.rowsLeft + left!.wipesLeft === 0;
    });
  });

  test("can be wiped when it is empty, and again", async () => {
    const installed = await install(target());
    await wipe(target(), installed.token);
    await wipe(target(), installed.token);
    await fill(target(), installed, 2);
    await wipe(target(), installed.token);
    await wipe(target(), installed.token);
    await expectEmpty(target(), installed, [nameOf(0)]);
  });

  test("takes nothing from the neighbours, and keeps its device and its tokens", async () => {
    const uuid = `room-${crypto.randomUUID()}`;
    const neighbours = [`${uuid}2`, uuid.slice(0, -1), uuid.toUpperCase(), `${uuid}.a`];
    const installed = await install(target(), {}, uuid);
    await fill(target(), installed, 3);
    for (const neighbour of neighbours) await fill(target(), await install(target(), {}, neighbour), 3);
    await wipe(target(), installed.token);
    for (const neighbour of neighbours) {
      expect(await countOf(target(), neighbour)).toBe(3);
      expect(await statusOf(target().fetch(keyPath(neighbour, nameOf(0))))).toBe(200);
    }
    for (const path of ["/_info", "/_token"]) {
      expect(await statusOf(asApp(target(), installed.token, path))).toBe(200);
    }
    expect(await statusOf(administer(target(), "GET", `/devices/${uuid}`))).toBe(200);
  });

  test("with entries that have expired counts nothing, not less than nothing", async () => {
    const installed = await install(target());
    for (const key of ["a", "b"]) {
      await put(target(), keyPath(installed.uuid, key), "1", { ...JSON_TYPE, "X-TTL": "1" });
    }
    await fill(target(), installed, 1);
    const expiredMs = Date.now() + 1000;
    while (Date.now() <= expiredMs) await Bun.sleep(expiredMs + 1 - Date.now());
    expect(await totalOf(target(), installed.token)).toBe(1);
    await wipe(target(), installed.token);
    await expectEmpty(target(), installed, ["a", "b", nameOf(0)]);
    await fill(target(), installed, 2);
    expect([await totalOf(target(), installed.token), await countOf(target(), installed.uuid)]).toEqual([2, 2]);
  });
}

function laterWriteTests(target: () => Target): void {
  test("keeps everything that is written after it, while what was there is still being removed", async () => {
    const installed = await install(target());
    const { uuid, token } = installed;
    await fill(target(), installed, MANY, "old");
    const before = await (await asApp(target(), token, `/${nameOf(7)}/metadata`)).json();
    await wipe(target(), token);
    const written = Array.from({ length: 300 }, (_, index) => nameOf(index * 13));
    await Promise.all(
      written.map(async (key, index) => {
        const answer =
          index % 2 === 0
            ? await asApp(target(), token, `/${key}`, { method: "POST", body: '"new"' })
            : await target().fetch(keyPath(uuid, key), { method: "PUT", body: '"new"', headers: JSON_TYPE });
        expect(answer.status).toBe(200);
        if (index % 2 === 0) expect(((await answer.json()) as { created: boolean }).created).toBe(true);
      }),
    );
    const check = async () => {
      expect([await totalOf(target(), token), await countOf(target(), uuid)]).toEqual([300, 300]);
      expect(await list(target(), { bucket: uuid })).toEqual(written);
      const { keys } = (await (await asApp(target(), token, "/_keys?limit=1000")).json()) as { keys: string[] };
      expect(keys).toEqual(written);
      const narrow = await install(target(), { permissionKey: [nameOf(13), nameOf(14)] }, uuid);
      expect(await totalOf(target(), narrow.token)).toBe(1);
      expect(await (await asApp(target(), token, `/${nameOf(13)}`)).text()).toBe('"new"');
      expect(await statusOf(target().fetch(keyPath(uuid, nameOf(1))))).toBe(404);
    };
    await check();
    await target().restart();
    await check();
    expect(before).toMatchObject({ key: nameOf(7) });
  });

  test("has forgotten times, creators and ETags of what was in it", async () => {
    const installed = await install(target());
    const { token } = installed;
    await fill(target(), installed, MANY);
    const [key, other] = [nameOf(MANY - 1), nameOf(MANY - 2)];
    const etag = (await asApp(target(), token, `/${key}`)).headers.get("etag")!;
    const old = (await (await asApp(target(), token, `/${key}/metadata`)).json()) as { createdAt: string };
    await wipe(target(), token);
    const write = (name: string, headers: Record<string, string>) =>
      asApp(target(), token, `/${name}`, { method: "POST", body: "2", headers });
    expect(await statusOf(write(key, { "If-Match": etag }))).toBe(412);
    expect(await statusOf(write(key, { "If-Match": "*" }))).toBe(412);
    const created = await write(key, { "If-None-Match": "*" });
    expect([created.status, ((await created.json()) as { created: boolean }).created]).toEqual([200, true]);
    const newer = Number(created.headers.get("etag")!.slice(1, -1));
    expect(newer).toBeGreaterThan(Number(etag.slice(1, -1)));
    const fresh = (await (await asApp(target(), token, `/${key}/metadata`)).json()) as { createdAt: string };
    expect(fresh.createdAt > old.createdAt).toBe(true);
    expect(await statusOf(asApp(target(), token, `/${other}`, { method: "DELETE" }))).toBe(404);
    expect(await totalOf(target(), token)).toBe(1);
  });

  test("can be filled and wiped again while the last purge is under way", async () => {
    const installed = await install(target());
    const { uuid, token } = installed;
    for (let round = 0; round < ROUNDS; round++) {
      await fill(target(), installed, MANY, round);
      expect([await totalOf(target(), token), await countOf(target(), uuid)]).toEqual([MANY, MANY]);
      await wipe(target(), token);
      expect([await totalOf(target(), token), await countOf(target(), uuid)]).toEqual([0, 0]);
    }
    await fill(target(), installed, 10, "last");
    await target().restart();
    expect([await totalOf(target(), token), await countOf(target(), uuid)]).toEqual([10, 10]);
    expect(await list(target(), { bucket: uuid })).toEqual(Array.from({ length: 10 }, (_, index) => nameOf(index)));
  });
}

/** One reading of the namespace: true = all of it, false = nothing. Throws for anything between. */
type Reading = () => Promise<boolean>;

function allOrNothing(found: number): boolean {
  expect(found).toBeOneOf([0, MANY]);
  return found === MANY;
}

function readingsOf(target: Target, { uuid, token }: Installed, narrow: string): readonly Reading[] {
  const isThere = async (answer: Promise<Response>) => {
    const status = await statusOf(answer);
    expect(status).toBeOneOf([200, 404]);
    return status === 200;
  };
  let asked = 0;
  const nextName = () => nameOf((asked++ * 7) % MANY);
  return [
    async () => allOrNothing(await totalOf(target, token)),
    async () => allOrNothing(await totalOf(target, narrow)),
    async () => allOrNothing(await totalOf(target, token, "?sortBy=createdAt&limit=0")),
    async () => allOrNothing(await totalOf(target, narrow, "?sortBy=updatedAt&limit=0")),
    async () => allOrNothing(await countOf(target, uuid)),
    async () => {
      const { items, total_rows } = (await (await asApp(target, token, "/?limit=1000&skip=1500")).json()) as {
        items: unknown[];
        total_rows: number;
      };
      expect(items.length).toBe(total_rows === 0 ? 0 : 1000);
      return allOrNothing(total_rows);
    },
    () => isThere(asApp(target, token, `/${nextName()}`)),
    () => isThere(asApp(target, token, `/${nextName()}/metadata`)),
    () => isThere(target.fetch(keyPath(uuid, nextName()))),
  ];
}

function readerTests(target: () => Target): void {
  test("is whole or empty for each reader, and never whole again for one who has seen it empty", async () => {
    for (let round = 0; round < ROUNDS; round++) {
      const installed = await install(target());
      const narrow = await install(target(), { permissionPrefix: PREFIX }, installed.uuid);
      await fill(target(), installed, MANY);
      const readings = readingsOf(target(), installed, narrow.token);
      let isAnswered = false;
      const wiping = Bun.sleep(5 + 5 * round).then(async () => {
        await wipe(target(), installed.token);
        isAnswered = true;
      });
      const seen = { whole: 0, empty: 0 };
      const watch = async (first: number) => {
        let wasEmpty = false;
        for (let at = first, left = 40; left > 0; at++) {
          const mustBeEmpty: boolean = wasEmpty || isAnswered;
          if (isAnswered) left--;
          const isWhole = await readings[at % readings.length]!();
          expect(isWhole && mustBeEmpty).toBe(false);
          wasEmpty ||= !isWhole;
          seen[isWhole ? "whole" : "empty"]++;
        }
      };
      await Promise.all([wiping, ...Array.from({ length: WATCHERS }, (_, index) => watch(index * 2))]);
      expect([seen.whole > 0, seen.empty > 0]).toEqual([true, true]);
    }
  }, 240_000);
}

function deviceTests(target: () => Target): void {
  test("is asked for when a device that holds entries is deleted; then all goes in one step", async () => {
    const installed = await install(target());
    const { uuid, token } = installed;
    await fill(target(), installed, MANY);
    const refused = await administer(target(), "DELETE", `/devices/${uuid}`);
    expect([refused.status, ((await refused.json()) as { code: string }).code]).toEqual([409, "namespace_not_empty"]);
    expect([await totalOf(target(), token), await countOf(target(), uuid)]).toEqual([MANY, MANY]);
    expect(await statusOf(administer(target(), "DELETE", `/devices/${uuid}?purge=false`))).toBe(409);
    expect(await statusOf(administer(target(), "DELETE", `/devices/${uuid}?purge=true`))).toBe(204);
    const check = async () => {
      expect(await statusOf(asApp(target(), token, `/${nameOf(0)}`))).toBe(401);
      expect(await statusOf(administer(target(), "GET", `/devices/${uuid}`))).toBe(404);
      expect(await statusOf(administer(target(), "GET", `/installations/${installed.id}`))).toBe(404);
      expect(await statusOf(target().fetch(keyPath(uuid, nameOf(0))))).toBe(404);
      expect([await countOf(target(), uuid), await list(target(), { prefix: uuid })]).toEqual([0, []]);
    };
    await check();
    await target().restart();
    await check();
    const successor = await install(target(), {}, uuid);
    expect(await totalOf(target(), successor.token)).toBe(0);
    expect(await statusOf(asApp(target(), token, "/_keys"))).toBe(401);
  });

  test("is gone with the device as a whole for whoever reads meanwhile", async () => {
    const installed = await install(target());
    const { uuid, token } = installed;
    await fill(target(), installed, MANY);
    let isDeleted = false;
    const deleting = statusOf(administer(target(), "DELETE", `/devices/${uuid}?purge=true`)).then((status) => {
      expect(status).toBe(204);
      isDeleted = true;
    });
    const watch = async () => {
      for (let left = 10; left > 0; ) {
        const wasDeleted = isDeleted;
        if (wasDeleted) left--;
        const answer = await asApp(target(), token, "/_keys?limit=0&sortBy=createdAt");
        if (answer.status === 200) {
          const { total_rows } = (await answer.json()) as { total_rows: number };
          expect([total_rows, wasDeleted]).toEqual([total_rows === 0 ? 0 : MANY, false]);
        } else expect(answer.status).toBe(401);
        expect(await countOf(target(), uuid)).toBeOneOf(wasDeleted ? [0] : [0, MANY]);
      }
    };
    await Promise.all([deleting, watch(), watch()]);
  });

  test("whose entries have all expired holds nothing that a deletion would have to ask for", async () => {
    const { uuid } = await install(target());
    await put(target(), keyPath(uuid, "brief"), "1", { ...JSON_TYPE, "X-TTL": "3" });
    expect(await statusOf(administer(target(), "DELETE", `/devices/${uuid}`))).toBe(409);
    const expiredMs = Date.now() + 3000;
    while (Date.now() <= expiredMs) await Bun.sleep(expiredMs + 1 - Date.now());
    expect(await countOf(target(), uuid)).toBe(0);
    expect(await statusOf(administer(target(), "DELETE", `/devices/${uuid}`))).toBe(204);
  });

  test("needs no purge when the device is empty, and a purge of an empty one does no harm", async () => {
    for (const query of ["", "?purge=true", "?purge=false"]) {
      const installed = await install(target());
      await fill(target(), installed, 2);
      await wipe(target(), installed.token);
      expect(await statusOf(administer(target(), "DELETE", `/devices/${installed.uuid}${query}`))).toBe(204);
      expect(await statusOf(administer(target(), "DELETE", `/devices/${installed.uuid}${query}`))).toBe(404);
    }
  });

  test("an app in use is not deleted unless its tokens may die with it", async () => {
    const app = crypto.randomUUID();
    expect(await statusOf(administer(target(), "POST", "/apps", { id: app, name: "In use" }))).toBe(201);
    const { uuid } = await install(target());
    const issued = await administer(target(), "POST", "/installations", { deviceUuid: uuid, appId: app });
    const { token } = (await issued.json()) as { token: string };
    const refused = await administer(target(), "DELETE", `/apps/${app}`);
    expect([refused.status, ((await refused.json()) as { code: string }).code]).toEqual([409, "app_in_use"]);
    expect(await statusOf(asApp(target(), token, "/_keys"))).toBe(200);
    expect(await statusOf(administer(target(), "DELETE", `/apps/${app}?revoke=true`))).toBe(204);
    expect(await statusOf(asApp(target(), token, "/_keys"))).toBe(401);
    expect(await statusOf(administer(target(), "GET", `/apps/${app}`))).toBe(404);
  });
}
