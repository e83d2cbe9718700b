// Routing to one handler: the first that was mounted for a path answers it, and no other is asked.

import { METHOD_NAME_ALL, type Result, type Router } from "hono/router";

interface Mount<T> {
  /** Without the `/*` at its end. */
  readonly path: string;
  /** What lies below the path belongs to it as well. */
  readonly isTree: boolean;
  readonly result: Result<T>;
}

/**
 * For mounts such as `/livez`, `/v1/*` (which is also `/v1`) and `*`, for all methods: a look-up of the first segment
 * instead of a pattern over all of them. No handler of this server is a middleware; given the catch-all behind a
 * service as well, Hono would compose the two, at the price of some promises for every request of the service.
 */
export class MountRouter<T> implements Router<T> {
  readonly name = "MountRouter";
  readonly #byFirstSegment = new Map<string, Mount<T>[]>();
  #catchAll: Result<T> | null = null;

  /** Throws for what is none of these forms. */
  add(method: string, path: string, handler: T): void {
    if (method !== METHOD_NAME_ALL) throw new Error(`${path} is mounted for ${method} alone`);
    const result: Result<T> = [[[handler, {}]]];
    // As Hono writes "*".
    if (path === "/*") {
      this.#catchAll ??= result;
      return;
    }
    const isTree = path.endsWith("/*");
    const base = isTree ? path.slice(0, -2) : path;
    if (/[*:{}?]/.test(base)) throw new Error(`${path} is neither a path nor a path and all below it`);
    const segment = firstSegment(base);
    const mounts = this.#byFirstSegment.get(segment) ?? [];
    this.#byFirstSegment.set(segment, mounts);
    mounts.push({ path: base, isTree, result });
  }

  match(_method: string, path: string): Result<T> {
    const mounts = this.#byFirstSegment.get(firstSegment(path));
    return mounts?.find((mount) => isWithin(mount, path))?.result ?? this.#catchAll ?? [[]];
  }
}

function firstSegment(path: string): string {
  const end = path.indexOf("/", 1);
  return end < 0 ? path.slice(1) : path.slice(1, end);
}

function isWithin({ path: base, isTree }: { path: string; isTree: boolean }, path: string): boolean {
  return path === base || (isTree && path.startsWith(base) && path.charCodeAt(base.length) === 0x2f);
}
