// Times as clients of the task service write them: RFC 3339.

const DATE = /(\d{4})-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])/;
const TIME = /((?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d)(?:\.(\d{1,9}))?/;
const OFFSET = /(?:[Zz]|([+-])([01]\d|2[0-3]):([0-5]\d))/;
const DATE_TIME = new RegExp(`^${DATE.source}[Tt]${TIME.source}${OFFSET.source}$`);
const MINUTE_MS = 60_000;
/** What four digits can name: 0000-01-01T00:00:00.000Z to 9999-12-31T23:59:59.999Z. */
const YEARS_MS = { min: -62_167_219_200_000, max: 253_402_300_799_999 };

/**
 * Ms since 1970 of a date-time (RFC 3339, section 5.6) with any offset, or null for anything else: a bare date, a day
 * that its month does not have, a leap second. Fractions below the millisecond are cut off.
 */
export function parseTime(text: string): number | null {
  const match = DATE_TIME.exec(text);
  if (match === null) return null;
  const [, year, month, day, time, fraction = "", sign, hours, minutes] = match;
  const local = Date.parse(`${year}-${month}-${day}T${time}.${fraction.slice(0, 3).padEnd(3, "0")}Z`);
  // A day too many ends up in the next month.
  if (new Date(local).getUTCDate() !== Number(day)) return null;
  const offsetMs = sign === undefined ? 0 : Number(`${sign}1`) * (Number(hours) * 60 + Number(minutes)) * MINUTE_MS;
  const ms = local - offsetMs;
  return ms >= YEARS_MS.min && ms <= YEARS_MS.max ? ms : null;
}
