// Apps that import batches without pause and remember what they were told, so that afterwards each batch can be held to
// being there whole or not at all.

import { type Random, randomFrom } from "./seeded-random.ts";
import { type Asked, asApp } from "./token-client.ts";

export interface BatchLoadOptions {
  /** Of a plain token, without rate limits. */
  readonly token: string;
  readonly random: Random;
  /** Each sends one batch at a time. */
  readonly clients: number;
  /** Keys of a group are always imported together, and by one client only. */
  readonly groupsPerClient: number;
  /** Keys of a batch to choose from; a group keeps its number. */
  readonly keys: readonly number[];
  readonly valueBytes: number;
}

/** Batch ids by group: the last one that was answered, 0 = none, and the later ones of which nothing is known. */
interface Known {
  answered: number;
  unknown: number[];
}

const PAGE = 250;
/** Whoever is refused does not try again at once. */
const REFUSED_PAUSE_MS = 20;

export class BatchLoad {
  /** Batches that were answered with 200. */
  answered = 0;
  /** Batches of which nothing is known and that were found whole, or not at all, by `verify`. */
  readonly settled = { present: 0, absent: 0 };
  /** Answers by status; 0 counts the connections that ended without one. */
  readonly answers = new Map<number, number>();
  /** Answers that no batch should get. */
  readonly unexpected: string[] = [];
  readonly #options: BatchLoadOptions;
  readonly #known = new Map<string, Known>();
  #lastId = 0;
  #isStopping = false;

  constructor(options: BatchLoadOptions) {
    this.#options = options;
  }

  /** Imports until `stop` is called, so many batches were answered, or, for each client, its connection ends. */
  async run(target: Asked, answered = Number.POSITIVE_INFINITY): Promise<void> {
    this.#isStopping = false;
    const { clients, groupsPerClient, random } = this.#options;
    const work = async (client: number) => {
      const own = randomFrom(random.below(2 ** 32));
      const isWanted = () => !this.#isStopping && this.answered < answered;
      while (isWanted() && (await this.#import(target, client * groupsPerClient + own.below(groupsPerClient)))) {}
    };
    await Promise.all(Array.from({ length: clients }, (_, client) => work(client)));
  }

  stop(): void {
    this.#isStopping = true;
  }

  /**
   * Reads the whole namespace and returns what is wrong with it. What is found is from then on as good as answered: it
   * must not change by itself.
   */
  async verify(target: Asked): Promise<string[]> {
    const found = new Map<string, number[]>();
    for (const [key, text] of await readNamespace(target, this.#options.token)) {
      const group = key.split(".")[0]!;
      const ids = found.get(group) ?? [];
      ids.push((JSON.parse(text) as { batch: number }).batch);
      found.set(group, ids);
    }
    const strange = [...found.keys()].filter((group) => !this.#known.has(group));
    const problems = strange.map((group) => `${group}: nobody imported it`);
    for (const [group, known] of this.#known) {
      const problem = this.#judge(group, known, found.get(group) ?? []);
      if (problem !== null) problems.push(`${group}: ${problem}`);
    }
    return problems;
  }

  #judge(group: string, known: Known, ids: readonly number[]): string | null {
    const [id = 0] = ids;
    if (new Set(ids).size > 1) return `mixes the batches ${[...new Set(ids)].join(", ")}`;
    if (id !== 0 && ids.length !== this.#sizeOf(group)) return `${ids.length} of ${this.#sizeOf(group)} keys are there`;
    if (id !== known.answered && !known.unknown.includes(id)) {
      return `holds batch ${id}; ${known.answered} was answered, nothing is known of ${known.unknown.join(", ")}`;
    }
    if (known.unknown.length > 0) this.settled[id === known.answered ? "absent" : "present"]++;
    this.#known.set(group, { answered: id, unknown: [] });
    return null;
  }

  #sizeOf(group: string): number {
    const { keys } = this.#options;
    return keys[Number(group.slice(1)) % keys.length]!;
  }

  /** False when this client should send no more. */
  async #import(target: Asked, number: number): Promise<boolean> {
    const group = `g${number}`;
    const known = this.#known.get(group) ?? { answered: 0, unknown: [] };
    this.#known.set(group, known);
    const id = ++this.#lastId;
    const size = this.#sizeOf(group);
    const value = { batch: id, pad: "x".repeat(this.#options.valueBytes) };
    const body = JSON.stringify(Object.fromEntries(Array.from({ length: size }, (_, n) => [`${group}.${n}`, value])));
    const { status, text } = await this.#send(target, body);
    this.answers.set(status, (this.answers.get(status) ?? 0) + 1);
    const code = status === 0 ? null : ((JSON.parse(text) as { code?: string }).code ?? null);
    if (status === 200) {
      const { successful, failed, results } = JSON.parse(text) as Record<string, unknown>;
      if (successful !== size || failed !== 0 || (results as unknown[]).length !== size) this.unexpected.push(text);
      this.answered++;
      known.answered = id;
      known.unknown = [];
      return true;
    }
    if (status !== 0 && text.includes('"results"')) this.unexpected.push(`${status} reports results: ${text}`);
    if ((status === 507 && code === "storage_full") || status === 503) {
      await Bun.sleep(REFUSED_PAUSE_MS);
      return true;
    }
    if (status !== 0 && code !== "storage_failed") this.unexpected.push(`${status} ${text}`);
    known.unknown.push(id);
    return false;
  }

  /** Status 0 for a connection that ended without an answer. */
  async #send(target: Asked, body: string): Promise<{ status: number; text: string }> {
    try {
      const response = await asApp(target, this.#options.token, "/_batchimport", { method: "POST", body });
      return { status: response.status, text: await response.text() };
    } catch {
      return { status: 0, text: "" };
    }
  }
}

/** Every key of a namespace with the text of its value, page by page. @throws Error when the pages do not add up */
export async function readNamespace(target: Asked, token: string): Promise<Map<string, string>> {
  const entries = new Map<string, string>();
  for (;;) {
    const response = await asApp(target, token, `/?limit=${PAGE}&skip=${entries.size}`);
    if (response.status !== 200) throw new Error(`the list answers ${response.status}: ${await response.text()}`);
    const page = (await response.json()) as { items: { key: string; value: unknown }[]; total_rows: number };
    for (const { key, value } of page.items) entries.set(key, JSON.stringify(value));
    if (entries.size === page.total_rows) return entries;
    if (page.items.length === 0 || entries.size > page.total_rows) {
      throw new Error(`${entries.size} keys are listed, ${page.total_rows} are told`);
    }
  }
}
