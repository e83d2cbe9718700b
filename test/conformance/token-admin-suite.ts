// Administration of the token API: what operators may make, see, change and remove, and what nobody else may.

import { describe, expect, test } from "bun:test";
import { eventually } from "../support/eventually.ts";
import { expectError, put, read } from "../support/kv-requests.ts";
import { mint, type OpenTarget, type Target } from "../support/targets.ts";
import { administer, asApp, type Installed, install } from "../support/token-client.ts";
import { useTarget } from "../support/use-target.ts";

const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;
const V4 = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
const V7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
const TOKEN = /^kvt_[A-Za-z0-9_-]{43}$/;
/** Every path of the administration and the methods it takes, with ids that do not exist. */
const ROUTES: readonly (readonly [path: string, methods: string])[] = [
  ["/devices", "GET, POST, HEAD, OPTIONS"],
  ["/devices/nobody", "GET, PATCH, DELETE, HEAD, OPTIONS"],
  ["/apps", "GET, POST, HEAD, OPTIONS"],
  ["/apps/nobody", "GET, PATCH, DELETE, HEAD, OPTIONS"],
  ["/installations", "GET, POST, HEAD, OPTIONS"],
  ["/installations/nobody", "GET, PATCH, DELETE, HEAD, OPTIONS"],
  ["/installations/nobody/rotate", "POST, OPTIONS"],
];

type Row = Record<string, unknown>;
interface Page {
  readonly items: readonly Row[];
  readonly nextCursor: string | null;
}

export function tokenAdminSuite(name: string, open: OpenTarget): void {
  describe(`devices on ${name}`, () => deviceTests(useTarget(open)));
  describe(`apps on ${name}`, () => appTests(useTarget(open)));
  describe(`installations on ${name}`, () => installationTests(useTarget(open)));
  describe(`lists of the administration on ${name}`, () => listTests(useTarget(open)));
  describe(`bodies of the administration on ${name}`, () => bodyTests(useTarget(open)));
  describe(`who may administer tokens on ${name}`, () => {
    credentialTests(useTarget(open));
    narrowedTests(useTarget(open));
  });
}

/** The JSON of an answer with this status, and what all answers of the administration have. */
async function answer<T = Row>(target: Target, status: number, method: string, path: string, body?: unknown) {
  const response = await administer(target, method, path, body);
  const text = await response.text();
  expect([method, path, response.status, text]).toEqual([method, path, status, text]);
  expect(response.headers.get("cache-control")).toBe("no-store");
  expect(response.headers.get("access-control-allow-origin")).toBeNull();
  return (text === "" ? null : JSON.parse(text)) as T;
}

async function expectStatusOf(target: Target, { token }: Installed, path: string, status: number): Promise<void> {
  expect([path, (await asApp(target, token, path)).status]).toEqual([path, status]);
}

