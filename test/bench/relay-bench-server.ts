// The executable as a relay is measured: two channels to the same upstream, a token, the usage log on disk.

import { readdirSync, readlinkSync } from "node:fs";
import type { Environment } from "../support/executable.ts";
import { requireStatuses, startBenchServer } from "./bench-server.ts";
import type { Bench } from "./benchmark.ts";
import { CHAT_ROUTE, type ChatServer } from "./chat-request.ts";
import { InvalidRun } from "./figures.ts";
import type { QuickUpstream } from "./quick-upstream.ts";

export interface RelayBenchServer extends ChatServer, AsyncDisposable {
  readonly pid: number;
  /** The same relay, asked with a token whose quota is finite, and large enough. */
  readonly finite: ChatServer;
  /**
   * Whatever was answered was a success, or had lost its client when a round ended.
   * @throws InvalidRun otherwise, or unless the usage log holds at least `answered` requests with their usage
   */
  requireLogged(answered: number): Promise<void>;
}

const QUOTA = 1_000_000_000_000;
/** Rows are stored within a tenth of a second; a machine that is busy takes longer. */
const LOGGED_MS_MAX = 60_000;
const LOGGED_POLL_MS = 50;
const ENVIRONMENT = { RELAY_ALLOW_CIDRS: "127.0.0.0/8" };

/** `wrapper`: the command to put in front. */
export async function startRelay(
  bench: Bench,
  upstream: QuickUpstream,
  { env = {}, wrapper = [] }: { env?: Environment; wrapper?: readonly string[] } = {},
): Promise<RelayBenchServer> {
  const server = await startBenchServer(bench.newPath(), { ...ENVIRONMENT, ...env }, wrapper);
  const manage = async <T>(path: string, body?: unknown): Promise<T> => {
    const response = await fetch(server.url + path, {
      ...(body === undefined ? {} : { method: "POST", body: JSON.stringify(body) }),
      headers: { Authorization: `Bearer ${bench.token}` },
    });
    if (!response.ok) throw new InvalidRun(`${path} answers ${response.status}: ${await response.text()}`);
    return (await response.json()) as T;
  };
  try {
    for (const name of ["one", "two"]) {
      await manage("/api/channel", { name, type: "Custom", key: `sk-mock-${name}-of-two`, base_url: upstream.url });
    }
    const unlimited = await manage<{ key: string }>("/api/token", { name: "unlimited" });
    const finite = await manage<{ key: string }>("/api/token", { name: "finite", remain_quota: QUOTA });
    const asked = ({ key }: { key: string }): ChatServer => ({
      name: "gokv",
      url: server.url,
      headers: { Authorization: `Bearer ${key}` },
    });
    return {
      ...asked(unlimited),
      finite: asked(finite),
      pid: server.pid,
      async requireLogged(answered) {
        await requireStatuses(server.url, bench.token, [200, 499], CHAT_ROUTE);
        await requireLogged(() => manage<LogStat>("/api/log/stat?group_by=token"), answered);
      },
      [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
    };
  } catch (error) {
    await server[Symbol.asyncDispose]();
    throw error;
  }
}

interface LogStat {
  readonly data: readonly { requests: number; quota: number }[];
}

/** What the upstream says of each request; one that lost its client is estimated. */
const QUOTA_OF_REQUEST = 30;

async function requireLogged(readStat: () => Promise<LogStat>, answered: number): Promise<void> {
  const deadlineMs = performance.now() + LOGGED_MS_MAX;
  for (;;) {
    const { data } = await readStat();
    const sum = (name: "requests" | "quota") => data.reduce((total, row) => total + row[name], 0);
    if (sum("requests") >= answered) {
      if (sum("quota") >= answered * QUOTA_OF_REQUEST) return;
      throw new InvalidRun(`${sum("requests")} requests were logged with a quota of ${sum("quota")}`);
    }
    if (performance.now() > deadlineMs) {
      throw new InvalidRun(`${answered} requests were answered, ${sum("requests")} are in the usage log`);
    }
    await Bun.sleep(LOGGED_POLL_MS);
  }
}

/** Open sockets of a process. */
export function socketsOf(pid: number): number {
  const directory = `/proc/${pid}/fd`;
  return readdirSync(directory).filter((fd) => {
    try {
      return readlinkSync(`${directory}/${fd}`).startsWith("socket:");
    } catch {
      // Closed in the meantime.
      return false;
    }
  }).length;
}
