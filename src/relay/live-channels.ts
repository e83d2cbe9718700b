// The channels at work: read into the pool, tested, disabled when their keys fail, probed until they work again.

import type { ByteBudget } from "../http/byte-budget.ts";
import type { Objection, OutboundTransport } from "../http/outbound-transport.ts";
import type { Clock } from "../shared/clock.ts";
import { AppError, messageOf } from "../shared/errors.ts";
import type { Log } from "../shared/log.ts";
import type { ChannelHealth, ChannelMonitor, ChannelState, TestReport } from "./channel-monitor.ts";
import { type ChannelPool, PoolChannel, upstreamModelOf } from "./channel-pool.ts";
import type { ChannelStore } from "./channel-store.ts";
import { UNREADABLE_ADVICE } from "./channel-units.ts";
import { ENDPOINTS, type Endpoint } from "./relay-endpoints.ts";
import { RelayError, streamError } from "./relay-errors.ts";
import type { Channel } from "./relay-tables.ts";
import { StreamWatch } from "./stream-watch.ts";
import { type AttemptBounds, type AttemptResult, attemptUpstream, type BegunStream } from "./upstream-attempt.ts";
import { createScrubber, type Scrubber } from "./upstream-error.ts";

const PROBE_MS_MIN = 60_000;
const PROBE_MS_MAX = 3_600_000;
/** For a list of models. */
const MODELS_MS_MAX = 30_000;
/** How soon a channel that stayed enabled as the last of a group is judged again, if no channel was changed since. */
const BAN_AGAIN_MS = 10_000;
const TEST_TOKENS = 16;
/** Models that do not know `max_tokens` think before they answer, and some refuse a bound that they cannot keep. */
const THINKING_TEST_TOKENS = 1024;
const DISCOVERED_MODELS_MAX = 10_000;
const REFUSALS: Readonly<Record<Objection, string>> = {
  plain_http: "base_url must use https: plain http needs RELAY_ALLOW_HTTP=1 or an address in RELAY_ALLOW_CIDRS.",
  address: "base_url leads to an address that is not allowed; RELAY_ALLOW_CIDRS can allow it.",
};

/** When a disabled channel is asked again, and how long it waits after that. */
interface Probe {
  dueMs: number;
  delayMs: number;
}

export class LiveChannels implements ChannelMonitor {
  readonly #store: ChannelStore;
  readonly #pool: ChannelPool;
  readonly #transport: OutboundTransport;
  readonly #bounds: AttemptBounds;
  readonly #budget: ByteBudget;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #probes = new Map<number, Probe>();
  /** When a channel was last to be disabled, since channels were changed. */
  readonly #bannedMs = new Map<number, number>();
  /** When the key of a channel was last refused, or that was last to be forgotten. */
  readonly #refusedMs = new Map<number, number>();

  constructor(parts: {
    store: ChannelStore;
    pool: ChannelPool;
    transport: OutboundTransport;
    bounds: AttemptBounds;
    budget: ByteBudget;
    clock: Clock;
    log: Log;
  }) {
    this.#store = parts.store;
    this.#pool = parts.pool;
    this.#transport = parts.transport;
    this.#bounds = parts.bounds;
    this.#budget = parts.budget;
    this.#clock = parts.clock;
    this.#log = parts.log;
  }

  /** Ids of channels whose key no secret opens. */
  get locked(): number[] {
    return [...this.#pool.channels].flatMap(({ key, channel }) => (key === null ? [channel.id] : []));
  }

  async changed(): Promise<void> {
    await this.#readChannels();
    // Groups may have others by now.
    this.#bannedMs.clear();
  }

  async #readChannels(): Promise<void> {
    const channels = await this.#store.list();
    this.#pool.replaceAll(channels.map((channel) => ({ channel, key: this.#store.keyOf(channel) })));
    this.#planProbes();
  }

  async check(baseUrl: string): Promise<void> {
    const objection = await this.#transport.judge(baseUrl);
    if (objection === null) return;
    throw new AppError("base_url_refused", REFUSALS[objection], { details: { field: "base_url" } });
  }

