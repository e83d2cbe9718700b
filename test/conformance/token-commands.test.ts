// gokv token against a running server: every command, what it prints, how it ends.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, writeFileSync } from "node:fs";
import { type Environment, type Finished, GOKV, run, startServer, untilLogged } from "../support/executable.ts";
import { mint, openBinary, SECRET } from "../support/targets.ts";
import { tempDir } from "../support/temp-dir.ts";
import { administer, asApp } from "../support/token-client.ts";
import { useTarget } from "../support/use-target.ts";

// Many processes are started; on a busy machine that takes its time.
setDefaultTimeout(120_000);

const TOKEN_LINE = /^kvt_[A-Za-z0-9_-]{43}\n$/;
/** Every command with what it needs besides its flags, and the flags of its own. */
const COMMANDS: readonly (readonly [command: string, needs: readonly string[], flags: readonly string[]])[] = [
  ["device create", [], ["--name"]],
  ["device list", [], ["--limit", "--cursor"]],
  ["device show", ["x"], []],
  ["device update", ["x", "--name=n"], ["--name"]],
  ["device delete", ["x"], ["--purge"]],
  ["app create", ["--name=n"], ["--name", "--description", "--homepage", "--prefix", "--grant"]],
  ["app list", [], ["--limit", "--cursor"]],
  ["app show", ["x"], []],
  ["app update", ["x"], ["--name", "--description", "--homepage", "--prefix", "--grant"]],
  ["app delete", ["x"], ["--revoke"]],
  ["install list", [], ["--device", "--app", "--limit", "--cursor"]],
  ["install show", ["x"], []],
  ["install update", ["x"], ["--note", "--device-type", "--prefix", "--grant", "--read-only", "--expires-in"]],
  ["install rotate", ["x"], []],
  ["install revoke", ["x"], []],
  ["issue", ["--device=d", "--app=a"], ["--note", "--prefix", "--grant", "--read-only", "--expires-in"]],
];

