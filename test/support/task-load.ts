// Users who make, change, comment and delete tasks without pause and remember what they were told, so that afterwards
// the store can be held to it.

import { type Random, randomFrom } from "./seeded-random.ts";
import type { Target } from "./targets.ts";
import { type Account, ask, type Task } from "./task-client.ts";

type Asked = Pick<Target, "fetch">;

/** An answered change: the event of this version of the task says this title. */
export interface AnsweredChange {
  readonly taskId: number;
  readonly version: number;
  readonly title: string;
}

/** One user's connection: a change at a time. */
interface Lane {
  readonly account: Account;
  readonly random: Random;
  /** Versions of tasks that are there, by id, as they were last answered; null after a change without an answer. */
  readonly tasks: Map<number, number | null>;
  /** Creations that were not answered: sent again with the same key, they are done once. */
  readonly open: Map<string, Record<string, unknown>>;
}

/** Beyond what any run lasts: its jobs stay as they were queued. */
const FAR_MS = Date.UTC(2090, 0, 1);

export class TaskLoad {
  readonly changes: AnsweredChange[] = [];
  readonly deletedIds: number[] = [];
  readonly commentIds: number[] = [];
  /** Answers that no change should get. */
  readonly unexpected: string[] = [];
  /** Creations that were sent once more after a kill. */
  repeated = 0;
  readonly #lanes: readonly Lane[];
  #marks = 0;

  /** Each account has several connections; tasks are assigned among the accounts. */
  constructor(random: Random, accounts: readonly Account[], lanesEach: number) {
    this.#lanes = accounts.flatMap((account) =>
      Array.from({ length: lanesEach }, () => ({
        account,
        random: randomFrom(random.below(2 ** 32)),
        tasks: new Map(),
        open: new Map(),
      })),
    );
  }

  get answered(): number {
    return this.changes.length + this.deletedIds.length + this.commentIds.length;
  }

  /** Until, for each connection, an answer is missing. */
  async run(target: Asked): Promise<void> {
    const work = async (lane: Lane) => {
      while (await this.#change(target, lane)) {}
    };
    await Promise.all(this.#lanes.map(work));
  }

  /** Sends once more what was not answered. */
  async repeat(target: Asked): Promise<void> {
    for (const lane of this.#lanes) {
      for (const [key, body] of [...lane.open]) {
        this.repeated++;
        if (!(await this.#create(target, lane, key, body))) this.unexpected.push(`no answer to ${key}`);
      }
    }
  }

  #change(target: Asked, lane: Lane): Promise<boolean> {
    const { random, tasks } = lane;
    if (tasks.size < 3 || random.chance(0.3))
      return this.#create(target, lane, `key ${this.#marks}`, this.#fields(lane));
    const id = random.pick([...tasks.keys()]);
    if (random.chance(0.15)) return this.#delete(target, lane, id);
    return random.chance(0.25) ? this.#comment(target, lane, id) : this.#patch(target, lane, id);
  }

  async #create(target: Asked, lane: Lane, key: string, body: Record<string, unknown>): Promise<boolean> {
    lane.open.set(key, body);
    const made = await this.#send<Task>(target, lane, "POST", "/tasks", body, { "Idempotency-Key": key });
    if (made === null) return false;
    lane.open.delete(key);
    lane.tasks.set(made.id, made.version);
    this.changes.push({ taskId: made.id, version: made.version, title: made.title });
    return true;
  }

  async #patch(target: Asked, lane: Lane, id: number): Promise<boolean> {
    const version = lane.tasks.get(id) ?? null;
    lane.tasks.set(id, null);
    const headers: Record<string, string> = version === null ? {} : { "If-Match": `"v${version}"` };
    const patched = await this.#send<Task>(target, lane, "PATCH", `/tasks/${id}`, this.#fields(lane), headers);
    if (patched === null) return false;
    lane.tasks.set(id, patched.version);
    this.changes.push({ taskId: id, version: patched.version, title: patched.title });
    return true;
  }

  async #comment(target: Asked, lane: Lane, id: number): Promise<boolean> {
    const made = await this.#send<{ id: number }>(target, lane, "POST", `/tasks/${id}/comments`, { body: "a comment" });
    if (made !== null) this.commentIds.push(made.id);
    return made !== null;
  }

  /** Whether it was done is not known without an answer: nothing is asked of the task any more. */
  async #delete(target: Asked, lane: Lane, id: number): Promise<boolean> {
    lane.tasks.delete(id);
    const isDone = (await this.#send(target, lane, "DELETE", `/tasks/${id}`)) !== null;
    if (isDone) this.deletedIds.push(id);
    return isDone;
  }

  /** A title that nothing else has, and some of the other members. */
  #fields({ random }: Lane): Record<string, unknown> {
    const mark = ++this.#marks;
    const people = this.#lanes.map(({ account }) => account.id);
    return {
      title: `mark ${mark}`,
      ...(random.chance(0.5) ? { remind_at: new Date(FAR_MS + mark).toISOString() } : {}),
      ...(random.chance(0.3) ? { due_date: new Date(FAR_MS + random.below(1e9)).toISOString() } : {}),
      ...(random.chance(0.3) ? { labels: [`label ${random.below(5)}`, "all"] } : {}),
      ...(random.chance(0.2) ? { assignee_id: random.pick(people) } : {}),
    };
  }

  /** Null without an answer. */
  async #send<T>(
    target: Asked,
    { account }: Lane,
    method: string,
    path: string,
    body?: unknown,
    headers: Record<string, string> = {},
  ): Promise<T | null> {
    try {
      const answer = await ask(target, method, path, { token: account.token, body, headers });
      const text = await answer.text();
      if (answer.ok) return JSON.parse(text) as T;
      this.unexpected.push(`${method} ${path}: ${answer.status} ${text}`);
      return null;
    } catch {
      return null;
    }
  }
}
