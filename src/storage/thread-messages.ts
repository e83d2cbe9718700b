// What the threads of the process say to each other.

import type { ErrorCode, ErrorDetails, ExitCode } from "../shared/errors.ts";
import type { BackupReport } from "./backup-store.ts";
import type { FullCause } from "./full-cause.ts";
import type { BucketPageQuery, KeyPageQuery, KeyRange, NamePage, OffsetPage, OffsetPageQuery } from "./kv-engine.ts";
import type { QueuedUnit } from "./unit-queue.ts";
import type { PackedBatch } from "./write-batch.ts";

export type ThreadRole = "storage" | "reader" | "backup";

/** Given to a thread that was lent descriptors: it puts a 1 there, and wakes the lender, when it has what it needs. */
export type Started = SharedArrayBuffer;

export interface StoreOptions {
  readonly path: string;
  readonly reservePath: string;
  /** What it holds when there is room for it; 0 = there is none. */
  readonly reserveBytes: number;
  /** What it held before it was given up to have room for the start; 0 = there was room. */
  readonly givenUpBytes: number;
  readonly walLimitBytes: number;
  /** 0 = no limit. */
  readonly databaseBytesMax: number;
  readonly sweepIntervalMs: number;
  readonly isChecked: boolean;
  /** `ask`: one of an earlier version is answered with `outdated`. Without it: `now`. */
  readonly upgrade?: "now" | "ask";
}

/** What became of a unit: its result, or why nothing was stored. `cause` is for the log. */
export type UnitOutcome =
  | { readonly id: number; readonly result: unknown }
  | {
      readonly id: number;
      readonly code: ErrorCode;
      readonly message: string;
      readonly details: ErrorDetails;
      readonly cause: string | null;
    };

/** To the storage thread; answered first in, first out, each kind by itself: the first units wait to be loaded. */
export type StorageRequest =
  | { readonly type: "open"; readonly options: StoreOptions }
  | ({ readonly type: "batch"; readonly lockDeadlineMs: number } & PackedBatch)
  /** Like a batch, but all or none. */
  | ({ readonly type: "together"; readonly id: number; readonly lockDeadlineMs: number } & PackedBatch)
  | {
      readonly type: "wipe";
      readonly id: number;
      readonly bucket: string;
      readonly installationId: string | undefined;
      readonly lockDeadlineMs: number;
    }
  /** Each is applied or refused by itself, all of them in one commit. */
  | { readonly type: "units"; readonly units: readonly QueuedUnit[]; readonly lockDeadlineMs: number }
  | { readonly type: "close" };

export interface StorageState {
  readonly walBytes: number;
  /** Null while puts are taken. */
  readonly fullCause: FullCause | null;
  /** Values from so many bytes on are refused for want of room; null while all are taken. */
  readonly refusedBytes: number | null;
  readonly sweptTotal: number;
}

/** From the storage thread; `state` and `failed` come unasked. After `failed` nothing more comes. */
export type StorageReply =
  | { readonly type: "opened" }
  /** Instead: it was left as it is, with this schema. */
  | { readonly type: "outdated"; readonly schema: number }
  | { readonly type: "refused"; readonly exitCode: ExitCode; readonly message: string }
  | { readonly type: "outcomes"; readonly outcomes: string; readonly commitMs: number }
  | { readonly type: "done"; readonly id: number; readonly result: unknown }
  /** In the order in which the units came. */
  | { readonly type: "units"; readonly outcomes: readonly UnitOutcome[] }
  /** Comes before the answer of whatever wiped the bucket. */
  | { readonly type: "wiped"; readonly bucket: string }
  | { readonly type: "state"; readonly state: StorageState }
  | { readonly type: "failed"; readonly reason: string }
  | { readonly type: "closed" };

export type ReaderRequest = { readonly id: number } & (
  | { readonly type: "load"; readonly bucket: string; readonly key: string; readonly revision: number }
  /** A slice of a count. */
  | { readonly type: "count"; readonly range: KeyRange }
  | { readonly type: "page"; readonly query: OffsetPageQuery }
  | { readonly type: "keys"; readonly query: KeyPageQuery }
  | { readonly type: "buckets"; readonly query: BucketPageQuery }
  /** Rows of services: one statement that reads. */
  | { readonly type: "rows"; readonly sql: string; readonly parameters: readonly unknown[] }
);

type ReadErrorCode = "value_damaged" | "busy" | "internal_error";

export type ReaderReply = { readonly id: number } & (
  | { readonly type: "value"; readonly value: Uint8Array<ArrayBuffer> | null }
  /** `next` is where the following slice starts, null at the end. */
  | { readonly type: "total"; readonly total: number; readonly next: string | null }
  | { readonly type: "page"; readonly page: OffsetPage }
  | { readonly type: "names"; readonly page: NamePage }
  | { readonly type: "rows"; readonly rows: unknown[] }
  | { readonly type: "error"; readonly code: ReadErrorCode; readonly message: string; readonly cause: string | null }
);

/** What a backup thread is started with. The first number in `cancelled` becomes 1 to give the backup up. */
export interface BackupJob {
  readonly source: string;
  readonly target: string;
  readonly walLimitBytes: number;
  readonly cancelled: SharedArrayBuffer;
  /** Where the copy grows; without it the thread chooses a name itself. */
  readonly draft?: string;
  /** Two numbers, for who shows progress: how many pages were copied, and of how many. */
  readonly pages?: SharedArrayBuffer;
  /** From who has lent descriptors. */
  readonly started?: Started;
}

/** `exitCode` is null for a failure that nobody has thought of; its text is that of the engine or the system. */
export type BackupReply =
  | { readonly report: BackupReport }
  | { readonly failure: string; readonly isFull: boolean; readonly exitCode: ExitCode | null };
