// Query strings read strictly: a misspelt or doubled parameter is an error, not a silent default.

import { AppError, type ErrorCode } from "../shared/errors.ts";
import { requireNoFragment } from "./request-path.ts";

/** Of a name that somebody made up, in what they are answered. */
const SHOWN_NAME_MAX = 64;

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
      // A cut may leave half of a character.
      const shown = name.slice(0, SHOWN_NAME_MAX).toWellFormed();
      const message = `Unknown query parameter ${JSON.stringify(shown)}. ${which}.`;
      throw new AppError("query_invalid", message, { details: fieldOf(shown, "unknown") });
    }
    if (name in parameters) throw parameterError("query_invalid", name, "is given twice");
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
  throw parameterError(code, name, `is a whole number from ${min} to ${max}`);
}

/** What is wrong with a parameter: for people, and for programs on the surfaces that tell them so. */
export function parameterError(code: ErrorCode, name: string, words: string): AppError {
  return new AppError(code, `${name} ${words}.`, { details: fieldOf(name, words) });
}

function fieldOf(name: string, words: string): { readonly fields: string } {
  return { fields: JSON.stringify({ [name]: words }) };
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
