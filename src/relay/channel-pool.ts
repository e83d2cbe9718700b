// The channels in memory: which of them can be asked for a model, and what their last answers mean for the next.

import type { Clock } from "../shared/clock.ts";
import { CircuitBreaker } from "./circuit-breaker.ts";
import { Cooldown } from "./cooldown.ts";
import type { Endpoint } from "./relay-endpoints.ts";
import type { Channel } from "./relay-tables.ts";
import { apiRootOf } from "./upstream-url.ts";

const COOL_MS_DEFAULT = 5_000;
const COOL_MS_DEFAULT_MAX = 60_000;
const MODEL_OFF_MS = 600_000;
/** Models of one channel whose state is kept; those seen first are forgotten first. */
const MODELS_KEPT = 1000;

/** A channel with its opened key; null = no secret of the ring opens it: locked. */
interface OpenedChannel {
  readonly channel: Channel;
  readonly key: string | null;
}

/** What a channel calls a model. */
export function upstreamModelOf({ modelMapping }: Channel, model: string): string {
  return Object.hasOwn(modelMapping, model) ? modelMapping[model]! : model;
}

/** What was last heard of a channel's failures, for its operator; scrubbed. */
interface LastError {
  readonly code: string;
  readonly atMs: number;
}

interface ModelState {
  readonly cooling: Cooldown;
  /** 429s without a Retry-After since the last success. */
  rejections: number;
  /** By endpoint: a model that only chats is unknown where embeddings are made. */
  readonly off: Map<EndpointName, Cooldown>;
}

export type EndpointName = Endpoint["name"];

/** One channel and everything that is known of it in this process. */
export class PoolChannel {
  channel: Channel;
  key: string | null;
  /** What the paths of endpoints are appended to. */
  readonly apiRoot: string;
  lastError: LastError | null = null;
  readonly breaker: CircuitBreaker;
  readonly #clock: Clock;
  /** By what the channel calls them: names that mean the same model share its state. */
  readonly #models = new Map<string, ModelState>();

  constructor(opened: OpenedChannel, clock: Clock) {
    this.channel = opened.channel;
    this.key = opened.key;
    this.apiRoot = apiRootOf(opened.channel.baseUrl);
    this.#clock = clock;
    this.breaker = new CircuitBreaker(clock);
  }

  get isEnabled(): boolean {
    return this.channel.status === 1;
  }

  serves(model: string): boolean {
    const { models, modelMapping } = this.channel;
    return models.length === 0 || models.includes(model) || Object.hasOwn(modelMapping, model);
  }

  /** When it may be asked for `model` there, in ms since 1970: 0 = now. */
  waitUntilMs(model: string, endpoint: EndpointName): number {
    const nowMs = this.#clock();
    const state = this.#models.get(upstreamModelOf(this.channel, model));
    const blockedMs =
      state === undefined ? 0 : Math.max(state.cooling.untilMs(nowMs), state.off.get(endpoint)?.untilMs(nowMs) ?? 0);
    if (blockedMs > nowMs) return blockedMs;
    if (this.breaker.isPassable) return 0;
    // Half-open with its one request out: nobody knows for how long.
    return Math.max(this.breaker.openUntilMs, nowMs + 1000);
  }

