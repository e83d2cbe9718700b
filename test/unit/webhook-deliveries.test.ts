// What becomes of deliveries in time: tries, failures in a row, rotation, and addresses that change.

import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { JOB_PRIORITY } from "../../src/jobs/job-base-units.ts";
import { refusalFrom } from "../support/refusal-of.ts";
import { isAccepted } from "../support/webhook-receiver.ts";
import { WebhookRig } from "../support/webhook-rig.ts";

setDefaultTimeout(120_000);

const SECOND_MS = 1000;
const HOUR_MS = 3_600_000;
const fail = () => new Response("try later", { status: 500 });

let rig: WebhookRig;
beforeEach(async () => {
  rig = await WebhookRig.open();
});
afterEach(() => rig[Symbol.asyncDispose]());

describe("a delivery that fails", () => {
  test("is tried eight times with growing pauses, each at its own time with the same id, then dead", async () => {
    rig.receiver.answer("/hook", fail);
    await rig.ping();
    const pauses: number[] = [];
    for (let attempt = 1; attempt <= 8; attempt++) {
      const triedMs = rig.nowMs;
      await rig.workAll();
      const [delivery] = await rig.deliveries();
      expect(delivery).toMatchObject({ attempts: attempt, last_status: 500, response_excerpt: "try later" });
      expect(delivery!.state).toBe(attempt < 8 ? "pending" : "dead");
      const [job] = await rig.jobs();
      pauses.push(job!.run_at_ms - triedMs);
      rig.skewMs += Math.max(0, job!.run_at_ms - rig.nowMs);
    }
    pauses.slice(0, 7).forEach((pauseMs, index) => {
      const fullMs = Math.min(6 * HOUR_MS, 10 * SECOND_MS * 4 ** index);
      // What the attempt itself took comes on top.
      expect(pauseMs).toBeWithin(fullMs / 2, fullMs + 30 * SECOND_MS);
    });
    await rig.workAll();
    const { seen } = rig.receiver;
    expect(seen).toHaveLength(8);
    expect(new Set(seen.map(({ headers, body }) => `${headers["webhook-id"]} ${body}`)).size).toBe(1);
    expect(new Set(seen.map(({ headers }) => headers["webhook-timestamp"])).size).toBe(8);
    expect(await rig.hook()).toMatchObject({ active: 1, failures: 1, pending: 0 });
    expect((await rig.deliveries())[0]!.last_error).toBe("the receiver answered 500");
  });

  test("is sent again with the same id and body when asked for, and clears the failures when it is taken", async () => {
    rig.receiver.answer("/hook", fail);
    await rig.ping();
    for (let attempt = 1; attempt <= 8; attempt++) {
      await rig.workAll();
      rig.skewMs += 7 * HOUR_MS;
    }
    rig.receiver.answer("/hook", () => new Response("thanks", { status: 202 }));
    const [dead] = await rig.deliveries();
    await rig.store.run("task.redeliver", { ...rig.named, deliveryId: dead!.id });
    expect(await rig.hook()).toMatchObject({ pending: 1, failures: 1 });
    await rig.workAll();
    const [done] = await rig.deliveries();
    expect(done).toMatchObject({ id: dead!.id, state: "done", attempts: 9, last_status: 202, last_error: null });
    const [first, last] = [rig.receiver.seen[0]!, rig.receiver.seen.at(-1)!];
    expect([last.headers["webhook-id"], last.body]).toEqual([first.headers["webhook-id"]!, first.body]);
    expect(await rig.hook()).toMatchObject({ pending: 0, failures: 0 });
  });

  test("fifty times in a row disables the hook with a reason; one success between begins the count anew", async () => {
    rig.receiver.answer("/hook", fail);
    const die = async () => {
      await rig.ping();
      for (let attempt = 1; attempt <= 8; attempt++) {
        await rig.workAll();
        rig.skewMs += 7 * HOUR_MS;
      }
    };
    await rig.setCount("failures", 48);
    await die();
    expect(await rig.hook()).toMatchObject({ active: 1, failures: 49 });
    rig.receiver.answer("/hook", () => new Response(null, { status: 204 }));
    await die();
    expect(await rig.hook()).toMatchObject({ active: 1, failures: 0 });
    rig.receiver.answer("/hook", fail);
    await die();
    expect(await rig.hook()).toMatchObject({ active: 1, failures: 1 });
    await rig.setCount("failures", 49);
    await die();
    expect(await rig.hook()).toMatchObject({ active: 0, disabled_reason: "50 deliveries in a row failed", pending: 0 });
  });

  test("because no answer comes in time says so", async () => {
    rig.receiver.answer("/hook", () => new Promise(() => undefined));
    await rig.ping();
    await rig.workAll();
    const [delivery] = await rig.deliveries();
    expect(delivery).toMatchObject({ state: "pending", last_status: null, last_error: "no answer within 2000 ms" });
    expect(delivery!.last_ms).toBeGreaterThanOrEqual(1_990);
  });
});

