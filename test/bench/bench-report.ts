// How figures are shown and kept: a table for people, JSON for comparisons.

import { cpus, release } from "node:os";
import { type Figure, isMet, type Target } from "./figures.ts";
import { generatorName } from "./load-generator.ts";
import { isSplit } from "./placement.ts";

/** One benchmark after its run. */
export interface Outcome {
  readonly benchmark: string;
  readonly figures: readonly Figure[];
  /** Why there are no figures, and whether that counts as a failure. */
  readonly problem: { readonly text: string; readonly isFailure: boolean } | null;
  readonly seconds: number;
}

const HEADINGS = ["benchmark", "measured", "floor", "ratio", "target", ""] as const;

/** Lines of one table over all outcomes, the figures in columns. */
export function formatTable(outcomes: readonly Outcome[]): string {
  const rows: (readonly string[])[] = [HEADINGS];
  for (const { benchmark, figures, problem } of outcomes) {
    rows.push(...figures.map(formatRow));
    if (problem !== null)
      rows.push([`${benchmark}: ${problem.text}`, "", "", "", "", problem.isFailure ? "INVALID" : "–"]);
  }
  // A problem is a sentence and may be longer than the column.
  const widths = HEADINGS.map((_, column) =>
    Math.max(...rows.filter((row) => row[1] !== "").map((row) => row[column]!.length)),
  );
  const isNumber = (column: number) => column >= 1 && column <= 3;
  const lines = rows.map((row) =>
    row
      .map((cell, column) => (isNumber(column) ? cell.padStart(widths[column]!) : cell.padEnd(widths[column]!)))
      .join("  "),
  );
  lines.splice(1, 0, widths.map((width) => "-".repeat(width)).join("  "));
  return lines.map((line) => line.trimEnd()).join("\n");
}

function formatRow(figure: Figure): readonly string[] {
  const { name, unit, measured, floor, ratio, target } = figure;
  return [
    name,
    `${formatNumber(measured)} ${unit}`,
    floor === null ? "–" : `${formatNumber(floor)} ${unit}`,
    ratio === null ? "–" : ratio.toFixed(2),
    target === null ? "reported" : formatTarget(target, unit),
    target === null ? "" : isMet(figure) ? "met" : "MISSED",
  ];
}

function formatTarget({ of, bound, value, aim }: Target, unit: string): string {
  const limit = `${bound === "at least" ? "≥" : "≤"} ${of === "ratio" ? `${value} of floor` : `${value} ${unit}`}`;
  return aim === undefined ? limit : `${limit}, aim ${aim}`;
}

function formatNumber(value: number): string {
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return value.toFixed(digits).replace(/\B(?=(\d{3})+$)/g, " ");
}

/** What figures have to be told with, or they say nothing. */
export interface Circumstances {
  readonly date: string;
  readonly commit: string;
  readonly cpu: string;
  readonly cores: number;
  readonly kernel: string;
  readonly bun: string;
  readonly generator: string;
  readonly placement: string;
  readonly isShort: boolean;
}

export function circumstances(root: string, isShort: boolean): Circumstances {
  return {
    date: new Date().toISOString(),
    commit: commitOf(root),
    cpu: cpus()[0]?.model ?? "unknown",
    cores: cpus().length,
    kernel: release(),
    bun: Bun.version,
    generator: generatorName(),
    placement: isSplit() ? "generator and server on different cores" : "generator and server share the cores",
    isShort,
  };
}

/** The hash, marked when the files differ from it; "unknown" outside a clone. */
function commitOf(root: string): string {
  if (Bun.which("git") === null) return "unknown";
  const git = (...words: string[]) => Bun.spawnSync(["git", ...words], { cwd: root, stderr: "ignore" });
  const head = git("rev-parse", "HEAD");
  if (head.exitCode !== 0) return "unknown";
  const isChanged = git("status", "--porcelain", "--", "src").stdout.length > 0;
  return `${head.stdout.toString().trim()}${isChanged ? " with changes" : ""}`;
}

export function toJson(conditions: Circumstances, outcomes: readonly Outcome[]): string {
  const results = outcomes.map(({ benchmark, figures, problem, seconds }) => ({
    benchmark,
    seconds: Number(seconds.toFixed(1)),
    problem: problem?.text ?? null,
    figures: figures.map((figure) => ({
      ...figure,
      name: figure.name.trim(),
      isMet: figure.target === null ? null : isMet(figure),
    })),
  }));
  return `${JSON.stringify({ ...conditions, results }, null, 2)}\n`;
}
