// Addresses of names that users enter: asked for without a thread, which a silent name server would keep for long.

import { getServers, setServers } from "node:dns";
import { readFileSync } from "node:fs";
import { isIP } from "node:net";
import type { Lookup } from "./outbound-resolver.ts";

const RESOLVER_SETTINGS = "/etc/resolv.conf";

/**
 * The system's own look-up keeps a thread until it has an answer, and the runtime has few: passwords and signatures are
 * checked on them, and would wait for somebody's name server. This one sends its questions from the event loop,
 * after a look at `/etc/hosts`. It would not notice that the system has other name servers by now, so it is told.
 */
export function threadlessLookup(currentServers: () => readonly string[] = systemServers): Lookup {
  return async (name) => {
    const servers = currentServers();
    if (servers.length > 0 && servers.join() !== getServers().join()) setServers(servers);
    const found = await Bun.dns.lookup(name, { backend: "c-ares" });
    return found.map(({ address }) => address);
  };
}

/** Without a promise: reading a file in the background would need a thread, too. Empty = the system names none. */
function systemServers(): readonly string[] {
  try {
    const lines = readFileSync(RESOLVER_SETTINGS, "utf8").matchAll(/^nameserver[ \t]+(\S+)/gm);
    return [...lines].map(([, address]) => address!).filter((address) => isIP(address) !== 0);
  } catch {
    return [];
  }
}
