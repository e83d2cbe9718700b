// How much a test does: enough to notice a defect in an ordinary run, the full figures when a full run asks for them.

/** GOKV_FULL=1: everything a release must pass. GOKV_LONG=1: what takes longer than anybody waits for. */
const isFullRun = process.env.GOKV_FULL === "1";
const isLongRun = process.env.GOKV_LONG === "1";

/** The one place that tells an ordinary run from a full one, and that from a long one. */
export function bySize<T>(ordinary: T, full: T, long: T = full): T {
  return isLongRun ? long : isFullRun ? full : ordinary;
}

/** A line on stderr: what a run has measured, beside whether it has passed. */
export function report(figures: string): void {
  process.stderr.write(`figure: ${figures}\n`);
}