  /** Whether its upstream said, not long ago, that it does not know the model there. */
  isOff(model: string, endpoint: EndpointName): boolean {
    const cooldown = this.#models.get(upstreamModelOf(this.channel, model))?.off.get(endpoint);
    return cooldown !== undefined && !cooldown.isOver(this.#clock());
  }

  /** `retryAfterMs` null = the upstream gave no time. Returns how long the model is left alone from now on, in ms. */
  cool(model: string, retryAfterMs: number | null): number {
    const state = this.#stateOf(model);
    const { cooling } = state;
    const nowMs = this.#clock();
    // What was under way when the first was refused is no reason to wait longer still.
    if (retryAfterMs === null && cooling.isOver(nowMs)) {
      const doubled = COOL_MS_DEFAULT * 2 ** Math.min(state.rejections++, 4);
      cooling.begin(nowMs, Math.min(COOL_MS_DEFAULT_MAX, doubled));
    } else if (retryAfterMs !== null) {
      cooling.extend(nowMs, retryAfterMs);
    }
    return cooling.untilMs(nowMs) - nowMs;
  }

  /** The upstream does not know the model there. */
  switchOff(model: string, endpoint: EndpointName): void {
    const { off } = this.#stateOf(model);
    const cooldown = off.get(endpoint) ?? new Cooldown();
    off.set(endpoint, cooldown);
    cooldown.begin(this.#clock(), MODEL_OFF_MS);
  }

  succeeded(model: string): void {
    const state = this.#models.get(upstreamModelOf(this.channel, model));
    if (state !== undefined) state.rejections = 0;
  }

  /** Forgets failures, cooldowns and models marked off. */
  reset(): void {
    this.breaker.reset();
    this.#models.clear();
  }

  cooling(): { model: string; untilMs: number }[] {
    const nowMs = this.#clock();
    return [...this.#models].flatMap(([model, { cooling }]) =>
      cooling.isOver(nowMs) ? [] : [{ model, untilMs: cooling.untilMs(nowMs) }],
    );
  }

  /** Those that are off at one endpoint at least. */
  modelsOff(): string[] {
    const nowMs = this.#clock();
    const isOff = ({ off }: ModelState) => [...off.values()].some((cooldown) => !cooldown.isOver(nowMs));
    return [...this.#models].flatMap(([model, state]) => (isOff(state) ? [model] : []));
  }

  #stateOf(name: string): ModelState {
    const model = upstreamModelOf(this.channel, name);
    let state = this.#models.get(model);
    if (state === undefined) {
      if (this.#models.size >= MODELS_KEPT) this.#models.delete(this.#models.keys().next().value!);
      state = { cooling: new Cooldown(), rejections: 0, off: new Map() };
      this.#models.set(model, state);
    }
    return state;
  }
}

/** Why no channel can be asked. */
export type Shortage = "none_enabled" | "none_serves" | { readonly waitUntilMs: number };

export class ChannelPool {
  readonly #clock: Clock;
  readonly #random: () => number;
  #channels = new Map<number, PoolChannel>();
  /** Those in use, by the groups of a token: it may be one of hundreds, and is asked for with every request. */
  #inUse = new WeakMap<readonly string[], readonly PoolChannel[]>();

  /** `random` gives numbers from 0 to below 1. */
  constructor(clock: Clock, random: () => number) {
    this.#clock = clock;
    this.#random = random;
  }

  get channels(): IterableIterator<PoolChannel> {
    return this.#channels.values();
  }

  find(id: number): PoolChannel | null {
    return this.#channels.get(id) ?? null;
  }

  /** The channels as they are stored now. What is known of those that stay is kept, unless their address changed. */
  replaceAll(opened: readonly OpenedChannel[]): void {
    const next = new Map<number, PoolChannel>();
    for (const one of opened) {
      const known = this.#channels.get(one.channel.id);
      const isSame = known !== undefined && known.channel.baseUrl === one.channel.baseUrl && known.key === one.key;
      const kept = isSame ? known : new PoolChannel(one, this.#clock);
      kept.channel = one.channel;
      next.set(one.channel.id, kept);
    }
    this.#channels = next;
    this.#inUse = new WeakMap();
  }

  /** Enabled and unlocked channels in one of the groups. */
  inGroups(groups: readonly string[]): readonly PoolChannel[] {
    let members = this.#inUse.get(groups);
    if (members === undefined) {
      members = [...this.#channels.values()].filter(
        (member) =>
          member.isEnabled && member.key !== null && member.channel.groups.some((group) => groups.includes(group)),
      );
      this.#inUse.set(groups, members);
    }
    return members;
  }

  /** Null when at least one of the models can be asked for there right now. */
  shortageOf(models: readonly string[], endpoint: EndpointName, groups: readonly string[]): Shortage | null {
    const enabled = this.inGroups(groups);
    if (enabled.length === 0) return "none_enabled";
    let soonestMs = Number.POSITIVE_INFINITY;
    for (const model of models) {
      for (const member of enabled) {
        if (member.serves(model)) soonestMs = Math.min(soonestMs, member.waitUntilMs(model, endpoint));
      }
    }
    if (soonestMs === 0) return null;
    const isKnown = models.some((model) =>
      enabled.some((member) => member.serves(model) && !member.isOff(model, endpoint)),
    );
    return isKnown ? { waitUntilMs: soonestMs } : "none_serves";
  }

  /**
   * Of the channels that can be asked now and were not `tried`: those of the highest priority, one of them at random,
   * in proportion to the weights; weight 0 only when all have it.
   */
  pick(
    model: string,
    endpoint: EndpointName,
    groups: readonly string[],
    tried: ReadonlySet<number>,
  ): PoolChannel | null {
    let best: PoolChannel[] = [];
    let priority = Number.NEGATIVE_INFINITY;
    let sum = 0;
    for (const member of this.inGroups(groups)) {
      const { channel } = member;
      if (channel.priority < priority || tried.has(channel.id) || !member.serves(model)) continue;
      if (member.waitUntilMs(model, endpoint) !== 0) continue;
      if (channel.priority > priority) [best, priority, sum] = [[], channel.priority, 0];
      best.push(member);
      sum += channel.weight;
    }
    if (best.length === 0) return null;
    if (sum === 0) return best[Math.floor(this.#random() * best.length)]!;
    let left = this.#random() * sum;
    for (const member of best) {
      left -= member.channel.weight;
      if (left < 0) return member;
    }
    return best.findLast(({ channel }) => channel.weight > 0)!;
  }
}
