// gokv healthcheck: for a container without a shell or curl.

import { EXIT } from "../shared/errors.ts";
import { SETTINGS } from "../shared/settings.ts";
import { networkReason } from "../shared/system-reasons.ts";
import { localServerUrl } from "./local-server.ts";
import type { StrictCommand } from "./run-cli.ts";

const TIMEOUT_MS = 2000;

export const healthcheckCommand: StrictCommand = {
  meta: { name: "healthcheck", description: "Asks the server on this machine whether it is ready: exit 0 or 1" },
  environment: {
    PORT: `where the server listens; default ${SETTINGS.port.fallback}`,
    HOST: "at which address; default: the loopback one",
  },
  async run() {
    const url = `${localServerUrl(process.env)}/readyz`;
    try {
      // Container engines hand their proxy on to every container; it does not lead to this machine.
      const response = await fetch(url, { signal: AbortSignal.timeout(TIMEOUT_MS), proxy: false });
      if (response.ok) return EXIT.done;
      process.stderr.write(`gokv: not ready: ${url} answered ${response.status}\n`);
    } catch (error) {
      process.stderr.write(`gokv: not ready: ${url}: ${networkReason(error)}\n`);
    }
    return EXIT.failed;
  },
};
