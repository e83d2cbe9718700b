// What the management of channels asks of those who call upstream: how a channel fares, and a try right now.

import type { Channel } from "./relay-tables.ts";

/** Locked: no secret opens its key. Cooling: at least one of its models waits after a 429. */
export type ChannelState = "closed" | "open" | "half_open" | "cooling" | "locked";

/** Times in ms since 1970. */
export interface ChannelHealth {
  readonly state: ChannelState;
  /** When the state ends by itself; null = it does not. */
  readonly untilMs: number | null;
  /** In the window of the breaker. */
  readonly requests: number;
  readonly failures: number;
  readonly cooling: readonly { readonly model: string; readonly untilMs: number }[];
  readonly modelsOff: readonly string[];
  /** Scrubbed. */
  readonly lastError: { readonly code: string; readonly atMs: number } | null;
}

/** The outcome of one request to an upstream. */
export interface TestReport {
  readonly isSuccess: boolean;
  /** Of the upstream; null when it gave none. */
  readonly status: number | null;
  readonly timeMs: number;
  /** Null without a first event, or when nothing was streamed. */
  readonly ttftMs: number | null;
  readonly model: string;
  /** Scrubbed; null after a success. */
  readonly error: string | null;
}

export interface ChannelMonitor {
  /** Whether the address may be reached. @throws AppError base_url_refused */
  check(baseUrl: string): Promise<void>;
  /** Null for a channel that is not known yet. */
  health(id: number): ChannelHealth | null;
  /** Sends one small request. A success closes the breaker. Never throws for what the upstream does. */
  test(channel: Channel, options: { readonly model: string; readonly isStream: boolean }): Promise<TestReport>;
  /** Forgets failures, cooldowns and models marked off. */
  reset(id: number): void;
  /** Takes the channels as they are stored now; to be awaited before a change of them is answered. */
  changed(): Promise<void>;
  /** What the upstream serves. @throws AppError upstream_failed, with a scrubbed message */
  readModels(channel: Channel): Promise<readonly string[]>;
}
