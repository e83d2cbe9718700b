// The people of the demo's third act: what they do to their tasks, and what they expect to find.

import type { HookReceiver } from "./hook-receiver.ts";

const STATUSES = ["pending", "in_progress", "completed"] as const;
const PRIORITIES = ["low", "medium", "high"] as const;
const LABELS = ["docs", "license", "中文", "urgent"];
const RETRY_MS = 50;
const PASSWORD = "password123";
/** Of the tasks of each person, how many have their history counted. */
const HISTORIES = 5;
/** Tasks that are changed; each of them a few times, far enough apart not to overlap. */
const TOUCHED = 2_000;

interface Person {
  readonly id: number;
  readonly token: string;
}

interface Expected {
  readonly id: number;
  readonly owner: number;
  title: string;
  description: string;
  status: string;
  priority: string;
  assignee: number | null;
  labels: readonly string[];
  version: number;
  comments: number;
  /** Events that its history must have. */
  events: number;
  isDeleted: boolean;
}

interface Answer {
  readonly status: number;
  readonly body: string;
  readonly headers: Headers;
  /** An earlier try may have been done, though its answer never came. */
  readonly wasRetried: boolean;
}

export class Team {
  /** A promise while there is no server. */
  url: Promise<string>;
  readonly #lines: readonly string[];
  readonly #people: Person[] = [];
  readonly #tasks: Expected[] = [];
  readonly reminders = new Set<number>();
  readonly surprises: string[] = [];
  retried = 0;
  compared = 0;

  constructor(url: Promise<string>, lines: readonly string[]) {
    this.url = url;
    this.#lines = lines;
  }

  async join(index: number): Promise<void> {
    const credentials = { email: `person${index}@example.com`, password: PASSWORD };
    await this.#expect(201, null, "POST", "/auth/register", { username: `person${index}`, ...credentials });
    const { body } = await this.#expect(200, null, "POST", "/auth/login", credentials);
    const { token, user } = JSON.parse(body) as { token: string; user: { id: number } };
    this.#people[index] = { id: user.id, token };
  }

  async listen(index: number, receiver: HookReceiver): Promise<void> {
    const asked = { url: receiver.urlOf(`${index}`), events: ["task.created", "task.reminder"] };
    const { body } = await this.#expect(201, this.#people[index]!, "POST", "/webhooks", asked);
    receiver.trust(`${index}`, (JSON.parse(body) as { secret: string }).secret);
  }

