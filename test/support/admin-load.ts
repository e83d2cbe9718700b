// Operators who issue, rotate and revoke tokens without pause and remember what they were told, so that afterwards each
// token can be held to it.

import { type Random, randomFrom } from "./seeded-random.ts";
import { type Asked, administer, asApp } from "./token-client.ts";

/** What must be true of a token; "unknown" after a change that was not answered. */
type Fate = "alive" | "dead" | "unknown";

interface Installation {
  readonly id: string;
  readonly device: string;
  token: string;
}

export interface AdminLoadOptions {
  readonly random: Random;
  /** Each sends one change at a time, on devices of its own. */
  readonly operators: number;
  /** Must exist. */
  readonly appId: string;
}

/** Per operator, so that a device is deleted with some tokens on it now and then. */
const DEVICES = 3;

export class AdminLoad {
  /** Changes that were answered. */
  answered = 0;
  /** Answers that no change should get. */
  readonly unexpected: string[] = [];
  readonly #options: AdminLoadOptions;
  readonly #fates = new Map<string, Fate>();
  readonly #installations: Installation[][];

  constructor(options: AdminLoadOptions) {
    this.#options = options;
    this.#installations = Array.from({ length: options.operators }, () => []);
  }

  /** Changes until so many more were answered or, for each operator, the connection ends or the store has failed. */
  async run(target: Asked, more = Number.POSITIVE_INFINITY): Promise<void> {
    const end = this.answered + more;
    const work = async (operator: number) => {
      const random = randomFrom(this.#options.random.below(2 ** 32));
      while (this.answered < end && (await this.#change(target, operator, random))) {}
    };
    await Promise.all(this.#installations.map((_, operator) => work(operator)));
  }

  /** Asks with every token there ever was. Returns what is wrong; what is found must stay so from then on. */
  async verify(target: Asked): Promise<string[]> {
    const problems: string[] = [];
    for (const [token, fate] of this.#fates) {
      const { status } = await asApp(target, token, "/_token");
      if (status !== 200 && status !== 401) problems.push(`${token}: ${status}`);
      const found = status === 200 ? "alive" : "dead";
      if (fate !== "unknown" && fate !== found) problems.push(`${token} must be ${fate} and is ${found}`);
      this.#fates.set(token, found);
    }
    for (const [operator, all] of this.#installations.entries()) {
      this.#installations[operator] = all.filter(({ token }) => this.#fates.get(token) === "alive");
    }
    return problems;
  }

  count(fate: Fate): number {
    return [...this.#fates.values()].filter((each) => each === fate).length;
  }

  /** False when this operator should send no more. */
  #change(target: Asked, operator: number, random: Random): Promise<boolean> {
    const own = this.#installations[operator]!;
    const device = `device-${operator}-${random.below(DEVICES)}`;
    if (own.length < 2 || random.chance(0.4)) return this.#issue(target, own, device);
    if (random.chance(0.1)) return this.#deleteDevice(target, operator, device);
    const installation = random.pick(own);
    return random.chance(0.5) ? this.#rotate(target, installation) : this.#revoke(target, own, installation);
  }

  async #issue(target: Asked, own: Installation[], device: string): Promise<boolean> {
    const made = await this.#send(target, "POST", "/devices", { uuid: device });
    if (made === null) return false;
    const body = { deviceUuid: device, appId: this.#options.appId };
    const issued = await this.#send(target, "POST", "/installations", body);
    if (issued === null) return false;
    const { id, token } = issued as { id: string; token: string };
    this.#fates.set(token, "alive");
    own.push({ id, device, token });
    return true;
  }

  async #rotate(target: Asked, installation: Installation): Promise<boolean> {
    const old = installation.token;
    this.#fates.set(old, "unknown");
    const rotated = await this.#send(target, "POST", `/installations/${installation.id}/rotate`);
    if (rotated === null) return false;
    this.#fates.set(old, "dead");
    installation.token = (rotated as { token: string }).token;
    this.#fates.set(installation.token, "alive");
    return true;
  }

  async #revoke(target: Asked, own: Installation[], installation: Installation): Promise<boolean> {
    this.#fates.set(installation.token, "unknown");
    if ((await this.#send(target, "DELETE", `/installations/${installation.id}`)) === null) return false;
    this.#fates.set(installation.token, "dead");
    own.splice(own.indexOf(installation), 1);
    return true;
  }

  async #deleteDevice(target: Asked, operator: number, device: string): Promise<boolean> {
    const own = this.#installations[operator]!;
    const gone = own.filter((installation) => installation.device === device);
    for (const { token } of gone) this.#fates.set(token, "unknown");
    if ((await this.#send(target, "DELETE", `/devices/${device}`)) === null) return false;
    for (const { token } of gone) this.#fates.set(token, "dead");
    this.#installations[operator] = own.filter((installation) => installation.device !== device);
    return true;
  }

  /** The body of the answer, {} without one; null when nothing is known of the change. */
  async #send(target: Asked, method: string, path: string, body?: unknown): Promise<unknown> {
    try {
      const response = await administer(target, method, path, body);
      const text = await response.text();
      // A device exists already, or does not exist: both are fine here.
      const isExpected = response.ok || (path.startsWith("/devices") && [404, 409].includes(response.status));
      if (!isExpected) {
        const hasFailed = text.includes('"storage_failed"') || text.includes('"unavailable"');
        if (!hasFailed) this.unexpected.push(`${method} ${path}: ${response.status} ${text}`);
        return null;
      }
      this.answered++;
      return text === "" ? {} : JSON.parse(text);
    } catch {
      return null;
    }
  }
}
