// What a function throws at a client, as a value that can be compared.

import { AppError, type ErrorCode } from "../../src/shared/errors.ts";

/** The code of the AppError that `act` throws, or null when it returns. Anything else that is thrown passes through. */
export function refusalOf(act: () => unknown): ErrorCode | null {
  try {
    act();
    return null;
  } catch (error) {
    if (error instanceof AppError) return error.code;
    throw error;
  }
}

/** The same of a promise, whose error may have crossed a thread border. */
export function refusalFrom(act: Promise<unknown>): Promise<unknown> {
  return act.then(
    () => null,
    (error) => error.code,
  );
}
