// The bodies of requests about accounts: small, and with nothing in the query, where a log would keep it.

import type { ByteBudget } from "../http/byte-budget.ts";
import { parseQuery } from "../http/query-parameters.ts";
import { readBody } from "../http/read-body.ts";
import type { RequestScope } from "../http/request-scope.ts";
import { ACCOUNT_BODY_BYTES_MAX } from "../shared/bounds.ts";
import { parseFields } from "./request-bodies.ts";
import { readJsonBody, requireJsonType } from "./task-request.ts";

type Schema = Parameters<typeof parseFields>[1];

/** Throws what readJsonBody and parseFields throw; AppError query_invalid for any parameter. */
export function readFields<S extends Schema>(
  request: Parameters<typeof readJsonBody>[0],
  schema: S,
): Promise<ReturnType<typeof parseFields<S>>> {
  parseQuery(request.scope.request.url, []);
  return readJsonBody(request, ACCOUNT_BODY_BYTES_MAX, (bytes) => parseFields(bytes, schema));
}

/** Likewise the body of an operator: `budget` has room for it when users and strangers hold what they may hold. */
export async function readOperatorFields<S extends Schema>(
  scope: RequestScope,
  budget: ByteBudget,
  schema: S,
): Promise<ReturnType<typeof parseFields<S>>> {
  parseQuery(scope.request.url, []);
  requireJsonType(scope);
  const body = await readBody(scope, ACCOUNT_BODY_BYTES_MAX, budget);
  try {
    return parseFields(body.bytes, schema);
  } finally {
    body.release();
  }
}
