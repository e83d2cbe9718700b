// A load that keeps to its own clock: requests leave when they are due, whether or not earlier ones were answered, so
// that a server that stalls meets the same load as one that does not. In a process of its own.

import { join } from "node:path";
import { GeneratorLagged } from "./figures.ts";
import { LightConnection } from "./light-connection.ts";
import { onGeneratorCores } from "./placement.ts";
import { readLines } from "./read-lines.ts";
import { type FixedRequest, type RequestStream, requestMaker } from "./request-stream.ts";

export interface Phase {
  /** Requests per second; null = each connection sends the next request when the last was answered. */
  readonly rate: number | null;
  readonly seconds: number;
}

export interface OpenLoop {
  readonly url: string;
  readonly stream: RequestStream | FixedRequest;
  /** Requests under way at once, at most; one that is due while all are taken is never sent. */
  readonly connections: number;
  readonly phases: readonly Phase[];
}

/** Three columns of one length. Status 0 = the connection ended without an answer. */
export interface Samples {
  /** When the request left, in milliseconds since 1970. */
  readonly atMs: readonly number[];
  /** From leaving to the answer. */
  readonly latencyMs: readonly number[];
  readonly status: readonly number[];
}

export interface OpenLoopReport {
  readonly samples: Samples;
  /** When each phase began, and the end of the last one. */
  readonly boundsMs: readonly number[];
  readonly unsent: number;
  /** How late requests left, the 99th percentile; such lateness is the generator's own. */
  readonly lagP99Ms: number;
}

export interface RunningLoad {
  /** Resolves when the first request is about to leave. */
  readonly started: Promise<void>;
  /** @throws Error when the generator failed */
  readonly report: Promise<OpenLoopReport>;
  /** Ends the phase under way and leaves out the others; `report` resolves soon after. */
  stop(): void;
}

/** How long answers are waited for after the last request. */
const LAST_ANSWERS_MS = 3000;

export function startOpenLoop(load: OpenLoop): RunningLoad {
  const child = Bun.spawn([...onGeneratorCores(), process.execPath, join(import.meta.dir, "open-loop.ts")], {
    stdin: Buffer.from(JSON.stringify(load)),
    stdout: "pipe",
    stderr: "inherit",
  });
  const lines = readLines(child.stdout);
  const started = lines.next().then(({ done }) => {
    if (done) throw new Error("the load generator ended before it began");
  });
  const report = started.then(async () => {
    const { value } = await lines.next();
    if (value === undefined) throw new Error(`the load generator ended with ${await child.exited}`);
    return JSON.parse(value) as OpenLoopReport;
  });
  report.catch(() => undefined);
  return { started, report, stop: () => child.kill("SIGTERM") };
}

/** Requests that left later than this were another load than the one asked for. */
const LAG_MS_MAX = 5;
const TRIES_MAX = 2;

export function hasLagged({ lagP99Ms }: { readonly lagP99Ms: number }): boolean {
  return lagP99Ms > LAG_MS_MAX;
}

/**
 * Runs `attempt` again while the generator itself could not keep up.
 * @throws GeneratorLagged when it never could
 */
export async function withoutLag<T extends { readonly lagP99Ms: number }>(attempt: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    const result = await attempt();
    if (!hasLagged(result)) return result;
    if (tries < TRIES_MAX) continue;
    throw new GeneratorLagged(`the generator itself lagged by ${result.lagP99Ms.toFixed(1)} ms, ${tries} times`);
  }
}

export function runOpenLoop(load: OpenLoop): Promise<OpenLoopReport> {
  return startOpenLoop(load).report;
}

/** The samples whose request left in `fromMs` … `toMs`. */
export function samplesBetween({ atMs, latencyMs, status }: Samples, fromMs: number, toMs: number): Samples {
  const inside = atMs.flatMap((at, index) => (at >= fromMs && at < toMs ? [index] : []));
  return {
    atMs: inside.map((index) => atMs[index]!),
    latencyMs: inside.map((index) => latencyMs[index]!),
    status: inside.map((index) => status[index]!),
  };
}

export function countByStatus({ status }: Samples): Map<number, number> {
  const counts = new Map<number, number>();
  for (const each of status) counts.set(each, (counts.get(each) ?? 0) + 1);
  return counts;
}

interface Slot {
  connection: LightConnection;
  sentMs: number;
  isBusy: boolean;
}

