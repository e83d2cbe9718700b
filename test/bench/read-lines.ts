// The lines of a stream one by one, for processes that talk to the one that started them.

/** The last line counts also without a line end. */
export async function* readLines(stream: ReadableStream<Uint8Array>): AsyncGenerator<string, undefined> {
  const decoder = new TextDecoder();
  const parts: string[] = [];
  for await (const chunk of stream) {
    const [first = "", ...others] = decoder.decode(chunk, { stream: true }).split("\n");
    parts.push(first);
    for (const other of others) {
      yield parts.splice(0).join("");
      parts.push(other);
    }
  }
  const rest = parts.join("");
  if (rest !== "") yield rest;
  return undefined;
}
