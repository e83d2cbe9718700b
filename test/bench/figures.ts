// What a benchmark hands back: figures with their floor and target, and the judgement over them.

import { boundMs } from "../support/figures-in-bounds.ts";

/** What a figure is held to. `gate` is where a run fails: targets are for a quiet machine, and machines are noisy. */
export interface Target {
  readonly of: "measured" | "ratio";
  readonly bound: "at least" | "at most";
  readonly value: number;
  /** Better than the target and not yet promised. */
  readonly aim?: number;
  readonly gate: number;
}

export interface Figure {
  readonly name: string;
  readonly unit: string;
  readonly measured: number;
  /** The same load on what cannot be done without, or in the quiet state, in the same run; null = there is none. */
  readonly floor: number | null;
  readonly ratio: number | null;
  /** null = reported only. */
  readonly target: Target | null;
}

/** Answers that were not what they had to be: the figures mean nothing and the run has failed. */
export class InvalidRun extends Error {}

/** The machine was too busy to make the load: the figures are thrown away, which says nothing about the server. */
export class GeneratorLagged extends Error {}

/** A ratio is of two figures of one run, and still swings when the machine has other things to do in one of them. */
const RATIO_SLACK = 4;

/** An absolute figure that must not exceed `value`; the gate is far wider: machines differ. */
export function atMost(
  value: number,
  figure: Pick<Figure, "name" | "unit" | "measured"> & Partial<Figure>,
  gate = figure.unit === "ms" ? boundMs(value) : 5 * value,
): Figure {
  return { floor: null, ratio: null, ...figure, target: { of: "measured", bound: "at most", value, gate } };
}

/** A share of the floor. */
export function ratioAtLeast(value: number, aim?: number): Target {
  return { of: "ratio", bound: "at least", value, gate: value / RATIO_SLACK, ...(aim === undefined ? {} : { aim }) };
}

/** A multiple of the floor. */
export function ratioAtMost(value: number): Target {
  return { of: "ratio", bound: "at most", value, gate: value * RATIO_SLACK };
}

export function reported(figure: Pick<Figure, "name" | "unit" | "measured"> & Partial<Figure>): Figure {
  return { floor: null, ratio: null, target: null, ...figure };
}

export function isMet(figure: Figure): boolean {
  return figure.target === null || isWithin(figure, figure.target, figure.target.value);
}

export function passesGate(figure: Figure): boolean {
  return figure.target === null || isWithin(figure, figure.target, figure.target.gate);
}

function isWithin(figure: Figure, { of, bound }: Target, limit: number): boolean {
  const value = of === "ratio" ? figure.ratio : figure.measured;
  if (value === null || Number.isNaN(value)) return false;
  return bound === "at least" ? value >= limit : value <= limit;
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** The value that `share` of all values do not exceed; NaN without values. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] ?? Number.NaN;
}
