// The bodies of the webhook routes: one definition validates them and documents them.

import { z } from "zod";
import { urlProblem } from "../http/outbound-url.ts";
import { EVENT_TYPES, type EventType } from "./task-tables.ts";

/** Parsing stops here: longer lists are not judged element by element. */
const SENT_EVENTS_MAX = 100;

const url = z.string().superRefine((text, context) => {
  const problem = urlProblem(text) ?? (text.includes("#") ? "must not have a fragment" : null);
  if (problem !== null) context.addIssue({ code: "custom", message: problem });
});

const events = z.array(z.enum(EVENT_TYPES)).min(1).max(SENT_EVENTS_MAX).transform(inOrder);

export const NewWebhookBody = z.strictObject({ url, events });

export const WebhookChangesBody = z.strictObject({
  url: url.optional(),
  events: events.optional(),
  active: z.boolean().optional(),
});

/** Each once, in the order in which they are documented. */
function inOrder(given: readonly EventType[]): EventType[] {
  return EVENT_TYPES.filter((type) => given.includes(type));
}
