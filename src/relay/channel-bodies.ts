// The bodies of the channel routes: one definition validates them and documents them.

import { z } from "zod";
import { AppError } from "../shared/errors.ts";
import {
  type ChannelType,
  channelTypeOf,
  DEFAULT_TYPE,
  lacksStreamOptions,
  PROVIDER_ADDRESSES,
} from "./channel-types.ts";
import type { ChannelChanges } from "./channel-units.ts";
import { flagField, groupField, modelField, modelsField, nameField, statusField } from "./management-bodies.ts";
import type { ChannelFields } from "./relay-tables.ts";
import { requireBaseUrl } from "./upstream-url.ts";

const MAPPINGS_MAX = 1000;
const DEADLINE_MS_MIN = 10;
const DEADLINE_MS_MAX = 86_400_000;

const ignored = z.unknown().optional();

/** What is shown but not to be set: a channel can be sent back as it was read. */
const READ_ONLY = {
  id: ignored,
  discovered_models: ignored,
  status_reason: ignored,
  created_time: ignored,
  updated_time: ignored,
  test_time: ignored,
  response_time: ignored,
  used_quota: ignored,
};

const deadline = z.int().min(DEADLINE_MS_MIN).max(DEADLINE_MS_MAX).nullable();
/** Empty: the usual one of the type. */
const address = z.string().nullable().optional();

const SETTABLE = {
  name: nameField,
  key: z.string().regex(/^[\x21-\x7e]{1,4096}$/, "1 to 4096 visible ASCII characters"),
  type: z.union([z.string(), z.int()]).optional(),
  base_url: address,
  host: address,
  models: modelsField.optional(),
  group: groupField.optional(),
  weight: z.int().min(0).max(1000).optional(),
  priority: z.int().min(-1000).max(1000).optional(),
  status: statusField.optional(),
  model_mapping: z
    .record(modelField, modelField)
    .refine((mapping) => Object.keys(mapping).length <= MAPPINGS_MAX, `at most ${MAPPINGS_MAX} names`)
    .optional(),
  auto_ban: flagField.optional(),
  no_stream_options: flagField.optional(),
  ttft_ms: deadline.optional(),
  total_ms: deadline.optional(),
};

export const NewChannelBody = z.strictObject({ ...SETTABLE, ...READ_ONLY });

/** Status 3 is how a channel may have been read: it stays as it is then. */
export const ChannelChangesBody = z.strictObject({
  ...SETTABLE,
  ...READ_ONLY,
  name: nameField.optional(),
  key: SETTABLE.key.optional(),
  status: z.literal([0, 1, 2, 3]).optional(),
});

export const ChannelTestBody = z.strictObject({ model: modelField.optional(), stream: z.boolean().optional() });

/** @throws AppError unknown_type, invalid_field */
export function channelFieldsOf(body: z.infer<typeof NewChannelBody>): ChannelFields {
  const type = body.type === undefined ? DEFAULT_TYPE : requireType(body.type);
  return {
    type,
    name: body.name,
    baseUrl: addressOf(body, type) ?? defaultAddress(type),
    models: body.models ?? [],
    modelMapping: body.model_mapping ?? {},
    groups: body.group ?? ["default"],
    weight: body.weight ?? 1,
    priority: body.priority ?? 0,
    status: body.status === 0 || body.status === 2 ? 0 : 1,
    autoBan: body.auto_ban ?? true,
    noStreamOptions: body.no_stream_options ?? lacksStreamOptions(type),
    ttftMs: body.ttft_ms ?? null,
    totalMs: body.total_ms ?? null,
  };
}

/** `type` is the one that the channel has. @throws AppError unknown_type, invalid_field */
export function channelChangesOf(body: z.infer<typeof ChannelChangesBody>, type: ChannelType): ChannelChanges {
  const newType = body.type === undefined ? undefined : requireType(body.type);
  return {
    type: newType,
    name: body.name,
    baseUrl: addressOf(body, newType ?? type),
    models: body.models,
    modelMapping: body.model_mapping,
    groups: body.group,
    weight: body.weight,
    priority: body.priority,
    status: body.status === undefined || body.status === 3 ? undefined : body.status === 1 ? 1 : 0,
    autoBan: body.auto_ban,
    noStreamOptions: body.no_stream_options,
    ttftMs: body.ttft_ms,
    totalMs: body.total_ms,
  };
}

/** @throws AppError unknown_type */
export function requireType(given: string | number): ChannelType {
  const type = channelTypeOf(given);
  if (type !== null) return type;
  const known = Object.keys(PROVIDER_ADDRESSES).join(", ");
  throw new AppError("unknown_type", `type: there is none of this name or number. Known: ${known}.`);
}

/** Undefined when none was given. */
function addressOf(
  { base_url, host }: { base_url?: string | null | undefined; host?: string | null | undefined },
  type: ChannelType,
): string | undefined {
  if (base_url && host && base_url !== host) {
    throw new AppError("invalid_field", "base_url and host are two names of one field: give one of them.");
  }
  const given = base_url || host;
  if (given) return requireBaseUrl(given);
  return base_url === undefined && host === undefined ? undefined : defaultAddress(type);
}

function defaultAddress(type: ChannelType): string {
  const known = PROVIDER_ADDRESSES[type];
  if (known !== null) return known;
  throw new AppError("missing_field", `base_url is missing: the type ${type} has no address of its own.`);
}
