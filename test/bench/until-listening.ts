// For programs that do not say when they listen.

import { LightConnection } from "./light-connection.ts";

const LISTENING_MS_MAX = 60_000;
const POLL_MS = 20;

/**
 * Resolves when `url` takes connections.
 * @throws Error with what the process had to say, when it ends before, or does not listen for a long time
 */
export async function untilListening(
  url: string,
  child: { readonly exitCode: number | null; kill(signal: "SIGKILL"): void },
  complaint: () => Promise<string>,
): Promise<void> {
  const deadlineMs = performance.now() + LISTENING_MS_MAX;
  while (child.exitCode === null) {
    const connection = await LightConnection.open(url).catch(() => null);
    if (connection !== null) return connection.close();
    if (performance.now() > deadlineMs) child.kill("SIGKILL");
    await Bun.sleep(POLL_MS);
  }
  throw new Error(`a program did not listen: ${await complaint()}`);
}
