// Routing to one handler: the first that was mounted for a path answers it, and no other is asked.

import type { Result, Router } from "hono/router";
import { RegExpRouter } from "hono/router/reg-exp-router";

/**
 * No handler of this server is a middleware. Given the catch-all behind a service as well, Hono would compose the two,
 * at the price of some promises for every request of the service.
 */
export class FirstMatchRouter<T> implements Router<T> {
  readonly name = "FirstMatchRouter";
  readonly #router = new RegExpRouter<T>();

  add(method: string, path: string, handler: T): void {
    this.#router.add(method, path, handler);
  }

  match(method: string, path: string): Result<T> {
    const found = this.#router.match(method, path);
    if (found[0].length < 2) return found;
    const first = [...found] as Result<T>;
    first[0] = [found[0][0]!] as Result<T>[0];
    return first;
  }
}
