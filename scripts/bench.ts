// Measures the executable beside its floors and says which targets it meets.
//
//   bun scripts/bench.ts [--short] [--out FILE] [NAME ...]
//
//   --short     shorter rounds and only what has a target: what CI runs, in some five minutes
//   --out FILE  the figures as JSON, with what they were measured on
//   NAME        only these benchmarks, or all of a group: relay for relay-latency and its like
//
// Exit 1 when answers were wrong, a ratio is far below its target, or an absolute figure is missed by far.
// A target that is missed by less is named in the table, because machines are noisy.

import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { parseArgs } from "node:util";
import { BACKUP_LATENCY } from "../test/bench/backup-latency.ts";
import { type Circumstances, circumstances, formatTable, type Outcome, toJson } from "../test/bench/bench-report.ts";
import type { Bench, Benchmark } from "../test/bench/benchmark.ts";
import { GeneratorLagged, InvalidRun, isMet, passesGate } from "../test/bench/figures.ts";
import { FilledStores } from "../test/bench/filled-store.ts";
import { JOB_DRAIN } from "../test/bench/job-drain.ts";
import { LISTS } from "../test/bench/lists.ts";
import { MEMORY } from "../test/bench/memory.ts";
import { OVERLOAD } from "../test/bench/overload.ts";
import { READ_LATENCY } from "../test/bench/read-latency.ts";
import { RELAY_LATENCY } from "../test/bench/relay-latency.ts";
import { RELAY_QUOTA } from "../test/bench/relay-quota.ts";
import { RELAY_STREAMS } from "../test/bench/relay-streams.ts";
import { RELAY_THROUGHPUT } from "../test/bench/relay-throughput.ts";
import { STARTUP } from "../test/bench/startup.ts";
import { TASK_LOGINS } from "../test/bench/task-logins.ts";
import { TASK_PAGES } from "../test/bench/task-pages.ts";
import { TASK_READS } from "../test/bench/task-reads.ts";
import { TASK_STREAMS } from "../test/bench/task-streams.ts";
import { THROUGHPUT } from "../test/bench/throughput.ts";
import { TOKEN_NAMESPACE } from "../test/bench/token-namespace.ts";
import { TOKEN_THROUGHPUT } from "../test/bench/token-throughput.ts";
import { WAL_GROWTH } from "../test/bench/wal-growth.ts";
import { ROOT } from "../test/support/executable.ts";
import { report } from "../test/support/run-size.ts";
import { mint } from "../test/support/targets.ts";
import { tempDir } from "../test/support/temp-dir.ts";

const BENCHMARKS: readonly Benchmark[] = [
  ...THROUGHPUT,
  READ_LATENCY,
  ...STARTUP,
  ...LISTS,
  MEMORY,
  WAL_GROWTH,
  OVERLOAD,
  BACKUP_LATENCY,
  ...RELAY_LATENCY,
  RELAY_THROUGHPUT,
  ...RELAY_STREAMS,
  RELAY_QUOTA,
  ...TOKEN_THROUGHPUT,
  ...TOKEN_NAMESPACE,
  ...TASK_READS,
  ...TASK_PAGES,
  ...TASK_LOGINS,
  ...TASK_STREAMS,
  ...JOB_DRAIN,
];

/** Well above what a run takes; something hangs. */
const SHORT_MINUTES_MAX = 15;
const FULL_MINUTES_MAX = 60;

interface Options {
  readonly isShort: boolean;
  readonly out: string | null;
  readonly chosen: readonly Benchmark[];
}

/** The one of that name; without one, those whose names begin with it. */
function named(name: string): readonly Benchmark[] {
  const exact = BENCHMARKS.filter((benchmark) => benchmark.name === name);
  return exact.length > 0 ? exact : BENCHMARKS.filter((benchmark) => benchmark.name.startsWith(`${name}-`));
}

/** Ends the process with 2 when they make no sense. */
function readOptions(): Options {
  try {
    const { values, positionals } = parseArgs({
      options: { short: { type: "boolean", default: false }, out: { type: "string" } },
      allowPositionals: true,
    });
    const unknown = positionals.filter((name) => named(name).length === 0);
    if (unknown.length > 0) {
      throw new Error(`there is no ${unknown.join(", ")}; there are ${BENCHMARKS.map(({ name }) => name).join(", ")}`);
    }
    const wanted = positionals.flatMap(named);
    const chosen = BENCHMARKS.filter((benchmark) => positionals.length === 0 || wanted.includes(benchmark));
    return { isShort: values.short, out: values.out === undefined ? null : resolve(values.out), chosen };
  } catch (error) {
    console.error(`bench: ${(error as Error).message}`);
    process.exit(2);
  }
}

