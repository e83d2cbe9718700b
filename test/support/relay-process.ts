// The executable as a relay that a test kills, stops, fills up and looks into from outside.

import { readdirSync } from "node:fs";
import { type Environment, type ServerProcess, startServer } from "./executable.ts";
import { forgeToken } from "./forge-token.ts";
import { RELAY_ENV } from "./relay-client.ts";
import { residentBytes } from "./resident-bytes.ts";
import { SECRET, type Target, type TargetInit } from "./targets.ts";

/** Its data outlives it: whoever made the folder removes it. */
export class RelayProcess implements Target {
  readonly dbPath: string;
  readonly #env: Environment;
  #server: ServerProcess;

  private constructor(dbPath: string, env: Environment, server: ServerProcess) {
    this.dbPath = dbPath;
    this.#env = env;
    this.#server = server;
  }

  /** Starts on the store in `dbPath`; `wrapper` goes in front of the command. @throws Error when it does not start */
  static async start(dbPath: string, env: Environment = {}, wrapper: readonly string[] = []): Promise<RelayProcess> {
    const settings = {
      ...RELAY_ENV,
      JWT_SECRET: SECRET,
      DB_PATH: dbPath,
      ACCESS_LOG: "off",
      RESERVE_BYTES: "0",
      ...env,
    };
    return new RelayProcess(dbPath, settings, await startServer(settings, wrapper));
  }

  get url(): string {
    return this.#server.url;
  }

  get exited(): Promise<number> {
    return this.#server.exited;
  }

  log(): string {
    return this.#server.log();
  }

  kill(signal: NodeJS.Signals): void {
    this.#server.kill(signal);
  }

  fetch(path: string, { headers = {}, ...init }: TargetInit = {}): Promise<Response> {
    const sent = new Headers();
    for (const [name, value] of Object.entries({ Authorization: `Bearer ${forgeToken()}`, ...headers })) {
      if (value !== null) sent.set(name, value);
    }
    return fetch(this.url + path, { ...init, headers: sent });
  }

  async restart(): Promise<void> {
    this.kill("SIGKILL");
    await this.exited;
    this.#server = await startServer(this.#env);
  }

  /** Resident memory, in bytes. */
  get residentBytes(): number {
    return residentBytes(this.#server.pid);
  }

  get descriptors(): number {
    return readdirSync(`/proc/${this.#server.pid}/fd`).length;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server[Symbol.asyncDispose]();
  }
}
