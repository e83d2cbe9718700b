// Why a server could not listen, for the message that ends its start.

import { isIP } from "node:net";
import { messageOf } from "../shared/errors.ts";

/**
 * Completes "Cannot listen on …: ". The runtime itself guesses at a port, whatever the reason is; of a name that stands
 * for no address it says whatever the system said last.
 */
export function whyNotListening(error: unknown, host: string): string {
  switch ((error as { code?: unknown }).code) {
    case "EADDRINUSE":
      return "the port is in use";
    case "EADDRNOTAVAIL":
      return "this machine has no such address";
    case "EACCES":
      return "this user may not listen on that port";
    default:
      return isIP(host) === 0 ? "this name cannot be resolved to an address" : messageOf(error);
  }
}
