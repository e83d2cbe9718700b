// Notices when somebody deletes or replaces the files of a running store: what is written then would be lost.

import { inodeOf } from "./store-files.ts";

const INTERVAL_MS = 500;

/** Looks with stat only: opening these files would drop SQLite's locks. */
export class StoreWatch implements Disposable {
  readonly #inodes: ReadonlyMap<string, bigint | null>;
  readonly #timer: Timer;

  /** `onGone` is called once, with the path that is missing or another file now. */
  constructor(paths: readonly string[], onGone: (path: string) => void) {
    this.#inodes = new Map(paths.map((path) => [path, inodeOf(path)]));
    this.#timer = setInterval(() => {
      const gone = paths.find((path) => lookAt(path) !== this.#inodes.get(path));
      if (gone === undefined) return;
      clearInterval(this.#timer);
      onGone(gone);
    }, INTERVAL_MS);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}

/** What cannot be looked at, since its folder is none any more or may not be entered, counts as gone. */
function lookAt(path: string): bigint | null {
  try {
    return inodeOf(path);
  } catch {
    return null;
  }
}
