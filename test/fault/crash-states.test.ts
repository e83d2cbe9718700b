// A power cut at every moment of a recorded run: whatever the disk kept beyond what was synced, nothing acknowledged is
// lost and nothing is damaged. The same rig must catch stores that do not sync.

import { describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { acknowledgedIn, acknowledgedTooEarly } from "../support/acknowledged-in-trace.ts";
import {
  CRASH_MODES,
  type CrashEvent,
  type CrashMode,
  crashEvents,
  REPLAYED_CALLS,
  SimulatedDisk,
} from "../support/crash-states.ts";
import { type Attempt, DurableLoad } from "../support/durable-load.ts";
import { type Environment, startServer } from "../support/executable.ts";
import { has, hasProgram } from "../support/needs.ts";
import { plannedAttempt } from "../support/planned-writes.ts";
import { AcknowledgedWrites, ImageRecovery } from "../support/recovered-store.ts";
import { bySize, report } from "../support/run-size.ts";
import { seededRandom } from "../support/seeded-random.ts";
import { strace } from "../support/strace.ts";
import { readTrace } from "../support/system-call-trace.ts";
import { mint, SECRET } from "../support/targets.ts";
import { type TempDir, tempDir } from "../support/temp-dir.ts";

const CRASH_POINTS = bySize(1_000, 1_500, 6_000);
const CONTROL_CRASH_POINTS = bySize(150, 300, 600);
const BIRTH_EVENTS = 80;
const BIRTH_MODES: readonly CrashMode[] = ["synced", "all", ...Array.from({ length: 6 }, () => "torn" as const)];
const CONTROL_WRITES = 600;
const TIMEOUT_MS = bySize(240_000, 1_200_000);
/** Nothing in it has to last, and a crash image a millisecond is a lot for a disk. */
const MEMORY = "/dev/shm";
const SCRATCH = existsSync(MEMORY) ? MEMORY : undefined;
const WHOLE_VALUE_BYTES = 1_000_000;

interface Recording {
  readonly events: readonly CrashEvent[];
  readonly attempts: readonly Attempt[];
  readonly directory: string;
  readonly wal: string;
}

interface Verdict {
  crashPoints: number;
  acknowledgements: number;
  distinctImages: number;
  lost: string[];
  damaged: string[];
}

/** A run of the executable under concurrent writes, from its first start to its clean stop. */
async function recordServer(
  dir: TempDir,
  { writes, sizes, env = {}, inject = [] }: { writes: number; sizes: number[]; env?: Environment; inject?: string[] },
): Promise<Recording> {
  const directory = dir.file("data");
  const output = dir.file("trace");
  const wrapper = strace({ output, calls: REPLAYED_CALLS, bytesKept: WHOLE_VALUE_BYTES, inject });
  const settings = { JWT_SECRET: SECRET, DB_PATH: directory, ACCESS_LOG: "off", RESERVE_BYTES: "0" };
  await using server = await startServer({ ...settings, ...env }, wrapper);
  const random = seededRandom("recorded load");
  const load = new DurableLoad({ token: await mint(), random, clients: 12, keysPerClient: 6, sizes });
  await load.run(server.url, writes);
  server.kill("SIGTERM");
  expect(await server.exited).toBe(0);
  expect(load.unexpected).toEqual([]);
  return {
    events: crashEvents(readTrace(output), directory),
    attempts: load.attempts,
    directory,
    wal: join(directory, "gokv.db-wal"),
  };
}

/** A run of the storage classes with another `synchronous` than the product has. */
async function recordWriter(dir: TempDir, synchronous: "FULL" | "NORMAL" | "OFF"): Promise<Recording> {
  const directory = dir.file("data");
  const output = dir.file("trace");
  const program = join(import.meta.dir, "../support/unsynced-writer.ts");
  const child = Bun.spawn(
    [
      ...strace({ output, calls: REPLAYED_CALLS, bytesKept: WHOLE_VALUE_BYTES }),
      process.execPath,
      program,
      directory,
      synchronous,
      `${CONTROL_WRITES}`,
    ],
    { stdin: "ignore", stdout: "pipe", stderr: "pipe" },
  );
  // The output ends when strace has ended, and with it the trace.
  await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
  expect(await child.exited).toBe(0);
  const attempts = Array.from({ length: CONTROL_WRITES }, (_, index) => plannedAttempt(index + 1));
  return {
    events: crashEvents(readTrace(output), directory),
    attempts,
    directory,
    wal: join(directory, "gokv.db-wal"),
  };
}

/** Cuts the power at `crashPoints` moments, evenly spread over everything that changes the disk or tells a client. */
async function cutPower({ events, attempts, directory }: Recording, crashPoints: number): Promise<Verdict> {
  using scratch = tempDir(SCRATCH);
  const random = seededRandom("torn sectors");
  const recovery = new ImageRecovery(scratch.path);
  const acknowledged = new AcknowledgedWrites(attempts);
  const disk = new SimulatedDisk(directory);
  const verdict: Verdict = { crashPoints: 0, acknowledgements: 0, distinctImages: 0, lost: [], damaged: [] };
  const moments = events.filter((event) => event.kind !== "sent" || acknowledgedIn(event).length > 0);
  for (const [index, event] of moments.entries()) {
    disk.apply(event);
    for (const id of acknowledgedIn(event)) acknowledged.acknowledge(id);
    // The birth of a store is short and full of phases: every moment of it, torn in several ways.
    const isBirth = acknowledged.count === 0 && index < BIRTH_EVENTS;
    const isDue =
      Math.floor((index * crashPoints) / moments.length) !== Math.floor(((index + 1) * crashPoints) / moments.length);
    if (!isDue && !isBirth) continue;
    verdict.crashPoints++;
    for (const mode of isBirth ? BIRTH_MODES : CRASH_MODES) {
      const place = `event ${index} (${event.kind}), ${mode}`;
      const recovered = await recovery.recover(disk.image(mode, random));
      if ("failure" in recovered) verdict.damaged.push(`${place}: ${recovered.failure}`);
      else {
        const lost = acknowledged.lostIn(recovered.ids);
        if (lost.length > 0) verdict.lost.push(`${place}: ${lost.slice(0, 5).join()}`);
      }
    }
  }
  return { ...verdict, acknowledgements: acknowledged.count, distinctImages: recovery.distinctImages };
}

function describeVerdict(name: string, verdict: Verdict): void {
  const { crashPoints, acknowledgements, distinctImages, lost, damaged } = verdict;
  report(
    `power cut, ${name}: ${crashPoints} crash points, ${distinctImages} distinct images, ${acknowledgements} ` +
      `acknowledgements; ${lost.length} images lack one, ${damaged.length} are damaged`,
  );
  if (damaged.length > 0) process.stderr.write(`  ${damaged[Math.floor(damaged.length / 2)]}\n`);
}

/** Times that pages were copied from the log into the database file and made to last there. */
function checkpointsIn({ events, directory }: Recording): number {
  let isCopied = false;
  let checkpoints = 0;
  for (const event of events) {
    if (event.kind === "sent" || event.path !== join(directory, "gokv.db")) continue;
    if (event.kind === "write") isCopied = true;
    if (event.kind === "syncEnds" && isCopied) {
      isCopied = false;
      checkpoints++;
    }
  }
  return checkpoints;
}

if (has("strace", hasProgram("strace"))) {
  describe("a power cut at any moment", () => {
    test(
      "loses and damages nothing while the log is cut back again and again",
      async () => {
        using dir = tempDir();
        const recording = await recordServer(dir, {
          writes: 700,
          sizes: [20, 300, 300, 1_000, 3_000],
          env: { WAL_LIMIT_BYTES: "1MiB" },
        });
        expect(acknowledgedTooEarly(recording.events, recording.attempts, recording.wal)).toEqual([]);
        expect(checkpointsIn(recording)).toBeGreaterThanOrEqual(3);
        const verdict = await cutPower(recording, CRASH_POINTS);
        describeVerdict(`log cut back ${checkpointsIn(recording)} times`, verdict);
        expect(verdict).toMatchObject({ lost: [], damaged: [] });
        expect(verdict.crashPoints).toBeGreaterThanOrEqual(1_000);
      },
      TIMEOUT_MS,
    );

    test(
      "loses and damages nothing while the log is written over from its start",
      async () => {
        using dir = tempDir();
        const recording = await recordServer(dir, { writes: 330, sizes: [300, 60_000, 60_000, 60_000] });
        expect(acknowledgedTooEarly(recording.events, recording.attempts, recording.wal)).toEqual([]);
        expect(checkpointsIn(recording)).toBeGreaterThanOrEqual(3);
        const verdict = await cutPower(recording, CRASH_POINTS / 4);
        describeVerdict(`log written over ${checkpointsIn(recording)} times`, verdict);
        expect(verdict).toMatchObject({ lost: [], damaged: [] });
      },
      TIMEOUT_MS,
    );
  });

  describe("the same rig notices", () => {
    for (const synchronous of ["FULL", "NORMAL", "OFF"] as const) {
      test(
        `what synchronous = ${synchronous} does to the storage classes`,
        async () => {
          using dir = tempDir();
          const recording = await recordWriter(dir, synchronous);
          const verdict = await cutPower(recording, CONTROL_CRASH_POINTS);
          describeVerdict(`control, synchronous = ${synchronous}`, verdict);
          expect(checkpointsIn(recording)).toBeGreaterThanOrEqual(synchronous === "OFF" ? 0 : 3);
          if (synchronous === "FULL") expect(verdict).toMatchObject({ lost: [], damaged: [] });
          else expect(verdict.lost.length + verdict.damaged.length).toBeGreaterThan(CONTROL_CRASH_POINTS / 10);
        },
        TIMEOUT_MS,
      );
    }

    test(
      "a disk that says it has synced and has not",
      async () => {
        using dir = tempDir();
        const recording = await recordServer(dir, {
          writes: 300,
          sizes: [300, 3_000],
          env: { WAL_LIMIT_BYTES: "1MiB" },
          inject: ["fsync:retval=0"],
        });
        expect(acknowledgedTooEarly(recording.events, recording.attempts, recording.wal).length).toBeGreaterThan(0);
        const verdict = await cutPower(recording, CONTROL_CRASH_POINTS);
        describeVerdict("control, lying disk", verdict);
        expect(verdict.lost.length + verdict.damaged.length).toBeGreaterThan(CONTROL_CRASH_POINTS / 10);
      },
      TIMEOUT_MS,
    );
  });
}
