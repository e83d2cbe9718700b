// Asks a running server, in the name of its operator.

import { mintJwt } from "../auth/mint-jwt.ts";
import { systemClock } from "../shared/clock.ts";
import { EXIT, ExitError } from "../shared/errors.ts";
import { readJwtSecret } from "../shared/settings.ts";
import { networkReason } from "../shared/system-reasons.ts";
import { localServerUrl } from "./local-server.ts";

const OWN_TOKEN_MS = 60_000;
const TIMEOUT_MS = 30_000;

/** What the commands that ask a server read, for their help. */
export const CLIENT_ENVIRONMENT = {
  GOKV_URL: "the server; default: this machine, at HOST and PORT",
  GOKV_JWT: "an operator token with the admin scope",
  JWT_SECRET: "without GOKV_JWT: the server's secret (or JWT_SECRET_FILE), to sign a token of a minute",
};

/**
 * What a command needs of a server, and a path that its document shows only then. Without the service the paths of the
 * command would be those of an ordinary bucket: the server would keep a provider's key as a value, and say it is done.
 */
const NEEDS = {
  token: { path: "/api/kv/devices", words: "the service token is" },
  relay: { path: "/api/channel", words: "the service relay is" },
  task: { path: "/_admin/task/users", words: "the service task is" },
  rekey: { path: "/_admin/rekey", words: "the services relay and task are" },
} as const;

export type Need = keyof typeof NEEDS;

/** A JSON answer; null when it has no body. */
export type Answer = Record<string, unknown> | null;

interface Reply {
  readonly status: number;
  readonly text: string;
  /** With the path, for messages. */
  readonly url: string;
}

interface Credential {
  readonly jwt: string;
  /** What to look at when the server does not accept it. */
  readonly advice: string;
}

export class AdminClient {
  readonly #url: string;
  /** This machine: no proxy leads there. */
  readonly #isLocal: boolean;
  readonly #credential: Credential;
  readonly #need: Need;
  /** Whether the server has what the command needs; looked at once. */
  #checked: Promise<void> | null = null;
  #headers = new Headers();

  private constructor(url: string | null, env: NodeJS.ProcessEnv, credential: Credential, need: Need) {
    this.#url = (url ?? localServerUrl(env)).replace(/\/+$/, "");
    this.#isLocal = url === null;
    this.#credential = credential;
    this.#need = need;
  }

  /**
   * `url` or GOKV_URL, else this machine; GOKV_JWT, else a token of its own, signed with the secret of the settings.
   * The first request of the command is preceded by a look at whether the server has what it needs.
   * @throws ExitError (2) no credential
   */
  static async open(url: string | undefined, env: NodeJS.ProcessEnv, need: Need): Promise<AdminClient> {
    return new AdminClient(url ?? (env.GOKV_URL || null), env, await credentialOf(env), need);
  }

  /** Of the last answer. */
  get headers(): Headers {
    return this.#headers;
  }

  /** Waits `timeoutMs` for the answer. @throws ExitError (1) with the server's own message */
  async ask(
    method: string,
    path: string,
    body?: Record<string, unknown>,
    timeoutMs: number = TIMEOUT_MS,
  ): Promise<Answer> {
    const reply = await this.#send(method, path, body, timeoutMs);
    if (!isDone(reply)) throw this.#refusal(reply);
    if (reply.text === "") return null;
    const answer = parsed(reply.text);
    if (answer === null) throw this.#refusal(reply);
    return answer;
  }

  /** As `ask`, but null when something that the request names is not there. */
  async askUnlessMissing(method: string, path: string, body: Record<string, unknown>): Promise<Answer> {
    const reply = await this.#send(method, path, body);
    if (reply.status === 404) return null;
    const answer = isDone(reply) ? parsed(reply.text) : null;
    if (answer === null) throw this.#refusal(reply);
    return answer;
  }

