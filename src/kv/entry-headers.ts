// What a write says about its entry besides the value: content type, metadata, time to live.

import {
  CONTENT_TYPE_BYTES_MAX,
  METADATA_BYTES_MAX,
  METADATA_ENTRIES_MAX,
  TTL_SECONDS_MAX,
  TTL_SECONDS_MIN,
} from "../shared/bounds.ts";
import { parseDurationMs } from "../shared/durations.ts";
import { AppError } from "../shared/errors.ts";

const METADATA_PREFIX = "x-meta-";
const METADATA_NAME = /^[a-z0-9._-]{1,64}$/;
const PRINTABLE_ASCII = /^[\x20-\x7e]*$/;

/** A media type (RFC 9110, section 8.3.1): type/subtype; parameters with tokens or quoted strings. */
export const MEDIA_TYPE_TOKEN = "[!#$%&'*+.^_`|~0-9A-Za-z-]+";
export const MEDIA_TYPE_QUOTED = String.raw`"(?:[\t \x21\x23-\x5b\x5d-\x7e]|\\[\t \x21-\x7e])*"`;
const PARAMETER = `${MEDIA_TYPE_TOKEN}=(?:${MEDIA_TYPE_TOKEN}|${MEDIA_TYPE_QUOTED})`;
const MEDIA_TYPE = new RegExp(`^${MEDIA_TYPE_TOKEN}/${MEDIA_TYPE_TOKEN}(?:[ \\t]*;(?:[ \\t]*${PARAMETER})?)*[ \\t]*$`);
/** What `curl -d` sends unasked says nothing about the value. */
const FORM = /^application\/x-www-form-urlencoded[ \t]*(?:;[^,]*)?$/i;

/**
 * The content type to keep, or null when none was given.
 * @throws AppError content_type_invalid
 */
export function parseContentType(header: string | null): string | null {
  if (header === null || header === "" || FORM.test(header)) return null;
  requireContentType(header);
  return header;
}

/** @throws AppError content_type_invalid */
export function requireContentType(header: string): void {
  if (header.length > CONTENT_TYPE_BYTES_MAX || !MEDIA_TYPE.test(header)) {
    throw new AppError(
      "content_type_invalid",
      `Content-Type must be one media type of at most ${CONTENT_TYPE_BYTES_MAX} bytes, such as text/plain.`,
    );
  }
}

/** A part of a value would be stored as the whole of it (RFC 9110, section 14.5). @throws AppError */
export function refuseContentRange(headers: Headers): void {
  if (!headers.has("content-range")) return;
  throw new AppError("content_range_unsupported", "A value is stored as a whole; leave out Content-Range.");
}

/**
 * `X-Meta-*` headers as the JSON text to store, or null when there are none.
 * @throws AppError metadata_invalid
 */
export function parseMetadata(headers: Headers): string | null {
  let metadata: Record<string, string> | null = null;
  for (const header of headers.keys()) {
    if (!header.startsWith(METADATA_PREFIX)) continue;
    const name = header.slice(METADATA_PREFIX.length);
    const value = headers.get(header)!;
    metadata ??= Object.create(null) as Record<string, string>;
    metadata[name] = value;
  }
  return metadata === null ? null : requireMetadata(metadata);
}

/** The JSON text of metadata that keeps the rules. @throws AppError metadata_invalid */
export function requireMetadata(metadata: Readonly<Record<string, string>>): string {
  const entries = Object.entries(metadata);
  const text = JSON.stringify(metadata);
  const isValid = entries.every(([name, value]) => METADATA_NAME.test(name) && PRINTABLE_ASCII.test(value));
  if (isValid && entries.length <= METADATA_ENTRIES_MAX && text.length <= METADATA_BYTES_MAX) return text;
  throw new AppError(
    "metadata_invalid",
    `X-Meta-* takes up to ${METADATA_ENTRIES_MAX} names of a-z 0-9 . _ - with printable ASCII values, ` +
      `${METADATA_BYTES_MAX} bytes of JSON in all.`,
  );
}

/** Stored metadata as the headers that brought it. */
export function metadataHeaders(metadata: string): Record<string, string> {
  const entries = Object.entries(JSON.parse(metadata) as Record<string, string>);
  return Object.fromEntries(entries.map(([name, value]) => [`X-Meta-${name}`, value]));
}

/**
 * The time to live in ms, or null when none was given. The query and the header may both be there if they agree.
 * @throws AppError ttl_invalid
 */
export function parseTtlMs(query: string | null, header: string | null): number | null {
  const fromQuery = query === null ? null : parseTtl(query);
  const fromHeader = header === null ? null : parseTtl(header);
  if (fromQuery !== null && fromHeader !== null && fromQuery !== fromHeader) {
    throw new AppError("ttl_invalid", "ttl and X-TTL name different durations; send one of them.");
  }
  return fromQuery ?? fromHeader;
}

function parseTtl(text: string): number {
  const ms = /^\d{1,12}$/.test(text) ? Number(text) * 1000 : parseDurationMs(text);
  if (ms === null || ms < TTL_SECONDS_MIN * 1000 || ms > TTL_SECONDS_MAX * 1000) {
    throw new AppError(
      "ttl_invalid",
      "A TTL is a duration from 1 second to 3650 days (60, 90s, 1h30m, 7d), not a timestamp.",
    );
  }
  return Math.round(ms);
}