describe("the place of a hook among others", () => {
  const ranks = async () => (await rig.jobs()).map(({ priority }) => priority);

  test("is behind those that answer while it is new, and the last while it fails", async () => {
    await rig.ping();
    expect(await ranks()).toEqual([JOB_PRIORITY.later]);
    await rig.workAll();
    await rig.ping();
    expect(await ranks()).toEqual([JOB_PRIORITY.later, JOB_PRIORITY.usual]);
    rig.receiver.answer("/hook", fail);
    const [failing] = await rig.claim(1);
    await rig.ping();
    await rig.work(failing!);
    await rig.ping();
    // Those that were waiting with it go back with it.
    const { usual, later, last } = JOB_PRIORITY;
    expect(await ranks()).toEqual([later, last, last, last]);
    rig.receiver.answer("/hook", () => new Response(null, { status: 204 }));
    await rig.workAll();
    await rig.ping();
    expect((await ranks()).at(-1)).toBe(usual);
  });

  test("is behind those that answer quickly while it answers slowly, and so is what waits for it", async () => {
    await rig.ping();
    await rig.workAll();
    const { usual, later } = JOB_PRIORITY;
    const quick = { status: 200, excerpt: null, isSkipped: false };
    for (const [ms, rank] of [
      [900, usual],
      [1_100, later],
      [900, usual],
    ] as const) {
      await rig.ping();
      const [job] = await rig.claim(1);
      await rig.ping();
      await rig.taken(job!, { ...quick, ms });
      expect(await rig.hook()).toMatchObject({ job_priority: rank });
      expect((await ranks()).at(-1)).toBe(rank);
      await rig.workAll();
    }
  });

  test("stays what it was when a run ends without a report: that says nothing of the receiver", async () => {
    for (const priority of [JOB_PRIORITY.later, JOB_PRIORITY.usual]) {
      await rig.ping();
      const [killed] = await rig.claim();
      await rig.expire(killed!);
      expect((await rig.deliveries()).at(-1)).toMatchObject({
        state: "pending",
        attempts: 1,
        last_error: "lease expired",
      });
      expect(await rig.hook()).toMatchObject({ job_priority: priority });
      rig.skewMs += HOUR_MS;
      await rig.workAll();
      expect(await rig.hook()).toMatchObject({ job_priority: JOB_PRIORITY.usual, pending: 0 });
    }
  });

  test("is that of a new one at a new address; a delivery that is given up unsent changes nothing", async () => {
    await rig.ping();
    await rig.workAll();
    expect(await rig.hook()).toMatchObject({ job_priority: JOB_PRIORITY.usual });
    await rig.ping();
    await rig.store.run("task.changeWebhook", { ...rig.named, isActive: false });
    expect(await rig.hook()).toMatchObject({ job_priority: JOB_PRIORITY.usual });
    const url = rig.receiver.url("/moved");
    await rig.store.run("task.changeWebhook", { ...rig.named, isActive: true, url });
    expect(await rig.hook()).toMatchObject({ job_priority: JOB_PRIORITY.later });
  });
});

