// What clients get to see of the headers of an upstream: these in their form only, as anything may stand in them.

import { createScrubber } from "./upstream-error.ts";

const TOKEN = "[\\w!#$%&'*+.^`|~-]+";
const MEDIA_TYPE = new RegExp(`^${TOKEN}/${TOKEN}(?:[ \\t]*;[ \\t]*${TOKEN}=(?:${TOKEN}|"${TOKEN}"))*`);
const USUAL_TYPE = /^application\/json(?:; ?charset=utf-8)?$/i;
const JSON_TYPE = "application/json";
const NUMBER = /^\d+(?:\.\d+)?$/;

/** The type of an answer that is JSON, up to where it ceases to be a type, and without the key of its channel. */
export function shownType(headers: Headers, key: string): string {
  const type = headers.get("content-type") ?? JSON_TYPE;
  return USUAL_TYPE.test(type) ? type : createScrubber([key])(MEDIA_TYPE.exec(type)?.[0] ?? JSON_TYPE);
}

/** How long the upstream says it took; null when that is no number. */
export function shownProcessingMs(headers: Headers): string | null {
  const time = headers.get("openai-processing-ms");
  return time !== null && NUMBER.test(time) ? time : null;
}
