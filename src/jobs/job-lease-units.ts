// Keeps up the leases of a node, and hears what has become of its jobs meanwhile.

import type { UnitOfWork } from "../storage/unit-of-work.ts";
import { jobTables } from "./job-base-units.ts";

export interface Heartbeat {
  readonly node: string;
  readonly leaseMs: number;
  readonly nowMs: number;
  /** The jobs that run here; `progress` (0 to 100) of those that have moved since the last time, null otherwise. */
  readonly runs: readonly { readonly id: string; readonly fence: number; readonly progress: number | null }[];
}

interface Heard {
  /** Somebody asked for their end. */
  readonly cancelled: readonly string[];
  /** Somebody else has them, or they were ended. */
  readonly lost: readonly { readonly id: string; readonly fence: number }[];
}

export async function keepLeases(work: UnitOfWork, { node, leaseMs, nowMs, runs }: Heartbeat): Promise<Heard> {
  if (runs.length === 0) return { cancelled: [], lost: [] };
  const db = jobTables(work);
  const rows = await db
    .updateTable("job")
    .set({ locked_until_ms: nowMs + leaseMs })
    .where(
      "id",
      "in",
      runs.map(({ id }) => id),
    )
    .where("state", "=", "running")
    .where("locked_by", "=", node)
    .returning(["id", "fence", "cancel_requested"])
    .execute();
  const kept = new Map(rows.map((row) => [row.id, row]));
  const isKept = ({ id, fence }: { id: string; fence: number }) => kept.get(id)?.fence === fence;
  for (const { id, fence, progress } of runs.filter(isKept)) {
    if (progress === null) continue;
    await db.updateTable("job").set({ progress }).where("id", "=", id).where("fence", "=", fence).execute();
  }
  return {
    cancelled: rows.filter((row) => row.cancel_requested === 1).map(({ id }) => id),
    lost: runs.filter((run) => !isKept(run)).map(({ id, fence }) => ({ id, fence })),
  };
}
