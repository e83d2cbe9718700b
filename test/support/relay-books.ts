// The books of the relay as they are on disk, and what must hold in them at every moment, whatever is under way.

import { Database } from "bun:sqlite";
import { expect } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { LogRow } from "../../src/relay/relay-tables.ts";
import { eventually } from "./eventually.ts";
import { type Json, managed } from "./relay-client.ts";
import type { Target } from "./targets.ts";

const SETTLED_MS_MAX = 15_000;

/** What one token has, all of one moment. */
export interface Books {
  readonly remain: number;
  readonly used: number;
  /** Set aside for requests under way: their sum and how many. */
  readonly open: number;
  readonly reservations: number;
  /** The sum of the log, and how many rows. */
  readonly logged: number;
  readonly rows: number;
}

/** Reads beside the server, in one transaction. Throws when there is no such token. */
export function readBooks(dbPath: string, tokenId: number): Books {
  const file = join(dbPath, "gokv.db");
  if (!existsSync(file)) throw new Error(`there is no store at ${dbPath}`);
  using database = new Database(file, { readonly: true });
  database.run("PRAGMA busy_timeout = 60000");
  const row = database
    .query<Books, [number]>(
      `SELECT remain_quota AS remain, used_quota AS used,
        (SELECT coalesce(sum(amount), 0) FROM relay_reservation WHERE token_id = t.id) AS open,
        (SELECT count(*) FROM relay_reservation WHERE token_id = t.id) AS reservations,
        (SELECT coalesce(sum(quota), 0) FROM relay_log WHERE token_id = t.id) AS logged,
        (SELECT count(*) FROM relay_log WHERE token_id = t.id) AS rows
       FROM relay_token t WHERE id = ?`,
    )
    .get(tokenId);
  if (row === null) throw new Error(`there is no token ${tokenId}`);
  return row;
}

/** What is wrong with the books of a token that was granted so much; empty when nothing is. */
export function mistakesIn({ remain, used, open, logged }: Books, granted: number): string[] {
  return [
    ...(remain < 0 ? [`${remain} remain`] : []),
    ...(used !== logged ? [`${used} used, ${logged} in the log`] : []),
    ...(granted !== remain + used + open ? [`${granted} granted, ${remain} + ${used} + ${open} accounted for`] : []),
  ];
}

/** Looks into the books again and again while `work` goes on. Returns what was wrong, and how often it looked. */
export async function watchBooks(
  target: Pick<Target, "dbPath">,
  { tokenId, granted }: { tokenId: number; granted: number },
  work: Promise<unknown>,
): Promise<{ mistakes: string[]; looks: number }> {
  let isOver = false;
  const over = work.finally(() => {
    isOver = true;
  });
  const mistakes = new Set<string>();
  let looks = 0;
  do {
    for (const mistake of mistakesIn(readBooks(target.dbPath, tokenId), granted)) mistakes.add(mistake);
    looks++;
    await Bun.sleep(1);
  } while (!isOver);
  await over;
  return { mistakes: [...mistakes], looks };
}

/** The books once no request of the token is open and `rows` requests are logged. */
export async function settledBooks(target: Pick<Target, "dbPath">, tokenId: number, rows: number): Promise<Books> {
  let books = readBooks(target.dbPath, tokenId);
  await eventually(`${rows} rows, none of them open`, SETTLED_MS_MAX, () => {
    books = readBooks(target.dbPath, tokenId);
    return books.reservations === 0 && books.rows >= rows;
  });
  expect(books.rows).toBe(rows);
  return books;
}

/** Every row that matches, by pages. */
export async function logRows(target: Target, query = ""): Promise<LogRow[]> {
  const rows: LogRow[] = [];
  for (let before = ""; ; ) {
    const path = `/api/log?limit=500${query}${before === "" ? "" : `&before=${before}`}`;
    const page = await managed<{ data: LogRow[]; next: string | null }>(target, "GET", path);
    rows.push(...page.data);
    if (page.next === null) return rows;
    before = page.next;
  }
}

/** The only row of a token, as soon as it is there. */
export async function onlyRow(target: Target, tokenId: number): Promise<LogRow> {
  await settledBooks(target, tokenId, 1);
  const [row] = await logRows(target, `&token_id=${tokenId}`);
  return row!;
}

/** Of a metric without labels, or the sum of those with them. */
export async function metricOf(target: Target, name: string): Promise<number> {
  const text = await (await target.fetch("/metrics")).text();
  const values = [...text.matchAll(new RegExp(`^${name}(?:\\{[^}]*\\})? (\\S+)$`, "gm"))].map((match) =>
    Number(match[1]),
  );
  expect([name, values.length > 0]).toEqual([name, true]);
  return values.reduce((sum, value) => sum + value, 0);
}

/** A chat answer of which the size and the stated usage are the test's; `usage` undefined = none. */
export function chatAnswer(content: string, usage?: unknown): Json {
  return {
    id: "chatcmpl-1",
    object: "chat.completion",
    created: 1,
    model: "any",
    choices: [{ index: 0, message: { role: "assistant", content }, finish_reason: "stop" }],
    ...(usage === undefined ? {} : { usage }),
  };
}
