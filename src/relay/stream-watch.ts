// What the events of a stream mean, one after the other: which pass, which is the last, what was used.

import { isObject, parseJson } from "../shared/json-text.ts";
import { isLateLineFeed, parseEvent } from "./event-splitter.ts";
import type { Endpoint } from "./relay-endpoints.ts";
import type { ErrorObject } from "./relay-errors.ts";
import { outputTextBytes, type TokenUsage, usageOf } from "./token-usage.ts";
import { errorInSuccess, readUpstreamError, type Scrubber, scrubError, scrubValue } from "./upstream-error.ts";

/** What is to be done with an event: an error ends the stream, another event goes in its place. */
type EventVerdict = "pass" | "drop" | { readonly error: ErrorObject } | { readonly event: Uint8Array };

const DONE = "[DONE]";
const RESPONSE_ENDS = new Set(["response.completed", "response.incomplete", "response.failed"]);

type Json = Readonly<Record<string, unknown>>;

export class StreamWatch {
  readonly #endpoint: Endpoint;
  readonly #wantsUsage: boolean;
  readonly #scrub: Scrubber;
  usage: TokenUsage | null = null;
  /** The id of a response, from the first event that has it. */
  responseId: string | null = null;
  /** Bytes of text that the client was sent, for an estimate. */
  outputBytes = 0;
  /** The closing mark was sent. */
  isDone = false;
  /** Whether the event before went to the client as it came. */
  #hasPassed = true;
  /** Choices that have begun, and those of them whose end was named. */
  readonly #begun = new Set<number>();
  readonly #finished = new Set<number>();

  /**
   * `wantsUsage`: the client asked for the chunk that only tells what was used. `scrub` takes keys out of what an
   * upstream says of a failure.
   */
  constructor(endpoint: Endpoint, wantsUsage: boolean, scrub: Scrubber) {
    this.#endpoint = endpoint;
    this.#wantsUsage = wantsUsage;
    this.#scrub = scrub;
  }

  /** Whether the client can take what it has for the whole. */
  get isComplete(): boolean {
    return this.isDone || (this.#finished.size > 0 && this.#finished.size === this.#begun.size);
  }

  /** A whole event, with its blank line; or the rest of its line end, which goes the same way. */
  see(event: Uint8Array): EventVerdict {
    if (isLateLineFeed(event)) return this.#hasPassed ? "pass" : "drop";
    const verdict = this.#judge(event);
    this.#hasPassed = verdict === "pass";
    return verdict;
  }

  #judge(event: Uint8Array): EventVerdict {
    const { event: name, data } = parseEvent(event);
    if (data === null) return "pass";
    if (data === DONE) {
      this.isDone = true;
      return "pass";
    }
    const value = parsed(data);
    // An event of this name is an error in whatever form, and may quote a key.
    const failure = name === "error" ? readUpstreamError(500, data, null) : errorInSuccess(value);
    if (failure !== null) return { error: scrubError(failure.error, this.#scrub) };
    // Not ours to judge: a client may understand it.
    if (value === null) return "pass";
    return this.#endpoint.name === "responses" ? this.#seeResponse(name, value) : this.#seeChunk(value);
  }

  #seeChunk(chunk: Json): EventVerdict {
    const { choices, usage } = chunk;
    const used = usageOf(usage ?? usageOfGroq(chunk));
    if (used !== null) this.usage = used;
    if (!Array.isArray(choices)) return "pass";
    this.outputBytes += outputTextBytes(chunk);
    for (const choice of choices as readonly Json[]) this.#seeChoice(choice);
    const isOnlyUsage = choices.length === 0 && usage !== undefined && usage !== null;
    return isOnlyUsage && !this.#wantsUsage ? "drop" : "pass";
  }

  #seeChoice(choice: Json | null): void {
    if (typeof choice !== "object" || choice === null) return;
    const index = typeof choice.index === "number" ? choice.index : 0;
    this.#begun.add(index);
    // Some upstreams send an empty one with every chunk.
    if (typeof choice.finish_reason === "string" && choice.finish_reason !== "") this.#finished.add(index);
  }

  #seeResponse(name: string | null, value: Json): EventVerdict {
    const type = typeof value.type === "string" ? value.type : name;
    const response = (typeof value.response === "object" && value.response !== null ? value.response : {}) as Json;
    if (typeof response.id === "string") this.responseId ??= response.id;
    this.outputBytes += outputTextBytes(value);
    if (type !== null && RESPONSE_ENDS.has(type)) {
      this.usage = usageOf(response.usage) ?? this.usage;
      this.isDone = true;
    }
    return type === "response.failed" ? { event: eventOf(type, scrubValue(value, this.#scrub)) } : "pass";
  }
}

/** Of the last chunk of a stream there, also where it was not asked for. */
function usageOfGroq({ x_groq: own }: Json): unknown {
  return isObject(own) ? own.usage : undefined;
}

function eventOf(name: string, value: unknown): Uint8Array {
  return new TextEncoder().encode(`event: ${name}\ndata: ${JSON.stringify(value)}\n\n`);
}

function parsed(data: string): Json | null {
  const value = parseJson(data);
  return isObject(value) ? value : null;
}
