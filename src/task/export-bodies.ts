// The body of a new export, as its client writes it.

import { z } from "zod";
import { FILTER_PARAMETERS } from "./task-query.ts";

const PARAMETERS = [...FILTER_PARAMETERS, "sort"] as const;
const text = z.string().max(2000).optional();

/** `filter`: parameters of the list of tasks, each as it would stand in the query. */
export const NewExportBody = z.strictObject({
  format: z.enum(["csv", "ics"]),
  filter: z
    .strictObject(
      Object.fromEntries(PARAMETERS.map((name) => [name, text])) as Record<(typeof PARAMETERS)[number], typeof text>,
    )
    .optional(),
});
