// Names that users enter: looked up beside name servers that keep silent, and at those that the system has now.

import { afterEach, expect, test } from "bun:test";
import { getServers, setServers } from "node:dns";
import { threadlessLookup } from "../../src/http/threadless-lookup.ts";

const BEFORE = getServers();

afterEach(() => setServers(BEFORE));

/** Knows one address of every name, and says nothing about those of `silent.test`. */
async function nameServer(address: readonly [number, number, number, number]) {
  const socket = await Bun.udpSocket({
    hostname: "127.0.0.1",
    socket: {
      data(from, question: Buffer, port, host) {
        if (question.includes("silent")) return;
        const endOfName = question.indexOf(0, 12);
        const isForIPv4 = question.readUInt16BE(endOfName + 1) === 1;
        const asked = question.subarray(12, endOfName + 5);
        const found = Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, ...address]);
        const counts = Buffer.from([0x81, 0x80, 0, 1, 0, isForIPv4 ? 1 : 0, 0, 0, 0, 0]);
        const parts = [question.subarray(0, 2), counts, asked, ...(isForIPv4 ? [found] : [])];
        from.send(Buffer.concat(parts), port, host);
      },
    },
  });
  return { server: `127.0.0.1:${socket.port}`, [Symbol.dispose]: () => socket.close() };
}

test("passwords are hashed and other names are found while many name servers keep silent", async () => {
  using dns = await nameServer([192, 0, 2, 1]);
  const lookup = threadlessLookup(() => [dns.server]);
  let ended = 0;
  const onEnd = () => {
    ended++;
  };
  for (let index = 0; index < 40; index++) lookup(`h${index}.silent.test`).then(onEnd, onEnd);
  await Bun.password.hash("x", { algorithm: "argon2id", memoryCost: 1024, timeCost: 1 });
  expect(await lookup("here.test")).toEqual(["192.0.2.1"]);
  expect(ended).toBe(0);
});

test("name servers that the system has exchanged are asked from then on", async () => {
  using first = await nameServer([192, 0, 2, 1]);
  using second = await nameServer([192, 0, 2, 2]);
  let servers = [first.server];
  const lookup = threadlessLookup(() => servers);
  expect(await lookup("here.test")).toEqual(["192.0.2.1"]);
  servers = [second.server];
  expect(await lookup("here.test")).toEqual(["192.0.2.2"]);
  servers = [];
  expect(await lookup("here.test")).toEqual(["192.0.2.2"]);
});