describe("gokv token", () => {
  const target = useTarget(openBinary);
  const gokv = (args: readonly string[], env: Environment = {}): Promise<Finished> =>
    run([GOKV, "token", ...args], { env: { GOKV_URL: target().url, JWT_SECRET: SECRET, ...env } });

  /** Standard output of a command that is done and has nothing to complain of. */
  const done = async (args: readonly string[], env: Environment = {}): Promise<string> => {
    const { exitCode, stdout, stderr } = await gokv(args, env);
    expect([args, exitCode, stderr]).toEqual([args, 0, ""]);
    return stdout;
  };
  const json = async (args: readonly string[]) =>
    JSON.parse(await done([...args, "--json"])) as Record<string, unknown>;
  const stored = async (path: string) =>
    (await (await administer(target(), "GET", path)).json()) as Record<string, unknown>;
  const statusOf = async (token: string, path = "/_info") => (await asApp(target(), token.trim(), path)).status;

  const refused = async (args: readonly string[], problem: string, env: Environment = {}): Promise<void> => {
    const { exitCode, stdout, stderr } = await gokv(args, env);
    expect([args, exitCode, stdout]).toEqual([args, 1, ""]);
    expect(stderr).toStartWith("gokv: ");
    expect(stderr).toContain(problem);
    expect(stderr).not.toContain("    at ");
  };
  const misused = async (args: readonly string[], problem: string, env: Environment = {}): Promise<void> => {
    const { exitCode, stdout, stderr } = await gokv(args, env);
    expect([args, exitCode, stdout]).toEqual([args, 2, ""]);
    expect(stderr).toStartWith("gokv: ");
    expect(stderr).toContain(problem);
  };

  test("issue prints the token and nothing else, and makes the device and the app that are missing", async () => {
    const token = await done(["issue", "--device", "room-301", "--app", "board"]);
    expect(token).toMatch(TOKEN_LINE);
    expect(await statusOf(token)).toBe(200);
    expect(await stored("/devices/room-301")).toMatchObject({ uuid: "room-301", name: null });
    expect(await stored("/apps/board")).toMatchObject({ id: "board", name: "board" });
    const second = await done(["issue", "--device", "room-301", "--app", "board"]);
    expect(second).not.toBe(token);
    expect([await statusOf(token), await statusOf(second)]).toEqual([200, 200]);
  });

  test("issue gives the token the rights that its flags name", async () => {
    const flags = ["--note", "by the door", "--prefix", "myapp", "--grant", "read:shared", "--grant=write:log"];
    const limits = ["--read-only", "--expires-in", "90d", "--device-type", "kiosk"];
    const token = await done(["issue", "--device", "issued", "--app", "board", ...flags, ...limits]);
    const { items } = (await stored("/installations?device=issued")) as { items: Record<string, unknown>[] };
    expect(items).toHaveLength(1);
    expect(items[0]).toMatchObject({
      appId: "board",
      note: "by the door",
      deviceType: "kiosk",
      permissionPrefix: "myapp",
      permissionKey: ["read:shared", "write:log"],
      isReadOnly: true,
      tokenHint: token.trim().slice(-4),
    });
    const leftMs = Date.parse(items[0]!.expiresAt as string) - Date.now();
    expect(Math.abs(leftMs - 90 * 86_400_000)).toBeLessThan(60_000);
    expect(await statusOf(token, "/myapp.k")).toBe(404);
    expect(await statusOf(token, "/other")).toBe(403);
  });

  test("issue at the same time for one new device and app gives each caller a token", async () => {
    const all = await Promise.all(
      Array.from({ length: 4 }, () => gokv(["issue", "--device", "at-once", "--app", "at-once"])),
    );
    for (const { exitCode, stdout, stderr } of all)
      expect([exitCode, stderr, TOKEN_LINE.test(stdout)]).toEqual([0, "", true]);
    expect(new Set(all.map(({ stdout }) => stdout)).size).toBe(4);
  });

  test("issue that is refused leaves no device and no app behind", async () => {
    const narrowed = await mint({ scope: "admin", buckets: ["left-*"] });
    for (const [device, app, flags, problem, env] of [
      ["left-1", "bad app", [], "id: ", {}],
      ["left-2", "left", ["--prefix", "x."], "--prefix: no dot at the end", {}],
      ["left-3", "left", ["--grant", "read:"], "--grant: ", {}],
      ["left-4", "left", ["--note", "n".repeat(501)], "note: ", {}],
      ["left-5", "left", [], "(403 forbidden)", { GOKV_JWT: narrowed }],
      ["_left", "left", [], "(400 bucket_reserved)", {}],
      ["left/6", "left", [], "(400 bucket_invalid)", {}],
    ] as const) {
      await refused(["issue", "--device", device, "--app", app, ...flags], problem, env);
      const left = await Promise.all(
        [`/devices/${encodeURIComponent(device)}`, `/apps/${encodeURIComponent(app)}`].map(
          async (path) => (await administer(target(), "GET", path)).status,
        ),
      );
      expect([device, app, ...left]).toEqual([device, app, 404, 404]);
    }
  });

  test("issue that is refused keeps the app that was there", async () => {
    await done(["app", "create", "kept", "--name=Kept"]);
    await refused(["issue", "--device", "_left", "--app", "kept"], "(400 bucket_reserved)");
    expect(await stored("/apps/kept")).toMatchObject({ name: "Kept" });
  });

  test("rotate and revoke work while the server runs, and hold at once", async () => {
    const token = await done(["issue", "--device", "rotated", "--app", "board"]);
    const { items } = (await json(["install", "list", "--device", "rotated"])) as { items: { id: string }[] };
    const id = items[0]!.id;
    const next = await done(["install", "rotate", id]);
    expect(next).toMatch(TOKEN_LINE);
    expect([await statusOf(token), await statusOf(next)]).toEqual([401, 200]);
    expect(await done(["install", "revoke", id])).toBe("");
    expect(await statusOf(next)).toBe(401);
    await refused(["install", "revoke", id], "There is no such installation. (404 installation_not_found)");
  });

  test("devices are made, shown, renamed, listed and deleted", async () => {
    const made = await json(["device", "create", "a b", "--name", "Room"]);
    expect(made).toEqual(await stored("/devices/a%20b"));
    expect(await json(["device", "show", "a b"])).toEqual(made);
    expect(await json(["device", "update", "a b", "--name=Hall"])).toMatchObject({ uuid: "a b", name: "Hall" });
    expect(await done(["device", "create"])).toMatch(
      /^uuid +[0-9a-f-]{36}\nname +null\ncreatedAt +2\S+Z\nupdatedAt +2\S+Z\n$/,
    );
    const page = await gokv(["device", "list", "--limit", "1", "--json"]);
    const first = JSON.parse(page.stdout) as { items: { uuid: string }[]; nextCursor: string };
    expect([first.items.length, first.nextCursor]).toEqual([1, first.items[0]!.uuid]);
    const more = `more: --cursor ${first.nextCursor}\n`;
    const shown = await gokv(["device", "list", "--limit", "1"]);
    expect([page.stderr, shown.stderr, shown.stdout.includes("more")]).toEqual([more, more, false]);
    const rest = (await json(["device", "list", "--cursor", first.nextCursor])) as { items: unknown[] };
    expect(rest.items).toHaveLength(((await stored("/devices")).items as unknown[]).length - 1);
    await target().fetch("/a%20b/k", { method: "PUT", body: "1" });
    await refused(["device", "delete", "a b"], "Use --purge to delete them too. (409 namespace_not_empty)");
    expect(await done(["device", "delete", "a b", "--purge"])).toBe("");
    await refused(["device", "show", "a b"], "the server refused: There is no such device. (404 device_not_found)");
  });

  test("apps are made, shown, changed, listed and deleted", async () => {
    const flags = ["--name", "Board", "--description", "d", "--homepage", "https://b.example", "--prefix", "p"];
    const made = await json(["app", "create", "the-app", ...flags, "--grant", "x", "--grant", "read:y"]);
    expect(made).toMatchObject({ id: "the-app", permissionPrefix: "p", permissionKey: ["x", "read:y"] });
    expect(await json(["app", "show", "the-app"])).toEqual(made);
    expect(await json(["app", "update", "the-app", "--grant", "z"])).toMatchObject({
      name: "Board",
      description: "d",
      homepage: "https://b.example",
      permissionPrefix: "p",
      permissionKey: ["z"],
    });
    expect(await done(["app", "list", "--limit=1000"])).toContain(
      "\nid                the-app\nname              Board\n",
    );
    await done(["issue", "--device", "of-the-app", "--app", "the-app"]);
    await refused(["app", "delete", "the-app"], "Use --revoke to revoke them too. (409 app_in_use)");
    expect(await done(["app", "delete", "the-app", "--revoke"])).toBe("");
    await refused(["app", "show", "the-app"], "(404 app_not_found)");
    const { exitCode, stderr } = await gokv(["app", "update", "board", "--grant", ""]);
    expect([exitCode, stderr]).toEqual([2, "gokv: --grant is empty. See gokv token app update --help.\n"]);
  });

  test("installations are listed, shown and changed, and their tokens are not shown", async () => {
    const token = await done(["issue", "--device", "shown", "--app", "board", "--expires-in", "1h"]);
    const { items } = (await json(["install", "list", "--device=shown", "--app=board"])) as { items: { id: string }[] };
    const { id } = items[0]!;
    expect(await json(["install", "show", id])).toEqual(items[0]!);
    for (const args of [
      ["install", "list"],
      ["install", "show", id],
      ["device", "list"],
      ["app", "list"],
    ]) {
      expect(await done(args)).not.toContain(token.trim().slice(4, 24));
    }
    expect(await json(["install", "update", id, "--read-only", "--note", "n"])).toMatchObject({
      isReadOnly: true,
      note: "n",
    });
    expect((await asApp(target(), token.trim(), "/k", { method: "POST", body: "1" })).status).toBe(403);
    expect(await json(["install", "update", id, "--read-write"])).toMatchObject({ isReadOnly: false, note: "n" });
    expect(await json(["install", "update", id, "--expires-in=1h"])).toMatchObject({ expiresAt: expect.any(String) });
    expect(await json(["install", "update", id, "--never-expires"])).toMatchObject({ expiresAt: null });
    expect((await asApp(target(), token.trim(), "/k", { method: "POST", body: "1" })).status).toBe(200);
    await misused(["install", "update", id, "--read-write", "--read-only"], "one of --read-only and --read-write");
    expect(await json(["install", "update", id, "--prefix=q", "--device-type=t", "--grant=g"])).toMatchObject({
      permissionPrefix: "q",
      deviceType: "t",
      permissionKey: ["g"],
      note: "n",
    });
  });

  test("with --json, issue and rotate print all that the server says, in one line", async () => {
    const issued = await done(["issue", "--device", "as-json", "--app", "board", "--json"]);
    const { id, token } = JSON.parse(issued) as { id: string; token: string };
    expect(issued.trimEnd()).not.toContain("\n");
    const rotated = JSON.parse(await done(["install", "rotate", id, "--json"])) as { id: string; token: string };
    expect([rotated.id, rotated.token === token, await statusOf(rotated.token)]).toEqual([id, false, 200]);
  });

  test("what the server refuses ends with 1 and the server's own words", async () => {
    await refused(["device", "create", "kv"], "the server refused: This name is reserved. (400 bucket_reserved)");
    await refused(
      ["device", "list", "--limit", "0"],
      "limit is a whole number from 1 to 1000. (400 invalid_parameter)",
    );
    await refused(["app", "create", "--name", "x", "--prefix", "p."], "no dot at the end (400 invalid_parameter)");
    await refused(["issue", "--device", "_x", "--app", "board"], "(400 bucket_reserved)");
    await refused(["install", "show", "nobody"], "(404 installation_not_found)");
    await refused(
      ["device", "list"],
      "(401 unauthorized). Is JWT_SECRET the one the server was started with? See GOKV_JWT.",
      { JWT_SECRET: "another-secret-of-more-than-32-bytes" },
    );
    await refused(["device", "list"], "(401 unauthorized). Is GOKV_JWT still valid", { GOKV_JWT: "a.b.c" });
    await refused(["device", "list"], "(403 forbidden)", { GOKV_JWT: await mint({ scope: "kv" }) });
    await refused(["device", "list"], "cannot be reached", { GOKV_URL: "http://127.0.0.1:1" });
    await refused(["device", "list", "--url=nonsense"], "cannot be reached");
  });

  test("the server and the credential come from flags or the environment, flags first", async () => {
    const wrong = { GOKV_URL: "http://127.0.0.1:1" };
    expect(await done(["device", "list", `--url=${target().url}/`], wrong)).toContain("room-301");
    expect(await done(["device", "list"], { GOKV_URL: undefined, PORT: new URL(target().url).port })).toContain(
      "room-301",
    );
    const GOKV_JWT = await mint({ scope: "admin" });
    expect(await done(["device", "list"], { GOKV_JWT, JWT_SECRET: "not-the-one" })).toContain("room-301");
    expect(await done(["device", "list"], { GOKV_JWT, JWT_SECRET: undefined })).toContain("room-301");
    using dir = tempDir();
    writeFileSync(dir.file("secret"), `${SECRET}\n`);
    const inFile = { JWT_SECRET: undefined, JWT_SECRET_FILE: dir.file("secret") };
    expect(await done(["device", "list"], inFile)).toContain("room-301");
    const missing = { ...inFile, JWT_SECRET_FILE: dir.file("none") };
    await misused(
      ["device", "list"],
      `JWT_SECRET_FILE (${dir.file("none")}) cannot be read: there is no such file (ENOENT)`,
      missing,
    );
    await misused(["device", "list"], "are both set", { ...inFile, JWT_SECRET: SECRET });
    await misused(["device", "list"], "set GOKV_JWT to a token with the admin scope, or JWT_SECRET", {
      JWT_SECRET: undefined,
    });
  });

  test("without a URL the server of this machine is asked, at its address and through no proxy", async () => {
    const nobody = "http://127.0.0.1:1";
    for (const HOST of ["127.0.0.2", "::", "0.0.0.0", "localhost"]) {
      using dir = tempDir();
      await using server = await startServer({ JWT_SECRET: SECRET, DB_PATH: dir.file("data"), HOST });
      const env = { GOKV_URL: undefined, HOST, PORT: new URL(server.url).port, http_proxy: nobody, HTTP_PROXY: nobody };
      expect([HOST, await done(["device", "list"], env)]).toEqual([HOST, ""]);
      await untilLogged(server, /"sub":"gokv cli"/);
    }
  });

  test("what another server answers names its address", async () => {
    const answers: readonly (readonly [status: number, body: string])[] = [
      [404, "Not Found"] as const,
      [404, '{"detail":"Not Found"}'] as const,
      [404, "null"] as const,
      [200, "<!doctype html>"] as const,
      [502, ""] as const,
    ];
    for (const [status, body] of answers) {
      // At its first answer, or at one behind a proxy that knows the document only.
      for (const path of ["/openapi.json", "/api/kv/devices"]) {
        const answer = (url: string) =>
          url.endsWith(path) ? new Response(body, { status }) : Response.json({ paths: { "/api/kv/devices": {} } });
        await using server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: ({ url }) => answer(url) });
        const GOKV_URL = server.url.origin;
        const problem = `${GOKV_URL}${path} answered ${status}, and not as gokv does.`;
        await refused(["device", "list"], problem, { GOKV_URL });
      }
    }
  });

  test("what the server finds wrong with a member is told of the flag that it was given with", async () => {
    await refused(["issue", "--device=", "--app=board"], "refused: --device: must have at least 1 character (400");
    await refused(["issue", "--device=d", "--app=board", "--grant=read:"], "refused: --grant: ");
    await refused(["app", "create", "x", "--name="], "refused: --name: must have at least 1 character (400");
  });

  test("an operator of some devices can issue for them, an app that exists included", async () => {
    const GOKV_JWT = await mint({ scope: "admin", buckets: ["mine-*"] });
    expect(await done(["issue", "--device", "mine-1", "--app", "board"], { GOKV_JWT })).toMatch(TOKEN_LINE);
    await refused(["issue", "--device", "mine-1", "--app", "a-new-one"], "(403 forbidden)", { GOKV_JWT });
    await refused(["issue", "--device", "room-301", "--app", "board"], "(403 forbidden)", { GOKV_JWT });
  });

  test("every command says with --help what it does and which flags it takes, and asks nobody", async () => {
    for (const [command, , flags] of COMMANDS) {
      const stdout = await done([...command.split(" "), "--help"], { GOKV_URL: "http://127.0.0.1:1" });
      expect(stdout).toContain(`gokv token ${command}`);
      for (const flag of [...flags, "--url", "--json"])
        expect([command, stdout]).toEqual([command, expect.stringContaining(flag)]);
      expect(stdout).not.toContain("\u001b");
    }
    for (const verb of ["create", "show", "update", "delete"]) {
      expect(await done(["device", verb, "--help"])).toContain("DEVICE    Its name: a UUID or any bucket name");
    }
    const words = {
      "": ["device", "app", "install", "issue"],
      install: ["list", "show", "update", "rotate", "revoke"],
    };
    for (const [group, names] of Object.entries(words)) {
      const stdout = await done([...group.split(" ").filter(Boolean), "--help"]);
      for (const name of names) expect(stdout).toMatch(new RegExp(`^ +${name} {4}\\S`, "m"));
    }
  });

  test("unknown flags, flags without a value and stray words are misuse, and nothing is asked", async () => {
    const nowhere = { GOKV_URL: "http://127.0.0.1:1" };
    for (const [command, needs] of COMMANDS) {
      const args = [...command.split(" "), ...needs];
      await misused([...args, "--nonsense"], "there is no flag --nonsense", nowhere);
      await misused([...args, "--json=1"], "--json takes no value", nowhere);
      await misused([...args, "--url"], "--url lacks its value", nowhere);
      if (needs.length > 0)
        await misused(command.split(" "), needs[0]!.startsWith("--") ? "is missing" : "is not given", nowhere);
    }
    for (const command of ["app update", "install update"]) {
      await misused([...command.split(" "), "x"], "nothing to change: give one of --", nowhere);
      await misused([...command.split(" "), "x", "--json"], `See gokv token ${command} --help.`, nowhere);
    }
    await misused(["issue", "--device=d", "--app=a", "--expires-in=soon"], "See gokv token issue --help.", nowhere);
    await misused(["device", "show", "x", "y"], '"y" is one argument too many', nowhere);
    await misused(["issue", "--device=d", "--app=a", "--note=1", "--note=2"], "--note is given twice", nowhere);
    await misused([], "name one of device, app, install, issue", nowhere);
    await misused(["device"], "name one of create, list, show, update, delete", nowhere);
    await misused(["device", "destroy", "x"], 'there is no command "destroy"', nowhere);
    await misused(["toString"], 'there is no command "toString"', nowhere);
    for (const text of ["soon", "0s", "-1h", "90", "36501d", "99999999999999d"]) {
      await misused(["issue", "--device=d", "--app=a", `--expires-in=${text}`], "is not a duration", nowhere);
    }
  });
});

