// What a failed attempt means: whether another channel may try, and what becomes of the channel that failed.

export type Failure =
  /** No answer: name, connection, TLS, a reset before the headers, or an address that may not be reached. */
  | { readonly kind: "unreachable"; readonly isAddressRefused: boolean; readonly systemCode: string | null }
  /** Our own deadline passed; `isCutShort`: others had left less time than the channel is given by itself. */
  | { readonly kind: "timeout"; readonly isCutShort: boolean }
  /** A success that is none: an error as its first event, another content type, an unreadable body. */
  | { readonly kind: "bad_response" }
  /** More than we take: our bound, and often the doing of the request. Every channel would send as much. */
  | { readonly kind: "oversized" }
  | StatusFailure;

export interface StatusFailure {
  readonly kind: "status";
  readonly status: number;
  readonly code: string | null;
  readonly type: string | null;
  /** What of the request it is about, as far as the upstream says. */
  readonly param: string | null;
  /** Of a `code` that is a number. */
  readonly numericCode: number | null;
  readonly headers: Headers;
}

/**
 * What happens to the channel. `failure` and `connect_failure` count against it, `cool` keeps the model off it for as
 * long as the upstream says, `model_off` for longer, `disable` takes it out of use because its key does not work.
 */
type ChannelEffect = "none" | "failure" | "connect_failure" | "cool" | "disable" | "model_off";

export interface Verdict {
  readonly mayRetry: boolean;
  readonly effect: ChannelEffect;
  /** Of several failures the client sees the one of the highest rank, and of equals the last. */
  readonly rank: number;
}

/** The failures of keys come last: a client can do nothing about them. A final answer is about the request itself. */
const RANK = { key: 1, missing: 2, outage: 3, rate: 4, final: 5 } as const;

const OUTAGE: Verdict = { mayRetry: true, effect: "failure", rank: RANK.outage };
const VERDICTS = {
  outage: OUTAGE,
  lastOutage: { ...OUTAGE, mayRetry: false },
  unreachable: { ...OUTAGE, effect: "connect_failure" },
  rate: { mayRetry: true, effect: "cool", rank: RANK.rate },
  key: { mayRetry: true, effect: "disable", rank: RANK.key },
  missing: { mayRetry: true, effect: "none", rank: RANK.missing },
  noModel: { mayRetry: true, effect: "model_off", rank: RANK.missing },
  final: { mayRetry: false, effect: "none", rank: RANK.final },
} as const satisfies Record<string, Verdict>;

/** Under 403 and 429 they tell a key that does not work from a request that is refused. */
const KEY_WORDS: ReadonlySet<string | null> = new Set([
  "insufficient_quota",
  "invalid_api_key",
  "account_deactivated",
  "authentication_error",
  "permission_error",
]);
/** How OpenAI, Ollama and vLLM say under 404 that a model is unknown. */
const NO_MODEL_WORDS: ReadonlySet<string | null> = new Set(["model_not_found", "not_found_error", "NotFoundError"]);
/** SiliconFlow's "model does not exist". */
const NO_MODEL_NUMBER = 20012;

/**
 * Judged by status, code and type alone: a message may echo the prompt.
 * @param retriesTimeouts whether a request that ran out of time, and may already be billed, is sent again
 */
export function judgeFailure(failure: Failure, retriesTimeouts: boolean): Verdict {
  switch (failure.kind) {
    case "unreachable":
      return VERDICTS.unreachable;
    case "timeout":
      return failure.isCutShort ? unblamed(judgeTimeout(retriesTimeouts)) : judgeTimeout(retriesTimeouts);
    case "bad_response":
      return VERDICTS.outage;
    case "oversized":
      return VERDICTS.final;
    case "status":
      return judgeStatus(failure, retriesTimeouts);
  }
}

function judgeTimeout(retriesTimeouts: boolean): Verdict {
  return retriesTimeouts ? VERDICTS.outage : VERDICTS.lastOutage;
}

function unblamed(verdict: Verdict): Verdict {
  return { ...verdict, effect: "none" };
}

function judgeStatus(failure: StatusFailure, retriesTimeouts: boolean): Verdict {
  const { status, code, type, numericCode } = failure;
  const isAboutKey = KEY_WORDS.has(code) || KEY_WORDS.has(type);
  switch (status) {
    case 504:
    case 524:
      return judgeTimeout(retriesTimeouts);
    case 429:
      return isAboutKey ? VERDICTS.key : VERDICTS.rate;
    case 401:
    case 402:
      return VERDICTS.key;
    case 403:
      return isAboutKey ? VERDICTS.key : VERDICTS.missing;
    case 404: {
      const isModel = NO_MODEL_WORDS.has(code) || NO_MODEL_WORDS.has(type) || numericCode === NO_MODEL_NUMBER;
      return isModel ? judgeNoModel(failure) : VERDICTS.final;
    }
    case 400:
      return numericCode === NO_MODEL_NUMBER ? judgeNoModel(failure) : VERDICTS.final;
    case 408:
      return VERDICTS.outage;
  }
  return status >= 400 && status < 500 ? VERDICTS.final : VERDICTS.outage;
}

/** The same words are said of what else a request may name, such as a file or a response before it. */
function judgeNoModel({ param }: StatusFailure): Verdict {
  return param === null || param === "model" ? VERDICTS.noModel : VERDICTS.missing;
}

const WAIT_MS_MIN = 1000;
const WAIT_MS_MAX = 3_600_000;
/** More digits could be a key. */
const TOLD_SECONDS_MAX = 99_999_999;
const DECIMAL = /^\d+(?:\.\d+)?$/;
/** The two forms that name their zone; without one a date would be read as local. */
const HTTP_DATE = /^[A-Z][a-z]+, \d\d[ -][A-Z][a-z]{2}[ -](?:\d{4}|\d\d) \d\d:\d\d:\d\d GMT$/;

/**
 * How long an upstream wants to be left alone, 1 s..1 h: the longest of what its headers say, in seconds, as a date,
 * in milliseconds. Null when none of them says anything readable.
 */
export function retryAfterMs(headers: Headers, nowMs: number): number | null {
  const wait = longestWaitMs(headers, nowMs);
  return wait === null ? null : Math.min(Math.max(Math.ceil(wait), WAIT_MS_MIN), WAIT_MS_MAX);
}

/**
 * The same as a client is told it, beyond an hour too: a number of our own, as what stands in a header may be anything,
 * a key among it.
 */
export function retryAfterSeconds(headers: Headers, nowMs: number): number | null {
  const wait = longestWaitMs(headers, nowMs);
  return wait === null ? null : Math.min(Math.max(Math.ceil(wait / 1000), 1), TOLD_SECONDS_MAX);
}

function longestWaitMs(headers: Headers, nowMs: number): number | null {
  const waits = [
    millisecondsOf(headers.get("retry-after-ms")),
    millisecondsOf(headers.get("x-ms-retry-after-ms")),
    waitOf(headers.get("retry-after"), nowMs),
  ].filter((wait) => wait !== null);
  return waits.length === 0 ? null : Math.max(...waits);
}

function millisecondsOf(text: string | null): number | null {
  return text !== null && DECIMAL.test(text) ? Number(text) : null;
}

function waitOf(text: string | null, nowMs: number): number | null {
  if (text === null) return null;
  if (DECIMAL.test(text)) return Number(text) * 1000;
  const dateMs = HTTP_DATE.test(text) ? Date.parse(text) : Number.NaN;
  return Number.isNaN(dateMs) ? null : dateMs - nowMs;
}
