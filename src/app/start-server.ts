// Opens everything a server needs, serves, and closes it again in the right order.

import type { Server } from "bun";
import { whyNotListening } from "../http/listen-failure.ts";
import { Metrics } from "../http/metrics.ts";
import type { ServerState } from "../http/request-scope.ts";
import { IDLE_SECONDS } from "../shared/bounds.ts";
import { type Clock, systemClock } from "../shared/clock.ts";
import { EXIT, type ExitCode, ExitError, internalError, messageOf } from "../shared/errors.ts";
import type { Eventually } from "../shared/eventual.ts";
import type { Log } from "../shared/log.ts";
import type { Settings } from "../shared/settings.ts";
import { VERSION } from "../shared/version.ts";
import { BackupClient } from "../storage/backup-client.ts";
import { SpareDescriptors } from "../storage/spare-descriptors.ts";
import { requireSafeSqlite } from "../storage/sqlite-connection.ts";
import { SqliteStore } from "../storage/sqlite-store.ts";
import type { StartThread } from "../storage/start-thread.ts";
import { startAppThread } from "./app-threads.ts";
import { type App, createApp } from "./create-app.ts";
import { reservedBuckets, warnOfReservedBuckets } from "./reserved-buckets.ts";

/** Closing at once would lose requests that are on the wire of kept-alive connections. */
const LISTEN_ON_MS_MIN = 250;
const PENDING_POLL_MS = 10;
/** Time for the last answers to leave: of a store that has failed, of streams that are cut off. */
const LAST_WORDS_MS = 200;

interface StartOptions {
  readonly clock?: Clock | undefined;
  /** Of one who has begun the storage thread already. */
  readonly startThread?: StartThread;
}

interface Parts {
  readonly server: Server<undefined>;
  readonly app: App;
  readonly store: SqliteStore;
  readonly backups: BackupClient;
  readonly spare: SpareDescriptors;
  readonly state: ServerState;
  readonly settings: Settings;
  readonly log: Log;
  readonly ended: PromiseWithResolvers<ExitCode>;
}

export class RunningServer {
  readonly #parts: Parts;
  readonly #hurry = Promise.withResolvers<void>();
  #isStopping = false;

  private constructor(parts: Parts) {
    this.#parts = parts;
  }

  /** @throws ExitError (1) cannot listen or write, (3) store in use, (4) store damaged */
  static async start(
    settings: Settings,
    log: Log,
    { clock = systemClock, startThread = startAppThread }: StartOptions = {},
  ): Promise<RunningServer> {
    for (const warning of settings.warnings) log.warn(warning);
    const state: ServerState = { isDraining: false, hasFailed: false, trustedProxies: settings.trustedProxies };
    const ended = Promise.withResolvers<ExitCode>();
    const metrics = new Metrics(requireSafeSqlite());
    const spare = new SpareDescriptors();
    const lending = spare.lending(startThread);
    const store = await SqliteStore.open(settings, log, lending, {
      onCommit: (items, commitMs) => metrics.countCommit(items, commitMs / 1000),
      onFailed(reason) {
        state.hasFailed = true;
        log.fatal("the store has failed; the process ends so that nothing false is acknowledged", { reason });
        setTimeout(() => ended.resolve(EXIT.storageFailed), LAST_WORDS_MS);
      },
      beforeUpgrade: () => requireFreePort(settings),
    });
    try {
      const backups = new BackupClient({
        source: store.files.database,
        directory: settings.backupDir,
        walLimitBytes: settings.walLimitBytes,
        startThread: lending,
      });
      const app = createApp({ settings, log, clock, metrics, store, backups, state });
      await warnOfReservedBuckets(store, reservedBuckets(settings.services), log);
      const server = listen(settings, log, app.fetch);
      log.info("listening", { url: server.url.href, port: server.port, version: VERSION, dbPath: settings.dbPath });
      spare.hold();
      app.start();
      return new RunningServer({ server, app, store, backups, spare, state, settings, log, ended });
    } catch (error) {
      await store[Symbol.asyncDispose]();
      throw error;
    }
  }

  get url(): URL {
    return this.#parts.server.url;
  }

  /** Resolves when the server has stopped, or must: with the exit code of the process. */
  get ended(): Promise<ExitCode> {
    return this.#parts.ended.promise;
  }

  /**
   * Answers what was accepted, commits what is queued, closes the store. A second call skips the waiting, not the
   * commit.
   */
  async stop(): Promise<void> {
    if (this.#isStopping) return this.#hurry.resolve();
    this.#isStopping = true;
    const { server, app, store, backups, spare, state, settings, log, ended } = this.#parts;
    state.isDraining = true;
    log.info("stopping", { requests: server.pendingRequests });
    const jobsStopped = app.stopJobs(settings.shutdownTimeoutMs);
    await this.#unlessHurried(Bun.sleep(Math.max(settings.drainDelayMs, LISTEN_ON_MS_MIN)));
    // Not awaited: it never resolves while a connection that has sent nothing is open.
    server.stop();
    app.endStreams();
    await this.#unlessHurried(untilIdle(server, settings.shutdownTimeoutMs));
    if (server.pendingRequests > 0) {
      app.interruptCalls();
      await this.#unlessHurried(untilIdle(server, LAST_WORDS_MS));
    }
    server.stop(true);
    spare[Symbol.dispose]();
    if (state.hasFailed) return;
    // The rest of their time, with a second signal none of it.
    await this.#unlessHurried(jobsStopped);
    await app[Symbol.asyncDispose]();
    await backups[Symbol.asyncDispose]();
    await store[Symbol.asyncDispose]();
    log.info("stopped");
    ended.resolve(EXIT.done);
  }

  #unlessHurried(wait: Promise<void>): Promise<void> {
    return Promise.race([wait, this.#hurry.promise]);
  }
}

async function untilIdle(server: Server<undefined>, timeoutMs: number): Promise<void> {
  const deadlineMs = performance.now() + timeoutMs;
  while (server.pendingRequests > 0 && performance.now() < deadlineMs) await Bun.sleep(PENDING_POLL_MS);
}

/**
 * An upgrade cannot be taken back, so a start that would fail to listen fails before it. Whoever connects in this
 * instant finds the connection closed. @throws ExitError (1)
 */
function requireFreePort({ host, port }: Settings): void {
  try {
    Bun.listen({ hostname: host, port, socket: { data: () => undefined } }).stop(true);
  } catch (error) {
    throw cannotListen(error, host, port);
  }
}

function cannotListen(cause: unknown, host: string, port: number): ExitError {
  return new ExitError(
    EXIT.failed,
    `Cannot listen on ${host}:${port}: ${whyNotListening(cause, host)}. Set PORT or HOST to another one.`,
    { cause },
  );
}

type Fetch = (request: Request, server: Server<undefined>) => Eventually<Response>;

function listen({ host, port }: Settings, log: Log, fetch: Fetch): Server<undefined> {
  try {
    return Bun.serve({
      hostname: host,
      port,
      development: false,
      // Without this line "development: false" would turn it on: another server could then listen on the same port, and
      // each would get some of the connections.
      reusePort: false,
      idleTimeout: IDLE_SECONDS,
      // The bounds of the app answer with a body that says what is wrong; the runtime's own would not.
      maxRequestBodySize: Number.MAX_SAFE_INTEGER,
      fetch,
      error(error) {
        log.error("a request failed outside every handler", { cause: messageOf(error) });
        const { status, message, code } = internalError(error);
        return Response.json({ statusCode: status, message, code }, { status });
      },
    });
  } catch (error) {
    throw cannotListen(error, host, port);
  }
}
