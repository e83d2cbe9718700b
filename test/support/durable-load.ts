// Clients that write without pause and remember what they were told, so that afterwards the store can be held to it.

import { type Random, randomFrom } from "./seeded-random.ts";

/** One write that was sent. A removal stores nothing: the key is missing afterwards. */
export interface Attempt {
  /** Unique in the load and above zero; also its request id, as `w-<id>`. */
  readonly id: number;
  readonly key: string;
  readonly isRemoval: boolean;
}

/** What is known of a key: the last acknowledged write, and the later ones of which nothing is known. */
interface Known {
  acknowledged: Attempt | null;
  unknown: Attempt[];
}

export interface LoadOptions {
  readonly token: string;
  readonly random: Random;
  readonly bucket?: string;
  readonly clients: number;
  /** Each client has keys of its own and sends one write at a time. */
  readonly keysPerClient: number;
  /** Value sizes to choose from. */
  readonly sizes: readonly number[];
  /** Share of the writes that are removals. */
  readonly removals?: number;
}

const OUTCOME_UNKNOWN = 500;
/** Answers that promise: surely not applied. */
const NOT_APPLIED: ReadonlySet<number> = new Set([503, 507]);

/** The value of a write: its own id again and again, so that every piece of it tells where it belongs. */
export function storedValue(id: number, bytes: number): Uint8Array<ArrayBuffer> {
  const marker = `v${id};`;
  return new Uint8Array(Buffer.alloc(Math.max(bytes, marker.length), marker));
}

/** The id of the write that stored `value`, or null if it is no whole value of one write. */
export function idOf(value: Uint8Array): number | null {
  const id = Number(/^v(\d+);/.exec(Buffer.from(value.subarray(0, 24)).toString("latin1"))?.[1]);
  if (Number.isNaN(id)) return null;
  return Buffer.compare(value, storedValue(id, value.length)) === 0 ? id : null;
}

export class DurableLoad {
  readonly bucket: string;
  readonly attempts: Attempt[] = [];
  /** The ETags that acknowledgements of puts carried, each with the id of its write. */
  readonly etags = new Map<string, number>();
  /** Answers that no write should get. */
  readonly unexpected: string[] = [];
  acknowledgements = 0;
  /** Answers by status; 0 counts the connections that ended without one. */
  readonly answers = new Map<number, number>();
  readonly #options: LoadOptions;
  readonly #known = new Map<string, Known>();
  readonly #sizes = new Map<number, number>();
  readonly #headers: Record<string, string>;
  #isStopping = false;

  constructor(options: LoadOptions) {
    this.#options = options;
    this.bucket = options.bucket ?? "load";
    this.#headers = { Authorization: `Bearer ${options.token}` };
  }

