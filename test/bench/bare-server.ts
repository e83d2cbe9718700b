// The floor: what the runtime's HTTP server does when it answers the same 100 bytes and nothing else.

import { type FloorServer, startFloorServer } from "./floor-server.ts";

const VALUE_BYTES = 100;

export function startBareServer(): Promise<FloorServer> {
  return startFloorServer(import.meta.path);
}

if (import.meta.main) {
  const body = new Uint8Array(VALUE_BYTES).fill(120);
  const server = Bun.serve({ hostname: "127.0.0.1", port: 0, development: false, fetch: () => new Response(body) });
  console.log(server.url.href.replace(/\/$/, ""));
}
