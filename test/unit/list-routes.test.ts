// A list without an end, asked for by HEAD: how far it is read for its length.

import { expect, test } from "bun:test";
import type { JwtGate } from "../../src/auth/jwt-gate.ts";
import { RequestScope } from "../../src/http/request-scope.ts";
import { Admission, type AppContext } from "../../src/http/surface.ts";
import { createListHandler } from "../../src/kv/list-routes.ts";
import type { KeyPageQuery, KvEngine } from "../../src/storage/kv-engine.ts";

const PAGES = 50;
const gate = { admit: () => ({ rights: null, buckets: null, prefix: null, subject: null, tokenId: null }) };

/** Asks for a list of many pages; `afterPage` is told of each. How many were read, and the length that was answered. */
async function headOfList(afterPage: (pages: number, leave: () => void) => void): Promise<[number, string | null]> {
  let pages = 0;
  const client = new AbortController();
  const engine: Pick<KvEngine, "listKeys"> = {
    listKeys(_: KeyPageQuery) {
      afterPage(++pages, () => client.abort());
      return { names: ["k"], entries: [], resumeAt: pages === PAGES ? null : "k" };
    },
  };
  const request = new Request("http://h/_list?bucket=b", { method: "HEAD", signal: client.signal });
  const scope = new RequestScope(request, null, { isDraining: false, hasFailed: false, trustedProxies: null });
  const list = createListHandler({
    engine: engine as KvEngine,
    gate: gate as unknown as JwtGate,
    admission: new Admission(1),
  });
  const answer = await list({ env: { scope } } as unknown as AppContext);
  return [pages, answer.headers.get("content-length")];
}

test("HEAD of a list reads all of it for its length", async () => {
  const text = JSON.stringify(new Array(PAGES).fill("k"));
  expect(await headOfList(() => undefined)).toEqual([PAGES, `${text.length}`]);
});

test("HEAD of a list reads no further once its client has left", async () => {
  const [pages] = await headOfList((read, leave) => {
    if (read === 5) leave();
  });
  expect(pages).toBeWithin(5, 8);
});
