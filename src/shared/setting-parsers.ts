// What the text of a setting may look like: one parser per kind of value.

import { formatByteSize, parseByteSize } from "./byte-sizes.ts";
import { formatDuration, parseDurationMs } from "./durations.ts";
import { parseSubnet, Subnets } from "./ip-addresses.ts";

/** Throws a plain Error whose message completes "NAME must be …". */
export type Parse<T> = (text: string) => T;

export function integer(min: number, max: number): Parse<number> {
  return (text) => {
    const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
    if (!(value >= min && value <= max)) throw new Error(`a whole number from ${min} to ${max}`);
    return value;
  };
}

export function bytes(min: number, max: number): Parse<number> {
  return (text) => {
    const value = parseByteSize(text);
    if (value === null || value < min || value > max) {
      throw new Error(`a size from ${formatByteSize(min)} to ${formatByteSize(max)}, such as 512KiB or 25MiB`);
    }
    return value;
  };
}

export function duration(minMs: number, maxMs: number): Parse<number> {
  return (text) => {
    const value = parseDurationMs(text);
    if (value === null || value < minMs || value > maxMs) {
      const range = `from ${formatDuration(minMs)} to ${formatDuration(maxMs)}`;
      throw new Error(`a duration ${range}, such as ${examplesBetween(minMs, maxMs)}`);
    }
    return Math.ceil(value);
  };
}

const DURATIONS = ["500ms", "5s", "1m", "15m", "1h", "12h", "7d", "30d"];

function examplesBetween(minMs: number, maxMs: number): string {
  const fit = DURATIONS.filter((text) => parseDurationMs(text)! >= minMs && parseDurationMs(text)! <= maxMs);
  return fit.slice(0, 2).join(" or ") || formatDuration(minMs);
}

export function oneOf<const T extends string>(...words: readonly T[]): Parse<T> {
  return (text) => {
    const word = words.find((candidate) => candidate === text.toLowerCase());
    if (word === undefined) throw new Error(`one of ${words.join(", ")}`);
    return word;
  };
}

function someOf<const T extends string>(...words: readonly T[]): Parse<ReadonlySet<T>> {
  return (text) => {
    const names = text.split(",").map((name) => name.trim());
    if (!names.every((name): name is T => words.includes(name as T))) {
      throw new Error(`a comma-separated list out of ${words.join(", ")}`);
    }
    return new Set(names);
  };
}

const SERVICE_NAMES = ["kv", "token", "relay", "task"] as const;
export type ServiceName = (typeof SERVICE_NAMES)[number];

export const services = someOf(...SERVICE_NAMES);

export function subnets(text: string): Subnets {
  const ranges = text.split(",").map((range) => range.trim());
  if (ranges.every((range) => parseSubnet(range) !== null)) return new Subnets(ranges);
  throw new Error("a comma-separated list of addresses or CIDR ranges, such as 10.0.0.0/8,::1");
}

const TOKEN_SOURCES = ["header", "query", "body"] as const;
export type TokenSource = (typeof TOKEN_SOURCES)[number];

export const tokenSources = someOf(...TOKEN_SOURCES);

const ORIGINS = "a comma-separated list of origins, such as https://board.example";

/** Null = every origin. */
export function corsOrigins(text: string): ReadonlySet<string> | null {
  if (text === "*") return null;
  const origins = originsOf(text);
  if (origins === null) throw new Error(`* or ${ORIGINS}`);
  return origins;
}

/** Null when it is no list of origins. */
function originsOf(text: string): ReadonlySet<string> | null {
  const origins = text.split(",").map((origin) => origin.trim());
  // A pattern would be a legal origin, and match none.
  const isOrigin = (text: string) => URL.canParse(text) && new URL(text).origin === text && !text.includes("*");
  return origins.every(isOrigin) ? new Set(origins) : null;
}

const PROVIDERS = [
  "OpenAI",
  "SiliconFlow",
  "DeepSeek",
  "OpenRouter",
  "Moonshot",
  "Groq",
  "Mistral",
  "Together",
  "Ollama",
  "Custom",
] as const;
type ProviderName = (typeof PROVIDERS)[number];

export function provider(text: string): ProviderName {
  const name = PROVIDERS.find((candidate) => candidate.toLowerCase() === text.toLowerCase());
  if (name === undefined) throw new Error(`one of ${PROVIDERS.join(", ")}`);
  return name;
}

export function upstreamAddress(text: string): string {
  if (text.length <= 2048 && /^https?:\/\/[^\s\\?#@]+$/i.test(text) && URL.canParse(text)) return text;
  throw new Error("an http or https URL without user name, query or fragment");
}

export const isOn: Parse<boolean> = (text) => oneOf("1", "0")(text) === "1";

/** `limit` requests per `windowMs`, at once or spread. A limit of 0 stands for none. */
export interface Rate {
  readonly limit: number;
  readonly windowMs: number;
}

/** `60/1m`: so many in so long a time. */
export const rate: Parse<Rate> = (text) => {
  const [limit = "", window = "", ...rest] = text.split("/");
  const windowMs = parseDurationMs(window);
  if (!/^\d{1,9}$/.test(limit) || rest.length > 0 || windowMs === null || windowMs < 1000 || windowMs > 86_400_000) {
    throw new Error("a number per duration of at most 24h, such as 60/1m; 0/1m = no limit");
  }
  return { limit: Number(limit), windowMs };
};

const QUEUES = ["default", "webhook", "export", "system"] as const;
export type QueueName = (typeof QUEUES)[number];

/** Jobs of a queue that may run at once; a queue that is not named keeps its default. `none` = this node runs none. */
export const jobSlots: Parse<Readonly<Record<QueueName, number>>> = (text) => {
  const slots: Record<QueueName, number> = { default: 5, webhook: 8, export: 1, system: 1 };
  if (text === "none") return { default: 0, webhook: 0, export: 0, system: 0 };
  for (const part of text.split(",")) {
    const [, name, count] = /^\s*([a-z]+)=(\d{1,3})\s*$/.exec(part) ?? [];
    const queue = QUEUES.find((candidate) => candidate === name);
    if (queue === undefined) throw new Error(`none or a list such as ${QUEUES.map((each) => `${each}=1`).join(",")}`);
    slots[queue] = Number(count);
  }
  return slots;
};

/** Origins by name: unlike corsOrigins never all of them. */
export const namedOrigins: Parse<ReadonlySet<string>> = (text) => {
  const origins = originsOf(text);
  if (origins === null) throw new Error(ORIGINS);
  return origins;
};
