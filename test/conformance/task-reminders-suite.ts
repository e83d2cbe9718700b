// Times that come: reminders and due dates reach streams, histories and webhooks, once, and only when they still hold.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { eventually } from "../support/eventually.ts";
import { expectTimeFrom } from "../support/figures-in-bounds.ts";
import { LiveStream } from "../support/live-stream.ts";
import { report } from "../support/run-size.ts";
import type { OpenTarget, Target } from "../support/targets.ts";
import { eventsOf, send, sendOk } from "../support/task-answers.ts";
import { type Account, createTask, signUp, UNLIMITED } from "../support/task-client.ts";
import { useTarget } from "../support/use-target.ts";
import { WebhookReceiver } from "../support/webhook-receiver.ts";

/** How far from its time a reminder may come. */
const TOLERANCE_MS = 2000;
const SOON_MS = 1200;

interface Job {
  readonly kind: string;
  readonly state: string;
}

export function taskRemindersSuite(name: string, open: OpenTarget): void {
  setDefaultTimeout(120_000);
  describe(`a reminder on ${name}`, () => {
    reminderTests(useTarget(open, { ...UNLIMITED, WEBHOOK_ALLOW_CIDRS: "127.0.0.1/32" }));
  });
}

function inMs(ms: number): string {
  return new Date(Date.now() + ms).toISOString();
}

/** All jobs of reminders and due dates of the account have run, as often as they will. */
async function untilQuiet(target: Target, by: Account, jobs: number): Promise<void> {
  await eventually(`${jobs} jobs are done`, 15_000, async () => {
    const all = await sendOk<Job[]>(target, by, "GET", "/jobs");
    const due = all.filter(({ kind }) => kind === "task.reminder" || kind === "task.overdue");
    return due.length === jobs && due.every(({ state }) => state === "done");
  });
}

async function typesOf(target: Target, by: Account, taskId: number): Promise<string[]> {
  return (await eventsOf(target, by, taskId)).map(({ type }) => type);
}

function reminderTests(target: () => Target): void {
  test("does not come before its time when its job is cancelled and tried again", async () => {
    const ann = await signUp(target());
    const at = inMs(3_600_000);
    const { id } = await createTask(target(), ann, { title: "later", remind_at: at });
    const [job] = await sendOk<{ id: string; run_at: string }[]>(target(), ann, "GET", "/jobs");
    await sendOk(target(), ann, "POST", `/jobs/${job!.id}/cancel`);
    const again = await sendOk<{ state: string; run_at: string }>(target(), ann, "POST", `/jobs/${job!.id}/retry`);
    expect([again.state, again.run_at]).toEqual(["ready", job!.run_at]);
    expect(Date.parse(again.run_at)).toBe(Date.parse(at));
    expect(await typesOf(target(), ann, id)).toEqual(["task.created"]);
  });

  test("comes at its time, once, to streams and webhooks, as the event of a passed due date does", async () => {
    await using receiver = new WebhookReceiver();
    const [ann, bob] = [await signUp(target()), await signUp(target())];
    const hook = { url: receiver.url("/reminders"), events: ["task.reminder", "task.overdue"] };
    expect((await send(target(), ann, "POST", "/webhooks", hook)).status).toBe(201);
    const [remindAt, dueAt] = [inMs(SOON_MS), inMs(SOON_MS + 300)];
    const task = await createTask(target(), ann, { remind_at: remindAt, due_date: dueAt, assignee_id: bob.id });
    await using anns = await LiveStream.open(target(), ann);
    await using bobs = await LiveStream.open(target(), bob);
    const [heard, alsoHeard] = await Promise.all([anns.take(2), bobs.take(2)]);
    expect(heard.map(({ type, data }) => [type, data.id, data.actor_id, data.version, data.changes])).toEqual([
      ["task.reminder", task.id, null, 1, {}],
      ["task.overdue", task.id, null, 1, {}],
    ]);
    expect(alsoHeard.map(({ data }) => data)).toEqual(heard.map(({ data }) => data));
    const lateMs = heard.map(({ data }, index) => Date.parse(`${data.at}`) - Date.parse([remindAt, dueAt][index]!));
    report(`a reminder and an overdue task came ${lateMs.join(" and ")} ms after their times`);
    for (const ms of lateMs) expectTimeFrom("a reminder", ms, 0, TOLERANCE_MS);
    await eventually("both were delivered", 5000, () => receiver.seen.length === 2);
    const delivered = receiver.seen.map(({ json }) => [json.type, (json.data.task as { id: number }).id]).toSorted();
    expect(delivered).toEqual([
      ["task.overdue", task.id],
      ["task.reminder", task.id],
    ]);

    await untilQuiet(target(), ann, 2);
    expect(await typesOf(target(), ann, task.id)).toEqual(["task.created", "task.reminder", "task.overdue"]);
    expect([...anns.rest, ...bobs.rest]).toEqual([]);
    expect(receiver.seen.length).toBe(2);
  });

  test("does not come for a task that is completed or deleted, nor at a time that was changed or cleared", async () => {
    const ann = await signUp(target());
    const [first, second] = [inMs(SOON_MS), inMs(SOON_MS + 500)];
    const dated = () => createTask(target(), ann, { remind_at: first, due_date: first });
    const [completed, deleted, cleared, moved] = [await dated(), await dated(), await dated(), await dated()];
    const change = (id: number, patch: object) => sendOk(target(), ann, "PATCH", `/tasks/${id}`, patch);
    await change(completed.id, { status: "completed" });
    await sendOk(target(), ann, "DELETE", `/tasks/${deleted.id}`);
    await change(cleared.id, { remind_at: null, due_date: null });
    await change(moved.id, { remind_at: second, due_date: second });
    // There and back again is one time, not two.
    const returned = await dated();
    await change(returned.id, { remind_at: second });
    await change(returned.id, { remind_at: first });
    await untilQuiet(target(), ann, 4 * 2 + 2 + 3);
    await sendOk(target(), ann, "POST", `/tasks/${deleted.id}/restore`);
    const types = async ({ id }: { id: number }) => {
      return (await typesOf(target(), ann, id)).filter((type) => type === "task.reminder" || type === "task.overdue");
    };
    expect(await Promise.all([completed, deleted, cleared].map(types))).toEqual([[], [], []]);
    expect((await types(moved)).toSorted()).toEqual(["task.overdue", "task.reminder"]);
    expect((await types(returned)).toSorted()).toEqual(["task.overdue", "task.reminder"]);
    const [event] = (await eventsOf(target(), ann, moved.id)).slice(-1);
    expect(Date.parse(event!.at)).toBeGreaterThanOrEqual(Date.parse(second));
  });

  test("comes after all when the server was away at its time, never for a time already past", async () => {
    const ann = await signUp(target());
    const past = await createTask(target(), ann, { remind_at: inMs(-1000), due_date: inMs(-1000) });
    const task = await createTask(target(), ann, { remind_at: inMs(150) });
    await target().restart();
    await untilQuiet(target(), ann, 1);
    expect(await typesOf(target(), ann, task.id)).toEqual(["task.created", "task.reminder"]);
    expect(await typesOf(target(), ann, past.id)).toEqual(["task.created"]);
  });
}
