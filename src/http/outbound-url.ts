// What a URL that somebody enters for requests of this server must look like.

const URL_CHARS_MAX = 2048;

/**
 * What is wrong with it, completing "the URL …": it has to be http or https, without user info, at most 2048
 * characters. Null when there is nothing. Where it leads is judged by OutboundTransport.judge.
 */
export function urlProblem(text: string): string | null {
  if (text.length > URL_CHARS_MAX) return `must have at most ${URL_CHARS_MAX} characters`;
  // The parser drops blanks and turns backslashes into slashes: what somebody reads would not be what it is.
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
  if (/[\s\\\x00-\x1f\x7f-\x9f]/.test(text)) return "must not contain blanks, control characters or backslashes";
  const authority = /^https?:\/\/([^/?#]+)/i.exec(text)?.[1];
  if (authority === undefined || !URL.canParse(text)) return "must be an http or https URL";
  if (new URL(text).port === "0") return "must not have port 0";
  if (authority.includes("@")) return "must not contain a user name or a password";
  return null;
}
