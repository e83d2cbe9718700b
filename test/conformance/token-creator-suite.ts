// Whose address an entry carries: that of the peer who created it, or what a trusted proxy says of it.

import { describe, expect, test } from "bun:test";
import { put } from "../support/kv-requests.ts";
import { sendRaw } from "../support/raw-request.ts";
import type { OpenTarget, Target } from "../support/targets.ts";
import { asApp, install } from "../support/token-client.ts";
import { useTarget } from "../support/use-target.ts";

export function tokenCreatorSuite(name: string, open: OpenTarget): void {
  describe(`the creator of an entry on ${name}`, () => {
    untrustedTests(useTarget(open));
    trustedTests(useTarget(open, { TRUSTED_PROXIES: "127.0.0.1, 10.0.0.0/8, fd00::/8" }));
  });
}

/** Creates `key` with these forwarded addresses, and returns whom its metadata names. */
async function creatorOf(target: Target, token: string, key: string, forwardedFor: string | null): Promise<unknown> {
  const headers = { "X-Forwarded-For": forwardedFor };
  const stored = await asApp(target, token, `/${key}`, { method: "POST", body: "1", headers });
  expect(stored.status).toBe(200);
  return shownCreator(target, token, key);
}

async function shownCreator(target: Target, token: string, key: string): Promise<unknown> {
  const metadata = (await (await asApp(target, token, `/${key}/metadata`)).json()) as Record<string, unknown>;
  expect(Object.keys(metadata)).toEqual(["key", "createdAt", "updatedAt", "creatorIp"]);
  return metadata.creatorIp;
}

function untrustedTests(target: () => Target): void {
  test("a forwarded address from a peer that nobody trusts is ignored", async () => {
    const { token } = await install(target());
    for (const [key, forwarded] of [
      ["a", null],
      ["b", "6.6.6.6"],
      ["c", "127.0.0.1"],
      ["d", "nonsense"],
    ] as const) {
      expect([key, await creatorOf(target(), token, key, forwarded)]).toEqual([key, "127.0.0.1"]);
    }
  });

  test("a batch and the operator's writes leave the same trace", async () => {
    const { token, uuid } = await install(target());
    const headers = { "X-Forwarded-For": "6.6.6.6" };
    await asApp(target(), token, "/_batchimport", { method: "POST", body: '{"a":1,"b":2}', headers });
    await put(target(), `/${uuid}/c`, "1", headers);
    for (const key of ["a", "b", "c"]) expect(await shownCreator(target(), token, key)).toBe("127.0.0.1");
  });
}

function trustedTests(target: () => Target): void {
  test("behind a trusted proxy it is the rightmost address that is none of them", async () => {
    const { token } = await install(target());
    for (const [index, [forwarded, creator]] of [
      [null, "127.0.0.1"],
      ["203.0.113.9", "203.0.113.9"],
      ["6.6.6.6, 203.0.113.9", "203.0.113.9"],
      ["6.6.6.6, 203.0.113.9, 10.1.2.3, 10.3.2.1", "203.0.113.9"],
      ["10.0.0.7", "10.0.0.7"],
      ["10.0.0.7, 10.0.0.8", "10.0.0.7"],
      ["::ffff:10.0.0.1", "10.0.0.1"],
      ["::ffff:203.0.113.9, ::ffff:10.0.0.1", "203.0.113.9"],
      ["2001:0DB8:0:0::0001", "2001:db8::1"],
      ["2001:db8::5, fd00::1", "2001:db8::5"],
      ["203.0.113.9, nonsense", "127.0.0.1"],
      ["203.0.113.9, nonsense, 10.0.0.5", "10.0.0.5"],
      ["203.0.113.9:1234", "127.0.0.1"],
      ["", "127.0.0.1"],
      [",", "127.0.0.1"],
      ["203.0.113.9,", "127.0.0.1"],
      ["' OR 1=1", "127.0.0.1"],
    ].entries() as Iterable<[number, [string | null, string]]>) {
      expect([forwarded, await creatorOf(target(), token, `k${index}`, forwarded)]).toEqual([forwarded, creator]);
    }
  });

  test("several headers are one list", async () => {
    const { token } = await install(target());
    const head = [`POST /kv/token/k HTTP/1.1`, "Host: x", `Authorization: Bearer ${token}`];
    head.push("X-Forwarded-For: 6.6.6.6, 203.0.113.9", "X-Forwarded-For: 10.0.0.2", "Content-Length: 1");
    const { statuses } = await sendRaw(target().url, `${head.join("\r\n")}\r\n\r\n1`);
    expect(statuses).toEqual([200]);
    expect(await shownCreator(target(), token, "k")).toBe("203.0.113.9");
  });

  test("it stays through updates and is new after a delete", async () => {
    const { token, uuid } = await install(target());
    expect(await creatorOf(target(), token, "k", "203.0.113.1")).toBe("203.0.113.1");
    expect(await creatorOf(target(), token, "k", "203.0.113.2")).toBe("203.0.113.1");
    const headers = { "X-Forwarded-For": "203.0.113.3" };
    await asApp(target(), token, "/_batchimport", { method: "POST", body: '{"k":3}', headers });
    await put(target(), `/${uuid}/k`, "4", headers);
    expect(await shownCreator(target(), token, "k")).toBe("203.0.113.1");
    await target().restart();
    expect(await shownCreator(target(), token, "k")).toBe("203.0.113.1");
    await asApp(target(), token, "/k", { method: "DELETE" });
    expect(await creatorOf(target(), token, "k", "203.0.113.4")).toBe("203.0.113.4");
    await asApp(target(), token, "/", { method: "DELETE" });
    expect(await creatorOf(target(), token, "k", "203.0.113.5")).toBe("203.0.113.5");
  });
}
