// Everything a change must pass, step by step, with times; stops at the first failure. Ends with what failed and
// "N passed, N failed".
//
//   bun scripts/check.ts        format, lint, types, unit, conformance in-process and on the executable
//   bun scripts/check.ts full   also faults, simulation, demo, image, a short benchmark (or GOKV_FULL=1)
//   bun scripts/check.ts long   also soaks, power cuts, million-operation runs, full-size benchmarks

import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { bundleThreads } from "../test/support/thread-entries.ts";
import { endOf, type Failed, failedTests, formatFailed } from "./failed-tests.ts";

type Level = "quick" | "full" | "long";

interface Step {
  readonly name: string;
  readonly level: Level;
  readonly command: readonly string[];
}

const ROOT = join(import.meta.dir, "..");
const BUN = process.execPath;
const LEVELS: readonly Level[] = ["quick", "full", "long"];
const BIN = join(ROOT, "node_modules/.bin");

/** Of a test that does not say it itself: what hangs is told from what waits for a machine with other things to do. */
const TEST_MS_MAX = 120_000;
const TEST = [BUN, "test", `--timeout=${TEST_MS_MAX}`];
/**
 * Files in processes of their own, one more at once than there are cores, since much of their time they wait; the
 * slowest first. Their times need no care: `--update-timings` writes them anew where they have changed much.
 */
const PARALLEL_TEST = [...TEST, `--parallel=${availableParallelism() + 1}`, "--timings=test/timings.json"];
/** In one run, so that what waits in one of them leaves the cores to the others. */
const QUICK_TESTS = ["test/unit", "test/tidy.test.ts", "test/conformance"];

const STEPS: readonly Step[] = [
  { name: "format and lint", level: "quick", command: [join(BIN, "biome"), "ci", "--error-on-warnings", "."] },
  { name: "types", level: "quick", command: [BUN, "check", "--no-script"] },
  { name: "build", level: "quick", command: [BUN, "scripts/build.ts"] },
  { name: "unit, tidy and conformance", level: "quick", command: [...PARALLEL_TEST, ...QUICK_TESTS] },
  { name: "simulation and faults", level: "full", command: [...PARALLEL_TEST, "test/simulation", "test/fault"] },
  { name: "demo", level: "full", command: [BUN, "scripts/demo.ts"] },
  { name: "benchmark, short", level: "full", command: [BUN, "scripts/bench.ts", "--short"] },
  { name: "power cuts", level: "long", command: [BUN, "scripts/power-cuts.ts"] },
  { name: "benchmark", level: "long", command: [BUN, "scripts/bench.ts"] },
];

interface Result {
  readonly passed: number;
  readonly failed: readonly Failed[];
}

/** A test run counts its tests, any other step counts as one. */
async function runStep({ name, command }: Step, level: Level): Promise<Result> {
  const startMs = performance.now();
  const isTestRun = command[1] === "test";
  const scratch = mkdtempSync(join(tmpdir(), "gokv-check-"));
  const reportFile = join(scratch, "junit.xml");
  const reporting = isTestRun ? ["--reporter=junit", `--reporter-outfile=${reportFile}`] : [];
  const child = Bun.spawn([...command, ...reporting], {
    cwd: ROOT,
    env: {
      ...process.env,
      GOKV_TEST_THREADS: threads,
      ...(level === "quick" ? {} : { GOKV_FULL: "1" }),
      ...(level === "long" ? { GOKV_LONG: "1" } : {}),
    },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const [stdout, stderr, exitCode] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  const report = existsSync(reportFile) ? readFileSync(reportFile, "utf8") : "";
  const output = `${stdout}\n${stderr}`;
  const failed = failedTests(report);
  // A process that ends badly has failed even when each test has passed.
  const isWhole = exitCode === 0 || failed.length > 0;
  if (!isWhole) failed.push({ name: `ended with exit code ${exitCode}`, file: "", error: endOf(output) });
  const passed = isTestRun ? countTests(report) - failed.length + (isWhole ? 0 : 1) : 1 - failed.length;
  const seconds = ((performance.now() - startMs) / 1000).toFixed(1);
  const detail = isTestRun ? `, ${passed} tests` : "";
  console.log(`${exitCode === 0 ? "ok  " : "FAIL"} ${name} (${seconds} s${detail})`);
  // Before anything else that it has printed: a log may be cut, and this is what its reader looks for.
  if (failed.length > 0) console.log(formatFailed(name, failed));
  for (const line of output.split("\n")) {
    if (line.startsWith("not run:") || line.startsWith("figure:")) console.log(`     ${line}`);
  }
  if (exitCode === 0) rmSync(scratch, { recursive: true, force: true });
  else console.log(`${tail(output)}\nall that it has printed: ${keep(output, scratch)}`);
  return { passed: Math.max(0, passed), failed };
}

/** What was printed last, without the tests that passed and the names of files: more than one may have gone wrong. */
function tail(output: string): string {
  const lines = output.split("\n").filter((line) => !/^(?:\s*(?:\(pass\)|$)|test\/\S+\.test\.ts:$)/.test(line));
  return lines.slice(-60).join("\n");
}

function keep(output: string, directory: string): string {
  const path = join(directory, "output.log");
  writeFileSync(path, output);
  return path;
}

function countTests(report: string): number {
  return report.match(/<testcase /g)?.length ?? 0;
}

const asked = process.argv[2] ?? (process.env.GOKV_FULL === "1" ? "full" : "quick");
const level = LEVELS.find((candidate) => candidate === asked);
if (level === undefined) {
  console.error(`check takes one of ${LEVELS.join(", ")}`);
  process.exit(2);
}
const threads = mkdtempSync(join(tmpdir(), "gokv-threads-"));
await bundleThreads(threads);
let passedInAll = 0;
let failedInAll = 0;
for (const step of STEPS.filter((candidate) => LEVELS.indexOf(candidate.level) <= LEVELS.indexOf(level))) {
  const { passed, failed } = await runStep(step, level);
  passedInAll += passed;
  failedInAll += failed.length;
  // The rest would only repeat what is broken already.
  if (failed.length > 0) break;
}
rmSync(threads, { recursive: true, force: true });
console.log(`${passedInAll} passed, ${failedInAll} failed`);
process.exit(failedInAll === 0 ? 0 : 1);
