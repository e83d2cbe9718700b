// A provider for trying the relay without one: speaks the API of OpenAI on this machine alone, and knows nothing.

import type { Server } from "bun";
import { MOCK_MODELS, type MockEvent, mockAnswer, mockModel } from "./mock-answers.ts";

const KEY = /^Bearer sk-mock-[\x21-\x7e]+$/;
const STORED_MAX = 1_000;

interface MockOptions {
  /** 0 = any free one. */
  readonly port: number;
  /** Before the answer of an accepted request, and before each event of a stream. */
  readonly delayMs: number;
}

export class MockUpstream implements AsyncDisposable {
  readonly #server: Server<undefined>;
  readonly #delayMs: number;
  /** Answers of POST /v1/responses by their ids. */
  readonly #stored = new Map<string, Readonly<Record<string, unknown>>>();

  /** @throws when the port is taken */
  constructor({ port, delayMs }: MockOptions) {
    this.#delayMs = delayMs;
    this.#server = Bun.serve({
      hostname: "127.0.0.1",
      port,
      development: false,
      reusePort: false,
      idleTimeout: 0,
      fetch: (request) => this.#answer(request),
    });
  }

  /** Without a path. */
  get url(): string {
    return this.#server.url.origin;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.stop(true);
  }

  async #answer(request: Request): Promise<Response> {
    if (!KEY.test(request.headers.get("authorization") ?? "")) {
      return refusal(401, "invalid_api_key", "Incorrect API key provided.");
    }
    const { pathname } = new URL(request.url);
    const path = pathname.replace(/^\/v1(?=\/)/, "");
    if (request.method !== "POST") return this.#lookUp(request.method, path);
    const body = await request.json().catch(() => null);
    if (typeof body !== "object" || body === null || Array.isArray(body)) {
      return refusal(400, "invalid_json", "The body is not a JSON object.");
    }
    const answer = mockAnswer(path, body as Record<string, unknown>);
    if (answer === null) return unknownPath();
    if (this.#delayMs > 0) await Bun.sleep(this.#delayMs);
    if (answer.kind === "events") return eventStream(answer.events, this.#delayMs);
    if (path === "/responses" && (body as { store?: unknown }).store !== false) this.#keep(answer.body);
    return Response.json(answer.body);
  }

  #lookUp(method: string, path: string): Response {
    const [, collection, id] = /^\/(models|responses)(?:\/(.+))?$/.exec(path) ?? [];
    if (collection === "models" && method === "GET") {
      if (id === undefined) return Response.json({ object: "list", data: MOCK_MODELS.map(mockModel) });
      const isKnown = (MOCK_MODELS as readonly string[]).includes(id);
      return isKnown ? Response.json(mockModel(id)) : refusal(404, "model_not_found", "There is no such model.");
    }
    const stored = collection === "responses" && id !== undefined ? this.#stored.get(id) : undefined;
    if (stored === undefined || id === undefined) return unknownPath();
    if (method === "GET") return Response.json(stored);
    if (method !== "DELETE") return unknownPath();
    this.#stored.delete(id);
    return Response.json({ id, object: "response", deleted: true });
  }

  #keep(response: Readonly<Record<string, unknown>>): void {
    const oldest = this.#stored.size < STORED_MAX ? undefined : this.#stored.keys().next().value;
    if (oldest !== undefined) this.#stored.delete(oldest);
    this.#stored.set(String(response.id), response);
  }
}

function eventStream(events: readonly MockEvent[], delayMs: number): Response {
  const texts = events.map(({ event, data }) => `${event === null ? "" : `event: ${event}\n`}data: ${data}\n\n`);
  const headers = { "content-type": "text/event-stream", "cache-control": "no-cache" };
  if (delayMs === 0) return new Response(texts.join(""), { headers });
  const rest = texts.values();
  const body = new ReadableStream({
    async pull(controller) {
      const { done, value } = rest.next();
      if (done) return controller.close();
      controller.enqueue(new TextEncoder().encode(value));
      await Bun.sleep(delayMs);
    },
  });
  return new Response(body, { headers });
}

function unknownPath(): Response {
  return refusal(404, "unknown_url", "There is nothing here.");
}

function refusal(status: number, code: string, message: string): Response {
  return Response.json({ error: { message, type: "invalid_request_error", param: null, code } }, { status });
}
