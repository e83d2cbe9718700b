// Searching tasks: words in any script and case, and characters that mean something to databases.

import { describe, expect, test } from "bun:test";
import type { OpenTarget, Target } from "../support/targets.ts";
import { type Account, ask, createTask, signUp, type Task, UNLIMITED } from "../support/task-client.ts";
import { useTarget } from "../support/use-target.ts";

export function taskSearchSuite(name: string, open: OpenTarget): void {
  describe(`searching tasks on ${name}`, () => searchTests(useTarget(open, UNLIMITED)));
}

async function titlesOf(target: Target, { token }: Account, q: string, rest = ""): Promise<string[]> {
  const answer = await ask(target, "GET", `/tasks?q=${encodeURIComponent(q)}${rest}`, { token });
  expect([q, answer.status]).toEqual([q, 200]);
  return ((await answer.json()) as Task[]).map(({ title }) => title).sort();
}

function searchTests(target: () => Target): void {
  test("finds parts of words in title and description, in any script, whatever the case or the width", async () => {
    const me = await signUp(target());
    await createTask(target(), me, { title: "完成项目文档", description: "编写项目的技术文档" });
    await createTask(target(), me, { title: "Write REPORT", description: "Quarterly figures" });
    await createTask(target(), me, { title: "Ｆｕｌｌ ｗｉｄｔｈ", description: "ÉTÉ à la plage" });
    const cases: [string, string[]][] = [
      ["项目", ["完成项目文档"]],
      ["技术文档", ["完成项目文档"]],
      ["report", ["Write REPORT"]],
      ["rEpO", ["Write REPORT"]],
      ["QUARTERLY", ["Write REPORT"]],
      ["full", ["Ｆｕｌｌ ｗｉｄｔｈ"]],
      ["ｆｕｌｌ", ["Ｆｕｌｌ ｗｉｄｔｈ"]],
      ["été", ["Ｆｕｌｌ ｗｉｄｔｈ"]],
      ["e\u0301te\u0301", ["Ｆｕｌｌ ｗｉｄｔｈ"]],
      ["nowhere", []],
    ];
    for (const [q, titles] of cases) expect([q, await titlesOf(target(), me, q)]).toEqual([q, titles]);
  });

  test("takes wildcards, quotes and escapes for what they are", async () => {
    const me = await signUp(target());
    const titles = ["100% sure", "under_score", "back\\slash", "it's", 'a "quote"', "bang!", "plain", "a*b?c[d]"];
    for (const title of titles) await createTask(target(), me, { title });
    for (const [q, title] of [
      ...(["%", "_", "\\", "'", '"', "!", "*", "?", "[d]"] as const).map((q) => [q, titles.find((t) => t.includes(q))]),
      ["100%", "100% sure"],
      ["r_s", "under_score"],
      ["k\\s", "back\\slash"],
    ] as const) {
      expect([q, await titlesOf(target(), me, q!)]).toEqual([q, [title!]]);
    }
    for (const q of ["%%", "p%n", "pl_in", "' OR 1=1", "';--"])
      expect([q, await titlesOf(target(), me, q)]).toEqual([q, []]);
  });

  test("wants all of several words, in any order, each wherever it is", async () => {
    const me = await signUp(target());
    await createTask(target(), me, { title: "Buy milk", description: "at the corner" });
    await createTask(target(), me, { title: "Buy bread", description: "at the market" });
    expect(await titlesOf(target(), me, "buy")).toEqual(["Buy bread", "Buy milk"]);
    expect(await titlesOf(target(), me, "corner buy")).toEqual(["Buy milk"]);
    expect(await titlesOf(target(), me, "  buy \t corner  ")).toEqual(["Buy milk"]);
    expect(await titlesOf(target(), me, "milk market")).toEqual([]);
    expect(await titlesOf(target(), me, "milkat")).toEqual([]);
    expect(await titlesOf(target(), me, "a b c d e f g")).toEqual([]);
    const many = await ask(target(), "GET", "/tasks?q=1+2+3+4+5+6+7+8+9", { token: me.token });
    expect(many.status).toBe(400);
  });

  test("refuses more than 200 characters, counted as they are searched for, in lists and in exports", async () => {
    const me = await signUp(target());
    for (const [q, status] of [
      ...([
        ["㌖".repeat(33), 200],
        ["㌖".repeat(34), 400],
        ["㌖".repeat(1500), 400],
      ] as const),
    ]) {
      const list = await ask(target(), "GET", `/tasks?q=${encodeURIComponent(q)}`, { token: me.token });
      expect([q.length, list.status]).toEqual([q.length, status]);
      if (status === 200) continue;
      const body = { format: "csv", filter: { q } };
      const asked = await ask(target(), "POST", "/exports", { token: me.token, body });
      expect(asked.status).toBe(400);
      const words = "has at most 200 characters";
      for (const [answer, name] of [[list, "q"] as const, [asked, "filter.q"] as const]) {
        expect(await answer.json()).toMatchObject({ code: "invalid_request", fields: { [name]: words } });
      }
    }
  });

  test("follows changes of a task, goes with other filters, and never shows what is not visible", async () => {
    const [me, other] = [await signUp(target()), await signUp(target())];
    const task = await createTask(target(), me, { title: "needle", status: "completed" });
    await createTask(target(), me, { title: "needle two" });
    await createTask(target(), other, { title: "needle of others" });
    expect(await titlesOf(target(), me, "needle", "&status=completed&sort=-due_date")).toEqual(["needle"]);
    await ask(target(), "PATCH", `/tasks/${task.id}`, { token: me.token, body: { title: "pin" } });
    expect(await titlesOf(target(), me, "needle")).toEqual(["needle two"]);
    expect(await titlesOf(target(), me, "pin")).toEqual(["pin"]);
    await ask(target(), "DELETE", `/tasks/${task.id}`, { token: me.token });
    expect(await titlesOf(target(), me, "pin")).toEqual([]);
    expect(await titlesOf(target(), me, "pin", "&deleted=true")).toEqual(["pin"]);
  });
}