  /**
   * Makes `id` in `collection`, unless it is there or another command makes it at this moment. Tells whether it did.
   * @throws ExitError (1) with the server's own message
   */
  async ensure(collection: string, id: string, body: Record<string, unknown>): Promise<boolean> {
    const found = await this.#send("GET", `${collection}/${encodeURIComponent(id)}`);
    if (isDone(found)) return false;
    const reply = found.status === 404 ? await this.#send("POST", collection, body) : found;
    if (!isDone(reply) && reply.status !== 409) throw this.#refusal(reply);
    return isDone(reply);
  }

  /** Nothing is sent before it is known that the server has the service. */
  async #send(
    method: string,
    path: string,
    body?: Record<string, unknown>,
    timeoutMs: number = TIMEOUT_MS,
  ): Promise<Reply> {
    this.#checked ??= this.#requireService();
    await this.#checked;
    return this.#fetch(method, path, body, timeoutMs);
  }

  /** @throws ExitError (1) */
  async #requireService(): Promise<void> {
    const reply = await this.#fetch("GET", "/openapi.json", undefined, TIMEOUT_MS);
    const paths = isDone(reply) ? parsed(reply.text)?.paths : undefined;
    if (typeof paths !== "object" || paths === null) throw this.#refusal(reply);
    const { path, words } = NEEDS[this.#need];
    if (!(path in paths)) throw new ExitError(EXIT.failed, `${words} not on at ${this.#url} (SERVICES).`);
  }

  async #fetch(
    method: string,
    path: string,
    body: Record<string, unknown> | undefined,
    timeoutMs: number,
  ): Promise<Reply> {
    const url = this.#url + path;
    try {
      const response = await fetch(url, {
        method,
        headers: {
          Authorization: `Bearer ${this.#credential.jwt}`,
          ...(body === undefined ? {} : { "Content-Type": "application/json" }),
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        ...(this.#isLocal ? { proxy: false } : {}),
        signal: AbortSignal.timeout(timeoutMs),
        // The runtime would give up by itself after five minutes of silence.
        timeout: false,
      } as RequestInit);
      this.#headers = response.headers;
      return { status: response.status, text: await response.text(), url };
    } catch (error) {
      throw new ExitError(EXIT.failed, this.#silence(error, timeoutMs));
    }
  }

  /** Why there is no answer, and what to look at. */
  #silence(error: unknown, timeoutMs: number): string {
    if (error instanceof DOMException && error.name === "TimeoutError") {
      return `${this.#url} did not answer within ${timeoutMs / 1000} s. It may still do what it was asked for.`;
    }
    return `${this.#url} cannot be reached: ${networkReason(error)}. Is it running? See --url.`;
  }

  #refusal({ status, text, url }: Reply): ExitError {
    const { message, code } = parsed(text) ?? {};
    if (typeof message !== "string" || typeof code !== "string") {
      return new ExitError(EXIT.failed, `${url} answered ${status}, and not as gokv does. Is gokv there? See --url.`);
    }
    const advice = status === 401 ? `. ${this.#credential.advice}` : "";
    return new ExitError(EXIT.failed, `the server refused: ${message} (${status} ${code})${advice}`);
  }
}

function isDone({ status }: Reply): boolean {
  return status >= 200 && status < 300;
}

/** Null when it is no object. */
function parsed(text: string): Answer {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" ? (value as Answer) : null;
  } catch {
    return null;
  }
}

/** @throws ExitError (2) */
async function credentialOf(env: NodeJS.ProcessEnv): Promise<Credential> {
  if (env.GOKV_JWT) {
    return { jwt: env.GOKV_JWT, advice: "Is GOKV_JWT still valid, and signed with the secret of this server?" };
  }
  const secret = readJwtSecret(env);
  if (secret === null) {
    throw new ExitError(EXIT.usage, "set GOKV_JWT to a token with the admin scope, or JWT_SECRET to the secret.");
  }
  const claims = { expiresInMs: OWN_TOKEN_MS, scope: "admin", subject: "gokv cli" };
  return {
    jwt: await mintJwt(secret, claims, systemClock()),
    advice: "Is JWT_SECRET the one the server was started with? See GOKV_JWT.",
  };
}
