// What a test measures against the clock or in memory: the target is what a quiet machine reaches, the bound is what a
// busy one still keeps. A run beyond the target says so, and only one beyond the bound has failed.

import { expect } from "bun:test";
import { report } from "./run-size.ts";

/** Other processes may have the cores for a while, never for as long as a request that hangs takes. */
const SLACK = 5;
/** Below this a target says more about the scheduler than about the program under test. */
const BOUND_MS_MIN = 500;

/** Fails when a time or a size is more than `slack` times its target. */
export function expectFigure(label: string, value: number, target: number, slack = SLACK): void {
  if (value > target) report(`${label}: ${shown(value)}, beyond its target of ${shown(target)}`);
  expect(value, label).toBeLessThanOrEqual(target * slack);
}

/** Where a time has failed that was to be `targetMs`; a short one gets more room than its multiple. */
export function boundMs(targetMs: number): number {
  return Math.max(SLACK * targetMs, BOUND_MS_MIN);
}

/** A time in ms; see boundMs. */
export function expectTime(label: string, ms: number, targetMs: number): void {
  expectFigure(`${label}, in ms`, ms, targetMs, boundMs(targetMs) / targetMs);
}

/** A time in ms that must not be shorter than `fromMs` at all, and not much longer than `targetMs`. */
export function expectTimeFrom(label: string, ms: number, fromMs: number, targetMs: number): void {
  expect(ms, label).toBeGreaterThanOrEqual(fromMs);
  expectTime(`${label}, beyond ${shown(fromMs)} ms`, ms - fromMs, targetMs - fromMs);
}

function shown(value: number): string {
  return value >= 1e6 ? `${(value / 1e6).toFixed(1)} million` : `${Math.round(value * 10) / 10}`;
}