function deviceTests(target: () => Target): void {
  test("a device is made with the name given, or with one of its own", async () => {
    const made = await answer(target(), 201, "POST", "/devices", { uuid: "room-301", name: "Room 301" });
    expect(made).toEqual({
      uuid: "room-301",
      name: "Room 301",
      createdAt: expect.stringMatching(TIME),
      updatedAt: made.createdAt,
    });
    const { uuid, name } = await answer(target(), 201, "POST", "/devices", {});
    expect([uuid, name]).toEqual([expect.stringMatching(V4), null]);
    expect(await answer(target(), 200, "GET", "/devices/room-301")).toEqual(made);
  });

  test("a second device of a name is refused, and the first one stays as it was", async () => {
    const made = await answer(target(), 201, "POST", "/devices", { uuid: "twice", name: "first" });
    await expectCode(
      administer(target(), "POST", "/devices", { uuid: "twice", name: "second" }),
      409,
      "already_exists",
    );
    expect(await answer(target(), 200, "GET", "/devices/twice")).toEqual(made);
  });

  test("its name must be one that a bucket may have", async () => {
    for (const uuid of ["kv", "api", "_x", "_list"]) {
      await expectCode(administer(target(), "POST", "/devices", { uuid }), 400, "bucket_reserved");
    }
    for (const uuid of [".", "..", "a/b", "a\u0000b", "a\nb", "\u0085", "é".repeat(65), "\ud800", "\ufffd"]) {
      const { status } = await administer(target(), "POST", "/devices", { uuid });
      expect([uuid, status]).toEqual([uuid, 400]);
    }
    for (const uuid of ["é".repeat(64), "kv2", "KV", "a b", "%41", "__proto__".slice(2), "a?b#c", "'; --"]) {
      await answer(target(), 201, "POST", "/devices", { uuid });
      expect((await answer(target(), 200, "GET", `/devices/${encodeURIComponent(uuid)}`)).uuid).toBe(uuid);
    }
  });

  test("renaming changes the name and the time of the last change only", async () => {
    const made = await answer(target(), 201, "POST", "/devices", { uuid: "renamed", name: "old" });
    const changed = await answer(target(), 200, "PATCH", "/devices/renamed", { name: "new" });
    expect(changed).toEqual({ ...made, name: "new", updatedAt: expect.stringMatching(TIME) });
    expect((await answer(target(), 200, "PATCH", "/devices/renamed", { name: null })).name).toBeNull();
    await expectCode(administer(target(), "PATCH", "/devices/nobody", { name: "x" }), 404, "device_not_found");
  });

  test("a bucket that holds entries already can be adopted", async () => {
    await put(target(), "/adopted/greeting", '"hello"');
    const { token } = await install(target(), {}, "adopted");
    expect(await (await asApp(target(), token, "/greeting")).text()).toBe('"hello"');
  });

  test("a device with entries is deleted only with purge, which takes entries and tokens in one step", async () => {
    const app = await install(target());
    const other = await install(target());
    for (const { token } of [app, other]) await asApp(target(), token, "/k", { method: "POST", body: "1" });
    const path = `/devices/${app.uuid}`;
    await expectCode(administer(target(), "DELETE", path), 409, "namespace_not_empty");
    await expectCode(administer(target(), "DELETE", `${path}?purge=false`), 409, "namespace_not_empty");
    await expectStatusOf(target(), app, "/k", 200);
    await answer(target(), 204, "DELETE", `${path}?purge=true`);
    await expectStatusOf(target(), app, "/k", 401);
    expect(await read(target(), `/${app.uuid}/k`)).toBeNull();
    await expectCode(administer(target(), "DELETE", `${path}?purge=true`), 404, "device_not_found");
    await expectCode(administer(target(), "GET", `/installations/${app.id}`), 404, "installation_not_found");
    await expectStatusOf(target(), other, "/k", 200);
  });

  test("an empty device is deleted without more ado, a device made again starts empty", async () => {
    const app = await install(target());
    await asApp(target(), app.token, "/k", { method: "POST", body: "1" });
    await asApp(target(), app.token, "/k", { method: "DELETE" });
    await answer(target(), 204, "DELETE", `/devices/${app.uuid}`);
    await expectStatusOf(target(), app, "/_info", 401);
    const again = await install(target(), {}, app.uuid);
    await expectStatusOf(target(), again, "/k", 404);
    await expectStatusOf(target(), app, "/_info", 401);
  });

  test("an entry that has expired does not keep a device", async () => {
    const { uuid } = await install(target());
    await put(target(), `/${uuid}/k?ttl=1`, "1");
    await eventually("the entry has expired", 5000, async () => (await read(target(), `/${uuid}/k`)) === null);
    await answer(target(), 204, "DELETE", `/devices/${uuid}`);
  });

  test("purge is true or false, and nothing happens for anything else", async () => {
    const { uuid } = await install(target());
    for (const query of ["purge=maybe", "purge=", "purge=TRUE", "purge=true&purge=true", "Purge=true", "x=1"]) {
      const response = await administer(target(), "DELETE", `/devices/${uuid}?${query}`);
      expect([query, response.status]).toEqual([query, 400]);
    }
    await answer(target(), 200, "GET", `/devices/${uuid}`);
  });

  test("devices, apps and installations outlive a restart", async () => {
    const app = await install(target(), { permissionPrefix: "myapp", permissionKey: ["read:shared"] });
    const paths = [`/devices/${app.uuid}`, "/apps/suite", `/installations/${app.id}`];
    const before = await Promise.all(paths.map((path) => answer(target(), 200, "GET", path)));
    await target().restart();
    expect(await Promise.all(paths.map((path) => answer(target(), 200, "GET", path)))).toEqual(before);
    await expectStatusOf(target(), app, "/myapp.k", 404);
    await expectStatusOf(target(), app, "/other", 403);
  });
}

