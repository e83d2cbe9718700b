// Bounds that several files share, and those of the API beside them, with the unit in the name; what an operator may
// change is in settings.ts.

export const KiB = 1024;
export const MiB = 1024 * KiB;
export const GiB = 1024 * MiB;

export const BUCKET_BYTES_MAX = 128;
export const KEY_BYTES_MAX = 1024;

export const CONTENT_TYPE_BYTES_MAX = 255;
export const METADATA_ENTRIES_MAX = 32;
export const METADATA_BYTES_MAX = 2048;

export const TTL_SECONDS_MIN = 1;
export const TTL_SECONDS_MAX = 3650 * 86_400;

export const LIST_PAGE_MAX = 1000;
export const DELIMITER_BYTES_MAX = 16;

/** Values up to this size are read on the main thread and sent in one piece; larger ones take the reader thread. */
export const INLINE_VALUE_BYTES_MAX = MiB;
/** A large value leaves in pieces of this size, each taken when the client has room for it. */
export const STREAM_PIECE_BYTES = 256 * KiB;
/** How long a large read may wait for its share of the body budget. */
export const STREAM_WAIT_MS = 1000;
/** A body of unknown length reserves its share of the budget in steps of this size. */
export const BODY_STEP_BYTES = 256 * KiB;
/** That of a stranger, or of an upstream, in smaller ones: many who have sent next to nothing hold next to nothing. */
export const SMALL_STEP_BYTES = 16 * KiB;
/** Of a request about an account, which anybody may send. */
export const ACCOUNT_BODY_BYTES_MAX = 16 * KiB;
/** A connection that is silent for so long is closed, unless its request says otherwise. */
export const IDLE_SECONDS = 10;
/** After an answer in mid-body, a body announced with at most this length is read to its end. */
export const LINGER_BYTES_MAX = 64 * KiB;
/** The connection of any other stays open this long, so that the client sees the answer. */
export const LINGER_MS_MAX = 1000;
/** How long a client of the relay may leave what it was sent unread, and its connection idle. */
export const UNREAD_SECONDS_MAX = 60;

export const JWT_BYTES_MAX = 8 * KiB;
export const JWT_CACHE_BYTES = 4 * MiB;
/** Verified access tokens of users: some ten thousand. */
export const ACCESS_CACHE_BYTES = 8 * MiB;
export const TOKEN_BUCKETS_MAX = 64;
/** `nbf` may lie this far ahead: clocks of two machines differ. `exp` has no such leeway. */
export const NOT_BEFORE_LEEWAY_S = 5;
/** 9999-12-31T23:59:59Z. */
export const EXPIRY_SECONDS_MAX = 253_402_300_799;
export const SECRET_BYTES_MIN = 32;
/** The longest that the command line gives a token, of whatever kind. */
export const LIFETIME_MS_MAX = 36_500 * 86_400_000;

/** Entries above this size are not worth a place in the read cache. */
export const READ_CACHE_ENTRY_BYTES_MAX = 16 * KiB;

export const BATCH_ITEMS_MAX = 128;
export const BATCH_BYTES_MAX = 8 * MiB;
/** How long a write may wait for a lock that a foreign process holds. */
export const LOCK_WAIT_MS = 800;

export const SWEEP_SLICE_ROWS = 500;
export const COUNT_SLICE_ROWS = 100_000;

export const ACCESS_LOG_PATH_BYTES_MAX = 256;
