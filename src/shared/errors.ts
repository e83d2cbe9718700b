// The closed list of everything that can go wrong for a client, and the two error types of the program.

/** Every stable error code with its HTTP status. Messages may change, these may not. */
export const STATUS_BY_CODE = {
  bucket_empty: 400,
  key_empty: 400,
  bucket_invalid: 400,
  key_invalid: 400,
  bucket_reserved: 400,
  path_invalid: 400,
  host_invalid: 400,
  query_invalid: 400,
  cursor_invalid: 400,
  ttl_invalid: 400,
  metadata_invalid: 400,
  content_type_invalid: 400,
  precondition_invalid: 400,
  precondition_unsupported: 400,
  content_range_unsupported: 400,
  body_incomplete: 400,
  key_reserved: 400,
  invalid_json: 400,
  json_too_deep: 400,
  invalid_content_type: 400,
  invalid_parameter: 400,
  empty_batch: 400,
  too_many_keys: 400,
  duplicate_key: 400,
  page_too_large: 400,
  sort_too_large: 400,
  missing_field: 400,
  invalid_field: 400,
  unknown_type: 400,
  base_url_refused: 400,
  key_required: 400,
  model_required: 400,
  invalid_request: 400,
  invalid_id: 400,
  invalid_cursor: 400,
  unauthorized: 401,
  token_missing: 401,
  token_invalid: 401,
  invalid_token: 401,
  invalid_credentials: 401,
  invalid_refresh_token: 401,
  forbidden: 403,
  read_denied: 403,
  write_denied: 403,
  read_only_token: 403,
  namespace_denied: 403,
  registration_closed: 403,
  account_disabled: 403,
  wrong_password: 403,
  quota_exceeded: 403,
  key_not_found: 404,
  route_not_found: 404,
  device_not_found: 404,
  app_not_found: 404,
  installation_not_found: 404,
  channel_not_found: 404,
  token_not_found: 404,
  not_found: 404,
  method_not_allowed: 405,
  backup_running: 409,
  already_exists: 409,
  namespace_not_empty: 409,
  app_in_use: 409,
  token_exists: 409,
  too_many: 409,
  key_unreadable: 409,
  email_taken: 409,
  username_taken: 409,
  conflict: 409,
  state_conflict: 409,
  not_ready: 409,
  expired: 410,
  precondition_failed: 412,
  version_mismatch: 412,
  body_too_large: 413,
  export_too_large: 413,
  unsupported_media_type: 415,
  range_not_satisfiable: 416,
  idempotency_mismatch: 422,
  if_match_required: 428,
  rate_limited: 429,
  too_many_streams: 429,
  internal_error: 500,
  value_damaged: 500,
  storage_failed: 500,
  upstream_failed: 502,
  busy: 503,
  overloaded: 503,
  draining: 503,
  unavailable: 503,
  storage_full: 507,
} as const;

export type ErrorCode = keyof typeof STATUS_BY_CODE;

/** Public facts that a renderer turns into response headers (an ETag, an Allow list, a challenge). */
export type ErrorDetails = Readonly<Record<string, string | number>>;

/**
 * A failure that a client may be told about. `message` and `details` are public; `cause` never leaves the process.
 * Check `code` first: it is stable, the message is not.
 */
export class AppError extends Error {
  override readonly name = "AppError";
  readonly code: ErrorCode;
  readonly details: ErrorDetails;

  constructor(code: ErrorCode, message: string, options: { details?: ErrorDetails; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.details = options.details ?? {};
  }

  /** The HTTP status of `code`. */
  get status(): number {
    return STATUS_BY_CODE[this.code];
  }
}

/** For a defect: the client is told nothing. */
export function internalError(cause: unknown): AppError {
  return new AppError("internal_error", "Something went wrong on this side.", { cause });
}

/** What a read ends with that is given up because its client has left. */
export function nobodyWaits(): AppError {
  return new AppError("unavailable", "Nobody waits for this any more.");
}

/** To be asked before each slice of a long read. @throws AppError unavailable when `signal` is aborted */
export function requireSomebodyWaits(signal: AbortSignal): void {
  if (signal.aborted) throw nobodyWaits();
}

/** What the executables exit with. */
export const EXIT = { done: 0, failed: 1, usage: 2, storeInUse: 3, storeDamaged: 4, storageFailed: 5 } as const;

export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

/** A failure that ends a command: `message` says what to do next and goes to stderr, `exitCode` to the shell. */
export class ExitError extends Error {
  override readonly name = "ExitError";
  readonly exitCode: ExitCode;

  constructor(exitCode: ExitCode, message: string, options: { cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.exitCode = exitCode;
  }
}

/** The text of anything thrown, for a log line. Never for a client. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}

/** For the log: what stands behind an error of ours, else the error itself; anything can be thrown. */
export function causeTextOf(thrown: unknown): string {
  const cause = thrown instanceof AppError ? (thrown.cause ?? thrown) : thrown;
  try {
    return messageOf(cause) || "failed without a message";
  } catch {
    return "failed with something that cannot be shown";
  }
}
