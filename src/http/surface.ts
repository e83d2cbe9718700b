// What every service is given by the composition root, and the checks before any route of the operator surface.

import type { Context } from "hono";
import type { JwtGate } from "../auth/jwt-gate.ts";
import type { Principal } from "../auth/principal.ts";
import { AppError } from "../shared/errors.ts";
import type { Eventually } from "../shared/eventual.ts";
import type { Place, RequestScope } from "./request-scope.ts";

/** The scope travels as Hono's environment: it exists before the router and is accounted for after it. */
export type AppEnv = { Bindings: { scope: RequestScope } };
export type AppContext = Context<AppEnv>;
export type Handler = (context: AppContext) => Eventually<Response>;

/** How many requests may be at work at once. While its body is on its way a request is not: see readBody. */
export class Admission implements Place {
  readonly #limit: number;
  #active = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** @throws AppError overloaded */
  enter(scope: RequestScope): void {
    if (this.#active >= this.#limit) throw new AppError("overloaded", "Too many requests are at work. Try again.");
    this.#active++;
    scope.place = this;
    scope.isAdmitted = true;
  }

  /** Does nothing for a request that is not admitted. */
  leave(scope: RequestScope): void {
    if (scope.isAdmitted) this.#active--;
    scope.isAdmitted = false;
  }
}

export interface OperatorSurface {
  readonly gate: JwtGate;
  readonly admission: Admission;
}

/**
 * Admission, then the gate, then `act`: without a promise when the token was verified before, because each await
 * would cost more than the rest of a read.
 */
export function asOperator(
  { gate, admission }: OperatorSurface,
  scope: RequestScope,
  act: (principal: Principal) => Eventually<Response>,
): Eventually<Response> {
  admission.enter(scope);
  const admitted = gate.admit(scope.request.headers.get("authorization"));
  const proceed = (principal: Principal) => {
    scope.subject = principal.subject;
    scope.tokenId = principal.tokenId;
    return act(principal);
  };
  return admitted instanceof Promise ? admitted.then(proceed) : proceed(admitted);
}
