// The bodies that make and change a task: one definition validates them and documents them.

import { z } from "zod";
import { given } from "../shared/given.ts";
import { type ItemFields, type ItemPatch, labelSet } from "./item-rules.ts";
import { PRIORITIES, STATUSES } from "./task-tables.ts";
import { parseTime } from "./task-time.ts";

const TITLE_MAX = 255;
const DESCRIPTION_MAX = 20_000;
const LABELS_MAX = 20;
const LABEL_MAX = 40;
/** Parsing stops here; what counts is how many are left when each is taken once. */
const SENT_LABELS_MAX = 1000;
const FORBIDDEN_IN_LABELS = /[,\p{Cc}]/u;

/** `max` counts code points, not UTF-16 units: an emoji is one. */
export function textUpTo(max: number) {
  return z
    .string()
    .refine((text) => isAtMost(text, max), `must have at most ${max} characters`)
    .meta({ maxLength: max });
}

function isAtMost(text: string, max: number): boolean {
  return text.length <= max || (text.length <= 2 * max && [...text].length <= max);
}

const title = z
  .string()
  .refine((text) => text.trim() !== "", "must not be blank")
  .refine((text) => isAtMost(text.trim(), TITLE_MAX), `must have at most ${TITLE_MAX} characters`);
const description = textUpTo(DESCRIPTION_MAX).nullable();
const label = z
  .string()
  .refine((text) => text !== "" && isAtMost(text, LABEL_MAX), `must have 1 to ${LABEL_MAX} characters`)
  .refine((text) => !FORBIDDEN_IN_LABELS.test(text), "must have neither commas nor control characters")
  .meta({ minLength: 1, maxLength: LABEL_MAX });
const labels = z
  .array(label)
  .max(SENT_LABELS_MAX)
  .refine((list) => labelSet(list).length <= LABELS_MAX, `at most ${LABELS_MAX} labels`)
  .nullable();
const time = z
  .string()
  .refine((text) => parseTime(text) !== null, "must be a date and time such as 2026-02-01T00:00:00Z")
  .nullable();
const ignored = z.unknown().optional();

/** What is shown but not to be set: a task can be sent back as it was read. */
const READ_ONLY = {
  id: ignored,
  user_id: ignored,
  user: ignored,
  assignee: ignored,
  created_at: ignored,
  updated_at: ignored,
  completed_at: ignored,
  version: ignored,
};

const SETTABLE = {
  description: description.optional(),
  status: z.enum(STATUSES).optional(),
  priority: z.enum(PRIORITIES).optional(),
  due_date: time.optional(),
  remind_at: time.optional(),
  assignee_id: z.int().min(1).nullable().optional(),
  labels: labels.optional(),
};

export const NewTaskBody = z.strictObject({ title, ...SETTABLE, ...READ_ONLY });

/** A merge patch (RFC 7396): null clears what may be empty. */
export const TaskPatchBody = z.strictObject({ title: title.optional(), ...SETTABLE, ...READ_ONLY });

/** Only what was sent. */
export function itemPatchOf(body: z.infer<typeof TaskPatchBody>): ItemPatch {
  return given({
    title: body.title?.trim(),
    description: body.description === null ? "" : body.description,
    status: body.status,
    priority: body.priority,
    dueAtMs: timeOf(body.due_date),
    remindAtMs: timeOf(body.remind_at),
    assigneeId: body.assignee_id,
    labels: body.labels === undefined ? undefined : labelSet(body.labels ?? []),
  });
}

export function newItemOf(body: z.infer<typeof NewTaskBody>): ItemFields {
  return {
    title: body.title,
    description: "",
    status: "pending",
    priority: "medium",
    dueAtMs: null,
    remindAtMs: null,
    assigneeId: null,
    labels: [],
    ...itemPatchOf(body),
  };
}

function timeOf(text: string | null | undefined): number | null | undefined {
  return typeof text === "string" ? parseTime(text) : text;
}
