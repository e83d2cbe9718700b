// The end of a token: revoked, rotated away, expired or without its device, it opens nothing from that answer on.

import { describe, expect, test } from "bun:test";
import { KiB } from "../../src/shared/bounds.ts";
import { eventually } from "../support/eventually.ts";
import { openRaw } from "../support/raw-request.ts";
import { metricOf } from "../support/relay-books.ts";
import { bySize } from "../support/run-size.ts";
import type { OpenTarget, Target } from "../support/targets.ts";
import { administer, asApp, type Installed, install } from "../support/token-client.ts";
import { useTarget } from "../support/use-target.ts";

/** No limit gets in the way of a load. */
const UNLIMITED = {
  TOKEN_RATE_READ: "0",
  TOKEN_RATE_WRITE: "0",
  TOKEN_RATE_DELETE: "0",
  TOKEN_RATE_AUTH_FAIL: "0",
};
const ROUNDS = bySize(250, 500, 1000);
const LOAD_CONNECTIONS = 4;

/** What ends a token, as an operator does it. */
const ENDINGS: Readonly<Record<string, (target: Target, app: Installed) => Promise<Response>>> = {
  revoked: (target, { id }) => administer(target, "DELETE", `/installations/${id}`),
  "rotated away": (target, { id }) => administer(target, "POST", `/installations/${id}/rotate`),
  expired: (target, { id }) =>
    administer(target, "PATCH", `/installations/${id}`, { expiresAt: "2020-01-01T00:00:00Z" }),
  "without its device": (target, { uuid }) => administer(target, "DELETE", `/devices/${uuid}?purge=true`),
};

export function tokenRevocationSuite(name: string, open: OpenTarget): void {
  describe(`the end of a token on ${name}`, () => {
    endTests(useTarget(open, UNLIMITED));
    slowBodyTests(useTarget(open, UNLIMITED));
    loadTests(useTarget(open, UNLIMITED));
  });
}

function endTests(target: () => Target): void {
  for (const [state, end] of Object.entries(ENDINGS)) {
    test(`a token that is ${state} is 401 on the very next request, on every route, and after a restart`, async () => {
      const app = await install(target());
      const neighbour = await install(target());
      expect((await asApp(target(), app.token, "/k", { method: "POST", body: "1" })).status).toBe(200);
      expect((await end(target(), app)).ok).toBe(true);
      const statuses = async () => [
        (await asApp(target(), app.token, "/k")).status,
        (await asApp(target(), app.token, "/k/metadata")).status,
        (await asApp(target(), app.token, "/_keys")).status,
        (await asApp(target(), app.token, "/")).status,
        (await asApp(target(), app.token, "/_info")).status,
        (await asApp(target(), app.token, "/_token")).status,
        (await asApp(target(), app.token, "/k", { method: "POST", body: "2" })).status,
        (await asApp(target(), app.token, "/_batchimport", { method: "POST", body: '{"k":2}' })).status,
        (await asApp(target(), app.token, "/k", { method: "DELETE" })).status,
        (await asApp(target(), app.token, "/", { method: "DELETE" })).status,
        (await asApp(target(), "", `/k?token=${app.token}`, { headers: { Authorization: null } })).status,
        (await asApp(target(), "", "/k", { headers: { Authorization: null, "X-App-Token": app.token } })).status,
      ];
      expect(await statuses()).toEqual(Array.from({ length: 12 }, () => 401));
      expect((await asApp(target(), neighbour.token, "/_info")).status).toBe(200);
      await target().restart();
      expect(await statuses()).toEqual(Array.from({ length: 12 }, () => 401));
      expect((await asApp(target(), neighbour.token, "/_info")).status).toBe(200);
    });
  }

  test("a token ends by itself the moment it expires", async () => {
    const expiresAtMs = Date.now() + 3000;
    const app = await install(target(), { expiresAt: new Date(expiresAtMs).toISOString() });
    // In use, so that it is kept in memory.
    expect((await asApp(target(), app.token, "/_info")).status).toBe(200);
    await eventually("the token has expired", 3000, () => Date.now() > expiresAtMs);
    expect((await asApp(target(), app.token, "/_info")).status).toBe(401);
  });

  test("unknown, revoked, rotated, expired, device-less and malformed tokens get the same bytes", async () => {
    const apps = await Promise.all(Object.keys(ENDINGS).map(() => install(target())));
    for (const [index, end] of Object.values(ENDINGS).entries()) await end(target(), apps[index]!);
    const past = await install(target(), { expiresAt: "2020-01-01T00:00:00Z" });
    const unknown = `kvt_${"A".repeat(43)}`;
    const tokens = [...apps, past]
      .map(({ token }) => token)
      .concat(unknown, "revoked-token-000", "short", apps[0]!.uuid);
    const answers = new Set<string>();
    for (const token of tokens) {
      const response = await asApp(target(), token, "/k", { headers: { "X-Request-Id": "same" } });
      const headers = [...response.headers].filter(([name]) => name !== "date").toSorted();
      answers.add(JSON.stringify([response.status, headers, await response.text()]));
      expect(response.headers.get("www-authenticate")).toBe("Bearer");
    }
    expect([...answers]).toHaveLength(1);
    expect([...answers][0]).toContain(
      JSON.stringify('{"statusCode":401,"message":"missing or invalid token","code":"token_invalid"}'),
    );
  });
}

