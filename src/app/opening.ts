// What is opened when somebody asks for it first: services with a start of their own, routes that are rarely asked.

import { setTimeout as wait } from "node:timers/promises";
import type { RequestScope } from "../http/request-scope.ts";
import type { Handler } from "../http/surface.ts";

/** Opened once; a failure is forgotten, so that the next one who asks tries again. */
export class Opening<T> {
  readonly #open: () => Promise<T>;
  #opening: Promise<T> | null = null;
  opened: T | null = null;

  constructor(open: () => Promise<T>) {
    this.#open = open;
  }

  open(): Promise<T> {
    this.#opening ??= this.#open().then(
      (opened) => {
        this.opened = opened;
        return opened;
      },
      (error: unknown) => {
        this.#opening = null;
        throw error;
      },
    );
    return this.#opening;
  }

  /** What was opened, after an opening that is under way; null when there is nothing to close. */
  async settled(): Promise<T | null> {
    await this.#opening?.catch(() => undefined);
    return this.opened;
  }
}

const OPENING_WAIT_MS_MAX = 30_000;

/** Opens without being asked, after `delayMs`; after a failure again, each time later, until `signal` is aborted. */
export async function openUnasked(
  opening: Opening<unknown>,
  { delayMs, signal, onFailure }: { delayMs: number; signal: AbortSignal; onFailure: (error: unknown) => void },
): Promise<void> {
  for (let waitMs = delayMs; !signal.aborted; waitMs = Math.min(2 * waitMs, OPENING_WAIT_MS_MAX)) {
    // Aborted: the loop ends.
    await wait(waitMs, undefined, { signal }).catch(() => undefined);
    if (signal.aborted) return;
    try {
      await opening.open();
      return;
    } catch (error) {
      onFailure(error);
    }
  }
}

/** Without a promise once the service is open: a read of a task is answered at once. */
export function whenOpen(
  service: Opening<{ readonly handle: Handler }>,
  respondUnopened: (scope: RequestScope, error: unknown) => Promise<Response>,
): Handler {
  return (context) =>
    service.opened?.handle(context) ??
    service.open().then(
      (opened) => opened.handle(context),
      (error: unknown) => respondUnopened(context.env.scope, error),
    );
}

/** For what is asked rarely and costs the start more than its turn: loaded with the first request. */
export function lazily(load: () => Promise<Handler>): Handler {
  const handler = new Opening(load);
  return async (context) => (await handler.open())(context);
}
