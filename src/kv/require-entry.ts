// The rules of the KV routes for an entry that comes another way: by import.

import type { NewEntry } from "../storage/kv-rows.ts";
import { requireContentType, requireMetadata } from "./entry-headers.ts";
import { requireBucketName, requireKey, requireUnreserved } from "./kv-path.ts";

/** Services may be on elsewhere: no bucket is reserved to one. */
const MOUNTS: ReadonlySet<string> = new Set();

/**
 * @throws AppError bucket_empty, bucket_invalid, bucket_reserved, key_empty, key_invalid, content_type_invalid,
 * metadata_invalid
 */
export function requireEntry({ bucket, key, contentType, metadata }: NewEntry): void {
  requireBucketName(bucket);
  requireUnreserved(bucket, MOUNTS);
  requireKey(key);
  if (contentType !== null) requireContentType(contentType);
  if (metadata !== null) requireMetadata(JSON.parse(metadata));
}
