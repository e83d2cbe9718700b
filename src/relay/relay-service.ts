// The relay as a whole: everything it keeps in memory, opened over a store, closed again without losing a row.

import { AddressRules } from "../http/address-rules.ts";
import type { ByteBudget } from "../http/byte-budget.ts";
import type { Metrics } from "../http/metrics.ts";
import { OutboundTransport } from "../http/outbound-transport.ts";
import type { Handler, OperatorSurface } from "../http/surface.ts";
import type { GcraLimiter } from "../limits/gcra-limiter.ts";
import type { Clock } from "../shared/clock.ts";
import { causeTextOf } from "../shared/errors.ts";
import { every } from "../shared/every.ts";
import type { Log } from "../shared/log.ts";
import type { Settings } from "../shared/settings.ts";
import type { TableStore } from "../storage/unit-of-work.ts";
import { AnswerCache } from "./answer-cache.ts";
import { ChannelPool } from "./channel-pool.ts";
import { ChannelStore } from "./channel-store.ts";
import { UNREADABLE_ADVICE } from "./channel-units.ts";
import { LiveChannels } from "./live-channels.ts";
import type { RelayAdminServices } from "./management-request.ts";
import { RelayAnswers } from "./relay-answers.ts";
import { bootstrapRelay } from "./relay-bootstrap.ts";
import { RelayEngine } from "./relay-engine.ts";
import { RelayGate } from "./relay-gate.ts";
import { RelayLimits } from "./relay-limits.ts";
import { RelayMetrics } from "./relay-metrics.ts";
import { createRelayHandler } from "./relay-routes.ts";
import { RelayTokenStore } from "./relay-token-store.ts";
import type { RelayUnits } from "./relay-units.ts";
import { ResponseStore } from "./response-store.ts";
import type { AttemptBounds } from "./upstream-attempt.ts";
import { UsageLog } from "./usage-log.ts";
import { UsageLogStore } from "./usage-log-store.ts";

const TOUCH_EVERY_MS = 1_000;
const PROBE_EVERY_MS = 5_000;
const PURGE_EVERY_MS = 60_000;
const PURGE_ROWS = 500;
const DAY_MS = 86_400_000;
/** Requests that are given up are over at once, but not in the same turn. */
const LAST_CALLS_MS_MAX = 2_000;
const LAST_CALLS_POLL_MS = 5;

interface RelayParts {
  readonly settings: Settings;
  readonly store: TableStore<RelayUnits>;
  readonly surface: OperatorSurface;
  /** Of operators. */
  readonly budget: ByteBudget;
  /** Of clients. */
  readonly relayBudget: ByteBudget;
  /** The part of it that their bodies may hold. */
  readonly relayBodyBudget: ByteBudget;
  readonly limiter: GcraLimiter;
  readonly metrics: Metrics;
  readonly clock: Clock;
  readonly log: Log;
}

interface OpenedRelay {
  readonly handle: Handler;
  readonly adminServices: RelayAdminServices;
  readonly engine: RelayEngine;
  readonly answers: RelayAnswers;
  readonly usageLog: UsageLog;
  readonly transport: OutboundTransport;
  readonly timers: readonly Timer[];
}

export class Relay implements AsyncDisposable {
  readonly #opened: OpenedRelay;

  private constructor(opened: OpenedRelay) {
    this.#opened = opened;
  }

