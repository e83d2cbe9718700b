// Webhooks through the API: who is told what, signed how; what is refused, retried, given up.

import { afterAll, beforeAll, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { eventually } from "../support/eventually.ts";
import { expectTime } from "../support/figures-in-bounds.ts";
import { report } from "../support/run-size.ts";
import type { OpenTarget } from "../support/targets.ts";
import { refusalBy } from "../support/task-answers.ts";
import { type Account, ask, createTask, logIn, signUp, UNLIMITED } from "../support/task-client.ts";
import { useTarget } from "../support/use-target.ts";
import { isAccepted, neverAnswer, type SeenDelivery, WebhookReceiver } from "../support/webhook-receiver.ts";

const TIMEOUT_MS = 400;
const ARRIVES_MS = 5_000;
const ALL_TYPES = [
  "task.created",
  "task.updated",
  "task.assigned",
  "task.deleted",
  "task.restored",
  "task.reminder",
  "task.overdue",
  "task.gone",
  "comment.created",
  "comment.deleted",
];

const REFUSED_URLS = [
  "http://localhost:1",
  "https://localhost",
  "http://sub.localhost/",
  "http://127.0.0.1:8080",
  "http://127.1",
  "http://2130706433/",
  "http://0177.0.0.1",
  "http://0x7f.0.0.1",
  "http://[::1]/",
  "http://[::ffff:127.0.0.1]",
  "http://10.0.0.1",
  "http://10.0.0.1.",
  "https://10.255.255.255/x",
  "http://167772161",
  "http://172.16.0.1",
  "http://169.254.169.254/latest",
  "http://[::ffff:a9fe:a9fe]/",
  "http://192.168.1.1",
  "http://100.64.0.1",
  "http://[fd00::1]",
  "http://[fe80::1]",
  "http://224.0.0.1",
  "http://0.0.0.0",
  "http://[64:ff9b::a00:1]",
  "http://user@1.1.1.1",
  "ftp://1.1.1.1",
  "1.1.1.1",
  "http://1.1.1.1/#x",
  "http://1.1.1.1/\\x",
  "http:///",
] as const;

interface Hook {
  readonly id: string;
  readonly url: string;
  readonly events: readonly string[];
  readonly active: boolean;
  readonly disabled_reason: string | null;
  readonly pending: number;
  readonly secret: string;
}

interface Delivery {
  readonly id: string;
  readonly event_type: string;
  readonly state: string;
  readonly attempts: number;
  readonly last_status: number | null;
  readonly last_error: string | null;
  readonly response_excerpt: string | null;
}

export function taskWebhooksSuite(name: string, open: OpenTarget): void {
  setDefaultTimeout(120_000);
  describe(`webhooks: ${name}`, () => {
    const target = useTarget(open, {
      ...UNLIMITED,
      WEBHOOK_ALLOW_CIDRS: "127.0.0.1/32",
      WEBHOOK_TIMEOUT: `${TIMEOUT_MS}ms`,
    });
    let receiver: WebhookReceiver;
    let account: Account;
    let paths = 0;
    beforeAll(() => {
      receiver = new WebhookReceiver();
    });
    afterAll(() => receiver[Symbol.asyncDispose]());
    beforeEach(async () => {
      account = await signUp(target());
    });

    const as = (who: Account, method: string, path: string, body?: unknown): Promise<Response> =>
      ask(target(), method, path, { token: who.token, ...(body === undefined ? {} : { body }) });
    const read = async <T>(who: Account, path: string): Promise<T> => (await (await as(who, "GET", path)).json()) as T;
    const freshPath = () => `/hook-${++paths}`;
    const hookAt = async (path: string, events: readonly string[] = ["task.created"], who = account): Promise<Hook> => {
      const answer = await as(who, "POST", "/webhooks", { url: receiver.url(path), events });
      expect(answer.status).toBe(201);
      return (await answer.json()) as Hook;
    };
    const arrived = async (path: string, count: number): Promise<SeenDelivery[]> => {
      await eventually(`${count} deliveries at ${path}`, ARRIVES_MS, () => receiver.at(path).length >= count);
      return receiver.at(path);
    };
    const deliveries = (hook: Hook) => read<Delivery[]>(account, `/webhooks/${hook.id}/deliveries`);
    /** The only delivery of a hook, once it was tried so often. */
    const triedDelivery = async (hook: Hook, attempts = 1): Promise<Delivery> => {
      await eventually("the attempt is in the log", ARRIVES_MS, async () => {
        return (await deliveries(hook))[0]?.attempts === attempts;
      });
      return (await deliveries(hook))[0]!;
    };

    test("every delivery is accepted by whoever verifies it, and a changed byte by nobody", async () => {
      const path = freshPath();
      const hook = await hookAt(path, ALL_TYPES);
      const task = await createTask(target(), account, { title: "完成 ✅", labels: ["docs"] });
      await as(account, "PATCH", `/tasks/${task.id}`, { status: "completed" });
      await as(account, "POST", `/tasks/${task.id}/comments`, { body: "well done" });
      await as(account, "DELETE", `/tasks/${task.id}`);
      await as(account, "POST", `/tasks/${task.id}/restore`);
      const seen = await arrived(path, 5);
      const order = ["task.created", "task.updated", "comment.created", "task.deleted", "task.restored"];
      expect(new Set(seen.map(({ json }) => json.type))).toEqual(new Set(order));
      expect(new Set(seen.map(({ headers }) => headers["webhook-id"])).size).toBe(5);
      for (const delivery of seen) {
        expect(isAccepted(delivery, hook.secret)).toBe(true);
        expect(isAccepted({ ...delivery, body: delivery.body.replace("{", "{ ") }, hook.secret)).toBe(false);
        expect(delivery.headers["content-type"]).toBe("application/json");
      }
      const created = seen.find(({ json }) => json.type === "task.created")!.json;
      expect(created.data).toMatchObject({ task, actor_id: account.id });
      const updated = seen.find(({ json }) => json.type === "task.updated")!.json;
      expect(updated.data.changes).toMatchObject({ status: ["pending", "completed"] });
      expect(Math.abs(Date.now() - Date.parse(updated.timestamp))).toBeLessThan(60_000);
      await eventually("all of them are noted", ARRIVES_MS, async () => {
        return (await deliveries(hook)).every(({ state }) => state === "done");
      });
      expect((await read<Hook>(account, `/webhooks/${hook.id}`)).pending).toBe(0);
    });

    test("a hook hears of the events it wants; whoever loses sight of a task learns its id and no more", async () => {
      const friend = await signUp(target());
      const [mine, theirs, narrow] = [freshPath(), freshPath(), freshPath()];
      await hookAt(mine, ALL_TYPES);
      await hookAt(theirs, ALL_TYPES, friend);
      await hookAt(narrow, ["task.deleted"], friend);
      const task = await createTask(target(), account, { title: "secret", assignee_id: friend.id });
      await as(account, "PATCH", `/tasks/${task.id}`, { assignee_id: null });
      await as(account, "PATCH", `/tasks/${task.id}`, { title: "more secret", assignee_id: friend.id });
      await as(account, "DELETE", `/tasks/${task.id}`);
      await arrived(mine, 4);
      const told = await arrived(theirs, 4);
      const gone = told.filter(({ json }) => json.type === "task.gone");
      expect(gone.map(({ json }) => json.data)).toEqual(
        new Array(2).fill({ task: { id: task.id }, changes: {}, actor_id: null }),
      );
      expect(receiver.at(mine).map(({ json }) => json.type)).not.toContain("task.gone");
      // It would have come with the last ones.
      expect(receiver.at(narrow)).toEqual([]);
    });

    test("a disabled user and a deleted account are told nothing", async () => {
      const friend = await signUp(target());
      const [mine, theirs] = [freshPath(), freshPath()];
      await hookAt(mine, ALL_TYPES);
      await hookAt(theirs, ALL_TYPES, friend);
      const task = await createTask(target(), account, { assignee_id: friend.id });
      await arrived(mine, 1);
      const disable = (disabled: boolean) =>
        target().fetch(`/_admin/task/users/${account.id}`, { method: "PATCH", body: JSON.stringify({ disabled }) });
      expect((await disable(true)).status).toBe(200);
      expect((await as(friend, "PATCH", `/tasks/${task.id}`, { status: "completed" })).status).toBe(200);
      await arrived(theirs, 2);
      expect((await disable(false)).status).toBe(200);
      const again = await logIn(target(), account.email, account.password);
      const ended = await as(again, "DELETE", "/auth/me", { current_password: account.password });
      expect(ended.status).toBe(200);
      const last = (await arrived(theirs, 3)).at(-1)!;
      expect(last.json).toMatchObject({ type: "task.gone", data: { task: { id: task.id } } });
      expect(receiver.at(mine).map(({ json }) => json.type)).toEqual(["task.created"]);
    });

    test("during a rotation both secrets verify", async () => {
      const path = freshPath();
      const hook = await hookAt(path);
      const answer = await as(account, "POST", `/webhooks/${hook.id}/rotate-secret`);
      expect(answer.status).toBe(200);
      const { secret } = (await answer.json()) as Hook;
      expect(secret).not.toBe(hook.secret);
      const pinged = await as(account, "POST", `/webhooks/${hook.id}/ping`);
      const { id } = (await pinged.json()) as Delivery;
      const [delivery] = await arrived(path, 1);
      expect(delivery!.json).toMatchObject({ type: "webhook.ping", data: {} });
      expect([pinged.status, delivery!.headers["webhook-id"]]).toEqual([202, id]);
      expect([hook.secret, secret].map((one) => isAccepted(delivery!, one))).toEqual([true, true]);
      expect(delivery!.headers["webhook-signature"]!.split(" ")).toHaveLength(2);
    });

    test("an error, a timeout and a redirect are retried and logged; redelivery repeats id and body", async () => {
      const answers = {
        error: () => new Response("out of order", { status: 500 }),
        silence: neverAnswer,
        redirect: () => Response.redirect(receiver.url("/elsewhere"), 302),
      };
      const logged = {
        error: { last_status: 500, last_error: "the receiver answered 500", response_excerpt: "out of order" },
        silence: { last_status: null, last_error: `no answer within ${TIMEOUT_MS} ms`, response_excerpt: null },
        redirect: { last_status: 302, last_error: "the receiver answered 302" },
      };
      for (const kind of ["error", "silence", "redirect"] as const) {
        const path = freshPath();
        receiver.answer(path, answers[kind]);
        const hook = await hookAt(path);
        await createTask(target(), account);
        const delivery = await triedDelivery(hook);
        expect(delivery).toMatchObject({ ...logged[kind], state: "pending", event_type: "task.created" });
        const jobs = await read<{ state: string; attempts: number; run_at: string }[]>(
          account,
          "/jobs?kind=webhook.deliver&state=ready",
        );
        expect(jobs).toMatchObject([{ attempts: 1, max_attempts: 8 }]);
        expect(Date.parse(jobs[0]!.run_at)).toBeGreaterThan(Date.now() + 1_000);
        receiver.answer(path, () => new Response(null, { status: 200 }));
        const again = await as(account, "POST", `/webhooks/${hook.id}/deliveries/${delivery.id}/redeliver`);
        expect([again.status, await again.json()]).toEqual([202, { id: delivery.id }]);
        expect(await triedDelivery(hook, 2)).toMatchObject({ id: delivery.id, state: "done", last_status: 200 });
        const [first, second] = receiver.at(path);
        expect([second!.body, second!.headers["webhook-id"]]).toEqual([first!.body, delivery.id]);
        expect((await as(account, "DELETE", `/webhooks/${hook.id}`)).status).toBe(200);
      }
      expect(receiver.at("/elsewhere")).toEqual([]);
    });

    test("410 disables a hook with a reason, until its owner makes it active again", async () => {
      const path = freshPath();
      receiver.answer(path, () => new Response(null, { status: 410 }));
      const hook = await hookAt(path);
      await createTask(target(), account);
      expect(await triedDelivery(hook)).toMatchObject({ state: "dead", last_status: 410 });
      const disabled = { active: false, disabled_reason: "the receiver answered 410 Gone" };
      expect(await read<Hook>(account, `/webhooks/${hook.id}`)).toMatchObject(disabled);
      await createTask(target(), account);
      expect((await as(account, "POST", `/webhooks/${hook.id}/ping`)).status).toBe(409);
      expect(await deliveries(hook)).toHaveLength(1);
      receiver.answer(path, () => new Response(null, { status: 204 }));
      const healed = await as(account, "PATCH", `/webhooks/${hook.id}`, { active: true });
      expect((await healed.json()) as Hook).toMatchObject({ active: true, disabled_reason: null });
      await createTask(target(), account);
      expect(await arrived(path, 2)).toHaveLength(2);
    });

    test("a receiver that never answers delays no other hook", async () => {
      const [silent, quick] = [freshPath(), freshPath()];
      receiver.answer(silent, neverAnswer);
      await hookAt(silent);
      const friend = await signUp(target());
      await hookAt(quick, ["task.created"], friend);
      for (let index = 0; index < 20; index++) await createTask(target(), account);
      await arrived(silent, 2);
      const startedMs = performance.now();
      await createTask(target(), friend);
      await arrived(quick, 1);
      const delayMs = performance.now() - startedMs;
      report(`a delivery beside a receiver that never answers: ${Math.round(delayMs)} ms`);
      expectTime("a delivery beside a silent receiver", delayMs, 2_000);
    });

    test("receivers of several users that never answer delay no hook that has answered", async () => {
      const [silent, quick] = [freshPath(), freshPath()];
      receiver.answer(silent, neverAnswer);
      const friend = await signUp(target());
      await hookAt(quick, ["task.created"], friend);
      await createTask(target(), friend);
      await arrived(quick, 1);
      const others = await Promise.all(Array.from({ length: 3 }, () => signUp(target())));
      for (const other of others) {
        for (let hooks = 0; hooks < 10; hooks++) await hookAt(silent, ["task.created"], other);
        for (let index = 0; index < 10; index++) await createTask(target(), other);
      }
      await arrived(silent, 2);
      const delaysMs: number[] = [];
      for (let count = 2; count <= 8; count++) {
        const startedMs = performance.now();
        await createTask(target(), friend);
        await arrived(quick, count);
        delaysMs.push(performance.now() - startedMs);
      }
      const slowestMs = Math.max(...delaysMs);
      report(`a delivery beside 30 receivers that never answer: ${Math.round(slowestMs)} ms at most`);
      expectTime("a delivery beside 30 silent receivers", slowestMs, 1_000);
      for (const other of others) {
        for (const { id } of await read<Hook[]>(other, "/webhooks")) await as(other, "DELETE", `/webhooks/${id}`);
      }
    });

    test("is shown without its secret, changed, and deleted by its owner alone", async () => {
      const stranger = await signUp(target());
      const { secret, ...hook } = await hookAt(freshPath(), ["comment.created", "task.created", "task.created"]);
      expect(secret).toMatch(/^whsec_[A-Za-z0-9+/]{43}=$/);
      expect(hook).toMatchObject({ events: ["task.created", "comment.created"], active: true, disabled_reason: null });
      expect(await read<Hook>(account, `/webhooks/${hook.id}`)).toEqual(hook as Hook);
      expect(await read<Hook[]>(account, "/webhooks")).toEqual([hook as Hook]);
      expect(await read<Hook[]>(stranger, "/webhooks")).toEqual([]);
      const url = receiver.url(freshPath());
      const changed = await as(account, "PATCH", `/webhooks/${hook.id}`, { url, active: false });
      expect((await changed.json()) as Hook).toMatchObject({ url, active: false, events: hook.events });
      const unknown = Bun.randomUUIDv7();
      for (const [method, path] of [
        ...(["GET", "PATCH", "DELETE"] as const).map((method) => [method, ""] as const),
        ["POST", "/ping"] as const,
        ["POST", "/rotate-secret"] as const,
        ["GET", "/deliveries"] as const,
        ["POST", `/deliveries/${unknown}/redeliver`] as const,
      ]) {
        const body = method === "PATCH" ? {} : undefined;
        const answers = [
          await as(stranger, method, `/webhooks/${hook.id}${path}`, body),
          await as(account, method, `/webhooks/${unknown}${path}`, body),
          await as(account, method, `/webhooks/1${path}`, body),
        ];
        expect([method, path, ...answers.map(({ status }) => status)]).toEqual([method, path, 404, 404, 404]);
      }
      expect((await as(account, "DELETE", `/webhooks/${hook.id}`)).status).toBe(200);
      expect((await as(account, "GET", `/webhooks/${hook.id}`)).status).toBe(404);
    });

    test("a user has ten hooks, and a malformed one is refused with the field that is wrong", async () => {
      for (const [body, field] of [
        [{ url: receiver.url("/x") }, "events"],
        [{ events: ["task.created"] }, "url"],
        [{ url: receiver.url("/x"), events: [] }, "events"],
        [{ url: receiver.url("/x"), events: ["*"] }, "events[0]"],
        [{ url: 1, events: ["task.created"] }, "url"],
        [{ url: receiver.url("/x"), events: ["task.created"], secret: "mine" }, "secret"],
      ] as const) {
        const answer = await as(account, "POST", "/webhooks", body);
        const refusal = (await answer.json()) as { fields: object };
        expect([body, answer.status, Object.keys(refusal.fields)]).toEqual([body, 400, [field]]);
      }
      const made = await Promise.all(Array.from({ length: 12 }, () => as(account, "POST", "/webhooks", HOOK_BODY())));
      expect(made.map(({ status }) => status).sort()).toEqual([...new Array(10).fill(201), 403, 403]);
      const refused = made.find(({ status }) => status === 403)!;
      expect(((await refused.json()) as { code: string }).code).toBe("quota_exceeded");
      const inside = { ...HOOK_BODY(), url: "http://10.0.0.1/" };
      expect(await refusalBy(target(), account, "POST", "/webhooks", inside)).toBe("403 quota_exceeded");
    });

    test("a body of a webhook or an export is 16 KiB at most", async () => {
      const { id } = await hookAt(freshPath());
      const long = "x".repeat(16 * 1024);
      for (const [method, path, body] of [
        ["POST", "/webhooks", { url: long, events: ["task.created"] }],
        ["PATCH", `/webhooks/${id}`, { url: long }],
        ["POST", "/exports", { format: "csv", filter: { q: long } }],
      ] as const) {
        expect([path, (await as(account, method, path, body)).status]).toEqual([path, 413]);
      }
    });

    test("the log of a hook comes newest first, page by page", async () => {
      const hook = await hookAt(freshPath());
      for (let index = 0; index < 5; index++) await as(account, "POST", `/webhooks/${hook.id}/ping`);
      const path = `/webhooks/${hook.id}/deliveries`;
      const all = (await deliveries(hook)).map(({ id }) => id);
      expect(all).toEqual([...all].sort().reverse());
      const walked: string[] = [];
      for (let query = "?limit=2"; query !== ""; ) {
        const page = await as(account, "GET", path + query);
        walked.push(...((await page.json()) as Delivery[]).map(({ id }) => id));
        const next = page.headers.get("x-next-cursor");
        query = next === null ? "" : `?limit=2&cursor=${next}`;
        if (next !== null) expect(page.headers.get("link")).toBe(`</api/v1${path}${query}>; rel="next"`);
      }
      expect([all.length, walked]).toEqual([5, all]);
      for (const query of ["?limit=0", "?limit=201", "?limit=x", "?cursor=x", "?unknown=1"]) {
        expect([query, (await as(account, "GET", path + query)).status]).toEqual([query, 400]);
      }
    });

    const HOOK_BODY = () => ({ url: receiver.url("/many"), events: ["task.created"] });
  });

  describe(`addresses of webhooks: ${name}`, () => {
    const target = useTarget(open, UNLIMITED);

    test("of this machine and its network are refused in every spelling, for new and for moved hooks", async () => {
      const { token } = await signUp(target());
      const events = ["task.created"];
      const made = await ask(target(), "POST", "/webhooks", {
        token,
        body: { url: "https://1.1.1.1/hook?a=1", events },
      });
      const hook = (await made.json()) as Hook;
      expect([made.status, hook.url]).toEqual([201, "https://1.1.1.1/hook?a=1"]);
      for (const url of REFUSED_URLS) {
        for (const [method, path] of [["POST", "/webhooks"] as const, ["PATCH", `/webhooks/${hook.id}`] as const]) {
          const answer = await ask(target(), method, path, { token, body: { url, events } });
          const body = (await answer.json()) as { code: string; fields: Record<string, string> };
          expect([url, answer.status, body.code]).toEqual([url, 400, "invalid_request"]);
          expect([url, Object.keys(body.fields)]).toEqual([url, ["url"]]);
        }
      }
      const kept = await ask(target(), "GET", `/webhooks/${hook.id}`, { token });
      expect(((await kept.json()) as Hook).url).toBe(hook.url);
    });
  });
}
