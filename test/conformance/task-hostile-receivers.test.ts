// Receivers that hold what is sent to them for as long as they can: the hooks of everybody else do not feel it.

import { expect, setDefaultTimeout, test } from "bun:test";
import { eventually } from "../support/eventually.ts";
import { expectTime } from "../support/figures-in-bounds.ts";
import { report } from "../support/run-size.ts";
import { openInProcess, type Target } from "../support/targets.ts";
import { send, sendOk } from "../support/task-answers.ts";
import { type Account, signUp, UNLIMITED } from "../support/task-client.ts";
import { neverAnswer, WebhookReceiver } from "../support/webhook-receiver.ts";

setDefaultTimeout(120_000);

/** Long beside what a delivery may be late. */
const WEBHOOK_TIMEOUT = "20s";
const PINGS = 12;
const SOON_MS = 5_000;

type Way = "never answers" | "answers once, then never" | "says 200 and never ends its reply";
const WAYS: readonly Way[] = ["never answers", "answers once, then never", "says 200 and never ends its reply"];

/** A server, a receiver, and who has hooks there. */
class Stage implements AsyncDisposable {
  readonly receiver = new WebhookReceiver();
  readonly #target: Target;

  private constructor(target: Target) {
    this.#target = target;
  }

  static async open(): Promise<Stage> {
    return new Stage(await openInProcess({ ...UNLIMITED, WEBHOOK_ALLOW_CIDRS: "127.0.0.1/32", WEBHOOK_TIMEOUT }));
  }

  user(): Promise<Account> {
    return signUp(this.#target);
  }

  /** Its id. */
  async hook(of: Account, path: string): Promise<string> {
    const hook = { url: this.receiver.url(path), events: ["task.created"] };
    const { status, body } = await send<{ id: string }>(this.#target, of, "POST", "/webhooks", hook);
    expect(status).toBe(201);
    return body.id;
  }

  async ping(of: Account, id: string): Promise<void> {
    expect((await send(this.#target, of, "POST", `/webhooks/${id}/ping`)).status).toBeLessThan(300);
  }

  /** Once the attempts of its deliveries are told. */
  async tried(of: Account, id: string): Promise<void> {
    await eventually("the attempt is in the log", SOON_MS, async () => {
      const log = await sendOk<{ attempts: number }[]>(this.#target, of, "GET", `/webhooks/${id}/deliveries`);
      return log.every(({ attempts }) => attempts > 0);
    });
  }

  async arrived(path: string, count: number): Promise<void> {
    await eventually(`${count} deliveries at ${path}`, SOON_MS, () => this.receiver.at(path).length >= count);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.receiver[Symbol.asyncDispose]();
    await this.#target[Symbol.asyncDispose]();
  }
}

/** Two hooks of each way, more deliveries than they will take, and all that can run does. */
async function besiege(stage: Stage, ways: readonly Way[], name: string): Promise<void> {
  const account = await stage.user();
  const hooks: string[] = [];
  for (const [index, way] of [...ways, ...ways].entries()) {
    const path = `/${name}-${index}`;
    const id = await stage.hook(account, path);
    hooks.push(id);
    if (way === "says 200 and never ends its reply") stage.receiver.answer(path, unended);
    if (way !== "never answers") {
      await stage.ping(account, id);
      await stage.tried(account, id);
    }
    if (way !== "says 200 and never ends its reply") stage.receiver.answer(path, neverAnswer);
  }
  for (let pings = 0; pings < PINGS; pings++) for (const id of hooks) await stage.ping(account, id);
}

function unended(): Response {
  const start = (controller: ReadableStreamDefaultController) => controller.enqueue(new TextEncoder().encode("ok"));
  return new Response(new ReadableStream({ start }));
}

const SIEGES: [number, readonly Way[]][] = [
  [1, ["never answers"]],
  [1, WAYS],
  [2, WAYS],
  ...WAYS.map((way): [number, Way[]] => [2, [way]]),
];

test.each(SIEGES)("receivers of %d hostile accounts delay no hook of another: %j", async (accounts, ways) => {
  await using stage = await Stage.open();
  const victim = await stage.user();
  const [proven, flaky] = [await stage.hook(victim, "/proven"), await stage.hook(victim, "/flaky")];
  for (const id of [proven, flaky]) await stage.ping(victim, id);
  for (const id of [proven, flaky]) await stage.tried(victim, id);
  for (let account = 0; account < accounts; account++) await besiege(stage, ways, `hostile-${account}`);
  // One of their own is away too.
  stage.receiver.answer("/dead", neverAnswer);
  const dead = await stage.hook(victim, "/dead");
  for (let pings = 0; pings < PINGS; pings++) await stage.ping(victim, dead);
  await stage.arrived("/dead", 1);
  // Behind the backlog, as one that fails for the first time in the middle of it.
  stage.receiver.answer("/flaky", () => new Response(null, { status: 500 }));
  await stage.ping(victim, flaky);
  await stage.tried(victim, flaky);
  stage.receiver.answer("/flaky", () => new Response(null, { status: 204 }));
  const fresh = await stage.hook(victim, "/fresh");
  const startedMs = performance.now();
  const late = [
    [proven, "/proven", 2],
    [fresh, "/fresh", 1],
    [flaky, "/flaky", 3],
  ] as const;
  for (const [id] of late) await stage.ping(victim, id);
  for (const [, path, count] of late) {
    await stage.arrived(path, count);
    const delayMs = performance.now() - startedMs;
    report(`${path} beside ${accounts} hostile accounts: ${Math.round(delayMs)} ms`);
    expectTime(`a delivery to ${path}`, delayMs, 1_000);
  }
});
