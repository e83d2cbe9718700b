// What a suite runs against: a gokv that can be asked, restarted and disposed of, in this process or as the executable.

import { RunningServer } from "../../src/app/start-server.ts";
import { mintJwt, type OperatorClaims } from "../../src/auth/mint-jwt.ts";
import type { Clock } from "../../src/shared/clock.ts";
import { type Log, openLog } from "../../src/shared/log.ts";
import { readSettings } from "../../src/shared/settings.ts";
import { threadStarter } from "../../src/storage/start-thread.ts";
import { type Environment, startServer } from "./executable.ts";
import { tempDir } from "./temp-dir.ts";
import { threadEntry } from "./thread-entries.ts";

export const SECRET = "test-secret-with-more-than-32-bytes-in-it";
const HOUR_MS = 3_600_000;

const startThread = threadStarter(threadEntry("app"));

export interface Target extends AsyncDisposable {
  /** Changes with each restart. */
  readonly url: string;
  readonly dbPath: string;
  /** Sends the plain token unless `init.headers` has an Authorization of its own (null = none at all). */
  fetch(path: string, init?: TargetInit): Promise<Response>;
  /** Binary: SIGKILL, then a start on the same data. In-process: stop, then open the same files. */
  restart(): Promise<void>;
}

export type TargetInit = Omit<RequestInit, "headers"> & { headers?: Record<string, string | null> };
export type OpenTarget = (env?: Environment) => Promise<Target>;

export function mint(claims: Partial<OperatorClaims> = {}, secret = SECRET): Promise<string> {
  return mintJwt(new TextEncoder().encode(secret), { expiresInMs: HOUR_MS, ...claims }, Date.now());
}

export const openBinary: OpenTarget = async (env = {}) => {
  const dir = tempDir();
  const settings = { JWT_SECRET: SECRET, DB_PATH: dir.file("data"), ...env };
  let server = await startServer(settings);
  return createTarget(() => server.url, dir.file("data"), {
    async restart() {
      server.kill("SIGKILL");
      await server.exited;
      server = await startServer(settings);
    },
    async dispose() {
      await server[Symbol.asyncDispose]();
      dir[Symbol.dispose]();
    },
  });
};

export const openInProcess: OpenTarget = openInProcessAt();

/** A server in this process whose gates and limits go by `clock`. */
export function openInProcessAt(clock?: Clock): OpenTarget {
  return (env = {}) => openServer(env, clock);
}

/** A server in this process that tells `log` instead of standard error. */
export function openInProcessTelling(log: Log): OpenTarget {
  return (env = {}) => openServer(env, undefined, log);
}

async function openServer(env: Environment, clock?: Clock, log?: Log): Promise<Target> {
  const dir = tempDir();
  const settings = readSettings({
    JWT_SECRET: SECRET,
    DB_PATH: dir.file("data"),
    PORT: "0",
    HOST: "127.0.0.1",
    GIN_MODE: "test",
    ...env,
  });
  const start = () => RunningServer.start(settings, log ?? openLog(settings), { clock, startThread });
  let server = await start();
  const stop = async () => {
    const stopped = server.stop();
    // The second call skips the waiting.
    server.stop();
    await stopped;
  };
  return createTarget(() => server.url.href.replace(/\/$/, ""), dir.file("data"), {
    async restart() {
      await stop();
      server = await start();
    },
    async dispose() {
      await stop();
      dir[Symbol.dispose]();
    },
  });
}

async function createTarget(
  url: () => string,
  dbPath: string,
  { restart, dispose }: { restart(): Promise<void>; dispose(): Promise<void> },
): Promise<Target> {
  const plainToken = await mint();
  return {
    get url() {
      return url();
    },
    dbPath,
    fetch(path, { headers = {}, ...init } = {}) {
      const sent = new Headers();
      for (const [name, value] of Object.entries({ Authorization: `Bearer ${plainToken}`, ...headers })) {
        if (value !== null) sent.set(name, value);
      }
      return fetch(`${url()}${path}`, { ...init, headers: sent });
    },
    restart,
    [Symbol.asyncDispose]: dispose,
  };
}