describe("a delivery whose job is run again", () => {
  const jobId = async () => (await rig.jobs())[0]!.id;

  test("is pending again and counted with its hook, until it ends once more", async () => {
    rig.receiver.answer("/hook", fail);
    await rig.ping();
    await rig.workAll();
    await rig.cancelJob(await jobId());
    expect(await rig.deliveries()).toMatchObject([{ state: "dead", attempts: 1, finished_at_ms: expect.any(Number) }]);
    expect(await rig.hook()).toMatchObject({ pending: 0, job_priority: JOB_PRIORITY.last });
    await rig.retryJob(await jobId());
    expect(await rig.deliveries()).toMatchObject([{ state: "pending", finished_at_ms: null }]);
    expect(await rig.hook()).toMatchObject({ pending: 1 });
    await rig.workAll();
    expect(await rig.deliveries()).toMatchObject([{ state: "pending", attempts: 2, finished_at_ms: null }]);
    rig.receiver.answer("/hook", () => new Response(null, { status: 204 }));
    rig.skewMs += HOUR_MS;
    await rig.workAll();
    expect(await rig.deliveries()).toMatchObject([{ state: "done", attempts: 3, finished_at_ms: expect.any(Number) }]);
    expect(await rig.hook()).toMatchObject({ pending: 0, failures: 0 });
  });

  test("has the place of its hook as that is by then", async () => {
    await rig.ping();
    await rig.cancelJob(await jobId());
    rig.receiver.answer("/hook", fail);
    await rig.ping();
    await rig.workAll();
    await rig.retryJob(await jobId());
    expect((await rig.jobs())[0]).toMatchObject({ state: "ready", priority: JOB_PRIORITY.last });
  });

  test("is refused while another job has it, so that it is sent once", async () => {
    await rig.ping();
    await rig.cancelJob(await jobId());
    const [given] = await rig.deliveries();
    await rig.store.run("task.redeliver", { ...rig.named, deliveryId: given!.id });
    expect(await refusalFrom(rig.retryJob(await jobId()))).toBe("state_conflict");
    await rig.workAll();
    expect(await refusalFrom(rig.retryJob(await jobId()))).toBe("state_conflict");
    expect((await rig.jobs()).map(({ state }) => state)).toEqual(["cancelled", "done"]);
    expect(rig.receiver.seen).toHaveLength(1);
  });

  test("is refused when its hook is switched off or deleted, or when it is no longer in the log", async () => {
    await rig.ping();
    await rig.cancelJob(await jobId());
    await rig.store.run("task.changeWebhook", { ...rig.named, isActive: false });
    expect(await refusalFrom(rig.retryJob(await jobId()))).toBe("state_conflict");
    await rig.store.run("task.deleteWebhook", rig.named);
    expect(await refusalFrom(rig.retryJob(await jobId()))).toBe("state_conflict");
    const dueMs = rig.nowMs + HOUR_MS;
    await rig.store.run("task.purgeDeliveries", { doneBeforeMs: dueMs, deadBeforeMs: dueMs, limit: 10 });
    expect(await refusalFrom(rig.retryJob(await jobId()))).toBe("state_conflict");
    expect((await rig.jobs()).map(({ state }) => state)).toEqual(["cancelled"]);
  });

  test("with all dead ones is pending again as well; one that was sent by a later job is left", async () => {
    rig.receiver.answer("/hook", () => new Response(null, { status: 410 }));
    await rig.ping();
    await rig.workAll();
    await rig.store.run("task.changeWebhook", { ...rig.named, isActive: true });
    await rig.ping();
    await rig.workAll();
    await rig.store.run("task.changeWebhook", { ...rig.named, isActive: true });
    rig.receiver.answer("/hook", () => new Response(null, { status: 204 }));
    const [first] = await rig.deliveries();
    await rig.store.run("task.redeliver", { ...rig.named, deliveryId: first!.id });
    await rig.workAll();
    expect((await rig.deliveries()).map(({ state }) => state)).toEqual(["done", "dead"]);
    rig.skewMs += SECOND_MS;
    expect(await rig.retryDead()).toBe(1);
    expect((await rig.deliveries()).map(({ state }) => state)).toEqual(["done", "pending"]);
    expect(await rig.hook()).toMatchObject({ pending: 1 });
    await rig.workAll();
    expect((await rig.deliveries()).map(({ state }) => state)).toEqual(["done", "done"]);
    expect(await rig.hook()).toMatchObject({ pending: 0 });
  });

  test("is refused where it would be the thousandth that waits: its hook stays in use", async () => {
    await rig.ping();
    await rig.cancelJob(await jobId());
    await rig.setCount("pending", 999);
    expect(await refusalFrom(rig.retryJob(await jobId()))).toBe("state_conflict");
    expect(await rig.hook()).toMatchObject({ active: 1, pending: 999 });
    expect((await rig.jobs())[0]).toMatchObject({ state: "cancelled" });
    await rig.setCount("pending", 998);
    await rig.retryJob(await jobId());
    expect(await rig.hook()).toMatchObject({ active: 1, pending: 999 });
  });

  test("with all dead ones goes no further than its hook stands", async () => {
    rig.receiver.answer("/hook", () => new Response(null, { status: 410 }));
    for (let count = 0; count < 2; count++) {
      await rig.ping();
      await rig.workAll();
      await rig.store.run("task.changeWebhook", { ...rig.named, isActive: true });
    }
    await rig.setCount("pending", 998);
    rig.skewMs += SECOND_MS;
    expect(await rig.retryDead()).toBe(1);
    expect(await rig.hook()).toMatchObject({ active: 1, pending: 999 });
    expect((await rig.deliveries()).map(({ state }) => state)).toEqual(["pending", "dead"]);
  });
});

