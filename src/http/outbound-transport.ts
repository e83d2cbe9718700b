// The way to other servers: names are resolved and judged here, and only an address that passed is ever dialled.

import type { Clock } from "../shared/clock.ts";
import { monotonicMs } from "../shared/clock.ts";
import type { Eventually } from "../shared/eventual.ts";
import type { Log } from "../shared/log.ts";
import { VERSION } from "../shared/version.ts";
import type { AddressRules } from "./address-rules.ts";
import { inPieces } from "./outbound-body.ts";
import { OutboundDialer, type Secured } from "./outbound-dialer.ts";
import { type Lookup, OutboundResolver, systemLookup } from "./outbound-resolver.ts";

/** How long a connection is kept for the next request. */
const KEPT_IDLE_SECONDS = 60;
const USER_AGENT = `gokv/${VERSION}`;
const PROXY_VARIABLES = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] as const;
/** Nothing was sent yet, so another address may be tried. */
const CONNECT_FAILURES: ReadonlySet<string> = new Set([
  "ECONNREFUSED",
  "ETIMEDOUT",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "EADDRNOTAVAIL",
  "EHOSTDOWN",
  "ENETDOWN",
  "EINVAL",
  "EACCES",
  "EPERM",
  "FailedToOpenSocket",
]);
/** The other server was asked for no encoding at all; one that uses it nevertheless is understood. */
const ENCODINGS: Readonly<Record<string, "gzip" | "deflate" | "brotli" | "zstd">> = {
  gzip: "gzip",
  "x-gzip": "gzip",
  deflate: "deflate",
  br: "brotli",
  zstd: "zstd",
};

export interface OutboundRequest {
  /** http or https, without user info. */
  readonly url: string;
  readonly method: "GET" | "POST" | "DELETE";
  /** In small letters; a body without `content-type` is JSON. `accept-encoding` and `user-agent` are set here. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string | Uint8Array<ArrayBuffer> | null;
  /** The answer may go on for long after the body was sent: a large one is not kept for all that time. */
  readonly isAnswerLong?: boolean;
  /** Ends the request, before headers and in mid-body: the other side sees its connection close. */
  readonly signal: AbortSignal;
}

export interface OutboundAnswer {
  /** As it came; a redirect is not followed. */
  readonly status: number;
  readonly headers: Headers;
  /** Decoded; its reader fails when the connection breaks or the signal aborts. */
  readonly body: ReadableStream<Uint8Array> | null;
  /** Null when nobody knows how much will come. Instead of `body`, which costs a good deal more to read. */
  readonly whole: WholeBody | null;
}

/** A body that comes as it is and says how long it is. */
interface WholeBody {
  readonly lengthBytes: number;
  /** Once. Rejects when the connection breaks before all of it came, or the signal aborts. */
  read(): Promise<ArrayBuffer>;
}

/**
 * unreachable: name, connection, TLS, or a connection that ended without an answer. refused_address: no address of
 * the name may be dialled; nothing was sent. bad_response: what came is not HTTP, or in an unknown encoding. aborted:
 * by the signal.
 */
export type OutboundFailureKind = "unreachable" | "refused_address" | "bad_response" | "aborted";

/** Why a request got no answer. Not for a client: `code` and `cause` may name a host. */
export class OutboundFailure extends Error {
  override readonly name = "OutboundFailure";
  readonly kind: OutboundFailureKind;
  /** What the system or the runtime calls it, when it does. */
  readonly code: string | null;

  constructor(kind: OutboundFailureKind, cause?: unknown) {
    super(kind, cause === undefined ? undefined : { cause });
    this.kind = kind;
    this.code = codeOf(cause);
  }
}

/** Why requests to a URL would not be let out: its address is not allowed, or is only with TLS. */
export type Objection = "address" | "plain_http";

interface TransportOptions {
  /** What is reached, for the log: `upstreams`. */
  readonly what: string;
  readonly rules: AddressRules;
  /** One address that may not be dialled refuses its name as a whole; otherwise it is passed over. */
  readonly needsAll?: boolean;
  /** For resolving a name, and for each connection. */
  readonly connectMs: number;
  readonly log: Log;
  /** Where proxies would be named: they are not used, which is said once. */
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly lookup?: Lookup;
  readonly now?: Clock;
  /** Certificates (PEM) that are trusted instead of the well-known ones. */
  readonly ca?: string;
}

/** A URL in the parts that a request needs of it: asking the URL for each of them costs more than keeping them. */
interface Destination {
  readonly protocol: string;
  readonly hostname: string;
  readonly host: string;
  readonly port: number;
  /** Behind the address: `:8080`, or nothing for the port of the protocol. */
  readonly portSuffix: string;
  readonly path: string;
}

