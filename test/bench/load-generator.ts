// As many requests as go through a number of connections: by wrk where it is installed, else by a generator of our own.

import { join } from "node:path";
import { InvalidRun, percentile } from "./figures.ts";
import { runOpenLoop } from "./open-loop.ts";
import { onGeneratorCores } from "./placement.ts";
import type { FixedRequest, RequestStream } from "./request-stream.ts";

export interface ClosedLoop {
  readonly url: string;
  readonly stream: RequestStream | FixedRequest;
  readonly connections: number;
  /** Whole seconds; wrk knows no others. */
  readonly seconds: number;
}

export interface ClosedLoopReport {
  readonly perSecond: number;
  readonly answered: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

/** Which of the two will be used. */
export function generatorName(): "wrk" | "built-in" {
  return Bun.which("wrk") === null ? "built-in" : "wrk";
}

/**
 * Each connection sends the next request when the last was answered.
 * @throws InvalidRun when an answer was an error, or a connection broke
 */
export function runClosedLoop(load: ClosedLoop): Promise<ClosedLoopReport> {
  return generatorName() === "wrk" ? runWrk(load) : runBuiltIn(load);
}

interface WrkSummary extends Omit<ClosedLoopReport, "perSecond"> {
  readonly seconds: number;
  /** Answers with a status above 399. */
  readonly refused: number;
  readonly broken: number;
}

async function runWrk({ url, stream, connections, seconds }: ClosedLoop): Promise<ClosedLoopReport> {
  const size = ["--threads=1", `--connections=${connections}`, `--duration=${seconds}s`, "--timeout=60s"];
  const [name, ...words] = scriptOf(stream);
  const script = join(import.meta.dir, name);
  const child = Bun.spawn([...onGeneratorCores(), "wrk", ...size, "--script", script, url, "--", ...words], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const [output, complaint] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
  const line = output.split("\n").find((text) => text.startsWith("{"));
  if (line === undefined) throw new InvalidRun(`wrk ended with ${await child.exited}: ${complaint || output}`);
  const summary = JSON.parse(line) as WrkSummary;
  if (summary.refused > 0) throw new InvalidRun(`${summary.refused} of ${summary.answered} answers were errors`);
  if (summary.broken > 0) throw new InvalidRun(`${summary.broken} connections broke or fell silent`);
  return { ...summary, perSecond: summary.answered / summary.seconds };
}

/** What makes the requests, and its arguments. */
function scriptOf(stream: RequestStream | FixedRequest): [name: string, ...words: string[]] {
  if ("body" in stream) {
    const headers = Object.entries(stream.headers).map(([name, value]) => `${name}: ${value}`);
    return ["wrk-fixed.lua", stream.method ?? "POST", stream.path, stream.body, ...headers];
  }
  const { method, bucket, order, first, count, valueBytes, token } = stream;
  return ["wrk-load.lua", method, bucket, order, `${first}`, `${count}`, `${valueBytes}`, token];
}

async function runBuiltIn({ url, stream, connections, seconds }: ClosedLoop): Promise<ClosedLoopReport> {
  const { samples, boundsMs } = await runOpenLoop({ url, stream, connections, phases: [{ rate: null, seconds }] });
  const odd = samples.status.filter((status) => status < 200 || status > 399);
  if (odd.length > 0) throw new InvalidRun(`${odd.length} answers were errors: ${[...new Set(odd)].join(", ")}`);
  const answered = samples.status.length;
  return {
    perSecond: answered / ((boundsMs[1]! - boundsMs[0]!) / 1000),
    answered,
    p50Ms: percentile(samples.latencyMs, 0.5),
    p99Ms: percentile(samples.latencyMs, 0.99),
  };
}
