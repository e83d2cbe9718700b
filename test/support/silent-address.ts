// An address that neither takes a connection nor refuses one, as behind a firewall that drops packets.

import { dlopen, ptr } from "bun:ffi";
import { connect, type Socket } from "node:net";

const AF_INET = 2;
const SOCK_STREAM = 1;
const STALLED_MS = 1_000;
/** A queue of length 0 holds one connection, or two. */
const CONNECTIONS_MAX = 4;

/** Whether silenceAddress works here: it calls the C library of Linux. */
export const canSilence = process.platform === "linux";

/**
 * Connections to `port` of an IPv4 address of this machine stay half open until this is disposed: something listens
 * there that takes none, and its queue is full.
 */
export async function silenceAddress(host: string, port: number): Promise<Disposable> {
  const system = dlopen("libc.so.6", {
    socket: { args: ["int", "int", "int"], returns: "int" },
    bind: { args: ["int", "ptr", "int"], returns: "int" },
    listen: { args: ["int", "int"], returns: "int" },
    close: { args: ["int"], returns: "int" },
  });
  const address = new Uint8Array([
    AF_INET,
    0,
    port >> 8,
    port & 255,
    ...host.split(".").map(Number),
    ...Array(8).fill(0),
  ]);
  const descriptor = system.symbols.socket(AF_INET, SOCK_STREAM, 0);
  if (system.symbols.bind(descriptor, ptr(address), address.length) !== 0)
    throw new Error(`cannot bind ${host}:${port}`);
  system.symbols.listen(descriptor, 0);
  const sockets: Socket[] = [];
  while (sockets.length < CONNECTIONS_MAX) {
    const socket = connect({ host, port });
    socket.on("error", () => undefined);
    sockets.push(socket);
    const connected = new Promise((resolve) => socket.once("connect", () => resolve(true)));
    if (!(await Promise.race([connected, Bun.sleep(STALLED_MS)]))) break;
  }
  return {
    [Symbol.dispose]() {
      for (const socket of sockets) socket.destroy();
      system.symbols.close(descriptor);
      system.close();
    },
  };
}