  /**
   * Writes until `stop` is called or there are so many acknowledgements, counted from the first run on; each client
   * only until its connection ends or the store says that it has failed.
   */
  async run(url: string, acknowledgements = Number.POSITIVE_INFINITY): Promise<void> {
    this.#isStopping = false;
    const { clients, random } = this.#options;
    const work = async (client: number) => {
      const own = randomFrom(random.below(2 ** 32));
      const isWanted = () => !this.#isStopping && this.acknowledgements < acknowledgements;
      while (isWanted() && (await this.#write(url, this.#choose(own, client)))) {}
    };
    await Promise.all(Array.from({ length: clients }, (_, client) => work(client)));
  }

  stop(): void {
    this.#isStopping = true;
  }

  /**
   * Compares the store with what is known, key by key, and its list with the keys. Returns what is wrong. What is found
   * is from then on as good as acknowledged: it must not change by itself.
   */
  async verify(url: string): Promise<string[]> {
    const problems: string[] = [];
    const present: string[] = [];
    const names = [...this.#known.keys()];
    const check = async () => {
      for (let name = names.pop(); name !== undefined; name = names.pop()) {
        const response = await fetch(this.#urlOf(url, name), { headers: this.#headers });
        const body = new Uint8Array(await response.arrayBuffer());
        if (response.status === 200) present.push(name);
        const problem = this.#judge(name, response.status, body);
        if (problem !== null) problems.push(problem);
      }
    };
    await Promise.all(Array.from({ length: this.#options.clients }, check));
    const list = await fetch(`${url}/_list?bucket=${this.bucket}`, { headers: this.#headers });
    if (JSON.stringify(await list.json()) !== JSON.stringify(present.sort()))
      problems.push("the list tells other keys");
    return problems;
  }

  /** The last acknowledged write of each key, at this moment. */
  lastAcknowledged(): number[] {
    return [...this.#known.values()].flatMap(({ acknowledged }) => (acknowledged === null ? [] : [acknowledged.id]));
  }

  /** Whether `id` (null = the key is missing) is what the last acknowledged or a later unknown write has left. */
  allows(key: string, id: number | null): boolean {
    const { acknowledged, unknown } = this.#known.get(key) ?? { acknowledged: null, unknown: [] };
    const left = (attempt: Attempt | null) => (attempt === null || attempt.isRemoval ? null : attempt.id);
    return left(acknowledged) === id || unknown.some((attempt) => left(attempt) === id);
  }

  #choose(random: Random, client: number): Attempt {
    const { keysPerClient, sizes, removals = 0.15 } = this.#options;
    const attempt = {
      id: this.attempts.length + 1,
      key: `c${client}-${random.below(keysPerClient)}`,
      isRemoval: random.chance(removals),
    };
    this.attempts.push(attempt);
    this.#sizes.set(attempt.id, random.pick(sizes));
    return attempt;
  }

  /** False when this client should send no more. */
  async #write(url: string, attempt: Attempt): Promise<boolean> {
    const known = this.#known.get(attempt.key) ?? { acknowledged: null, unknown: [] };
    this.#known.set(attempt.key, known);
    const status = await this.#send(url, attempt);
    this.answers.set(status, (this.answers.get(status) ?? 0) + 1);
    if (status === 200) {
      this.acknowledgements++;
      known.acknowledged = attempt;
      known.unknown = [];
      return true;
    }
    if (NOT_APPLIED.has(status)) return true;
    if (status !== 0 && status !== OUTCOME_UNKNOWN) this.unexpected.push(`${attempt.key}: ${status}`);
    known.unknown.push(attempt);
    return false;
  }

  /** The status, or 0 for a connection that ended without an answer. */
  async #send(url: string, { id, key, isRemoval }: Attempt): Promise<number> {
    try {
      const response = await fetch(this.#urlOf(url, key), {
        method: isRemoval ? "DELETE" : "POST",
        headers: { ...this.#headers, "X-Request-Id": `w-${id}` },
        ...(isRemoval ? {} : { body: storedValue(id, this.#sizes.get(id)!) }),
      });
      await response.arrayBuffer();
      const etag = response.headers.get("etag");
      if (response.ok && etag !== null) {
        if (this.etags.has(etag)) this.unexpected.push(`${key}: the ETag ${etag} is given out again`);
        this.etags.set(etag, id);
      }
      return response.status;
    } catch {
      return 0;
    }
  }

  #urlOf(url: string, key: string): string {
    return `${url}/${this.bucket}/${key}`;
  }

  #judge(key: string, status: number, body: Uint8Array): string | null {
    if (status !== 200 && status !== 404) return `${key}: GET answers ${status}`;
    const id = status === 404 ? null : idOf(body);
    if (status === 200 && id === null) return `${key}: torn value`;
    if (!this.allows(key, id)) return `${key}: holds ${id ?? "nothing"}, which was overwritten or never acknowledged`;
    const found = id === null ? { id: 0, key, isRemoval: true } : { id, key, isRemoval: false };
    this.#known.set(key, { acknowledged: found, unknown: [] });
    return null;
  }
}
