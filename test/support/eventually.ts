// Waits for something that another process does in its own time.

const PAUSE_MS = 20;

/** Resolves when `isSo` is true; looks again and again, since nothing tells. @throws Error after `timeoutMs` */
export async function eventually(
  what: string,
  timeoutMs: number,
  isSo: () => boolean | Promise<boolean>,
): Promise<void> {
  const deadlineMs = performance.now() + timeoutMs;
  while (!(await isSo())) {
    if (performance.now() > deadlineMs) throw new Error(`not within ${timeoutMs} ms: ${what}`);
    await Bun.sleep(PAUSE_MS);
  }
}