  /** Gives back what requests of the last life had set aside, and reads the channels. Throws what the store throws. */
  static async open(parts: RelayParts): Promise<Relay> {
    const { settings, store, surface, budget, relayBudget, limiter, metrics, clock, log } = parts;
    const returned = await store.run("relay.returnReservations", null);
    if (returned > 0) log.info("quota that was set aside for unfinished requests came back", { requests: returned });
    const channelStore = await ChannelStore.open(store, settings.sealingSecrets);
    const tokens = new RelayTokenStore(store, clock);
    const pool = new ChannelPool(clock, Math.random);
    await using unopened = new AsyncDisposableStack();
    const transport = unopened.use(openTransport(settings, log));
    const bounds = boundsOf(settings);
    const channels = new LiveChannels({ store: channelStore, pool, transport, bounds, budget, clock, log });
    await channels.changed();
    const usageLog = new UsageLog(store, () => tokens.takeTouched(), log);
    // Before anything is registered for good: it may fail, and the opening is tried again then.
    await bootstrapRelay({ settings, channels: channelStore, tokens, monitor: channels, log });
    unopened.move();
    const relayMetrics = new RelayMetrics(metrics.registry, () => ({
      inflight: engine.inflight,
      logQueue: usageLog.waiting,
      logDropped: usageLog.dropped,
      channels: pool.channels,
    }));
    const { relayOnClientAbort: onClientAbort, relayExposeChannel: exposesChannel } = settings;
    const cache = new AnswerCache(clock, settings.relayCacheBytes);
    const answers = new RelayAnswers({ onClientAbort, exposesChannel }, relayBudget, cache, relayMetrics);
    const { relayAttemptsMax: attemptsMax, relayRetryTimeouts: retriesTimeouts } = settings;
    const engine = new RelayEngine({
      settings: { ...bounds, attemptsMax, retriesTimeouts, onClientAbort },
      pool,
      channels,
      transport,
      budget: relayBudget,
      answers,
      limits: new RelayLimits(limiter),
      usageLog,
      cache,
      responses: new ResponseStore(store, clock),
      clock,
      log,
      metrics: relayMetrics,
    });
    const gate = new RelayGate(tokens, clock, (reason) => metrics.countAuthFailure(reason));
    const { relayBodyMax: bodyBytesMax, relayMaxInflight: maxInflight } = settings;
    warnOfLocked(channels, log);
    return new Relay({
      handle: createRelayHandler({
        gate,
        engine,
        tokens,
        pool,
        budget: parts.relayBodyBudget,
        bodyBytesMax,
        maxInflight,
      }),
      adminServices: {
        ...surface,
        channels: channelStore,
        tokens,
        usageLog: new UsageLogStore(store),
        monitor: channels,
        budget,
        clock,
      },
      engine,
      answers,
      usageLog,
      transport,
      timers: startTimers(parts, usageLog, channels),
    });
  }

  /** Everything below `/v1`. */
  get handle(): Handler {
    return this.#opened.handle;
  }

  /** For the management of it. */
  get adminServices(): RelayAdminServices {
    return this.#opened.adminServices;
  }

  /** Tells the clients of all that is under way that the server stops: no upstream is waited for any more. */
  interruptCalls(): void {
    this.#opened.engine.stop();
    this.#opened.answers.interruptStreams();
  }

  /** To be called when no request is waited for any more. What is still under way is given up, and logged. */
  async [Symbol.asyncDispose](): Promise<void> {
    const { timers, engine, usageLog, transport } = this.#opened;
    for (const timer of timers) clearInterval(timer);
    this.interruptCalls();
    const deadlineMs = performance.now() + LAST_CALLS_MS_MAX;
    while (engine.inflight > 0 && performance.now() < deadlineMs) await Bun.sleep(LAST_CALLS_POLL_MS);
    await usageLog[Symbol.asyncDispose]();
    await transport[Symbol.asyncDispose]();
  }
}

function openTransport({ relayAllowCidrs, relayAllowHttp, relayConnectMs: connectMs }: Settings, log: Log) {
  const rules = new AddressRules(relayAllowCidrs, relayAllowHttp);
  return new OutboundTransport({ what: "upstreams", rules, connectMs, log, env: process.env });
}

function boundsOf(settings: Settings): AttemptBounds {
  return {
    ttftMs: settings.relayTtftMs,
    totalMs: settings.relayTotalMs,
    idleMs: settings.relayIdleMs,
    responseBytesMax: settings.relayResponseMax,
    eventBytesMax: settings.relayEventMax,
  };
}

function startTimers({ settings, store, clock, log }: RelayParts, usageLog: UsageLog, channels: LiveChannels) {
  const purgeOld = () => purge(store, clock() - settings.relayLogDays * DAY_MS);
  // A server that is often restarted would never come to it.
  purgeOld().catch((error: unknown) => log.warn("old usage rows stay", { cause: causeTextOf(error) }));
  return [
    every(TOUCH_EVERY_MS, log, "uses of relay tokens could not be noted", () => usageLog.writeTouches()),
    every(PROBE_EVERY_MS, log, "channels could not be probed", () => channels.probe()),
    every(PURGE_EVERY_MS, log, "old usage rows stay", purgeOld),
  ];
}

function warnOfLocked({ locked }: LiveChannels, log: Log): void {
  if (locked.length === 0) return;
  log.error(`no secret opens the keys of these channels: they are locked. ${UNREADABLE_ADVICE}`, {
    channels: locked.join(","),
  });
}

/** In slices, so that no other write waits long. */
async function purge(store: TableStore<RelayUnits>, logsBeforeMs: number): Promise<void> {
  for (;;) {
    const { logs, responses } = await store.run("relay.purge", { logsBeforeMs, limit: PURGE_ROWS });
    if (logs < PURGE_ROWS && responses < PURGE_ROWS) return;
  }
}