test("a delivery is sent again through its own hook alone, also when the other is of the same user", async () => {
  await rig.ping();
  await rig.workAll();
  const deliveryId = (await rig.deliveries())[0]!.id;
  const { userId } = rig.named;
  const other = { id: Bun.randomUUIDv7(), userId };
  const url = rig.receiver.url("/other");
  await rig.store.run("task.createWebhook", { ...other, url, events: ["task.created"], secret: "sealed" });
  const refused = await rig.store.run("task.redeliver", { ...other, deliveryId }).catch(({ code }) => code);
  expect(refused).toBe("not_found");
  await rig.workAll();
  expect(rig.receiver.seen).toHaveLength(1);
  expect(await rig.deliveries()).toMatchObject([{ state: "done", attempts: 1 }]);
});

describe("a reply", () => {
  test("is read to 4 KiB and kept to 1 KiB, even if it never ends; its status counts", async () => {
    const endless = new ReadableStream({
      pull(controller) {
        controller.enqueue(new TextEncoder().encode("é".repeat(512)));
      },
    });
    rig.receiver.answer("/hook", () => new Response(endless));
    await rig.ping();
    await rig.workAll();
    const [delivery] = await rig.deliveries();
    expect(delivery).toMatchObject({ state: "done", last_status: 200, response_excerpt: "é".repeat(512) });
  });

  test("that stays away behind its beginning is not waited for: that is kept, and the connection ends", async () => {
    const closed = Promise.withResolvers<void>();
    rig.receiver.answer("/hook", () => {
      const body = new ReadableStream({
        start: (controller) => controller.enqueue(new TextEncoder().encode("well, ")),
        cancel: () => closed.resolve(),
      });
      return new Response(body);
    });
    await rig.ping();
    await rig.workAll();
    expect((await rig.deliveries())[0]).toMatchObject({ state: "done", last_status: 200, response_excerpt: "well, " });
    await closed.promise;
  });

  test("that leads elsewhere is a failure and is not followed", async () => {
    rig.receiver.answer("/hook", () => Response.redirect(rig.receiver.url("/elsewhere"), 307));
    await rig.ping();
    await rig.workAll();
    expect((await rig.deliveries())[0]).toMatchObject({ state: "pending", last_status: 307 });
    expect(rig.receiver.at("/elsewhere")).toEqual([]);
  });
});

