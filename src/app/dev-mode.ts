// Development mode: everything a first run needs, and lines that work as pasted.

import { readFileSync, writeFileSync } from "node:fs";
import { mintJwt } from "../auth/mint-jwt.ts";
import { systemClock } from "../shared/clock.ts";
import { EXIT, ExitError } from "../shared/errors.ts";
import { readDbPath, readSettings, SETTINGS, type Settings } from "../shared/settings.ts";
import { type StoreFiles, storeFiles } from "../storage/store-files.ts";
import { makeDirectory } from "../storage/sync-path.ts";

const TOKEN_LIFETIME_MS = 24 * 3_600_000;
const SECRET_BYTES = 32;

interface DevMode {
  readonly settings: Settings;
  /** A token and curl lines for a server at `url`, ready to be pasted into a shell. */
  greeting(url: URL): Promise<string>;
}

/** @throws ExitError (2) bad settings, or release mode */
export function openDevMode(env: NodeJS.ProcessEnv): DevMode {
  if (env[SETTINGS.mode.env]?.toLowerCase() === "release") {
    throw new ExitError(EXIT.usage, `serve --dev is for development; it is refused with ${SETTINGS.mode.env}=release.`);
  }
  const host = env[SETTINGS.host.env] || "127.0.0.1";
  const settings = readSettings({ ...env, [SETTINGS.host.env]: host }, () => keptSecret(readDbPath(env)));
  return { settings, greeting: (url) => greet(settings, url) };
}

/** Made once and kept beside the data, so that a token outlives a restart. Stored as base64url text. */
function keptSecret(dbPath: string): Uint8Array<ArrayBuffer> {
  const files = storeFiles(dbPath);
  let secret: string;
  try {
    secret = readFileSync(files.devSecret, "utf8").trim();
  } catch {
    secret = makeSecret(files);
  }
  // The process may have died between the creation of the file and its content.
  if (secret === "") throw new ExitError(EXIT.failed, `${files.devSecret} is empty. Delete it and start again.`);
  return new TextEncoder().encode(secret);
}

function makeSecret({ devSecret, directory }: StoreFiles): string {
  const secret = Buffer.from(crypto.getRandomValues(new Uint8Array(SECRET_BYTES))).toString("base64url");
  try {
    makeDirectory(directory);
    writeFileSync(devSecret, `${secret}\n`, { mode: 0o600, flag: "wx" });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new ExitError(EXIT.failed, `${devSecret} cannot be written (${code}). Set DB_PATH or JWT_SECRET.`);
  }
  return secret;
}

async function greet({ secrets, dbPath, services }: Settings, url: URL): Promise<string> {
  const token = await mintJwt(secrets[0]!, { expiresInMs: TOKEN_LIFETIME_MS, subject: "dev" }, systemClock());
  const base = url.href.replace(/\/$/, "");
  const curl = (rest: string) => `curl -sS -H "Authorization: Bearer $TOKEN" ${rest}\n`;
  return [
    `\n# gokv is at ${base}, its data in ${dbPath}. Paste this into another terminal:\n\n`,
    `export TOKEN=${token}\n`,
    ...(services.has("kv")
      ? [
          curl(`-X POST ${base}/users/1 -d Ada`),
          curl(`${base}/users/1`),
          curl(`${base}/_list`),
          curl(`"${base}/_list?bucket=users"`),
          curl(`-X DELETE ${base}/users/1`),
        ]
      : [curl(`${base}/openapi.json`)]),
    ...(services.has("token") ? commandLines(base) : []),
    "\n# Ctrl-C stops it.\n\n",
  ].join("");
}

/** The executable need not be on the PATH, and a fresh clone has none. */
function commandLines(base: string): string[] {
  const [command, place] = Bun.isStandaloneExecutable
    ? [process.execPath, ""]
    : ["npm run -s gokv --", ", in the folder of its source"];
  return [
    `\n# A token for an app, by a command${place}:\n\n`,
    `export GOKV_URL=${base} GOKV_JWT=$TOKEN\n`,
    `${command} token issue --device room-301 --app board\n`,
  ];
}