function appTests(target: () => Target): void {
  test("an app is made with all its fields, or with its name alone", async () => {
    const fields = {
      id: "board",
      name: "Board",
      description: "Shows things",
      homepage: "https://board.example",
      permissionPrefix: "board",
      permissionKey: ["read:shared", "write:log", "both"],
    };
    const made = await answer(target(), 201, "POST", "/apps", fields);
    expect(made).toEqual({ ...fields, createdAt: expect.stringMatching(TIME), updatedAt: made.createdAt });
    expect(await answer(target(), 200, "GET", "/apps/board")).toEqual(made);
    expect(await answer(target(), 201, "POST", "/apps", { name: "Plain" })).toMatchObject({
      id: expect.stringMatching(V4),
      name: "Plain",
      description: null,
      homepage: null,
      permissionPrefix: null,
      permissionKey: [],
    });
    await expectCode(administer(target(), "POST", "/apps", fields), 409, "already_exists");
  });

  test("changing it changes what is named and leaves the rest", async () => {
    const made = await answer(target(), 201, "POST", "/apps", { id: "changed", name: "A", permissionPrefix: "p" });
    const changed = await answer(target(), 200, "PATCH", "/apps/changed", { description: "B" });
    expect(changed).toEqual({ ...made, description: "B", updatedAt: expect.stringMatching(TIME) });
    expect(await answer(target(), 200, "PATCH", "/apps/changed", { permissionPrefix: null })).toMatchObject({
      permissionPrefix: null,
      description: "B",
    });
    await expectCode(administer(target(), "PATCH", "/apps/nobody", { name: "x" }), 404, "app_not_found");
  });

  test("its permissions are copied to new installations and leave the old ones alone", async () => {
    await answer(target(), 201, "POST", "/apps", {
      id: "given",
      name: "G",
      permissionPrefix: "p",
      permissionKey: ["x"],
    });
    await answer(target(), 201, "POST", "/devices", { uuid: "given-device" });
    const body = { deviceUuid: "given-device", appId: "given" };
    const copied = await answer(target(), 201, "POST", "/installations", body);
    expect(copied).toMatchObject({ permissionPrefix: "p", permissionKey: ["x"] });
    const own = await answer(target(), 201, "POST", "/installations", {
      ...body,
      permissionPrefix: null,
      permissionKey: [],
    });
    expect(own).toMatchObject({ permissionPrefix: null, permissionKey: [] });
    await answer(target(), 200, "PATCH", "/apps/given", { permissionPrefix: "q", permissionKey: [] });
    const { token: _, ...kept } = copied;
    expect(await answer(target(), 200, "GET", `/installations/${copied.id}`)).toEqual(kept);
    expect(await answer(target(), 201, "POST", "/installations", body)).toMatchObject({ permissionPrefix: "q" });
  });

  test("an app in use is deleted only with revoke, which kills its tokens and no others", async () => {
    const other = await install(target());
    await answer(target(), 201, "POST", "/apps", { id: "in-use", name: "U" });
    const body = { deviceUuid: other.uuid, appId: "in-use" };
    const token = (await answer(target(), 201, "POST", "/installations", body)).token as string;
    await expectCode(administer(target(), "DELETE", "/apps/in-use"), 409, "app_in_use");
    expect((await asApp(target(), token, "/_info")).status).toBe(200);
    await answer(target(), 204, "DELETE", "/apps/in-use?revoke=true");
    expect((await asApp(target(), token, "/_info")).status).toBe(401);
    await expectStatusOf(target(), other, "/_info", 200);
    await expectCode(administer(target(), "DELETE", "/apps/in-use"), 404, "app_not_found");
    await answer(target(), 201, "POST", "/apps", { id: "unused", name: "U" });
    await answer(target(), 204, "DELETE", "/apps/unused");
  });

  test("its id is 1 to 64 letters, digits, dots, underscores and hyphens, and never only dots", async () => {
    for (const id of ["", ".", "..", "a b", "a/b", "é", "a".repeat(65), "a\n", "%41"]) {
      await expectCode(administer(target(), "POST", "/apps", { id, name: "x" }), 400, "invalid_parameter");
    }
    for (const id of ["...", ".a", "-", "_", "a".repeat(64), "A", "a", "__proto__", "constructor"]) {
      expect((await answer(target(), 201, "POST", "/apps", { id, name: "x" })).id).toBe(id);
      await answer(target(), 200, "GET", `/apps/${id}`);
      await answer(target(), 204, "DELETE", `/apps/${id}`);
    }
  });
}