  async create(index: number): Promise<void> {
    const owner = index % this.#people.length;
    const task = {
      title: this.#lines[index % this.#lines.length]!,
      description: this.#lines[(index * 7) % this.#lines.length]!,
      priority: PRIORITIES[index % 3]!,
      labels: index % 4 === 0 ? [LABELS[(index / 4) % LABELS.length]!] : [],
    };
    const headers = { "Idempotency-Key": `create ${index}` };
    const { body } = await this.#expect(201, this.#people[owner]!, "POST", "/tasks", task, headers);
    const { id } = JSON.parse(body) as { id: number };
    this.#tasks[index] = {
      id,
      owner,
      ...task,
      status: "pending",
      assignee: null,
      version: 1,
      comments: 0,
      events: 1,
      isDeleted: false,
    };
  }

  /** One random change of the task that is this step's alone for now: steps are dealt out, not drawn. */
  async change(index: number): Promise<void> {
    const task = this.#tasks[(index * 13) % TOUCHED]!;
    const random = Bun.hash.crc32(`step ${index}`);
    const person = this.#people[task.owner]!;
    switch (random % 7) {
      case 0:
        return this.#patch(task, person, { status: STATUSES[(STATUSES.indexOf(task.status as "pending") + 1) % 3]! });
      case 1:
        return this.#patch(task, person, { title: `${this.#lines[random % this.#lines.length]!} (${index})` });
      case 2:
        return this.#patch(task, person, { labels: [LABELS[index % LABELS.length]!, `step-${index}`].sort() });
      case 3:
        return this.#assign(task, random);
      case 4:
        return this.#comment(task, person, index);
      case 5:
        return this.#deleteAndRestore(task, person, random);
      default:
        return this.#trespass(task, random);
    }
  }

  /** A task that is reminded of `delayMs` from now. */
  async remind(index: number, delayMs: number): Promise<void> {
    const remind_at = new Date(Date.now() + delayMs).toISOString();
    const headers = { "Idempotency-Key": `remind ${crypto.randomUUID()}` };
    const task = { title: "A reminder", remind_at, labels: ["reminded"] };
    const { body } = await this.#expect(201, this.#people[index]!, "POST", "/tasks", task, headers);
    this.reminders.add((JSON.parse(body) as { id: number }).id);
  }

  /** What the person finds against what the person should find: each page of the list, histories, deleted tasks. */
  async compare(index: number): Promise<void> {
    const person = this.#people[index]!;
    const mine = this.#tasks.filter((task) => task.owner === index);
    const seen = this.#tasks.filter((task) => !task.isDeleted && (task.owner === index || task.assignee === person.id));
    const found = await this.#walk(person, "/tasks?limit=300");
    const others = found.filter(({ labels }) => !(labels as string[]).includes("reminded"));
    this.#compareSets(`the list of person ${index}`, seen, others);
    const deleted = mine.filter(({ isDeleted }) => isDeleted);
    this.#compareSets(
      `what person ${index} deleted`,
      deleted,
      await this.#walk(person, "/tasks?deleted=true&limit=300"),
    );
    for (const task of mine.filter(({ isDeleted }) => !isDeleted).slice(0, HISTORIES)) {
      const events = await this.#walk(person, `/tasks/${task.id}/events?limit=1000`);
      if (events.length !== task.events) this.#surprise(`task ${task.id}: ${events.length} events, not ${task.events}`);
      const comments = await this.#walk(person, `/tasks/${task.id}/comments?limit=1000`);
      if (comments.length !== task.comments) this.#surprise(`task ${task.id}: ${comments.length} comments`);
    }
  }

  async #patch(task: Expected, person: Person, patch: Partial<Expected>, sent: object = patch): Promise<void> {
    if (task.isDeleted) return;
    const headers = { "If-Match": `"v${task.version}"` };
    const answer = await this.#send(person, "PATCH", `/tasks/${task.id}`, sent, headers);
    // A try whose answer never came was done after all: the task has moved on by exactly this change.
    const wasDone = answer.wasRetried && answer.status === 412;
    if (answer.status !== 200 && !wasDone) return this.#surprise(`PATCH ${task.id}: ${answer.status} ${answer.body}`);
    Object.assign(task, patch);
    if (!wasDone && (JSON.parse(answer.body) as { version: number }).version === task.version) return;
    task.version++;
    task.events++;
  }

  async #assign(task: Expected, random: number): Promise<void> {
    const colleague = this.#people[random % this.#people.length]!;
    const assignee = task.assignee === null ? colleague.id : null;
    await this.#patch(task, this.#people[task.owner]!, { assignee }, { assignee_id: assignee });
  }

  async #comment(task: Expected, person: Person, index: number): Promise<void> {
    if (task.isDeleted) return;
    const headers = { "Idempotency-Key": `comment ${index}` };
    const body = { body: this.#lines[index % this.#lines.length]! };
    await this.#expect(201, person, "POST", `/tasks/${task.id}/comments`, body, headers);
    task.comments++;
    task.events++;
  }

  async #deleteAndRestore(task: Expected, person: Person, random: number): Promise<void> {
    if (task.isDeleted) return;
    const gone = await this.#send(person, "DELETE", `/tasks/${task.id}`);
    if (gone.status !== 200 && !(gone.wasRetried && gone.status === 404)) {
      return this.#surprise(`DELETE ${task.id}: ${gone.status} ${gone.body}`);
    }
    task.isDeleted = true;
    task.version++;
    task.events++;
    if (random % 2 === 0) return;
    const back = await this.#send(person, "POST", `/tasks/${task.id}/restore`);
    if (back.status !== 200 && !(back.wasRetried && back.status === 409)) {
      return this.#surprise(`restore ${task.id}: ${back.status} ${back.body}`);
    }
    task.isDeleted = false;
    task.version++;
    task.events++;
  }

  /** Somebody who has nothing to do with it, and the assignee beyond what assignees may. */
  async #trespass(task: Expected, random: number): Promise<void> {
    const at = random % this.#people.length;
    const person = this.#people[at]!;
    if (at === task.owner) return;
    const isAssignee = task.assignee === person.id && !task.isDeleted;
    await this.#expect(isAssignee ? 200 : 404, person, "GET", `/tasks/${task.id}`);
    await this.#expect(isAssignee ? 403 : 404, person, "PATCH", `/tasks/${task.id}`, { title: "mine now" });
    await this.#expect(isAssignee ? 403 : 404, person, "DELETE", `/tasks/${task.id}`);
  }

  #compareSets(what: string, expected: readonly Expected[], found: readonly Record<string, unknown>[]): void {
    const rows = new Map(found.map((row) => [row.id as number, row]));
    if (rows.size !== found.length) this.#surprise(`${what} has a task twice`);
    if (rows.size !== expected.length) this.#surprise(`${what} has ${rows.size} tasks, not ${expected.length}`);
    for (const task of expected) {
      this.compared++;
      const row = rows.get(task.id);
      const has = row && [
        row.title,
        row.description,
        row.status,
        row.priority,
        row.assignee_id,
        row.labels,
        row.version,
      ];
      const { title, description, status, priority, assignee, labels, version } = task;
      const wants = [title, description, status, priority, assignee, labels, version];
      if (JSON.stringify(has) !== JSON.stringify(wants)) {
        this.#surprise(`${what}: ${task.id} is ${JSON.stringify(has)}, not ${JSON.stringify(wants)}`);
      }
    }
  }

  async #walk(person: Person, path: string): Promise<Record<string, unknown>[]> {
    const rows: Record<string, unknown>[] = [];
    for (let next: string | null = path; next !== null; ) {
      const { body, headers } = await this.#expect(200, person, "GET", next);
      rows.push(...(JSON.parse(body) as Record<string, unknown>[]));
      const cursor = headers.get("x-next-cursor");
      next = cursor === null ? null : `${path}&cursor=${encodeURIComponent(cursor)}`;
    }
    return rows;
  }

  async #expect(
    status: number,
    person: Person | null,
    method: string,
    path: string,
    body?: object,
    headers?: Record<string, string>,
  ): Promise<Answer> {
    const answer = await this.#send(person, method, path, body, headers);
    if (answer.status !== status) this.#surprise(`${method} ${path}: ${answer.status}, not ${status}: ${answer.body}`);
    return answer;
  }

  /** Until there is an answer: while the server is down requests wait for the next one. */
  async #send(
    person: Person | null,
    method: string,
    path: string,
    body?: object,
    headers: Record<string, string> = {},
  ): Promise<Answer> {
    const init = {
      method,
      headers: {
        "Content-Type": "application/json",
        ...(person === null ? {} : { Authorization: `Bearer ${person.token}` }),
        ...headers,
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    };
    for (let wasRetried = false; ; wasRetried = true) {
      const url = await this.url;
      try {
        const response = await fetch(`${url}/api/v1${path}`, init);
        const text = await response.text();
        if (response.status !== 503) {
          return { status: response.status, body: text, headers: response.headers, wasRetried };
        }
      } catch {
        // Killed: whether it was done is not known.
      }
      this.retried++;
      await Bun.sleep(RETRY_MS);
    }
  }

  #surprise(text: string): void {
    this.surprises.push(text);
  }
}
