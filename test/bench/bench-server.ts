// The executable as it is measured: no access log, metrics on, and afterwards asked what it has answered.

import { readFileSync } from "node:fs";
import { type Environment, type ServerProcess, startServer } from "../support/executable.ts";
import { strace } from "../support/strace.ts";
import { SECRET } from "../support/targets.ts";
import { InvalidRun } from "./figures.ts";
import { onServerCores } from "./placement.ts";

export function startBenchServer(
  dbPath: string,
  env: Environment = {},
  wrapper: readonly string[] = [],
): Promise<ServerProcess> {
  return startServer({ JWT_SECRET: SECRET, DB_PATH: dbPath, ACCESS_LOG: "off", ...env }, [
    ...onServerCores(),
    ...wrapper,
  ]);
}

/** What makes every sync take `ms` longer, as a disk would; nothing else is slowed down. */
export function slowSync(ms: number, output: string): string[] {
  const calls = ["fsync", "fdatasync"];
  return strace({ output, calls, inject: [`${calls.join(",")}:delay_exit=${ms * 1000}`] });
}

/** Answers of a route by status, as the server itself has counted them. */
export async function answersOf(url: string, token: string, route: string): Promise<Map<number, number>> {
  const response = await fetch(`${url}/metrics`, { headers: { Authorization: `Bearer ${token}` } });
  if (response.status !== 200) throw new InvalidRun(`/metrics answers ${response.status}`);
  const counts = new Map<number, number>();
  for (const [, labels, value] of (await response.text()).matchAll(/^gokv_http_requests_total\{(.*)\} (\d+)$/gm)) {
    if (!labels!.includes(`route="${route}"`)) continue;
    const status = Number(/status="(\d+)"/.exec(labels!)?.[1]);
    counts.set(status, (counts.get(status) ?? 0) + Number(value));
  }
  return counts;
}

export const VALUE_ROUTE = "/:bucket/:key";

/** @throws InvalidRun when requests of the route were answered with another status than those, or not at all */
export async function requireStatuses(
  url: string,
  token: string,
  allowed: readonly number[],
  route: string = VALUE_ROUTE,
): Promise<void> {
  const counts = await answersOf(url, token, route);
  if (counts.size === 0) throw new InvalidRun("the server has counted no request");
  const odd = [...counts].filter(([status]) => !allowed.includes(status));
  if (odd.length > 0) throw new InvalidRun(odd.map(([status, count]) => `${count} answers were ${status}`).join(", "));
}

/** Live keys of a bucket. */
export async function countKeys(url: string, token: string, bucket: string): Promise<number> {
  const response = await fetch(`${url}/_list?bucket=${bucket}&count=1`, {
    headers: { Authorization: `Bearer ${token}` },
  });
  if (response.status !== 200) throw new InvalidRun(`the count of a bucket answers ${response.status}`);
  return ((await response.json()) as { count: number }).count;
}

/** Resident memory of a process in MB (10^6 bytes): now, or the most it ever had. */
export function residentMb(pid: number, which: "VmRSS" | "VmHWM"): number {
  const kib = new RegExp(`^${which}:\\s+(\\d+) kB$`, "m").exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
  if (kib === undefined) throw new InvalidRun(`/proc tells no ${which}`);
  return (Number(kib) * 1024) / 1e6;
}
