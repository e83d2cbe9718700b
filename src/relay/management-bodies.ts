// What the bodies of the management routes have in common: how they are read, and the kinds of their fields.

import { z } from "zod";
import { issueWords } from "../http/invalid-bodies.ts";
import { AppError } from "../shared/errors.ts";
import { parseSubnet } from "../shared/ip-addresses.ts";
import { requireJson } from "../shared/json-text.ts";

const NAME_MAX = 128;
const MODEL_NAME_MAX = 256;
const MODELS_MAX = 5000;
const GROUP_NAME_MAX = 64;
const GROUPS_MAX = 32;
const ADDRESSES_MAX = 256;

export const nameField = z.string().min(1).max(NAME_MAX);
/** 2 is what other relays write for disabled. */
export const statusField = z.literal([0, 1, 2]);
export const flagField = z.union([z.boolean(), z.literal([0, 1])]).transform((value) => value === true || value === 1);

/** `["a","b"]` or `"a,b"`, each name once, in its order. */
function namesField(nameMax: number, namesMax: number) {
  const name = z.string().trim().min(1).max(nameMax);
  const text = z.string().transform((value) => value.split(",").filter((part) => part.trim() !== ""));
  return z
    .union([z.array(z.string()), text])
    .pipe(z.array(name).max(namesMax))
    .transform((names) => [...new Set(names)]);
}

export const modelsField = namesField(MODEL_NAME_MAX, MODELS_MAX);
export const modelField = z.string().min(1).max(MODEL_NAME_MAX);

/** As models, but never empty: without a name it is `default`. A comma separates groups, so none has one in it. */
export const groupField = namesField(GROUP_NAME_MAX, GROUPS_MAX)
  .refine((names) => names.every((name) => !name.includes(",")), "a name holds no comma")
  .transform((names) => (names.length === 0 ? ["default"] : names));

/** Addresses and CIDR ranges. */
export const addressesField = namesField(64, ADDRESSES_MAX).refine(
  (ranges) => ranges.every((range) => !range.includes("%") && parseSubnet(range) !== null),
  "addresses or CIDR ranges, such as 10.0.0.0/8",
);

/**
 * The body as `schema` reads it; no body is an empty object. What is in `required` must be there and not be empty.
 * @throws AppError invalid_json, json_too_deep, missing_field, invalid_field
 */
export function parseBody<Schema extends z.ZodType>(
  bytes: Uint8Array,
  schema: Schema,
  required: readonly string[] = [],
): z.infer<Schema> {
  const body = bytes.length === 0 ? {} : (JSON.parse(requireJson(bytes)) as Record<string, unknown> | null);
  for (const name of required) {
    const value = body?.[name];
    if (value === undefined || value === null || value === "") {
      throw new AppError("missing_field", `${name} is missing.`, { details: { field: name } });
    }
  }
  const result = schema.safeParse(body);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const field = issue!.path.join(".");
  const words = issueWords(issue!) ?? issue!.message;
  throw new AppError("invalid_field", `${field === "" ? "The body" : field}: ${words}.`, { details: { field } });
}