function installationTests(target: () => Target): void {
  test("issuing shows the token once, and no later answer does", async () => {
    const { uuid } = await install(target());
    const fields = {
      note: "by the door",
      deviceType: "kiosk",
      permissionPrefix: "p",
      permissionKey: ["read:s"],
      isReadOnly: true,
      expiresAt: "2126-01-02T03:04:05.678Z",
    };
    const body = { deviceUuid: uuid, appId: "suite", ...fields };
    const { token, ...issued } = await answer(target(), 201, "POST", "/installations", body);
    expect(token).toEqual(expect.stringMatching(TOKEN));
    expect(issued).toEqual({
      ...body,
      id: expect.stringMatching(V7),
      tokenHint: (token as string).slice(-4),
      installedAt: expect.stringMatching(TIME),
      updatedAt: issued.installedAt,
    });
    const shown = await answer(target(), 200, "GET", `/installations/${issued.id}`);
    expect(shown).toEqual(issued);
    const { items } = await answer<Page>(target(), 200, "GET", `/installations?device=${uuid}`);
    expect(items).toContainEqual(issued);
    expect(await answer(target(), 200, "PATCH", `/installations/${issued.id}`, {})).not.toHaveProperty("token");
    expect(await (await asApp(target(), token as string, "/_token")).text()).not.toContain(token as string);
  });

  test("what is left out is nothing: a plain token that never expires", async () => {
    const { uuid } = await install(target());
    const issued = await answer(target(), 201, "POST", "/installations", { deviceUuid: uuid, appId: "suite" });
    expect(issued).toMatchObject({
      note: null,
      deviceType: null,
      permissionPrefix: null,
      permissionKey: [],
      isReadOnly: false,
      expiresAt: null,
    });
  });

  test("many installations of one app on one device have tokens of their own", async () => {
    const first = await install(target());
    const all = [first, ...(await Promise.all(Array.from({ length: 20 }, () => install(target(), {}, first.uuid))))];
    expect(new Set(all.map(({ token }) => token)).size).toBe(21);
    expect(new Set(all.map(({ id }) => id)).size).toBe(21);
    for (const each of all) await expectStatusOf(target(), each, "/_info", 200);
    await answer(target(), 204, "DELETE", `/installations/${first.id}`);
    await expectStatusOf(target(), first, "/_info", 401);
    await expectStatusOf(target(), all[1]!, "/_info", 200);
  });

  test("an unknown device or app is named as such", async () => {
    const { uuid } = await install(target());
    const ask = (deviceUuid: string, appId: string) =>
      administer(target(), "POST", "/installations", { deviceUuid, appId });
    await expectCode(ask("nobody", "suite"), 404, "device_not_found");
    await expectCode(ask(uuid, "nobody"), 404, "app_not_found");
  });

  test("an unknown installation is not found by any method", async () => {
    for (const [method, path, body] of [
      ["GET", "/installations/nobody"],
      ["PATCH", "/installations/nobody", {}],
      ["DELETE", "/installations/nobody"],
      ["POST", "/installations/nobody/rotate"],
    ] as const) {
      await expectCode(administer(target(), method, path, body), 404, "installation_not_found");
    }
  });

  test("a change of its rights holds for the very next request", async () => {
    const app = await install(target());
    const path = `/installations/${app.id}`;
    const write = async (key: string) => (await asApp(target(), app.token, key, { method: "POST", body: "1" })).status;
    expect(await write("/a.k")).toBe(200);
    await answer(target(), 200, "PATCH", path, { isReadOnly: true });
    expect(await write("/a.k")).toBe(403);
    await expectStatusOf(target(), app, "/a.k", 200);
    await answer(target(), 200, "PATCH", path, { isReadOnly: false, permissionPrefix: "b" });
    expect([await write("/a.k"), await write("/b.k")]).toEqual([403, 200]);
    await answer(target(), 200, "PATCH", path, { permissionKey: ["read:a"] });
    await expectStatusOf(target(), app, "/a.k", 200);
    expect([await write("/a.k"), await write("/b.k")]).toEqual([403, 200]);
    await answer(target(), 200, "PATCH", path, { permissionPrefix: null, permissionKey: [] });
    expect(await write("/anything")).toBe(200);
    await answer(target(), 200, "PATCH", path, { expiresAt: "2020-01-01T00:00:00Z" });
    await expectStatusOf(target(), app, "/a.k", 401);
    await answer(target(), 200, "PATCH", path, { expiresAt: null });
    await expectStatusOf(target(), app, "/a.k", 200);
  });

  test("a change leaves alone what it does not name", async () => {
    const { uuid } = await install(target());
    const fields = { note: "n", deviceType: "t", permissionPrefix: "p", permissionKey: ["x"], isReadOnly: true };
    const body = { deviceUuid: uuid, appId: "suite", ...fields, expiresAt: "2126-01-01T00:00:00.000Z" };
    const { token: _, ...issued } = await answer(target(), 201, "POST", "/installations", body);
    const path = `/installations/${issued.id}`;
    const changed = await answer(target(), 200, "PATCH", path, { note: "m" });
    expect(changed).toEqual({ ...issued, note: "m", updatedAt: expect.stringMatching(TIME) });
    expect(await answer(target(), 200, "PATCH", path, { expiresAt: null, deviceType: null })).toEqual({
      ...changed,
      expiresAt: null,
      deviceType: null,
      updatedAt: expect.stringMatching(TIME),
    });
  });

  test("rotation shows the new token once, keeps everything else, and the old one is dead", async () => {
    const app = await install(target(), { permissionPrefix: "p" });
    await expectStatusOf(target(), app, "/p.k", 404);
    const before = await answer(target(), 200, "GET", `/installations/${app.id}`);
    const { token, ...rotated } = await answer(target(), 200, "POST", `/installations/${app.id}/rotate`);
    expect(token).toEqual(expect.stringMatching(TOKEN));
    expect(token).not.toBe(app.token);
    expect(rotated).toEqual({
      ...before,
      tokenHint: (token as string).slice(-4),
      updatedAt: expect.stringMatching(TIME),
    });
    await expectStatusOf(target(), app, "/p.k", 401);
    await expectStatusOf(target(), { ...app, token: token as string }, "/p.k", 404);
    expect(await answer(target(), 200, "GET", `/installations/${app.id}`)).toEqual(rotated);
  });
}

