// A device that is deleted while its apps are at work: none of what they send reaches whoever has its uuid next.

import { describe, expect, test } from "bun:test";
import { listPath, readJson } from "../support/kv-requests.ts";
import { openRaw } from "../support/raw-request.ts";
import type { OpenTarget, Target } from "../support/targets.ts";
import { administer, asApp, type Installed, install } from "../support/token-client.ts";
import { useTarget } from "../support/use-target.ts";

const NO_RATES = { TOKEN_RATE_READ: "0", TOKEN_RATE_WRITE: "0", TOKEN_RATE_DELETE: "0", TOKEN_RATE_BATCH: "0" };
const ROUNDS = 6;
const WRITERS = 4;
const BATCH_KEYS = 100;

export function tokenTenancySuite(name: string, open: OpenTarget): void {
  describe(`a device that is deleted while its apps write on ${name}`, () => {
    const target = useTarget(open, NO_RATES);
    loadTests(target);
    slowBodyTests(target);
  });
}

async function countOf(target: Target, uuid: string): Promise<number> {
  return (await readJson<{ count: number }>(target, listPath({ bucket: uuid, count: 1 }))).count;
}

async function keysOf(target: Target, { token }: Installed): Promise<string[]> {
  return ((await (await asApp(target, token, "/_keys")).json()) as { keys: string[] }).keys;
}

/** Writes keys and batches in turns until it is refused. Returns how often it was not, and the last status. */
async function writeOn(target: Target, token: string, writer: number): Promise<[number, number]> {
  for (let round = 0; ; round++) {
    const name = `${writer}.${round}`;
    const members = Object.fromEntries(Array.from({ length: BATCH_KEYS }, (_, index) => [`${name}.${index}`, 1]));
    const [path, body] = round % 2 === 0 ? [`/${name}`, "1"] : ["/_batchimport", JSON.stringify(members)];
    const answer = await asApp(target, token, path, { method: "POST", body });
    await answer.arrayBuffer();
    if (answer.status !== 200) return [round, answer.status];
  }
}

function loadTests(target: () => Target): void {
  test("with purge, it leaves no entry, and its successor has none", async () => {
    for (let round = 0; round < ROUNDS; round++) {
      const installed = await install(target());
      const { uuid, token } = installed;
      const writing = Array.from({ length: WRITERS }, (_, writer) => writeOn(target(), token, writer));
      while ((await countOf(target(), uuid)) === 0) {}
      expect((await administer(target(), "DELETE", `/devices/${uuid}?purge=true`)).status).toBe(204);
      const ended = await Promise.all(writing);
      expect(ended.map(([, status]) => status)).toEqual(ended.map(() => 401));
      expect(await countOf(target(), uuid)).toBe(0);
      expect(await keysOf(target(), await install(target(), {}, uuid))).toEqual([]);
    }
  });

  test("without purge, it is refused while it holds entries, or leaves none", async () => {
    const seen = new Set<number>();
    for (let round = 0; round < 3 * ROUNDS; round++) {
      const { uuid, token } = await install(target());
      const deleting = administer(target(), "DELETE", `/devices/${uuid}`);
      const written = (await asApp(target(), token, "/k", { method: "POST", body: "1" })).status;
      const { status } = await deleting;
      expect([status, written, await countOf(target(), uuid)]).toBeOneOf([
        [204, 401, 0],
        [409, 200, 1],
      ]);
      seen.add(status);
    }
    expect(seen.size).toBeGreaterThan(0);
  });
}

/** What has a body that is still on its way when the device goes, and the part of the body that comes late. */
const SLOW: Readonly<Record<string, readonly [path: string, first: string, rest: string]>> = {
  "a value": ["/late", '"val', 'ue"'],
  "a batch": ["/_batchimport", '{"late":1,"la', 'ter":2}'],
};

function slowBodyTests(target: () => Target): void {
  for (const [what, [path, first, rest]] of Object.entries(SLOW)) {
    for (const query of ["", "?purge=true"]) {
      const how = query === "" ? "" : " with purge";
      test(`${what} whose end comes after the delete${how} is 401 and in no bucket`, async () => {
        const { uuid, token } = await install(target());
        using connection = await openRaw(target().url);
        const headers = `Authorization: Bearer ${token}\r\nContent-Type: application/json`;
        const length = first.length + rest.length;
        connection.send(`POST /kv/token${path} HTTP/1.1\r\nHost: h\r\n${headers}\r\nContent-Length: ${length}\r\n\r\n`);
        connection.send(first);
        // Two requests later it was surely let in.
        expect(await countOf(target(), uuid)).toBe(0);
        expect((await asApp(target(), token, "/_info")).status).toBe(200);
        expect((await administer(target(), "DELETE", `/devices/${uuid}${query}`)).status).toBe(204);
        const successor = await install(target(), {}, uuid);
        connection.send(rest);
        expect(await connection.received(/\r\n\r\n.*\}$/s)).toMatch(/^HTTP\/1\.1 401 .*"code":"token_invalid"/s);
        expect([await countOf(target(), uuid), await keysOf(target(), successor)]).toEqual([0, []]);
      });
    }
  }
}
