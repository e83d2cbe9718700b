// The path of a request as the URL standard left it: the text that is routed, authorised and acted on.

import { AppError } from "../shared/errors.ts";

/**
 * `http://host/b/k?x` → `/b/k`, still percent-encoded. Hono's own reading decodes some of it, by which `/%5flist`
 * would become `/_list`. A raw "#" stays in the path, so that it can be refused.
 */
export function requestPath(url: string): string {
  // Without a Host the target stands there as it came, and may say anything behind its path.
  const start = url.startsWith("/") ? 0 : url.indexOf("/", url.indexOf("://") + 3);
  if (start < 0) return "/";
  const query = url.indexOf("?", start);
  return query < 0 ? url.slice(start) : url.slice(start, query);
}

/**
 * False for a request without a Host, or with one that no URL can hold: then the runtime passes Host and target on as
 * they came, and no "..", no backslash in the path has been resolved.
 */
function hasHost(url: string): boolean {
  return url.startsWith("http") && URL.canParse(url);
}

/** The same for one server, whose clients nearly all say the same Host: what comes behind it makes no URL invalid. */
export function createHostCheck(): (url: string) => boolean {
  // Begins no URL.
  let known = "\0";
  return (url) => {
    if (url.startsWith(known)) return true;
    if (!hasHost(url)) return false;
    const end = url.indexOf("/", url.indexOf("://") + 3);
    if (end >= 0) known = url.slice(0, end + 1);
    return true;
  };
}

/**
 * A raw "#" never reaches a well-behaved server: whatever stands behind it would be dropped silently.
 * @throws AppError path_invalid
 */
export function requireNoFragment(url: string): void {
  if (url.includes("#")) throw new AppError("path_invalid", 'A "#" must be written %23.');
}