function listTests(target: () => Target): void {
  const all = async (path: string): Promise<Row[]> => {
    const rows: Row[] = [];
    for (let cursor: string | null = ""; cursor !== null; ) {
      const joined: string = `${path}${path.includes("?") ? "&" : "?"}limit=7&cursor=${encodeURIComponent(cursor)}`;
      const page: Page = await answer<Page>(target(), 200, "GET", joined);
      expect(page.items.length).toBeGreaterThan(0);
      expect(page.items.length).toBeLessThanOrEqual(7);
      rows.push(...page.items);
      cursor = page.nextCursor;
    }
    return rows;
  };

  test("pages joined by their cursors hold every row once, in the order of their ids", async () => {
    expect(await answer<Page>(target(), 200, "GET", "/devices")).toEqual({ items: [], nextCursor: null });
    const uuids = ["a", "B", "é", "😀", "a b", "a+b", "a&b", ...Array.from({ length: 14 }, (_, index) => `d${index}`)];
    for (const uuid of uuids) {
      await answer(target(), 201, "POST", "/devices", { uuid });
      await answer(target(), 201, "POST", "/apps", { id: `app${uuids.indexOf(uuid)}`, name: uuid });
    }
    const listed = (await all("/devices")).map(({ uuid }) => uuid as string);
    expect(listed).toEqual(uuids.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b))));
    expect(await all("/apps")).toHaveLength(uuids.length);
    // Exactly as many as asked for: there is no further page to announce.
    const exact = await answer<Page>(target(), 200, "GET", `/devices?limit=${uuids.length}`);
    expect([exact.items.length, exact.nextCursor]).toEqual([uuids.length, null]);
  });

  test("installations are listed by device and by app", async () => {
    const [one, two] = [await install(target()), await install(target())];
    await answer(target(), 201, "POST", "/apps", { id: "second", name: "S" });
    await answer(target(), 201, "POST", "/installations", { deviceUuid: one.uuid, appId: "second" });
    const ids = async (query: string) =>
      (await all(`/installations?${query}`)).map(({ deviceUuid, appId }) => [deviceUuid, appId]);
    expect(await ids(`device=${two.uuid}`)).toEqual([[two.uuid, "suite"]]);
    expect(await ids("app=second")).toEqual([[one.uuid, "second"]]);
    expect(await ids(`device=${one.uuid}&app=suite`)).toEqual([[one.uuid, "suite"]]);
    const empty = await answer<Page>(target(), 200, "GET", `/installations?device=${two.uuid}&app=second`);
    expect(empty).toEqual({ items: [], nextCursor: null });
    expect(await ids("")).toHaveLength(3);
  });

  test("a limit is 1 to 1000, 100 unless given; other parameters are refused", async () => {
    for (const path of ["/devices", "/apps", "/installations"]) {
      for (const limit of ["0", "1001", "-1", "1.5", "abc", "", "1e3", "00000"]) {
        const response = await administer(target(), "GET", `${path}?limit=${limit}`);
        expect([path, limit, response.status]).toEqual([path, limit, 400]);
      }
      for (const query of ["limit=1&limit=1", "skip=1", "cursor=%FF"]) {
        expect((await administer(target(), "GET", `${path}?${query}`)).status).toBe(400);
      }
      await answer(target(), 200, "GET", `${path}?limit=1000`);
    }
    expect((await administer(target(), "GET", "/devices?app=x")).status).toBe(400);
  });

  test("HEAD answers as GET does, without a body", async () => {
    for (const path of ["/devices", "/apps", "/installations"]) {
      const [get, head] = [await administer(target(), "GET", path), await administer(target(), "HEAD", path)];
      expect([head.status, await head.text()]).toEqual([200, ""]);
      expect(head.headers.get("content-length")).toBe(`${Buffer.byteLength(await get.text())}`);
    }
  });
}

/** A body that is right, per path that takes one. */
const BODIES: readonly (readonly [method: string, path: string, body: Row])[] = [
  ["POST", "/devices", { uuid: "shape" }],
  ["PATCH", "/devices/shape", { name: "x" }],
  ["POST", "/apps", { id: "shape", name: "x" }],
  ["PATCH", "/apps/shape", { name: "x" }],
  ["POST", "/installations", { deviceUuid: "shape", appId: "shape" }],
];

