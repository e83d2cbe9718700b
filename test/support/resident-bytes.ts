// How much memory a process holds.

import { readFileSync } from "node:fs";

/** Resident, in bytes, as the kernel counts it. */
export function residentBytes(pid: number): number {
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))![1]) * 1024;
}
