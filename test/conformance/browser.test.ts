// A page of another origin in a real browser: what an app sees of the token API through fetch, preflights included.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { has, hasProgram, isRoot } from "../support/needs.ts";
import { openBinary, type Target } from "../support/targets.ts";
import { tempDir } from "../support/temp-dir.ts";
import { type Installed, install } from "../support/token-client.ts";

const BROWSER = "chromium";
const SETTINGS = { TOKEN_MAX_VALUE_BYTES: "102400", TOKEN_RATE_BATCH: "2" };
const EXPOSED = ["ratelimit", "ratelimit-policy", "retry-after", "etag", "x-request-id"];
const ANSWER_MS = 120_000;

/** What the page saw: the answer, or null when the browser kept it from the page. */
interface Seen {
  readonly status: number;
  readonly body: unknown;
  readonly headers: Readonly<Record<string, string>>;
}
interface Step {
  readonly name: string;
  readonly url: string;
  readonly init?: { readonly method?: string; readonly headers?: Record<string, string>; readonly body?: string };
}

/** Runs in the page. Results go to its own origin, so that they arrive whatever the API allows. */
const PAGE = `<!doctype html><meta charset="utf-8"><script type="module">
const steps = await (await fetch("/steps")).json();
const seen = {};
for (const { name, url, init } of steps) {
  try {
    const response = await fetch(url, init);
    const text = await response.text();
    let body = text;
    try { body = JSON.parse(text); } catch {}
    seen[name] = { status: response.status, body, headers: Object.fromEntries(response.headers) };
  } catch {
    seen[name] = null;
  }
}
await fetch("/seen", { method: "POST", body: JSON.stringify(seen) });
</script>`;

/**
 * Opens the page in a browser of its own, lets it take the steps that are made for its origin, and resolves with what
 * it saw. @throws Error after ANSWER_MS
 */
async function browse(stepsFor: (origin: string) => readonly Step[] | Promise<readonly Step[]>) {
  using profile = tempDir();
  const seen = Promise.withResolvers<Record<string, Seen | null>>();
  const site = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    routes: {
      "/": () => new Response(PAGE, { headers: { "Content-Type": "text/html" } }),
      "/steps": async ({ url }) => Response.json(await stepsFor(new URL(url).origin)),
      "/seen": async (request) => {
        seen.resolve((await request.json()) as Record<string, Seen | null>);
        return new Response();
      },
    },
  });
  const flags = [
    "--headless=new",
    "--disable-gpu",
    "--no-first-run",
    "--disable-dev-shm-usage",
    `--user-data-dir=${profile.path}`,
  ];
  // The sandbox of the browser does not work for root.
  if (isRoot()) flags.push("--no-sandbox");
  const browser = Bun.spawn([BROWSER, ...flags, site.url.href], {
    // What it leaves behind when it is killed is gone with the profile.
    env: { PATH: process.env.PATH, HOME: profile.path, TMPDIR: profile.path },
    stdin: "ignore",
    stdout: "ignore",
    stderr: "ignore",
  });
  const timer = setTimeout(() => seen.reject(new Error(`the page said nothing in ${ANSWER_MS} ms`)), ANSWER_MS);
  try {
    return await seen.promise;
  } finally {
    clearTimeout(timer);
    browser.kill();
    await browser.exited;
    await site.stop(true);
  }
}