/** What the process of its own does. */
class Generator {
  readonly #load: OpenLoop;
  readonly #nextRequest: () => Uint8Array;
  /** In the order in which they fell free: the longest idle one is taken first, before the server would close it. */
  readonly #free = new Set<Slot>();
  readonly #samples = { atMs: [] as number[], latencyMs: [] as number[], status: [] as number[] };
  readonly #lagsMs: number[] = [];
  #unsent = 0;
  #underWay = 0;
  #isClosedLoop = false;
  readonly #stopping = Promise.withResolvers<void>();
  #isStopping = false;

  constructor(load: OpenLoop) {
    this.#load = load;
    this.#nextRequest = requestMaker(load.stream);
  }

  async open(): Promise<void> {
    for (let opened = 0; opened < this.#load.connections; opened++) await this.#openSlot();
  }

  stop(): void {
    this.#isStopping = true;
    this.#stopping.resolve();
  }

  async run(): Promise<OpenLoopReport> {
    const boundsMs = [epochMs()];
    for (const { rate, seconds } of this.#load.phases) {
      if (this.#isStopping) break;
      if (rate === null) await this.#sendOnAnswer(seconds);
      else await this.#sendOnTime(rate, seconds);
      boundsMs.push(epochMs());
    }
    const deadlineMs = performance.now() + LAST_ANSWERS_MS;
    while (this.#underWay > 0 && performance.now() < deadlineMs) await Bun.sleep(5);
    for (let missing = this.#underWay; missing > 0; missing--) this.#note(boundsMs.at(-1)!, LAST_ANSWERS_MS, 0);
    const lags = this.#lagsMs.sort((a, b) => a - b);
    const lagP99Ms = lags[Math.floor(lags.length * 0.99)] ?? 0;
    return { samples: this.#samples, boundsMs, unsent: this.#unsent, lagP99Ms };
  }

  async #sendOnAnswer(seconds: number): Promise<void> {
    this.#isClosedLoop = true;
    for (let slot = this.#take(); slot !== undefined; slot = this.#take()) this.#send(slot);
    await this.#unlessStopped(seconds * 1000);
    this.#isClosedLoop = false;
  }

  async #sendOnTime(rate: number, seconds: number): Promise<void> {
    const startMs = performance.now();
    const total = Math.round(rate * seconds);
    const dueMs = (index: number) => startMs + (index * 1000) / rate;
    for (let index = 0; index < total && !this.#isStopping; ) {
      const nowMs = performance.now();
      for (; index < total && dueMs(index) <= nowMs; index++) {
        this.#lagsMs.push(nowMs - dueMs(index));
        const slot = this.#take();
        if (slot === undefined) this.#unsent++;
        else this.#send(slot);
      }
      if (index < total) await Bun.sleep(Math.max(1, dueMs(index) - performance.now()));
    }
    await this.#unlessStopped(Math.max(0, startMs + seconds * 1000 - performance.now()));
  }

  #unlessStopped(ms: number): Promise<void> {
    return Promise.race([Bun.sleep(ms), this.#stopping.promise]);
  }

  #send(slot: Slot): void {
    slot.isBusy = true;
    slot.sentMs = performance.now();
    this.#underWay++;
    slot.connection.send(this.#nextRequest());
  }

  async #openSlot(): Promise<void> {
    const connection = await LightConnection.open(this.#load.url);
    const slot: Slot = { connection, sentMs: 0, isBusy: false };
    connection.onAnswer = (answer) => {
      if (slot.isBusy) {
        this.#underWay--;
        const latencyMs = performance.now() - slot.sentMs;
        this.#note(performance.timeOrigin + slot.sentMs, latencyMs, answer?.status ?? 0);
      }
      slot.isBusy = false;
      if (answer === null) this.#replace(slot);
      else if (this.#isClosedLoop) this.#send(slot);
      else this.#free.add(slot);
    };
    this.#free.add(slot);
  }

  #take(): Slot | undefined {
    const [slot] = this.#free;
    if (slot !== undefined) this.#free.delete(slot);
    return slot;
  }

  #replace(slot: Slot): void {
    this.#free.delete(slot);
    this.#openSlot().catch(() => undefined);
  }

  #note(atMs: number, latencyMs: number, status: number): void {
    this.#samples.atMs.push(atMs);
    this.#samples.latencyMs.push(latencyMs);
    this.#samples.status.push(status);
  }
}

function epochMs(): number {
  return performance.timeOrigin + performance.now();
}

if (import.meta.main) {
  const generator = new Generator(await Bun.stdin.json());
  process.on("SIGTERM", () => generator.stop());
  await generator.open();
  console.log("started");
  console.log(JSON.stringify(await generator.run()));
  process.exit(0);
}
