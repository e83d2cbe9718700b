// What a pure function throws at a client, as a value that can be compared.

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
