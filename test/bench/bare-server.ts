// The floor: what the runtime's HTTP server does when it answers the same 100 bytes and nothing else. In a process of
// its own.

import { join } from "node:path";
import { onServerCores } from "./placement.ts";
import { readLines } from "./read-lines.ts";

const VALUE_BYTES = 100;

export interface BareServer extends AsyncDisposable {
  readonly url: string;
}

export async function startBareServer(): Promise<BareServer> {
  const child = Bun.spawn([...onServerCores(), process.execPath, join(import.meta.dir, "bare-server.ts")], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "inherit",
  });
  const { value: url } = await readLines(child.stdout).next();
  if (url === undefined) throw new Error(`the bare server ended with ${await child.exited}`);
  return {
    url,
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await child.exited;
    },
  };
}

if (import.meta.main) {
  const body = new Uint8Array(VALUE_BYTES).fill(120);
  const server = Bun.serve({ hostname: "127.0.0.1", port: 0, development: false, fetch: () => new Response(body) });
  console.log(server.url.href.replace(/\/$/, ""));
}
