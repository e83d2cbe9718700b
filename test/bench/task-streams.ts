// Live streams of tasks: what a thousand of them hold in memory, how soon a change is heard, what a large export takes.

import type { Socket } from "bun";
import { type Account, API, ask, signUp, type Task } from "../support/task-client.ts";
import { fillTasks } from "../support/task-exports.ts";
import { residentMb } from "./bench-server.ts";
import { type Bench, type Benchmark, sized } from "./benchmark.ts";
import { atMost, type Figure, InvalidRun, percentile, reported } from "./figures.ts";
import { requireOk, startTaskServer, taskTarget } from "./task-user.ts";

const STREAMS = 1000;
const STREAMS_PER_USER = 5;
const SETTLE_MS = 3000;
const CHANGE_PAUSE_MS = 20;
const HEARD_MS_MAX = 5000;
const POLL_MS = 50;
/** Together a little below what an export may have. */
const EXPORT_TASKS = 12_000;
const EXPORT_DESCRIPTION = 5400;
const EXPORT_MS_MAX = 120_000;

/** Reads a stream and counts its events; holds nothing of them. */
class Listener {
  events = 0;
  onEvent: () => void = () => undefined;
  #socket: Socket | null = null;

  /** Resolves when the server has said where the stream begins. */
  static async open(url: string, token: string): Promise<Listener> {
    const { hostname, port } = new URL(url);
    const listener = new Listener();
    const begun = Promise.withResolvers<void>();
    const take = (text: string) => {
      if (text.includes("retry:")) begun.resolve();
      const events = text.split("\nevent: ").length - 1;
      if (events === 0) return;
      listener.events += events;
      listener.onEvent();
    };
    listener.#socket = await Bun.connect({
      hostname,
      port: Number(port),
      socket: {
        data: (_, chunk) => take(chunk.toString("latin1")),
        close: () => begun.reject(new InvalidRun("a stream has ended")),
        error: () => undefined,
      },
    });
    listener.#socket.write(`GET ${API}/tasks/stream HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${token}\r\n\r\n`);
    await begun.promise;
    return listener;
  }

  close(): void {
    this.#socket?.terminate();
  }
}

/** Few at once: a listener has a short queue. */
async function openListeners(url: string, accounts: readonly Account[]): Promise<Listener[]> {
  const listeners: Listener[] = [];
  for (const { token } of accounts) {
    const opened = Array.from({ length: STREAMS_PER_USER }, () => Listener.open(url, token));
    listeners.push(...(await Promise.all(opened)));
  }
  return listeners;
}

/** From sending a change, and from its answer, to the moment the last stream of the user has it; ms. */
async function timeChanges(
  server: Parameters<typeof ask>[0],
  { token }: Account,
  own: readonly Listener[],
  changes: number,
): Promise<{ sentMs: number[]; answeredMs: number[] }> {
  const task = (await (await ask(server, "POST", "/tasks", { token, body: { title: "heard of" } })).json()) as Task;
  const [sentMs, answeredMs]: [number[], number[]] = [[], []];
  for (let round = 1; round <= changes; round++) {
    await Bun.sleep(CHANGE_PAUSE_MS);
    const heard = Promise.withResolvers<number>();
    const timer = setTimeout(() => heard.reject(new InvalidRun("a change was not heard of")), HEARD_MS_MAX);
    for (const listener of own) {
      listener.onEvent = () => own.every(({ events }) => events === round + 1) && heard.resolve(performance.now());
    }
    const beganMs = performance.now();
    const answer = await ask(server, "PATCH", `/tasks/${task.id}`, { token, body: { title: `round ${round}` } });
    if (answer.status !== 200) throw new InvalidRun(`a change answers ${answer.status}`);
    const endedMs = performance.now();
    const atMs = await heard.promise;
    clearTimeout(timer);
    sentMs.push(atMs - beganMs);
    answeredMs.push(Math.max(0, atMs - endedMs));
  }
  return { sentMs, answeredMs };
}

