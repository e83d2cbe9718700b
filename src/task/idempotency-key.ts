// The header Idempotency-Key: what makes two requests the same.

import { createHash } from "node:crypto";
import { requestPath } from "../http/request-path.ts";
import { AppError } from "../shared/errors.ts";
import type { KeyedRequest } from "./idempotency-units.ts";
import type { UserRequest } from "./task-request.ts";

const KEY = /^[\x20-\x7e]{1,255}$/;

/**
 * Judges the header before the body is read; what it returns makes of the body the request that is to be answered
 * once, or null without the header. @throws AppError invalid_request
 */
export function readIdempotencyKey({ services, scope, who }: UserRequest): (body: Uint8Array) => KeyedRequest | null {
  const { method, url, headers } = scope.request;
  const key = headers.get("idempotency-key");
  if (key === null) return () => null;
  if (!KEY.test(key)) {
    throw new AppError("invalid_request", "An Idempotency-Key has 1 to 255 printable ASCII characters.");
  }
  const route = `${method} ${requestPath(url)}`;
  return (body) => ({
    userId: who.userId,
    keyHash: createHash("sha256").update(key).digest("hex"),
    route,
    bodyHash: createHash("sha256").update(`${route}\n`).update(body).digest("hex"),
    nowMs: services.clock(),
  });
}
