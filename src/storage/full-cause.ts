// Why a store takes nothing more, and how its clients are told.

/** The volume has no room, or the database file is as large as that setting allows. */
export type FullCause = "volume" | "DB_MAX_BYTES";

export function fullMessage(cause: FullCause): string {
  return cause === "volume"
    ? "There is no space left. Delete something, or free space on the volume."
    : "The store has reached DB_MAX_BYTES. Delete something, or raise that limit.";
}
