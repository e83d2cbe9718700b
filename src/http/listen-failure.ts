// Why a server could not listen, for the message that ends its start.

import { messageOf } from "../shared/errors.ts";

/** Completes "Cannot listen on …: ". The runtime itself guesses at a port, whatever the reason is. */
export function whyNotListening(error: unknown): string {
  switch ((error as { code?: unknown }).code) {
    case "EADDRINUSE":
      return "the port is in use";
    case "EADDRNOTAVAIL":
      return "this machine has no such address";
    case "EACCES":
      return "this user may not listen on that port";
    default:
      return messageOf(error);
  }
}
