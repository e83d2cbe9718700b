// Answers given in mid-body: the answer goes out at once, and the connection stays open for a moment in which the rest
// of the body is dropped. Closing at once would make clients that are still sending see a broken pipe instead.

import { LINGER_BYTES_MAX, LINGER_MS_MAX } from "../shared/bounds.ts";

/** What is left of a request body. */
export type BodyReader = Pick<ReadableStreamDefaultReader<Uint8Array>, "read" | "cancel">;

/**
 * A body that sends `text` and ends when `rest`, of a body that was announced as `lengthBytes` (NaN = not at all), was
 * read or LINGER_MS_MAX went by.
 */
export function lingeringBody(text: string, rest: BodyReader, lengthBytes: number): ReadableStream {
  let hasSent = false;
  return new ReadableStream(
    {
      async pull(controller) {
        if (!hasSent) {
          hasSent = true;
          controller.enqueue(new TextEncoder().encode(text));
          return;
        }
        await discard(rest, lengthBytes <= LINGER_BYTES_MAX);
        controller.close();
      },
      async cancel() {
        await rest.cancel().catch(() => undefined);
      },
    },
    { highWaterMark: 0 },
  );
}

/**
 * A short body is read to its end. Any other is given up, and from then on the runtime drops what arrives: pieces that
 * are read only to be dropped would wait for the garbage collector, a megabyte for each of hundreds of clients.
 */
async function discard(rest: BodyReader, isShort: boolean): Promise<void> {
  const { promise: timeout, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, LINGER_MS_MAX);
  try {
    if (isShort) await Promise.race([readToEnd(rest), timeout]);
    // Not awaited: the runtime resolves it only when the connection is gone.
    rest.cancel().catch(() => undefined);
    if (!isShort) await timeout;
  } catch {
    // The client has left.
  } finally {
    clearTimeout(timer);
  }
}

async function readToEnd(reader: BodyReader): Promise<void> {
  while (!(await reader.read()).done) {}
}
