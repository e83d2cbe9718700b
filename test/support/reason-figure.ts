// How often /metrics says that something happened for one reason.

import type { Target } from "./targets.ts";

/** 0 when the reason has no line yet. */
export async function countOf(target: Target, name: string, reason: string): Promise<number> {
  const text = await (await target.fetch("/metrics")).text();
  return Number(new RegExp(`^${name}\\{reason="${reason}"\\} (\\d+)$`, "m").exec(text)?.[1] ?? 0);
}

/** How much the count of each reason grows while `act` runs. */
export async function growthOf(
  target: Target,
  name: string,
  reasons: readonly string[],
  act: () => Promise<unknown>,
): Promise<Record<string, number>> {
  const counts = () => Promise.all(reasons.map((reason) => countOf(target, name, reason)));
  const before = await counts();
  await act();
  const after = await counts();
  return Object.fromEntries(reasons.map((reason, index) => [reason, after[index]! - before[index]!]));
}
