// Cuts the power of a virtual machine in which the executable serves writes, again and again: nothing that was
// acknowledged may be missing. A store with synchronous = NORMAL, cut in the same way, must lose some: else the cuts
// prove nothing. The disk of the machine has no volatile cache of its own: what its kernel has written out stays.
//
//   bun scripts/power-cuts.ts [CUTS] [CONTROLS]

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DurableLoad, idOf } from "../test/support/durable-load.ts";
import { GOKV } from "../test/support/executable.ts";
import { plannedAttempt } from "../test/support/planned-writes.ts";
import { AcknowledgedWrites } from "../test/support/recovered-store.ts";
import { report } from "../test/support/run-size.ts";
import { type Random, seededRandom } from "../test/support/seeded-random.ts";
import { mint, SECRET } from "../test/support/targets.ts";
import {
  buildMachine,
  type MachineParts,
  makeDataDisk,
  missingPrograms,
  PACKAGES,
  PowerCutMachine,
} from "./power-cut-machine.ts";

const CUTS = Number(process.argv[2] ?? 20);
const CONTROLS = Number(process.argv[3] ?? 3);
const DATA_DISK_MIB = 256;
const LOAD_MS_MAX = 5_000;
/** The control runs until the cut; nobody waits for its end. */
const CONTROL_WRITES = 1_000_000;
const CONTROL_ACKNOWLEDGEMENTS_MIN = 300;
const BUCKET = "load";
const LONG_LIFE_MS = 24 * 3_600_000;

/** What the guest runs, told by the kernel's command line, which reaches every process as its environment. */
const JOB = `#!/bin/sh
export DB_PATH=/data/store JWT_SECRET=${SECRET} GIN_MODE=release ACCESS_LOG=off RESERVE_BYTES=0 WAL_DAMAGE=accept
export LD_LIBRARY_PATH=/program/lib64
if [ "$CONTROL" = "" ]; then exec /program/gokv; fi
BUN_BE_BUN=1 exec /program/gokv run /program/control.js /data/store $CONTROL ${CONTROL_WRITES}
`;

const missing = missingPrograms();
if (missing.length > 0) {
  console.log(`not run: this needs ${PACKAGES.join(", ")}; missing: ${missing.join(", ")}`);
  process.exit(process.env.GOKV_REQUIRE_ALL === "1" ? 1 : 0);
}

async function buildParts(scratch: string): Promise<MachineParts> {
  const built = await Bun.build({
    entrypoints: [join(import.meta.dir, "../test/support/unsynced-writer.ts")],
    outdir: scratch,
    naming: "control.js",
    target: "bun",
  });
  if (!built.success) throw new AggregateError(built.logs);
  writeFileSync(join(scratch, "job"), JOB, { mode: 0o755 });
  return buildMachine(scratch, { gokv: GOKV, "control.js": join(scratch, "control.js"), job: join(scratch, "job") });
}

/** One store, cut in the middle of its work many times; after each boot all of it is read. Returns what was lost. */
async function cutServer(parts: MachineParts, scratch: string, random: Random): Promise<string[]> {
  const disk = makeDataDisk(join(scratch, "server.img"), DATA_DISK_MIB);
  const load = new DurableLoad({
    token: await mint({ expiresInMs: LONG_LIFE_MS }),
    random,
    bucket: BUCKET,
    clients: 12,
    keysPerClient: 20,
    sizes: [50, 300, 3_000, 20_000],
  });
  const lost: string[] = [];
  for (let cut = 0; cut <= CUTS; cut++) {
    // Every second life cuts the log back often, the others let it grow and start over.
    const machine = PowerCutMachine.boot(parts, disk, scratch, { WAL_LIMIT_BYTES: cut % 2 === 0 ? "1MiB" : "64MiB" });
    try {
      await machine.ready();
      lost.push(...(await load.verify(machine.url)));
      if (cut === CUTS) break;
      const running = load.run(machine.url);
      await Bun.sleep(1_000 + random.below(LOAD_MS_MAX));
      await machine.cutPower();
      await running;
    } finally {
      await machine.cutPower();
    }
  }
  report(`power cuts: ${CUTS} cuts, ${load.acknowledgements} acknowledgements, ${lost.length} lost`);
  return [...lost, ...load.unexpected];
}

/** The storage classes with synchronous = NORMAL on a new disk, one cut. Returns how many keys have lost a write. */
async function cutControl(parts: MachineParts, scratch: string, random: Random): Promise<number> {
  const disk = makeDataDisk(join(scratch, "control.img"), DATA_DISK_MIB);
  const machine = PowerCutMachine.boot(parts, disk, scratch, { CONTROL: "NORMAL" });
  const acknowledgedIn = (text: string) => [...text.matchAll(/w-(\d+)\r/g)].map((match) => Number(match[1]));
  let ids: number[] = [];
  try {
    const wanted = CONTROL_ACKNOWLEDGEMENTS_MIN + random.below(1_000);
    while (ids.length < wanted) {
      await Bun.sleep(20);
      ids = acknowledgedIn(machine.output());
    }
  } finally {
    await machine.cutPower();
  }
  ids = acknowledgedIn(machine.output());
  const attempts = Array.from({ length: ids.at(-1)! + 100 }, (_, index) => plannedAttempt(index + 1));
  const acknowledged = new AcknowledgedWrites(attempts);
  for (const id of ids) acknowledged.acknowledge(id);
  const after = PowerCutMachine.boot(parts, disk, scratch, {});
  try {
    await after.ready();
    const lost = acknowledged.lostIn(await readIds(after.url)).length;
    report(
      `power cut, control with synchronous = NORMAL: ${ids.length} acknowledgements, ${lost} keys have lost a write`,
    );
    return lost;
  } finally {
    await after.cutPower();
  }
}

async function readIds(url: string): Promise<Map<string, number>> {
  const headers = { Authorization: `Bearer ${await mint()}` };
  const keys = (await (await fetch(`${url}/_list?bucket=${BUCKET}`, { headers })).json()) as string[];
  const ids = new Map<string, number>();
  for (const key of keys) {
    const id = idOf(new Uint8Array(await (await fetch(`${url}/${BUCKET}/${key}`, { headers })).arrayBuffer()));
    if (id !== null) ids.set(key, id);
  }
  return ids;
}

const scratch = mkdtempSync(join(tmpdir(), "gokv-power-cuts-"));
try {
  const random = seededRandom("power cuts");
  const parts = await buildParts(scratch);
  const lost = await cutServer(parts, scratch, random);
  for (const problem of lost) console.log(`LOST ${problem}`);
  let controlLosses = 0;
  for (let control = 0; control < CONTROLS; control++) controlLosses += await cutControl(parts, scratch, random);
  const isProven = CONTROLS === 0 || controlLosses > 0;
  if (!isProven) console.log("The control has lost nothing: these cuts prove nothing.");
  process.exitCode = lost.length === 0 && isProven ? 0 : 1;
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
