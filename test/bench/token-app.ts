// A server as the benchmarks of the token API use it, without rate limits, and an app that is installed on a device.

import { type Asked, asApp, type Installed, install, operatorAt, type Rights } from "../support/token-client.ts";
import { startBenchServer } from "./bench-server.ts";
import { InvalidRun } from "./figures.ts";

/** As a bucket in a request stream, this leads to the namespace of the token. */
export const TOKEN_MOUNT = "kv/token";
/** The pattern that the metrics tell. */
export const TOKEN_VALUE_ROUTE = "/kv/token/:key";

const UNLIMITED = { TOKEN_RATE_READ: "0", TOKEN_RATE_WRITE: "0", TOKEN_RATE_DELETE: "0", TOKEN_RATE_BATCH: "0" };

export function startTokenServer(dbPath: string): ReturnType<typeof startBenchServer> {
  return startBenchServer(dbPath, UNLIMITED);
}

/** Installs an app on the device `uuid`, which may be a bucket that is there already. */
export async function installApp(url: string, uuid: string, rights: Rights = {}): Promise<Installed> {
  return install(await operatorAt(url), rights, uuid);
}

export function batchBody(keys: readonly string[], valueBytes: number): string {
  const value = JSON.stringify("x".repeat(valueBytes - 2));
  return `{${keys.map((key) => `${JSON.stringify(key)}:${value}`).join()}}`;
}

/** @throws InvalidRun unless every key was stored */
export async function importBatch(target: Asked, token: string, body: string, keys: number): Promise<void> {
  const response = await asApp(target, token, "/_batchimport", { method: "POST", body });
  const { successful } = (await response.json()) as { successful?: number };
  if (successful !== keys) throw new InvalidRun(`of a batch of ${keys} ${successful} were stored: ${response.status}`);
}