describe("a hook", () => {
  test("signs with both secrets for a day after a rotation, then with the new one alone", async () => {
    const fresh = await rig.rotate();
    const accepted = async () => {
      await rig.ping();
      await rig.workAll();
      const { headers, body } = rig.receiver.seen.at(-1)!;
      return [rig.secret, fresh].map((secret) => isAccepted({ headers, body }, secret, rig.nowMs));
    };
    expect(await accepted()).toEqual([true, true]);
    rig.skewMs = 23 * HOUR_MS;
    expect(await accepted()).toEqual([true, true]);
    rig.skewMs = 24 * HOUR_MS;
    expect(await accepted()).toEqual([false, true]);
  });

  test("signs with each secret for a day after it was replaced, however soon the next ones were", async () => {
    const accepted = async (secrets: readonly string[]) => {
      await rig.ping();
      await rig.workAll();
      const { headers, body } = rig.receiver.seen.at(-1)!;
      return secrets.map((secret) => isAccepted({ headers, body }, secret, rig.nowMs));
    };
    const second = await rig.rotate();
    rig.skewMs = HOUR_MS;
    const third = await rig.rotate();
    expect(await accepted([rig.secret, second, third])).toEqual([true, true, true]);
    rig.skewMs = 24 * HOUR_MS;
    expect(await accepted([rig.secret, second, third])).toEqual([false, true, true]);
    rig.skewMs = 25 * HOUR_MS;
    expect(await accepted([rig.secret, second, third])).toEqual([false, false, true]);
  });

  test("signs with no more than the last five secrets beside the one it has", async () => {
    const secrets = [rig.secret];
    for (let count = 0; count < 6; count++) secrets.push(await rig.rotate());
    await rig.ping();
    await rig.workAll();
    const { headers, body } = rig.receiver.seen.at(-1)!;
    expect(secrets.map((secret) => isAccepted({ headers, body }, secret, rig.nowMs))).toEqual([
      false,
      ...Array.from({ length: 6 }, () => true),
    ]);
  });

  test("that is switched off or deleted gives up what waits, and is sent nothing any more", async () => {
    rig.receiver.answer("/hook", fail);
    await rig.ping();
    await rig.workAll();
    await rig.ping();
    const [running] = await rig.claim();
    await rig.store.run("task.changeWebhook", { ...rig.named, isActive: false });
    await rig.work(running!);
    rig.skewMs += HOUR_MS;
    await rig.workAll();
    expect(rig.receiver.seen).toHaveLength(1);
    const gaveUp = { state: "dead", last_error: "the webhook was switched off" };
    expect(await rig.deliveries()).toMatchObject([gaveUp, gaveUp]);
    expect((await rig.jobs()).map(({ state }) => state)).toEqual(["cancelled", "cancelled"]);
    expect(await rig.hook()).toMatchObject({ active: 0, disabled_reason: null, pending: 0, failures: 0 });
    await rig.store.run("task.changeWebhook", { ...rig.named, isActive: true });
    await rig.ping();
    const [late] = await rig.claim();
    await rig.store.run("task.deleteWebhook", rig.named);
    await rig.work(late!);
    expect(await rig.hook()).toBeUndefined();
    expect(rig.receiver.seen).toHaveLength(1);
    expect((await rig.deliveries()).at(-1)).toMatchObject({ state: "dead", last_error: "the webhook was deleted" });
  });

  test("begins without failures when it is switched on again, not when it was on all the time", async () => {
    await rig.setCount("failures", 49);
    await rig.store.run("task.changeWebhook", { ...rig.named, isActive: true });
    expect(await rig.hook()).toMatchObject({ active: 1, failures: 49 });
    await rig.store.run("task.changeWebhook", { ...rig.named, isActive: false });
    await rig.store.run("task.changeWebhook", { ...rig.named, isActive: true });
    expect(await rig.hook()).toMatchObject({ active: 1, failures: 0 });
  });

  test("gives up what waits when the account of its user is deleted", async () => {
    await rig.ping();
    const [running] = await rig.claim();
    await rig.ping();
    await rig.store.run("task.deleteUser", { userId: rig.named.userId, expectedHash: null, nowMs: rig.nowMs });
    expect(await rig.hook()).toBeUndefined();
    const gaveUp = { state: "dead", last_error: "the account was deleted" };
    expect(await rig.deliveries()).toMatchObject([gaveUp, gaveUp]);
    const jobs = (await rig.jobs()).map(({ state, cancel_requested }) => [state, cancel_requested]);
    expect(jobs).toEqual([
      ["running", 1],
      ["cancelled", 0],
    ]);
    await rig.work(running!);
    await rig.workAll();
    expect(rig.receiver.seen).toEqual([]);
  });

  test("that is switched on again has its delivery sent anew, however late the run of before ends", async () => {
    await rig.ping();
    const [late] = await rig.claim();
    await rig.store.run("task.changeWebhook", { ...rig.named, isActive: false });
    await rig.store.run("task.changeWebhook", { ...rig.named, isActive: true });
    const [given] = await rig.deliveries();
    await rig.store.run("task.redeliver", { ...rig.named, deliveryId: given!.id });
    const waiting = { state: "pending", attempts: 0, finished_at_ms: null };
    await rig.work(late!);
    expect(await rig.deliveries()).toMatchObject([waiting]);
    expect(await rig.hook()).toMatchObject({ active: 1, pending: 1 });
    await rig.workAll();
    expect(await rig.deliveries()).toMatchObject([{ state: "done", attempts: 1, last_status: 204 }]);
    expect(await rig.hook()).toMatchObject({ active: 1, pending: 0, failures: 0 });
  });

  test("with a thousand waiting deliveries is disabled with a reason, and starts empty when active again", async () => {
    await rig.ping();
    await rig.ping();
    await rig.setCount("pending", 998);
    await rig.ping();
    expect(await rig.hook()).toMatchObject({ active: 1, pending: 999 });
    await rig.ping();
    expect(await rig.hook()).toMatchObject({ active: 0, disabled_reason: "1000 deliveries were waiting", pending: 0 });
    const gaveUp = { state: "dead", last_error: "the webhook was disabled: 1000 deliveries were waiting" };
    expect(await rig.deliveries()).toMatchObject(new Array(4).fill(gaveUp));
    expect(await rig.ping().catch(({ code }) => code)).toBe("state_conflict");
    expect(new Set((await rig.jobs()).map(({ state }) => state))).toEqual(new Set(["cancelled"]));
    await rig.store.run("task.changeWebhook", { ...rig.named, isActive: true });
    await rig.ping();
    await rig.workAll();
    expect(rig.receiver.seen).toHaveLength(1);
    expect(await rig.hook()).toMatchObject({ active: 1, disabled_reason: null, pending: 0 });
  });
});

