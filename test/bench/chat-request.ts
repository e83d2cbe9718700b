// A chat completion as a load repeats it, in the same words to the upstream itself and to whatever stands before it.

import { modelOf, type UpstreamPlan } from "./quick-upstream.ts";
import type { FixedRequest } from "./request-stream.ts";

/** Whom a load asks. */
export interface ChatServer {
  readonly name: string;
  /** Without a path. */
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
}

export const CHAT_ROUTE = "/v1/chat/completions";
/** A prompt of ordinary length: about 1 KiB. */
const PROMPT = "What does a relay add to the time of a request, and what does it take from it? ".repeat(13);

export function chatBody(plan: UpstreamPlan): string {
  const messages = [
    { role: "system", content: "You answer briefly." },
    { role: "user", content: PROMPT },
  ];
  return JSON.stringify({
    model: modelOf(plan),
    messages,
    max_tokens: 100,
    ...(plan.events > 0 ? { stream: true } : {}),
  });
}

export function chatRequest({ headers }: ChatServer, plan: UpstreamPlan): FixedRequest {
  return { path: CHAT_ROUTE, headers: { "Content-Type": "application/json", ...headers }, body: chatBody(plan) };
}