/** Beyond, all are read anew: upstreams and webhooks are few. */
const DESTINATIONS_MAX = 1_024;

export class OutboundTransport implements AsyncDisposable {
  readonly #destinations = new Map<string, Destination>();
  readonly #rules: AddressRules;
  readonly #needsAll: boolean;
  readonly #connectMs: number;
  readonly #resolver: OutboundResolver;
  readonly #dialer: OutboundDialer;
  readonly #ca: { readonly ca?: string };
  readonly #session = new Bun.FetchSession({ proxy: false, keepAlive: { idleTimeout: KEPT_IDLE_SECONDS } });

  constructor(options: TransportOptions) {
    const { what, rules, connectMs, log, env, lookup = systemLookup, now = monotonicMs, ca } = options;
    this.#rules = rules;
    this.#needsAll = options.needsAll ?? false;
    this.#connectMs = connectMs;
    this.#resolver = new OutboundResolver(lookup, now);
    this.#dialer = new OutboundDialer(connectMs, now);
    this.#ca = ca === undefined ? {} : { ca };
    const variables = PROXY_VARIABLES.filter((name) => env[name] || env[name.toLowerCase()]);
    if (variables.length > 0)
      log.info(`${what} are reached directly, not through the proxy that is set`, { variables });
  }

  /**
   * Why requests to a URL would not be let out, as its name resolves now; null = they would. A name that cannot be
   * resolved now passes: every connection is judged again.
   */
  async judge(url: string): Promise<Objection | null> {
    const { protocol, hostname } = new URL(url);
    if (protocol === "http:" && this.#rules.neverUsesPlainHttp) return "plain_http";
    this.#resolver.forget(hostname);
    let addresses: readonly string[];
    try {
      addresses = await this.#resolve(hostname, new AbortController().signal);
    } catch {
      return null;
    }
    if (this.#permitted(addresses, protocol).length > 0) return null;
    return this.#permitted(addresses, "https:").length > 0 ? "plain_http" : "address";
  }

  /**
   * Resolves when the head of the answer was read.
   * @throws OutboundFailure
   */
  async send(request: OutboundRequest): Promise<OutboundAnswer> {
    const { signal } = request;
    const destination = this.#destinationOf(request.url);
    const { protocol, hostname, port } = destination;
    if (signal.aborted) throw new OutboundFailure("aborted");
    const found = this.#resolve(hostname, signal);
    const resolved = found instanceof Promise ? await found : found;
    const allowed = this.#permitted(resolved, protocol);
    if (allowed.length === 0) throw new OutboundFailure("refused_address");
    let last: unknown;
    for (const address of this.#dialer.inOrder(allowed, port)) {
      try {
        const dial = this.#dialer.reach(address, port, securedOf(destination, address));
        if (dial !== null) await unlessAborted(dial, signal);
        const response = await this.#fetch(destination, address, request);
        this.#dialer.noteAnswered(address, port);
        return answerOf(response);
      } catch (error) {
        if (error instanceof OutboundFailure) throw error;
        if (signal.aborted) {
          this.#dialer.noteSilent(address, port);
          throw new OutboundFailure("aborted", error);
        }
        const code = codeOf(error);
        if (code !== null && /^(Malformed|Invalid|Unsupported)/.test(code))
          throw new OutboundFailure("bad_response", error);
        this.#dialer.noteFailed(address, port);
        if (code === null || !CONNECT_FAILURES.has(code)) throw new OutboundFailure("unreachable", error);
        last = error;
      }
    }
    // None of them works: perhaps the name has others by now.
    this.#resolver.forget(hostname);
    throw new OutboundFailure("unreachable", last);
  }

  /** Closes idle connections; requests under way go on. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#session.close();
  }

  /** Those of a name's addresses that may be dialled. */
  #permitted(addresses: readonly string[], protocol: string): readonly string[] {
    const permitted: string[] = [];
    for (const address of addresses) {
      const isPermitted = protocol === "https:" ? this.#rules.isAllowed(address) : this.#rules.mayUsePlainHttp(address);
      if (isPermitted) permitted.push(address);
    }
    return this.#needsAll && permitted.length < addresses.length ? [] : permitted;
  }

  #destinationOf(url: string): Destination {
    const known = this.#destinations.get(url);
    if (known !== undefined) return known;
    const { protocol, hostname, host, port, pathname, search } = new URL(url);
    const destination = {
      protocol,
      hostname,
      host,
      path: pathname + search,
      port: port === "" ? (protocol === "https:" ? 443 : 80) : Number(port),
      portSuffix: port === "" ? "" : `:${port}`,
    };
    if (this.#destinations.size >= DESTINATIONS_MAX) this.#destinations.clear();
    this.#destinations.set(url, destination);
    return destination;
  }

  /** Without a promise when they are known. @throws OutboundFailure unreachable, aborted */
  #resolve(hostname: string, signal: AbortSignal): Eventually<readonly string[]> {
    const addresses = this.#resolver.addressesOf(hostname);
    return addresses instanceof Promise ? this.#inTime(addresses, signal) : addresses;
  }

