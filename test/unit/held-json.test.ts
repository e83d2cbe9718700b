// Large JSON on its way out: what it holds, what waits, and what is refused before it fills the memory.

import { expect, test } from "bun:test";
import { ByteBudget } from "../../src/http/byte-budget.ts";
import { respondHeldJson } from "../../src/http/held-bytes.ts";
import { RequestScope } from "../../src/http/request-scope.ts";
import { MiB } from "../../src/shared/bounds.ts";
import { AppError } from "../../src/shared/errors.ts";

const STATE = { isDraining: false, hasFailed: false, trustedProxies: null };

/** An answer of about `bytes`, on its way. */
function answer(budget: ByteBudget, bytes: number, method = "GET"): Promise<Response> {
  const scope = new RequestScope(new Request("http://localhost/", { method }), null, STATE);
  return respondHeldJson(scope, budget, "x".repeat(bytes - 2), {});
}

test("holds its share until the client has taken it, and is whole", async () => {
  const budget = new ByteBudget(4 * MiB);
  const response = await answer(budget, MiB);
  expect(budget.usedBytes).toBe(MiB);
  expect((await response.text()).length).toBe(MiB);
  expect(budget.usedBytes).toBe(0);
});

test("waits while little waits, and is refused at once behind much", async () => {
  const budget = new ByteBudget(4 * MiB);
  const held = await answer(budget, 4 * MiB);
  const waiting = [answer(budget, MiB), answer(budget, MiB)];
  const refused = await answer(budget, MiB).catch((error: unknown) => error);
  expect(refused).toBeInstanceOf(AppError);
  expect(refused).toMatchObject({ code: "overloaded" });
  await held.text();
  for (const response of await Promise.all(waiting)) expect((await response.text()).length).toBe(MiB);
  expect(budget.usedBytes).toBe(0);
});

test("goes alone when it is larger than all memory for bodies", async () => {
  const budget = new ByteBudget(MiB);
  const response = await answer(budget, 2 * MiB);
  expect(budget.usedBytes).toBe(MiB);
  expect((await response.text()).length).toBe(2 * MiB);
  expect(budget.usedBytes).toBe(0);
});

test("holds nothing for HEAD, which is told the length alone", async () => {
  const budget = new ByteBudget(4 * MiB);
  const response = await answer(budget, MiB, "HEAD");
  expect([response.headers.get("content-length"), await response.text()]).toEqual([`${MiB}`, ""]);
  expect(budget.usedBytes).toBe(0);
});

test("leaves room for answers to others, however many of one user are left unread", async () => {
  const budget = new ByteBudget(8 * MiB);
  budget.limitEach(4 * MiB);
  const mine = Array.from({ length: 4 }, () => answer(budget.ofHolder("ann"), MiB));
  const waiting = answer(budget.ofHolder("ann"), MiB);
  const others = await answer(budget.ofHolder("ben"), 4 * MiB);
  expect(budget.usedBytes).toBe(8 * MiB);
  await others.text();
  for (const response of await Promise.all(mine)) await response.text();
  await (await waiting).text();
  expect(budget.usedBytes).toBe(0);
});
