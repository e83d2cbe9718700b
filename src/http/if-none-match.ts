// If-None-Match (RFC 9110, section 13.1.2): whether its sender has the current answer already.

/** Under weak comparison (section 8.8.3.2). `etag` holds no comma, so a list is read right without its grammar. */
export function isUnchanged(header: string | null, etag: string): boolean {
  if (header === null) return false;
  if (header === etag || header.trim() === "*") return true;
  const opaque = withoutWeakness(etag);
  return header.split(",").some((tag) => withoutWeakness(tag.trim()) === opaque);
}

function withoutWeakness(tag: string): string {
  return tag.startsWith("W/") ? tag.slice(2) : tag;
}