  async #inTime(addresses: Promise<readonly string[]>, signal: AbortSignal): Promise<readonly string[]> {
    const deadline = AbortSignal.timeout(this.#connectMs);
    try {
      return await unlessAborted(addresses, AbortSignal.any([signal, deadline]));
    } catch (error) {
      throw new OutboundFailure(signal.aborted ? "aborted" : "unreachable", error);
    }
  }

  #fetch({ protocol, hostname, host, portSuffix, path }: Destination, address: string, request: OutboundRequest) {
    const { method, headers, body, signal, isAnswerLong = false } = request;
    const pieces = isAnswerLong && body !== null ? inPieces(body) : null;
    const authority = `${address.includes(":") ? `[${address}]` : address}${portSuffix}`;
    const sent: Record<string, string> = { ...headers, host, "accept-encoding": "identity", "user-agent": USER_AGENT };
    if (body !== null) sent["content-type"] ??= "application/json";
    if (pieces !== null) sent["content-length"] = `${pieces.lengthBytes}`;
    const tls = protocol === "https:" ? { ...this.#ca, ...serverNameOf(hostname, address) } : undefined;
    return this.#session.fetch(`${protocol}//${authority}${path}`, {
      method,
      headers: sent,
      body: pieces?.body ?? body,
      tls,
      signal,
      redirect: "manual",
      // Decoding at once would let a few bytes grow to gigabytes before anybody counts them.
      decompress: false,
      timeout: false,
    } as RequestInit);
  }
}

function securedOf({ protocol, hostname }: Destination, address: string): Secured {
  if (protocol !== "https:") return null;
  const { serverName } = serverNameOf(hostname, address);
  return serverName === undefined ? {} : { servername: serverName };
}

/** The name that the certificate must have; an address is compared with the certificate by itself. */
function serverNameOf(hostname: string, address: string): { serverName?: string } {
  if (hostname === address || hostname.startsWith("[")) return {};
  return { serverName: hostname.replace(/\.$/, "") };
}

/** @throws OutboundFailure bad_response for an encoding that is not known */
function answerOf(response: Response): OutboundAnswer {
  const { status, headers } = response;
  const encoding = headers.get("content-encoding")?.trim().toLowerCase() ?? "";
  if (encoding === "" || encoding === "identity") {
    return new PlainAnswer(response, headers);
  }
  const { body } = response;
  if (body === null) return { status, headers, body, whole: null };
  const format = Object.hasOwn(ENCODINGS, encoding) ? ENCODINGS[encoding] : undefined;
  if (format === undefined) {
    body.cancel().catch(() => undefined);
    throw new OutboundFailure("bad_response");
  }
  const decoded = new Headers(headers);
  decoded.delete("content-encoding");
  decoded.delete("content-length");
  return { status, headers: decoded, body: body.pipeThrough(new DecompressionStream(format)), whole: null };
}

/** One that came as it is. */
class PlainAnswer implements OutboundAnswer {
  readonly #response: Response;
  readonly status: number;
  readonly headers: Headers;
  readonly whole: WholeBody | null;

  constructor(response: Response, headers: Headers) {
    this.#response = response;
    this.status = response.status;
    this.headers = headers;
    this.whole = wholeOf(response, headers);
  }

  /** Asked for only where it is read: the runtime makes a stream of it then. */
  get body(): ReadableStream<Uint8Array> | null {
    return this.#response.body;
  }
}

function wholeOf(response: Response, headers: Headers): WholeBody | null {
  const length = headers.get("content-length");
  if (length === null || !/^\d{1,15}$/.test(length) || headers.has("transfer-encoding")) return null;
  return { lengthBytes: Number(length), read: () => response.arrayBuffer() };
}

/** Rejects as soon as the signal aborts; the work goes on, others may wait for it. */
function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise, resolve, reject } = Promise.withResolvers<T>();
  const onAbort = () => reject(new OutboundFailure("aborted"));
  signal.addEventListener("abort", onAbort, { once: true });
  if (signal.aborted) onAbort();
  work.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  return promise;
}

function codeOf(error: unknown): string | null {
  const code = (error as { code?: unknown } | null | undefined)?.code;
  return typeof code === "string" ? code : null;
}
