// From exec to ready, on an empty store and after a crash with a full write-ahead log; and what an idle process holds.

import { cpSync, statSync } from "node:fs";
import { join } from "node:path";
import { storeFiles } from "../../src/storage/store-files.ts";
import { GOKV } from "../support/executable.ts";
import { countKeys, residentMb, startBenchServer } from "./bench-server.ts";
import { type Bench, type Benchmark, sized } from "./benchmark.ts";
import { atMost, InvalidRun, median, reported } from "./figures.ts";
import { getRequest, LightConnection } from "./light-connection.ts";
import { runClosedLoop } from "./load-generator.ts";
import { readLines } from "./read-lines.ts";

const STARTS = 9;
const STARTS_AFTER_CRASH = 5;
const MIB = 1024 * 1024;
const LOG_BYTES = 64 * MIB;
const LOG_ROUNDS_MAX = 30;
const IDLE_MS = 2000;
const BUCKET = "written";

/** The store and its API alone, which the targets are for; what the other services add is shown beside it. */
const KV_ALONE = { SERVICES: "kv" };
const ALL_SERVICES = {};

/** Milliseconds from exec to the 200 of /readyz; then `look`, then SIGKILL. */
async function timeStart(
  dbPath: string,
  settings: Record<string, string> = KV_ALONE,
  look: (url: string) => Promise<void> = async () => undefined,
) {
  const startMs = performance.now();
  await using server = await startBenchServer(dbPath, settings);
  // Not fetch, whose first use alone takes longer than the answer.
  const connection = await LightConnection.open(server.url);
  const { status } = await connection.ask(getRequest("/readyz", ""));
  const tookMs = performance.now() - startMs;
  connection.close();
  if (status !== 200) throw new InvalidRun(`/readyz answers ${status} after the listening line`);
  await look(server.url);
  return tookMs;
}

/** Writes while another process holds a snapshot, so that the log cannot start over, then kills the server. */
async function crashWithLog(bench: Bench): Promise<{ dbPath: string; keys: number }> {
  const dbPath = bench.newPath();
  const files = storeFiles(dbPath);
  await using server = await startBenchServer(dbPath, { WAL_LIMIT_BYTES: "1GiB" });
  const holder = Bun.spawn([process.execPath, join(import.meta.dir, "hold-snapshot.ts"), files.database], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  try {
    if ((await readLines(holder.stdout).next()).done) throw new Error("no snapshot is held");
    for (let round = 0; statSync(files.wal).size < LOG_BYTES; round++) {
      if (round === LOG_ROUNDS_MAX) throw new InvalidRun("the write-ahead log does not grow");
      const count = 1_000_000;
      const keys = { bucket: BUCKET, order: "ascending", first: round * count, count } as const;
      const stream = { method: "POST", ...keys, valueBytes: 100, token: bench.token } as const;
      await runClosedLoop({ url: server.url, connections: 32, seconds: 1, stream });
    }
    const keys = await countKeys(server.url, bench.token, BUCKET);
    server.kill("SIGKILL");
    await server.exited;
    return { dbPath, keys };
  } finally {
    holder.kill("SIGKILL");
    await holder.exited;
  }
}

const start: Benchmark = {
  name: "start",
  async run(bench) {
    const empty: number[] = [];
    const withAll: number[] = [];
    for (let run = 0; run < STARTS; run++) {
      empty.push(await timeStart(bench.newPath()));
      withAll.push(await timeStart(bench.newPath(), ALL_SERVICES));
    }
    const crashed = await crashWithLog(bench);
    const logMib = statSync(storeFiles(crashed.dbPath).wal).size / MIB;
    const recovering: number[] = [];
    for (let run = 0; run < sized(bench, STARTS, STARTS_AFTER_CRASH); run++) {
      const copy = bench.newPath();
      cpSync(crashed.dbPath, copy, { recursive: true });
      const look = async (url: string) => {
        const keys = await countKeys(url, bench.token, BUCKET);
        if (keys < crashed.keys) throw new InvalidRun(`${crashed.keys} keys were acknowledged, ${keys} are there`);
      };
      recovering.push(await timeStart(copy, KV_ALONE, look));
    }
    const afterCrash = `exec to ready, after SIGKILL with a log of ${logMib.toFixed(0)} MiB`;
    return [
      atMost(60, { name: "exec to ready, empty store", unit: "ms", measured: median(empty) }),
      reported({ name: "  with all services", unit: "ms", measured: median(withAll) }),
      atMost(1000, { name: afterCrash, unit: "ms", measured: median(recovering) }),
    ];
  },
};

/**
 * As after a boot: a file that a build has just written lies in larger pieces in the page cache, and every process that
 * maps it shows 4 to 5 MB more of it as its own.
 */
function forgetWritten(path: string): void {
  Bun.spawnSync(["sync", path]);
  Bun.spawnSync(["dd", `if=${path}`, "iflag=nocache", "count=0", "status=none"]);
}

const idle: Benchmark = {
  name: "idle-memory",
  async run(bench) {
    forgetWritten(GOKV);
    const idleMb = async (settings: Record<string, string>) => {
      const figures: number[] = [];
      for (let run = 0; run < sized(bench, 3, 1); run++) {
        await using server = await startBenchServer(bench.newPath(), settings);
        await Bun.sleep(IDLE_MS);
        figures.push(residentMb(server.pid, "VmRSS"));
      }
      return median(figures);
    };
    const name = `resident memory, idle ${IDLE_MS / 1000} s after start`;
    const alone = await idleMb(KV_ALONE);
    const withTasks = await idleMb({ SERVICES: "kv,task" });
    return [
      atMost(70, { name, unit: "MB", measured: alone }),
      atMost(15, { name: "  what the task service adds", unit: "MB", measured: withTasks - alone }),
      reported({ name: "  with all services", unit: "MB", measured: await idleMb(ALL_SERVICES) }),
    ];
  },
};

export const STARTUP: readonly Benchmark[] = [start, idle];
