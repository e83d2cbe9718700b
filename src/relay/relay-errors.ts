// The closed list of refusals of the relay surface, in the shape that clients of OpenAI's API expect.

/** Every refusal with its HTTP status and the `type` that client libraries look at. Codes are stable. */
export const RELAY_REFUSALS = {
  missing_api_key: { status: 401, type: "invalid_request_error" },
  invalid_api_key: { status: 401, type: "invalid_request_error" },
  token_disabled: { status: 401, type: "invalid_request_error" },
  token_expired: { status: 401, type: "invalid_request_error" },
  ip_not_allowed: { status: 403, type: "permission_error" },
  model_not_allowed: { status: 403, type: "permission_error" },
  invalid_json: { status: 400, type: "invalid_request_error" },
  missing_required_parameter: { status: 400, type: "invalid_request_error" },
  invalid_value: { status: 400, type: "invalid_request_error" },
  request_incomplete: { status: 400, type: "invalid_request_error" },
  request_too_large: { status: 413, type: "invalid_request_error" },
  unsupported_encoding: { status: 415, type: "invalid_request_error" },
  unknown_url: { status: 404, type: "invalid_request_error" },
  method_not_allowed: { status: 405, type: "invalid_request_error" },
  model_not_found: { status: 404, type: "invalid_request_error" },
  response_not_found: { status: 404, type: "invalid_request_error" },
  insufficient_quota: { status: 429, type: "insufficient_quota" },
  rate_limit_exceeded: { status: 429, type: "rate_limit_error" },
  no_available_channel: { status: 500, type: "server_error" },
  internal_error: { status: 500, type: "server_error" },
  channels_cooling_down: { status: 503, type: "server_error" },
  channel_unavailable: { status: 503, type: "server_error" },
  overloaded: { status: 503, type: "server_error" },
  quota_store_unavailable: { status: 503, type: "server_error" },
  server_shutting_down: { status: 503, type: "server_error" },
  upstream_unreachable: { status: 502, type: "upstream_error" },
  bad_upstream_response: { status: 502, type: "upstream_error" },
  upstream_timeout: { status: 504, type: "upstream_error" },
} as const;

export type RelayRefusal = keyof typeof RELAY_REFUSALS;

/** What a stream says as its last event when it ends too early: its status is sent. Codes are stable here too. */
const STREAM_ERRORS = {
  upstream_stream_interrupted: { type: "upstream_error", message: "the upstream stream was interrupted" },
  server_shutting_down: { type: RELAY_REFUSALS.server_shutting_down.type, message: "the server is shutting down" },
} as const;

export type StreamErrorCode = keyof typeof STREAM_ERRORS;

/** What the log says of a request whose client closed its connection. */
export const CLIENT_GONE = { status: 499, errorCode: "client_closed_request" } as const;

/** What stands in `error` of a body. */
export interface ErrorObject {
  readonly message: string;
  readonly type: string;
  readonly param: string | null;
  readonly code: string | null;
}

interface RelayErrorOptions {
  /** The member of the request that is wrong. */
  readonly param?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly cause?: unknown;
}

/** A refusal of our own. `message` is public and names no host, channel or key; `cause` never leaves the process. */
export class RelayError extends Error {
  override readonly name = "RelayError";
  readonly code: RelayRefusal;
  readonly param: string | null;
  readonly headers: Readonly<Record<string, string>>;

  constructor(code: RelayRefusal, message: string, { param, headers, cause }: RelayErrorOptions = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
    this.param = param ?? null;
    this.headers = headers ?? {};
  }

  get status(): number {
    return RELAY_REFUSALS[this.code].status;
  }

  get body(): ErrorObject {
    const { message, code, param } = this;
    return { message, type: RELAY_REFUSALS[code].type, param, code };
  }
}

export function streamError(code: StreamErrorCode): ErrorObject {
  const { message, type } = STREAM_ERRORS[code];
  return { message, type, param: null, code };
}