const WAIT_MS_MAX = 5_000;

/** The answer to a POST whose body is not there in full before `meanwhile` is over. */
async function slowPost(
  target: Target,
  { token, path, body }: { token: string; path: string; body: string },
  meanwhile: () => Promise<Response>,
): Promise<string> {
  using connection = await openRaw(target.url);
  // Longer than what is read in one piece.
  const rest = `${body.slice(1)}${" ".repeat(64 * KiB)}`;
  connection.send(
    `POST /kv/token${path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${token}\r\n` +
      `Content-Type: application/json\r\nContent-Length: ${rest.length + 1}\r\n\r\n${body[0]}`,
  );
  const isRead = async () => (await metricOf(target, "gokv_body_budget_used_bytes")) > 0;
  await eventually("the body is being read", WAIT_MS_MAX, isRead);
  expect((await meanwhile()).ok).toBe(true);
  connection.send(rest);
  return await connection.received(/HTTP\/1\.1 \d{3} [\s\S]*\r\n\r\n[\s\S]*\}/);
}

function slowBodyTests(target: () => Target): void {
  const requests = [
    { path: "/late", body: '{"a":1}' },
    { path: "/_batchimport", body: '{"late":1}' },
  ];
  for (const [state, end] of Object.entries(ENDINGS)) {
    test(`a token that is ${state} while a body is on its way stores nothing`, async () => {
      for (const request of requests) {
        const app = await install(target());
        const answer = await slowPost(target(), { token: app.token, ...request }, () => end(target(), app));
        expect(answer).toMatch(/^HTTP\/1\.1 401 [\s\S]*"code":"token_invalid"/);
        expect((await target().fetch(`/${app.uuid}/late`)).status).toBe(404);
      }
    });
  }

  test.each([
    [{ isReadOnly: true }, "read_only_token", "read_only_token"],
    [{ permissionPrefix: "elsewhere" }, "write_denied", '"errors":[{"key":"late"'],
  ])("rights that are taken away while a body is on its way are gone: %j", async (rights, ofKey, ofBatch) => {
    for (const [index, told] of [ofKey, ofBatch].entries()) {
      const app = await install(target());
      const take = () => administer(target(), "PATCH", `/installations/${app.id}`, rights);
      expect(await slowPost(target(), { token: app.token, ...requests[index]! }, take)).toContain(told);
      expect((await target().fetch(`/${app.uuid}/late`)).status).toBe(404);
    }
  });

  test("a change of another token does not disturb a body on its way", async () => {
    const [app, other] = [await install(target()), await install(target())];
    const revoke = () => administer(target(), "DELETE", `/installations/${other.id}`);
    const answer = await slowPost(target(), { token: app.token, path: "/late", body: "1" }, revoke);
    expect(answer).toContain('"created":true');
  });
}

function loadTests(target: () => Target): void {
  test(`no request after the answer accepts the token, ${ROUNDS} of ${ROUNDS} times under load`, async () => {
    const { uuid } = await install(target());
    let doomed = await install(target(), {}, uuid);
    let isOver = false;
    // Keeps the token that is about to end in use, so that whatever remembers it is asked to, all the time.
    const load = Array.from({ length: LOAD_CONNECTIONS }, async () => {
      let asked = 0;
      for (; !isOver; asked++) await (await asApp(target(), doomed.token, "/_info")).arrayBuffer();
      return asked;
    });
    let ended = 0;
    const late: string[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      const { id, token } = doomed;
      const isRotated = round % 2 === 0;
      const path = `/installations/${id}`;
      const answer = await administer(target(), isRotated ? "POST" : "DELETE", isRotated ? `${path}/rotate` : path);
      const { status } = await asApp(target(), token, "/_info");
      if (status === 401) ended++;
      else late.push(`round ${round}: ${status}`);
      doomed = isRotated
        ? { ...doomed, token: ((await answer.json()) as { token: string }).token }
        : await install(target(), {}, uuid);
    }
    isOver = true;
    const asked = (await Promise.all(load)).reduce((sum, count) => sum + count, 0);
    expect(late).toEqual([]);
    expect(ended).toBe(ROUNDS);
    expect(asked).toBeGreaterThan(ROUNDS);
  }, 240_000);

  test("a change of rights holds at once under load as well", async () => {
    const app = await install(target());
    await asApp(target(), app.token, "/k", { method: "POST", body: "1" });
    let isOver = false;
    const load = Array.from({ length: LOAD_CONNECTIONS }, async () => {
      while (!isOver) await (await asApp(target(), app.token, "/k")).arrayBuffer();
    });
    const seen: number[] = [];
    for (let round = 0; round < 100; round++) {
      const isDenied = round % 2 === 0;
      const body = { permissionPrefix: isDenied ? "elsewhere" : null };
      await administer(target(), "PATCH", `/installations/${app.id}`, body);
      seen.push((await asApp(target(), app.token, "/k")).status);
    }
    isOver = true;
    await Promise.all(load);
    expect(seen).toEqual(Array.from({ length: 100 }, (_, round) => (round % 2 === 0 ? 403 : 200)));
  }, 120_000);
}
