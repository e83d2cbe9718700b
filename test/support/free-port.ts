// A port for programs that do not choose a free one by themselves, or for a connection that is to be refused.

/** One of 127.0.0.1 that nobody listened on a moment ago. */
export function freePort(): number {
  const listener = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data: () => undefined } });
  const { port } = listener;
  listener.stop(true);
  return port;
}