describe("gokv with bad settings of the token API", () => {
  test("names each of them and ends with 2 before it touches anything", async () => {
    const names = [
      "SOURCES",
      "BODY_AUTH_BYTES",
      "MAX_VALUE_BYTES",
      "MAX_BATCH_KEYS",
      "MAX_BATCH_BYTES",
      "MAX_LIMIT",
      "MAX_PAGE_BYTES",
      "MAX_SORT_ROWS",
      "RATE_READ",
      "RATE_WRITE",
      "RATE_DELETE",
      "RATE_BATCH",
      "RATE_AUTH_FAIL",
      "CORS_ORIGINS",
      "KV_ALIAS",
    ].map((name) => `TOKEN_${name}`);
    using dir = tempDir();
    const bad = Object.fromEntries([...names, "TRUSTED_PROXIES"].map((name) => [name, "nonsense"]));
    const settings = { JWT_SECRET: SECRET, DB_PATH: dir.file("data"), PORT: "0", ...bad };
    const { exitCode, stdout, stderr } = await run([GOKV], { env: settings, cwd: dir.path });
    expect([exitCode, stdout]).toEqual([2, ""]);
    const named = stderr.match(/(?<=^ {2}- )[A-Z_]+(?= must be .*, not "nonsense"$)/gm);
    expect([...(named ?? [])]).toEqual([...names, "TRUSTED_PROXIES"]);
    expect(existsSync(dir.file("data"))).toBe(false);
  });
});
