// Names in the environment that look like settings of the server and are none: misspelt, most likely.

const NAMES_MAX = 10;
const NAME_CHARACTERS_MAX = 64;
/** What only this server's settings begin with. */
const OWN = /^(TOKEN|RELAY|TASK|JOBS|WEBHOOK)_/;
/** What container platforms set for a service that is called `task` or `relay`. */
const OF_PLATFORM = /^[A-Z]+_(SERVICE_HOST|SERVICE_PORT|PORT)(_|$)/;

/** One line with names and no values, for the log; null when there are none. */
export function unknownSettings(
  env: Readonly<Record<string, string | undefined>>,
  known: ReadonlySet<string>,
): string | null {
  const isMeant = (name: string) => OWN.test(name) || [...known].some((one) => isOneLetterOff(name, one));
  const names = Object.keys(env).filter((name) => !known.has(name) && !OF_PLATFORM.test(name) && isMeant(name));
  if (names.length === 0) return null;
  const shown = names.slice(0, NAMES_MAX).map((name) => name.slice(0, NAME_CHARACTERS_MAX));
  const rest = names.length > NAMES_MAX ? ` and ${names.length - NAMES_MAX} more` : "";
  return `not read, since no setting has this name: ${shown.join(", ")}${rest}`;
}

/** One letter is another one, too many, or missing. */
function isOneLetterOff(name: string, other: string): boolean {
  if (Math.abs(name.length - other.length) > 1) return false;
  let start = 0;
  while (start < name.length && name[start] === other[start]) start++;
  const [rest, otherRest] = [name.slice(start), other.slice(start)];
  return rest.slice(1) === otherRest.slice(1) || rest.slice(1) === otherRest || rest === otherRest.slice(1);
}