  health(id: number): ChannelHealth | null {
    const member = this.#pool.find(id);
    if (member === null) return null;
    const cooling = member.cooling();
    const { state, untilMs } = stateOf(member, cooling);
    const { requests, failures } = member.breaker.figures;
    const { lastError } = member;
    return { state, untilMs, requests, failures, cooling, modelsOff: member.modelsOff(), lastError };
  }

  reset(id: number): void {
    this.#pool.find(id)?.reset();
  }

  async test(channel: Channel, { model, isStream }: { model: string; isStream: boolean }): Promise<TestReport> {
    const member = this.#memberOf(channel);
    const startedMs = performance.now();
    const result = await this.#tryChat(member, channel, { model, isStream });
    const ttftMs = result.kind === "stream" ? performance.now() - startedMs : null;
    const error = await this.#problemOf(member, result);
    const timeMs = performance.now() - startedMs;
    const isSuccess = error === null;
    if (isSuccess) member.breaker.reset();
    return { isSuccess, status: statusOf(result), timeMs, ttftMs, model, error };
  }

  /** One small request; another one when the upstream refuses the name of its bound, as OpenAI does for some models. */
  async #tryChat(
    member: PoolChannel,
    channel: Channel,
    asked: { readonly model: string; readonly isStream: boolean },
  ): Promise<AttemptResult> {
    const { isStream } = asked;
    const model = upstreamModelOf(channel, asked.model);
    // As the streams of clients ask it: a test that passes says that they do.
    const options = channel.noStreamOptions ? {} : { stream_options: { include_usage: true } };
    const startedMs = performance.now();
    const { totalMs } = this.#bounds;
    const send = (bound: Readonly<Record<string, number>>) => {
      const messages = [{ role: "user", content: "hi" }];
      const body = JSON.stringify({ model, messages, ...bound, ...(isStream ? { stream: true, ...options } : {}) });
      const leftMs = Math.max(1, totalMs - (performance.now() - startedMs));
      return this.#ask(member, { endpoint: ENDPOINTS.chat, body, isStream, totalMs: leftMs });
    };
    const result = await send({ max_tokens: TEST_TOKENS });
    return refusesMaxTokens(result) ? send({ max_completion_tokens: THINKING_TEST_TOKENS }) : result;
  }

  async readModels(channel: Channel): Promise<readonly string[]> {
    const member = this.#memberOf(channel);
    const result = await this.#askModels(member);
    const data = result.kind === "answer" ? dataOf(result.bytes) : null;
    if (data !== null) return data;
    throw new AppError(
      "upstream_failed",
      (await this.#problemOf(member, result)) ?? "The upstream sent no list of models.",
    );
  }

  /**
   * Its key was refused. In force in memory at once: unless it is the last of a group, or is not to be disabled by
   * itself, nothing more is sent to it.
   */
  async disable(member: PoolChannel, reason: string): Promise<void> {
    const { channel } = member;
    if (!channel.autoBan || channel.status !== 1) return;
    const nowMs = this.#clock();
    this.#refusedMs.set(channel.id, nowMs);
    // It stayed enabled as the last of a group: not each of its refusals is worth a commit.
    if (channel.statusReason === reason && isRecent(this.#bannedMs.get(channel.id), nowMs)) return;
    this.#bannedMs.set(channel.id, nowMs);
    const { id, sealedKey } = channel;
    const isBanned = await this.#store.change("relay.banChannel", { id, sealedKey, reason, unusable: this.locked });
    await this.#readChannels();
    if (isBanned) this.#log.warn("a channel was disabled: its key is refused", { channel: id, reason });
  }

  /** Asks the disabled channels that are due whether their keys work again. To be called now and then. */
  async probe(): Promise<void> {
    const nowMs = this.#clock();
    const due = [...this.#probes].filter(([, probe]) => isDue(probe, nowMs));
    await Promise.all(
      due.map(async ([id, probe]) => {
        probe.delayMs = Math.min(PROBE_MS_MAX, probe.delayMs * 2);
        probe.dueMs = nowMs + probe.delayMs;
        const member = this.#pool.find(id);
        if (member === null || member.key === null) return;
        const result = await this.#askModels(member);
        if (result.kind !== "answer") return;
        await this.#store.change("relay.liftBan", { id });
        await this.changed();
        this.#log.info("a disabled channel works again", { channel: id });
      }),
    );
  }

  /** A real success: should its key fail again, it is asked again soon. */
  noteSuccess({ channel }: PoolChannel): void {
    // What was under way when it was disabled says nothing of its key.
    if (channel.status !== 1) return;
    this.#probes.delete(channel.id);
    if (channel.statusReason !== null) this.#forgetReason(channel, channel.statusReason);
  }

  /** A key that works and is refused by turns keeps its reason, and costs no commit for each request. */
  #forgetReason({ id, sealedKey }: Channel, reason: string): void {
    const nowMs = this.#clock();
    if (isRecent(this.#refusedMs.get(id), nowMs)) return;
    this.#refusedMs.set(id, nowMs);
    this.#store
      .change("relay.forgetReason", { id, sealedKey, reason })
      .then(() => this.#readChannels())
      .catch((cause: unknown) => {
        this.#log.warn("the reason of a refused key stays noted", { channel: id, cause: messageOf(cause) });
      });
  }

  #planProbes(): void {
    const nowMs = this.#clock();
    for (const { channel } of this.#pool.channels) {
      const probe = this.#probes.get(channel.id);
      if (channel.status === 3) {
        if (probe === undefined) {
          this.#probes.set(channel.id, { dueMs: nowMs + PROBE_MS_MIN, delayMs: PROBE_MS_MIN });
        } else if (probe.dueMs === Number.POSITIVE_INFINITY) {
          probe.dueMs = nowMs + probe.delayMs;
        }
      } else if (probe !== undefined) {
        // The delay stays: a key that is refused again right after its probe waits longer.
        probe.dueMs = Number.POSITIVE_INFINITY;
      }
    }
    for (const kept of [this.#probes, this.#bannedMs, this.#refusedMs]) {
      for (const id of kept.keys()) if (this.#pool.find(id) === null) kept.delete(id);
    }
  }

  /** As it is stored, which may be newer than the pool. @throws AppError key_unreadable */
  #memberOf(channel: Channel): PoolChannel {
    const key = this.#store.keyOf(channel);
    if (key === null)
      throw new AppError("key_unreadable", `No secret opens the key of this channel. ${UNREADABLE_ADVICE}`);
    return this.#pool.find(channel.id) ?? new PoolChannel({ channel, key }, this.#clock);
  }

  /** What an operator is told of a failure, scrubbed; null = it is none. */
  async #problemOf(member: PoolChannel, result: AttemptResult): Promise<string | null> {
    const scrub = createScrubber([member.key!]);
    if (result.kind === "stream") return problemOfStream(result, scrub);
    if (result.kind !== "failure") return null;
    const { failure, answer } = result;
    // Clients learn nothing of addresses; an operator can do something about them.
    if (failure.kind !== "unreachable") return scrub(answer.error.message);
    const { isAddressRefused, systemCode } = failure;
    if (isAddressRefused) return REFUSALS[(await this.#transport.judge(member.channel.baseUrl)) ?? "address"];
    return systemCode === null ? answer.error.message : `${answer.error.message} (${systemCode})`;
  }

  #askModels(member: PoolChannel): Promise<AttemptResult> {
    const totalMs = Math.min(this.#bounds.totalMs, MODELS_MS_MAX);
    return this.#ask(member, { endpoint: MODELS, body: null, isStream: false, totalMs });
  }

  async #ask(
    member: PoolChannel,
    {
      endpoint,
      body,
      isStream,
      totalMs,
    }: { endpoint: Endpoint; body: string | null; isStream: boolean; totalMs: number },
  ): Promise<AttemptResult> {
    const result = await attemptForOperator(this.#transport, member, {
      endpoint,
      method: body === null ? "GET" : "POST",
      subpath: "",
      body,
      isStream,
      whenGivenUp: never,
      passedHeaders: { "content-type": "application/json", "accept-encoding": "identity" },
      bounds: { ...this.#bounds, totalMs },
      budget: this.#budget,
    });
    // Nothing but a few names is kept of it.
    if (result.kind === "answer") result.release();
    return result;
  }
}

/** A clock that was set back makes it due: it would wait for longer than its delay. */
function isDue({ dueMs, delayMs }: Probe, nowMs: number): boolean {
  return dueMs <= nowMs || (dueMs !== Number.POSITIVE_INFINITY && dueMs > nowMs + delayMs);
}

/** What lies ahead was noted before the clock was set back. */
function isRecent(atMs: number | undefined, nowMs: number): boolean {
  return atMs !== undefined && Math.abs(nowMs - atMs) < BAN_AGAIN_MS;
}

/** Who asks is no client of the relay. @throws AppError overloaded */
async function attemptForOperator(...asked: Parameters<typeof attemptUpstream>): Promise<AttemptResult> {
  try {
    return await attemptUpstream(...asked);
  } catch (error) {
    if (!(error instanceof RelayError && error.code === "overloaded")) throw error;
    throw new AppError("overloaded", "Too many answers are being received. Try again.", { cause: error });
  }
}

/** The operator who asked is told in any case. */
const never = () => () => undefined;

/** Together answers with the bare list. */
const MODELS = { ...ENDPOINTS.moderations, path: "/models", mayBeArray: true } as const;

/** Of the upstream. */
function statusOf(result: AttemptResult): number | null {
  if (result.kind === "client_gone") return null;
  return result.kind === "failure" ? result.answer.upstreamStatus : result.status;
}

/** By what names the fault, not by its message. */
function refusesMaxTokens(result: AttemptResult): boolean {
  if (result.kind !== "failure") return false;
  const { failure, answer } = result;
  return failure.kind === "status" && failure.status === 400 && answer.error.param === "max_tokens";
}

/** Reads it to its end, and judges it as the stream of a client is judged. */
async function problemOfStream({ source, first, end }: BegunStream, scrub: Scrubber): Promise<string | null> {
  const watch = new StreamWatch(ENDPOINTS.chat, true, scrub);
  try {
    for (let events: readonly Uint8Array[] | null = first; events !== null; events = await source.next()) {
      for (const event of events) {
        const verdict = watch.see(event);
        if (typeof verdict === "object" && "error" in verdict) return verdict.error.message;
        if (watch.isDone) return null;
      }
    }
    return watch.isComplete ? null : streamError("upstream_stream_interrupted").message;
  } finally {
    source.release();
    end();
  }
}

/** For its operator and for the figures. `cooling` are its models that wait. */
export function stateOf(
  { key, breaker }: PoolChannel,
  cooling: readonly { untilMs: number }[],
): { state: ChannelState; untilMs: number | null } {
  if (key === null) return { state: "locked", untilMs: null };
  if (breaker.state !== "closed") return { state: breaker.state, untilMs: breaker.openUntilMs };
  if (cooling.length === 0) return { state: "closed", untilMs: null };
  return { state: "cooling", untilMs: Math.max(...cooling.map(({ untilMs }) => untilMs)) };
}

function dataOf(bytes: Uint8Array): string[] | null {
  try {
    const value = JSON.parse(new TextDecoder().decode(bytes)) as { data?: unknown };
    const data: unknown = Array.isArray(value) ? value : value.data;
    if (!Array.isArray(data)) return null;
    return data
      .flatMap((entry: { id?: unknown }) => (typeof entry?.id === "string" ? [entry.id] : []))
      .slice(0, DISCOVERED_MODELS_MAX);
  } catch {
    return null;
  }
}
