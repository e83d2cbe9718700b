// Durations as Go's time.ParseDuration reads them, plus `d` for days: tokens live that long.

const NANOSECONDS_PER_UNIT: Readonly<Record<string, number>> = {
  ns: 1,
  us: 1e3,
  µs: 1e3,
  μs: 1e3,
  ms: 1e6,
  s: 1e9,
  m: 60e9,
  h: 3600e9,
  d: 86_400e9,
};

const TERM = /(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h|d)/y;

/**
 * Reads `90s`, `1h30m`, `1.5h`, `7d`, `-1h`, `0` into milliseconds (fractions allowed), or null when the text is not
 * a duration. A bare number other than `0` is not one, as in Go.
 */
export function parseDurationMs(text: string): number | null {
  const sign = text.startsWith("-") ? -1 : 1;
  const terms = /^[+-]/.test(text) ? text.slice(1) : text;
  if (terms === "0") return 0;
  if (terms === "") return null;
  let nanoseconds = 0;
  TERM.lastIndex = 0;
  while (TERM.lastIndex < terms.length) {
    const match = TERM.exec(terms);
    if (match === null) return null;
    // Rounded, or 1.001s would be a little less than 1001 ms.
    nanoseconds += Math.round(Number(match[1]) * NANOSECONDS_PER_UNIT[match[2]!]!);
  }
  return Number.isFinite(nanoseconds) ? (sign * nanoseconds) / 1e6 : null;
}

/** `86400000` → `1d`, `1500` → `1.5s`; for messages and help texts. */
export function formatDuration(ms: number): string {
  const units = [
    ["d", 86_400_000],
    ["h", 3_600_000],
    ["m", 60_000],
  ] as const;
  for (const [unit, size] of units) if (ms >= size && ms % size === 0) return `${ms / size}${unit}`;
  return ms >= 1000 ? `${ms / 1000}s` : `${ms}ms`;
}
