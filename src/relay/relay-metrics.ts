// The figures of the relay. Labels hold channels, routes and fixed words; never a token, a model or a prompt.

import { Counter, Gauge, type Registry } from "prom-client";
import { HotCounter, HotHistogram } from "../http/hot-figures.ts";
import type { ChannelState } from "./channel-monitor.ts";
import type { PoolChannel } from "./channel-pool.ts";
import { stateOf } from "./live-channels.ts";
import type { NewLogRow } from "./relay-tables.ts";
import type { AttemptResult } from "./upstream-attempt.ts";

const SHORT_SECONDS = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1];
const LONG_SECONDS = [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600];
const STATES = ["closed", "open", "half_open", "cooling", "disabled", "locked"] as const satisfies (
  | ChannelState
  | "disabled"
)[];

interface RelayFigures {
  readonly inflight: number;
  readonly logQueue: number;
  readonly logDropped: number;
  readonly channels: Iterable<PoolChannel>;
}

export class RelayMetrics {
  readonly #requests: HotCounter;
  readonly #attempts: HotCounter;
  readonly #overhead: HotHistogram;
  readonly #ttft: HotHistogram;
  readonly #upstream: HotHistogram;
  readonly #tokens: HotCounter;
  readonly #cache: HotCounter;
  readonly #aborts: HotCounter;

  constructor(registry: Registry, figures: () => RelayFigures) {
    const counter = (name: string, help: string, labelNames: readonly string[]) =>
      new HotCounter(registry, { name: `gokv_relay_${name}`, help, labelNames });
    const seconds = (name: string, help: string, bounds: readonly number[], more: { labelNames?: string[] } = {}) =>
      new HotHistogram(registry, { name: `gokv_relay_${name}`, help, bounds, ...more });
    this.#requests = counter("requests_total", "Relayed requests.", ["route", "status", "stream"]);
    this.#attempts = counter("attempts_total", "Requests to upstreams.", ["channel", "outcome"]);
    this.#overhead = seconds("overhead_seconds", "Time not spent waiting for an upstream.", SHORT_SECONDS);
    this.#ttft = seconds("ttft_seconds", "Time to the first event of a stream.", LONG_SECONDS);
    const byChannel = { labelNames: ["channel"] };
    this.#upstream = seconds("upstream_seconds", "Time of a request to an upstream.", LONG_SECONDS, byChannel);
    this.#tokens = counter("tokens_total", "Tokens of models.", ["kind"]);
    this.#cache = counter("cache_total", "Requests that asked for a kept answer.", ["result"]);
    this.#aborts = counter("aborts_total", "Requests whose client left.", ["phase"]);
    for (const result of ["hit", "miss"]) this.#cache.add(result, 0);
    for (const phase of ["before_answer", "stream"]) this.#aborts.add(phase, 0);
    observe(registry, figures);
  }

  countCall(row: NewLogRow): void {
    this.#requests.add(`${row.route},${row.status},${row.stream}`);
    this.#overhead.observe(row.overhead_ms / 1000);
    if (row.ttft_ms !== null) this.#ttft.observe(row.ttft_ms / 1000);
    this.#tokens.add("prompt", row.prompt_tokens);
    this.#tokens.add("completion", row.completion_tokens);
    this.#tokens.add("cached", row.cached_tokens);
  }

  countAttempt(channelId: number, result: AttemptResult, tookMs: number): void {
    const channel = `${channelId}`;
    const outcome = result.kind === "failure" ? result.failure.kind : result.kind;
    this.#attempts.add(`${channel},${outcome}`);
    this.#upstream.observe(tookMs / 1000, channel);
  }

  countCache(result: "hit" | "miss"): void {
    this.#cache.add(result);
  }

  countAbort(phase: "before_answer" | "stream"): void {
    this.#aborts.add(phase);
  }
}

/** Figures that are read when somebody asks. */
function observe(registry: Registry, figures: () => RelayFigures): void {
  const registers = [registry];
  const gauge = (name: string, help: string, read: () => number) =>
    new Gauge({
      name: `gokv_relay_${name}`,
      help,
      registers,
      collect() {
        this.set(read());
      },
    });
  gauge("inflight", "Relayed requests at work.", () => figures().inflight);
  gauge("log_queue", "Rows of the usage log that wait to be stored.", () => figures().logQueue);
  new Counter({
    name: "gokv_relay_log_dropped_total",
    help: "Rows of the usage log that found the queue full.",
    registers,
    collect() {
      this.reset();
      this.inc(figures().logDropped);
    },
  });
  new Gauge({
    name: "gokv_relay_channel_state",
    help: "1 for the state that a channel is in.",
    labelNames: ["channel", "state"],
    registers,
    collect() {
      this.reset();
      for (const member of figures().channels) {
        const current = shownState(member);
        for (const state of STATES) this.set({ channel: `${member.channel.id}`, state }, current === state ? 1 : 0);
      }
    },
  });
}

/** As its health says, but for one that is out of use. */
function shownState(member: PoolChannel): (typeof STATES)[number] {
  if (member.key !== null && !member.isEnabled) return "disabled";
  return stateOf(member, member.cooling()).state;
}
