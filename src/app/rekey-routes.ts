// POST /_admin/rekey: every sealed value with the secret of today, whichever of the services that seal are on.

import { requireRelayRight } from "../auth/principal.ts";
import type { SEAL_UNITS } from "../auth/seal-units.ts";
import { count, object, type RouteDoc, text } from "../http/openapi.ts";
import { createOperatorHandler, type OperatorRequest } from "../http/operator-routes.ts";
import type { RequestScope } from "../http/request-scope.ts";
import { respondJson } from "../http/respond.ts";
import type { Handler, OperatorSurface } from "../http/surface.ts";
import { AppError } from "../shared/errors.ts";
import type { UnitRunner } from "../storage/unit-of-work.ts";
import { type REKEY_UNITS, rekeyStore } from "./rekey-units.ts";

interface RekeyServices extends OperatorSurface {
  readonly store: UnitRunner<typeof REKEY_UNITS & typeof SEAL_UNITS>;
  readonly secrets: readonly Uint8Array[];
  /** To be called after a change: copies in memory are out of date. */
  readonly onResealed: () => Promise<void>;
}

export const REKEY_ROUTES: readonly RouteDoc[] = [
  {
    path: "/_admin/rekey",
    method: "post",
    tag: "operations",
    security: "operator",
    summary: "Seals all stored keys and secrets with the secret of today",
    answers: {
      200: object({ resealed: count, kid: text, webhooks: object({ resealed: count, kid: text }) }),
    },
    refusals: [409, 507],
  },
];

export function createRekeyHandler(services: RekeyServices): Handler {
  return createOperatorHandler(services, { "/_admin/rekey": { POST: rekey } }, (principal) =>
    requireRelayRight(principal, "relay:write"),
  );
}

async function rekey({ services, scope }: OperatorRequest<RekeyServices>): Promise<Response> {
  try {
    const rekeyed = await rekeyStore(services.store, services.secrets);
    await services.onResealed();
    return respondJson(scope, 200, rekeyed);
  } catch (error) {
    if (!(error instanceof AppError) || error.code !== "key_unreadable") throw error;
    return respondUnreadable(scope, error);
  }
}

/** Says which rows it was, as lists. */
function respondUnreadable(scope: RequestScope, error: AppError): Response {
  scope.failure = error;
  const { status: statusCode, message, code, details } = error;
  return respondJson(scope, statusCode, {
    statusCode,
    message,
    code,
    ...(details.ids === undefined ? {} : { ids: `${details.ids}`.split(",").map(Number) }),
    ...(details.webhooks === undefined ? {} : { webhooks: `${details.webhooks}`.split(",") }),
  });
}
