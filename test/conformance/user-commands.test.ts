// gokv user against a running server: every command, what it prints, how it ends.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { type Finished, GOKV, run } from "../support/executable.ts";
import { mint, openBinary, SECRET } from "../support/targets.ts";
import { ask, logIn, UNLIMITED } from "../support/task-client.ts";
import { useTarget } from "../support/use-target.ts";

// Many processes are started; on a busy machine that takes its time.
setDefaultTimeout(120_000);

/** Every command with what it needs besides its flags, and the flags of its own. */
const COMMANDS: readonly (readonly [command: string, needs: readonly string[], flags: readonly string[]])[] = [
  ["list", [], ["--q", "--limit", "--cursor"]],
  ["show", ["1"], []],
  ["create", ["--username=u", "--email=e", "--password=p"], ["--username", "--email", "--password"]],
  ["disable", ["1"], []],
  ["enable", ["1"], []],
  ["password", ["1", "--password=p"], ["--password"]],
  ["logout", ["1"], []],
  ["delete", ["1"], []],
];

describe("gokv user", () => {
  const target = useTarget(openBinary, { ...UNLIMITED, TASK_REGISTRATION: "closed" });
  const gokv = (args: readonly string[], stdin?: string, env: Record<string, string> = {}): Promise<Finished> =>
    run([GOKV, "user", ...args], {
      env: { GOKV_URL: target().url, JWT_SECRET: SECRET, ...env },
      ...(stdin === undefined ? {} : { stdin }),
    });

  /** Standard output of a command that is done and has nothing to complain of. */
  const done = async (args: readonly string[], stdin?: string): Promise<string> => {
    const { exitCode, stdout, stderr } = await gokv(args, stdin);
    expect([args, exitCode, stderr]).toEqual([args, 0, ""]);
    return stdout;
  };
  const json = async (args: readonly string[], stdin?: string) => JSON.parse(await done([...args, "--json"], stdin));
  const create = (username: string, password = "password123") =>
    json(["create", "--username", username, "--email", `${username}@example.com`, "--password", "-"], `${password}\n`);
  const statusOf = async (token: string) => (await ask(target(), "GET", "/auth/me", { token })).status;

  test("creates an account, its password read from standard input, and shows it", async () => {
    const user = await create("ann", "with spaces at the end  ");
    expect(user).toMatchObject({ username: "ann", email: "ann@example.com", disabled: false, deleted_at: null });
    expect((await logIn(target(), "ann@example.com", "with spaces at the end  ")).id).toBe(user.id);
    const flag = ["--username", "flag", "--email", "flag@example.com", "--password", "on-the-line"];
    expect(await done(["create", ...flag])).toMatch(/^username +flag$/m);
    expect((await logIn(target(), "flag@example.com", "on-the-line")).username).toBe("flag");
    expect(await done(["show", `${user.id}`])).toMatch(/^email +ann@example\.com$/m);
  });

  test("lists accounts page by page, and those with a text in their name or address", async () => {
    for (const name of ["walker-1", "walker-2", "walker-3"]) await create(name);
    const found = await json(["list", "--q", "WALKER"]);
    expect(found.map(({ username }: { username: string }) => username)).toEqual(["walker-1", "walker-2", "walker-3"]);
    const { stdout, stderr } = await gokv(["list", "--q=walker", "--limit=1", `--cursor=${found[0].id}`, "--json"]);
    expect([JSON.parse(stdout), stderr]).toEqual([[found[1]], `more: --cursor ${found[1].id}\n`]);
    expect(await json(["list", "--q=walker", "--limit=1", `--cursor=${found[1].id}`])).toEqual([found[2]]);
    expect(await done(["list", "--q", "nobody at all"])).toBe("");
  });

  test("disables, enables, gives a password, logs out and deletes; each ends the sessions", async () => {
    const { id, email } = await create("ben");
    const steps: readonly (readonly [args: readonly string[], stdin: string | undefined, password: string])[] = [
      [["logout", `${id}`], undefined, "password123"],
      [["password", `${id}`, "--password", "-"], "another-one", "another-one"],
    ];
    let { token } = await logIn(target(), email, "password123");
    for (const [args, stdin, password] of steps) {
      await done(args, stdin);
      expect([args, await statusOf(token)]).toEqual([args, 401]);
      ({ token } = await logIn(target(), email, password));
    }
    expect(await json(["disable", `${id}`])).toMatchObject({ id, disabled: true });
    expect(await statusOf(token)).toBe(401);
    const login = { body: { email, password: "another-one" } };
    expect((await ask(target(), "POST", "/auth/login", login)).status).toBe(403);
    expect(await json(["enable", `${id}`])).toMatchObject({ id, disabled: false });
    ({ token } = await logIn(target(), email, "another-one"));
    expect(await done(["delete", `${id}`])).toContain("Account deleted");
    expect(await statusOf(token)).toBe(401);
    expect(await json(["show", `${id}`])).toMatchObject({ id, deleted_at: expect.any(String) });
  });

  test("what the server refuses ends with 1 and the server's own words", async () => {
    const refused = async (args: readonly string[], problem: string, env: Record<string, string> = {}) => {
      const { exitCode, stdout, stderr } = await gokv(args, undefined, env);
      expect([args, exitCode, stdout]).toEqual([args, 1, ""]);
      expect(stderr).toStartWith("gokv: the server refused: ");
      expect(stderr).toContain(problem);
    };
    await create("carl");
    await refused(
      ["create", "--username=CARL", "--email=c@example.com", "--password=password"],
      "username is already taken (409 username_taken)",
    );
    await refused(
      ["create", "--username=c", "--email=c@example.com", "--password=password"],
      "--username: must have at least 3 characters (400 invalid_request)",
    );
    await refused(["disable", "999999"], "user not found (404 not_found)");
    await refused(["list", "--limit=0"], "(400 invalid_parameter)");
    await refused(["list"], "(403 forbidden)", { GOKV_JWT: await mint({ scope: "kv" }) });
  });

  test("every command says with --help which flags it takes, and refuses others", async () => {
    const nowhere = { GOKV_URL: "http://127.0.0.1:1" };
    for (const [command, needs, flags] of COMMANDS) {
      const help = await gokv([command, "--help"], undefined, nowhere);
      expect([command, help.exitCode, help.stdout]).toEqual([command, 0, expect.stringContaining("gokv user")]);
      for (const flag of [...flags, "--url", "--json"]) expect(help.stdout).toContain(flag);
      const misused = await gokv([command, ...needs, "--nonsense"], undefined, nowhere);
      expect([misused.exitCode, misused.stderr]).toEqual([2, expect.stringContaining("there is no flag --nonsense")]);
      if (needs.length > 0) {
        const lacking = await gokv([command], undefined, nowhere);
        expect([lacking.exitCode, lacking.stderr]).toEqual([2, expect.stringMatching(/is missing|is not given/)]);
      }
    }
    const named = await gokv(["disable", "ann"], undefined, nowhere);
    expect([named.exitCode, named.stderr]).toEqual([2, expect.stringContaining('id "ann" is not a number from 1')]);
  });
});
