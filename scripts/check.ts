// Everything a change must pass, step by step, with times; stops at the first failure. Ends with "N passed, N failed".
//
//   bun scripts/check.ts        format, lint, types, unit, conformance in-process and on the executable
//   bun scripts/check.ts full   also faults, simulation, demo, image, a short benchmark (or GOKV_FULL=1)
//   bun scripts/check.ts long   also soaks, power cuts, million-operation runs, full-size benchmarks

import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

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

/** Files in processes of their own, as many at once as there are cores: most of their time they wait. */
const PARALLEL_TEST = [BUN, "test", "--parallel"];

const STEPS: readonly Step[] = [
  { name: "format and lint", level: "quick", command: [join(BIN, "biome"), "ci", "--error-on-warnings", "."] },
  { name: "types", level: "quick", command: [BUN, "check", "--no-script"] },
  { name: "unit and tidy", level: "quick", command: [BUN, "test", "test/unit", "test/tidy.test.ts"] },
  { name: "conformance in-process", level: "quick", command: PARALLEL_TEST.concat(conformance("in-process")) },
  { name: "build", level: "quick", command: [BUN, "scripts/build.ts"] },
  { name: "conformance on the executable", level: "quick", command: PARALLEL_TEST.concat(conformance("executable")) },
  { name: "simulation", level: "full", command: [BUN, "test", "test/simulation"] },
  { name: "faults", level: "full", command: [...PARALLEL_TEST, "test/fault"] },
  { name: "demo", level: "full", command: [BUN, "scripts/demo.ts"] },
  { name: "benchmark, short", level: "full", command: [BUN, "scripts/bench.ts", "--short"] },
  { name: "power cuts", level: "long", command: [BUN, "scripts/power-cuts.ts"] },
  { name: "benchmark", level: "long", command: [BUN, "scripts/bench.ts"] },
];

function conformance(kind: "in-process" | "executable"): string[] {
  const files = [...new Bun.Glob("test/conformance/*.test.ts").scanSync({ cwd: ROOT })].sort();
  return files.filter((file) => file.includes("/in-process-") === (kind === "in-process"));
}

interface Count {
  passed: number;
  failed: number;
}

/** A test run counts its tests, any other step counts as one. */
async function runStep({ name, command }: Step, level: Level): Promise<Count> {
  const startMs = performance.now();
  const isTestRun = command[1] === "test";
  const scratch = mkdtempSync(join(tmpdir(), "gokv-check-"));
  const report = join(scratch, "junit.xml");
  const child = Bun.spawn(isTestRun ? [...command, "--reporter=junit", `--reporter-outfile=${report}`] : [...command], {
    cwd: ROOT,
    env: {
      ...process.env,
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
  const count = isTestRun ? countTests(report) : { passed: exitCode === 0 ? 1 : 0, failed: 0 };
  if (exitCode !== 0 && count.failed === 0) count.failed = 1;
  rmSync(scratch, { recursive: true, force: true });
  const seconds = ((performance.now() - startMs) / 1000).toFixed(1);
  const detail = isTestRun ? `, ${count.passed} tests` : "";
  console.log(`${exitCode === 0 ? "ok  " : "FAIL"} ${name} (${seconds} s${detail})`);
  for (const line of `${stdout}\n${stderr}`.split("\n")) {
    if (line.startsWith("not run:") || line.startsWith("figure:")) console.log(`     ${line}`);
  }
  if (exitCode !== 0) console.log(tail(`${stdout}\n${stderr}`));
  return count;
}

function countTests(report: string): Count {
  if (!existsSync(report)) return { passed: 0, failed: 0 };
  const head = readFileSync(report, "utf8").slice(0, 2000);
  const total = Number(/<testsuites[^>]* tests="(\d+)"/.exec(head)?.[1] ?? 0);
  const failed = Number(/<testsuites[^>]* failures="(\d+)"/.exec(head)?.[1] ?? 0);
  return { passed: total - failed, failed };
}

/** What failed, without the tests that passed. */
function tail(output: string): string {
  const lines = output.split("\n").filter((line) => !/^\(pass\)/.test(line.trim()));
  return lines.slice(-200).join("\n");
}

const asked = process.argv[2] ?? (process.env.GOKV_FULL === "1" ? "full" : "quick");
const level = LEVELS.find((candidate) => candidate === asked);
if (level === undefined) {
  console.error(`check takes one of ${LEVELS.join(", ")}`);
  process.exit(2);
}
const total: Count = { passed: 0, failed: 0 };
for (const step of STEPS.filter((candidate) => LEVELS.indexOf(candidate.level) <= LEVELS.indexOf(level))) {
  const { passed, failed } = await runStep(step, level);
  total.passed += passed;
  total.failed += failed;
  // The rest would only repeat what is broken already.
  if (failed > 0) break;
}
console.log(`${total.passed} passed, ${total.failed} failed`);
process.exit(total.failed === 0 ? 0 : 1);
