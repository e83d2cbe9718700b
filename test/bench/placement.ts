// Where the processes of a benchmark run: on two cores all share them, on more the generator has one of its own.

import { availableParallelism } from "node:os";

/** With fewer cores a generator of its own would take the storage thread's place. */
const CORES_TO_SPLIT_MIN = 4;

export function isSplit(): boolean {
  return availableParallelism() >= CORES_TO_SPLIT_MIN && Bun.which("taskset") !== null;
}

/** The command to put in front of what makes the load. */
export function onGeneratorCores(): string[] {
  return isSplit() ? ["taskset", "--cpu-list", "0"] : [];
}

/** The command to put in front of what is measured, and of its floor. */
export function onServerCores(): string[] {
  return isSplit() ? ["taskset", "--cpu-list", `1-${availableParallelism() - 1}`] : [];
}
