// Ends runs in the store: many in one commit, and singly when one of them spoils the commit.

import { causeTextOf } from "../shared/errors.ts";
import type { Log } from "../shared/log.ts";
import type { UnitRunner } from "../storage/unit-of-work.ts";
import type { Claim, ClaimedJob } from "./job-claim-units.ts";
import type { EndedRun, Settled } from "./job-finish-units.ts";
import { isStoreAway, shownText } from "./job-run.ts";
import type { JobUnits } from "./job-units.ts";

interface Exchanged extends Settled {
  /** Null = it did not come to that. */
  readonly claimed: readonly ClaimedJob[] | null;
  /** They could not be stored now and have to be tried again. */
  readonly unfinished: readonly EndedRun[];
}

export class JobFinisher {
  readonly #store: UnitRunner<JobUnits>;
  readonly #log: Log;

  constructor(store: UnitRunner<JobUnits>, log: Log) {
    this.#store = store;
    this.#log = log;
  }

  /** One commit for both, if nothing is wrong. Never rejects: what cannot be stored comes back. */
  async exchange(runs: readonly EndedRun[], claim: Claim): Promise<Exchanged> {
    try {
      return { ...(await this.#store.run("jobs.exchange", { runs, claim })), unfinished: [] };
    } catch {
      return { ...(await this.#singly(runs, claim.nowMs)), claimed: null };
    }
  }

  async #singly(runs: readonly EndedRun[], nowMs: number): Promise<Settled & { unfinished: EndedRun[] }> {
    const all: Settled[] = [];
    const unfinished: EndedRun[] = [];
    for (const run of runs) {
      const settled = await this.#alone(run, nowMs);
      if (settled === null) unfinished.push(run);
      else all.push(settled);
    }
    return { runs: all.flatMap((one) => one.runs), results: all.flatMap((one) => one.results), unfinished };
  }

  /** As it ended; else as a failure; else with nothing but its state. Null = not now. */
  async #alone(run: EndedRun, nowMs: number): Promise<Settled | null> {
    const { id, fence } = run;
    let attempt = run;
    for (let tries = 1; ; tries++) {
      try {
        return await this.#store.run("jobs.finish", { runs: [attempt], nowMs });
      } catch (thrown) {
        if (isStoreAway(thrown) || tries === 3) return null;
        const error = shownText(thrown);
        this.#log.error("a job could not be settled", { id, cause: causeTextOf(thrown) });
        attempt = { id, fence, end: run.end === "expired" ? "expired" : "failed", error, skipsSettlement: tries === 2 };
      }
    }
  }
}
