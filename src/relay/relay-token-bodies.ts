// The bodies of the token routes: one definition validates them and documents them.

import { z } from "zod";
import { EXPIRY_SECONDS_MAX } from "../shared/bounds.ts";
import { CACHE_TTL_SECONDS_MAX } from "./answer-cache.ts";
import { addressesField, groupField, modelsField, nameField, statusField } from "./management-bodies.ts";
import { RELAY_KEY } from "./relay-key.ts";
import type { RelayTokenFields } from "./relay-tables.ts";
import { QUOTA_MAX, type RelayTokenChanges } from "./relay-token-units.ts";

const LIMIT_MAX = 1_000_000_000;

const ignored = z.unknown().optional();
const limit = z.int().min(0).max(LIMIT_MAX).optional();

const SETTABLE = {
  name: nameField,
  user_id: z.int().min(0).optional(),
  status: statusField.optional(),
  /** Seconds since 1970; -1 = never. */
  expired_time: z.union([z.literal(-1), z.int().min(0).max(EXPIRY_SECONDS_MAX)]).optional(),
  unlimited_quota: z.boolean().optional(),
  remain_quota: z.int().min(0).max(QUOTA_MAX).optional(),
  models: modelsField.optional(),
  allow_ips: addressesField.optional(),
  group: groupField.optional(),
  rpm: limit,
  tpm: limit,
  max_parallel: limit,
  cache_ttl: z.int().min(0).max(CACHE_TTL_SECONDS_MAX).optional(),
};

export const NewRelayTokenBody = z.strictObject({
  ...SETTABLE,
  /** Null or left out: one is made. */
  key: z.string().regex(RELAY_KEY, "8 to 256 visible ASCII characters").nullish(),
  id: ignored,
  created_time: ignored,
  accessed_time: ignored,
  used_quota: ignored,
});

/**
 * `remain_quota` is all that the token is to have: what requests under way have set aside is taken off it, and comes
 * back as far as it was in it.
 *
 * A token can be sent back as it was read: its key is masked and stays. `used_quota` tells which state was read: what
 * was used since is taken off `remain_quota`, too. Where that leaves less than there is, `remain_quota` is out of date
 * and left out.
 */
export const RelayTokenChangesBody = z
  .strictObject({
    ...SETTABLE,
    name: nameField.optional(),
    add_quota: z.int().min(-QUOTA_MAX).max(QUOTA_MAX).optional(),
    used_quota: z.int().min(0).optional(),
    id: ignored,
    key: ignored,
    created_time: ignored,
    accessed_time: ignored,
  })
  .refine(({ remain_quota, add_quota }) => remain_quota === undefined || add_quota === undefined, {
    error: "give remain_quota or add_quota, not both",
    path: ["add_quota"],
  });

export function relayTokenFieldsOf(body: z.infer<typeof NewRelayTokenBody>): RelayTokenFields {
  return {
    userId: body.user_id ?? 0,
    status: body.status === 0 || body.status === 2 ? 0 : 1,
    name: body.name,
    expiresAtMs: expiryOf(body.expired_time ?? -1),
    isUnlimited: body.unlimited_quota ?? body.remain_quota === undefined,
    remainQuota: body.remain_quota ?? 0,
    models: body.models ?? [],
    allowIps: body.allow_ips ?? [],
    groups: body.group ?? ["default"],
    rpm: body.rpm ?? 0,
    tpm: body.tpm ?? 0,
    maxParallel: body.max_parallel ?? 0,
    cacheTtlSeconds: body.cache_ttl ?? 0,
  };
}

export function relayTokenChangesOf(body: z.infer<typeof RelayTokenChangesBody>): RelayTokenChanges {
  const { status, expired_time } = body;
  return {
    userId: body.user_id,
    status: status === undefined ? undefined : status === 1 ? 1 : 0,
    name: body.name,
    expiresAtMs: expired_time === undefined ? undefined : expiryOf(expired_time),
    isUnlimited: body.unlimited_quota,
    remainQuota: body.remain_quota,
    models: body.models,
    allowIps: body.allow_ips,
    groups: body.group,
    rpm: body.rpm,
    tpm: body.tpm,
    maxParallel: body.max_parallel,
    cacheTtlSeconds: body.cache_ttl,
  };
}

function expiryOf(seconds: number): number | null {
  return seconds === -1 ? null : seconds * 1000;
}
