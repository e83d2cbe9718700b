// A corner of a relay for one test: upstreams, a channel to each, and a token that reaches these alone.

import { eventually } from "./eventually.ts";
import { FaultUpstream, type Plan } from "./fault-upstream.ts";
import {
  ask,
  type ChannelJson,
  chat,
  dataOf,
  type Json,
  type LogRowJson,
  makeChannel,
  makeToken,
  manage,
  managed,
  readLog,
  type TokenJson,
} from "./relay-client.ts";
import type { Target, TargetInit } from "./targets.ts";

const LOG_MS_MAX = 5_000;

/** Of the health of a channel, as far as tests look at it. */
export interface HealthJson extends Json {
  readonly status: number;
  readonly state: string;
  readonly until: number | null;
  readonly requests: number;
  readonly failures: number;
  readonly success_rate: number | null;
  readonly cooling: readonly { readonly model: string; readonly until: number }[];
  readonly models_off: readonly string[];
  readonly last_error: { readonly code: string; readonly at: number } | null;
}

/** Its group is its own, so that tests of one target can run side by side. */
export class RelayRig implements AsyncDisposable {
  readonly target: Target;
  readonly group: string;
  readonly token: TokenJson;
  /** In the order of their channels. */
  readonly upstreams: readonly FaultUpstream[];
  readonly channels: readonly ChannelJson[];

  private constructor(parts: {
    target: Target;
    group: string;
    token: TokenJson;
    upstreams: readonly FaultUpstream[];
    channels: readonly ChannelJson[];
  }) {
    this.target = parts.target;
    this.group = parts.group;
    this.token = parts.token;
    this.upstreams = parts.upstreams;
    this.channels = parts.channels;
  }

  /** One channel for each of `channels`: the first is asked first, unless its fields say otherwise. */
  static async open(target: Target, channels: readonly Json[] = [{}], tokenFields: Json = {}): Promise<RelayRig> {
    const group = `rig-${crypto.randomUUID()}`;
    const upstreams = await Promise.all(channels.map(() => FaultUpstream.start()));
    const made: ChannelJson[] = [];
    for (const [index, fields] of channels.entries()) {
      const key = `sk-upstream-${crypto.randomUUID()}`;
      made.push(await makeChannel(target, upstreams[index]!, { key, group, priority: 100 - index, ...fields }));
    }
    const token = await makeToken(target, { group, ...tokenFields });
    return new RelayRig({ target, group, token, upstreams, channels: made });
  }

  /** The first upstream; for tests with one channel. */
  get upstream(): FaultUpstream {
    return this.upstreams[0]!;
  }

  /** How often each upstream was asked. */
  get calls(): number[] {
    return this.upstreams.map(({ requests }) => requests.length);
  }

  /** Each upstream does the same from now on as its plan says; without one it answers well. */
  plan(...plans: readonly (Plan | null)[]): void {
    for (const [index, plan] of plans.entries()) {
      if (plan !== null) this.upstreams[index]!.always(plan);
    }
  }

  chat(fields: Json = {}, init: TargetInit = {}): Promise<Response> {
    return chat(this.target, this.token.key, fields, init);
  }

  post(path: string, body: unknown, init: TargetInit = {}): Promise<Response> {
    return ask(this.target, this.token.key, path, body, init);
  }

  /** The channel of this number, counted from 0, as it is stored. */
  channel(index: number): Promise<ChannelJson> {
    return managed<ChannelJson>(this.target, "GET", `/api/channel/${this.channels[index]!.id}`);
  }

  health(index: number): Promise<HealthJson> {
    return managed<HealthJson>(this.target, "GET", `/api/channel/${this.channels[index]!.id}/health`);
  }

  /** Asks for `POST /api/channel/:id/<action>`. */
  act(index: number, action: string, body?: Json): Promise<Response> {
    return manage(this.target, "POST", `/api/channel/${this.channels[index]!.id}/${action}`, body);
  }

  /** The log rows of the token, oldest first, as soon as there are `count` of them. */
  async rows(count: number): Promise<LogRowJson[]> {
    let rows: LogRowJson[] = [];
    await eventually(`${count} rows of the usage log`, LOG_MS_MAX, async () => {
      rows = await readLog(this.target, `token_id=${this.token.id}&limit=1000`);
      return rows.length >= count;
    });
    return rows.reverse();
  }

  /**
   * The only row of what was asked so far. A further request, which must succeed, is logged behind it: a second row
   * would stand between the two.
   */
  async onlyRow(): Promise<LogRowJson> {
    const [row] = await this.rows(1);
    for (const upstream of this.upstreams) upstream.reset();
    const marker = await this.chat({ model: "marker" });
    await marker.arrayBuffer();
    const rows = await this.rows(2);
    if (rows.length !== 2 || rows[1]!.model !== "marker") throw new Error(`rows: ${JSON.stringify(rows)}`);
    return row!;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const mistakes = this.upstreams.flatMap((upstream) => upstream.mistakes);
    await Promise.all(this.upstreams.map((upstream) => upstream[Symbol.asyncDispose]()));
    // Channels to nowhere would be probed as long as the target lives.
    for (const { id } of this.channels) await manage(this.target, "DELETE", `/api/channel/${id}`);
    if (mistakes.length > 0) throw mistakes[0];
  }
}

/** The text of a chat, from a whole answer or from all chunks of a stream. */
export async function chatTextOf(answer: Response): Promise<string> {
  const text = await answer.text();
  if (!answer.headers.get("content-type")?.startsWith("text/event-stream")) {
    return (JSON.parse(text) as { choices: [{ message: { content: string } }] }).choices[0].message.content;
  }
  return dataOf(text)
    .filter((data) => data !== "[DONE]")
    .map((data) => JSON.parse(data) as { choices: { delta: { content?: string } }[] })
    .map(({ choices }) => choices[0]?.delta.content ?? "")
    .join("");
}
