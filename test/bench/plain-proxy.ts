// The floor of a relay: nginx, which passes bytes on and knows nothing of them.

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { freePort } from "../support/free-port.ts";
import { isRoot } from "../support/needs.ts";
import type { Bench } from "./benchmark.ts";
import type { ChatServer } from "./chat-request.ts";
import { InvalidRun } from "./figures.ts";
import { onServerCores } from "./placement.ts";
import type { QuickUpstream } from "./quick-upstream.ts";
import { untilListening } from "./until-listening.ts";

export interface RunningServer extends ChatServer, AsyncDisposable {
  /** Of the process that does the work. */
  readonly pid: number;
}

/** Null where nginx is not installed, which is said. @throws InvalidRun for that in a run that requires everything */
export async function startPlainProxy(upstream: QuickUpstream, bench: Bench): Promise<RunningServer | null> {
  // Debian keeps it where only root looks.
  const program = Bun.which("nginx") ?? Bun.which("nginx", { PATH: "/usr/sbin" });
  if (program === null) {
    process.stderr.write("not run: the floor of the relay needs nginx\n");
    if (process.env.GOKV_REQUIRE_ALL === "1") throw new InvalidRun("nginx is not installed, which is the floor here");
    return null;
  }
  const directory = bench.newPath();
  mkdirSync(directory);
  const port = freePort();
  writeFileSync(join(directory, "nginx.conf"), configuration(port, upstream, directory));
  const child = Bun.spawn(
    [...onServerCores(), program, "-e", "stderr", "-p", directory, "-c", join(directory, "nginx.conf")],
    { stdio: ["ignore", "ignore", "pipe"] },
  );
  const complaint = new Response(child.stderr).text();
  const url = `http://127.0.0.1:${port}`;
  await untilListening(url, child, () => complaint);
  return {
    name: "nginx",
    url,
    headers: {},
    pid: child.pid,
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await child.exited;
    },
  };
}

/** One process alone, as it is one core's work that is compared; connections to the upstream are kept. */
function configuration(port: number, { url }: QuickUpstream, directory: string): string {
  const uses = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
  const folders = uses.map((use) => `${use}_temp_path ${directory}/${use};`);
  return `
    ${isRoot() ? "user root;" : ""}
    daemon off;
    master_process off;
    pid ${directory}/nginx.pid;
    error_log stderr error;
    worker_rlimit_nofile 16384;
    events { worker_connections 8192; }
    http {
      ${folders.join("\n      ")}
      access_log off;
      upstream provider {
        server ${new URL(url).host};
        keepalive 1024;
        keepalive_requests 1000000000;
      }
      server {
        listen 127.0.0.1:${port} backlog=4096;
        keepalive_requests 1000000000;
        location / {
          proxy_pass http://provider;
          proxy_http_version 1.1;
          proxy_set_header Connection "";
          proxy_buffering off;
        }
      }
    }
  `;
}