async function runBenchmark(benchmark: Benchmark, bench: Bench): Promise<Outcome> {
  const startMs = performance.now();
  const done = (rest: Pick<Outcome, "figures" | "problem">): Outcome => ({
    benchmark: benchmark.name,
    seconds: (performance.now() - startMs) / 1000,
    ...rest,
  });
  const missing = benchmark.missing?.() ?? null;
  if (missing !== null) {
    process.stderr.write(`not run: the benchmark ${benchmark.name} needs ${missing}\n`);
    const isFailure = process.env.GOKV_REQUIRE_ALL === "1";
    return done({ figures: [], problem: { text: `not run, it needs ${missing}`, isFailure } });
  }
  try {
    return done({ figures: await benchmark.run(bench), problem: null });
  } catch (error) {
    const isKnown = error instanceof InvalidRun || error instanceof GeneratorLagged;
    const text = isKnown ? error.message : `${(error as Error).stack ?? error}`;
    return done({ figures: [], problem: { text, isFailure: !(error instanceof GeneratorLagged) } });
  }
}

function showConditions({ date, commit, cpu, cores, kernel, bun, generator, placement }: Circumstances): void {
  console.log(`${date}, commit ${commit}`);
  console.log(`${cpu}, ${cores} cores, Linux ${kernel}, Bun ${bun}`);
  console.log(`load by ${generator === "wrk" ? "wrk" : "the built-in generator, wrk is missing"}; ${placement}\n`);
}

/** Everything has passed when nothing was wrong and no gate was missed. */
function conclude(outcomes: readonly Outcome[]): boolean {
  const figures = outcomes.flatMap((outcome) => outcome.figures).filter(({ target }) => target !== null);
  const missed = figures.filter((figure) => !isMet(figure));
  const failed = figures.filter((figure) => !passesGate(figure));
  const broken = outcomes.filter(({ problem }) => problem?.isFailure === true);
  const name = ({ name }: { name: string }) => name.trim();
  report(`benchmarks: ${figures.length - missed.length} of ${figures.length} targets met`);
  if (missed.length > 0) report(`missed: ${missed.map(name).join("; ")}`);
  if (failed.length > 0) console.log(`\nfar off: ${failed.map(name).join("; ")}`);
  if (broken.length > 0) console.log(`\nwithout figures: ${broken.map(({ benchmark }) => benchmark).join(", ")}`);
  return failed.length === 0 && broken.length === 0;
}

/** The processes that this one has started and that still run. */
function children(): number[] {
  return readdirSync("/proc")
    .map(Number)
    .filter((pid) => pid > 0 && parentOf(pid) === process.pid);
}

function parentOf(pid: number): number | null {
  try {
    // The name in parentheses may hold anything; state and parent follow it.
    return Number(
      readFileSync(`/proc/${pid}/stat`, "utf8")
        .replace(/^.*\) /s, "")
        .split(" ")[1],
    );
  } catch {
    return null;
  }
}

const { isShort, out, chosen } = readOptions();
let interruption: string | null = null;
/** What runs loses its processes, fails and tidies up after itself; what was to come is left out. */
function interrupt(why: string): void {
  interruption = why;
  for (const pid of children()) process.kill(pid, "SIGKILL");
}
process.on("SIGINT", () => interrupt("interrupted"));
process.on("SIGTERM", () => interrupt("terminated"));
const limitMinutes = isShort ? SHORT_MINUTES_MAX : FULL_MINUTES_MAX;
const watchdog = setTimeout(() => interrupt(`longer than ${limitMinutes} minutes`), limitMinutes * 60_000);

using directory = tempDir();
mkdirSync(directory.file("filled"));
const filled = new FilledStores(directory.file("filled"));
let paths = 0;
const newPath = () => directory.file(`${++paths}`);
const bench: Bench = {
  isShort,
  token: await mint(),
  newPath,
  async filledStore(shape) {
    const path = newPath();
    await filled.copyTo(path, shape);
    return path;
  },
};
const conditions = circumstances(ROOT, isShort);
showConditions(conditions);
const outcomes: Outcome[] = [];
for (const benchmark of chosen) {
  const outcome = await runBenchmark(benchmark, bench);
  if (interruption !== null) break;
  outcomes.push(outcome);
  process.stderr.write(`${benchmark.name} (${outcome.seconds.toFixed(1)} s)\n`);
}
clearTimeout(watchdog);
console.log(formatTable(outcomes));
if (out !== null) writeFileSync(out, toJson(conditions, outcomes));
const hasPassed = conclude(outcomes);
if (interruption !== null) console.error(`bench: ${interruption}; what was under way and after it is left out`);
process.exitCode = hasPassed && interruption === null ? 0 : 1;
