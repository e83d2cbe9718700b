// The second act: 500 devices with three installations each, of different rights. Real JSON is imported by batch and
// read by every token, while tokens are rotated and revoked; every answer is compared with what the rights say.

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Bar, each, operatorToken, start } from "./demo-support.ts";

const DEVICES = 500;

/** Every package.json below the folder, under `deps.` or `shared.`, as two kinds of keys with different readers. */
function collectJson(folder: string): Map<string, string> {
  const entries = new Map<string, string>();
  let index = 0;
  for (const path of [...new Bun.Glob("**/package.json").scanSync({ cwd: folder, dot: true })].sort()) {
    const name = path.replace(/\/package\.json$/, "").replaceAll("/", ":");
    entries.set(`${index++ % 2 === 0 ? "deps" : "shared"}.${name}`, readFileSync(join(folder, path), "utf8").trim());
  }
  return entries;
}

interface Installation {
  readonly id: string;
  token: string;
}

class TokensDemo {
  readonly #url: string;
  readonly #operator: Record<string, string>;
  readonly #entries: ReadonlyMap<string, string>;
  /** How often each status was expected and given. */
  readonly answers = new Map<number, number>();
  surprises = 0;
  bytes = 0;

  constructor(url: string, operator: string, entries: ReadonlyMap<string, string>) {
    this.#url = url;
    this.#operator = { Authorization: `Bearer ${operator}`, "Content-Type": "application/json" };
    this.#entries = entries;
  }

  async prepare(): Promise<void> {
    await this.#admin("POST", "/api/kv/apps", { id: "board", name: "Board" });
  }

  /** Everything one device goes through. */
  async live(device: string): Promise<void> {
    await this.#admin("POST", "/api/kv/devices", { uuid: device });
    const owner = await this.#install(device, {});
    const reader = await this.#install(device, { permissionPrefix: "deps" });
    const guest = await this.#install(device, { permissionKey: ["read:shared"], isReadOnly: true });
    await this.#import(owner);
    await this.#readAll(owner, () => true);
    await this.#readAll(reader, (key) => key.startsWith("deps."));
    await this.#admin("DELETE", `/api/kv/installations/${reader.id}`);
    await this.#readAll(guest, (key) => key.startsWith("shared."));
    await this.#refused(reader, 401);
    const { token: old } = owner;
    const rotated = await this.#admin("POST", `/api/kv/installations/${owner.id}/rotate`);
    owner.token = rotated.token as string;
    await this.#refused({ id: owner.id, token: old }, 401);
    await this.#expectList(owner, this.#entries.size);
    await this.#expectList(guest, [...this.#entries.keys()].filter((key) => key.startsWith("shared.")).length);
    this.#count((await this.#ask(guest, "DELETE", "/kv/token/")).status, 403);
  }

  async #import(owner: Installation): Promise<void> {
    const members = [...this.#entries].map(([key, json]) => `${JSON.stringify(key)}:${json}`);
    const response = await this.#ask(owner, "POST", "/kv/token/_batchimport", `{${members.join(",")}}`);
    this.#count(response.status, 200);
    const { successful } = (await response.json()) as { successful: number };
    if (successful !== this.#entries.size) this.surprises++;
  }

  async #readAll(installation: Installation, mayRead: (key: string) => boolean): Promise<void> {
    for (const [key, json] of this.#entries) {
      const response = await this.#ask(installation, "GET", `/kv/token/${encodeURIComponent(key)}`);
      const body = await response.text();
      this.bytes += body.length;
      this.#count(response.status, mayRead(key) ? 200 : 403);
      if (mayRead(key) && body !== json) this.surprises++;
    }
  }

  async #refused(installation: Installation, status: number): Promise<void> {
    const [key = ""] = this.#entries.keys();
    const response = await this.#ask(installation, "GET", `/kv/token/${encodeURIComponent(key)}`);
    this.#count(response.status, status);
  }

  async #expectList(installation: Installation, total: number): Promise<void> {
    const response = await this.#ask(installation, "GET", "/kv/token/_keys?limit=1000");
    this.#count(response.status, 200);
    const { keys, total_rows } = (await response.json()) as { keys: string[]; total_rows: number };
    if (total_rows !== total || keys.length !== total) this.surprises++;
  }

  async #install(device: string, rights: Record<string, unknown>): Promise<Installation> {
    const body = { deviceUuid: device, appId: "board", ...rights };
    return (await this.#admin("POST", "/api/kv/installations", body)) as unknown as Installation;
  }

  async #admin(method: string, path: string, body?: Record<string, unknown>): Promise<Record<string, unknown>> {
    const init = { method, headers: this.#operator, ...(body === undefined ? {} : { body: JSON.stringify(body) }) };
    const response = await fetch(this.#url + path, init);
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return text === "" ? {} : (JSON.parse(text) as Record<string, unknown>);
  }

  #ask({ token }: Installation, method: string, path: string, body?: string): Promise<Response> {
    const headers = {
      Authorization: `Bearer ${token}`,
      ...(body === undefined ? {} : { "Content-Type": "application/json" }),
    };
    return fetch(this.#url + path, { method, headers, ...(body === undefined ? {} : { body }) });
  }

  #count(status: number, expected: number): void {
    this.answers.set(status, (this.answers.get(status) ?? 0) + 1);
    if (status !== expected) this.surprises++;
  }
}

/** True when every answer was the one that the rights ask for. */
export async function tokensAct(folder: string): Promise<boolean> {
  const scratch = mkdtempSync(join(tmpdir(), "gokv-demo-"));
  try {
    // All clients share one address, and each device sends tokens that are dead on purpose.
    const server = await start(join(scratch, "data"), { TOKEN_RATE_AUTH_FAIL: "0" });
    const demo = new TokensDemo(server.url, await operatorToken(), collectJson(folder));
    await demo.prepare();
    const devices = Array.from({ length: DEVICES }, (_, index) => `device-${index}`);
    const bar = new Bar("tokens", "devices", devices.length, 0);
    let done = 0;
    await each(devices, async (device) => {
      await demo.live(device);
      bar.draw(++done, demo.bytes);
    });
    const seconds = bar.end();
    await server.kill("SIGTERM");
    const total = [...demo.answers.values()].reduce((sum, count) => sum + count, 0);
    const counts = [...demo.answers].sort().map(([status, count]) => `${count} × ${status}`);
    console.log(`figure: ${DEVICES} devices, ${3 * DEVICES} installations, ${DEVICES} rotated, ${DEVICES} revoked`);
    console.log(`figure: ${total} answers in ${seconds.toFixed(1)} s: ${counts.join(", ")}`);
    console.log(`figure: surprises ${demo.surprises}`);
    return demo.surprises === 0;
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}