function bodyTests(target: () => Target): void {
  const send = async (method: string, path: string, body: string): Promise<[number, string]> => {
    const response = await target().fetch(`/api/kv${path}`, { method, body });
    return [response.status, ((await response.json()) as { code: string }).code];
  };

  test("what is no JSON object, or has an unknown member, is refused and changes nothing", async () => {
    for (const [method, path, right] of BODIES) {
      for (const body of ["", "{", "nonsense", '{"a":1}x', "\ufeff{}"]) {
        expect([path, body, ...(await send(method, path, body))]).toEqual([path, body, 400, "invalid_json"]);
      }
      const wrong = [
        "[]",
        "null",
        "1",
        '"x"',
        ...[
          { ...right, extra: 1 },
          { ...right, Name: "x" },
        ].map(toJson),
      ];
      wrong.push(`{"__proto__":{},${toJson(right).slice(1)}`, `{"constructor":1,${toJson(right).slice(1)}`);
      for (const body of wrong) {
        expect([path, body, ...(await send(method, path, body))]).toEqual([path, body, 400, "invalid_parameter"]);
      }
    }
    expect((await answer<Page>(target(), 200, "GET", "/devices")).items).toEqual([]);
    expect((await answer<Page>(target(), 200, "GET", "/apps")).items).toEqual([]);
  });

  test("members of the wrong type or size are refused, at the limit they pass", async () => {
    for (const [method, path, right] of BODIES.slice(0, 1).concat(BODIES.slice(2, 3)))
      await answer(target(), 201, method, path, right);
    const { id } = await answer(target(), 201, ...BODIES[4]!);
    const installation = `/installations/${id}`;
    const grants = (count: number) => Array.from({ length: count }, (_, index) => `g${index}`);
    for (const [path, wrong, right] of [
      ["/devices/shape", { name: "x".repeat(201) }, { name: "x".repeat(200) }],
      ["/devices/shape", { name: "\ud800x" }, { name: "😀x" }],
      ["/devices/shape", {}, { name: null }],
      ["/apps/shape", { name: "" }, { name: "x" }],
      ["/apps/shape", { name: "x".repeat(201) }, { name: "x".repeat(200) }],
      ["/apps/shape", { name: "x\udc00" }, { name: "x" }],
      ["/apps/shape", { description: "\ud83d" }, { description: "😀" }],
      ["/apps/shape", { homepage: "\ud83d" }, { homepage: null }],
      ["/apps/shape", { name: null }, { description: null }],
      ["/apps/shape", { id: "other" }, { homepage: "https://x.example" }],
      ["/apps/shape", { permissionPrefix: "p." }, { permissionPrefix: "p" }],
      [installation, { note: "x".repeat(501) }, { note: "x".repeat(500) }],
      [installation, { deviceType: "x".repeat(33) }, { deviceType: "x".repeat(32) }],
      [installation, { note: "\ud800" }, { note: "😀" }],
      [installation, { deviceType: "\ud800" }, { deviceType: "😀" }],
      [installation, { isReadOnly: 1 }, { isReadOnly: true }],
      [installation, { isReadOnly: null }, { isReadOnly: false }],
      [installation, { permissionPrefix: "" }, { permissionPrefix: null }],
      [installation, { permissionPrefix: "a." }, { permissionPrefix: ".a" }],
      [installation, { permissionPrefix: "a\u0007" }, { permissionPrefix: "a b" }],
      [installation, { permissionPrefix: "a\u007f" }, { permissionPrefix: "%_*" }],
      [installation, { permissionPrefix: "\ud800" }, { permissionPrefix: "😀" }],
      [installation, { permissionPrefix: "é".repeat(129) }, { permissionPrefix: "é".repeat(128) }],
      [installation, { permissionKey: null }, { permissionKey: [] }],
      [installation, { permissionKey: "x" }, { permissionKey: ["x"] }],
      [installation, { permissionKey: ["x", 1] }, { permissionKey: ["x", "x"] }],
      [installation, { permissionKey: ["x."] }, { permissionKey: ["read:x"] }],
      [installation, { permissionKey: [""] }, { permissionKey: ["write:read:x"] }],
      [installation, { permissionKey: grants(65) }, { permissionKey: grants(64) }],
      [installation, { expiresAt: "tomorrow" }, { expiresAt: "2126-01-01T00:00:00Z" }],
      [installation, { expiresAt: "2126-02-30T00:00:00Z" }, { expiresAt: "2126-02-28T00:00:00+02:00" }],
      [installation, { expiresAt: "2126-01-01" }, { expiresAt: "2126-01-01T00:00:00.123456Z" }],
      [installation, { expiresAt: "9999-12-31T23:59:59-23:59" }, { expiresAt: "9999-12-31T23:59:59.999Z" }],
      [installation, { expiresAt: "0000-01-01T00:00:00+00:01" }, { expiresAt: "0000-01-01T00:00:00Z" }],
      [installation, { expiresAt: 1 }, { expiresAt: null }],
      [installation, { deviceUuid: "shape" }, { note: null }],
      [installation, { tokenHash: "x" }, { note: "" }],
    ] as const) {
      const before = await answer(target(), 200, "GET", path);
      expect([wrong, ...(await send("PATCH", path, toJson(wrong)))]).toEqual([wrong, 400, "invalid_parameter"]);
      expect(await answer(target(), 200, "GET", path)).toEqual(before);
      await answer(target(), 200, "PATCH", path, right);
    }
    for (const name of ["permissionPrefix", "permissionKey", "note", "expiresAt", "isReadOnly", "deviceType"]) {
      const body = { deviceUuid: "shape", appId: "shape", [name]: { wrong: true } };
      expect(await send("POST", "/installations", toJson(body))).toEqual([400, "invalid_parameter"]);
    }
  });

  test("new ones with half a surrogate pair in a name are refused and make nothing", async () => {
    const { uuid } = await install(target());
    for (const [path, body] of [
      ["/devices", { uuid: "half", name: "\ud800x" }],
      ["/apps", { id: "half", name: "\ud800x" }],
      ["/installations", { deviceUuid: uuid, appId: "suite", note: "\ud800x" }],
    ] as const) {
      expect([path, ...(await send("POST", path, toJson(body)))]).toEqual([path, 400, "invalid_parameter"]);
    }
    for (const path of ["/devices/half", "/apps/half"]) {
      expect((await administer(target(), "GET", path)).status).toBe(404);
    }
    const { items } = await answer<Page>(target(), 200, "GET", `/installations?device=${uuid}`);
    expect(items).toHaveLength(1);
  });

  test("grants of a mark and nothing behind it name no key and are refused", async () => {
    const { uuid } = await install(target());
    for (const grant of ["read:", "write:", "read:a.", "write:."]) {
      const body = { deviceUuid: uuid, appId: "suite", permissionKey: [grant] };
      const [status] = await send("POST", "/installations", toJson(body));
      expect([grant, status]).toEqual([grant, 400]);
    }
  });

  test("a body of more than 64 KiB is refused, one of 64 KiB is read", async () => {
    const sized = (bytes: number) => `{"name":"x"${" ".repeat(bytes - 12)}}`;
    expect((await target().fetch("/api/kv/apps", { method: "POST", body: sized(65_536) })).status).toBe(201);
    const unannounced = new ReadableStream({
      pull(controller) {
        controller.enqueue(new TextEncoder().encode(sized(100_000)));
        controller.close();
      },
    });
    // Together, because the server lingers for a second over a body that it does not want.
    const refusals = [sized(65_537), sized(3_000_000), unannounced].map((body) =>
      expectCode(target().fetch("/api/kv/apps", { method: "POST", body }), 413, "body_too_large"),
    );
    await Promise.all(refusals);
  });

  test("nesting without an end is refused like any other wrong body", async () => {
    expect(await send("POST", "/devices", "[".repeat(60_000))).toEqual([400, expect.any(String)]);
  });
}

