// The first act: stores every file below a folder, kills the server in the middle with SIGKILL, starts it again, goes
// on, then lists every bucket and reads everything back.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Bar, each, operatorToken, type Server, sha256, start } from "./demo-support.ts";

/** The server is killed when these shares of the files were acknowledged. */
const KILLS_AT = [0.25, 0.5, 0.75];
const MAX_VALUE_BYTES = 256 * 1024 * 1024;
const SETTINGS = { MAX_VALUE_BYTES: `${MAX_VALUE_BYTES}`, BODY_BUDGET_BYTES: `${2 * MAX_VALUE_BYTES}` };

interface Item {
  readonly bucket: string;
  readonly key: string;
  readonly path: string;
  readonly bytes: number;
}

/** One bucket per package; the path below it is the key. */
function collect(folder: string): Item[] {
  const items: Item[] = [];
  for (const path of new Bun.Glob("**/*").scanSync({
    cwd: folder,
    dot: true,
    onlyFiles: true,
    followSymlinks: false,
  })) {
    const [first = "", second = "", ...rest] = path.split("/");
    const isScoped = first.startsWith("@") && rest.length > 0;
    const bucket = isScoped ? `${first}:${second}` : first;
    const key = isScoped ? rest.join("/") : [second, ...rest].filter((part) => part !== "").join("/");
    // A name with an underscore in front is reserved, a file outside every package has no key.
    if (key === "" || bucket.startsWith("_")) continue;
    items.push({
      bucket: bucket.replace(/^\./, "dot-"),
      key,
      path: join(folder, path),
      bytes: Bun.file(join(folder, path)).size,
    });
  }
  return items;
}

function pathOf({ bucket, key }: { bucket: string; key: string }): string {
  return `/${encodeURIComponent(bucket)}/${key.split("/").map(encodeURIComponent).join("/")}`;
}

class FilesDemo {
  readonly #items: readonly Item[];
  readonly #dbPath: string;
  readonly #headers: Record<string, string>;
  /** SHA-256 of what was acknowledged, by path. */
  readonly #acknowledged = new Map<string, string>();
  #server: Server;
  #restarting: Promise<void> | null = null;
  restarts = 0;
  /** Files acknowledged before the last kill that were looked for right after it. */
  survivors = 0;
  mismatches = 0;

  constructor(items: readonly Item[], dbPath: string, token: string, server: Server) {
    this.#items = items;
    this.#dbPath = dbPath;
    this.#headers = { Authorization: `Bearer ${token}` };
    this.#server = server;
  }

  async store(): Promise<number> {
    const bar = this.#bar("store");
    const kills = KILLS_AT.map((share) => Math.floor(share * this.#items.length));
    let bytes = 0;
    await each(this.#items, async (item) => {
      const value = await Bun.file(item.path).bytes();
      await this.#put(item, value);
      this.#acknowledged.set(pathOf(item), sha256(value));
      bytes += value.length;
      bar.draw(this.#acknowledged.size, bytes);
      if (this.#acknowledged.size >= (kills[0] ?? Number.POSITIVE_INFINITY)) {
        kills.shift();
        await this.#killAndStart();
      }
    });
    return bar.end();
  }

  async readBack(): Promise<number> {
    const bar = this.#bar("read ");
    await this.#compareLists();
    let files = 0;
    let bytes = 0;
    await each(this.#items, async (item) => {
      const response = await fetch(this.#server.url + pathOf(item), { headers: this.#headers });
      const value = await response.bytes();
      if (response.status !== 200 || sha256(value) !== this.#acknowledged.get(pathOf(item))) {
        this.mismatches++;
        console.error(`differs: ${pathOf(item)} (${response.status})`);
      }
      bytes += value.length;
      bar.draw(++files, bytes);
    });
    return bar.end();
  }

  stop(): Promise<void> {
    return this.#server.kill("SIGTERM");
  }

  /** Sends until it is acknowledged: a connection that a kill has cut leaves open whether it was stored. */
  #bar(label: string): Bar {
    return new Bar(
      label,
      "files",
      this.#items.length,
      this.#items.reduce((sum, item) => sum + item.bytes, 0),
    );
  }

  async #put(item: Item, value: Uint8Array<ArrayBuffer>): Promise<void> {
    for (;;) {
      await this.#restarting;
      try {
        const response = await fetch(this.#server.url + pathOf(item), {
          method: "PUT",
          headers: this.#headers,
          body: value,
        });
        if (response.status === 200) return;
        if (response.status !== 503) throw new Error(`${pathOf(item)}: ${response.status} ${await response.text()}`);
      } catch (error) {
        if (this.#restarting === null && !(error instanceof TypeError) && !isCut(error)) throw error;
      }
      await Bun.sleep(5);
    }
  }

  async #killAndStart(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#restarting = promise;
    await this.#server.kill("SIGKILL");
    const before = [...this.#acknowledged];
    this.#server = await start(this.#dbPath, SETTINGS);
    this.restarts++;
    // A sample at once; everything at the end.
    for (const [path, hash] of before.slice(-200)) {
      const response = await fetch(this.#server.url + path, { headers: this.#headers });
      if (response.status === 200 && sha256(await response.bytes()) === hash) this.survivors++;
      else this.mismatches++;
    }
    this.#restarting = null;
    resolve();
  }

  async #compareLists(): Promise<void> {
    const expected = Map.groupBy(this.#items, (item) => item.bucket);
    const buckets = (await this.#json("/_list")) as string[];
    if (buckets.length !== expected.size) this.mismatches++;
    for (const [bucket, items] of expected) {
      const keys = new Set((await this.#json(`/_list?bucket=${encodeURIComponent(bucket)}`)) as string[]);
      this.mismatches += items.filter((item) => !keys.has(item.key)).length + Math.abs(keys.size - items.length);
    }
  }

  async #json(path: string): Promise<unknown> {
    return (await fetch(this.#server.url + path, { headers: this.#headers })).json();
  }
}

function isCut(error: unknown): boolean {
  return ["ECONNRESET", "ECONNREFUSED", "ConnectionRefused", "ConnectionClosed"].includes(
    (error as { code?: string }).code ?? "",
  );
}

/** True when every acknowledged file came back with the same SHA-256. */
export async function filesAct(folder: string): Promise<boolean> {
  const items = collect(folder);
  const megabytes = items.reduce((sum, item) => sum + item.bytes, 0) / 1e6;
  const scratch = mkdtempSync(join(tmpdir(), "gokv-demo-"));
  try {
    const dbPath = join(scratch, "data");
    const demo = new FilesDemo(items, dbPath, await operatorToken(), await start(dbPath, SETTINGS));
    const storeSeconds = await demo.store();
    const readSeconds = await demo.readBack();
    await demo.stop();
    const buckets = new Set(items.map((item) => item.bucket)).size;
    console.log(`figure: ${items.length} files in ${buckets} buckets, ${megabytes.toFixed(1)} MB`);
    console.log(
      `figure: stored at ${(megabytes / storeSeconds).toFixed(0)} MB/s with ${demo.restarts} restarts after SIGKILL`,
    );
    console.log(`figure: read back at ${(megabytes / readSeconds).toFixed(0)} MB/s`);
    console.log(`figure: ${demo.survivors} of the last acknowledged files looked for right after the kills, all there`);
    console.log(`figure: mismatches ${demo.mismatches}`);
    return demo.mismatches === 0 && demo.restarts === KILLS_AT.length;
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}