test("a receiver hears nothing of what waits for it while its user is disabled", async () => {
  rig.receiver.answer("/hook", fail);
  await rig.ping();
  await rig.workAll();
  await rig.setDisabled(true);
  rig.skewMs += HOUR_MS;
  await rig.workAll();
  expect(rig.receiver.seen).toHaveLength(1);
  expect(await rig.deliveries()).toMatchObject([{ state: "dead", attempts: 1, last_error: "the account is disabled" }]);
  expect(await rig.hook()).toMatchObject({ active: 1, failures: 0, pending: 0 });
  await rig.setDisabled(false);
  rig.receiver.answer("/hook", () => new Response(null, { status: 204 }));
  await rig.ping();
  await rig.workAll();
  expect((await rig.deliveries()).map(({ state }) => state)).toEqual(["dead", "done"]);
});

test("a name that turns private after the hook was made is dialled no more", async () => {
  await using named = await WebhookRig.open("http://receiver.example:{port}/hook");
  named.names["receiver.example"] = ["127.0.0.1"];
  await named.ping();
  await named.workAll();
  expect(named.receiver.seen[0]!.headers.host).toStartWith("receiver.example:");
  for (const turned of [["10.0.0.7"], ["127.0.0.1", "169.254.169.254"], ["::ffff:10.0.0.7"]]) {
    named.names["receiver.example"] = turned;
    named.skewMs += 60 * SECOND_MS;
    await named.ping();
    await named.workAll();
    const refused = { state: "pending", last_error: "the URL leads to an address that is not allowed" };
    expect((await named.deliveries()).at(-1)).toMatchObject(refused);
  }
  expect(named.receiver.seen).toHaveLength(1);
});