function credentialTests(target: () => Target): void {
  test("without an operator's token every route is 401, whatever else is in the request", async () => {
    const app = await install(target());
    for (const [path, methods] of ROUTES) {
      for (const method of methods.split(", ").filter((name) => !["HEAD", "OPTIONS"].includes(name))) {
        for (const authorization of [null, "Bearer nonsense", `Bearer ${app.token}`, `Bearer ${app.uuid}`]) {
          const headers = { Authorization: authorization, "X-App-Token": app.token };
          const init = { method, headers, ...(method === "GET" ? {} : { body: "{}" }) };
          await expectError(await target().fetch(`/api/kv${path}`, init), "unauthorized");
        }
      }
    }
    const jwt = await mint();
    for (const path of [`/devices?token=${jwt}`, `/devices?access_token=${jwt}`]) {
      await expectError(await target().fetch(`/api/kv${path}`, { headers: { Authorization: null } }), "unauthorized");
    }
  });

  test("without the administrative scope every route is 403", async () => {
    for (const claims of [
      { scope: "kv" },
      { scope: "" },
      { scope: "kv:read kv:write kv:delete kv:list" },
      { scope: "administrator" },
      { buckets: ["nobody"] },
      { prefix: "p" },
      { scope: "admin", prefix: "" },
      { scope: "admin", prefix: "p" },
    ]) {
      const Authorization = `Bearer ${await mint(claims)}`;
      for (const [path, methods] of ROUTES) {
        for (const method of methods.split(", ").filter((name) => name !== "OPTIONS" && name !== "HEAD")) {
          const init = { method, headers: { Authorization }, ...(method === "GET" ? {} : { body: "{}" }) };
          const response = await target().fetch(`/api/kv${path}`, init);
          expect([claims, method, path, response.status]).toEqual([claims, method, path, 403]);
        }
      }
    }
  });

  test("other methods are 405 with the list of those there are, OPTIONS names them without a token", async () => {
    for (const [path, allow] of ROUTES) {
      for (const method of ["GET", "POST", "PUT", "PATCH", "DELETE", "PURGE"].filter((name) => !allow.includes(name))) {
        const response = await administer(target(), method, path);
        expect([path, method, response.status, response.headers.get("allow")]).toEqual([path, method, 405, allow]);
      }
      const headers = { Authorization: null, Origin: "https://app.example", "Access-Control-Request-Method": "POST" };
      const options = await target().fetch(`/api/kv${path}`, { method: "OPTIONS", headers });
      expect([options.status, options.headers.get("allow")]).toEqual([204, allow]);
      expect([...options.headers.keys()].filter((name) => name.startsWith("access-control"))).toEqual([]);
    }
  });

  test("other paths are not found", async () => {
    for (const path of ["", "/", "/device", "/devices/", "/devices/a/b", "/installations/a/rotate/b", "/__proto__"]) {
      await expectCode(administer(target(), "GET", path), 404, "route_not_found");
    }
    await expectCode(administer(target(), "GET", "/devices/%FF"), 400, "path_invalid");
    await expectCode(administer(target(), "GET", "/devices/%ZZ"), 400, "path_invalid");
  });
}

