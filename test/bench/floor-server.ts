// A server to compare with, as a script in a process of its own that prints its URL.

import { onServerCores } from "./placement.ts";
import { readLines } from "./read-lines.ts";

export interface FloorServer extends AsyncDisposable {
  readonly url: string;
}

export async function startFloorServer(script: string, ...args: readonly string[]): Promise<FloorServer> {
  const child = Bun.spawn([...onServerCores(), process.execPath, script, ...args], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "inherit",
  });
  const { value: url } = await readLines(child.stdout).next();
  if (url === undefined) throw new Error(`${script} ended with ${await child.exited}`);
  return {
    url,
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await child.exited;
    },
  };
}
