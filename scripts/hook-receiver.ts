// The receiver of the demo's webhooks: verifies each delivery as a stranger would, and counts what came for which task.

import { createHmac } from "node:crypto";

const POLL_MS = 50;

export class HookReceiver implements Disposable {
  readonly #server;
  /** Secrets as they were shown, by the path that a hook calls. */
  readonly #secrets = new Map<string, string>();
  /** Ids of deliveries, each once, by event type and task. */
  readonly #ids = new Map<string, Set<string>>();
  received = 0;
  repeated = 0;
  forged = 0;

  constructor() {
    this.#server = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      fetch: async (request) => {
        const secret = this.#secrets.get(new URL(request.url).pathname) ?? "";
        this.#note(request.headers, await request.text(), secret);
        return new Response(null, { status: 204 });
      },
    });
  }

  urlOf(name: string): string {
    return new URL(`/${name}`, this.#server.url).href;
  }

  /** Deliveries that come before this are counted as forged: it has to follow the making of the hook at once. */
  trust(name: string, secret: string): void {
    this.#secrets.set(`/${name}`, secret);
  }

  /** Until each of `tasks` was told of, or `timeoutMs` is over. Told twice: by two deliveries, not by one repeated. */
  async waitFor(
    type: string,
    tasks: ReadonlySet<number>,
    timeoutMs: number,
  ): Promise<{ readonly lost: number; readonly twice: number }> {
    const deadlineMs = performance.now() + timeoutMs;
    const idsOf = (task: number) => this.#ids.get(`${type} ${task}`)?.size ?? 0;
    while ([...tasks].some((task) => idsOf(task) === 0) && performance.now() < deadlineMs) await Bun.sleep(POLL_MS);
    return {
      lost: [...tasks].filter((task) => idsOf(task) === 0).length,
      twice: [...tasks].filter((task) => idsOf(task) > 1).length,
    };
  }

  /** By the published scheme: HMAC-SHA-256 over id, timestamp and body (https://www.standardwebhooks.com). */
  #note(headers: Headers, body: string, secret: string): void {
    this.received++;
    const id = headers.get("webhook-id") ?? "";
    const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
    const signed = `${id}.${headers.get("webhook-timestamp")}.${body}`;
    const expected = `v1,${createHmac("sha256", key).update(signed).digest("base64")}`;
    if (!(headers.get("webhook-signature") ?? "").split(" ").includes(expected)) {
      this.forged++;
      return;
    }
    const { type, data } = JSON.parse(body) as { type: string; data: { task: { id: number } } };
    const name = `${type} ${data.task.id}`;
    const ids = this.#ids.get(name) ?? new Set();
    this.#ids.set(name, ids);
    if (ids.has(id)) this.repeated++;
    ids.add(id);
  }

  [Symbol.dispose](): void {
    this.#server.stop(true);
  }
}
