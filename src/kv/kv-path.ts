// From the raw path of a request to a bucket and a key: split first, decode once, strictly.

import { BUCKET_BYTES_MAX, KEY_BYTES_MAX } from "../shared/bounds.ts";
import { AppError } from "../shared/errors.ts";

export interface KvTarget {
  readonly bucket: string;
  readonly key: string;
}

// Control characters: C0, DEL and C1. U+FFFD is what lossy decoding leaves: it would merge different requests.
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const NOT_IN_BUCKETS = /[\0-\x1f\x7f-\x9f/\ufffd]/;
// SQLite leaves string functions on U+0000 undefined, and PostgreSQL cannot store it.
const NOT_IN_KEYS = /[\0\ufffd]/;
const DOT_COMPONENT = /(?:^|\/)\.\.?(?:\/|$)/;

/**
 * Reads `/bucket/key…` (percent-encoded, without query). `/b/user/1` and `/b/user%2F1` are one key; a leading,
 * trailing or doubled slash belongs to the key.
 * @throws AppError path_invalid, bucket_empty, bucket_invalid, bucket_reserved, key_empty, key_invalid
 */
export function parseKvPath(path: string, reservedBuckets: ReadonlySet<string>): KvTarget {
  const slash = path.indexOf("/", 1);
  const bucket = decodeSegment(slash < 0 ? path.slice(1) : path.slice(1, slash));
  const rest = slash < 0 ? "" : path.slice(slash + 1);
  const key = decodePath(rest);
  requireBucketName(bucket);
  requireUnreserved(bucket, reservedBuckets);
  requireKey(key);
  return { bucket, key };
}

/** @throws AppError bucket_empty, bucket_invalid */
export function requireBucketName(bucket: string): void {
  if (bucket === "") throw new AppError("bucket_empty", "The bucket is empty. Use /bucket/key.");
  if (!isBucketName(bucket)) {
    throw new AppError(
      "bucket_invalid",
      `A bucket is 1 to ${BUCKET_BYTES_MAX} bytes of UTF-8 without control characters and slashes, not . or ..`,
    );
  }
}

export function isBucketName(bucket: string): boolean {
  return (
    bucket !== "" &&
    bucket !== "." &&
    bucket !== ".." &&
    !NOT_IN_BUCKETS.test(bucket) &&
    bucket.isWellFormed() &&
    fits(bucket, BUCKET_BYTES_MAX)
  );
}

/** Names that belong to the server: whatever begins with an underscore, and the mounts of the services that are on. */
export function isReserved(bucket: string, reservedBuckets: ReadonlySet<string>): boolean {
  return bucket.startsWith("_") || reservedBuckets.has(bucket);
}

/** @throws AppError bucket_reserved */
export function requireUnreserved(bucket: string, reservedBuckets: ReadonlySet<string>): void {
  if (!isReserved(bucket, reservedBuckets)) return;
  const why = bucket.startsWith("_")
    ? "This bucket name is reserved. Names must not begin with an underscore."
    : "This name belongs to a service of the server.";
  throw new AppError("bucket_reserved", why);
}

/** @throws AppError key_empty, key_invalid */
export function requireKey(key: string): void {
  if (key === "") throw new AppError("key_empty", "The key is empty. Use /bucket/key.");
  if (NOT_IN_KEYS.test(key) || !fits(key, KEY_BYTES_MAX) || DOT_COMPONENT.test(key) || !key.isWellFormed()) {
    throw new AppError(
      "key_invalid",
      `A key is 1 to ${KEY_BYTES_MAX} bytes of UTF-8 without U+0000 and U+FFFD, and no part between slashes is . or ..`,
    );
  }
}

/** Several segments, each decoded once. @throws AppError path_invalid */
export function decodePath(path: string): string {
  return path.includes("%") ? path.split("/").map(decodeSegment).join("/") : path;
}

function decodeSegment(segment: string): string {
  if (!segment.includes("%")) return segment;
  try {
    return decodeURIComponent(segment);
  } catch {
    throw new AppError("path_invalid", "The path holds a malformed percent-encoding or invalid UTF-8.");
  }
}

function fits(text: string, bytesMax: number): boolean {
  // A UTF-16 unit takes at most three bytes.
  return text.length * 3 <= bytesMax || Buffer.byteLength(text) <= bytesMax;
}
