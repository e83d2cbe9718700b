// Another gateway in the same place, on the same runtime: what a relay of this kind is compared with.

import { copyFileSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { freePort } from "../support/free-port.ts";
import { InvalidRun } from "./figures.ts";
import { onServerCores } from "./placement.ts";
import type { RunningServer } from "./plain-proxy.ts";
import type { QuickUpstream } from "./quick-upstream.ts";
import { untilListening } from "./until-listening.ts";

/** Its packages are locked like ours, and apart from ours: nobody needs a hundred of them but this comparison. */
const LOCKED = join(import.meta.dir, "portkey");
const PROGRAM = "node_modules/@portkey-ai/gateway/build/start-server.js";

/** As it comes, without its console, installed into `folder`, which must not exist yet. */
export async function startPortkey(upstream: QuickUpstream, folder: string): Promise<RunningServer> {
  await install(folder);
  const port = freePort();
  const program = join(folder, PROGRAM);
  const child = Bun.spawn([...onServerCores(), process.execPath, program, "--headless", `--port=${port}`], {
    env: { PATH: process.env.PATH, NODE_ENV: "production", TRUSTED_CUSTOM_HOSTS: "127.0.0.1" },
    stdio: ["ignore", "ignore", "pipe"],
  });
  const complaint = new Response(child.stderr).text();
  const url = `http://127.0.0.1:${port}`;
  await untilListening(url, child, () => complaint);
  const headers = {
    Authorization: "Bearer sk-mock-of-the-upstream",
    "x-portkey-provider": "openai",
    "x-portkey-custom-host": `${upstream.url}/v1`,
  };
  return {
    name: "Portkey",
    url,
    headers,
    pid: child.pid,
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await child.exited;
    },
  };
}

/** @throws InvalidRun without the network and without a copy in the cache of packages */
async function install(folder: string): Promise<void> {
  mkdirSync(folder);
  for (const file of ["package.json", "bun.lock"]) copyFileSync(join(LOCKED, file), join(folder, file));
  const child = Bun.spawn([process.execPath, "install", "--frozen-lockfile", "--ignore-scripts"], {
    cwd: folder,
    stdio: ["ignore", "ignore", "pipe"],
  });
  const complaint = await new Response(child.stderr).text();
  if ((await child.exited) !== 0) throw new InvalidRun(`the gateway could not be installed: ${complaint.slice(-300)}`);
}
