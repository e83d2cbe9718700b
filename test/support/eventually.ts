// Waits for something that another process does in its own time.

const PAUSE_MS = 20;
const STILL_MS = 700;
/** A machine with other things to do may need so long for what takes a moment; only what never comes is a failure. */
const PATIENCE_MS_MIN = 60_000;

/** Resolves when `isSo` is true; looks again and again, since nothing tells. @throws Error after a minute or longer */
export async function eventually(
  what: string,
  expectedMs: number,
  isSo: () => boolean | Promise<boolean>,
): Promise<void> {
  const patienceMs = Math.max(expectedMs, PATIENCE_MS_MIN);
  const deadlineMs = performance.now() + patienceMs;
  while (!(await isSo())) {
    if (performance.now() > deadlineMs) throw new Error(`not within ${patienceMs} ms: ${what}`);
    await Bun.sleep(PAUSE_MS);
  }
}

/** Resolves when the figure has not changed for a while. */
export async function untilStill(figure: () => number): Promise<void> {
  for (let last = -1; last !== figure(); ) {
    last = figure();
    await Bun.sleep(STILL_MS);
  }
}

/** Waits until the clock says so; nothing else tells a client that an entry has expired. */
export async function untilAfter(timeMs: number): Promise<void> {
  while (Date.now() <= timeMs) await Bun.sleep(Math.max(1, timeMs - Date.now()));
}
