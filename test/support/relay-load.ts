// Many clients of a relay that go on asking whatever happens, and remember what they were told.

import type { Plan } from "./fault-upstream.ts";
import { chatAnswer } from "./relay-books.ts";
import type { TokenJson } from "./relay-client.ts";
import type { Random } from "./seeded-random.ts";
import type { Target } from "./targets.ts";
import {
  afterMs,
  answerJson,
  answerText,
  chatChunk,
  cutAnswer,
  DONE,
  errorFrame,
  rateLimit,
  refuse,
  resetAtOnce,
  stream,
} from "./upstream-plans.ts";

export interface LoadOptions {
  readonly random: Random;
  /** How often a client leaves before it has its whole answer. */
  readonly leaves: number;
  /** How often it asks for a stream. */
  readonly streams: number;
}

/** Clients of one token, each with one request at a time, until `stop`. */
export class RelayLoad {
  readonly #target: Target;
  readonly #token: TokenJson;
  readonly #options: LoadOptions;
  readonly #clients: Promise<void>[] = [];
  #isOver = false;
  /** When each answer that came whole had come, by performance.now(). */
  readonly completedMs: number[] = [];
  readonly statuses = new Map<number, number>();
  asked = 0;
  failed = 0;

  constructor(target: Target, token: TokenJson, options: LoadOptions) {
    this.#target = target;
    this.#token = token;
    this.#options = options;
  }

  start(clients: number): this {
    for (let index = 0; index < clients; index++) this.#clients.push(this.#ask());
    return this;
  }

  /** No request is begun any more; resolves when all are over. */
  async stop(): Promise<void> {
    this.#isOver = true;
    await Promise.all(this.#clients);
  }

  async #ask(): Promise<void> {
    const { random, leaves, streams } = this.#options;
    while (!this.#isOver) {
      this.asked++;
      const abort = new AbortController();
      const timer = random.chance(leaves) ? setTimeout(() => abort.abort(), random.below(60)) : null;
      try {
        const answer = await this.#target.fetch("/v1/chat/completions", {
          method: "POST",
          headers: { Authorization: `Bearer ${this.#token.key}` },
          signal: abort.signal,
          body: JSON.stringify({
            model: `m${random.below(3)}`,
            messages: [{ role: "user", content: "hi" }],
            max_tokens: 50,
            stream: random.chance(streams),
          }),
        });
        await answer.text();
        this.statuses.set(answer.status, (this.statuses.get(answer.status) ?? 0) + 1);
        if (answer.ok) this.completedMs.push(performance.now());
        // A refusal costs nothing: without a pause it would be all that is tested.
        else await Bun.sleep(5);
      } catch {
        this.failed++;
        // The server may be gone: whoever stops it stops this load, too.
        await Bun.sleep(5);
      }
      if (timer !== null) clearTimeout(timer);
    }
  }
}

const USAGE = { prompt_tokens: 3, completion_tokens: 4 };

/** A stream of `events` texts, one every `gapMs`, with its usage at the end. */
export function slowStream(events: number, gapMs: number): Plan {
  const texts = Array.from({ length: events }, (_, index) => chatChunk(`text ${index} `));
  return stream({ events: [...texts, chatChunk("", "stop", { usage: USAGE }), DONE], gapMs });
}

/** Answers in the form that was asked for, in good health, a little later. */
export const answerSoon: Plan = (exchange) => {
  const isStream = exchange.request.json.stream === true;
  return (isStream ? slowStream(4, 10) : afterMs(10, answerJson(chatAnswer("yes", USAGE))))(exchange);
};

/** Every fault that a provider is known for, and good answers between them; chosen by `random`. */
export function mixedFaults(random: Random): Plan {
  const faults: readonly Plan[] = [
    rateLimit({ "retry-after": "1" }),
    refuse(500, { code: "oh_no" }),
    refuse(400, { code: "bad_thing" }),
    resetAtOnce,
    cutAnswer('{"id":'),
    answerText("<html>", "text/html"),
    afterMs(300, answerSoon),
    stream({ events: [chatChunk("a"), chatChunk("b")], end: "reset", gapMs: 5 }),
    stream({ events: [chatChunk("a"), errorFrame], gapMs: 5 }),
    stream({ events: [errorFrame] }),
    stream({ events: [chatChunk("a"), chatChunk("b")], gapMs: 5, end: "clean" }),
    answerJson(chatAnswer("no", { prompt_tokens: -1 })),
    stream({ events: [`data: ${"x".repeat(100_000)}\n\n`, chatChunk("a", "stop"), DONE] }),
  ];
  return (exchange) => (random.chance(0.3) ? random.pick(faults) : answerSoon)(exchange);
}
