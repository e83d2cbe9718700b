// Answers that are made while they are sent: what waits for a client that does not read counts, and others wait for it.

import { expect, test } from "bun:test";
import { ByteBudget } from "../../src/http/byte-budget.ts";
import { streamHeld } from "../../src/http/held-bytes.ts";
import { RequestScope } from "../../src/http/request-scope.ts";

const PIECE = new Uint8Array(10);

function streamOf(budget: ByteBudget, pieces: readonly Uint8Array[], gone = new AbortController()) {
  const state = { made: 0, ends: 0 };
  const request = new Request("http://localhost/");
  const scope = new RequestScope(request, null, { isDraining: false, hasFailed: false, trustedProxies: null });
  const body = streamHeld({
    scope,
    next: async () => pieces[state.made++] ?? null,
    pieceBytes: 60,
    budget: () => budget,
    gone: gone.signal,
    onEnd: () => {
      state.ends++;
    },
  });
  return { state, gone, reader: body.getReader() };
}

test("a piece is made when there is room for it, and holds that until the next one is asked for", async () => {
  const budget = new ByteBudget(100);
  const [first, second] = [streamOf(budget, [PIECE, PIECE]), streamOf(budget, [PIECE])];
  expect((await first.reader.read()).value).toEqual(PIECE);
  const waiting = second.reader.read();
  await new Promise((resolve) => setImmediate(resolve));
  expect([budget.usedBytes, second.state.made]).toEqual([60, 0]);
  // Whoever has waited comes first.
  const next = first.reader.read();
  expect((await waiting).value).toEqual(PIECE);
  expect([budget.usedBytes, first.state.made]).toEqual([60, 1]);
  const end = second.reader.read();
  expect((await next).value).toEqual(PIECE);
  expect((await first.reader.read()).done).toBe(true);
  expect((await end).done).toBe(true);
  expect([budget.usedBytes, first.state.ends > 0, second.state.ends > 0]).toEqual([0, true, true]);
});

test("a client that leaves gives back what its piece held, whether it has read that or not", async () => {
  const budget = new ByteBudget(100);
  const [cancelling, aborting, waiting] = [1, 2, 3].map(() => streamOf(budget, [PIECE, PIECE]));
  await cancelling!.reader.read();
  await cancelling!.reader.cancel();
  expect([budget.usedBytes, cancelling!.state.ends > 0]).toEqual([0, true]);
  await aborting!.reader.read();
  const read = waiting!.reader.read();
  waiting!.gone.abort();
  expect(await read.catch(() => "refused")).toBe("refused");
  aborting!.gone.abort();
  expect([budget.usedBytes, aborting!.state.ends > 0, waiting!.state.made]).toEqual([0, true, 0]);
});
