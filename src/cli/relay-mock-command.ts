// gokv relay mock: a provider on this machine, for trying the relay without a real one.

import { whyNotListening } from "../http/listen-failure.ts";
import { MockUpstream } from "../relay/mock-upstream.ts";
import { EXIT, ExitError } from "../shared/errors.ts";
import { Misuse, type StrictCommand } from "./run-cli.ts";
import { writeOut } from "./write-out.ts";

const PORT = 4010;
const PORT_MAX = 65_535;
const DELAY_MS_MAX = 600_000;

export const relayMockCommand: StrictCommand = {
  meta: { name: "mock", description: "Runs a mock provider on 127.0.0.1; it accepts keys that start with sk-mock-" },
  args: {
    port: { type: "string", valueHint: "n", description: `TCP port; default ${PORT}, 0 = any free one` },
    delay: { type: "string", valueHint: "ms", description: "Wait so long before each answer and event" },
  },
  async run(flags) {
    const port = wholeNumber(flags.port, "port", PORT, PORT_MAX);
    const delayMs = wholeNumber(flags.delay, "delay", 0, DELAY_MS_MAX);
    await using mock = start(port, delayMs);
    writeOut(`mock provider listening on ${mock.url}\n`);
    const ended = Promise.withResolvers<void>();
    for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) process.on(signal, () => ended.resolve());
    await ended.promise;
    return EXIT.done;
  },
};

function wholeNumber(given: unknown, name: string, fallback: number, max: number): number {
  if (given === undefined) return fallback;
  const value = typeof given === "string" && /^\d{1,9}$/.test(given) ? Number(given) : Number.NaN;
  if (!(value <= max)) throw new Misuse(`--${name} takes a whole number up to ${max}`);
  return value;
}

function start(port: number, delayMs: number): MockUpstream {
  try {
    return new MockUpstream({ port, delayMs });
  } catch (error) {
    throw new ExitError(
      EXIT.failed,
      `Cannot listen on 127.0.0.1:${port}: ${whyNotListening(error, "127.0.0.1")}. Choose another --port.`,
    );
  }
}
