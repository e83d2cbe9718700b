// The bodies of the administrative routes: one definition validates them and documents them.

import { z } from "zod";
import { BUCKET_BYTES_MAX, EXPIRY_SECONDS_MAX } from "../shared/bounds.ts";

const NAME_MAX = 200;
const NOTE_MAX = 500;
const GRANTS_MAX = 64;
const GRANT_BYTES_MAX = 256;
const FIRST_TIME_MS = Date.parse("0000-01-01T00:00:00Z");

/** Half a surrogate pair is stored as U+FFFD: the first answer would show another text than all later ones. */
const text = (max: number) =>
  z
    .string()
    .max(max)
    .refine((given) => given.isWellFormed(), "not valid text");
const name = text(NAME_MAX).min(1);
const nullableText = (max: number) => text(max).nullable();

/** 1 to 256 bytes without control characters, and without a dot at the end, which would never match. */
const scopeName = z
  .string()
  .refine((text) => text !== "" && Buffer.byteLength(text) <= GRANT_BYTES_MAX, `1 to ${GRANT_BYTES_MAX} bytes`)
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  .refine((text) => !/[\0-\x1f\x7f]/.test(text) && text.isWellFormed(), "no control characters")
  .refine((text) => !text.endsWith("."), "no dot at the end");

const permissionPrefix = scopeName.nullable();
/** A mark with nothing behind it would be a grant of no key anybody means. */
const grant = scopeName.refine((text) => text !== "read:" && text !== "write:", "a name behind the mark");
const permissionKey = z.array(grant).max(GRANTS_MAX);
/** With an offset a time can lie beyond the years of four digits: the answer would hold one that is refused here. */
const expiresAt = z.iso
  .datetime({ offset: true })
  .refine((time) => isWithinYears(Date.parse(time)), "a year from 0000 to 9999 in UTC")
  .nullable();

export const NewDeviceBody = z.strictObject({
  uuid: z.string().min(1).max(BUCKET_BYTES_MAX).optional(),
  name: nullableText(NAME_MAX).optional(),
});

export const DeviceChangesBody = z.strictObject({ name: nullableText(NAME_MAX) });

export const NewAppBody = z.strictObject({
  id: z
    .string()
    // A path with a segment of dots would be folded before it is routed: such an app could not be asked for.
    .regex(/^(?!\.{1,2}$)[A-Za-z0-9._-]{1,64}$/)
    .optional(),
  name,
  description: nullableText(2000).optional(),
  homepage: nullableText(2000).optional(),
  permissionPrefix: permissionPrefix.optional(),
  permissionKey: permissionKey.optional(),
});

export const AppChangesBody = NewAppBody.omit({ id: true }).partial();

const installationFields = {
  note: nullableText(NOTE_MAX).optional(),
  deviceType: nullableText(32).optional(),
  permissionPrefix: permissionPrefix.optional(),
  permissionKey: permissionKey.optional(),
  isReadOnly: z.boolean().optional(),
  expiresAt: expiresAt.optional(),
};

export const NewInstallationBody = z.strictObject({
  deviceUuid: z.string().min(1).max(BUCKET_BYTES_MAX),
  appId: z.string().min(1).max(64),
  ...installationFields,
});

export const InstallationChangesBody = z.strictObject(installationFields);

function isWithinYears(timeMs: number): boolean {
  return timeMs >= FIRST_TIME_MS && timeMs < (EXPIRY_SECONDS_MAX + 1) * 1000;
}
