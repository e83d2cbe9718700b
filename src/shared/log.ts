// The log: lines on stderr, readable for people in debug mode, JSON for machines in release mode.

import { writeSync } from "node:fs";
import { configureSync, getLogger, type LogRecord } from "@logtape/logtape";

/** Fixed sentences with varying properties. Properties must never hold a credential, a secret or a stored value. */
export interface Log {
  debug(message: string, properties?: LogProperties): void;
  info(message: string, properties?: LogProperties): void;
  warn(message: string, properties?: LogProperties): void;
  error(message: string, properties?: LogProperties): void;
  /** Written at once, not at the end of the turn. */
  fatal(message: string, properties?: LogProperties): void;
  /** Writes what is gathered; to be called before the process ends. */
  flush(): void;
}

export type LogProperties = Record<string, unknown>;
type Mode = "debug" | "release" | "test";
type Level = "debug" | "info" | "warn" | "error";

const STDERR = 2;
const LEVEL_NAMES = { debug: "debug", info: "info", warn: "warning", error: "error" } as const;

/** Opens the log of the process (the library underneath knows one configuration at a time). */
export function openLog(settings: { mode: Mode; logLevel: Level }): Log {
  const format = settings.mode === "release" ? formatJson : formatReadable;
  const lines = new LineWriter(STDERR);
  configureSync({
    reset: true,
    sinks: { stderr: (record) => lines.write(format(record)) },
    loggers: [
      {
        category: "gokv",
        sinks: ["stderr"],
        lowestLevel: settings.mode === "test" ? "error" : LEVEL_NAMES[settings.logLevel],
      },
      { category: ["logtape", "meta"], sinks: [], lowestLevel: "error" },
    ],
  });
  const logger = getLogger("gokv");
  return {
    debug: (message, properties) => logger.debug(message, properties),
    info: (message, properties) => logger.info(message, properties),
    warn: (message, properties) => logger.warn(message, properties),
    error: (message, properties) => logger.error(message, properties),
    fatal(message, properties) {
      logger.fatal(message, properties);
      lines.flush();
    },
    flush: () => lines.flush(),
  };
}

/** Gathers lines for one turn of the event loop, so that a busy access log costs one system call per turn. */
class LineWriter {
  readonly #descriptor: number;
  #pending: string[] = [];

  constructor(descriptor: number) {
    this.#descriptor = descriptor;
  }

  write(line: string): void {
    if (this.#pending.push(line) === 1) setImmediate(() => this.flush());
  }

  flush(): void {
    if (this.#pending.length === 0) return;
    const bytes = Buffer.from(this.#pending.join(""));
    this.#pending = [];
    for (let written = 0; written < bytes.length; ) {
      try {
        written += writeSync(this.#descriptor, bytes, written);
      } catch (error) {
        // A reader that went away must not stop the server; one that is slow only delays it.
        if ((error as NodeJS.ErrnoException).code !== "EAGAIN") return;
        Bun.sleepSync(1);
      }
    }
  }
}

function formatJson(record: LogRecord): string {
  const { timestamp, level, properties } = record;
  return `${toJson({ time: new Date(timestamp).toISOString(), level, msg: text(record), ...properties })}\n`;
}

function formatReadable(record: LogRecord): string {
  const time = new Date(record.timestamp).toISOString().slice(11, 23);
  const properties = Object.entries(record.properties)
    .filter(([, value]) => value !== null && value !== undefined)
    .map(([name, value]) => ` ${name}=${typeof value === "string" ? quoted(value) : toJson(value)}`)
    .join("");
  return `${time} ${record.level.padEnd(7)} ${text(record)}${properties}\n`;
}

function quoted(value: string): string {
  return /^[\x21\x23-\x7e]+$/.test(value) ? value : toJson(value);
}

/** JSON leaves DEL and the C1 controls as they are, and there are terminals that obey them. */
function toJson(value: unknown): string {
  return JSON.stringify(value).replace(/[\x7f-\x9f]/g, (control) => `\\u00${control.charCodeAt(0).toString(16)}`);
}

function text(record: LogRecord): string {
  return typeof record.rawMessage === "string" ? record.rawMessage : record.message.join("");
}
