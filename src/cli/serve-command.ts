// gokv serve: runs the server until a signal or a failure ends it.

import { startAppThread } from "../app/app-threads.ts";
import { openDevMode } from "../app/dev-mode.ts";
import type { RunningServer } from "../app/start-server.ts";
import type { ExitCode } from "../shared/errors.ts";
import { openLog } from "../shared/log.ts";
import { readSettings } from "../shared/settings.ts";
import { startAhead } from "../storage/start-thread.ts";
import { liftRequestCap } from "./lift-request-cap.ts";
import type { StrictCommand } from "./run-cli.ts";
import { SERVER_ENVIRONMENT } from "./server-environment.ts";
import { writeOut } from "./write-out.ts";

// Always handled: a process with id 1 would ignore them otherwise.
const SIGNALS = ["SIGTERM", "SIGINT", "SIGHUP"] as const;

export const serveCommand: StrictCommand = {
  meta: { name: "serve", description: "Runs the server; its settings come from the environment" },
  args: {
    dev: {
      type: "boolean",
      description: "Development: listens on 127.0.0.1, makes a secret, prints a token and curl lines",
    },
  },
  ...SERVER_ENVIRONMENT,
  async run(flags): Promise<ExitCode> {
    // First of all: a thread takes as long to begin as the server to be loaded.
    const startThread = startAhead("storage", startAppThread);
    const dev = flags.dev === true ? openDevMode(process.env) : null;
    const settings = dev?.settings ?? readSettings(process.env);
    const warning = settings.services.has("relay") ? liftRequestCap(settings.relayUpstreamMax, process.env) : null;
    const log = openLog(settings);
    if (warning !== null) log.warn(warning);
    const running = Promise.withResolvers<RunningServer>();
    // Before anything is opened: a signal that comes in the meantime stops the server as soon as it runs.
    for (const signal of SIGNALS) process.on(signal, () => running.promise.then((server) => server.stop()));
    const { RunningServer } = await import("../app/start-server.ts");
    const server = await RunningServer.start(settings, log, { startThread });
    running.resolve(server);
    if (dev !== null) writeOut(await dev.greeting(server.url));
    const exitCode = await server.ended;
    log.flush();
    process.exit(exitCode);
  },
};
