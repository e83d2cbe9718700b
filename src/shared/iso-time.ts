// Times as every service writes them: UTC with milliseconds (RFC 3339).

/** `2026-02-01T00:00:00.000Z`, of ms since 1970. */
export function formatTime(ms: number): string {
  return new Date(ms).toISOString();
}

export function formatTimeOrNull(ms: number | null): string | null {
  return ms === null ? null : formatTime(ms);
}