test("deliveries are removed when they ended long enough ago, and none before", async () => {
  await rig.ping();
  await rig.workAll();
  rig.receiver.answer("/hook", () => new Response(null, { status: 410 }));
  await rig.ping();
  await rig.workAll();
  const purge = async (doneBeforeMs: number, deadBeforeMs: number) =>
    (await rig.store.run("task.purgeDeliveries", { doneBeforeMs, deadBeforeMs, limit: 10 })).value;
  const states = async () => (await rig.deliveries()).map(({ state }) => state);
  const later = Date.now() + HOUR_MS;
  expect([await purge(0, 0), await states()]).toEqual([0, ["done", "dead"]]);
  expect([await purge(later, 0), await states()]).toEqual([1, ["dead"]]);
  expect([await purge(later, later), await states()]).toEqual([1, []]);
});

describe("the body of an event", () => {
  const LONG = "\u0001".repeat(20_000);

  test("is kept once for all hooks that are told of it, until the last of their deliveries is removed", async () => {
    await rig.addHooks(9);
    await rig.createTask(LONG);
    expect(await rig.deliveries()).toHaveLength(10);
    expect((await rig.messages()).map(({ body }) => body.length)).toEqual([expect.any(Number)]);
    await rig.workAll();
    const [first, ...others] = rig.receiver.seen.map(({ body }) => body);
    expect([others.length, new Set([first, ...others]).size]).toEqual([9, 1]);
    expect(JSON.parse(first!)).toMatchObject({ type: "task.created", data: { task: { description: LONG } } });
    const purge = (limit: number) =>
      rig.store.run("task.purgeDeliveries", { doneBeforeMs: rig.nowMs + HOUR_MS, deadBeforeMs: 0, limit });
    await purge(9);
    expect([await rig.deliveries(), await rig.messages()].map(({ length }) => length)).toEqual([1, 1]);
    await purge(9);
    expect([await rig.deliveries(), await rig.messages()].map(({ length }) => length)).toEqual([0, 0]);
  });

  test("is not written anew when what waits is given up", async () => {
    const bodies = await rig.loggedBytes(async () => {
      for (let count = 0; count < 20; count++) await rig.createTask(LONG);
    });
    expect(bodies).toBeGreaterThan(20 * LONG.length * 6);
    const endings = await rig.loggedBytes(() => rig.store.run("task.changeWebhook", { ...rig.named, isActive: false }));
    expect(endings).toBeLessThan(bodies / 10);
    expect((await rig.deliveries()).map(({ state }) => state)).toEqual(new Array(20).fill("dead"));
  });

  test("is read from the row of a delivery that has it there, as it was kept before", async () => {
    await rig.createTask("old");
    await rig.keepBodiesInRows();
    expect(await rig.messages()).toEqual([]);
    await rig.workAll();
    expect(JSON.parse(rig.receiver.seen[0]!.body)).toMatchObject({ data: { task: { description: "old" } } });
    expect((await rig.deliveries()).map(({ state }) => state)).toEqual(["done"]);
  });
});
