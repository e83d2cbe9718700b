// The rows of the job queue.

export const JOB_STATES = ["ready", "running", "done", "dead", "cancelled"] as const;
export type JobState = (typeof JOB_STATES)[number];

export type JobTables = {
  job: {
    /** UUIDv7. */
    id: string;
    queue: string;
    kind: string;
    /** The user who may see it; null = operators only. Jobs of one take fewer than half of the slots of a queue. */
    owner_id: number | null;
    /** At most two jobs of a group run on a node at once; one of a group that yields. */
    group_key: string | null;
    /** JSON. */
    payload: string;
    /** See JOB_PRIORITY. */
    priority: number;
    state: JobState;
    run_at_ms: number;
    attempts: number;
    max_attempts: number;
    /** Raised by each claim: only the holder of the latest one may finish. */
    fence: number;
    locked_by: string | null;
    locked_until_ms: number | null;
    cancel_requested: number;
    /** No two rows have the same: a second one is queued already. */
    dedup_key: string | null;
    /** 0 to 100. */
    progress: number;
    last_error: string | null;
    request_id: string | null;
    created_at_ms: number;
    started_at_ms: number | null;
    finished_at_ms: number | null;
  };
  job_schedule: {
    name: string;
    expression: string;
    /** Negative: it has never fired, and counts from this time on. */
    last_fire_ms: number;
  };
  job_queue: { name: string; paused: number };
};

export type JobRow = JobTables["job"];