/** An operator who administers the devices `mine` and `team-…` and no others. */
function narrowedTests(target: () => Target): void {
  const narrowed = async (): Promise<Target> => {
    const Authorization = `Bearer ${await mint({ scope: "admin", buckets: ["mine", "team-*"] })}`;
    return {
      ...target(),
      fetch: (path, init = {}) => target().fetch(path, { ...init, headers: { ...init.headers, Authorization } }),
    };
  };

  test("a token narrowed to some devices makes, changes and removes these and no others", async () => {
    const mine = await narrowed();
    const foreign = await install(target(), {}, "foreign");
    await answer(target(), 201, "POST", "/devices", { uuid: "mine2" });
    for (const uuid of ["mine", "team-a", "team-b"]) await answer(mine, 201, "POST", "/devices", { uuid });
    for (const body of [{ uuid: "other" }, { uuid: "team" }, {}]) {
      await expectCode(administer(mine, "POST", "/devices", body), 403, "forbidden");
    }
    const { id } = await answer(mine, 201, "POST", "/installations", { deviceUuid: "mine", appId: "suite" });
    await answer(mine, 200, "PATCH", `/installations/${id}`, { note: "mine" });
    await answer(mine, 200, "POST", `/installations/${id}/rotate`);
    await answer(mine, 204, "DELETE", `/installations/${id}`);
    for (const [method, path, body] of [
      ["GET", "/devices/foreign"],
      ["GET", "/devices/nobody"],
      ["PATCH", "/devices/foreign", { name: "x" }],
      ["DELETE", "/devices/foreign?purge=true"],
      ["POST", "/installations", { deviceUuid: "foreign", appId: "suite" }],
      ["GET", `/installations/${foreign.id}`],
      ["PATCH", `/installations/${foreign.id}`, { note: "x" }],
      ["POST", `/installations/${foreign.id}/rotate`],
      ["DELETE", `/installations/${foreign.id}`],
    ] as const) {
      await expectCode(administer(mine, method, path, body), 403, "forbidden");
    }
    await expectStatusOf(target(), foreign, "/_info", 200);
  });

  test("it reads apps and changes none", async () => {
    const mine = await narrowed();
    await answer(mine, 200, "GET", "/apps/suite");
    expect((await answer<Page>(mine, 200, "GET", "/apps")).items).toHaveLength(1);
    for (const [method, path, body] of [
      ["POST", "/apps", { name: "x" }],
      ["PATCH", "/apps/suite", { name: "x" }],
      ["DELETE", "/apps/suite?revoke=true"],
    ] as const) {
      await expectCode(administer(mine, method, path, body), 403, "forbidden");
    }
  });

  test("its lists hold full pages of its own devices, and no cursor names another one", async () => {
    const mine = await narrowed();
    await install(target(), {}, "team-a");
    // Behind all that begin with the prefix.
    await install(target(), {}, "zulu");
    for (const path of ["/devices", "/installations"]) {
      let cursor: string | null = "";
      const seen: unknown[] = [];
      while (cursor !== null) {
        const page: Page = await answer<Page>(mine, 200, "GET", `${path}?limit=1&cursor=${encodeURIComponent(cursor)}`);
        expect(page.items).toHaveLength(1);
        seen.push(...page.items.map(({ uuid, deviceUuid }) => uuid ?? deviceUuid));
        cursor = page.nextCursor;
        if (path === "/devices" && cursor !== null) expect(seen).toContain(cursor);
      }
      expect(seen).toEqual(path === "/devices" ? ["mine", "team-a", "team-b"] : ["team-a"]);
    }
    const foreign = await answer<Page>(mine, 200, "GET", "/installations?device=foreign");
    expect(foreign).toEqual({ items: [], nextCursor: null });
  });
}

const toJson = (value: unknown): string => JSON.stringify(value);

async function expectCode(asked: Response | Promise<Response>, status: number, code: string): Promise<void> {
  const response = await asked;
  const text = await response.text();
  const { message } = JSON.parse(text) as { message: string };
  expect([response.status, text]).toEqual([status, JSON.stringify({ statusCode: status, message, code })]);
  expect(message).not.toBe("");
}
