// Lists without an end, asked for by HEAD: how far they are read for their length, and what comes between two pages.

import { expect, test } from "bun:test";
import type { JwtGate } from "../../src/auth/jwt-gate.ts";
import { RequestScope } from "../../src/http/request-scope.ts";
import { Admission, type AppContext } from "../../src/http/surface.ts";
import { createListHandler } from "../../src/kv/list-routes.ts";
import { LoopTurns } from "../../src/shared/loop-turns.ts";
import type { KeyPageQuery, KvEngine } from "../../src/storage/kv-engine.ts";
import { refusalFrom } from "../support/refusal-of.ts";

const PAGES = 50;
const LISTS = 20;
const gate = { admit: () => ({ rights: null, buckets: null, prefix: null, subject: null, tokenId: null }) };

const STATE = { isDraining: false, hasFailed: false, trustedProxies: null };

/** Lists of many pages, whose keys are the numbers of their pages; `afterPage` is told of each page that is read. */
function openLists(afterPage: () => void): (signal: AbortSignal) => Promise<Response> {
  const engine: Pick<KvEngine, "listKeys"> = {
    listKeys({ range }: KeyPageQuery) {
      afterPage();
      const page = Number(range.lower) + 1;
      return { names: ["k"], entries: [], resumeAt: page === PAGES ? null : `${page}` };
    },
  };
  const list = createListHandler({
    engine: engine as KvEngine,
    gate: gate as unknown as JwtGate,
    admission: new Admission(LISTS),
    listTurns: new LoopTurns(),
  });
  return async (signal) => {
    const scope = new RequestScope(new Request("http://h/_list?bucket=b", { method: "HEAD", signal }), null, STATE);
    return list({ env: { scope } } as unknown as AppContext);
  };
}

test("HEAD of a list reads all of it for its length", async () => {
  const text = JSON.stringify(new Array(PAGES).fill("k"));
  let pages = 0;
  const answer = await openLists(() => pages++)(new AbortController().signal);
  expect([pages, answer.headers.get("content-length")]).toEqual([PAGES, `${text.length}`]);
});

test("HEAD of a list reads no further once its client has left", async () => {
  const client = new AbortController();
  let pages = 0;
  const head = openLists(() => {
    if (++pages === 5) client.abort();
  });
  expect(await refusalFrom(head(client.signal))).toBe("unavailable");
  expect(pages).toBe(5);
});

test("of many lists that are read at once no two pages are read in one turn of the event loop", async () => {
  let sinceTurn = 0;
  const readTogether: number[] = [];
  const head = openLists(() => sinceTurn++);
  let isOver = false;
  const heads = Array.from({ length: LISTS }, () => head(new AbortController().signal));
  const all = Promise.all(heads).finally(() => {
    isOver = true;
  });
  // The first page of each is read with its request.
  sinceTurn = 0;
  while (!isOver) {
    await new Promise(setImmediate);
    readTogether.push(sinceTurn);
    sinceTurn = 0;
  }
  await all;
  expect(Math.max(...readTogether)).toBe(1);
  expect(readTogether.filter((pages) => pages === 1)).toHaveLength(LISTS * (PAGES - 1));
});
