// All write units of the job queue, by name.

import type { UnitOfWork } from "../storage/unit-of-work.ts";
import { type Claim, type ClaimedJob, claimJobs } from "./job-claim-units.ts";
import { type EndedRun, finishRuns, type JobRules, type Settled } from "./job-finish-units.ts";
import { keepLeases } from "./job-lease-units.ts";
import {
  cancelJob,
  type DeadJobs,
  fireSchedule,
  type NamedJob,
  pauseQueue,
  planSchedules,
  purgeJobs,
  retryDeadJobs,
  retryJob,
} from "./job-management-units.ts";
import { PURGE_KIND } from "./job-purge.ts";

/** What has ended, and what is wanted next: one commit for both. */
interface Exchange {
  readonly runs: readonly EndedRun[];
  readonly claim: Claim;
}

/** The kinds and what they settle are the service's whose jobs they are; those of the queue itself come with it. */
export function createJobUnits({ kinds, settlements, requeues }: JobRules) {
  const rules: JobRules = { kinds: { ...kinds, [PURGE_KIND.kind]: PURGE_KIND }, settlements, requeues };
  return {
    "jobs.claim": claimJobs,
    "jobs.finish": (work: UnitOfWork, args: { readonly runs: readonly EndedRun[]; readonly nowMs: number }) =>
      finishRuns(rules, work, args),
    "jobs.exchange": async (
      work: UnitOfWork,
      { runs, claim }: Exchange,
    ): Promise<Settled & { claimed: ClaimedJob[] }> => {
      const settled = await finishRuns(rules, work, { runs, nowMs: claim.nowMs });
      return { ...settled, claimed: await claimJobs(work, claim) };
    },
    "jobs.heartbeat": keepLeases,
    "jobs.retry": (work: UnitOfWork, named: NamedJob) => retryJob(rules, work, named),
    "jobs.cancel": (work: UnitOfWork, named: NamedJob) => cancelJob(rules, work, named),
    "jobs.retryDead": (work: UnitOfWork, dead: DeadJobs) => retryDeadJobs(rules, work, dead),
    "jobs.pauseQueue": pauseQueue,
    "jobs.plan": planSchedules,
    "jobs.fireSchedule": fireSchedule,
    "jobs.purge": purgeJobs,
  } as const;
}

export type JobUnits = ReturnType<typeof createJobUnits>;
