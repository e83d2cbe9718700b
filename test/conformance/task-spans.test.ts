// How long things of a user last that end by themselves: a secret that was replaced, the file of an export.

import { expect, setDefaultTimeout, test } from "bun:test";
import { eventually } from "../support/eventually.ts";
import { openInProcessAt } from "../support/targets.ts";
import { refusalBy, send, sendOk } from "../support/task-answers.ts";
import { logIn, signUp, UNLIMITED } from "../support/task-client.ts";
import { type Export, makeExport } from "../support/task-exports.ts";
import { isAccepted, WebhookReceiver } from "../support/webhook-receiver.ts";

setDefaultTimeout(60_000);

const SECOND_MS = 1000;
const DAY_MS = 86_400_000;
const ARRIVES_MS = 10_000;

test("a webhook's secret that was replaced signs beside the new one for 24 hours", async () => {
  let nowMs = Date.now();
  await using receiver = new WebhookReceiver();
  await using target = await openInProcessAt(() => nowMs)({ ...UNLIMITED, WEBHOOK_ALLOW_CIDRS: "127.0.0.1/32" });
  let ann = await signUp(target);
  const hook = { url: receiver.url("/hook"), events: ["task.created"] };
  const { body: made } = await send<{ id: string; secret: string }>(target, ann, "POST", "/webhooks", hook);
  const rotated = await sendOk<{ secret: string }>(target, ann, "POST", `/webhooks/${made.id}/rotate-secret`);
  /** How many signatures a delivery has, and which of the secrets verify it. */
  const signed = async () => {
    const before = receiver.seen.length;
    expect((await send(target, ann, "POST", `/webhooks/${made.id}/ping`)).status).toBe(202);
    await eventually("the ping arrives", ARRIVES_MS, () => receiver.seen.length > before);
    const seen = receiver.seen.at(-1)!;
    const signatures = seen.headers["webhook-signature"]!.split(" ").length;
    return [signatures, ...[made.secret, rotated.secret].map((secret) => isAccepted(seen, secret, nowMs))];
  };
  nowMs += DAY_MS - SECOND_MS;
  ann = { ...ann, ...(await logIn(target, ann.email, ann.password)) };
  expect(await signed()).toEqual([2, true, true]);
  nowMs += SECOND_MS;
  expect(await signed()).toEqual([1, false, true]);
});

test("the file of an export is kept for 24 hours, and it is said for longer that it has expired", async () => {
  let nowMs = Date.now();
  await using target = await openInProcessAt(() => nowMs)(UNLIMITED);
  let ann = await signUp(target);
  const { id } = await makeExport(target, ann);
  const again = async () => {
    ann = { ...ann, ...(await logIn(target, ann.email, ann.password)) };
  };
  const state = async () => (await sendOk<Export>(target, ann, "GET", `/exports/${id}`)).state;
  nowMs += DAY_MS - SECOND_MS;
  await again();
  const kept = await target.fetch(`/api/v1/exports/${id}/file`, { headers: { Authorization: `Bearer ${ann.token}` } });
  expect([kept.status, await state()]).toEqual([200, "ready"]);
  nowMs += SECOND_MS;
  expect(await refusalBy(target, ann, "GET", `/exports/${id}/file`)).toBe("410 expired");
  expect(await state()).toBe("expired");
});
