// Where commands find the server of this machine.

import { SETTINGS } from "../shared/settings.ts";

/** As HOST and PORT say it, without a path. A server that listens on every address is asked on the loopback one. */
export function localServerUrl(env: NodeJS.ProcessEnv): string {
  const host = env[SETTINGS.host.env];
  const port = env[SETTINGS.port.env] || SETTINGS.port.fallback;
  return `http://${reachable(host)}:${port}`;
}

function reachable(host: string | undefined): string {
  if (!host || host === "0.0.0.0" || host === "::") return "127.0.0.1";
  return host.includes(":") ? `[${host}]` : host;
}
