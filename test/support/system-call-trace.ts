// Reads what strace has written: which bytes went to which file or socket, what was synced, in which order.

import { readFileSync } from "node:fs";

/** One system call. `begun` and `ended` order the calls of all threads: line numbers of the trace. */
export interface TracedCall {
  readonly name: string;
  readonly thread: number;
  readonly begun: number;
  readonly ended: number;
  /** Seconds since 1970 at which the call began. */
  readonly beganAt: number;
  readonly arguments: string;
  /** -1 for an error; null when the process died inside the call. */
  readonly result: number | null;
  /** strace made the result up and the kernel never saw the call. */
  readonly isInjected: boolean;
}

export interface Trace {
  readonly calls: readonly TracedCall[];
  /** When the last thread of the process had ended, in seconds since 1970. */
  readonly endedAt: number;
}

const LINE = /^(\d+) +(\d+\.\d+) (.*)$/s;
const RESUMED = /^<\.\.\. (\w+) resumed>(.*)$/s;
const UNFINISHED = " <unfinished ...>";
const RESULT = / = (-?\d+|\?)(?=$|[ <])(.*)$/s;

/** @throws Error for a line that it does not understand */
export function readTrace(path: string): Trace {
  const calls: TracedCall[] = [];
  const open = new Map<string, { name: string; thread: number; begun: number; beganAt: number; head: string }>();
  let endedAt = 0;
  const lines = readFileSync(path, "latin1").split("\n");
  for (const [number, line] of lines.entries()) {
    if (line === "") continue;
    const [, thread = "", time = "", text = ""] = LINE.exec(line) ?? [];
    if (text.startsWith("+++")) endedAt = Number(time);
    else if (text.startsWith("<...")) {
      const started = open.get(thread);
      open.delete(thread);
      const tail = RESUMED.exec(text)?.[2];
      if (started === undefined || tail === undefined) throw new Error(`a trace line that nothing began: ${line}`);
      calls.push({ ...started, ended: number, ...parseCall(started.head + tail) });
    } else {
      const name = text.slice(0, text.indexOf("("));
      // A thread that strace had just met when the process died.
      if (name === "???") continue;
      if (!/^\w+$/.test(name)) throw new Error(`a trace line of an unknown form: ${line.slice(0, 200)}`);
      const started = { name, thread: Number(thread), begun: number, beganAt: Number(time) };
      if (text.endsWith(UNFINISHED)) open.set(thread, { ...started, head: text.slice(0, -UNFINISHED.length) });
      else calls.push({ ...started, ended: number, ...parseCall(text) });
    }
  }
  // Whoever was inside a call when the process was killed: the call may have had its effect.
  for (const { head, ...started } of open.values()) {
    calls.push({ ...started, ended: lines.length, arguments: argumentsOf(head), result: null, isInjected: false });
  }
  return { calls: calls.sort((a, b) => a.begun - b.begun), endedAt };
}

/**
 * How many calls of that name the thread that writes the log has made. On a store in the same state, doing the same,
 * its next one is one more.
 */
export function callsOfStorageThread({ calls }: Trace, name: string): number {
  const named = calls.filter((call) => call.name === name);
  const onLog = named.findLast((call) => pathOfDescriptor(call).endsWith("-wal"));
  return named.filter((call) => call.thread === onLog?.thread).length;
}

function parseCall(text: string): Pick<TracedCall, "arguments" | "result" | "isInjected"> {
  const end = text.lastIndexOf(")  = ") >= 0 ? text.lastIndexOf(")  = ") + 1 : text.lastIndexOf(" = ");
  const match = RESULT.exec(text.slice(Math.max(0, end)));
  if (match === null) throw new Error(`a system call without a result: ${text.slice(0, 200)}`);
  const result = match[1] === "?" ? null : Number(match[1]);
  return { arguments: argumentsOf(text.slice(0, end)), result, isInjected: match[2]!.includes("(INJECTED") };
}

function argumentsOf(text: string): string {
  return text.slice(text.indexOf("(") + 1).replace(/\)\s*$/, "");
}

/** The file or socket behind the first argument, `3</path>`. */
export function pathOfDescriptor(call: TracedCall): string {
  return unhex(/^-?\w+<([^>]*)>/.exec(call.arguments)?.[1] ?? "").toString();
}

/** The texts and buffers among the arguments, in order. */
export function buffersOf(call: TracedCall): Buffer<ArrayBuffer>[] {
  return call.arguments
    .split('"')
    .filter((_, index) => index % 2 === 1)
    .map(unhex);
}

/** The numbers behind the last text of the arguments. */
export function numbersOf(call: TracedCall): number[] {
  const tail = call.arguments.slice(call.arguments.lastIndexOf('"') + 1);
  return [...tail.matchAll(/(?:^|, )(\d+)(?=,|$)/g)].map((match) => Number(match[1]));
}

function unhex(text: string): Buffer<ArrayBuffer> {
  return Buffer.from(text.replaceAll("\\x", ""), "hex");
}
