// What a committed change has to reach outside the store: who is to be told, which copies are stale, who has work.

/** Plain data: it comes back from the storage thread with the result of a unit. */
export interface Effects {
  /** Their feeds or sessions changed: streams look again. */
  readonly userIds: readonly number[];
  /** Jobs were enqueued: workers look again. */
  readonly hasJobs: boolean;
}

/** What the units of this service return. */
export interface Changed<T> {
  readonly value: T;
  readonly effects: Effects;
}

export const NO_EFFECTS: Effects = { userIds: [], hasJobs: false };

export function changed<T>(value: T, effects: Effects = NO_EFFECTS): Changed<T> {
  return { value, effects };
}

export function together(...all: readonly Effects[]): Effects {
  return {
    userIds: [...new Set(all.flatMap(({ userIds }) => userIds))],
    hasJobs: all.some(({ hasJobs }) => hasJobs),
  };
}
