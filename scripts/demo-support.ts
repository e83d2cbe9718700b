// What the acts of the demo share: a server of their own, clients at work side by side, a progress bar.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { mintJwt } from "../src/auth/mint-jwt.ts";

export const ROOT = join(import.meta.dir, "..");
const GOKV = join(ROOT, "dist/gokv");
const SECRET = "demo-secret-of-more-than-thirty-two-bytes";
const CLIENTS = 16;
const HOUR_MS = 3_600_000;

export interface Server {
  readonly url: string;
  kill(signal: NodeJS.Signals): Promise<void>;
}

/** The executable on a free port. */
export async function start(dbPath: string, settings: Record<string, string> = {}): Promise<Server> {
  if (!existsSync(GOKV)) throw new Error("dist/gokv is missing: bun run build");
  const child = Bun.spawn([GOKV], {
    env: {
      JWT_SECRET: SECRET,
      DB_PATH: dbPath,
      PORT: "0",
      HOST: "127.0.0.1",
      GIN_MODE: "release",
      ACCESS_LOG: "off",
      ...settings,
    },
    stdout: "ignore",
    stderr: "pipe",
  });
  let log = "";
  const port = await (async () => {
    const reader = child.stderr.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) throw new Error(`the server ended:\n${log}`);
      log += new TextDecoder().decode(value);
      const found = /"port":(\d+)/.exec(log)?.[1];
      if (found === undefined) continue;
      reader.releaseLock();
      return found;
    }
  })();
  return {
    url: `http://127.0.0.1:${port}`,
    async kill(signal) {
      child.kill(signal);
      await child.exited;
    },
  };
}

/** A plain operator token. */
export function operatorToken(): Promise<string> {
  return mintJwt(new TextEncoder().encode(SECRET), { expiresInMs: HOUR_MS }, Date.now());
}

export function sha256(bytes: Uint8Array): string {
  return new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
}

/** Drawn on a terminal only. */
export class Bar {
  readonly #label: string;
  readonly #unit: string;
  readonly #total: number;
  readonly #totalBytes: number;
  readonly #startMs = performance.now();
  #drawnMs = 0;

  constructor(label: string, unit: string, total: number, totalBytes: number) {
    this.#label = label;
    this.#unit = unit;
    this.#total = total;
    this.#totalBytes = totalBytes;
  }

  draw(done: number, bytes: number): void {
    const nowMs = performance.now();
    if (!process.stderr.isTTY || nowMs - this.#drawnMs < 100) return;
    this.#drawnMs = nowMs;
    const seconds = (nowMs - this.#startMs) / 1000;
    const share = this.#totalBytes === 0 ? done / this.#total : bytes / this.#totalBytes;
    const bar = "█".repeat(Math.round(share * 24)).padEnd(24, "░");
    const left = share === 0 ? "?" : Math.ceil((seconds / share) * (1 - share));
    const rate = (bytes / 1e6 / seconds).toFixed(0);
    process.stderr.write(
      `\r${this.#label} ${bar} ${done}/${this.#total} ${this.#unit}, ${rate} MB/s, ${left} s left \x1b[K`,
    );
  }

  /** Seconds since the start. */
  end(): number {
    if (process.stderr.isTTY) process.stderr.write("\r\x1b[K");
    return (performance.now() - this.#startMs) / 1000;
  }
}

/** Runs `work` over all items with a few clients at once. */
export async function each<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  let next = 0;
  await Promise.all(
    Array.from({ length: CLIENTS }, async () => {
      for (let index = next++; index < items.length; index = next++) await work(items[index]!);
    }),
  );
}
