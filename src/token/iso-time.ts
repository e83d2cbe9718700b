// Times as the token service writes them.

/** `2026-02-01T00:00:00.000Z`, of ms since 1970. */
export function iso(ms: number): string {
  return new Date(ms).toISOString();
}
