// Lifts the runtime's cap on outgoing requests, which it reads from the environment before the program starts and never
// again: 256 at once, further ones wait in silence. So the program starts itself once more, in the same process.

import { messageOf } from "../shared/errors.ts";

const CAP_VARIABLE = "BUN_CONFIG_MAX_HTTP_REQUESTS";
/** Set for the second start: there is no third one. */
const GUARD_VARIABLE = "GOKV_REEXEC";
const CAP_DEFAULT = 256;

/**
 * Does not return when the process begins anew: same process id, same arguments, the cap set to `wanted`. To be called
 * before anything is opened. Otherwise null when at least `wanted` requests can run at once, or a warning.
 */
export function liftRequestCap(wanted: number, env: NodeJS.ProcessEnv): string | null {
  const cap = capOf(env);
  if (cap >= wanted) return null;
  const consequence = `only ${cap} requests to upstreams run at once; set ${CAP_VARIABLE}=${wanted}`;
  if (env[GUARD_VARIABLE] || process.execve === undefined) return consequence;
  try {
    return process.execve(process.execPath, ownArguments(), {
      ...env,
      [CAP_VARIABLE]: `${wanted}`,
      [GUARD_VARIABLE]: "1",
    });
  } catch (error) {
    return `${consequence} (${messageOf(error)})`;
  }
}

/** What the runtime makes of the environment. */
function capOf(env: NodeJS.ProcessEnv): number {
  const text = env[CAP_VARIABLE] ?? "";
  return /^\d{1,5}$/.test(text) && Number(text) > 0 ? Number(text) : CAP_DEFAULT;
}

/** The command line as it was: the name it was called by decides what the executable does. */
function ownArguments(): string[] {
  if (Bun.isStandaloneExecutable) return [process.argv0, ...process.argv.slice(2)];
  return [process.argv0, ...process.execArgv, ...process.argv.slice(1)];
}
