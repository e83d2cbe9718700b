// Starts from a disk image as the server would, and tells what is in the store then.

import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { messageOf } from "../../src/shared/errors.ts";
import { inspectStore } from "../../src/storage/inspect-store.ts";
import { openStore } from "../../src/storage/open-store.ts";
import { storeFiles } from "../../src/storage/store-files.ts";
import { verifyStore } from "../../src/storage/verify-store.ts";
import type { DiskImage } from "./crash-states.ts";
import { type Attempt, idOf } from "./durable-load.ts";

const WAL_LIMIT_BYTES = 64 * 1024 * 1024;

/** `ids` by key: which write each entry comes from. `failure`: why the store cannot be used, or what is wrong in it. */
export type Recovered = { readonly ids: ReadonlyMap<string, number> } | { readonly failure: string };

/** Opens images, each in a folder of its own; an image that was seen before costs nothing. */
export class ImageRecovery {
  readonly #scratch: string;
  readonly #known = new Map<string, Recovered>();
  #images = 0;

  /** `scratch` is best on a memory file system: nothing in it has to last. */
  constructor(scratch: string) {
    this.#scratch = scratch;
  }

  get distinctImages(): number {
    return this.#images;
  }

  async recover(image: DiskImage): Promise<Recovered> {
    const hash = [...image].map(([path, bytes]) => `${basename(path)}:${bytes.length}:${Bun.hash(bytes)}`).join();
    const known = this.#known.get(hash);
    if (known !== undefined) return known;
    // A path of its own: this process must never open through the file API what SQLite has open or had.
    const directory = join(this.#scratch, `image-${++this.#images}`);
    mkdirSync(directory);
    for (const [path, bytes] of image) writeFileSync(join(directory, basename(path)), bytes);
    const recovered = await open(directory);
    rmSync(directory, { recursive: true });
    this.#known.set(hash, recovered);
    return recovered;
  }
}

async function open(directory: string): Promise<Recovered> {
  try {
    const files = storeFiles(directory);
    inspectStore(files, "refuse");
    const database = await openStore({
      path: files.database,
      walLimitBytes: WAL_LIMIT_BYTES,
      databaseBytesMax: 0,
      isChecked: true,
    });
    try {
      const { problems } = verifyStore(database);
      if (problems.length > 0) return { failure: problems.join("; ") };
      const ids = new Map<string, number>();
      for (const { key, value } of database.query<{ key: string; value: Uint8Array }, []>(
        "SELECT key, value FROM kv",
      )) {
        const id = idOf(value);
        if (id === null) return { failure: `${key} holds a torn value` };
        ids.set(key, id);
      }
      return { ids };
    } finally {
      database.close(true);
    }
  } catch (error) {
    return { failure: messageOf(error) };
  }
}

/** What a recovered store must hold: for each key the last acknowledged write or a later one. */
export class AcknowledgedWrites {
  readonly #attempts = new Map<string, Attempt[]>();
  readonly #keys = new Map<number, string>();
  /** How many of a key's attempts lie before its last acknowledged one. */
  readonly #reached = new Map<string, number>();
  count = 0;

  constructor(attempts: readonly Attempt[]) {
    for (const attempt of attempts) {
      this.#keys.set(attempt.id, attempt.key);
      const ofKey = this.#attempts.get(attempt.key);
      if (ofKey === undefined) this.#attempts.set(attempt.key, [attempt]);
      else ofKey.push(attempt);
    }
  }

  acknowledge(id: number): void {
    const key = this.#keys.get(id)!;
    this.#reached.set(
      key,
      this.#attempts.get(key)!.findIndex((attempt) => attempt.id === id),
    );
    this.count++;
  }

  /** The keys whose acknowledged write is not there, and keys that nobody wrote. */
  lostIn(ids: ReadonlyMap<string, number>): string[] {
    const strange = [...ids.keys()].filter((key) => !this.#attempts.has(key));
    const lost = [...this.#attempts].filter(([key, attempts]) => {
      const found = ids.get(key) ?? null;
      const reached = this.#reached.get(key);
      if (reached === undefined && found === null) return false;
      return !attempts.slice(reached ?? 0).some(({ id, isRemoval }) => (isRemoval ? null : id) === found);
    });
    return [...strange, ...lost.map(([key]) => key)];
  }
}
