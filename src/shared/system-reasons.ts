// What the codes of the system and of the runtime mean, for people who read the messages of commands.

import { messageOf } from "./errors.ts";

const FILE_REASONS: Readonly<Record<string, string>> = {
  ENOENT: "there is no such file",
  ENOTDIR: "a part of its path is no folder",
  EISDIR: "it is a folder",
  EACCES: "this user may not",
  EPERM: "this user may not",
  ENAMETOOLONG: "its name is too long",
  ELOOP: "its links lead in a circle",
  ENOSPC: "there is no space left",
  EDQUOT: "there is no space left for this user",
  EROFS: "it is on a volume that cannot be written",
  EIO: "its disk fails",
};

const NETWORK_REASONS: Readonly<Record<string, string>> = {
  ECONNREFUSED: "nothing listens there",
  ECONNRESET: "the connection was closed before the answer",
  ENOTFOUND: "there is no host of that name",
  EPROTO: "it does not speak TLS there",
  ETIMEDOUT: "nothing answers there",
  EHOSTUNREACH: "no way leads to that host",
  ENETUNREACH: "no way leads to that network",
  ERR_INVALID_URL: "that is no address such as http://127.0.0.1:8080",
  ERR_INVALID_ARG_VALUE: "that is no address such as http://127.0.0.1:8080",
};

/** Why a file cannot be read or written, with the code of the system behind it. */
export function fileReason(error: unknown): string {
  return inWords(FILE_REASONS, error);
}

/** Why there is no answer. Without the code where that is the runtime's own. */
export function networkReason(error: unknown): string {
  return inWords(NETWORK_REASONS, error);
}

function inWords(reasons: Readonly<Record<string, string>>, error: unknown): string {
  const code = (error as NodeJS.ErrnoException | null)?.code;
  if (typeof code !== "string") return messageOf(error);
  const words = Object.hasOwn(reasons, code) ? reasons[code] : undefined;
  if (words === undefined) return code;
  return code.startsWith("ERR_") ? words : `${words} (${code})`;
}
