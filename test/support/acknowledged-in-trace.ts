// What a traced server has promised, and whether it could.

import type { CrashEvent } from "./crash-states.ts";
import type { Attempt } from "./durable-load.ts";

/** The writes whose 2xx is in bytes that were sent. */
export function acknowledgedIn(event: CrashEvent): number[] {
  if (event.kind !== "sent") return [];
  const text = Buffer.from(event.bytes).toString("latin1");
  return [...text.matchAll(/HTTP\/1\.1 2\d\d [^\0]*?X-Request-Id: w-(\d+)\r\n/g)].map((match) => Number(match[1]));
}

/**
 * Puts whose 2xx left before an fsync of the log `wal` had ended that began after their bytes were written. Removals
 * leave no bytes to look for.
 */
export function acknowledgedTooEarly(
  events: readonly CrashEvent[],
  attempts: readonly Attempt[],
  wal: string,
): number[] {
  const removals = new Set(attempts.filter(({ isRemoval }) => isRemoval).map(({ id }) => id));
  const written = new Set<number>();
  const covered = new Set<number>();
  const coveredBy = new Map<unknown, readonly number[]>();
  const tooEarly: number[] = [];
  for (const event of events) {
    if (event.kind === "sent") {
      tooEarly.push(...acknowledgedIn(event).filter((id) => !covered.has(id) && !removals.has(id)));
    } else if (event.path === wal && event.kind === "write") {
      for (const [, id] of Buffer.from(event.bytes)
        .toString("latin1")
        .matchAll(/v(\d+);/g))
        written.add(Number(id));
    } else if (event.path === wal && event.kind === "syncBegins") coveredBy.set(event.call, [...written]);
    else if (event.path === wal && event.kind === "syncEnds") {
      for (const id of coveredBy.get(event.call)!) covered.add(id);
      for (const id of covered) written.delete(id);
    }
  }
  return tooEarly;
}
