// Query strings read strictly: a misspelt or doubled parameter is an error, not a silent default.

import { AppError, type ErrorCode } from "../shared/errors.ts";
import { requireNoFragment } from "./request-path.ts";

/**
 * The parameters of a URL. A plus is a space, as forms send it.
 * @throws AppError path_invalid for a raw "#"; query_invalid for a name that is not in `known`, one given twice, or
 *   malformed encoding
 */
export function parseQuery<Name extends string>(url: string, known: readonly Name[]): Partial<Record<Name, string>> {
  const parameters: Partial<Record<Name, string>> = Object.create(null);
  requireNoFragment(url);
  const start = url.indexOf("?");
  if (start < 0) return parameters;
  for (const pair of url.slice(start + 1).split("&")) {
    if (pair === "") continue;
    const equals = pair.indexOf("=");
    const name = decode(equals < 0 ? pair : pair.slice(0, equals));
    if (!isKnown(name, known)) {
      const which = known.length === 0 ? "None is known here" : `Known here: ${known.join(", ")}`;
      throw new AppError("query_invalid", `Unknown query parameter. ${which}.`);
    }
    if (name in parameters) throw new AppError("query_invalid", `The query parameter ${name} is given twice.`);
    parameters[name] = equals < 0 ? "" : decode(pair.slice(equals + 1));
  }
  return parameters;
}

/** A parameter that is a whole number from `min` to `max`. @throws AppError `code` */
export function wholeNumber(
  text: string,
  { name, min, max }: { readonly name: string; readonly min: number; readonly max: number },
  code: ErrorCode = "invalid_parameter",
): number {
  const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
  if (value >= min && value <= max) return value;
  throw new AppError(code, `${name} is a whole number from ${min} to ${max}.`);
}

function isKnown<Name extends string>(name: string, known: readonly Name[]): name is Name {
  return (known as readonly string[]).includes(name);
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll("+", " "));
  } catch {
    throw new AppError("query_invalid", "The query holds a malformed percent-encoding or invalid UTF-8.");
  }
}
