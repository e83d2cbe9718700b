// The bodies of requests about accounts: small, and with nothing in the query, where a log would keep it.

import { parseQuery } from "../http/query-parameters.ts";
import { parseFields } from "./request-bodies.ts";
import { ACCOUNT_BODY_BYTES_MAX, readJsonBody } from "./task-request.ts";

type Schema = Parameters<typeof parseFields>[1];

/** Throws what readJsonBody and parseFields throw; AppError query_invalid for any parameter. */
export function readFields<S extends Schema>(
  request: Parameters<typeof readJsonBody>[0],
  schema: S,
): Promise<ReturnType<typeof parseFields<S>>> {
  parseQuery(request.scope.request.url, []);
  return readJsonBody(request, ACCOUNT_BODY_BYTES_MAX, (bytes) => parseFields(bytes, schema));
}
