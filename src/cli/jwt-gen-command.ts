// jwt-gen: mints an operator token. Nothing but the token ever goes to stdout.

import { readFileSync } from "node:fs";
import { mintJwt } from "../auth/mint-jwt.ts";
import { SCOPE_WORDS } from "../auth/principal.ts";
import { JWT_BYTES_MAX, LIFETIME_MS_MAX, SECRET_BYTES_MIN, TOKEN_BUCKETS_MAX } from "../shared/bounds.ts";
import { systemClock } from "../shared/clock.ts";
import { parseDurationMs } from "../shared/durations.ts";
import { EXIT, ExitError } from "../shared/errors.ts";
import { dropLineEnd } from "../shared/settings.ts";
import { fileReason } from "../shared/system-reasons.ts";
import { type FlagValues, Misuse, type StrictCommand } from "./run-cli.ts";
import { writeOut } from "./write-out.ts";

const LIFETIME_MS_MIN = 1000;

export const jwtGenCommand: StrictCommand = {
  meta: { name: "jwt-gen", description: "Prints a token for the KV routes and the administrative ones" },
  args: {
    secret: { type: "string", description: "The server's JWT_SECRET" },
    "secret-file": { type: "string", valueHint: "file", description: "A file that holds it; - is standard input" },
    "expires-in": { type: "string", valueHint: "duration", required: true, description: "24h, 30m, 1h30m, 365d …" },
    "not-before": { type: "string", valueHint: "duration", description: "Valid only so long from now on" },
    scope: {
      type: "string",
      valueHint: "words",
      description: `${SCOPE_WORDS.join(" ")}; may be repeated`,
    },
    bucket: { type: "string", valueHint: "name", description: "Only this bucket, or name*; may be repeated" },
    prefix: { type: "string", valueHint: "text", description: "Only keys that start with it" },
    sub: { type: "string", valueHint: "text", description: "Whom the token is for; shown in the access log" },
    jti: { type: "string", valueHint: "text", description: "An id for the token; shown in the access log" },
  },
  repeatable: ["scope", "bucket"],
  async run(flags) {
    const secret = readSecret(flags);
    const expiresInMs = parseLifetime(flags["expires-in"] as string);
    const notBeforeMs = parseNotBefore(flags["not-before"] as string | undefined);
    if (notBeforeMs !== undefined && notBeforeMs >= expiresInMs) {
      throw new Misuse("--not-before lies behind --expires-in: the token would never be valid");
    }
    const scope = (flags.scope as string[] | undefined)?.flatMap((words) => words.split(/[ ,]+/));
    const token = await mintJwt(
      secret,
      {
        expiresInMs,
        notBeforeMs,
        subject: flags.sub as string | undefined,
        tokenId: flags.jti as string | undefined,
        scope: scope?.join(" "),
        buckets: parseBuckets(flags.bucket as string[] | undefined),
        prefix: flags.prefix as string | undefined,
      },
      systemClock(),
    );
    const unknown = scope?.filter((word) => word !== "" && !SCOPE_WORDS.includes(word)) ?? [];
    if (unknown.length > 0) {
      const words = unknown.map((word) => JSON.stringify(word)).join(", ");
      process.stderr.write(`jwt-gen: warning: --scope ${words} grants nothing; known: ${SCOPE_WORDS.join(" ")}\n`);
    }
    const bytesMax = JWT_BYTES_MAX - "Bearer ".length;
    if (token.length > bytesMax) {
      throw new ExitError(EXIT.usage, `the token has ${token.length} bytes, of which a server takes ${bytesMax}`);
    }
    if (secret.length < SECRET_BYTES_MIN) {
      process.stderr.write(
        `jwt-gen: warning: the secret has ${secret.length} bytes; use at least ${SECRET_BYTES_MIN}\n`,
      );
    }
    writeOut(`${token}\n`);
    return EXIT.done;
  },
};

function readSecret(flags: FlagValues): Uint8Array<ArrayBuffer> {
  const text = flags.secret as string | undefined;
  const file = flags["secret-file"] as string | undefined;
  if ((text === undefined) === (file === undefined)) {
    throw new Misuse("give exactly one of --secret and --secret-file");
  }
  if (text?.includes("\ufffd")) throw new Misuse("the secret is not UTF-8: use --secret-file, which takes any bytes");
  const secret = file === undefined ? new TextEncoder().encode(text) : readSecretFile(file);
  if (secret.length === 0) throw new Misuse("the secret is empty");
  return secret;
}

function readSecretFile(file: string): Uint8Array<ArrayBuffer> {
  if (file === "") throw new Misuse("the name of the --secret-file is empty");
  try {
    return dropLineEnd(new Uint8Array(readFileSync(file === "-" ? 0 : file)));
  } catch (error) {
    throw new ExitError(EXIT.failed, `cannot read ${file}: ${fileReason(error)}`);
  }
}

function parseLifetime(text: string): number {
  const ms = parseDurationMs(text);
  if (ms === null || ms < LIFETIME_MS_MIN || ms > LIFETIME_MS_MAX) {
    throw new Misuse(`--expires-in "${text}" is not a duration from 1s to 36500d, such as 24h`);
  }
  return ms;
}

function parseNotBefore(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const ms = parseDurationMs(text);
  if (ms === null || Math.abs(ms) > LIFETIME_MS_MAX) {
    throw new Misuse(`--not-before "${text}" is not a duration, such as 10m`);
  }
  return ms;
}

function parseBuckets(buckets: string[] | undefined): string[] | undefined {
  if (buckets !== undefined && buckets.length > TOKEN_BUCKETS_MAX) {
    throw new Misuse(`--bucket may be given ${TOKEN_BUCKETS_MAX} times`);
  }
  return buckets;
}