if (has("chromium", hasProgram(BROWSER))) {
  describe("a page of another origin", () => {
    let target: Target;
    let app: Installed;
    beforeAll(async () => {
      target = await openBinary(SETTINGS);
      app = await install(target, {}, "device");
    });
    afterAll(() => target[Symbol.asyncDispose]());

    test("does all that an app does and reads every answer, refusals and exposed headers too", async () => {
      const narrow = await install(target, { permissionPrefix: "p" }, "device");
      const api = `${target.url}/kv/token`;
      const auth = { Authorization: `Bearer ${app.token}` };
      const json = { ...auth, "Content-Type": "application/json" };
      const post = (path: string, body: string, headers: Record<string, string> = json): Omit<Step, "name"> => ({
        url: `${api}${path}`,
        init: { method: "POST", headers, body },
      });
      const steps: Readonly<Record<string, Omit<Step, "name">>> = {
        created: post("/greeting", '{"hello":"world"}'),
        updated: post("/greeting", '{"hello":"again"}'),
        read: { url: `${api}/greeting`, init: { headers: auth } },
        byAppToken: { url: `${api}/greeting`, init: { headers: { "X-App-Token": app.token } } },
        byQuery: { url: `${api}/greeting?token=${app.token}` },
        byBody: post("/plain", JSON.stringify({ token: app.token, data: 1 }), { "Content-Type": "application/json" }),
        conditional: post("/greeting", "1", { ...json, "If-None-Match": "*" }),
        head: { url: `${api}/greeting`, init: { method: "HEAD", headers: auth } },
        metadata: { url: `${api}/greeting/metadata`, init: { headers: auth } },
        batch: post("/_batchimport", '{"a":1,"b":[2]}'),
        keys: { url: `${api}/_keys?limit=2`, init: { headers: auth } },
        values: { url: `${api}/`, init: { headers: auth } },
        info: { url: `${api}/_info`, init: { headers: auth } },
        invalid: post("/greeting", "{"),
        unauthorized: { url: `${api}/greeting`, init: { headers: { Authorization: "Bearer revoked-token-000" } } },
        denied: { url: `${api}/greeting`, init: { headers: { Authorization: `Bearer ${narrow.token}` } } },
        missing: { url: `${api}/none`, init: { headers: auth } },
        tooLarge: post("/large", `"${"x".repeat(300_000)}"`),
        secondBatch: post("/_batchimport", '{"c":1}'),
        limited: post("/_batchimport", '{"d":1}'),
        removed: { url: `${api}/greeting`, init: { method: "DELETE", headers: auth } },
        emptied: { url: `${api}/`, init: { method: "DELETE", headers: auth } },
        none: { url: `${api}/_keys`, init: { headers: auth } },
        administration: { url: `${target.url}/api/kv/devices`, init: { headers: auth } },
        operatorRoute: { url: `${target.url}/device/a`, init: { headers: auth } },
        unreachable: { url: `${api}/greeting`, init: { method: "PUT", headers: json, body: "1" } },
      };
      const list = Object.entries(steps).map(([name, step]) => ({ name, ...step }));
      const seen = await browse(() => list);
      const statuses = Object.fromEntries(Object.entries(seen).map(([name, answer]) => [name, answer?.status ?? null]));
      expect(statuses).toEqual({
        created: 200,
        updated: 200,
        read: 200,
        byAppToken: 200,
        byQuery: 200,
        byBody: 200,
        conditional: 412,
        head: 200,
        metadata: 200,
        batch: 200,
        keys: 200,
        values: 200,
        info: 200,
        invalid: 400,
        unauthorized: 401,
        denied: 403,
        missing: 404,
        tooLarge: 413,
        secondBatch: 200,
        limited: 429,
        removed: 204,
        emptied: 204,
        none: 200,
        administration: null,
        operatorRoute: null,
        unreachable: null,
      });
      expectBodies(seen as Record<string, Seen>);
      expectHeaders(seen as Record<string, Seen>);
    }, 240_000);

    test("is refused by the browser unless its origin is listed", async () => {
      await using servers = new AsyncDisposableStack();
      const stepsAt = async (prefix: string, origins: string): Promise<Step[]> => {
        const strict = servers.use(await openBinary({ TOKEN_CORS_ORIGINS: origins }));
        const { token } = await install(strict);
        const url = `${strict.url}/kv/token/_keys`;
        return [
          { name: `${prefix} simple`, url: `${url}?token=${token}` },
          { name: `${prefix} preflighted`, url, init: { headers: { Authorization: `Bearer ${token}` } } },
        ];
      };
      const seen = await browse(async (origin) => [
        ...(await stepsAt("listed", `https://board.example,${origin}`)),
        ...(await stepsAt("other", `https://board.example,${origin.replace("127.0.0.1", "localhost")}`)),
      ]);
      const statuses = Object.entries(seen).map(([name, answer]) => [name, answer?.status ?? null]);
      expect(Object.fromEntries(statuses)).toEqual({
        "listed simple": 200,
        "listed preflighted": 200,
        "other simple": null,
        "other preflighted": null,
      });
    }, 240_000);
  });
}

function expectBodies(seen: Readonly<Record<string, Seen>>): void {
  const codes = ["conditional", "invalid", "unauthorized", "denied", "missing", "tooLarge", "limited"];
  expect(codes.map((name) => (seen[name]!.body as { code: string }).code)).toEqual([
    "precondition_failed",
    "invalid_json",
    "token_invalid",
    "read_denied",
    "key_not_found",
    "body_too_large",
    "rate_limited",
  ]);
  for (const name of codes) {
    const { statusCode, message } = seen[name]!.body as { statusCode: number; message: string };
    expect([name, statusCode, message.length > 0]).toEqual([name, seen[name]!.status, true]);
  }
  expect(seen.created!.body).toMatchObject({ namespace: "device", key: "greeting", created: true });
  expect(seen.updated!.body).toMatchObject({ created: false });
  for (const name of ["read", "byAppToken", "byQuery"]) expect(seen[name]!.body).toEqual({ hello: "again" });
  expect(seen.batch!.body).toMatchObject({ total: 2, successful: 2, failed: 0 });
  expect(seen.keys!.body).toMatchObject({ keys: ["a", "b"], total_rows: 4 });
  expect((seen.values!.body as { items: { key: string; value: unknown }[] }).items).toMatchObject([
    { key: "a", value: 1 },
    { key: "b", value: [2] },
    { key: "greeting" },
    { key: "plain", value: { data: 1 } },
  ]);
  expect(seen.info!.body).toMatchObject({ device: { uuid: "device" }, hasAccount: false });
  expect(seen.metadata!.body).toMatchObject({ key: "greeting", creatorIp: "127.0.0.1" });
  expect(seen.none!.body).toMatchObject({ keys: [], total_rows: 0 });
}

function expectHeaders(seen: Readonly<Record<string, Seen>>): void {
  const read = seen.read!.headers;
  expect(EXPOSED.filter((name) => !(name in read))).toEqual(["retry-after"]);
  expect(read.etag).toMatch(/^"\d+"$/);
  expect(read.ratelimit).toMatch(/^limit=1024, remaining=\d+, reset=\d+$/);
  expect(seen.limited!.headers["retry-after"]).toMatch(/^[1-9]\d*$/);
  expect(seen.limited!.headers["ratelimit-policy"]).toBe("2;w=60");
  for (const [name, answer] of Object.entries(seen)) {
    if (answer !== null) expect([name, "x-request-id" in answer.headers]).toEqual([name, true]);
  }
  // Not exposed, so the page does not see what else the server says.
  expect(
    Object.keys(read).filter((name) => name.startsWith("access-control") || name === "x-content-type-options"),
  ).toEqual([]);
}