const liveStreams: Benchmark = {
  name: "task-streams",
  async run(bench: Bench): Promise<Figure[]> {
    await using process = await startTaskServer(bench.newPath());
    const server = taskTarget(process.url);
    const accounts: Account[] = [];
    for (let user = 0; user < STREAMS / STREAMS_PER_USER; user++) accounts.push(await signUp(server));
    // What the runtime keeps for so many connections, whatever they carry, is part of it.
    await Bun.sleep(SETTLE_MS);
    const before = residentMb(process.pid, "VmRSS");
    const listeners = await openListeners(process.url, accounts);
    await Bun.sleep(SETTLE_MS);
    const grown = residentMb(process.pid, "VmRSS") - before;
    const own = listeners.slice(0, STREAMS_PER_USER);
    const { sentMs, answeredMs } = await timeChanges(server, accounts[0]!, own, sized(bench, 400, 100));
    const strays = listeners.slice(STREAMS_PER_USER).filter(({ events }) => events > 0).length;
    if (strays > 0) throw new InvalidRun(`${strays} streams had events of somebody else`);
    for (const listener of listeners) listener.close();
    const after = `a change until ${STREAMS_PER_USER} of ${STREAMS} streams have it`;
    return [
      atMost(40, { name: `task: ${STREAMS} live streams, memory`, unit: "MB", measured: grown }),
      atMost(100, { name: `task: ${after}, p99 after its answer`, unit: "ms", measured: percentile(answeredMs, 0.99) }),
      reported({ name: "  p50 after its answer", unit: "ms", measured: percentile(answeredMs, 0.5) }),
      reported({ name: "  p50 after it was sent", unit: "ms", measured: percentile(sentMs, 0.5) }),
      reported({ name: "  p99 after it was sent", unit: "ms", measured: percentile(sentMs, 0.99) }),
    ];
  },
};

interface Built {
  readonly bytes: number;
  readonly seconds: number;
  /** While it was built and sent, MB. */
  readonly mostMb: number;
}

/** @throws InvalidRun */
async function runExport(url: string, pid: number, { token }: Account): Promise<Built> {
  const server = taskTarget(url);
  let mostMb = 0;
  const timer = setInterval(() => {
    mostMb = Math.max(mostMb, residentMb(pid, "VmRSS"));
  }, POLL_MS);
  try {
    const startMs = performance.now();
    const asked = await ask(server, "POST", "/exports", { token, body: { format: "csv" } });
    const { id } = (await asked.json()) as { id: string };
    for (let state = "pending"; state !== "ready"; ) {
      if (state === "failed" || performance.now() - startMs > EXPORT_MS_MAX)
        throw new InvalidRun("an export has failed");
      await Bun.sleep(POLL_MS);
      ({ state } = (await (await requireOk(server, `/exports/${id}`, token)).json()) as { state: string });
    }
    const seconds = (performance.now() - startMs) / 1000;
    const file = await requireOk(server, `/exports/${id}/file`, token);
    let bytes = 0;
    for await (const piece of file.body!) bytes += piece.length;
    return { bytes, seconds, mostMb };
  } finally {
    clearInterval(timer);
  }
}

const largeExport: Benchmark = {
  name: "task-export",
  async run(bench: Bench): Promise<Figure[]> {
    const dbPath = bench.newPath();
    await using server = await startTaskServer(dbPath);
    const target = taskTarget(server.url);
    const [few, many] = [await signUp(target), await signUp(target)];
    await fillTasks({ dbPath }, few, EXPORT_TASKS / 8, EXPORT_DESCRIPTION);
    await fillTasks({ dbPath }, many, EXPORT_TASKS, EXPORT_DESCRIPTION);
    const idleMb = residentMb(server.pid, "VmRSS");
    // What any export grows: page caches of the threads, their heaps.
    const small = [await runExport(server.url, server.pid, few), await runExport(server.url, server.pid, few)];
    const smallMb = Math.max(...small.map(({ mostMb }) => mostMb));
    const { bytes, seconds, mostMb } = await runExport(server.url, server.pid, many);
    const [size, smallSize] = [bytes, small[0]!.bytes].map((each) => `${Math.round(each / 2 ** 20)} MiB`);
    const name = `task: an export of ${size}, memory beyond one of ${smallSize}`;
    return [
      atMost(20, { name, unit: "MB", measured: mostMb - smallMb }),
      reported({ name: "  beyond the idle server", unit: "MB", measured: mostMb - idleMb }),
      reported({ name: "  until it is ready", unit: "s", measured: seconds }),
    ];
  },
};

export const TASK_STREAMS: readonly Benchmark[] = [liveStreams, largeExport];
