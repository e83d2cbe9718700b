// Exports as a client asks for them and waits for them.

import { expect } from "bun:test";
import { alterStore } from "./alter-store.ts";
import { eventually } from "./eventually.ts";
import type { Target } from "./targets.ts";
import { send, sendOk } from "./task-answers.ts";
import type { Account } from "./task-client.ts";

type Asked = Pick<Target, "fetch">;

export interface Export {
  readonly id: string;
  readonly job_id: string;
  readonly state: "pending" | "ready" | "failed" | "expired";
  readonly format: "csv" | "ics";
  readonly filter: Readonly<Record<string, string>>;
  readonly row_count: number | null;
  readonly byte_count: number | null;
  readonly sha256: string | null;
  readonly expires_at: string;
}

export interface Job {
  readonly id: string;
  readonly kind: string;
  readonly queue: string;
  readonly state: "ready" | "running" | "done" | "dead" | "cancelled";
  readonly attempts: number;
  readonly progress: number;
  readonly last_error: string | null;
}

/** Asked for, and not built yet. */
export async function startExport(
  target: Asked,
  by: Account,
  body: Record<string, unknown> = { format: "csv" },
): Promise<Pick<Export, "id" | "job_id" | "state">> {
  const answer = await send<Export>(target, by, "POST", "/exports", body);
  expect([answer.status, answer.body.state]).toEqual([202, "pending"]);
  expect(answer.headers.get("location")).toBe(`/api/v1/exports/${answer.body.id}`);
  return answer.body;
}

/** Asked for and built. */
export async function makeExport(target: Asked, by: Account, body?: Record<string, unknown>): Promise<Export> {
  const { id } = await startExport(target, by, body);
  return built(target, by, id);
}

export async function built(target: Asked, by: Account, id: string): Promise<Export> {
  const read = () => sendOk<Export>(target, by, "GET", `/exports/${id}`);
  await eventually("the export is built", 20_000, async () => (await read()).state !== "pending");
  const made = await read();
  expect(made.state).toBe("ready");
  return made;
}

/** So many tasks at once, behind the back of the server; each has a description of so many characters. */
export function fillTasks(
  { dbPath }: Pick<Target, "dbPath">,
  { id }: Pick<Account, "id">,
  count: number,
  descriptionLength = 20,
): Promise<void> {
  const row = `${id}, 'task ' || i, substr(hex(zeroblob(${descriptionLength})), 1, ${descriptionLength}), 'task ' || i`;
  return alterStore(
    dbPath,
    `INSERT INTO task_item (user_id, title, description, search_text, status, priority, due_at_ms, created_at_ms,
       updated_at_ms, deleted_at_ms, version)
     WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${count})
     SELECT ${row}, 'pending', 2, 9000000000000000, i, i, 0, 1 FROM n`,
  );
}
