// A receiver of webhooks on this machine: keeps every request it saw, and answers as a test tells it.

import { createHmac, timingSafeEqual } from "node:crypto";

/** A receiver refuses what is older or newer than this. */
const TOLERANCE_S = 300;

export interface SeenDelivery {
  /** Of the URL. */
  readonly path: string;
  /** By names in small letters. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
  /** The body as JSON. */
  readonly json: { readonly type: string; readonly timestamp: string; readonly data: Record<string, unknown> };
}

type Answer = (seen: SeenDelivery) => Response | Promise<Response>;

/** Answers 204 wherever it was not told otherwise. */
export class WebhookReceiver implements AsyncDisposable {
  readonly seen: SeenDelivery[] = [];
  readonly #answers = new Map<string, Answer>();
  readonly #server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    // One that never answers is no reason for the runtime to do so.
    idleTimeout: 0,
    fetch: (request) => this.#take(request),
  });

  /** What requests to `path` get from now on. */
  answer(path: string, answer: Answer): void {
    this.#answers.set(path, answer);
  }

  url(path: string): string {
    return `http://127.0.0.1:${this.#server.port}${path}`;
  }

  at(path: string): SeenDelivery[] {
    return this.seen.filter((delivery) => delivery.path === path);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.stop(true);
  }

  async #take(request: Request): Promise<Response> {
    const body = await request.text();
    const delivery: SeenDelivery = {
      path: new URL(request.url).pathname,
      headers: Object.fromEntries(request.headers),
      body,
      json: JSON.parse(body),
    };
    this.seen.push(delivery);
    return (this.#answers.get(delivery.path) ?? (() => new Response(null, { status: 204 })))(delivery);
  }
}

/** For a path that never answers. */
export function neverAnswer(): Promise<Response> {
  return new Promise(() => undefined);
}

/**
 * Whether a receiver that knows `secret` would accept the delivery: the verification of Standard Webhooks 1.0, written
 * from its text and nothing else.
 */
export function isAccepted(
  { headers, body }: Pick<SeenDelivery, "headers" | "body">,
  secret: string,
  nowMs = Date.now(),
): boolean {
  const [id, timestamp] = [headers["webhook-id"], headers["webhook-timestamp"]];
  if (id === undefined || timestamp === undefined || !/^\d+$/.test(timestamp)) return false;
  if (Math.abs(nowMs / 1000 - Number(timestamp)) > TOLERANCE_S) return false;
  const [prefix, encoded = ""] = secret.split("_");
  if (prefix !== "whsec") return false;
  const expected = createHmac("sha256", Buffer.from(encoded, "base64"))
    .update(Buffer.from(`${id}.${timestamp}.${body}`, "utf8"))
    .digest();
  return (headers["webhook-signature"] ?? "").split(" ").some((signature) => {
    const [version, value = ""] = signature.split(",");
    const given = Buffer.from(value, "base64");
    return version === "v1" && given.length === expected.length && timingSafeEqual(given, expected);
  });
}
