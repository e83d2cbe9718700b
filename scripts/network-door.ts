// A door into another network namespace: started inside it, this forwards a UNIX socket to a port of its 127.0.0.1.
//
//   nsenter --target PID --net -- bun scripts/network-door.ts SOCKET PORT

import { connect, createServer } from "node:net";

const [socketPath, port] = process.argv.slice(2);
createServer((outside) => {
  const inside = connect(Number(port), "127.0.0.1");
  for (const [one, other] of [
    [outside, inside],
    [inside, outside],
  ] as const) {
    one.on("error", () => other.destroy());
    one.pipe(other);
  }
}).listen(socketPath, () => console.log("open"));
