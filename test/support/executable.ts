// The compiled executable as the tests run it: started, waited for, killed.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { eventually } from "./eventually.ts";

export const ROOT = join(import.meta.dir, "../..");
export const GOKV = join(ROOT, "dist/gokv");
export const JWT_GEN = join(ROOT, "dist/jwt-gen");

export interface Finished {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

export type Environment = Record<string, string | undefined>;

/** Nothing of the developer's own environment reaches the program under test. */
export function cleanEnv(env: Environment): Record<string, string> {
  const base = { PATH: process.env.PATH, HOME: process.env.HOME, ...env };
  return Object.fromEntries(Object.entries(base).filter((entry): entry is [string, string] => entry[1] !== undefined));
}

/** Runs a command to its end. */
export async function run(
  command: readonly string[],
  options: { env?: Environment; stdin?: string | Uint8Array; cwd?: string } = {},
): Promise<Finished> {
  requireBuilt();
  const child = Bun.spawn([...command], {
    env: cleanEnv(options.env ?? {}),
    stdin: options.stdin === undefined ? "ignore" : Buffer.from(options.stdin),
    stdout: "pipe",
    stderr: "pipe",
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  });
  const [stdout, stderr, exitCode] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return { exitCode, stdout, stderr };
}

/** A server process. What it writes is kept, so that a test can look into it. */
export interface ServerProcess extends AsyncDisposable {
  readonly pid: number;
  readonly url: string;
  readonly exited: Promise<number>;
  /** Standard error so far. */
  log(): string;
  /** Standard output so far. */
  output(): string;
  kill(signal: NodeJS.Signals): void;
}

/**
 * Starts the executable on a free port and waits for its listening line.
 * @throws Error with the log, if the process ends before it listens
 */
export async function startServer(
  env: Environment,
  wrapper: readonly string[] = [],
  options: { args?: readonly string[]; cwd?: string } = {},
): Promise<ServerProcess> {
  requireBuilt();
  const child = Bun.spawn([...wrapper, GOKV, ...(options.args ?? [])], {
    env: cleanEnv({ PORT: "0", HOST: "127.0.0.1", GIN_MODE: "release", ...env }),
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  });
  let log = "";
  let output = "";
  const readOutput = (async () => {
    const decoder = new TextDecoder();
    for await (const chunk of child.stdout) output += decoder.decode(chunk, { stream: true });
  })();
  const listening = Promise.withResolvers<string>();
  const read = (async () => {
    const decoder = new TextDecoder();
    for await (const chunk of child.stderr) {
      log += decoder.decode(chunk, { stream: true });
      // A JSON line in release mode, a readable one otherwise.
      const port = /\blistening\b.*?\bport"?[=:](\d+)/.exec(log)?.[1];
      if (port !== undefined) listening.resolve(`http://127.0.0.1:${port}`);
    }
    listening.reject(new Error(`gokv ended with ${await child.exited} before it listened:\n${log}`));
  })();
  read.catch(() => undefined);
  listening.promise.catch(() => undefined);
  const url = await listening.promise;
  return {
    pid: child.pid,
    url,
    exited: child.exited.then(async (code) => {
      await Promise.all([read, readOutput]);
      return code;
    }),
    log: () => log,
    output: () => output,
    kill: (signal) => child.kill(signal),
    async [Symbol.asyncDispose]() {
      if (child.exitCode === null) child.kill("SIGKILL");
      await child.exited;
    },
  };
}

/** Ends it in order; the second signal spares the time in which it goes on listening. @throws Error if it fails */
export async function stop(server: ServerProcess): Promise<void> {
  server.kill("SIGTERM");
  server.kill("SIGINT");
  const code = await server.exited;
  if (code !== 0) throw new Error(`gokv ended with ${code}:\n${server.log()}`);
}

/** Lets `act` write to a server that is then killed, so that all of it stays in the log. */
export async function whileKilled(
  starting: Promise<ServerProcess>,
  act: (url: string) => Promise<unknown>,
): Promise<void> {
  await using server = await starting;
  await act(server.url);
  server.kill("SIGKILL");
  await server.exited;
}

const LOGGED_MS = 1_000;

/** Resolves when the log says so: what a server writes comes through a pipe, and perhaps after its answer. */
export function untilLogged(server: Pick<ServerProcess, "log">, pattern: RegExp): Promise<void> {
  return eventually(`the log says ${pattern}`, LOGGED_MS, () => pattern.test(server.log()));
}

function requireBuilt(): void {
  if (!existsSync(GOKV)) throw new Error("dist/gokv is missing: bun run build");
}
